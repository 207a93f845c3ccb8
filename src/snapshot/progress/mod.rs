//! The book of how far snapshots are: who reads writes into it, who watches asks it.
//!
//! Per cent are those of pages where a table is read by pages, else of the rows that the catalog
//! estimates; both are guesses until a table is done, so nothing shows a hundred before. Where the
//! catalog has no estimate, there are rows and a rate alone: no share, and no time left. Rate and
//! time left are those of the last half minute (`window`); what a resumed table had already is no
//! speed. Metrics are set as the book is written, and have a label for few tables at a time.
//!
//! Not here: what is durable of it (the checkpoint), and how it is drawn (`cli`).

mod report;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::report::{Phase, Report, TableReport, bytes, duration};
use self::window::{Window, as_f64};
use crate::metrics::Metrics;

/// Tables that a report names, at most.
pub const LISTED: usize = 100;

/// Tables that are done and each still known, at most.
const KEPT: usize = 1000;

/// Tables that have gauges of their own at a time, at most: those that are being read.
const MEASURED: usize = 20;

/// A share of the whole that only a finished table exceeds.
const UNFINISHED: f64 = 0.999;

/// How much of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Rows.
    pub rows: u64,
    /// Bytes of them as they were read.
    pub bytes: u64,
    /// Pages of the table's file; none where it is not read by pages.
    pub pages: u64,
}

impl Amount {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_add(other.rows),
            bytes: self.bytes.saturating_add(other.bytes),
            pages: self.pages.saturating_add(other.pages),
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(other.rows),
            bytes: self.bytes.saturating_sub(other.bytes),
            pages: self.pages.saturating_sub(other.pages),
        }
    }
}

/// What the progress of a table is measured by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Measure {
    /// Pages read, of the pages that there are.
    #[default]
    Pages,
    /// Rows read, of the rows that the catalog estimates.
    Rows,
}

/// A table that is to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planned {
    /// The request that it belongs to.
    pub snapshot: String,
    /// Schema and name.
    pub table: String,
    /// How large it is, by the catalog: `relpages` and `reltuples`, or better. No rows stand for a
    /// number that nobody knows.
    pub size: Amount,
    /// What its progress is measured by.
    pub measure: Measure,
    /// What a session before this one has done of it.
    pub done: Amount,
}

/// Stands for a table in the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableId(u64);

/// The book. One a process; whoever has it may write and read.
#[derive(Debug)]
pub struct Book {
    metrics: Arc<Metrics>,
    epoch: Instant,
    pages: Mutex<Pages>,
}

impl Book {
    /// An empty one, that sets these metrics.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, epoch: Instant::now(), pages: Mutex::default() }
    }

    /// Enters a table; its turn has not come. One that stands in it already, by request and name,
    /// is replaced: a new session goes on with it.
    pub fn begin_table(&self, planned: Planned) -> TableId {
        let mut pages = self.lock();
        let id = pages.begin(self.now(), planned);
        self.tell(&pages);
        id
    }

    /// More of the table was published. To be called once a range or chunk, not once a row.
    pub fn advance(&self, table: TableId, amount: Amount) {
        let mut pages = self.lock();
        let Some(entry) = pages.advance(self.now(), table, amount) else { return };
        let metrics = &self.metrics;
        metrics.snapshot_rows.inc_by(amount.rows);
        metrics.snapshot_bytes.inc_by(amount.bytes);
        if entry.is_measured {
            metrics.set_snapshot_table(&entry.planned.table, entry.done.rows, entry.share());
        }
        self.tell(&pages);
    }

    /// All rows of the table are published.
    pub fn finish(&self, table: TableId) {
        let mut pages = self.lock();
        if let Some(measured) = pages.finish(self.now(), table) {
            self.metrics.forget_snapshot_table(&measured);
        }
        self.tell(&pages);
    }

    /// The table is not read any further: it was stopped, or dropped.
    pub fn remove(&self, table: TableId) {
        let mut pages = self.lock();
        if let Some(measured) = pages.remove(table) {
            self.metrics.forget_snapshot_table(&measured);
        }
        self.tell(&pages);
    }

    /// How far everything is at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Report {
        self.lock().report(self.now())
    }

    fn tell(&self, pages: &Pages) {
        let left = pages.left();
        self.metrics.snapshot_tables_left.set(left as u64);
        self.metrics.snapshot_running.set(u64::from(left > 0));
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands in the book; time comes from outside.
#[derive(Debug, Default)]
struct Pages {
    entries: BTreeMap<TableId, Entry>,
    /// Those that are done, the oldest first.
    finished: VecDeque<TableId>,
    /// Those that were done long ago.
    past: Past,
    next: u64,
    since: Duration,
    /// When the last of the tables was done.
    until: Duration,
    window: Window,
}

/// What is still known of tables that were done long ago: tables may come for as long as one is read.
#[derive(Debug, Clone, Copy, Default)]
struct Past {
    tables: usize,
    done: Amount,
    weight: f64,
}

#[derive(Debug)]
struct Entry {
    planned: Planned,
    done: Amount,
    phase: Phase,
    window: Window,
    /// Whether it has gauges of its own.
    is_measured: bool,
}

impl Entry {
    /// How much of the table is done, from 0 to 1; none where nobody knows how large it is.
    fn share(&self) -> Option<f64> {
        let (size, done) = (self.planned.size, self.done);
        let of = |done: u64, size: u64| (as_f64(done) / as_f64(size)).min(UNFINISHED);
        match (self.phase, self.planned.measure) {
            (Phase::Done, _) => Some(1.0),
            // An empty file.
            (_, Measure::Pages) if size.pages == 0 => Some(0.0),
            (_, Measure::Pages) => Some(of(done.pages, size.pages)),
            (_, Measure::Rows) => (size.rows > 0).then(|| of(done.rows, size.rows)),
        }
    }

    /// How much work the whole table is: its pages, however it is read.
    fn weight(&self) -> f64 {
        as_f64(self.planned.size.pages.max(1))
    }

    fn report(&self, at: Duration) -> TableReport {
        let rate = self.window.rate(at).filter(|_| self.phase == Phase::Reading);
        let share = self.share();
        let left = share.map(|share| (1.0 - share) * self.weight());
        TableReport {
            snapshot: self.planned.snapshot.clone(),
            table: self.planned.table.clone(),
            phase: self.phase,
            rows: self.done.rows,
            bytes: self.done.bytes,
            percent: share.map(percent),
            rows_per_second: rate.map_or(0, |rate| rounded(rate.rows)),
            eta_seconds: rate.and_then(|rate| seconds_left(left?, rate.work)),
        }
    }
}

impl Pages {
    fn begin(&mut self, at: Duration, planned: Planned) -> TableId {
        if self.left() == 0 {
            // What is done was told; a new round begins.
            *self = Self { next: self.next, since: at, ..Self::default() };
        }
        let same = |entry: &Entry| {
            entry.planned.table == planned.table && entry.planned.snapshot == planned.snapshot
        };
        self.entries.retain(|_, entry| !same(entry));
        let id = TableId(self.next);
        self.next += 1;
        let entry = Entry {
            done: planned.done,
            planned,
            phase: Phase::Waiting,
            window: Window::default(),
            is_measured: false,
        };
        self.entries.insert(id, entry);
        self.window.begin(at);
        id
    }

    fn advance(&mut self, at: Duration, table: TableId, amount: Amount) -> Option<&Entry> {
        let measured = self.entries.values().filter(|entry| entry.is_measured).count();
        let entry = self.entries.get_mut(&table)?;
        if entry.phase == Phase::Waiting {
            entry.phase = Phase::Reading;
            entry.is_measured = measured < MEASURED;
        }
        let share = |entry: &Entry| entry.share().unwrap_or(0.0);
        let before = share(entry);
        entry.done = entry.done.plus(amount);
        let work = (share(entry) - before) * entry.weight();
        entry.window.add(at, amount, work);
        self.window.add(at, amount, work);
        Some(entry)
    }

    /// Gives the table's name where it had gauges.
    fn finish(&mut self, at: Duration, table: TableId) -> Option<String> {
        let entry = self.entries.get_mut(&table)?;
        entry.phase = Phase::Done;
        entry.window = Window::default();
        let measured = std::mem::take(&mut entry.is_measured).then(|| entry.planned.table.clone());
        self.until = at;
        self.finished.push_back(table);
        while self.finished.len() > KEPT {
            let oldest = self.finished.pop_front().and_then(|oldest| self.entries.remove(&oldest));
            if let Some(entry) = oldest {
                self.past.tables += 1;
                self.past.done = self.past.done.plus(entry.done);
                self.past.weight += entry.weight();
            }
        }
        measured
    }

    fn remove(&mut self, table: TableId) -> Option<String> {
        let entry = self.entries.remove(&table)?;
        entry.is_measured.then_some(entry.planned.table)
    }

    fn left(&self) -> usize {
        self.entries.values().filter(|entry| entry.phase != Phase::Done).count()
    }

    fn report(&self, at: Duration) -> Report {
        let entries = self.entries.values();
        let sum = |of: fn(&Entry) -> f64| entries.clone().map(of).sum::<f64>();
        // Of something whose size nobody knows there is no share either.
        let is_known = entries.clone().all(|entry| entry.share().is_some());
        let Past { tables, done, weight } = self.past;
        let weight = weight + sum(Entry::weight);
        let done_weight =
            self.past.weight + sum(|entry| entry.weight() * entry.share().unwrap_or(0.0));
        let total = entries.clone().fold(done, |sum, entry| sum.plus(entry.done));
        let (tables_left, tables_total) = (self.left(), tables + self.entries.len());
        let running = tables_left > 0;
        let rate = self.window.rate(at).filter(|_| running);
        let mut listed: Vec<&Entry> = entries.collect();
        listed.sort_by_key(|entry| entry.phase);
        listed.truncate(LISTED);
        let until = if running { at } else { self.until };
        Report {
            running,
            tables_total,
            tables_left,
            rows: total.rows,
            bytes: total.bytes,
            percent: match tables_total {
                0 => None,
                _ if !running => Some(100.0),
                _ => is_known.then(|| percent((done_weight / weight).min(UNFINISHED))),
            },
            rows_per_second: rate.map_or(0, |rate| rounded(rate.rows)),
            bytes_per_second: rate.map_or(0, |rate| rounded(rate.bytes)),
            elapsed_seconds: until.saturating_sub(self.since).as_secs(),
            eta_seconds: rate
                .filter(|_| is_known)
                .and_then(|rate| seconds_left(weight - done_weight, rate.work)),
            tables: listed.into_iter().map(|entry| entry.report(at)).collect(),
        }
    }
}

/// Of a hundred, to a tenth; never rounded up to the whole.
fn percent(share: f64) -> f64 {
    (share * 1000.0).floor() / 10.0
}

fn seconds_left(work: f64, work_per_second: f64) -> Option<u64> {
    (work_per_second > 0.0).then(|| rounded(work / work_per_second))
}

/// The nearest whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and what is below zero is zero"
)]
fn rounded(number: f64) -> u64 {
    number.round() as u64
}
