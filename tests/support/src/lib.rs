//! Real servers for the integration tests, and the few helpers that every test needs.
//!
//! One PostgreSQL per version and one Apache Kafka are started on first use and shared by all
//! tests of the binary; a test that stops or kills its server starts a private one. Tests stay
//! apart by databases ([`postgres::TestDatabase`]) and topic names ([`unique`]). Every server dies
//! with the test process, however that ends: see [`process`].
//!
//! Not here: any knowledge of events. What a record must hold is a matter of the test.

pub mod binaries;
pub mod bridge;
pub mod consume;
pub mod java;
pub mod kafka;
pub mod load;
pub mod many_tables;
pub mod postgres;
pub mod process;
pub mod relay;
pub mod slots;
pub mod usage;
pub mod witness;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything that takes well below a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks `probe` again and again until it gives a value, and returns that.
///
/// # Panics
///
/// When `deadline` has passed; `what` says in the message what was waited for.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(started.elapsed() < deadline, "waited {deadline:?} in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `stem` made unique among all tests of all processes that run at this time: for topics, slots,
/// pipelines. Lowercase letters, digits and underscores stay what they are.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A variable of the environment, as a number.
///
/// # Panics
///
/// When it is set, and is none.
pub fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// The seed in `CHAOS_SEED`, or any.
pub fn seed() -> u64 {
    number("CHAOS_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()))
}

/// Says on standard error, past the capture of the test runner, that the running test is skipped.
/// `scripts/test` counts these lines.
pub fn report_skipped(module: &str, reason: &str) {
    let thread = std::thread::current();
    // With one test thread, tests run on the main one, and the runner has begun a line of its own.
    let (test, begin) = match thread.name() {
        Some(name) if name != "main" => (name, ""),
        _ => (module, "\n"),
    };
    // One write a line, so that lines of parallel tests do not mix.
    let line = format!("{begin}skipped: {test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error is open");
}

/// The binary under test: cargo builds it next to the tests and benches that ask for it here.
///
/// # Panics
///
/// When the running program is not one that cargo built.
pub fn rowcast() -> PathBuf {
    // target/debug/deps/integration-1a2b -> target/debug/rowcast
    let test = std::env::current_exe().expect("the path of this test");
    test.ancestors().nth(2).expect("a target directory").join("rowcast")
}

/// Runs one of the scripts in `scripts/` that print paths, and gives these.
///
/// # Errors
///
/// The last line that the script wrote on standard error.
pub fn run_script(name: &str, args: &[&str]) -> Result<Vec<PathBuf>, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name);
    let output = Command::new(&script)
        .args(args)
        .output()
        .map_err(|error| format!("{}: {error}", script.display()))?;
    if output.status.success() {
        let paths = String::from_utf8_lossy(&output.stdout);
        Ok(paths.lines().map(PathBuf::from).collect())
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(errors.lines().last().unwrap_or("no reason given").to_owned())
    }
}
