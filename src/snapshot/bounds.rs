//! How large a request may be, and what is wrong with one that can't be taken.

use thiserror::Error;

use crate::config::Fault;
use crate::config::condition::ConditionError;

/// The longest signal, and the longest body of a request over HTTP.
pub const MAX_BYTES: usize = 64 * 1024;
/// The longest ID of a request.
pub const MAX_ID_BYTES: usize = 128;
/// The most names of one request.
pub const MAX_NAMES: usize = 1_000;
/// The most globs among them: each is compiled, which takes some 20 kB.
pub const MAX_GLOBS: usize = 50;
/// The longest name: schema and table with 63 bytes each, and escapes.
pub const MAX_NAME_BYTES: usize = 300;

/// What is wrong with a request.
#[derive(Debug, Error)]
pub enum SignalError {
    /// It does not read as one.
    #[error("reading a signal: {0}")]
    Json(#[from] serde_json::Error),
    /// Its type is unknown.
    #[error(
        "a signal of type {found:?}; there are snapshot, pause, resume and stop, and Debezium's \
         execute-snapshot, pause-snapshot, resume-snapshot and stop-snapshot"
    )]
    Type {
        /// What it says.
        found: String,
    },
    /// No table is named.
    #[error("no table is named; write \"tables\": [\"schema.table\"]")]
    NoTable,
    /// A table's name is no pattern.
    #[error("{0}")]
    Pattern(#[from] Fault),
    /// A regular expression, as Debezium takes them.
    #[error(
        "{pattern:?} is a regular expression; write schema.table, or a glob of it such as public.*"
    )]
    Regex {
        /// The expression.
        pattern: String,
    },
    /// Too many tables are named.
    #[error("{count} tables are named, and {MAX_NAMES} are the most; use a glob such as public.*")]
    TooManyTables {
        /// How many.
        count: usize,
    },
    /// Too many globs.
    #[error("{count} globs are named, and {MAX_GLOBS} are the most")]
    TooManyGlobs {
        /// How many.
        count: usize,
    },
    /// A name is too long.
    #[error("a table's name has {bytes} bytes, and {MAX_NAME_BYTES} are the most")]
    LongName {
        /// Its length.
        bytes: usize,
    },
    /// An ID is too long.
    #[error("the ID has {bytes} bytes, and {MAX_ID_BYTES} are the most")]
    LongId {
        /// Its length.
        bytes: usize,
    },
    /// The condition is none.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// Conditions are not taken from signals.
    #[error(
        "it has a condition, and conditions of signals are SQL that runs with rowcast's rights; set \
         postgres.signal_conditions = true to take them"
    )]
    ConditionsOff,
    /// A condition is for a table that is not asked for.
    #[error("additional-conditions name {table:?}, which data-collections do not")]
    ConditionAlone {
        /// The table.
        table: String,
    },
}
