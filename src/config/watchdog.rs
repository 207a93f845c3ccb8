//! `[watchdog]`: after how long a line that stands still is called so.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a line that stands still counts as stalled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watchdog {
    /// The server's WAL has moved on and nothing of it was processed for this long: `/readyz` turns
    /// 503 and says so.
    #[serde(with = "humantime_serde")]
    pub source_stalled_after: Duration,
    /// Records wait and the brokers have acknowledged none for this long: `/readyz` turns 503 and
    /// says so. Nothing is given up: they are sent when the brokers take them again. When that has
    /// not happened although the brokers have answered a second client for half of that time, the
    /// first is replaced.
    #[serde(with = "humantime_serde")]
    pub kafka_stalled_after: Duration,
    /// The server has sent not one byte for this long, although it was asked: the connection is dead
    /// and a new one is made. Default: twice the server's `wal_sender_timeout`, or two minutes where
    /// it has none. The same time, or a minute, is given to the answer to a replication command;
    /// but for the making of a slot, which waits as long as the server works on it.
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
