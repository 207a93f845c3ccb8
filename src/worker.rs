//! The stream loop: turns WAL bytes into records, as plain calls on a thread of its own.
//!
//! One chunk at a time: frame, decode, assemble, encode, send. It waits only for free space in the
//! producer's queue and, once per relation version, for the catalog and the topic. [`Stop`] ends
//! both waits, so a shutdown never hangs on a broker that is down.
//!
//! Not here: what is done with a change (`publish`), sockets, and what happens after an error.

use std::sync::Arc;

use crate::change::{Assembler, Change, KeyChoice, Position, Step, Transaction};
use crate::error::Error;
use crate::kafka::Sink;
use crate::lsn::Lsn;
use crate::pgoutput::{self, Message, RelationBody};
use crate::pipeline::dropped::Described;
use crate::pipeline::publish::Publisher;
use crate::pipeline::send::Out;
use crate::pipeline::{Ended, Halt, Lookup, Stage};
use crate::postgres::{Chunk, ChunkReceiver, Frame, Received};
use crate::snapshot::incremental::apply::{Heard, News, Windows};
use crate::snapshot::{Control, Exchange, Signals};
use crate::{allocation, failpoint};

/// Turns chunks into records.
pub(crate) struct Worker<S, L> {
    assembler: Assembler,
    publisher: Publisher<L>,
    out: Out<S>,
    windows: Option<Windows>,
    described: Described,
}

impl<S: Sink, L: Lookup> Worker<S, L> {
    /// Joins the stages. `last_commit_lsn` is the end of the last transaction before the stream;
    /// `None` if nothing was streamed before.
    pub(crate) fn new(publisher: Publisher<L>, out: Out<S>, last_commit_lsn: Option<Lsn>) -> Self {
        Self {
            assembler: Assembler::new(last_commit_lsn),
            publisher,
            out,
            windows: None,
            described: Described::new(),
        }
    }

    /// Adds snapshots that run while the stream runs, as `orders` requests.
    #[must_use]
    pub(crate) fn with_snapshots(
        mut self,
        exchange: Arc<Exchange>,
        control: Arc<Control>,
        signals: Signals,
    ) -> Self {
        let stands = self.out.checkpoints.told.start.snapshots.as_ref().clone();
        self.publisher.go_on_without(stands.left_out.iter().map(|table| table.oid));
        self.windows = Some(Windows::new(exchange, control, signals, stands));
        self
    }

    /// Processes chunks until the reader closes the channel or the worker is asked to stop. Blocks.
    ///
    /// # Errors
    /// The first failure; nothing after it was sent.
    pub(crate) fn run(mut self, chunks: &mut ChunkReceiver) -> Result<Ended, Error> {
        let ended = self.carry_all(chunks);
        failpoint::reach("worker-end");
        // What can't be finished is published again after a restart.
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
        let mut way = Way { publisher, out, windows: windows.as_mut(), lsn };
        match assembler.apply(message, lsn)? {
            Step::Change(change) => match Heard::of(&change) {
                Some(heard) => {
                    let Way { publisher, out, windows, .. } = way;
                    let mut stage = Stage { relations: &assembler.relations, publisher, out };
                    let heard = windows.map(|of| of.hear(&heard, &mut stage));
                    if let Some(oid) = heard.transpose()?.flatten() {
                        self.known(oid)?;
                    }
                }
                None => way.publish(&change)?,
            },
            Step::Truncated(changes) => {
                for change in changes {
                    way.publish(&change)?;
                }
            }
            Step::Begin(transaction) => way.begin(&transaction)?,
            Step::Commit { transaction, end_lsn, changes } => {
                way.end(&transaction)?;
                let position = Position { commit_lsn: transaction.commit_lsn, ordinal: changes };
                self.out.ledger.commit(end_lsn, position);
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

    /// Checks that there is memory for a large row's record. A logical message that is too large
    /// for Kafka is refused before that.
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

    /// Records the end of a transaction in the ledger.
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

    /// Handles the description of a table: the first, or a new one after it changed.
    fn relation(&mut self, body: &RelationBody<'_>) -> Result<(), Halt> {
        let Self { assembler, publisher, out, windows, .. } = self;
        let types: Vec<u32> = body.columns.iter().map(|column| column.type_oid).collect();
        let described_in = assembler.transaction();
        let facts = publisher.lookup.relation_facts(body.oid, &types, described_in)?;
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

    /// Records that state is kept of this table from here on, whether the stream described it or a
    /// snapshot in the transaction of its watermark.
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

    /// The stream has reached `lsn`, between two transactions.
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

/// What a message of the stream goes through, apart from the assembler that read it.
struct Way<'a, S, L> {
    publisher: &'a mut Publisher<L>,
    out: &'a mut Out<S>,
    windows: Option<&'a mut Windows>,
    /// The position that the message's frame carries.
    lsn: Lsn,
}

impl<S: Sink, L: Lookup> Way<'_, S, L> {
    fn publish(&mut self, change: &Change<'_>) -> Result<(), Halt> {
        let Self { publisher, out, windows, lsn } = self;
        let is_covered = out.checkpoints.resumed_from().covers(change.position);
        if let Some(windows) = windows {
            windows.see(change);
            if windows.leaves_out(change) {
                return Ok(());
            }
            if !is_covered {
                windows.signal_row(change, &out.metrics);
            }
        }
        if is_covered {
            publisher.pass_over(change, &out.metrics);
            return Ok(());
        }
        match publisher.prepare(change, *lsn, &out.metrics, &out.stop)? {
            Some(prepared) => {
                out.changes += 1;
                out.send_change(change.position, prepared)
            }
            None => Ok(()),
        }
    }

    /// A transaction of the source begins. Its record, if any, gets a ticket as every record does, so
    /// no transaction is confirmed before it.
    fn begin(&mut self, transaction: &Transaction) -> Result<(), Halt> {
        let Self { publisher, out, windows, lsn } = self;
        out.ledger.begin();
        if let Some(windows) = windows {
            windows.began(transaction.xid);
        }
        out.checkpoints.source_began(transaction.commit_lsn);
        let position = Position { commit_lsn: transaction.commit_lsn, ordinal: 0 };
        let is_covered = out.checkpoints.resumed_from().covers(position);
        match publisher.begin(transaction, *lsn)? {
            Some(prepared) if !is_covered => out.send_all(prepared, None),
            _ => Ok(()),
        }
    }

    /// A transaction of the source ends.
    fn end(&mut self, transaction: &Transaction) -> Result<(), Halt> {
        let Self { publisher, out, lsn, .. } = self;
        let is_covered = out.checkpoints.resumed_from().covers_commit(transaction.commit_lsn);
        match publisher.end(transaction, *lsn)? {
            Some(prepared) if !is_covered => out.send_all(prepared, None),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
