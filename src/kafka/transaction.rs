//! Kafka transactions of a producer.
//!
//! ```text
//!   (init) -> Ready --begin--> Open --commit--> Ready
//!                               |  ^----+ not yet: call again
//!                               +--abort, or the session ends: the next init aborts what is open
//! ```
//!
//! Must hold: nothing of a transaction counts before [`Transactions::commit`] succeeded. A failure
//! that only aborts the transaction ends the session too: the next one begins at the checkpoint, so
//! there is one way to recover and not two.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _};

use super::delivery::Delivery;
use super::error::Error;
use crate::config::Resolved;

/// librdkafka's default `transaction.timeout.ms`.
pub(super) const TIMEOUT_MS: &str = "60000";

/// When the brokers abort a transaction that is not committed.
#[must_use]
pub fn timeout(settings: &Resolved) -> Duration {
    let set = settings.kafka.properties.get("transaction.timeout.ms");
    parsed(set.map_or(TIMEOUT_MS, |millis| millis.expose()))
}

fn parsed(millis: &str) -> Duration {
    // The client refuses a value that is not a number.
    Duration::from_millis(millis.parse().unwrap_or(60_000))
}

/// Held while a producer takes over the transactional id. The client keeps requesting it until it
/// succeeds or is dropped, even if no one waits any more: the producer of a session that was ended
/// meanwhile would fence the next session's. So the next one waits for its end.
pub type Takeover = tokio::sync::OwnedMutexGuard<()>;

/// The transaction state of one producer.
#[derive(Debug)]
pub(super) struct Transactions {
    id: String,
    timeout: Duration,
    open_since: Mutex<Option<Instant>>,
    /// Held by a client that may still request its id, until it is dropped.
    takeover: Mutex<Option<Takeover>>,
}

impl Transactions {
    /// `None` for a producer without a transactional id.
    pub(super) fn of(config: &ClientConfig) -> Option<Self> {
        let id = config.get("transactional.id")?.to_owned();
        let timeout = config.get("transaction.timeout.ms").unwrap_or(TIMEOUT_MS);
        let (open_since, takeover) = (Mutex::new(None), Mutex::new(None));
        Some(Self { id, timeout: parsed(timeout), open_since, takeover })
    }

    /// Takes over the transactional id: fences its former holder and aborts what that left open.
    /// Blocks.
    pub(super) fn init(
        &self,
        producer: &BaseProducer<Delivery>,
        limit: Duration,
        takeover: Takeover,
    ) -> Result<(), Error> {
        producer.init_transactions(limit).map_err(|source| {
            *self.takeover.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
            self.failed("preparing", source)
        })
    }

    pub(super) fn begin(&self, producer: &BaseProducer<Delivery>) -> Result<(), Error> {
        producer.begin_transaction().map_err(|source| self.failed("beginning", source))?;
        self.set_open(Some(Instant::now()));
        Ok(())
    }

    /// Commits, with everything delivered. Returns whether that is done; otherwise call it again.
    /// Blocks, at most `limit`.
    pub(super) fn commit(
        &self,
        producer: &BaseProducer<Delivery>,
        limit: Duration,
    ) -> Result<bool, Error> {
        match producer.commit_transaction(limit) {
            Ok(()) => {
                self.set_open(None);
                Ok(true)
            }
            Err(KafkaError::Flush(_)) => Ok(false),
            Err(KafkaError::Transaction(error)) if error.is_retriable() => Ok(false),
            Err(source) => Err(self.failed("committing", source)),
        }
    }

    /// Aborts what is open, so that readers need not wait for its timeout. Best effort; blocks.
    pub(super) fn abort(&self, producer: &BaseProducer<Delivery>, limit: Duration) {
        if self.open_for().is_none() {
            return;
        }
        match producer.abort_transaction(limit) {
            Ok(()) => self.set_open(None),
            Err(error) => {
                tracing::debug!(error = %error, "aborting the open kafka transaction failed: its \
                                                 timeout ends it");
            }
        }
    }

    /// The error for a fenced producer by its cause: brokers that aborted a transaction themselves
    /// fence its producer too.
    pub(super) fn fenced(&self) -> Error {
        match self.open_for() {
            Some(open) if open >= self.timeout => Error::Expired { open },
            _ => Error::Fenced { id: self.id.clone() },
        }
    }

    /// Why the client purged the records of the open transaction: it reports each record as purged,
    /// and returns the cause from the next step of the transaction.
    pub(super) fn cause(&self, producer: &BaseProducer<Delivery>) -> Option<KafkaError> {
        let error = producer.begin_transaction().err()?;
        let is_known = !matches!(error.rdkafka_error_code(), None | Some(RDKafkaErrorCode::State));
        is_known.then_some(error)
    }

    fn failed(&self, doing: &'static str, source: KafkaError) -> Error {
        match source.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch,
            ) => self.fenced(),
            _ => Error::Transaction { doing, source },
        }
    }

    fn open_for(&self) -> Option<Duration> {
        self.open_since.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }

    fn set_open(&self, since: Option<Instant>) {
        *self.open_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}
