//! What the producer hears back: acknowledgements to the ledger, failures to the bridge.
//!
//! Reports come from the client one at a time, thousands in a burst. They are gathered and given
//! to the ledger in batches, so that its lock is taken once per batch and not once per record. A
//! batch is closed when it is full, when nothing more is in flight, and whenever the delivery
//! thread runs out of reports: so no acknowledgement waits for another that may never come.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tokio::sync::watch;

use super::error::Error;
use super::flight::Flight;
use super::room::{self, Room};
use crate::checkpoint::{Ledger, Ticket};
use crate::metrics::Metrics;

/// Acknowledgements that are gathered before the ledger hears of them.
const BATCH: usize = 256;

/// Hears of deliveries on behalf of one producer.
pub(super) struct Delivery {
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    batch: Mutex<Vec<Ticket>>,
    /// What is under way.
    pub(super) flight: Flight,
    /// What is left for more.
    pub(super) room_left: Room,
    /// Counts the times that room was made, or that waiting for it became pointless.
    rooms_made: Mutex<u64>,
    room: Condvar,
    failure: watch::Sender<Option<Arc<Error>>>,
}

impl Delivery {
    pub(super) fn new(queue_bytes: u64, ledger: Arc<Ledger>, metrics: Arc<Metrics>) -> Self {
        Self {
            ledger,
            metrics,
            batch: Mutex::new(Vec::with_capacity(BATCH)),
            flight: Flight::default(),
            room_left: Room::new(queue_bytes),
            rooms_made: Mutex::new(0),
            room: Condvar::new(),
            failure: watch::Sender::new(None),
        }
    }

    /// The first failure that ends the session, when there is one.
    pub(super) fn failure(&self) -> watch::Receiver<Option<Arc<Error>>> {
        self.failure.subscribe()
    }

    /// Taken before a record is sent, so that room made meanwhile is not waited for.
    pub(super) fn rooms_made(&self) -> u64 {
        *self.rooms_made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until room was made since `seen`, or until `limit`.
    pub(super) fn wait_for_room(&self, seen: u64, limit: Duration) {
        let made = self.rooms_made.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.room.wait_timeout_while(made, limit, |made| *made == seen);
    }

    /// Gives the ledger what was gathered.
    pub(super) fn close_batch(&self) {
        self.close(&mut self.batch.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn close(&self, batch: &mut Vec<Ticket>) {
        if batch.is_empty() {
            return;
        }
        self.ledger.ack_all(batch);
        self.metrics.records_acked.inc_by(batch.len() as u64);
        batch.clear();
        self.make_room();
    }

    fn make_room(&self) {
        *self.rooms_made.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.room.notify_all();
    }

    fn acknowledged(&self, ticket: Ticket) {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        batch.push(ticket);
        let was_last = self.flight.reported();
        if batch.len() >= BATCH || was_last {
            self.close(&mut batch);
        }
    }

    fn fail(&self, error: Error) {
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
            Some(code @ RDKafkaErrorCode::Fatal) => {
                self.fail(Error::Fatal { code, reason: reason.to_owned() });
            }
            Some(
                code @ (RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed),
            ) => self.fail(Error::Fatal { code, reason: reason.to_owned() }),
            // The client reconnects by itself; the records wait in its queue.
            _ => tracing::warn!(error = %error, reason, "kafka connection"),
        }
    }
}

impl ProducerContext for Delivery {
    /// A ticket's number: it travels through the client as a plain pointer-sized value.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let ticket = Ticket::from(number as u64);
        let (Ok(message) | Err((_, message))) = result;
        self.room_left.give_back(weight(message));
        match result {
            Ok(_) => self.acknowledged(ticket),
            Err((error, message)) => {
                self.flight.reported();
                self.ledger.reject(ticket);
                self.fail(Error::Undelivered {
                    topic: message.topic().to_owned(),
                    partition: message.partition(),
                    source: error.clone(),
                });
            }
        }
    }
}

/// The same as when it was sent.
fn weight(message: &BorrowedMessage<'_>) -> u64 {
    let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let headers = message.headers().map_or(0, |headers| headers.count());
    room::weight(bytes(message.key()), bytes(message.payload()), headers)
}
