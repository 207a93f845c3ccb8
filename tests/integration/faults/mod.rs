//! The faults that the bridge must survive, one test a group: after each, nothing is lost, the order
//! of a key is kept, and the process either works again by itself or ends with the fix in words.
//!
//! `docs/faults.md` names the test of each fault; a test here holds that page to the tests there
//! are. Not here: logins (`login`), lines that break (`line`), parts that stand still (`frozen`),
//! kills of the bridge (`delivery`), tables that change (`ddl`).

mod decoding;
mod ending;
mod failover;
mod first_snapshot;
mod kafka;
mod panics;
mod postgres;
mod role;
mod slot;
mod slot_creation;
mod standby;
mod start;
mod stderr;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio_postgres::Client;

use crate::support::bridge::{Bridge, EndedEarly};
use crate::support::consume::{OwnedRecord, RecordReader};
use crate::support::{PATIENCE, eventually};

/// Rows that count their versions, so that what a key's records say can be checked alone.
pub(super) async fn create_table(client: &Client) {
    let create = "CREATE TABLE rides (id int PRIMARY KEY, version int NOT NULL)";
    client.batch_execute(create).await.expect("make a table");
}

/// Inserts rows and updates each once, in two transactions.
pub(super) async fn write(client: &Client, ids: RangeInclusive<i32>) {
    let insert = "INSERT INTO rides SELECT n, 1 FROM generate_series($1::int, $2::int) n";
    client.execute(insert, &[ids.start(), ids.end()]).await.expect("insert");
    let update = "UPDATE rides SET version = version + 1 WHERE id BETWEEN $1 AND $2";
    client.execute(update, &[ids.start(), ids.end()]).await.expect("update");
}

/// Waits until Kafka has every row's every version, and returns the number of records that came
/// more than once.
///
/// # Panics
///
/// When one is missing for long, or a version came before the one that it follows.
pub(super) async fn all_arrive(brokers: &str, name: &str, client: &Client) -> usize {
    let rows = client.query("SELECT id, version FROM rides", &[]).await.expect("read the table");
    let rows: BTreeMap<i64, i64> =
        rows.iter().map(|row| (row.get::<_, i32>(0).into(), row.get::<_, i32>(1).into())).collect();
    let wanted: i64 = rows.values().sum();
    let (brokers, topic) = (brokers.to_owned(), format!("{name}.public.rides"));
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = RecordReader::open(&brokers, &[&topic], PATIENCE);
        let (mut seen, mut read) = (BTreeMap::new(), 0);
        let (mut versions, mut repeats) = (0, 0);
        reader.until(
            |records| {
                for record in &records[read..] {
                    let new = count_new(&mut seen, record);
                    versions += new;
                    repeats += usize::from(new == 0);
                }
                read = records.len();
                versions >= wanted
            },
            PATIENCE,
        );
        assert_eq!(seen, rows);
        repeats
    });
    reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Takes note of a record; how many versions of a row it tells of that are new.
fn count_new(seen: &mut BTreeMap<i64, i64>, record: &OwnedRecord) -> i64 {
    let event = record.json().expect("nothing is deleted");
    let number = |column: &str| event["after"][column].as_i64().expect("a number");
    let (id, version) = (number("id"), number("version"));
    let before = seen.get(&id).copied().unwrap_or(0);
    // A row that was there before the stream had a life of its own.
    let is_next = version <= before + 1 || event["op"] == "r";
    assert!(is_next, "version {version} of {id} came after {before}");
    if version <= before {
        return 0;
    }
    seen.insert(id, version);
    version - before
}

/// Waits until `/readyz` answers with this code and a body that holds `text`.
pub(super) async fn readyz(bridge: &Bridge, code: u16, text: &str) {
    let what = format!("/readyz to say {code} {text:?}");
    eventually(PATIENCE, &what, async || {
        let (is, body) = bridge.get("/readyz")?;
        (is == code && body.contains(text)).then_some(())
    })
    .await;
}

/// A number of `/metrics`.
pub(super) fn metric(bridge: &Bridge, name: &str) -> u64 {
    let (_, page) = bridge.get("/metrics").expect("the bridge answers");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{page}"))
}

/// Waits until the bridge ends by itself because someone must act: exit code 69, and both texts in
/// its last words.
pub(super) async fn ends_with(bridge: &mut Bridge, error: &str, fix: &str) {
    let status = eventually(PATIENCE, "the bridge to end", async || bridge.exited()).await;
    let log = bridge.log();
    assert_eq!(status.code(), Some(69), "log:\n{log}");
    let fixes = log.rsplit_once("\nfix:").map_or("", |(_, fixes)| fixes);
    assert!(log.contains(error), "no {error:?} in the log:\n{log}");
    assert!(fixes.contains(fix), "no {fix:?} in the fixes; log:\n{log}");
}

/// The fix in the last words of a bridge that ended.
pub(super) fn last_fix(log: &str) -> String {
    log.rsplit_once("\nfix:").map_or("", |(_, fix)| fix).to_owned()
}

/// Starts the bridge again, and waits until rows flow.
pub(super) fn start_again(bridge: &mut Bridge) {
    bridge.start_again();
    bridge.wait_until_ready(PATIENCE).unwrap_or_else(|EndedEarly { status, log }| {
        panic!("it ended: {status}; log:\n{log}");
    });
}

/// Ends the bridge, which must go well.
pub(super) fn stop(bridge: &mut Bridge) {
    let status = bridge.terminate(PATIENCE);
    assert!(status.success(), "{status}; log:\n{}", bridge.log());
}

/// The server process that serves a slot, if one does.
pub(super) async fn walsender(client: &Client, name: &str) -> Option<i32> {
    let query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1";
    let slot = format!("rowcast_{name}");
    client.query_opt(query, &[&slot]).await.expect("ask for the slot")?.get(0)
}

/// A pause that is the fault itself: something must last for this long.
pub(super) async fn last(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[test]
fn the_manual_names_tests_that_there_are_and_every_test_of_these() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = include_str!("../../../docs/faults.md");
    let named: BTreeSet<&str> =
        manual.split('`').skip(1).step_by(2).filter(|code| code.contains("::")).collect();
    for test in &named {
        let (module, name) = test.rsplit_once("::").expect("it was looked for");
        let file = module.replace("::", "/");
        let in_folder = |folder: &str| {
            let file = root.join(folder).join(&file).with_extension("rs");
            std::fs::read_to_string(file).unwrap_or_default()
        };
        let text = in_folder("tests/integration") + &in_folder("src");
        assert!(text.contains(&format!("fn {name}()")), "there is no {test}");
    }
    for module in [
        "decoding",
        "ending",
        "failover",
        "first_snapshot",
        "kafka",
        "panics",
        "postgres",
        "role",
        "slot",
        "slot_creation",
        "standby",
        "start",
        "stderr",
        "watchdog",
        "churn",
        "library",
        "postgres_19",
    ] {
        let module = match module {
            "churn" | "library" | "postgres_19" => module.to_owned(),
            _ => format!("faults/{module}"),
        };
        let file = root.join("tests/integration").join(&module).with_extension("rs");
        let text = std::fs::read_to_string(file).expect("a module of these");
        let tests = text.split("#[tokio::test(flavor = \"multi_thread\")]").skip(1);
        for test in tests {
            let name = test.trim().strip_prefix("async fn ").expect("a test");
            let name = name.split('(').next().expect("a name");
            let test = format!("{}::{name}", module.replace('/', "::"));
            assert!(named.contains(test.as_str()), "docs/faults.md does not name {test}");
        }
    }
}

/// Has a task panic that answers a request. The answer does not come.
pub(super) fn ask_for_status(bridge: &Bridge) -> TcpStream {
    let address = ("127.0.0.1", bridge.admin_port());
    let mut stream = TcpStream::connect(address).expect("the bridge listens");
    stream.write_all(b"GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("it reads");
    stream
}
