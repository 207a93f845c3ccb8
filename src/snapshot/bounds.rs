//! Bounds of snapshot requests, and the errors of invalid ones.

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

/// The types of signals.
const TYPES: &str = "use snapshot, pause, resume or stop, or Debezium's execute-snapshot, \
                     pause-snapshot, resume-snapshot or stop-snapshot";

/// What is wrong with a request.
#[derive(Debug, Error)]
pub enum SignalError {
    /// It is not valid JSON of a request.
    #[error("reading a signal: {0}")]
    Json(#[from] serde_json::Error),
    /// Its type is unknown.
    #[error("a signal of type {found:?}; {TYPES}")]
    Type {
        /// The type that it has.
        found: String,
    },
    /// No table is named.
    #[error("no table is named; write \"tables\": [\"schema.table\"]")]
    NoTable,
    /// A table's name is not a valid pattern.
    #[error("{0}")]
    Pattern(#[from] Fault),
    /// A regular expression that can't be parsed, like some of Java's.
    #[error(
        "{pattern:?} is a regular expression that rowcast does not support: {reason}; write \
         schema.table, or a glob of it such as public.*"
    )]
    Regex {
        /// The expression.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// It is too long.
    #[error("it has {bytes} bytes; the maximum is {MAX_BYTES}; name fewer tables, or use a glob")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is not UTF-8.
    #[error("it is not text in UTF-8")]
    NotText,
    /// An unknown type of snapshot.
    #[error("unknown snapshot type {found:?}; use incremental or blocking")]
    SnapshotType {
        /// The type that it has.
        found: String,
    },
    /// A filter that is a whole statement.
    #[error(
        "the filter of a blocking snapshot is a SELECT in Debezium; send it as \"incremental\", with \
         what would follow WHERE"
    )]
    BlockingFilter,
    /// Too many tables are named.
    #[error("{count} tables are named; the maximum is {MAX_NAMES}; use a glob such as public.*")]
    TooManyTables {
        /// Their number.
        count: usize,
    },
    /// Too many globs.
    #[error("{count} globs are named; the maximum is {MAX_GLOBS}")]
    TooManyGlobs {
        /// Their number.
        count: usize,
    },
    /// A name is too long.
    #[error("a table's name has {bytes} bytes; the maximum is {MAX_NAME_BYTES}")]
    LongName {
        /// Its length.
        bytes: usize,
    },
    /// An ID is too long.
    #[error("the ID has {bytes} bytes; the maximum is {MAX_ID_BYTES}")]
    LongId {
        /// Its length.
        bytes: usize,
    },
    /// The condition is not valid.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// Signals may not have conditions.
    #[error(
        "it has a condition, which is SQL that would run with rowcast's rights; set \
         postgres.signal_conditions = true to allow that"
    )]
    ConditionsOff,
    /// A condition is for a table that is not requested.
    #[error(
        "additional-conditions name {table:?}, which data-collections do not contain in the same \
         form"
    )]
    ConditionAlone {
        /// The table.
        table: String,
    },
}

impl SignalError {
    /// The error without any of the sent text, which may come from a row.
    #[must_use]
    pub fn without_values(&self) -> String {
        match self {
            Self::Json(error) => format!(
                "the JSON in data is not that of this type: line {}, column {}",
                error.line(),
                error.column()
            ),
            Self::Type { .. } => format!("its type is unknown; {TYPES}"),
            Self::Pattern(_) => {
                "a table is named neither as schema.table nor as a glob of it".to_owned()
            }
            Self::Regex { .. } => {
                "a table is named by a regular expression that rowcast does not support; write \
                 schema.table, or a glob of it such as public.*"
                    .to_owned()
            }
            Self::SnapshotType { .. } => {
                "unknown snapshot type; use incremental or blocking".to_owned()
            }
            Self::ConditionAlone { .. } => {
                "additional-conditions name a table that data-collections do not contain in the \
                 same form"
                    .to_owned()
            }
            Self::NoTable
            | Self::TooLong { .. }
            | Self::NotText
            | Self::BlockingFilter
            | Self::TooManyTables { .. }
            | Self::TooManyGlobs { .. }
            | Self::LongName { .. }
            | Self::LongId { .. }
            | Self::Condition(_)
            | Self::ConditionsOff => self.to_string(),
        }
    }
}
