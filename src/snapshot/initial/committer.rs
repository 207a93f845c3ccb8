//! Writes checkpoints of complete ranges, at most once a second, and ends the snapshot.
//!
//! Runs next to the readers and sends only checkpoints, and rows that were held back.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reader::{Reader, Rows};
use super::schedule::Task;
use super::shared::Desk;
use super::{FirstTable, Leaf, LeafRange, Ranges};
use crate::checkpoint::{Checkpoint, LeafProgress, Snapshots, TableProgress, TableSnapshot};
use crate::error::Error;
use crate::failpoint;
use crate::kafka::Sink;
use crate::pipeline::cadence::{Checkpointing, Mode};
use crate::pipeline::send::Out;
use crate::pipeline::{Halt, Lookup};
use crate::snapshot::DonePages;

/// Shortest time between two checkpoints.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time between two checks for something to do.
const LOOK: Duration = Duration::from_millis(50);

/// Longest wait for the brokers before checking whether to stop.
const FLUSH: Duration = Duration::from_millis(100);

/// Writes the checkpoints of a first snapshot.
pub(crate) struct Committer<'a, S, L> {
    desk: &'a Desk<S>,
    rows: Rows<L>,
    out: Out<S>,
    max_transaction_bytes: Option<u64>,
    start: Checkpoint,
    /// The content of the next checkpoint.
    snapshots: Snapshots,
    tables: Vec<Unfinished>,
    written_at: Instant,
}

/// A table of the snapshot, while it is listed.
struct Unfinished {
    /// OID and file of each leaf, and which pages are published.
    leaves: Vec<(u32, u32, DonePages)>,
    missing: usize,
    is_unlisted: bool,
}

impl<'a, S, L> Committer<'a, S, L>
where
    S: Sink + Send + Sync,
    L: Lookup + Send,
{
    pub(crate) fn new(desk: &'a Desk<S>, rows: Rows<L>, mut checkpointing: Checkpointing) -> Self {
        let mut max_transaction_bytes = None;
        if let Mode::ExactlyOnce { commit_interval, max_transaction_bytes: max, .. } =
            &mut checkpointing.mode
        {
            *commit_interval = INTERVAL.max(*commit_interval);
            max_transaction_bytes = Some(*max);
        }
        let start = checkpointing.start.clone();
        let snapshots = start.snapshots.as_ref().clone();
        let Desk { sink, ledger, metrics, stop, .. } = desk;
        let out = Out::new(
            Arc::clone(sink),
            Arc::clone(ledger),
            Arc::clone(metrics),
            Arc::clone(stop),
            checkpointing,
        );
        let written_at = Instant::now();
        Self {
            desk,
            rows,
            out,
            max_transaction_bytes,
            start,
            snapshots,
            tables: Vec::new(),
            written_at,
        }
    }

    pub(crate) fn run<R: Ranges + Send>(
        &mut self,
        tables: &[FirstTable],
        readers: Vec<Reader<L, R>>,
    ) -> Result<Option<Checkpoint>, Error> {
        match self.carry(tables, readers) {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(Halt::Stopped) => match self.desk.take_failure() {
                Some(error) => Err(error),
                None => Ok(None),
            },
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    fn carry<R: Ranges + Send>(
        &mut self,
        tables: &[FirstTable],
        mut readers: Vec<Reader<L, R>>,
    ) -> Result<Checkpoint, Halt> {
        self.rows.publisher.settle(tables.iter().map(|table| &table.relation))?;
        self.stopped()?;
        for table in tables {
            for reader in &mut readers {
                reader.rows.publisher.learn(&table.relation, &self.rows.publisher)?;
            }
        }
        self.tables = tables.iter().map(Unfinished::new).collect();
        // A table without pages is done already; its topic is created.
        self.note(tables, &[]);
        self.begin()?;
        let desk = self.desk;
        std::thread::scope(|scope| {
            for (number, mut reader) in readers.into_iter().enumerate() {
                desk.reader_begins();
                let run = move || {
                    // Nothing of a reader that panicked is used any more.
                    let ended = catch_unwind(AssertUnwindSafe(|| reader.run(desk)));
                    desk.reader_ends(ended.unwrap_or_else(|_| Err(panicked().into())));
                };
                let name = format!("snapshot-{number}");
                if let Err(error) = std::thread::Builder::new().name(name).spawn_scoped(scope, run)
                {
                    let (thread, reason) = ("snapshot", error.to_string());
                    desk.reader_ends(Err(Error::Thread { thread, reason }.into()));
                }
            }
            let outcome = self.beside(tables);
            if outcome.is_err() {
                desk.stop.now();
            }
            outcome
        })?;
        self.end(tables)
    }

    /// Runs until all readers have ended.
    fn beside(&mut self, tables: &[FirstTable]) -> Result<(), Halt> {
        failpoint::reach("snapshot");
        while !self.desk.await_readers(LOOK) {
            failpoint::reach("snapshot");
            self.stopped()?;
            match self.max_transaction_bytes {
                None => self.tell_acknowledged(tables)?,
                Some(max) => {
                    let is_full = self.desk.bytes() >= max;
                    if is_full || self.written_at.elapsed() >= INTERVAL {
                        self.commit(tables)?;
                    }
                }
            }
        }
        self.stopped()
    }

    /// The list of the tables is durable before the first row is sent.
    fn begin(&mut self) -> Result<(), Halt> {
        self.stand();
        self.make_durable()?;
        self.out.open_transaction()
    }

    /// Everything is sent: the last checkpoint lists none of the tables.
    fn end(&mut self, tables: &[FirstTable]) -> Result<Checkpoint, Halt> {
        if self.max_transaction_bytes.is_none() {
            self.flush()?;
        }
        let whole = self.desk.take_whole(None);
        self.note(tables, &whole);
        debug_assert!(self.tables.iter().all(|table| table.missing == 0), "a range is missing");
        self.stand();
        self.make_durable()?;
        let snapshots = Arc::new(self.snapshots.clone());
        Ok(Checkpoint { snapshots, ..self.start.clone() })
    }

    /// At least once: adds acknowledged ranges to the checkpoint, if one is due.
    fn tell_acknowledged(&mut self, tables: &[FirstTable]) -> Result<(), Halt> {
        if self.written_at.elapsed() >= INTERVAL && !self.desk.ledger.is_checkpoint_under_way() {
            let acknowledged = self.desk.ledger.standing().acknowledged;
            let whole = self.desk.take_whole(Some(acknowledged));
            if !whole.is_empty() {
                self.note(tables, &whole);
                self.stand();
            }
            self.written_at = Instant::now();
        }
        self.out.tick(false)
    }

    /// Exactly once: commits everything that was sent, together with its checkpoint.
    fn commit(&mut self, tables: &[FirstTable]) -> Result<(), Halt> {
        let desk = self.desk;
        let closed = desk.gate.close(&desk.stop).ok_or(Halt::Stopped)?;
        let releases = desk.schedule(|schedule| schedule.release_held());
        self.rows.release(desk, &releases)?;
        let whole = desk.take_whole(None);
        if !whole.is_empty() {
            self.note(tables, &whole);
            self.stand();
            self.out.commit()?;
            self.out.open_transaction()?;
            desk.forget_bytes();
        }
        self.written_at = Instant::now();
        drop(closed);
        Ok(())
    }

    /// Writes the checkpoint, and waits until it is durable.
    fn make_durable(&mut self) -> Result<(), Halt> {
        if self.max_transaction_bytes.is_some() {
            return self.out.commit();
        }
        let progress = self.start.progress;
        while self.desk.ledger.is_checkpoint_under_way() || !self.out.offer(progress)? {
            self.stopped()?;
            self.flush()?;
        }
        self.flush()
    }

    /// At least once: waits until everything is acknowledged.
    fn flush(&self) -> Result<(), Halt> {
        let ledger = &self.desk.ledger;
        loop {
            let flushed = self.desk.sink.commit(FLUSH)?;
            let standing = ledger.standing();
            let is_acknowledged = standing.acknowledged == standing.issued;
            if flushed && is_acknowledged && !ledger.is_checkpoint_under_way() {
                return Ok(());
            }
            self.stopped()?;
            if flushed {
                // Another thread receives the reports, or one of them is a failure.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn stopped(&self) -> Result<(), Halt> {
        if self.desk.stop.is_now() { Err(Halt::Stopped) } else { Ok(()) }
    }

    /// Adds what was noted to the next checkpoint.
    fn stand(&mut self) {
        let snapshots = Arc::new(self.snapshots.clone());
        self.out.checkpoints.snapshots_stand(self.start.progress.through_lsn, snapshots);
    }

    /// Notes complete ranges for the next checkpoint.
    fn note(&mut self, tables: &[FirstTable], whole: &[Task]) {
        let mut changed = BTreeSet::new();
        for task in whole {
            let Some(unfinished) = self.tables.get_mut(task.table) else { continue };
            let Some(place) = tables.get(task.table).and_then(|table| table.place(task.range))
            else {
                continue;
            };
            unfinished.add(place);
            changed.insert(task.table);
        }
        for at in changed {
            let (Some(table), Some(unfinished)) = (tables.get(at), self.tables.get(at)) else {
                continue;
            };
            let listed = self.snapshots.tables.iter_mut().find(|listed| is_of(listed, table));
            if let Some(TableProgress::Pages(pages)) = listed.map(|listed| &mut listed.progress) {
                pages.leaves = unfinished.leaves();
            }
        }
        for (table, unfinished) in tables.iter().zip(&mut self.tables) {
            if unfinished.missing == 0 && !std::mem::replace(&mut unfinished.is_unlisted, true) {
                self.snapshots.tables.retain(|listed| !is_of(listed, table));
                self.desk.book.finish(table.entry);
            }
        }
    }
}

fn panicked() -> Error {
    let (thread, reason) = ("snapshot", "a reader ended in a panic".to_owned());
    Error::Thread { thread, reason }
}

fn is_of(listed: &TableSnapshot, table: &FirstTable) -> bool {
    listed.schema == table.relation.schema && listed.table == table.relation.table
}

impl Unfinished {
    fn new(table: &FirstTable) -> Self {
        let leaf = |leaf: &Leaf| (leaf.oid, leaf.filenode, DonePages::default());
        let leaves = table.leaves.iter().map(leaf).collect();
        Self { leaves, missing: table.ranges(), is_unlisted: false }
    }

    /// Notes a complete range.
    fn add(&mut self, LeafRange { leaf, pages }: LeafRange) {
        self.missing = self.missing.saturating_sub(1);
        if let Some((_, _, done)) = self.leaves.get_mut(leaf) {
            done.insert(pages);
        }
    }

    /// The published pages of each leaf.
    fn leaves(&self) -> Vec<LeafProgress> {
        let progress = |(oid, filenode, done): &(u32, u32, DonePages)| LeafProgress {
            oid: *oid,
            filenode: *filenode,
            done: done.as_slice().to_vec(),
        };
        self.leaves.iter().map(progress).collect()
    }
}
