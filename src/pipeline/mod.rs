//! The way of one change to Kafka, for whoever brings it: the stream and both kinds of snapshot.
//!
//! ```text
//! Change --publish--> records --send--> producer ..acknowledged.. commit --> checkpoint
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | `publish` | decides whether a change is published, routes it and encodes its records |
//! | `oversize` | makes records fit that are too large, as configured |
//! | `report` | logs what is left out, and counts it |
//! | `send` | gives each record its ticket and hands it to the producer, waiting where its queue is full |
//! | `cadence` | answers when a checkpoint is due, and when a Kafka transaction is cut |
//! | `commit` | writes the checkpoint and waits until it is durable |
//! | `dropped` | forgets tables that the database no longer has |
//!
//! Plain synchronous calls; whoever calls them owns the thread. Not here: where changes come from, and
//! what becomes of an error.

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

/// How long to wait for room before looking whether to stop.
pub(crate) const ROOM: Duration = Duration::from_millis(50);

/// Tells the worker to end, from another thread.
#[derive(Debug, Default)]
pub struct Stop(AtomicU8);

impl Stop {
    const AT_COMMIT: u8 = 1;
    const NOW: u8 = 2;

    /// End between two transactions.
    pub fn at_commit(&self) {
        self.0.fetch_max(Self::AT_COMMIT, Ordering::AcqRel);
    }

    /// End at the next look, in the middle of whatever it is.
    pub fn now(&self) {
        self.0.store(Self::NOW, Ordering::Release);
    }

    /// Whether to end now.
    #[must_use]
    pub fn is_now(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::NOW
    }

    /// Completes once it is to end now.
    pub(crate) async fn stopped(&self) {
        while !self.is_now() {
            tokio::time::sleep(ROOM).await;
        }
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }
}

/// What the stream alone does not tell, asked once per relation version.
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

    /// The present values of some columns of a row; none where the row can't be found.
    ///
    /// # Errors
    /// When the table can't be read.
    fn reselect(
        &mut self,
        relation: &Relation,
        row: &Row<'_>,
        columns: &[usize],
    ) -> Result<Option<Reselected>, Error>;

    /// The OID of a table of which nothing is to be published any more, now that this one is
    /// described so: itself, or the table that it is a partition of.
    ///
    /// # Errors
    /// When the catalog can't be asked.
    fn withheld(&mut self, relation: &Relation) -> Result<Option<u32>, Error>;

    /// Makes sure that a topic exists.
    ///
    /// # Errors
    /// When it can't be made.
    fn ensure_topic(&mut self, topic: &TopicPlan) -> Result<Ensured, Error>;

    /// Makes sure that many topics exist, for which [`ensure_topic`](Self::ensure_topic) is asked
    /// afterwards: so that this need not go to the brokers for each.
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

    /// Nothing of these tables comes any more, and these topics are no table's now.
    fn forget(&mut self, _tables: &[u32], _topics: &[Arc<str>]) {}
}

/// What became of a topic that is to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// It exists.
    Exists {
        /// The largest record that it takes, in bytes, where that is known.
        limit: Option<usize>,
    },
    /// Not known, since the worker is to stop. Nothing may be sent to it.
    Stopped,
}

impl Ensured {
    /// The largest record that the topic takes, where that is known.
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
    /// It was told to.
    Stopped,
    /// The reader will send no more.
    SourceClosed,
}

/// What a row goes through on its way out.
pub(crate) struct Stage<'a, S, L> {
    /// How tables are described in the stream.
    pub(crate) relations: &'a Relations,
    pub(crate) publisher: &'a mut Publisher<L>,
    pub(crate) out: &'a mut Out<S>,
}

/// Why a message was not carried through.
pub(crate) enum Halt {
    Stopped,
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Writes one checkpoint, the one that [`Checkpointing`] starts with, and waits until it is durable.
/// Returns whether it is: not when asked to stop before. Nothing else may be under way. Blocks.
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
    // An intent may come behind much that was sent, and takes it back.
    let progress = checkpointing.start.progress;
    match Out::new(sink, ledger, metrics, stop, checkpointing).settle_at(progress) {
        Ok(()) => Ok(true),
        Err(Halt::Stopped) => Ok(false),
        Err(Halt::Failed(error)) => Err(error),
    }
}
