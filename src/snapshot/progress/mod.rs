//! The book: progress of snapshots, written by readers and read by `/status`, the log and the
//! terminal.
//!
//! Percentages are of pages if a table is read by pages, else of the catalog's row estimate; both
//! are guesses until a table is done, so nothing shows 100 before. Without an estimate there are
//! only rows and a rate: no share, and no time left. Rate and time left are from the last half
//! minute (`window`); what a resumed table had before does not count for the rate. Metrics are set
//! as the book is written, with labels for few tables at a time.
//!
//! Not here: the durable part (the checkpoint), and drawing (`cli`).

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

/// Most tables in a report.
pub const LISTED: usize = 100;

/// Most finished tables that are kept individually.
const KEPT: usize = 1000;

/// Most tables with gauges of their own at a time: those that are being read.
const MEASURED: usize = 20;

/// The largest share of an unfinished table.
const UNFINISHED: f64 = 0.999;

/// An amount of work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Rows.
    pub rows: u64,
    /// Their bytes, as read.
    pub bytes: u64,
    /// Pages of the table's file; zero if it is not read by pages.
    pub pages: u64,
}

impl Amount {
    /// The sum.
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

/// How a table's progress is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Measure {
    /// Pages read, of all pages.
    #[default]
    Pages,
    /// Rows read, of the rows that the catalog estimates.
    Rows,
}

/// A table to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planned {
    /// Its request.
    pub snapshot: String,
    /// Schema and name.
    pub table: String,
    /// Its size by the catalog: `relpages` and `reltuples`, or better. Zero rows mean unknown.
    pub size: Amount,
    /// How its progress is measured.
    pub measure: Measure,
    /// What earlier sessions have done of it.
    pub done: Amount,
}

/// Identifies a table in the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableId(u64);

/// The book. One per process; every holder may write and read.
#[derive(Debug)]
pub struct Book {
    metrics: Arc<Metrics>,
    epoch: Instant,
    pages: Mutex<Pages>,
}

impl Book {
    /// An empty book that sets these metrics.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, epoch: Instant::now(), pages: Mutex::default() }
    }

    /// Adds a table that waits for its turn. An existing entry with the same request and name is
    /// replaced: a new session continues it.
    pub fn begin_table(&self, planned: Planned) -> TableId {
        let mut pages = self.lock();
        let id = pages.begin(self.now(), planned);
        self.tell(&pages);
        id
    }

    /// Adds to what is published of the table. Call it per range or chunk, not per row.
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

    /// The current report.
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

/// The content of the book; time is passed in.
#[derive(Debug, Default)]
struct Pages {
    entries: BTreeMap<TableId, Entry>,
    /// Finished tables, the oldest first.
    finished: VecDeque<TableId>,
    /// Totals of tables that were finished long ago.
    past: Past,
    next: u64,
    since: Duration,
    /// When the last of the tables was finished.
    until: Duration,
    window: Window,
}

/// Totals of tables that were finished long ago: tables may be added for as long as one is read.
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
    /// The finished share of the table, from 0 to 1; `None` if its size is unknown.
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

    /// The weight of the whole table: its pages, however it is read.
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
            // The finished round was reported; a new round begins.
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

    /// Returns the table's name if it had gauges.
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
        // Without a size there is no share.
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

/// A percentage, to a tenth; never rounded up to 100.
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
    reason = "`as` saturates, and negative values are zero"
)]
fn rounded(number: f64) -> u64 {
    number.round() as u64
}
