//! `[kafka]`: where the events go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The brokers that are written to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// Bootstrap brokers, `host:port`, comma separated. `KAFKA_BROKERS` sets it too.
    pub brokers: Option<String>,
    /// Any librdkafka property. One that rowcast itself sets for its guarantees is refused.
    pub properties: BTreeMap<String, String>,
    /// Properties whose value is the first line of a file (`"sasl.password" = "/run/secrets/kafka"`).
    pub property_files: BTreeMap<String, PathBuf>,
    /// Bytes of records that may wait for the broker, before the database is made to wait.
    pub queue_bytes: u64,
    /// On shutdown, longest wait for the broker to acknowledge what is in flight.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: None,
            properties: BTreeMap::new(),
            property_files: BTreeMap::new(),
            queue_bytes: 32 * 1024 * 1024,
            drain_timeout: Duration::from_secs(10),
        }
    }
}
