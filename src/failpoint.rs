//! Panics that a test asks for, each by the name of the thread or task that it is to be in.
//!
//! They are asked for by the environment, and only in builds with debug assertions: a release build
//! has nothing of this.

/// Names the places that are to panic, separated by commas.
#[cfg(debug_assertions)]
const VARIABLE: &str = "TEST_ROWCAST_PANIC_IN";

/// Panics where a test asks for it.
#[cfg(debug_assertions)]
pub(crate) fn reach(place: &str) {
    use std::sync::LazyLock;

    static ASKED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(VARIABLE).ok());
    if let Some(asked) = ASKED.as_deref()
        && asked.split(',').any(|asked| asked == place)
    {
        panic!("a test asked for it in {place}");
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
#[inline]
pub(crate) const fn reach(_place: &str) {}
