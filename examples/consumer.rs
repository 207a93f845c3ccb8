//! A consumer of the topic `rides`, to copy from: it keeps the latest state of every ride.
//!
//! ```text
//! KAFKA_BROKERS=localhost:9092 cargo run --example consumer [TOPIC]
//! ```
//!
//! An event may come twice, and events of one key always come in order. So events are applied by
//! key, where once or twice makes no difference, and offsets are committed after that, never
//! before. What cannot be read stops the consumer: to skip it would be to lose it.
//!
//! Not here: a database. The map stands for a service's own table.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaErrorCode;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

type AnyError = Box<dyn Error + Send + Sync>;

#[derive(Deserialize)]
struct Key {
    ride_id: i64,
}

/// The parts of the envelope that matter here; the others are `before`, `source` and timestamps.
#[derive(Deserialize)]
struct Envelope {
    op: String,
    after: Option<Ride>,
}

/// A row, as far as this consumer looks at it. Decimals come as text, with all their digits.
#[derive(Deserialize)]
struct Ride {
    status: String,
    pickup_zone_id: i32,
    dropoff_zone_id: i32,
    total: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let brokers = env::var("KAFKA_BROKERS").unwrap_or_else(|_| "localhost:9092".to_owned());
    let topic = env::args().nth(1).unwrap_or_else(|| "rides".to_owned());
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "rides-consumer-rust")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        // An offset counts as reached when its event was applied, not when it was fetched.
        .set("enable.auto.offset.store", "false")
        .create()?;
    consumer.subscribe(&[&topic])?;

    let mut rides = HashMap::new();
    // Each commit is a request to the broker: one a second, whatever the number of events.
    let mut commit_due = interval(Duration::from_secs(1));
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            received = consumer.recv() => match received {
                Ok(message) => {
                    apply(&message, &mut rides).map_err(|error| at(&message, error.as_ref()))?;
                    consumer.store_offset_from_message(&message)?;
                }
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => return Err(error.into()),
                // A broker that is away, a topic that is not there yet: the client tries again.
                Err(error) => eprintln!("{error}"),
            },
            _ = commit_due.tick() => commit(&consumer, CommitMode::Async),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    commit(&consumer, CommitMode::Sync);
    Ok(())
}

/// Brings one event to the rides.
fn apply(message: &BorrowedMessage<'_>, rides: &mut HashMap<i64, Ride>) -> Result<(), AnyError> {
    let Key { ride_id } = serde_json::from_slice(message.key().ok_or("an event without a key")?)?;
    let place = place(message);

    // The tombstone after a delete. It is there for compaction, which may have left nothing else.
    let Some(value) = message.payload() else {
        rides.remove(&ride_id);
        println!("{place}  ride {ride_id}  tombstone");
        return Ok(());
    };

    let envelope: Envelope = serde_json::from_slice(value)?;
    match (envelope.op.as_str(), envelope.after) {
        ("c" | "u" | "r", Some(ride)) => {
            let (from, to) = (ride.pickup_zone_id, ride.dropoff_zone_id);
            let total = ride.total.as_deref().map(|total| format!(", ${total}"));
            let total = total.unwrap_or_default();
            println!("{place}  ride {ride_id}  {}, zone {from} to {to}{total}", ride.status);
            rides.insert(ride_id, ride);
        }
        ("d", _) => {
            rides.remove(&ride_id);
            println!("{place}  ride {ride_id}  deleted");
        }
        (op, _) => return Err(format!("an event with op {op}, which is not known here").into()),
    }
    Ok(())
}

/// Commits the offsets of what was applied. Where that fails, the events come again.
fn commit(consumer: &StreamConsumer, mode: CommitMode) {
    match consumer.commit_consumer_state(mode) {
        // Nothing was applied since the last time.
        Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
        Err(error) => eprintln!("{error}"),
    }
}

fn at(message: &BorrowedMessage<'_>, error: &(dyn Error + Send + Sync)) -> AnyError {
    format!("{}: {error}", place(message)).into()
}

fn place(message: &BorrowedMessage<'_>) -> String {
    format!("{}[{}]@{}", message.topic(), message.partition(), message.offset())
}
