//! `[watchdog]`: when a pipeline without progress counts as stalled.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a pipeline without progress counts as stalled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watchdog {
    /// New WAL exists on the server and none of it was processed for this long: `/readyz` turns 503
    /// and says so.
    #[serde(with = "humantime_serde")]
    pub source_stalled_after: Duration,
    /// Records wait and the brokers have acknowledged none for this long: `/readyz` turns 503 and
    /// says so. No record is dropped: they are sent when the brokers accept them again. If they are
    /// not accepted although the brokers have answered a second client for half of that time, the
    /// first client is replaced.
    #[serde(with = "humantime_serde")]
    pub kafka_stalled_after: Duration,
    /// The server has sent nothing for this long, although it was asked for a reply: the connection
    /// is considered dead and replaced. Default: twice the server's `wal_sender_timeout`, or two
    /// minutes if it has none. The response to a replication command may take the same time, or a
    /// minute; the creation of a slot may take as long as the server works on it.
    #[serde(with = "humantime_serde::option")]
    pub server_silent_after: Option<Duration>,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            source_stalled_after: Duration::from_secs(60),
            kafka_stalled_after: Duration::from_secs(60),
            server_silent_after: None,
        }
    }
}
