//! `[kafka]`: the brokers that events are published to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// The brokers that events are published to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// Bootstrap brokers, `host:port`, comma separated. `KAFKA_BROKERS` sets it too.
    pub brokers: Option<String>,
    /// Any librdkafka property. One that rowcast sets itself for its guarantees is refused. Names
    /// follow
    /// <https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>.
    pub properties: BTreeMap<String, Secret>,
    /// Properties whose value is the first line of a file (`"sasl.password" =
    /// "/run/secrets/kafka"`), or all of it where the property's name ends in `.pem`. Read again
    /// for every session.
    pub property_files: BTreeMap<String, PathBuf>,
    /// Properties whose value is the first line of what a program prints, or all of it as above. Each is
    /// a program and its arguments, run without a shell for every session, for at most 30 s.
    pub property_commands: BTreeMap<String, Vec<String>>,
    /// On shutdown, longest wait for the broker to acknowledge what is in flight.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// With `delivery = "exactly-once"`: the least time between the commits of two Kafka
    /// transactions, and so roughly the longest time until a change can be read. Up to ten times as
    /// long under a backlog.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    /// With `delivery = "exactly-once"`: bytes of records in one Kafka transaction. A larger source
    /// transaction is published in several, see [delivery](delivery.md).
    pub max_transaction_bytes: u64,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: None,
            properties: BTreeMap::new(),
            property_files: BTreeMap::new(),
            property_commands: BTreeMap::new(),
            drain_timeout: Duration::from_secs(10),
            commit_interval: Duration::from_millis(100),
            max_transaction_bytes: 64 * 1024 * 1024,
        }
    }
}

/// librdkafka properties that only rowcast may set, with the reason.
pub const RESERVED: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.brokers instead"),
    ("metadata.broker.list", "set kafka.brokers instead"),
    ("enable.idempotence", "order per key and the absence of repeats depend on it"),
    ("acks", "nothing may be confirmed to Postgres before all replicas have it"),
    ("request.required.acks", "nothing may be confirmed to Postgres before all replicas have it"),
    ("partitioner", "keys must go to the partitions that Java clients choose"),
    ("message.timeout.ms", "a record that timed out would be a hole in the stream"),
    ("delivery.timeout.ms", "a record that timed out would be a hole in the stream"),
    ("retries", "a record that was given up would be a hole in the stream"),
    ("message.send.max.retries", "a record that was given up would be a hole in the stream"),
    ("queue.buffering.max.messages", "set memory instead"),
    ("queue.buffering.max.kbytes", "set memory instead"),
    ("transactional.id", "the delivery mode decides on transactions"),
    ("delivery.report.only.error", "every acknowledgement is needed"),
    ("enable.gapless.guarantee", "it is not needed with idempotence, and would stop the producer"),
];

/// Why only rowcast may set this librdkafka property, if so.
pub(super) fn reserved(property: &str) -> Option<&'static str> {
    RESERVED.iter().find(|(name, _)| *name == property).map(|(_, reason)| *reason)
}
