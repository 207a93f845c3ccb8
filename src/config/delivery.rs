//! What is promised of delivery, and what to do when it can't be kept.

use serde::{Deserialize, Serialize};

/// What is promised of delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Delivery {
    /// Nothing is lost; after a crash, some of it comes again.
    #[default]
    AtLeastOnce,
    /// Nothing is lost and nothing comes again, for readers of what is committed.
    ExactlyOnce,
}

/// What to do when changes are missing that can't be read any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnGap {
    /// Stop, and say which.
    #[default]
    Stop,
    /// Say which, and go on without them.
    Accept,
    /// Say which, and begin again: read all rows, then stream.
    Snapshot,
}
