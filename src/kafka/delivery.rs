//! Receives delivery reports: passes acknowledgements to the ledger and failures to the bridge.
//!
//! The client delivers reports one at a time, thousands in a burst. They are passed to the ledger
//! in batches, so that its lock is taken once per batch and not once per record. A batch is closed
//! when it is full, when nothing more is in flight, and whenever the delivery thread has no more
//! reports: so no acknowledgement waits for another that may never come.
//!
//! A success without an offset is not an acknowledgement. The client reports one for a batch that a
//! broker has refused if the next batch was accepted: it concludes that the first had been written
//! after all. But a broker that has no state of this producer for a partition (a new partition, or
//! nothing written for a day) accepts any first sequence number, and then the first batch was never
//! written. What was not confirmed is published again instead.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::watch;

use super::error::Error;
use super::flush_timer::Flight;
use super::queue_budget::{self, Room};
use super::trouble;
use crate::checkpoint::{Ledger, Ticket};
use crate::failpoint;
use crate::metrics::Metrics;

/// Acknowledgements that are collected before they are passed to the ledger.
const BATCH: usize = 256;

/// Identifies a checkpoint, which has no ticket.
pub(super) const CHECKPOINT: usize = usize::MAX;

/// Receives delivery reports for one producer.
pub(super) struct Delivery {
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    batch: Mutex<Vec<Ticket>>,
    /// Counts what is in flight, and times flushes.
    pub(super) flight: Flight,
    /// Free space of the queue.
    pub(super) room_left: Room,
    /// Counts how often space was freed, or waiting for it became pointless.
    rooms_made: AtomicU64,
    /// Held while that is incremented.
    counting: Mutex<()>,
    room: Condvar,
    failure: watch::Sender<Option<Arc<Error>>>,
    /// Whether the client reported a fatal error; its cause is read outside of the callback.
    is_fatal: AtomicBool,
    /// Whether the client lost all brokers and nothing was acknowledged since.
    is_cut_off: AtomicBool,
    /// A record that the client purged; the cause is read outside of the callback.
    purged: Mutex<Option<Purged>>,
}

/// A record that the client purged unsent, as it does when a Kafka transaction has failed.
pub(super) struct Purged {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) source: KafkaError,
}

impl Delivery {
    pub(super) fn new(queue_bytes: u64, ledger: Arc<Ledger>, metrics: Arc<Metrics>) -> Self {
        Self {
            ledger,
            metrics,
            batch: Mutex::new(Vec::with_capacity(BATCH)),
            flight: Flight::default(),
            room_left: Room::new(queue_bytes),
            rooms_made: AtomicU64::new(0),
            counting: Mutex::new(()),
            room: Condvar::new(),
            failure: watch::Sender::new(None),
            is_fatal: AtomicBool::new(false),
            is_cut_off: AtomicBool::new(false),
            purged: Mutex::default(),
        }
    }

    /// The first failure that ends the session, if any.
    pub(super) fn failure(&self) -> watch::Receiver<Option<Arc<Error>>> {
        self.failure.subscribe()
    }

    /// Read before a record is sent, so that space that is freed meanwhile is not missed.
    pub(super) fn rooms_made(&self) -> u64 {
        self.rooms_made.load(Ordering::Acquire)
    }

    /// Waits until space was freed since `seen`, or until `limit`.
    pub(super) fn wait_for_room(&self, seen: u64, limit: Duration) {
        let counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.room.wait_timeout_while(counting, limit, |()| self.rooms_made() == seen);
    }

    /// Passes the collected acknowledgements to the ledger.
    pub(super) fn close_batch(&self) {
        self.close(&mut self.batch.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn close(&self, batch: &mut Vec<Ticket>) {
        if batch.is_empty() {
            return;
        }
        self.is_cut_off.store(false, Ordering::Release);
        self.ledger.ack_all(batch);
        self.metrics.records_acked.inc_by(batch.len() as u64);
        batch.clear();
        self.make_room();
    }

    fn checkpoint_acknowledged(&self) {
        self.is_cut_off.store(false, Ordering::Release);
        self.close_batch();
        self.ledger.checkpoint_acknowledged();
        self.flight.reported();
    }

    fn make_room(&self) {
        let counting = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        self.rooms_made.fetch_add(1, Ordering::AcqRel);
        drop(counting);
        self.room.notify_all();
    }

    fn acknowledged(&self, ticket: Ticket) {
        failpoint::reach("kafka-delivery");
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        batch.push(ticket);
        let was_last = self.flight.reported();
        if batch.len() >= BATCH || was_last {
            self.close(&mut batch);
        }
    }

    /// Whether the session has failed.
    pub(super) fn is_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// Whether no broker can be reached.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Acquire)
    }

    /// Whether the client reported a fatal error.
    pub(super) fn is_fatal(&self) -> bool {
        self.is_fatal.load(Ordering::Acquire)
    }

    /// The first purged record; returned once.
    pub(super) fn take_purged(&self) -> Option<Purged> {
        self.purged.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note_purged(&self, purged: Purged) {
        self.purged.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(purged);
    }

    /// A failure that ends the session; only the first counts.
    pub(super) fn fail(&self, error: Error) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                *failure = Some(Arc::new(error));
            }
            first
        });
        self.make_room();
    }
}

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced) => {
                self.is_fatal.store(true, Ordering::Release)
            }
            Some(
                code @ (RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed),
            ) => self.fail(Error::Fatal { code, reason: reason.to_owned() }),
            // The client reconnects; the records wait in its queue.
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.is_cut_off.store(true, Ordering::Release);
                trouble::connection(&error, reason);
            }
            _ => trouble::connection(&error, reason),
        }
    }
}

impl ProducerContext for Delivery {
    /// A ticket's number: it passes through the client as a plain pointer-sized value.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let ticket = Ticket::from(number as u64);
        let (Ok(message) | Err((_, message))) = result;
        self.room_left.give_back(weight(message));
        if result.is_ok() && message.offset() >= 0 {
            return match number {
                CHECKPOINT => self.checkpoint_acknowledged(),
                _ => self.acknowledged(ticket),
            };
        }
        let (topic, partition) = (message.topic(), message.partition());
        let error = match result {
            Ok(_) => Error::Unplaced { topic: topic.to_owned(), partition },
            Err((source, _)) => {
                if source.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                    self.metrics.oversize.inc();
                }
                Error::Undelivered { topic: topic.to_owned(), partition, source: source.clone() }
            }
        };
        self.flight.reported();
        if number != CHECKPOINT {
            self.ledger.reject(ticket);
        }
        // A failure of the client also fails its records; the cause explains more.
        match error {
            _ if self.is_fatal() => {}
            Error::Undelivered { topic, partition, source } if is_purged(&source) => {
                self.note_purged(Purged { topic, partition, source });
            }
            error => self.fail(error),
        }
    }
}

/// Whether a record was purged unsent.
fn is_purged(source: &KafkaError) -> bool {
    let code = source.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
}

/// The same as when it was sent.
fn weight(message: &BorrowedMessage<'_>) -> u64 {
    let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let headers = message.headers().map_or(0, |headers| headers.count());
    queue_budget::weight(bytes(message.key()), bytes(message.payload()), headers)
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::change::Position;
    use crate::checkpoint::Progress;
    use crate::kafka::{Outgoing, Producer, Sink as _};
    use crate::lsn::Lsn;

    const PATIENCE: Duration = Duration::from_secs(30);
    /// Long enough for more batches to leave before the first is answered.
    const ROUND_TRIP: Duration = Duration::from_millis(200);

    fn record(value: &[u8]) -> Outgoing<'_> {
        Outgoing {
            topic: "rides",
            key: None,
            value: Some(value),
            headers: &[],
            timestamp_ms: 0,
            partition: Some(0),
        }
    }

    #[tokio::test]
    async fn a_refused_batch_is_not_taken_for_delivered_because_the_next_one_was() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("rides", 1, 1).unwrap();
        cluster.broker_round_trip_time(1, ROUND_TRIP).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        config.set("enable.idempotence", "true").set("linger.ms", "0");
        let ledger = Arc::new(Ledger::new(Progress::at(Lsn::from(1))));
        let producer =
            Producer::new(&config, 1 << 20, Arc::clone(&ledger), Arc::default()).unwrap();

        let send = |end_lsn: u64| {
            ledger.begin();
            producer.send(&record(b"ride"), ledger.issue()).unwrap();
            ledger.commit(Lsn::from(end_lsn), Position::default());
        };

        // Until the producer has cluster metadata, records collect in one batch.
        send(2);
        let delivered = || ledger.standing().delivered.through_lsn;
        let first = async {
            while delivered() < Lsn::from(2) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, first).await.expect("in time");
        let refusal = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        cluster.request_errors(rdkafka::types::RDKafkaApiKey::Produce, &[refusal]);
        let mut failure = producer.failure();
        let failed = async {
            loop {
                send(9);
                let pause = Duration::from_millis(5);
                if tokio::time::timeout(pause, failure.changed()).await.is_ok() {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, failed).await.expect("a failure is reported");
        let failure = failure.borrow().clone();
        assert!(matches!(failure.as_deref(), Some(Error::Unplaced { .. })), "{failure:?}");
        assert!(failure.unwrap().is_transient(), "publishing again repairs it");
        assert_eq!(delivered(), Lsn::from(2), "no further than to the refused one");
    }
}
