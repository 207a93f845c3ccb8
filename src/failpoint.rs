//! Panics that a test asks for, each by the name of the thread or task that it is to be in.
//!
//! They are asked for by the environment, and only in builds with debug assertions: a release build
//! has nothing of this. What the environment names panics as soon as it is reached; with `@` and the name
//! of a file, once that file names it: so a test can first wait for a state of the bridge.

/// Names the places that are to panic, separated by commas; or the file that will.
#[cfg(debug_assertions)]
const VARIABLE: &str = "TEST_ROWCAST_PANIC_IN";

#[cfg(debug_assertions)]
static ASKED: std::sync::LazyLock<Option<String>> =
    std::sync::LazyLock::new(|| std::env::var(VARIABLE).ok());

/// Panics where a test asks for it.
#[cfg(debug_assertions)]
pub(crate) fn reach(place: &str) {
    let Some(asked) = ASKED.as_deref() else { return };
    let names_it = |places: &str| places.split(',').any(|asked| asked.trim() == place);
    let is_asked = match asked.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).is_ok_and(|places| names_it(&places)),
        None => names_it(asked),
    };
    assert!(!is_asked, "a test asked for it in {place}");
}

/// Does nothing.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) const fn reach(_place: &str) {}

/// Awaits `work`, and panics meanwhile in the task that does, where a test asks for it.
#[cfg(debug_assertions)]
pub(crate) async fn within<F: Future>(place: &'static str, work: F) -> F::Output {
    /// Time between two looks at what is asked for.
    const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

    if ASKED.is_none() {
        return work.await;
    }
    let asked = async {
        loop {
            reach(place);
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        never = asked => never,
    }
}

/// Awaits `work`.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn within<F: Future>(_place: &'static str, work: F) -> F {
    work
}
