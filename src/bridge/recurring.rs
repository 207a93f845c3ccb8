//! Notices a failure that comes again and again at the same place, so that it is no longer taken for
//! one that passes.
//!
//! Most of what the server reports as an internal error passes: a race with DDL, a lack of memory. What
//! fails alike at the same position of the WAL three times in a row never does, and trying on would only
//! hold WAL back for ever.

use crate::error::Error;
use crate::postgres;
use crate::snapshot;

/// Failures in a row after which it is none that passes.
const TIMES: u32 = 3;

/// The last failure that may be one of these, and how often it came.
#[derive(Debug, Default)]
pub(super) struct Recurring {
    last: Option<String>,
    times: u32,
}

impl Recurring {
    /// Takes note of a failure, and returns what it is.
    pub(super) fn note(&mut self, error: Error) -> Error {
        let of_server = match &error {
            Error::Postgres(error) | Error::Snapshot(snapshot::Error::Postgres(error)) => error,
            _ => return self.forget(error),
        };
        let Some(failure) = of_server.may_be_stuck() else { return self.forget(error) };
        if self.last.as_ref() == Some(&failure) {
            self.times += 1;
        } else {
            (self.last, self.times) = (Some(failure), 1);
        }
        match error {
            Error::Postgres(error) | Error::Snapshot(snapshot::Error::Postgres(error))
                if self.times >= TIMES =>
            {
                Error::Postgres(error.into_stuck())
            }
            error => error,
        }
    }

    fn forget(&mut self, error: Error) -> Error {
        // A connection that breaks in between says nothing of the place.
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
    use crate::postgres::{Place, ServerError};

    fn failure(sqlstate: &str, at: u64) -> Error {
        let server = ServerError {
            sqlstate: sqlstate.to_owned(),
            message: "invalid memory alloc request size 1132462083".to_owned(),
            ..ServerError::default()
        };
        let place = Place { last: at.into(), commit: Some((at + 1).into()) };
        Error::Postgres(postgres::Error::from(server).in_stream_of("s", place, 180_000))
    }

    #[test]
    fn the_third_alike_at_one_place_ends_and_another_place_counts_anew() {
        let mut recurring = Recurring::default();
        let mut ends = |error| recurring.note(error).severity() == crate::error::Severity::Operator;
        for at in [7, 7, 8, 8] {
            assert!(!ends(failure("XX000", at)));
        }
        assert!(!ends(Error::Postgres(postgres::Error::Closed)));
        assert!(ends(failure("XX000", 8)));
    }

    #[test]
    fn what_the_disk_does_is_tried_for_as_long_as_it_lasts() {
        let mut recurring = Recurring::default();
        for _ in 0..10 {
            let error = recurring.note(failure("58P01", 7));
            assert_eq!(error.severity(), crate::error::Severity::Retry);
        }
    }
}
