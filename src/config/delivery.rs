//! The delivery guarantee, and what to do when changes are lost.

use serde::{Deserialize, Serialize};

/// The delivery guarantee.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Delivery {
    /// Nothing is lost; after a crash, some changes are published again.
    #[default]
    AtLeastOnce,
    /// Nothing is lost and nothing is repeated, for readers of committed records.
    ExactlyOnce,
}

/// What to do when changes are missing and can't be read any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnGap {
    /// Stop, and report them.
    #[default]
    Stop,
    /// Report them, and continue without them.
    Accept,
    /// Report them, and start over: read all rows, then stream.
    Snapshot,
}
