//! The time of day, in microseconds, and how Postgres counts it.

use std::time::{SystemTime, UNIX_EPOCH};

/// The epoch of Postgres, 2000-01-01, in microseconds since that of Unix.
/// <https://www.postgresql.org/docs/current/protocol-replication.html>
pub(crate) const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// This machine's clock, in microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}
