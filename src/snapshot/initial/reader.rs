//! A reader: takes a range, reads its lines, and publishes a row for each.
//!
//! Nothing is allocated per row: lines are read where they were received, and only the last of each
//! piece is copied, because it may be the last of its range.

use std::sync::Arc;

use super::schedule::{Release, Task};
use super::shared::{Desk, Line};
use super::{FirstTable, Lines, Ranges, Stamp};
use crate::change::{Change, Data, Position, Snapshot, SnapshotMarker};
use crate::failpoint;
use crate::kafka::Sink;
use crate::pipeline::publish::{Prepared, Publisher};
use crate::pipeline::{Halt, Lookup};
use crate::snapshot::RowReader;
use crate::snapshot::progress::{Amount, TableId};

/// Publishes rows of lines.
pub(crate) struct Rows<L> {
    pub(crate) publisher: Publisher<L>,
    reader: RowReader,
    stamp: Stamp,
    tables: Arc<[FirstTable]>,
}

impl<L: Lookup> Rows<L> {
    pub(crate) fn new(publisher: Publisher<L>, stamp: Stamp, tables: Arc<[FirstTable]>) -> Self {
        Self { publisher, reader: RowReader::default(), stamp, tables }
    }

    /// Publishes the row of one line. Returns the bytes that were sent for it.
    pub(crate) fn publish<S: Sink>(
        &mut self,
        desk: &Desk<S>,
        table: usize,
        line: &[u8],
        marker: SnapshotMarker,
    ) -> Result<u64, Halt> {
        let Self { publisher, reader, stamp, tables } = self;
        let Some(table) = tables.get(table) else { return Ok(0) };
        let relation = &table.relation;
        let row = reader.read(line, relation)?;
        let snapshot = Snapshot { marker, time_us: stamp.time_us, xid: stamp.xid };
        let change = Change {
            position: Position { commit_lsn: stamp.lsn, ordinal: 0 },
            lsn: stamp.lsn,
            transaction: None,
            last_commit_lsn: None,
            origin: None,
            data: Data::Read { relation, row, snapshot },
        };
        let prepared = publisher.prepare(&change, stamp.lsn, &desk.metrics, &desk.stop)?;
        let Some(prepared) = prepared else { return Ok(0) };
        send(desk, prepared)
    }

    /// Publishes rows that were held back, after which their ranges are whole.
    pub(crate) fn release<S: Sink>(
        &mut self,
        desk: &Desk<S>,
        releases: &[Release<Line>],
    ) -> Result<u64, Halt> {
        let mut bytes = 0;
        for Release { task, row, marker } in releases {
            bytes += self.publish(desk, task.table, row, *marker)?;
        }
        desk.sent(releases.iter().map(|release| release.task));
        Ok(bytes)
    }
}

fn send<S: Sink>(desk: &Desk<S>, prepared: Prepared<'_>) -> Result<u64, Halt> {
    let lane = desk.lane();
    let mut bytes = 0;
    let mut records = 0;
    for record in prepared.records.iter() {
        bytes += lane.send(prepared, &record, None)?;
        records += 1;
    }
    desk.metrics.records_sent.inc_by(records);
    desk.metrics.sent_bytes.inc_by(bytes);
    Ok(bytes)
}

/// One of the readers.
pub(crate) struct Reader<L, R> {
    pub(crate) rows: Rows<L>,
    pub(crate) source: R,
}

impl<L: Lookup, R: Ranges> Reader<L, R> {
    /// Reads ranges until none is left, or it is asked to stop.
    pub(crate) fn run<S: Sink>(&mut self, desk: &Desk<S>) -> Result<(), Halt> {
        loop {
            failpoint::reach("snapshot-0");
            let inside = desk.gate.enter(&desk.stop).ok_or(Halt::Stopped)?;
            let Some(task) = desk.schedule(|schedule| schedule.take()) else { return Ok(()) };
            self.range(desk, task)?;
            drop(inside);
        }
    }

    fn range<S: Sink>(&mut self, desk: &Desk<S>, task: Task) -> Result<(), Halt> {
        let Self { rows, source } = self;
        let Some(table) = rows.tables.get(task.table) else { return Ok(()) };
        let Some(place) = table.place(task.range) else { return Ok(()) };
        let (entry, pages) = (table.entry, table.pages_of(place));
        let mut range =
            Range { desk, rows, task, entry, pages, held: Line::new(), has_begun: false };
        let mut failed = None;
        source.read(task.table, place, &mut |chunk| match range.take(&chunk) {
            Ok(()) => true,
            Err(halt) => {
                failed = Some(halt);
                false
            }
        })?;
        match failed {
            Some(halt) => Err(halt),
            // The range may have been left incomplete.
            None if desk.stop.is_now() => Err(Halt::Stopped),
            None => range.end(),
        }
    }
}

/// A range that is being read.
struct Range<'a, S, L> {
    desk: &'a Desk<S>,
    rows: &'a mut Rows<L>,
    task: Task,
    entry: TableId,
    /// Its number of pages.
    pages: u64,
    /// The last line so far. Lines end in a newline, so it is empty only before the first.
    held: Line,
    has_begun: bool,
}

impl<S: Sink, L: Lookup> Range<'_, S, L> {
    fn take(&mut self, chunk: &impl Lines) -> Result<(), Halt> {
        if self.desk.stop.is_now() {
            return Err(Halt::Stopped);
        }
        let mut held = std::mem::take(&mut self.held);
        let mut last: Option<&[u8]> = None;
        let (mut bytes, mut read) = (0, Amount::default());
        for line in chunk.lines() {
            read.rows += 1;
            read.bytes += line.len() as u64;
            match last.replace(line) {
                Some(before) => bytes += self.publish(before)?,
                // More lines follow the last one of the previous chunk.
                None if !held.is_empty() => bytes += self.publish(&held)?,
                None => {}
            }
        }
        if let Some(line) = last {
            held.clear();
            held.extend_from_slice(line);
        }
        self.held = held;
        self.desk.add_bytes(bytes);
        self.desk.book.advance(self.entry, read);
        Ok(())
    }

    fn publish(&mut self, line: &[u8]) -> Result<u64, Halt> {
        let Self { desk, rows, task, .. } = self;
        let marker = match std::mem::replace(&mut self.has_begun, true) {
            false => desk.schedule(|schedule| schedule.marker(task.table)),
            true => SnapshotMarker::Between,
        };
        rows.publish(desk, task.table, line, marker)
    }

    fn end(self) -> Result<(), Halt> {
        let Self { desk, rows, task, entry, pages, held, .. } = self;
        let held = (!held.is_empty()).then_some(held);
        let is_whole = held.is_none();
        let releases = desk.schedule(|schedule| schedule.finish(task, held));
        let bytes = rows.release(desk, &releases)?;
        desk.add_bytes(bytes);
        if is_whole {
            desk.sent([task]);
        }
        desk.book.advance(entry, Amount { pages, ..Amount::default() });
        Ok(())
    }
}
