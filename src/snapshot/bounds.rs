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

/// The types of signals.
const TYPES: &str = "there are snapshot, pause, resume and stop, and Debezium's execute-snapshot, \
                     pause-snapshot, resume-snapshot and stop-snapshot";

/// What is wrong with a request.
#[derive(Debug, Error)]
pub enum SignalError {
    /// It does not read as one.
    #[error("reading a signal: {0}")]
    Json(#[from] serde_json::Error),
    /// Its type is unknown.
    #[error("a signal of type {found:?}; {TYPES}")]
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
    /// A regular expression that can't be read, as some of Java's.
    #[error(
        "{pattern:?} is a regular expression that rowcast does not take: {reason}; write \
         schema.table, or a glob of it such as public.*"
    )]
    Regex {
        /// The expression.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// It is too long to be looked at.
    #[error("it has {bytes} bytes, and {MAX_BYTES} are the most; name fewer tables, or use a glob")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is not UTF-8.
    #[error("it is not text in UTF-8")]
    NotText,
    /// A snapshot of a kind that there is not.
    #[error("there is no snapshot of type {found:?}; there are incremental and blocking")]
    SnapshotType {
        /// What it says.
        found: String,
    },
    /// A filter that is a whole statement.
    #[error(
        "the filter of a blocking snapshot is a SELECT in Debezium; send it as \"incremental\", with \
         what would follow WHERE"
    )]
    BlockingFilter,
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
    #[error(
        "additional-conditions name {table:?}, which data-collections do not name in the same words"
    )]
    ConditionAlone {
        /// The table.
        table: String,
    },
}

impl SignalError {
    /// What is wrong, without anything of what was sent: it may be of a row.
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
                "a table is named by a regular expression that rowcast does not take; write \
                 schema.table, or a glob of it such as public.*"
                    .to_owned()
            }
            Self::SnapshotType { .. } => {
                "there is no snapshot of this type; there are incremental and blocking".to_owned()
            }
            Self::ConditionAlone { .. } => {
                "additional-conditions name a table that data-collections do not name in the same \
                 words"
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
