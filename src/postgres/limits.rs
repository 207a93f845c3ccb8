//! Limits that the role, the database or the server sets for whoever connects, lifted for us: a stream
//! is a command that never ends, and a first snapshot one transaction that takes hours.
//!
//! `statement_timeout` and its like have come with one version after the other, and more will, so the
//! server is asked for those that it has. A session that is read-only by default takes writes: only the
//! publication is written to. Where a snapshot must not write, its transaction says so.

/// Lifts them; the second command of every connection.
pub(super) const LIFT: &str = concat!(
    "SET statement_timeout = 0;\n",
    include_str!("../../sql/lift_read_only.sql"),
    ";\nSET default_transaction_read_only = off;\n",
    include_str!("../../sql/lift_limits.sql")
);
