//! The line from WAL bytes to records, run as plain calls on a thread of its own.
//!
//! One chunk at a time: frame, decode, assemble, encode, send. Nothing here waits except for room
//! in the producer's queue and, once per relation version, for the catalog and the topic. Both
//! waits can be cut short by [`Stop`], so a shutdown never hangs on a broker that is down.
//!
//! Not here: what becomes of a change (`publish`), sockets, and what happens after an error.

mod checkpoints;
mod commit;
mod dropped;
mod hold;
mod left_out;
mod out;
mod oversize;
mod publish;
mod report;
mod signals;
pub mod snapshot;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::checkpoints::{Checkpointing, HEADER_SPLIT, Mode};
use self::dropped::Described;
pub use self::dropped::Dropped;
use self::out::Out;
pub use self::oversize::Oversize;
pub use self::publish::{Policy, left_out};
use self::publish::{Prepared, Publisher};
use self::window::{Heard, News, Windows};
use crate::allocation;
use crate::change::{
    Assembler, Change, KeyChoice, Position, Relation, RelationFacts, Reselected, Row, Step,
    Transaction,
};
use crate::checkpoint::Ledger;
use crate::encode::Encoder;
use crate::error::Error;
use crate::failpoint;
use crate::kafka::Sink;
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::pgoutput::{self, Message, RelationBody};
use crate::postgres::{Chunk, ChunkReceiver, Frame, Received};
use crate::route::{Router, TopicPlan};

/// How long to wait for room before looking whether to stop.
const ROOM: Duration = Duration::from_millis(50);

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

    fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }
}

/// What the stream alone does not tell, asked once per relation version.
pub trait Lookup {
    /// What the catalog knows of a relation that is described in a transaction which commits at
    /// `commit_lsn`, if that is known.
    ///
    /// # Errors
    /// When the catalog can't be asked.
    fn relation_facts(
        &mut self,
        oid: u32,
        column_types: &[u32],
        commit_lsn: Option<Lsn>,
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
    fn limit(self) -> Result<Option<usize>, Halt> {
        match self {
            Self::Exists { limit } => Ok(limit),
            Self::Stopped => Err(Halt::Stopped),
        }
    }
}

/// Why the worker ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// The reader will send no more.
    SourceClosed,
}

/// Turns chunks into records.
pub struct Worker<S, L> {
    assembler: Assembler,
    publisher: Publisher<L>,
    out: Out<S>,
    windows: Option<Windows>,
    described: Described,
}

/// Why a message was not carried through.
enum Halt {
    Stopped,
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Writes one checkpoint, the one that [`Checkpointing`] starts with, and waits until it is durable.
/// Returns whether it is: not when told to stop before. Nothing else may be under way. Blocks.
///
/// # Errors
/// When it can't be written.
pub fn write_checkpoint<S: Sink>(
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

impl<S: Sink, L: Lookup> Worker<S, L> {
    /// Joins the stages. `last_commit_lsn` is where the last transaction before the stream ended;
    /// none when nothing was streamed before.
    #[expect(clippy::too_many_arguments, reason = "the one place where all stages meet")]
    pub fn new(
        sink: Arc<S>,
        lookup: L,
        router: Router,
        encoder: Encoder,
        policy: Policy,
        last_commit_lsn: Option<Lsn>,
        checkpointing: Checkpointing,
        ledger: Arc<Ledger>,
        metrics: Arc<Metrics>,
        stop: Arc<Stop>,
    ) -> Self {
        Self {
            assembler: Assembler::new(last_commit_lsn),
            publisher: Publisher::new(lookup, router, encoder, policy),
            out: Out::new(sink, ledger, metrics, stop, checkpointing),
            windows: None,
            described: Described::new(),
        }
    }

    /// Carries chunks until the reader closes the channel or the worker is told to stop. Blocks.
    ///
    /// # Errors
    /// The first failure; nothing after it was sent.
    pub fn run(mut self, chunks: &mut ChunkReceiver) -> Result<Ended, Error> {
        let ended = self.carry_all(chunks);
        // What can't be brought to its end comes again.
        if let Err(Halt::Failed(error)) = self.out.finish(self.assembler.is_in_transaction()) {
            tracing::debug!(error = error.told(), "the last checkpoint is missing");
        }
        match ended {
            Ok(ended) => Ok(ended),
            Err(Halt::Stopped) => Ok(Ended::Stopped),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    fn carry_all(&mut self, chunks: &mut ChunkReceiver) -> Result<Ended, Halt> {
        self.out.begin()?;
        loop {
            failpoint::reach("worker");
            let wake_at = self.out.wake_at(self.assembler.is_in_transaction());
            match chunks.recv_until(wake_at) {
                Received::Chunk(chunk) => {
                    let is_backlog = chunk.is_backlog() && !chunks.is_empty();
                    self.out.checkpoints.chunk_begins(is_backlog);
                    let outcome = self.carry(&chunk);
                    self.out.count();
                    if !chunk.is_backlog() && chunks.is_empty() {
                        self.out.sink.send_queued();
                    }
                    outcome?;
                }
                Received::Closed => return Ok(Ended::SourceClosed),
                Received::Nothing => self.out.checkpoints.chunk_begins(false),
            }
            self.out.tick(self.assembler.is_in_transaction())?;
        }
    }

    fn carry(&mut self, chunk: &Chunk) -> Result<(), Halt> {
        for frame in chunk.frames() {
            if self.out.stop.is_asked()
                && (self.out.stop.is_now() || !self.assembler.is_in_transaction())
            {
                return Err(Halt::Stopped);
            }
            match frame? {
                Frame::XLogData { wal_start, data, .. } => self.message(wal_start, data)?,
                Frame::Keepalive { wal_end, reply_requested, .. } => {
                    if reply_requested {
                        self.out.checkpoints.ask();
                    }
                    self.out.ledger.keepalive(wal_end);
                    self.out.metrics.received_lsn.set(wal_end.as_u64());
                    if !self.assembler.is_in_transaction() {
                        self.passed(wal_end);
                    }
                }
            }
        }
        self.out.metrics.received_bytes.inc_by(chunk.len_bytes() as u64);
        Ok(())
    }

    fn message(&mut self, lsn: Lsn, data: &[u8]) -> Result<(), Halt> {
        if data.len() >= allocation::LARGE {
            self.memory_for(data)?;
        }
        let message = pgoutput::decode(data).map_err(|source| Error::Decode { lsn, source })?;
        if let Message::Relation(body) = message {
            return self.relation(&body);
        }
        let Self { assembler, publisher, out, windows, .. } = self;
        let resumed = out.checkpoints.resumed_from();
        let mut publish = |change: &Change<'_>, out: &mut Out<S>| -> Result<(), Halt> {
            if let Some(windows) = windows {
                windows.see(change);
                if windows.leaves_out(change) {
                    return Ok(());
                }
            }
            let is_covered = resumed.covers(change.position);
            if let Some(windows) = windows.as_mut().filter(|_| !is_covered) {
                windows.signal_row(change, &out.metrics);
            }
            if is_covered {
                publisher.pass_over(change, &out.metrics);
                return Ok(());
            }
            match publisher.prepare(change, lsn, &out.metrics, &out.stop)? {
                Some(Prepared { topic, at_ms, partition, records }) => {
                    out.changes += 1;
                    out.send_change(change.position, topic, at_ms, partition, records)
                }
                None => Ok(()),
            }
        };
        match assembler.apply(message, lsn)? {
            Step::Change(change) => match Heard::of(&change) {
                Some(heard) => self.hear(&heard)?,
                None => publish(&change, out)?,
            },
            Step::Truncated(changes) => {
                for change in changes {
                    publish(&change, out)?;
                }
            }
            Step::Begin(transaction) => {
                out.ledger.begin();
                if let Some(windows) = windows {
                    windows.began(transaction.xid);
                }
                out.checkpoints.source_began(transaction.commit_lsn);
                publisher.begin(&transaction, lsn);
                let position = Position { commit_lsn: transaction.commit_lsn, ordinal: 0 };
                if !resumed.covers(position) {
                    self.send_around(&transaction)?;
                }
            }
            Step::Commit { transaction, end_lsn, changes } => {
                publisher.end(&transaction, lsn);
                let commit_lsn = transaction.commit_lsn;
                if !resumed.covers_commit(commit_lsn) {
                    self.send_around(&transaction)?;
                }
                self.out.ledger.commit(end_lsn, Position { commit_lsn, ordinal: changes });
                self.source_ended(end_lsn)?;
                self.passed(end_lsn);
                self.out.metrics.transactions.inc();
                self.out.metrics.received_lsn.set(end_lsn.as_u64());
            }
            Step::Nothing => {}
        }
        if !self.assembler.is_in_transaction() {
            self.out.message_ended()?;
        }
        Ok(())
    }

    /// Makes sure that the record of a large row can be written. What is too large for Kafka is refused
    /// before it is, where it is a logical message.
    #[cold]
    fn memory_for(&self, data: &[u8]) -> Result<(), Halt> {
        let bytes = data.len();
        let is_written =
            data.first() != Some(&b'M') || bytes <= self.publisher.policy.oversize.client_limit;
        if is_written && !allocation::fits(bytes.saturating_mul(allocation::TIMES - 2)) {
            return Err(Halt::Failed(Error::Memory { bytes }));
        }
        Ok(())
    }

    /// A transaction has ended, and the ledger knows of it.
    fn source_ended(&mut self, end_lsn: Lsn) -> Result<(), Halt> {
        let news = self.windows.as_mut().and_then(|windows| windows.ended(end_lsn));
        let Some(News { stand, is_durable, admitted }) = news else {
            return self.out.source_ended();
        };
        self.out.checkpoints.snapshots_stand(end_lsn, stand);
        self.out.source_ended()?;
        if is_durable {
            self.out.settle()?;
        }
        for oid in admitted {
            self.publisher.admit(oid, self.assembler.relations.by_oid(oid))?;
        }
        Ok(())
    }

    /// Sends what the encoder has to say of a transaction's begin or end, if anything. It gets a
    /// ticket as every record does, so no transaction is confirmed before it.
    fn send_around(&mut self, transaction: &Transaction) -> Result<(), Halt> {
        match self.publisher.around(transaction)? {
            Some(Prepared { topic, at_ms, records, .. }) => {
                self.out.send_all(topic, at_ms, None, records, None)
            }
            None => Ok(()),
        }
    }

    /// A table is described for the first time, or anew after it changed.
    fn relation(&mut self, body: &RelationBody<'_>) -> Result<(), Halt> {
        let Self { assembler, publisher, out, windows, .. } = self;
        let types: Vec<u32> = body.columns.iter().map(|column| column.type_oid).collect();
        let commit_lsn = assembler.commit_lsn();
        let facts = publisher.lookup.relation_facts(body.oid, &types, commit_lsn)?;
        if out.stop.is_now() {
            return Err(Halt::Stopped);
        }
        let configured = publisher.router.key_columns(body.schema, body.table);
        let before = assembler.relations.by_oid(body.oid).cloned();
        let relation = assembler.relations.insert(body, facts, &KeyChoice { configured })?;
        if let Some(windows) = windows {
            windows.described(&relation);
        }
        publisher.announce(&relation, before.as_deref())?;
        for table in publisher.take_refused() {
            if let Some(windows) = windows {
                windows.leave_out(table);
            }
        }
        self.known(body.oid)
    }

    /// Something is kept of a table from here on, whoever described it: the stream, or a snapshot in the
    /// transaction of its watermark.
    fn known(&mut self, oid: u32) -> Result<(), Halt> {
        let Self { assembler, publisher, out, described, .. } = self;
        if let Some(Transaction { xid, commit_lsn, .. }) = assembler.transaction() {
            described.describe(oid, *xid, *commit_lsn);
            out.metrics.tables_described.set(described.count());
        }
        if let Some(tables) = described.to_ask() {
            described.asked(publisher.lookup.dropped(&tables)?);
        }
        Ok(())
    }

    /// The stream has come to `lsn`, between two transactions.
    #[inline]
    fn passed(&mut self, lsn: Lsn) {
        if let Some(tables) = self.described.passed(lsn) {
            for oid in &tables {
                self.assembler.relations.forget(*oid);
            }
            if let Some(windows) = &mut self.windows {
                windows.forget(&tables);
            }
            self.publisher.forget(&tables);
            self.out.metrics.tables_described.set(self.described.count());
            tracing::debug!(tables = tables.len(), "tables that were dropped are forgotten");
        }
    }
}

/// Our clock, in microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
