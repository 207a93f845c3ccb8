//! Lifts limits that the role, the database or the server sets for sessions: a stream is a command
//! that never ends, and a first snapshot one transaction that takes hours.
//!
//! New Postgres versions keep adding limits like `statement_timeout`, so the server lists those
//! that it has. A session that is read-only by default is made writable: only the publication is
//! written to. A snapshot's transaction, which must not write, is declared read-only.

/// Lifts them; the second command of every connection.
pub(super) const LIFT: &str = concat!(
    "SET statement_timeout = 0;\n",
    include_str!("../../sql/lift_read_only.sql"),
    ";\nSET default_transaction_read_only = off;\n",
    include_str!("../../sql/lift_limits.sql")
);
