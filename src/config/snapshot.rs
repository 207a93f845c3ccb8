//! `[snapshot]`: whether and how the rows are read that were there before the stream.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the rows are read that were there before the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Snapshot {
    /// When the rows of the tables are read, each published as an event with `op = "r"`. `initial`:
    /// when the pipeline begins. `always`: at every start, after the first while the stream runs.
    /// `never`. `only`: rowcast reads, drops its slot and ends; started again, it does the same.
    /// `when-needed`: as `initial`, and when changes are missing that can't be read any more. A slot
    /// that is adopted is streamed from, and no rows are read. See [snapshots](snapshots.md).
    pub mode: SnapshotMode,
    /// How many connections read a first snapshot concurrently. Default: the number of processors,
    /// at most 4.
    pub connections: Option<NonZeroUsize>,
    /// Longest that the server may work on some pages of a table without a key where somebody asked
    /// for a snapshot with a condition: the stream of all tables waits for them. The snapshot then
    /// fails.
    #[serde(with = "humantime_serde")]
    pub condition_timeout: Duration,
}

/// When the rows of the tables are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SnapshotMode {
    /// When the pipeline begins.
    #[default]
    Initial,
    /// At every start.
    Always,
    /// Never.
    Never,
    /// When the pipeline begins; nothing is streamed.
    Only,
    /// When the pipeline begins, and when changes are missing.
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
