//! Why a change cannot be published, and what an operator can do about it.
//!
//! Names the table and column, never a value.

use super::rules::RuleError;
use crate::types::ValueError;

/// A change that cannot be published. Names the table and column, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A value is not the text form of its type.
    #[error("encoding column {column:?} of table {table}")]
    Value {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
        /// What is wrong.
        source: ValueError,
    },
    /// A value came in binary form, which the bridge does not ask for.
    #[error(
        "encoding column {column:?} of table {table}: the server sent a binary value, which was not asked for"
    )]
    Binary {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// A key column is null.
    #[error("keying a row of table {table}: key column {column:?} is null")]
    KeyNull {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// A key column is a TOAST value that did not change and was not sent.
    #[error(
        "keying a row of table {table}: the server did not send the unchanged large value of key column {column:?}"
    )]
    KeyUnchanged {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// A TOAST value did not change and was not sent, and that shall be an error.
    #[error(
        "publishing a row of table {table}: the server did not send the unchanged large value of column {column:?}, and format.unchanged_toast is \"fail\""
    )]
    Unchanged {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// The record is larger than Kafka takes.
    #[error(
        "a record of {bytes} bytes of table {table} (key columns: {}) is larger than the {limit} that {bound} allows",
        list(key_columns)
    )]
    TooLarge {
        /// `schema.table`.
        table: String,
        /// Names of the key's columns.
        key_columns: Vec<String>,
        /// Bytes on the wire, before compression.
        bytes: usize,
        /// Bytes that are allowed.
        limit: usize,
        /// What allows them.
        bound: &'static str,
    },
    /// The record of a logical message is larger than Kafka takes.
    #[error(
        "a record of at least {bytes} bytes of a logical message is larger than the {limit} that {bound} allows"
    )]
    MessageTooLarge {
        /// Bytes on the wire, before compression; of prefix and content alone, where those are too
        /// many.
        bytes: usize,
        /// Bytes that are allowed.
        limit: usize,
        /// What allows them.
        bound: &'static str,
    },
    /// The prefix of a logical message is not text.
    #[error("keying a logical message: its prefix is not UTF-8")]
    MessagePrefix,
    /// The settings of the table do not fit it.
    #[error(transparent)]
    Rules(RuleError),
    /// A deleted row came without a key column, for it is not part of the replica identity.
    #[error(
        "keying a deleted row of table {table}: key column {column:?} is not part of the replica identity"
    )]
    KeyOutsideIdentity {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
}

impl EncodeError {
    /// The kind of error, one word for all that are fixed alike; none where it is not a matter of
    /// single rows.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Value { .. } => Some("value"),
            Self::Binary { .. } => Some("binary"),
            Self::KeyNull { .. } => Some("key-null"),
            Self::KeyUnchanged { .. } => Some("key-unchanged"),
            Self::Unchanged { .. } => Some("unchanged"),
            Self::KeyOutsideIdentity { .. } => Some("key-outside-identity"),
            Self::TooLarge { .. } => Some("too-large"),
            Self::MessageTooLarge { .. } => Some("message-too-large"),
            Self::MessagePrefix => Some("message-prefix"),
            Self::Rules(_) => None,
        }
    }

    /// What an operator can do about it: SQL or a setting.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::KeyOutsideIdentity { table, .. } | Self::KeyUnchanged { table, .. } => {
                Some(format!(
                    "for changes to come: ALTER TABLE {table} REPLICA IDENTITY FULL; for those already written: leave out the key configured for {table}"
                ))
            }
            Self::Unchanged { table, .. } => Some(format!(
                "for changes to come: ALTER TABLE {table} REPLICA IDENTITY FULL; for those already written: another format.unchanged_toast"
            )),
            Self::KeyNull { table, .. } => Some(format!(
                "configure a key of NOT NULL columns for {table}; if it is partitioned, set the \
                 root's REPLICA IDENTITY on each partition"
            )),
            Self::TooLarge { table, bytes, .. } => Some(format!(
                "raise kafka.properties.\"message.max.bytes\" and the topic's max.message.bytes above \
                 {bytes}; or name text columns of {table} in truncate_oversize; or leave large columns \
                 out by exclude_columns; or set errors.on_oversize = \"dead-letter\""
            )),
            Self::MessageTooLarge { bytes, .. } => Some(format!(
                "leave errors.on_oversize out, or set it to \"dead-letter\"; or add \"message\" to \
                 postgres.skipped_operations; or raise kafka.properties.\"message.max.bytes\" and \
                 the topic's max.message.bytes above {bytes}"
            )),
            Self::MessagePrefix => Some(
                "leave errors.on_error out, or set it to \"skip-with-dead-letter\"; or add \
                 \"message\" to postgres.skipped_operations"
                    .to_owned(),
            ),
            Self::Rules(error) => Some(error.fix()),
            Self::Value { .. } | Self::Binary { .. } => None,
        }
    }
}

fn list(columns: &[String]) -> String {
    if columns.is_empty() { "none".to_owned() } else { columns.join(", ") }
}
