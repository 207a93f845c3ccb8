//! Detects a failure that recurs at the same place, so that it is no longer treated as temporary.
//!
//! Most internal errors of the server are temporary: a race with DDL, a lack of memory. An error
//! that recurs at the same position of the WAL is not, and further tries would only hold WAL back
//! forever. Three tries are over within a second, so they alone prove nothing: an error that may be
//! temporary must also have lasted for [`LASTS`]. A row that the server can't send is too large at
//! every try, so it ends with the third.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::{postgres, snapshot};

/// Consecutive failures after which the failure counts as permanent.
const TIMES: u32 = 3;

/// For how long a possibly temporary failure must have recurred.
const LASTS: Duration = Duration::from_secs(30);

/// The last failure that may be recurring.
#[derive(Debug, Default)]
pub(super) struct Recurring {
    last: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    /// The failure and its position.
    what: String,
    since: Instant,
    times: u32,
}

impl Recurring {
    /// Records a failure at this moment, and returns its classification.
    pub(super) fn note(&mut self, error: Error, now: Instant) -> Error {
        let of_server = match &error {
            Error::Postgres(error) | Error::Snapshot(snapshot::Error::Postgres(error)) => error,
            _ => return self.forget(error),
        };
        let Some(what) = of_server.may_be_stuck() else { return self.forget(error) };
        let last = self.last.take().filter(|last| last.what == what);
        let mut failure = last.unwrap_or(Failure { what, since: now, times: 0 });
        failure.times += 1;
        let has_lasted = of_server.is_too_large() || now.duration_since(failure.since) >= LASTS;
        if failure.times == TIMES && !has_lasted {
            tracing::warn!(
                times = TIMES,
                ends_after_s = LASTS.as_secs(),
                error = crate::error::told(of_server),
                fix = of_server.ways_on(),
                "the server fails with the same error at the same position of the WAL; if this \
                 continues, the process ends"
            );
        }
        let is_stuck = failure.times >= TIMES && has_lasted;
        self.last = Some(failure);
        match error {
            Error::Postgres(error) | Error::Snapshot(snapshot::Error::Postgres(error))
                if is_stuck =>
            {
                Error::Postgres(error.into_stuck())
            }
            error => error,
        }
    }

    fn forget(&mut self, error: Error) -> Error {
        // A broken connection in between says nothing about the position.
        let is_of_the_way = matches!(
            error,
            Error::Postgres(
                postgres::Error::Io { .. }
                    | postgres::Error::Closed
                    | postgres::Error::Connect { .. }
                    | postgres::Error::SlotActive { .. }
            )
        );
        if !is_of_the_way {
            *self = Self::default();
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Severity;
    use crate::postgres::{ServerError, StreamPlace};

    const TOO_LARGE: &str = "invalid memory alloc request size 1132462083";

    fn failure(sqlstate: &str, message: &str, at: u64) -> Error {
        let server = ServerError {
            sqlstate: sqlstate.to_owned(),
            message: message.to_owned(),
            ..ServerError::default()
        };
        let place = StreamPlace { last: at.into(), commit: Some((at + 1).into()) };
        Error::Postgres(postgres::Error::from(server).in_stream_of("s", place, 180_000))
    }

    /// Whether the bridge ends with this failure, this many seconds after the first.
    struct Tried(Recurring, Instant);

    impl Tried {
        fn new() -> Self {
            Self(Recurring::default(), Instant::now())
        }

        fn ends(&mut self, second: u64, error: Error) -> bool {
            let error = self.0.note(error, self.1 + Duration::from_secs(second));
            error.severity() == Severity::Operator
        }
    }

    #[test]
    fn the_third_row_alike_that_is_too_large_ends_and_another_place_counts_anew() {
        let mut tried = Tried::new();
        for at in [7, 7, 8, 8] {
            assert!(!tried.ends(0, failure("XX000", TOO_LARGE, at)));
        }
        assert!(!tried.ends(0, Error::Postgres(postgres::Error::Closed)));
        assert!(tried.ends(0, failure("XX000", TOO_LARGE, 8)));
    }

    #[test]
    fn what_may_pass_ends_the_bridge_only_if_it_has_lasted_too() {
        let race = || failure("XX000", "could not open relation with OID 4711", 7);
        let mut tried = Tried::new();
        for second in [0, 1, 2, 3, 5, 9, 17, 29] {
            assert!(!tried.ends(second, race()), "after {second} s");
        }
        assert!(tried.ends(30, race()));
        // Nor does an error that was not tried in between.
        let mut tried = Tried::new();
        assert!(!tried.ends(0, race()));
        assert!(!tried.ends(40, race()));
        assert!(tried.ends(41, race()));
        // A failure that has passed does not count.
        let mut tried = Tried::new();
        assert!(!tried.ends(0, race()) && !tried.ends(20, race()));
        assert!(!tried.ends(21, failure("57P01", "terminating connection", 7)));
        for second in [31, 32, 33] {
            assert!(!tried.ends(second, race()), "after {second} s");
        }
    }

    #[test]
    fn what_the_disk_does_is_tried_for_as_long_as_it_lasts() {
        let mut tried = Tried::new();
        for second in 0..100 {
            assert!(!tried.ends(second, failure("58P01", "could not open file", 7)));
        }
    }
}
