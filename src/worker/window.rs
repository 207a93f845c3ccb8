//! The worker's side of snapshots beside the stream: watermarks as they come by, the changes between
//! two of them, and the rows that are published at the second.
//!
//! A chunk's rows go out within the transaction of its high watermark, and the state of the snapshot
//! changes with the end of that transaction: so whatever a checkpoint covers has rows and state
//! together. While no window is open, a change costs one look at an empty map.
//!
//! Not here: what makes a row stand or fall (`snapshot::window`), who reads chunks (`bridge`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::left_out::LeftOut;
use super::out::Out;
use super::publish::{Prepared, Publisher};
use super::signals::Signaling;
use super::{Halt, Lookup, Worker};
use crate::change::{Change, Data, Position, Relation, Relations, Row, Snapshot, SnapshotMarker};
use crate::checkpoint::{LeftOutTable, Snapshots};
use crate::kafka::Sink;
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::snapshot::exchange::{Edit, Exchange, Order, Outcome};
use crate::snapshot::watermark::{OWN_PREFIX, SIGNAL_PREFIX, WATERMARK_PREFIX};
use crate::snapshot::{
    Chunk, Closed, Control, RecentXids, RowReader, Signals, Spoiled, Window, window,
};

/// The windows that are open, and what is needed to close them.
pub(super) struct Windows {
    exchange: Arc<Exchange>,
    control: Arc<Control>,
    signaling: Signaling,
    /// By the OIDs of their tables.
    open: HashMap<u32, Window>,
    pub(super) recent: RecentXids,
    /// As snapshots stand at this place of the stream.
    stands: Snapshots,
    /// Orders that are carried out in the transaction that is open.
    carried_out: Vec<CarriedOut>,
    /// Whether the state changed in this transaction by what the stream itself says.
    has_news: bool,
    /// Whether what they change must be durable before the next transaction is published.
    pub(super) must_be_durable: bool,
    left_out: LeftOut,
    pub(super) reader: RowReader,
}

struct CarriedOut {
    /// None where nobody placed it: a signal.
    number: Option<u64>,
    edits: Vec<Edit>,
    result: Result<Closed, Spoiled>,
}

/// How snapshots stand otherwise than before.
pub(super) struct News {
    pub(super) stand: Arc<Snapshots>,
    /// Whether that must be durable before the next transaction is published.
    pub(super) is_durable: bool,
    /// The OIDs of tables that have their topics from here on.
    pub(super) admitted: Vec<u32>,
}

/// A message of our own, as it stands in the stream.
pub(super) struct Heard {
    position: Position,
    lsn: Lsn,
    prefix: String,
    content: Vec<u8>,
}

impl Heard {
    /// None for every change that is not a message of our own.
    #[inline]
    pub(super) fn of(change: &Change<'_>) -> Option<Self> {
        let Data::Message { prefix, content } = change.data else { return None };
        let prefix = std::str::from_utf8(prefix).ok()?;
        prefix.starts_with(OWN_PREFIX).then(|| Self {
            position: change.position,
            lsn: change.lsn,
            prefix: prefix.to_owned(),
            content: content.to_vec(),
        })
    }

    pub(super) const fn position(&self) -> Position {
        self.position
    }

    /// Publishes a row that was read, with the time of that, at a place in this message's
    /// transaction.
    pub(super) fn publish_row<S: Sink, L: Lookup>(
        &self,
        (publisher, out): (&mut Publisher<L>, &mut Out<S>),
        relation: &Arc<Relation>,
        (row, time_us): (Row<'_>, i64),
        position: Position,
    ) -> Result<(), Halt> {
        let snapshot = Snapshot { marker: SnapshotMarker::Incremental, time_us, xid: None };
        let change = Change {
            position,
            lsn: self.lsn,
            transaction: None,
            last_commit_lsn: None,
            origin: None,
            data: Data::Read { relation, row, snapshot },
        };
        match publisher.prepare(&change, self.lsn, &out.metrics, &out.stop)? {
            Some(Prepared { topic, at_ms, partition, records }) => {
                out.changes += 1;
                out.send_all(topic, at_ms, partition, records, None)
            }
            None => Ok(()),
        }
    }
}

impl Windows {
    /// `stands` is what the checkpoint says at the start.
    pub(super) fn new(
        exchange: Arc<Exchange>,
        control: Arc<Control>,
        signals: Signals,
        stands: Snapshots,
    ) -> Self {
        let mut left_out = LeftOut::default();
        left_out.follow(&stands);
        Self {
            exchange,
            control,
            signaling: Signaling::new(signals),
            open: HashMap::new(),
            recent: RecentXids::default(),
            stands,
            carried_out: Vec::new(),
            has_news: false,
            must_be_durable: false,
            left_out,
            reader: RowReader::default(),
        }
    }

    /// A transaction begins.
    #[inline]
    pub(super) fn began(&mut self, xid: u32) {
        self.recent.push(xid);
    }

    /// A change comes by.
    #[inline]
    pub(super) fn see(&mut self, change: &Change<'_>) {
        if !self.open.is_empty() {
            self.mind(change);
        }
    }

    fn mind(&mut self, change: &Change<'_>) {
        let relation = change.relation();
        if let Some(window) = relation.and_then(|relation| self.open.get_mut(&relation.oid)) {
            window.saw(change);
        }
    }

    /// Whether a change is not to be published, for it is in rows that will be read.
    #[inline]
    pub(super) fn leaves_out(&self, change: &Change<'_>) -> bool {
        !self.left_out.is_empty()
            && change.relation().is_some_and(|relation| {
                let name = (relation.schema.as_str(), relation.table.as_str());
                self.left_out.has(name, change.position.commit_lsn)
            })
    }

    /// A table is described.
    pub(super) fn described(&mut self, relation: &Arc<Relation>) {
        self.signaling.described(relation);
        if let Some(window) = self.open.get_mut(&relation.oid) {
            window.described(relation);
        }
    }

    pub(super) fn done(&mut self, number: u64, edits: Vec<Edit>, result: Result<Closed, Spoiled>) {
        self.carried_out.push(CarriedOut { number: Some(number), edits, result });
    }

    /// A change comes by that may be a row of the signal table.
    #[inline]
    pub(super) fn signal_row(&mut self, change: &Change<'_>, metrics: &Metrics) {
        if let Some(places) = self.signaling.places(change) {
            let edits = self.signaling.row((change, places), &self.control, metrics);
            self.note(edits);
        }
    }

    /// A request is noted with the end of the transaction, so that it can't be lost before its tables
    /// are.
    fn note(&mut self, edits: Vec<Edit>) {
        if !edits.is_empty() {
            let result = Ok(Closed::default());
            self.carried_out.push(CarriedOut { number: None, edits, result });
        }
    }

    /// Nothing of a table is published from here on. Whoever goes on from a checkpoint of this
    /// transaction, or of a later one, knows of it; there is one before anything else is published,
    /// since nothing but the note says which of two tables had their topic.
    pub(super) fn leave_out(&mut self, table: LeftOutTable) {
        Edit::LeaveOut(table).apply(&mut self.stands);
        self.has_news = true;
        self.must_be_durable = true;
    }

    /// These tables are gone, and nothing of them comes any more. A note that rows of one are to be read
    /// goes with the next checkpoint of snapshots.
    pub(super) fn forget(&mut self, tables: &[u32]) {
        for oid in tables {
            self.open.remove(oid);
        }
        if !self.stands.left_out.is_empty() {
            let before = self.stands.left_out.len();
            let tables: HashSet<&u32> = tables.iter().collect();
            self.stands.left_out.retain(|of| !tables.contains(&of.oid));
            self.has_news |= self.stands.left_out.len() < before;
        }
    }

    /// The transaction ends at `end_lsn`. Gives how snapshots stand from here on, if otherwise.
    pub(super) fn ended(&mut self, end_lsn: Lsn) -> Option<News> {
        let mut changed = std::mem::take(&mut self.has_news);
        let mut admitted = Vec::new();
        for CarriedOut { number, edits, result } in std::mem::take(&mut self.carried_out) {
            for edit in edits {
                if let Edit::Admit { oid } = edit {
                    admitted.push(oid);
                }
                edit.apply(&mut self.stands);
                changed = true;
            }
            if let Some(number) = number {
                self.exchange.tell(Outcome { number, end_lsn, result });
            }
        }
        if changed {
            self.left_out.follow(&self.stands);
        }
        self.left_out.reached(end_lsn);
        let is_durable = std::mem::take(&mut self.must_be_durable);
        changed.then(|| News { stand: Arc::new(self.stands.clone()), is_durable, admitted })
    }
}

impl<S: Sink, L: Lookup> Worker<S, L> {
    /// Takes snapshots beside the stream, as they are ordered here.
    #[must_use]
    pub fn with_snapshots(
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

    /// Carries out what a message of our own stands for. None of them is published.
    pub(super) fn hear(&mut self, heard: &Heard) -> Result<(), Halt> {
        let Some(windows) = &mut self.windows else { return Ok(()) };
        if heard.prefix == SIGNAL_PREFIX
            && !self.out.checkpoints.resumed_from().covers(heard.position)
        {
            let message = (heard.position, heard.content.as_slice());
            let edits = windows.signaling.message(message, &windows.control, &self.out.metrics);
            windows.note(edits);
        }
        if heard.prefix != WATERMARK_PREFIX {
            return Ok(());
        }
        match windows.exchange.take(&heard.content) {
            // Another pipeline's, or one that a session before this one left.
            None => {}
            Some((number, Order::Open { oid, key, limit_bytes })) => {
                let relation = self.assembler.relations.by_oid(oid).map(Arc::as_ref);
                let window = Window::open(key, relation, windows.recent.mark(), limit_bytes);
                windows.open.insert(oid, window);
                windows.done(number, Vec::new(), Ok(Closed::default()));
            }
            Some((number, Order::Close { oid, chunk, edits })) => {
                let result = self.close(oid, &chunk, heard)?;
                let edits = if result.is_ok() { edits } else { Vec::new() };
                if let Some(windows) = &mut self.windows {
                    windows.done(number, edits, result);
                }
            }
            Some((number, Order::Note(edits))) => {
                windows.done(number, edits, Ok(Closed::default()));
            }
            Some((number, Order::Hold(hold))) => self.hold(number, hold, heard)?,
        }
        Ok(())
    }

    fn close(
        &mut self,
        oid: u32,
        chunk: &Chunk,
        heard: &Heard,
    ) -> Result<Result<Closed, Spoiled>, Halt> {
        let Self { assembler, publisher, out, windows, .. } = self;
        let Some(windows) = windows else { return Ok(Err(Spoiled::Altered)) };
        let Some(window) = windows.open.remove(&oid) else { return Ok(Err(Spoiled::Altered)) };
        if let Err(spoiled) = window.check(chunk, &windows.recent) {
            return Ok(Err(spoiled));
        }
        let relation = announced(publisher, &assembler.relations, chunk)?;
        let mut position = heard.position;
        let closed = window.close(chunk, &mut windows.reader, |row| {
            let row = (row, chunk.time_us);
            heard.publish_row((publisher, out), &relation, row, position)?;
            position.ordinal += 1;
            Ok::<(), Halt>(())
        })?;
        if let Some(known) = assembler.relations.by_oid(oid)
            && !Arc::ptr_eq(known, &relation)
        {
            // What follows in the stream is of that shape.
            let is_same = window::is_same(known, &relation);
            publisher.announce(known, (!is_same).then_some(&*relation))?;
        }
        self.known(oid)?;
        Ok(Ok(closed))
    }
}

/// The relation by which a chunk's rows are published, known to the publisher: the stream's own,
/// where that is the same. Where the key alone is another, the table was given one and nothing was
/// written to it since; the stream reports that when it describes the table again.
pub(super) fn announced<L: Lookup>(
    publisher: &mut Publisher<L>,
    relations: &Relations,
    chunk: &Chunk,
) -> Result<Arc<Relation>, Halt> {
    let known = relations.by_oid(chunk.relation.oid);
    let is_same = known.is_some_and(|known| window::is_same(known, &chunk.relation));
    if let Some(known) = known.filter(|_| is_same)
        && known.key_names().eq(chunk.relation.key_names())
    {
        return Ok(Arc::clone(known));
    }
    publisher.announce(&chunk.relation, known.filter(|_| !is_same).map(Arc::as_ref))?;
    Ok(Arc::clone(&chunk.relation))
}
