//! `[errors]`: what happens to a row, or a logical message, that can't be published.
//!
//! A row that can't be published stops the stream unless configured otherwise. A logical message
//! does not: every role that may log in to the database may write one, and must not be able to stop
//! the pipeline with it.

use serde::{Deserialize, Serialize};

/// What happens to a change that can't be published.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// What to do with a row whose values or key can't be written: `fail` stops the stream until it
    /// is fixed; `skip-with-dead-letter` publishes it to the dead letter topic and continues.
    /// Default: `fail` for rows; `skip-with-dead-letter` for logical messages, which any role may
    /// write.
    pub on_error: Option<OnError>,
    /// What to do with a row whose record is larger than Kafka accepts, if
    /// `tables."...".truncate_oversize` does not make it fit: `fail` stops the stream;
    /// `dead-letter` publishes its key, position and the sizes of its values to the dead letter
    /// topic and continues. Default: `fail` for rows; `dead-letter` for logical messages, which any
    /// role may write.
    pub on_oversize: Option<OnOversize>,
    /// The topic of rows and messages that can't be published. It contains their values as the
    /// server sent them, without those of columns that are left out, masked, hashed or cut; of a
    /// row that is too large, only the sizes. See [dead letters](dead-letters.md). Default:
    /// `<prefix>.dead-letter`.
    pub dead_letter_topic: Option<String>,
}

/// What to do with a change that can't be published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnError {
    /// Stop: nothing is left out unless configured.
    #[default]
    Fail,
    /// Publish it to the dead letter topic, and continue.
    SkipWithDeadLetter,
}

/// What to do with a change that is larger than Kafka accepts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnOversize {
    /// Stop: nothing is left out unless configured.
    #[default]
    Fail,
    /// Publish it to the dead letter topic without its values, and continue.
    DeadLetter,
}
