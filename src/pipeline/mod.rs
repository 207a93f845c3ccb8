//! Publishes changes to Kafka, for the stream and both kinds of snapshot.
//!
//! ```text
//! Change --publish--> records --send--> producer ..acknowledged.. commit --> checkpoint
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | `publish` | decides whether a change is published, routes it and encodes its records |
//! | `oversize` | cuts or rejects records that are too large, as configured |
//! | `report` | logs and counts what is left out |
//! | `send` | assigns each record its ticket and hands it to the producer, waiting while its queue is full |
//! | `cadence` | decides when a checkpoint is due, and when a Kafka transaction is cut |
//! | `commit` | writes the checkpoint and waits until it is durable |
//! | `dropped` | forgets tables that the database no longer has |
//!
//! Plain synchronous calls on the caller's thread. Not here: where changes come from, and how
//! errors are handled.

pub(crate) mod cadence;
pub(crate) mod commit;
pub(crate) mod dropped;
pub(crate) mod oversize;
pub(crate) mod publish;
pub(crate) mod report;
pub(crate) mod send;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

pub(crate) use self::cadence::{Checkpointing, Mode};
pub(crate) use self::dropped::Dropped;
pub(crate) use self::oversize::Oversize;
use self::publish::Publisher;
pub(crate) use self::publish::{Policy, left_out};
use self::send::Out;
use crate::change::{Relation, RelationFacts, Relations, Reselected, Row, Transaction};
use crate::checkpoint::Ledger;
use crate::error::Error;
use crate::kafka::Sink;
use crate::metrics::Metrics;
use crate::route::TopicPlan;

/// How long to wait for space in the queue before checking whether to stop.
pub(crate) const ROOM: Duration = Duration::from_millis(50);

/// Requests the worker to end, from another thread.
#[derive(Debug, Default)]
pub struct Stop(AtomicU8);

impl Stop {
    const AT_COMMIT: u8 = 1;
    const NOW: u8 = 2;

    /// End between two transactions.
    pub fn at_commit(&self) {
        self.0.fetch_max(Self::AT_COMMIT, Ordering::AcqRel);
    }

    /// End at the next check, even inside a transaction.
    pub fn now(&self) {
        self.0.store(Self::NOW, Ordering::Release);
    }

    /// Whether to end now.
    #[must_use]
    pub fn is_now(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::NOW
    }

    /// Completes once it must end now.
    pub(crate) async fn stopped(&self) {
        while !self.is_now() {
            tokio::time::sleep(ROOM).await;
        }
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }
}

/// Facts that the stream does not contain, looked up once per relation version.
pub trait Lookup {
    /// What the catalog knows of a relation that the stream describes, in a transaction. What that
    /// transaction changed is known, too.
    ///
    /// # Errors
    /// When the catalog can't be asked.
    fn relation_facts(
        &mut self,
        oid: u32,
        column_types: &[u32],
        described_in: Option<&Transaction>,
    ) -> Result<RelationFacts, Error>;

    /// The current values of some columns of a row; `None` if the row does not exist.
    ///
    /// # Errors
    /// When the table can't be read.
    fn reselect(
        &mut self,
        relation: &Relation,
        row: &Row<'_>,
        columns: &[usize],
    ) -> Result<Option<Reselected>, Error>;

    /// The OID of a table that must not be published any more, given this description: the table
    /// itself, or the one that it is a partition of.
    ///
    /// # Errors
    /// When the catalog can't be asked.
    fn withheld(&mut self, relation: &Relation) -> Result<Option<u32>, Error>;

    /// Ensures that a topic exists.
    ///
    /// # Errors
    /// When it can't be created.
    fn ensure_topic(&mut self, topic: &TopicPlan) -> Result<Ensured, Error>;

    /// Ensures that many topics exist, so that later calls of [`ensure_topic`](Self::ensure_topic)
    /// need not contact the brokers for each.
    ///
    /// # Errors
    /// When one of them can't be created.
    fn ensure_topics(&mut self, _topics: &[TopicPlan]) -> Result<(), Error> {
        Ok(())
    }

    /// Which of these tables the catalog does not have.
    ///
    /// # Errors
    /// When the catalog can't be asked.
    fn dropped(&mut self, _tables: &[u32]) -> Result<Dropped, Error> {
        Ok(Dropped::default())
    }

    /// Forgets tables without further changes, and topics that no table has any more.
    fn forget(&mut self, _tables: &[u32], _topics: &[Arc<str>]) {}
}

/// The result of ensuring a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// It exists.
    Exists {
        /// The largest record that it accepts, in bytes, if known.
        limit: Option<usize>,
    },
    /// Unknown, because the worker must stop. Nothing may be sent to it.
    Stopped,
}

impl Ensured {
    /// The largest record that the topic accepts, if known.
    pub(crate) fn limit(self) -> Result<Option<usize>, Halt> {
        match self {
            Self::Exists { limit } => Ok(limit),
            Self::Stopped => Err(Halt::Stopped),
        }
    }
}

/// Why the worker ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was asked to stop.
    Stopped,
    /// The reader will send no more.
    SourceClosed,
}

/// The stages that a change passes.
pub(crate) struct Stage<'a, S, L> {
    /// Descriptions of tables in the stream.
    pub(crate) relations: &'a Relations,
    pub(crate) publisher: &'a mut Publisher<L>,
    pub(crate) out: &'a mut Out<S>,
}

/// Why a message was not processed completely.
pub(crate) enum Halt {
    Stopped,
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Writes the checkpoint that [`Checkpointing`] starts with, and waits until it is durable. Returns
/// false if asked to stop before. Nothing else may be in flight. Blocks.
///
/// # Errors
/// When it can't be written.
pub(crate) fn write_checkpoint<S: Sink>(
    sink: Arc<S>,
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    stop: Arc<Stop>,
    checkpointing: Checkpointing,
) -> Result<bool, Error> {
    // An intent may follow many sent records, and revokes them.
    let progress = checkpointing.start.progress;
    match Out::new(sink, ledger, metrics, stop, checkpointing).settle_at(progress) {
        Ok(()) => Ok(true),
        Err(Halt::Stopped) => Ok(false),
        Err(Halt::Failed(error)) => Err(error),
    }
}
