//! Hands records to librdkafka, each with its ticket.
//!
//! librdkafka copies a record into its own queue, whose size in bytes is
//! [bounded](super::queue_budget); if it is full, [`Sink::send`] says so and the worker waits,
//! which in turn stops the reader, so that the server sees a full socket. A thread of the producer
//! receives delivery reports, because the worker may be waiting for them.
//!
//! With a transactional id, records go out in transactions: see `transaction`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::sync::watch;

use super::delivery::{CHECKPOINT, Delivery, Purged};
use super::error::Error;
use super::flush_timer::{LINGER_MS, MOMENT};
use super::properties::creation_error;
use super::queue_budget;
use super::transaction::{Takeover, Transactions};
use crate::checkpoint::{Ledger, Ticket};
use crate::failpoint;
use crate::metrics::Metrics;

/// How long the delivery thread waits for a report before it checks whether it should end.
const POLL: Duration = Duration::from_millis(100);

/// One record to send.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Decides the partition; without a key the record goes to any.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Milliseconds since the Unix epoch: the source transaction's commit time.
    pub timestamp_ms: i64,
    /// A fixed partition, if the key does not decide it.
    pub partition: Option<i32>,
}

impl Outgoing<'_> {
    /// The memory that it takes while it waits for the brokers.
    fn weight(&self) -> u64 {
        let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        queue_budget::weight(bytes(self.key), bytes(self.value), self.headers.len())
    }

    /// Bytes of key and value together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }
}

/// Why a record was not accepted.
#[derive(Debug)]
pub enum SendError {
    /// The queue is full: wait for space and send the same record again.
    Full {
        /// The argument of [`Sink::wait_for_room`]: how often space had been freed before.
        rooms_made: u64,
    },
    /// It will never be accepted.
    Refused(Error),
}

/// Takes records in order, and reports the outcome of each to the ledger.
///
/// A trait so that the worker can be tested against a sink that delays, reorders and refuses on
/// command.
pub trait Sink {
    /// Takes the record, or returns why not.
    ///
    /// # Errors
    /// [`SendError::Full`] when it must be sent again later.
    fn send(&self, record: &Outgoing<'_>, ticket: Ticket) -> Result<(), SendError>;

    /// Takes a checkpoint as a record; its acknowledgement goes to the ledger as one.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn checkpoint(&self, record: &Outgoing<'_>) -> Result<(), SendError>;

    /// Opens a Kafka transaction for what is sent from here on.
    ///
    /// # Errors
    /// When the producer has failed.
    fn begin(&self) -> Result<(), Error>;

    /// Commits the open transaction. Returns whether it is committed; if not after `limit`, call it
    /// again.
    ///
    /// # Errors
    /// When it can't be committed any more: all of it is aborted.
    fn commit(&self, limit: Duration) -> Result<bool, Error>;

    /// No more records follow for now: queued ones need not wait for more. Does not block.
    fn send_queued(&self);

    /// Waits until space was freed since a record was refused, or until `limit`.
    fn wait_for_room(&self, rooms_made: u64, limit: Duration);
}

/// An idempotent producer.
pub struct Producer {
    inner: Arc<BaseProducer<Delivery>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// `None` without a transactional id. Dropped after the client.
    transactions: Option<Arc<Transactions>>,
}

impl Producer {
    /// Creates the client and starts its delivery thread. Does not need a broker yet. Records that
    /// wait for the brokers take at most `queue_bytes`, including the client's overhead.
    ///
    /// # Errors
    /// When the client library refuses the properties.
    pub fn new(
        config: &ClientConfig,
        queue_bytes: u64,
        ledger: Arc<Ledger>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let delivery = Delivery::new(queue_bytes, ledger, metrics);
        let inner: BaseProducer<Delivery> =
            config.create_with_context(delivery).map_err(creation_error)?;
        let inner = Arc::new(inner);
        let stop = Arc::new(AtomicBool::new(false));
        let transactions = Transactions::of(config).map(Arc::new);
        let mut producer =
            Self { inner: Arc::clone(&inner), stop, threads: Vec::new(), transactions };
        let stop = Arc::clone(&producer.stop);
        producer.spawn("kafka-delivery", {
            let (inner, transactions) = (Arc::clone(&inner), producer.transactions.clone());
            move || hear(&inner, transactions.as_deref(), &stop)
        })?;
        // A user who sets another `linger.ms` wants records to wait.
        if config.get("linger.ms") == Some(LINGER_MS) {
            producer.spawn("kafka-send", move || {
                let flight = &inner.context().flight;
                flight.run(|time| {
                    failpoint::reach("kafka-send");
                    let until = Instant::now() + time;
                    // Briefly each time, because a flush lasts until nothing is in flight,
                    // including later records. What is not acknowledged by then is flushed again.
                    while !flush(&inner, MOMENT) && !flight.has_landed() && Instant::now() < until {
                        failpoint::reach("kafka-send");
                    }
                });
            })?;
        }
        Ok(producer)
    }

    /// Starts a thread; a panic in it is a failure like any other.
    fn spawn(
        &mut self,
        name: &'static str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let client = Arc::clone(&self.inner);
        let guarded = move || {
            // After a panic, only the failure is read from its state.
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                client.context().fail(Error::Panicked { thread: name });
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(guarded);
        self.threads.push(thread.map_err(|source| Error::Thread { source })?);
        Ok(())
    }

    /// The first failure that ends the session, when there is one.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<Arc<Error>>> {
        self.inner.context().failure()
    }

    /// Whether the client reached no broker since the last acknowledgement.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.inner.context().is_cut_off()
    }

    /// With a transactional id: takes it over from its former holder, and aborts what that left
    /// open. Call it before anything is sent, and before the checkpoint is read. Blocks, at most
    /// `limit`.
    ///
    /// # Errors
    /// When the brokers do not respond, or refuse.
    pub fn init_transactions(&self, limit: Duration, takeover: Takeover) -> Result<(), Error> {
        self.transactions.as_ref().map_or(Ok(()), |all| all.init(&self.inner, limit, takeover))
    }

    /// Aborts the open transaction, if any, as far as possible. Blocks, at most `limit`.
    pub fn abort(&self, limit: Duration) {
        if let Some(transactions) = &self.transactions {
            transactions.abort(&self.inner, limit);
        }
    }

    fn produce(&self, record: &Outgoing<'_>, opaque: usize) -> Result<(), SendError> {
        let context = self.inner.context();
        let rooms_made = context.rooms_made();
        let weight = record.weight();
        if !context.room_left.take(weight) {
            return Err(SendError::Full { rooms_made });
        }
        let mut base: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(record.topic, opaque).timestamp(record.timestamp_ms);
        base.key = record.key;
        base.payload = record.value;
        base.partition = record.partition;
        if !record.headers.is_empty() {
            base = base.headers(headers(record.headers));
        }
        context.flight.sending();
        self.inner.send(base).map_err(|(source, _)| {
            context.flight.not_sent();
            context.room_left.give_back(weight);
            match fatal(&self.inner, self.transactions.as_deref()) {
                Some(error) => SendError::Refused(error),
                None => refusal(source, record, rooms_made),
            }
        })
    }

    /// Waits until every record has its report, at most `limit`. Blocks the thread.
    ///
    /// Returns whether all were reported.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        let flushed = self.inner.flush(limit).is_ok();
        self.inner.context().close_batch();
        flushed
    }
}

impl Sink for Producer {
    fn send(&self, record: &Outgoing<'_>, ticket: Ticket) -> Result<(), SendError> {
        // A ticket beyond a pointer's size would need 2^32 records in one session on a 32-bit host.
        self.produce(record, usize::try_from(ticket.as_u64()).unwrap_or(CHECKPOINT - 1))
    }

    fn checkpoint(&self, record: &Outgoing<'_>) -> Result<(), SendError> {
        self.produce(record, CHECKPOINT)
    }

    fn begin(&self) -> Result<(), Error> {
        self.transactions.as_ref().map_or(Ok(()), |all| all.begin(&self.inner))
    }

    fn commit(&self, limit: Duration) -> Result<bool, Error> {
        // The client's own commit flushes too, but the wrapper then polls in steps of 100 ms.
        if !flush(&self.inner, limit) {
            return Ok(false);
        }
        let Some(transactions) = &self.transactions else { return Ok(true) };
        // A record without an offset is an error for us, not for the client. The failure ends the
        // session.
        if self.inner.context().is_failed() {
            std::thread::sleep(POLL.min(limit));
            return Ok(false);
        }
        transactions.commit(&self.inner, limit)
    }

    fn send_queued(&self) {
        self.inner.context().flight.ask();
    }

    fn wait_for_room(&self, rooms_made: u64, limit: Duration) {
        self.inner.context().wait_for_room(rooms_made, limit);
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.inner.context().flight.stop();
        for thread in self.threads.drain(..) {
            // It ends within one poll; a panic in it was already reported.
            let _ = thread.join();
        }
    }
}

fn hear(producer: &BaseProducer<Delivery>, transactions: Option<&Transactions>, stop: &AtomicBool) {
    let context = producer.context();
    while !stop.load(Ordering::Acquire) {
        failpoint::reach("kafka-poll");
        producer.poll(POLL);
        context.close_batch();
        if let Some(Purged { topic, partition, source }) = context.take_purged() {
            // A fenced client's failure is known already, and the call would take time.
            let is_asked = producer.client().fatal_error().is_none();
            let cause = transactions.filter(|_| is_asked).and_then(|of| of.cause(producer));
            let source = match cause.as_ref().and_then(KafkaError::rdkafka_error_code) {
                Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced) | None => source,
                Some(code) => KafkaError::MessageProduction(code),
            };
            context.fail(Error::Undelivered { topic, partition, source });
        }
        if context.is_fatal()
            && let Some(error) = fatal(producer, transactions)
        {
            context.fail(error);
        }
    }
}

/// The client's fatal error, if any.
fn fatal(producer: &BaseProducer<Delivery>, transactions: Option<&Transactions>) -> Option<Error> {
    let (code, reason) = producer.client().fatal_error()?;
    Some(match (code, transactions) {
        (RDKafkaErrorCode::Fenced, Some(transactions)) => transactions.fenced(),
        _ => Error::Fatal { code, reason },
    })
}

/// Makes librdkafka send what is queued without lingering, and waits for the reports, at most
/// `limit`. Returns whether all arrived.
///
/// librdkafka's flush sends while it waits. The safe wrapper's flush does not wait if the time is
/// short, and ends before the sending thread has woken up; if longer, it waits in steps of 100 ms.
#[expect(unsafe_code, reason = "the safe wrapper calls it with a wait of zero")]
fn flush(producer: &BaseProducer<Delivery>, limit: Duration) -> bool {
    let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer is that of a live producer, which the reference keeps alive; the function
    // may be called from any thread. The delivery thread receives the reports meanwhile.
    let outcome =
        unsafe { rdkafka::bindings::rd_kafka_flush(producer.client().native_ptr(), limit_ms) };
    outcome == rdkafka::bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

fn headers(pairs: &[(&str, Option<&[u8]>)]) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(pairs.len());
    for &(key, value) in pairs {
        headers = headers.insert(Header { key, value });
    }
    headers
}

fn refusal(source: KafkaError, record: &Outgoing<'_>, rooms_made: u64) -> SendError {
    match source.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => SendError::Full { rooms_made },
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => SendError::Refused(Error::TooLarge {
            topic: record.topic.to_owned(),
            bytes: record.bytes(),
        }),
        _ => SendError::Refused(Error::Refused { topic: record.topic.to_owned(), source }),
    }
}
