//! The stream's side of snapshots that are taken while it runs: handles watermarks, the changes
//! between two of them, and the rows that are published at the second.
//!
//! A chunk's rows are published within the transaction of its high watermark, and the state of the
//! snapshot changes with the end of that transaction: so a checkpoint always covers rows and state
//! together. While no window is open, a change costs one look-up in an empty map.
//!
//! Not here: which rows are published (`window`), who reads chunks (`coordinator`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::orders::{Edit, Exchange, Order, Outcome};
use super::signaling::Signaling;
use super::suppressed::LeftOut;
use super::watermark::{OWN_PREFIX, SIGNAL_PREFIX, WATERMARK_PREFIX};
use super::window;
use crate::change::{Change, Data, Position, Relation, Row, Snapshot, SnapshotMarker};
use crate::checkpoint::{LeftOutTable, Snapshots};
use crate::kafka::Sink;
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::pipeline::{Halt, Lookup, Stage};
use crate::snapshot::{Chunk, Closed, Control, RecentXids, RowReader, Signals, Spoiled, Window};

/// The open windows, and what is needed to close them.
pub(crate) struct Windows {
    exchange: Arc<Exchange>,
    control: Arc<Control>,
    signaling: Signaling,
    /// By the OIDs of their tables.
    open: HashMap<u32, Window>,
    pub(crate) recent: RecentXids,
    /// The state of snapshots at this position of the stream.
    stands: Snapshots,
    /// Orders that are carried out in the open transaction.
    carried_out: Vec<CarriedOut>,
    /// Whether the stream itself changed the state in this transaction.
    has_news: bool,
    /// Whether their changes must be durable before the next transaction is published.
    pub(crate) must_be_durable: bool,
    left_out: LeftOut,
    pub(crate) reader: RowReader,
}

struct CarriedOut {
    /// `None` for a signal, which no one placed.
    number: Option<u64>,
    edits: Vec<Edit>,
    result: Result<Closed, Spoiled>,
}

/// A change of the snapshots' state.
pub(crate) struct News {
    pub(crate) stand: Arc<Snapshots>,
    /// Whether that must be durable before the next transaction is published.
    pub(crate) is_durable: bool,
    /// The OIDs of tables that have their topics from here on.
    pub(crate) admitted: Vec<u32>,
}

/// One of our own messages in the stream.
pub(crate) struct Heard {
    position: Position,
    lsn: Lsn,
    prefix: String,
    content: Vec<u8>,
}

impl Heard {
    /// `None` for every change that is not one of our messages.
    #[inline]
    pub(crate) fn of(change: &Change<'_>) -> Option<Self> {
        let Data::Message { prefix, content } = change.data else { return None };
        let prefix = std::str::from_utf8(prefix).ok()?;
        prefix.starts_with(OWN_PREFIX).then(|| Self {
            position: change.position,
            lsn: change.lsn,
            prefix: prefix.to_owned(),
            content: content.to_vec(),
        })
    }

    pub(crate) const fn position(&self) -> Position {
        self.position
    }

    /// Publishes a row that was read, with the time of reading, at a position in this message's
    /// transaction.
    pub(crate) fn publish_row<S: Sink, L: Lookup>(
        &self,
        Stage { publisher, out, .. }: &mut Stage<'_, S, L>,
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
            Some(prepared) => {
                out.changes += 1;
                out.send_all(prepared, None)
            }
            None => Ok(()),
        }
    }
}

impl Windows {
    /// `stands` is the checkpoint's state at the start.
    pub(crate) fn new(
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
    pub(crate) fn began(&mut self, xid: u32) {
        self.recent.push(xid);
    }

    /// Handles a change of the stream.
    #[inline]
    pub(crate) fn see(&mut self, change: &Change<'_>) {
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

    /// Whether a change must not be published, because it is in rows that will be read.
    #[inline]
    pub(crate) fn leaves_out(&self, change: &Change<'_>) -> bool {
        !self.left_out.is_empty()
            && change.relation().is_some_and(|relation| {
                let name = (relation.schema.as_str(), relation.table.as_str());
                self.left_out.has(name, change.position.commit_lsn)
            })
    }

    /// A table is described.
    pub(crate) fn described(&mut self, relation: &Arc<Relation>) {
        self.signaling.described(relation);
        if let Some(window) = self.open.get_mut(&relation.oid) {
            window.described(relation);
        }
    }

    pub(crate) fn done(&mut self, number: u64, edits: Vec<Edit>, result: Result<Closed, Spoiled>) {
        self.carried_out.push(CarriedOut { number: Some(number), edits, result });
    }

    /// Handles a change that may be a row of the signal table.
    #[inline]
    pub(crate) fn signal_row(&mut self, change: &Change<'_>, metrics: &Metrics) {
        if let Some(places) = self.signaling.places(change) {
            let edits = self.signaling.row((change, places), &self.control, metrics);
            self.note(edits);
        }
    }

    /// Notes a request with the end of the transaction, so that it can't be lost before its tables
    /// are noted.
    fn note(&mut self, edits: Vec<Edit>) {
        if !edits.is_empty() {
            let result = Ok(Closed::default());
            self.carried_out.push(CarriedOut { number: None, edits, result });
        }
    }

    /// Leaves a table out from here on. A restart from a checkpoint of this transaction, or of a
    /// later one, knows it; there is a checkpoint before anything else is published, because only
    /// the note says which of two tables had the topic.
    pub(crate) fn leave_out(&mut self, table: LeftOutTable) {
        Edit::LeaveOut(table).apply(&mut self.stands);
        self.has_news = true;
        self.must_be_durable = true;
    }

    /// Forgets tables that are gone and have no further changes. A note that rows of one must be
    /// read is removed with the next checkpoint of snapshots.
    pub(crate) fn forget(&mut self, tables: &[u32]) {
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

    /// The transaction ends at `end_lsn`. Returns the new state of snapshots, if changed.
    pub(crate) fn ended(&mut self, end_lsn: Lsn) -> Option<News> {
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

impl Windows {
    /// Carries out the order of one of our messages, which are never published. Returns the OID of
    /// the table whose rows are published here, if any.
    pub(crate) fn hear<S: Sink, L: Lookup>(
        &mut self,
        heard: &Heard,
        stage: &mut Stage<'_, S, L>,
    ) -> Result<Option<u32>, Halt> {
        if heard.prefix == SIGNAL_PREFIX
            && !stage.out.checkpoints.resumed_from().covers(heard.position)
        {
            let message = (heard.position, heard.content.as_slice());
            let edits = self.signaling.message(message, &self.control, &stage.out.metrics);
            self.note(edits);
        }
        if heard.prefix != WATERMARK_PREFIX {
            return Ok(None);
        }
        match self.exchange.take(&heard.content) {
            // It is another pipeline's, or from an earlier session.
            None => {}
            Some((number, Order::Open { oid, key, limit_bytes })) => {
                let relation = stage.relations.by_oid(oid).map(Arc::as_ref);
                let window = Window::open(key, relation, self.recent.mark(), limit_bytes);
                self.open.insert(oid, window);
                self.done(number, Vec::new(), Ok(Closed::default()));
            }
            Some((number, Order::Close { oid, chunk, edits })) => {
                let result = self.close(oid, &chunk, heard, stage)?;
                let (edits, published) =
                    if result.is_ok() { (edits, Some(oid)) } else { (Vec::new(), None) };
                self.done(number, edits, result);
                return Ok(published);
            }
            Some((number, Order::Note(edits))) => {
                self.done(number, edits, Ok(Closed::default()));
            }
            Some((number, Order::Hold(hold))) => {
                let oid = hold.oid;
                self.hold(number, hold, heard, stage)?;
                return Ok(Some(oid));
            }
        }
        Ok(None)
    }

    fn close<S: Sink, L: Lookup>(
        &mut self,
        oid: u32,
        chunk: &Chunk,
        heard: &Heard,
        stage: &mut Stage<'_, S, L>,
    ) -> Result<Result<Closed, Spoiled>, Halt> {
        let Some(window) = self.open.remove(&oid) else { return Ok(Err(Spoiled::Altered)) };
        if let Err(spoiled) = window.check(chunk, &self.recent) {
            return Ok(Err(spoiled));
        }
        let relation = stage.announced(chunk)?;
        let mut position = heard.position;
        let closed = window.close(chunk, &mut self.reader, |row| {
            heard.publish_row(stage, &relation, (row, chunk.time_us), position)?;
            position.ordinal += 1;
            Ok::<(), Halt>(())
        })?;
        if let Some(known) = stage.relations.by_oid(oid)
            && !Arc::ptr_eq(known, &relation)
        {
            // The following changes in the stream have that shape.
            let is_same = window::is_same(known, &relation);
            stage.publisher.announce(known, (!is_same).then_some(&*relation))?;
        }
        Ok(Ok(closed))
    }
}

impl<S: Sink, L: Lookup> Stage<'_, S, L> {
    /// The relation for publishing a chunk's rows, known to the publisher: the stream's own if it
    /// is the same. If only the key differs, the table has a new key and was not written to since;
    /// the stream reports that when it describes the table again.
    pub(super) fn announced(&mut self, chunk: &Chunk) -> Result<Arc<Relation>, Halt> {
        let known = self.relations.by_oid(chunk.relation.oid);
        let is_same = known.is_some_and(|known| window::is_same(known, &chunk.relation));
        if let Some(known) = known.filter(|_| is_same)
            && known.key_names().eq(chunk.relation.key_names())
        {
            return Ok(Arc::clone(known));
        }
        self.publisher.announce(&chunk.relation, known.filter(|_| !is_same).map(Arc::as_ref))?;
        Ok(Arc::clone(&chunk.relation))
    }
}
