//! `[snapshot]`: whether and how existing rows are read.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How existing rows are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Snapshot {
    /// When existing rows are read, each published as an event with `op = "r"`. `initial`: when the
    /// pipeline first starts. `always`: at every start; after the first, while the stream runs.
    /// `never`. `only`: rowcast reads the rows, drops its slot and ends; started again, it does the
    /// same. `when-needed`: as `initial`, and when changes are missing that can't be read any more.
    /// From an adopted slot rowcast only streams and reads no rows. See [snapshots](snapshots.md).
    pub mode: SnapshotMode,
    /// How many connections read a first snapshot concurrently. Default: the number of processors,
    /// at most 4.
    pub connections: Option<NonZeroUsize>,
    /// Longest time that the server may take to read a few pages of a table without a key, for a
    /// requested snapshot with a condition: the stream of all tables waits meanwhile. After that
    /// the snapshot fails.
    #[serde(with = "humantime_serde")]
    pub condition_timeout: Duration,
}

/// When existing rows are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SnapshotMode {
    /// When the pipeline first starts.
    #[default]
    Initial,
    /// At every start.
    Always,
    /// Never.
    Never,
    /// When the pipeline first starts; nothing is streamed.
    Only,
    /// When the pipeline first starts, and when changes are missing.
    WhenNeeded,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            mode: SnapshotMode::Initial,
            connections: None,
            condition_timeout: Duration::from_secs(10),
        }
    }
}

impl Snapshot {
    const CONNECTIONS_MAX: usize = 4;

    /// How many connections read concurrently.
    #[must_use]
    pub fn connections(&self) -> NonZeroUsize {
        self.connections.unwrap_or_else(|| {
            let processors = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
            processors.min(NonZeroUsize::new(Self::CONNECTIONS_MAX).unwrap_or(NonZeroUsize::MIN))
        })
    }
}
