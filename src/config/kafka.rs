//! `[kafka]`: where the events go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// The brokers that are written to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// Bootstrap brokers, `host:port`, comma separated. `KAFKA_BROKERS` sets it too.
    pub brokers: Option<String>,
    /// Any librdkafka property. One that rowcast itself sets for its guarantees is refused.
    /// Names follow
    /// <https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>.
    pub properties: BTreeMap<String, Secret>,
    /// Properties whose value is the first line of a file (`"sasl.password" = "/run/secrets/kafka"`),
    /// or all of it where the property's name ends in `.pem`.
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

/// Why rowcast keeps this librdkafka property to itself, if it does.
pub(super) fn reserved(property: &str) -> Option<&'static str> {
    Some(match property {
        "bootstrap.servers" | "metadata.broker.list" => "set kafka.brokers",
        "acks" | "request.required.acks" | "enable.idempotence" | "enable.gapless.guarantee" => {
            "nothing is lost only while every replica acknowledges, each record once"
        }
        "max.in.flight" | "max.in.flight.requests.per.connection" => {
            "idempotence bounds it, and order per key depends on that"
        }
        "retries" | "message.send.max.retries" => "a record is retried until it is acknowledged",
        "message.timeout.ms" | "delivery.timeout.ms" => {
            "a record that times out would be a hole in the stream"
        }
        "partitioner" => "one key stays on one partition, the one a Java client would choose",
        "queue.buffering.max.kbytes" => "set kafka.queue_bytes",
        "queue.buffering.max.messages" => "the queue is bounded in bytes, by kafka.queue_bytes",
        "transactional.id" | "transaction.timeout.ms" => "it writes without transactions",
        "delivery.report.only.error" => "acknowledgements decide what is confirmed to Postgres",
        _ => return None,
    })
}
