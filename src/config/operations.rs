//! The kinds of changes, as `postgres.skipped_operations` names them.

use serde::{Deserialize, Serialize};

/// A kind of change. Debezium's letters are read too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Operation {
    /// A new row, `c`.
    Insert,
    /// A changed row, `u`.
    Update,
    /// A deleted row, `d`.
    Delete,
    /// An emptied table, `t`.
    Truncate,
    /// A logical message, `m`. Publications do not affect these.
    Message,
}

impl Operation {
    /// The kinds that a publication can have, in the order in which Postgres lists them.
    pub const ALL: [Self; 4] = [Self::Insert, Self::Update, Self::Delete, Self::Truncate];

    /// The words that name them in a file.
    pub(super) const WORDS: &'static [&'static str] =
        &["insert", "update", "delete", "truncate", "message"];

    /// The operation's name, as in a publication's `publish`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::Message => "message",
        }
    }

    /// The word for one of Debezium's letters; any other text as it is.
    pub(super) fn spelt_out(text: &str) -> &str {
        match text {
            "c" => "insert",
            "u" => "update",
            "d" => "delete",
            "t" => "truncate",
            "m" => "message",
            word => word,
        }
    }
}
