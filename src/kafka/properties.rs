//! librdkafka's properties: those that the guarantees need, our defaults, and the user's.
//!
//! Any property can be passed through. The few that the delivery guarantees depend on can't be set,
//! and setting one is an error that says why, because a silent override would be wrong either way.
//!
//! Properties: <https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md>

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::error::Error;
use super::flush_timer::LINGER_MS;
use super::transaction::{self, TIMEOUT_MS};
use crate::config::kafka::RESERVED;
use crate::config::secret::MASK;
use crate::config::{Delivery, Resolved};

/// Defaults that a user's property replaces, each with its other name in librdkafka.
const DEFAULTS: &[(&str, &str, &str)] = &[
    // No record waits for it: see `flush_timer`. A user's value is respected.
    ("linger.ms", "queue.buffering.max.ms", LINGER_MS),
    // The default would be twice `linger.ms`, and records without a key go to one partition for
    // that long.
    ("sticky.partitioning.linger.ms", "sticky.partitioning.linger.ms", "10"),
    ("compression.type", "compression.codec", "lz4"),
    ("client.id", "client.id", "rowcast"),
    ("socket.keepalive.enable", "socket.keepalive.enable", "true"),
    // As in Java's clients. librdkafka's own ten seconds are longer than an election: it looks for
    // the new transaction coordinator only after an attempt to reach the dead one has failed.
    ("reconnect.backoff.max.ms", "reconnect.backoff.max.ms", "1000"),
    // A host that is gone does not refuse connections. With librdkafka's own timeouts of a minute,
    // and half a minute to connect, rows would stall for two minutes if the coordinator was there,
    // long after others are elected. A request to a slow host is sent once more and takes effect
    // once, because batches are numbered.
    ("socket.timeout.ms", "socket.timeout.ms", "10000"),
    ("socket.connection.setup.timeout.ms", "socket.connection.setup.timeout.ms", "10000"),
    // Without it, Nagle's algorithm delays a lone record.
    ("socket.nagle.disable", "socket.nagle.disable", "true"),
    // A metadata request must never create a topic with the broker's defaults instead of ours.
    ("allow.auto.create.topics", "allow.auto.create.topics", "false"),
    #[cfg(feature = "vendored-openssl")]
    // A vendored OpenSSL does not know where this system keeps its root certificates.
    ("ssl.ca.location", "ssl.ca.location", "probe"),
];

/// An entry of [`DEFAULTS`].
const SOCKET_TIMEOUT_MS: u128 = 10_000;

/// librdkafka's own `batch.size`.
pub(super) const BATCH_BYTES: usize = 1_000_000;

/// The producer's properties, in librdkafka's form.
///
/// # Errors
/// When the user sets a reserved property.
pub fn client_config(settings: &Resolved) -> Result<ClientConfig, Error> {
    let user = &settings.kafka.properties;
    for (ours, reason) in RESERVED {
        if user.contains_key(*ours) {
            return Err(Error::Clash { property: (*ours).to_owned(), reason });
        }
    }
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &settings.brokers);
    for (name, other_name, value) in DEFAULTS {
        if !user.contains_key(*name) && !user.contains_key(*other_name) {
            client.set(*name, *value);
        }
    }
    for (name, value) in user {
        client.set(name, value.expose());
    }
    client.set("enable.idempotence", "true");
    client.set("partitioner", "murmur2_random");
    client.set("message.timeout.ms", "0");
    // The client counts values only; `queue_budget` bounds all that a record takes.
    client.set("queue.buffering.max.messages", "0");
    client.set("queue.buffering.max.kbytes", i32::MAX.to_string());
    let batch = settings.memory.batch_bytes();
    if batch < BATCH_BYTES as u64 && !user.contains_key("batch.size") {
        client.set("batch.size", batch.to_string());
    }
    if settings.delivery == Delivery::ExactlyOnce {
        client.set("transactional.id", format!("rowcast.{}", settings.name));
        if !user.contains_key("transaction.timeout.ms") {
            client.set("transaction.timeout.ms", TIMEOUT_MS);
        }
        // The client refuses a request timeout longer than the transaction timeout.
        let timeout = transaction::timeout(settings).as_millis();
        if !user.contains_key("socket.timeout.ms") && timeout < SOCKET_TIMEOUT_MS {
            client.set("socket.timeout.ms", timeout.to_string());
        }
    }
    client.set_log_level(RDKafkaLogLevel::Info);
    Ok(client)
}

/// The largest record that the client accepts, in bytes before compression.
#[must_use]
pub fn record_limit(client: &ClientConfig) -> usize {
    /// librdkafka's own.
    const DEFAULT: usize = 1_000_000;
    client.get("message.max.bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(DEFAULT)
}

/// The largest batch of several records that the client creates, in bytes.
#[must_use]
pub fn batch_bytes(client: &ClientConfig) -> usize {
    client.get("batch.size").and_then(|bytes| bytes.parse().ok()).unwrap_or(BATCH_BYTES)
}

/// Bounds the batches of several records that the client creates.
pub fn set_batch_bytes(client: &mut ClientConfig, bytes: usize) {
    client.set("batch.size", bytes.to_string());
}

/// Whether batches are compressed, so that a broker may accept what looks too large here.
#[must_use]
pub fn compresses(client: &ClientConfig) -> bool {
    let names = ["compression.type", "compression.codec"];
    names.iter().filter_map(|name| client.get(name)).any(|codec| codec != "none")
}

/// The properties without those of the producer alone, which another client warns about.
pub(super) fn without_producer(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    for property in [
        "enable.idempotence",
        "partitioner",
        "message.timeout.ms",
        "queue.buffering.max.messages",
        "queue.buffering.max.kbytes",
        "batch.size",
        "linger.ms",
        "sticky.partitioning.linger.ms",
        "compression.type",
        "transactional.id",
        "transaction.timeout.ms",
    ] {
        config.remove(property);
    }
    config
}

/// The error for a client that could not be created, without any value that may be a secret.
pub(super) fn creation_error(error: KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, description, property, value) => {
            let reason =
                if value.is_empty() { description } else { description.replace(&value, MASK) };
            Error::Property { property, reason }
        }
        KafkaError::ClientCreation(reason) => Error::Client { reason },
        other => Error::Client { reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Kafka, Memory, Size};

    fn with(properties: &[(&str, &str)]) -> Resolved {
        let properties = properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned().into()));
        let brokers = Some("b:9092".to_owned());
        let kafka = Kafka { brokers, properties: properties.collect(), ..Kafka::default() };
        Config { kafka, ..Config::default() }.resolve("taxi").unwrap()
    }

    #[test]
    fn a_property_that_the_promises_rest_on_is_refused_with_the_reason() {
        for (property, _) in RESERVED {
            let error = client_config(&with(&[(property, "1")])).unwrap_err();
            assert!(matches!(&error, Error::Clash { property: p, .. } if p == property));
            assert!(error.to_string().contains(property), "{error}");
        }
    }

    #[test]
    fn a_default_gives_way_to_the_users_value_under_either_of_its_names() {
        for name in ["compression.type", "compression.codec"] {
            let client = client_config(&with(&[(name, "zstd")])).unwrap();
            assert_eq!(client.get(name), Some("zstd"));
            let other =
                if name == "compression.type" { "compression.codec" } else { "compression.type" };
            assert_eq!(client.get(other), None);
        }
    }

    #[test]
    fn batches_are_as_small_as_the_memory_unless_the_user_says_otherwise() {
        let with = |memory, properties: &[(&str, &str)]| {
            let mut settings = with(properties);
            settings.memory = Memory::new(Size::from_mb(memory));
            client_config(&settings).unwrap().get("batch.size").map(str::to_owned)
        };
        assert_eq!(with(16, &[]).as_deref(), Some("262144"));
        assert_eq!(with(64, &[]), None);
        assert_eq!(with(16, &[("batch.size", "500000")]).as_deref(), Some("500000"));
    }

    #[test]
    fn what_may_be_too_large_is_known_from_the_properties() {
        let client = |properties: &[(&str, &str)]| client_config(&with(properties)).unwrap();
        assert_eq!(record_limit(&client(&[])), 1_000_000);
        assert_eq!(record_limit(&client(&[("message.max.bytes", "5")])), 5);
        assert!(compresses(&client(&[])), "lz4 is the default");
        for name in ["compression.type", "compression.codec"] {
            assert!(!compresses(&client(&[(name, "none")])));
        }
    }

    #[test]
    fn a_refused_property_is_named_without_its_value() {
        let error = creation_error(KafkaError::ClientConfig(
            rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "Invalid value \"hunter2\" for configuration property \"sasl.password\"".to_owned(),
            "sasl.password".to_owned(),
            "hunter2".to_owned(),
        ))
        .to_string();
        assert!(error.contains("sasl.password") && !error.contains("hunter2"), "{error}");
    }
}
