//! The line from WAL bytes to records, run as plain calls on a thread of its own.
//!
//! One chunk at a time: frame, decode, assemble, encode, send. Nothing here waits except for room
//! in the producer's queue and, once per relation version, for the catalog and the topic. Both
//! waits can be cut short by [`Stop`], so a shutdown never hangs on a broker that is down.
//!
//! Per row nothing is allocated here: the buffers belong to the encoder and are reused, the topic
//! was found when the relation was announced.
//!
//! Not here: sockets, and what happens after an error.

mod checkpoints;
mod commit;
mod out;
mod oversize;
mod report;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::checkpoints::{Checkpointing, HEADER_SPLIT, Mode};
use self::out::Out;
pub use self::oversize::Oversize;
use self::oversize::{Limit, fit};
use self::report::{go_on_without, report};
use crate::change::{
    Assembler, Change, Data, KeyChoice, Op, Position, Relation, RelationFacts, Reselected, Row,
    Step, Transaction,
};
use crate::checkpoint::Ledger;
use crate::config::{OnError, OnOversize, Operation, TableFilter, UnchangedToast};
use crate::encode::{EncodeError, Encoder, Records};
use crate::error::Error;
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
    /// What the catalog knows of a relation.
    ///
    /// # Errors
    /// When the catalog can't be asked.
    fn relation_facts(&mut self, oid: u32, column_types: &[u32]) -> Result<RelationFacts, Error>;

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

    /// Makes sure that a topic exists. Gives the largest record that it takes, in bytes, where that
    /// is known.
    ///
    /// # Errors
    /// When it can't be made.
    fn ensure_topic(&mut self, topic: &TopicPlan) -> Result<Option<usize>, Error>;
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
    lookup: L,
    router: Router,
    assembler: Assembler,
    encoder: Encoder,
    records: Records,
    policy: Policy,
    /// Kinds of errors that were logged, by table.
    told: HashSet<(u32, &'static str)>,
    topics: HashMap<u32, Destination>,
    message_topic: Option<Arc<str>>,
    transaction_topic: Option<Arc<str>>,
    dead_letter_topic: Option<Arc<str>>,
    out: Out<S>,
}

/// Where a table's records go.
struct Destination {
    topic: Arc<str>,
    limit: Limit,
}

/// What is left out.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Operations to leave out even where the server sends them.
    pub skipped: Vec<Operation>,
    /// What to do with a row that can't be published.
    pub on_error: OnError,
    /// What to do with a row that is larger than Kafka takes.
    pub oversize: Oversize,
    /// The tables to publish, where the publication has others too: one for all tables, or for
    /// whole schemas.
    pub captured: Option<TableFilter>,
}

impl Policy {
    const fn goes_on_after(&self, error: &EncodeError) -> bool {
        match error {
            EncodeError::TooLarge { .. } => matches!(self.oversize.action, OnOversize::DeadLetter),
            _ => matches!(self.on_error, OnError::SkipWithDeadLetter),
        }
    }
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
            lookup,
            router,
            assembler: Assembler::new(last_commit_lsn),
            encoder,
            records: Records::default(),
            policy,
            told: HashSet::new(),
            topics: HashMap::new(),
            message_topic: None,
            transaction_topic: None,
            dead_letter_topic: None,
            out: Out::new(sink, ledger, metrics, stop, checkpointing),
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
                }
            }
        }
        self.out.metrics.received_bytes.inc_by(chunk.len_bytes() as u64);
        Ok(())
    }

    fn message(&mut self, lsn: Lsn, data: &[u8]) -> Result<(), Halt> {
        let message = pgoutput::decode(data).map_err(|source| Error::Decode { lsn, source })?;
        if let Message::Relation(body) = message {
            return self.relation(&body);
        }
        let Self { lookup, router, assembler, encoder, records, policy, topics, .. } = self;
        let (message_topic, out) = (&mut self.message_topic, &mut self.out);
        let (told, dead_letter_topic) = (&mut self.told, &mut self.dead_letter_topic);
        let resumed = out.checkpoints.resumed_from();
        let step = assembler.apply(message, lsn)?;
        let mut publish = |change: &Change<'_>| -> Result<(), Halt> {
            if operation(change.op()).is_some_and(|operation| policy.skipped.contains(&operation)) {
                return Ok(());
            }
            let (topic, limit) = match change.relation() {
                Some(relation) => match topics.get(&relation.oid) {
                    Some(Destination { topic, limit }) => (topic, Some(*limit)),
                    // The topic of a relation is found before the relation is known to the assembler.
                    None => return Ok(()),
                },
                None => (topic_once(message_topic, || router.message_topic(), lookup)?, None),
            };
            if resumed.covers(change.position) {
                out.metrics.covered.inc();
                // It still has its place in the counts of a transaction that was cut.
                if encoder.counts_events() {
                    let _ = encoder.encode(change, now_us(), records);
                }
                return Ok(());
            }
            let read = match encoder.unchanged_toast() {
                UnchangedToast::Reselect => reselect(change, lookup, &out.stop)?,
                _ => None,
            };
            let change = &read.as_ref().map_or(*change, |read| change.with(read));
            let now_us = now_us();
            out.changes += 1;
            let encoded = encoder.encode(change, now_us, records).and_then(|()| match limit {
                Some(limit) => match records.above(limit.bytes) {
                    Some(bytes) => {
                        fit((change, now_us), bytes, limit, encoder, records, &out.metrics)
                    }
                    None => Ok(()),
                },
                // Of a message nothing could be cut or told elsewhere.
                None => Ok(()),
            });
            if let Err(source) = encoded {
                go_on_without(change, lsn, &source, policy.goes_on_after(&source), told)?;
                encoder.dead_letter(change, &source, policy.oversize.client_limit, records);
                out.metrics.dead_letters.inc();
                let topic = topic_once(dead_letter_topic, || router.dead_letter_topic(), lookup)?;
                let at_ms = change.time_us(now_us) / 1000;
                return out.send_change(change.position, topic, at_ms, None, records);
            }
            out.count_unchanged(encoder.unchanged_toast(), records);
            // A truncate has no key; readers of partition 0 are told for all.
            let partition = (change.op() == Op::Truncate).then_some(0);
            let at_ms = change.time_us(now_us) / 1000;
            out.send_change(change.position, topic, at_ms, partition, records)
        };
        match step {
            Step::Change(change) => publish(&change)?,
            Step::Truncated(changes) => {
                for change in changes {
                    publish(&change)?;
                }
            }
            Step::Begin(transaction) => {
                out.ledger.begin();
                out.checkpoints.source_began(transaction.commit_lsn);
                encoder.begin(&transaction, lsn, records);
                let position = Position { commit_lsn: transaction.commit_lsn, ordinal: 0 };
                if !resumed.covers(position) {
                    self.send_around(&transaction)?;
                }
            }
            Step::Commit { transaction, end_lsn, changes } => {
                encoder.end(&transaction, lsn, records);
                let commit_lsn = transaction.commit_lsn;
                if !resumed.covers_commit(commit_lsn) {
                    self.send_around(&transaction)?;
                }
                self.out.ledger.commit(end_lsn, Position { commit_lsn, ordinal: changes });
                self.out.source_ended()?;
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

    /// Sends what the encoder has to say of a transaction's begin or end, if anything. It gets a
    /// ticket as every record does, so no transaction is confirmed before it.
    fn send_around(&mut self, transaction: &Transaction) -> Result<(), Halt> {
        if self.records.is_empty() {
            return Ok(());
        }
        let topic = || self.router.transaction_topic();
        let topic = topic_once(&mut self.transaction_topic, topic, &mut self.lookup)?;
        self.out.send_all(topic, transaction.commit_time_us / 1000, None, &self.records, None)
    }

    /// A table is described for the first time, or anew after it changed.
    fn relation(&mut self, body: &RelationBody<'_>) -> Result<(), Halt> {
        let types: Vec<u32> = body.columns.iter().map(|column| column.type_oid).collect();
        let facts = self.lookup.relation_facts(body.oid, &types)?;
        if self.out.stop.is_now() {
            return Err(Halt::Stopped);
        }
        let choice = KeyChoice { configured: self.router.key_columns(body.schema, body.table) };
        let before = self.assembler.relations.by_oid(body.oid).cloned();
        let relation = self.assembler.relations.insert(body, facts, &choice)?;
        let captured = self.policy.captured.as_ref();
        if captured.is_some_and(|tables| !tables.matches(body.schema, body.table)) {
            // Without a topic, nothing of it is published.
            self.topics.remove(&body.oid);
            let table = relation.full_name.as_str();
            tracing::info!(table, "left out: in the publication, but not in postgres.tables");
            return Ok(());
        }
        let plan = self.router.topic(body.schema, body.table)?;
        self.encoder.announce(&relation, &plan.name)?;
        report(before.as_deref(), &relation, &plan);
        let limit = self.lookup.ensure_topic(&plan)?;
        let limit = self.policy.oversize.limit(limit, self.encoder.may_cut(&relation));
        self.topics.insert(body.oid, Destination { topic: plan.name, limit });
        Ok(())
    }
}

/// Reads back what the stream does not have of a row; none where it has everything, or the row is
/// not found. Blocks.
fn reselect(
    change: &Change<'_>,
    lookup: &mut impl Lookup,
    stop: &Stop,
) -> Result<Option<Reselected>, Halt> {
    let Data::Update { relation, after, .. } = change.data else { return Ok(None) };
    let unknown: Vec<usize> = after.unknown(relation).collect();
    if unknown.is_empty() {
        return Ok(None);
    }
    let read = lookup.reselect(relation, &after, &unknown)?;
    if stop.is_now() { Err(Halt::Stopped) } else { Ok(read) }
}

/// A topic that is not a table's, made sure of on its first record.
fn topic_once<'a>(
    known: &'a mut Option<Arc<str>>,
    plan: impl FnOnce() -> TopicPlan,
    lookup: &mut impl Lookup,
) -> Result<&'a Arc<str>, Error> {
    match known {
        Some(topic) => Ok(topic),
        None => {
            let plan = plan();
            lookup.ensure_topic(&plan)?;
            Ok(known.insert(plan.name))
        }
    }
}

/// The operation as the configuration names it, if it is one that can be skipped.
const fn operation(op: Op) -> Option<Operation> {
    match op {
        Op::Create => Some(Operation::Insert),
        Op::Update => Some(Operation::Update),
        Op::Delete => Some(Operation::Delete),
        Op::Truncate => Some(Operation::Truncate),
        Op::Read | Op::Message => None,
    }
}

fn now_us() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
