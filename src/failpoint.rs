//! Panics on request of a test, named by the thread or task that is to panic.
//!
//! An environment variable requests them, only in builds with debug assertions: release builds
//! contain none of this. A named place panics as soon as it is reached; with `@FILE`, once that
//! file names it, so that a test can first wait for a state of the bridge.

/// Names the places that are to panic, separated by commas; or a file that will name them.
#[cfg(debug_assertions)]
const VARIABLE: &str = "TEST_ROWCAST_PANIC_IN";

#[cfg(debug_assertions)]
static ASKED: std::sync::LazyLock<Option<String>> =
    std::sync::LazyLock::new(|| std::env::var(VARIABLE).ok());

/// Panics if a test requests it.
#[cfg(debug_assertions)]
pub(crate) fn reach(place: &str) {
    let Some(asked) = ASKED.as_deref() else { return };
    let names_it = |places: &str| places.split(',').any(|asked| asked.trim() == place);
    let is_asked = match asked.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).is_ok_and(|places| names_it(&places)),
        None => names_it(asked),
    };
    assert!(!is_asked, "a test requested it in {place}");
}

/// Does nothing.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) const fn reach(_place: &str) {}

/// Awaits `work`; panics in this task meanwhile if a test requests it.
#[cfg(debug_assertions)]
pub(crate) async fn within<F: Future>(place: &'static str, work: F) -> F::Output {
    /// Time between two checks of what is requested.
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
