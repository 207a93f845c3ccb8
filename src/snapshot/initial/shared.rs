//! What the readers of a snapshot share: the schedule, the gate, and the complete ranges.
//!
//! Tickets of the ranges interleave, so a range counts as acknowledged when all tickets are that
//! were issued before its last record: this waits for a few tickets of other ranges too, but needs
//! no tracking per range.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::gate::Gate;
use super::schedule::{Schedule, Task};
use crate::checkpoint::Ledger;
use crate::error::Error;
use crate::kafka::Sink;
use crate::metrics::Metrics;
use crate::pipeline::send::Lane;
use crate::pipeline::{Halt, Stop};
use crate::snapshot::progress::Book;

/// A row that is held back, as its line.
pub(crate) type Line = Vec<u8>;

/// What all readers share.
pub(crate) struct Desk<S> {
    pub(crate) sink: Arc<S>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) book: Arc<Book>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) gate: Gate,
    /// Bytes sent since the Kafka transaction was begun.
    bytes: AtomicU64,
    state: Mutex<Inner>,
    /// Notified when a reader is done.
    ended: Condvar,
}

struct Inner {
    schedule: Schedule<Line>,
    /// Ranges that are sent completely, with the number of tickets issued by then; ascending.
    whole: Vec<(Task, u64)>,
    readers: usize,
    failed: Option<Error>,
}

impl<S: Sink> Desk<S> {
    pub(crate) fn new(
        sink: Arc<S>,
        ledger: Arc<Ledger>,
        metrics: Arc<Metrics>,
        book: Arc<Book>,
        stop: Arc<Stop>,
        ranges: impl IntoIterator<Item = usize>,
    ) -> Self {
        let schedule = Schedule::new(ranges);
        let state = Inner { schedule, whole: Vec::new(), readers: 0, failed: None };
        Self {
            sink,
            ledger,
            metrics,
            book,
            stop,
            gate: Gate::default(),
            bytes: AtomicU64::new(0),
            state: Mutex::new(state),
            ended: Condvar::new(),
        }
    }

    pub(crate) fn lane(&self) -> Lane<'_, S> {
        let Self { sink, ledger, metrics, stop, .. } = self;
        Lane { sink, ledger, metrics, stop }
    }

    /// Accesses the schedule.
    pub(crate) fn schedule<T>(&self, ask: impl FnOnce(&mut Schedule<Line>) -> T) -> T {
        ask(&mut self.lock().schedule)
    }

    /// All records of these ranges are sent.
    pub(crate) fn sent(&self, ranges: impl IntoIterator<Item = Task>) {
        let mut state = self.lock();
        // Under the lock, so that the numbers ascend.
        let issued = self.ledger.standing().issued;
        state.whole.extend(ranges.into_iter().map(|task| (task, issued)));
    }

    /// Takes the ranges that are complete and, if `acknowledged` is set, acknowledged.
    pub(crate) fn take_whole(&self, acknowledged: Option<u64>) -> Vec<Task> {
        let whole = &mut self.lock().whole;
        let count = match acknowledged {
            Some(acknowledged) => whole.partition_point(|(_, issued)| *issued <= acknowledged),
            None => whole.len(),
        };
        whole.drain(..count).map(|(task, _)| task).collect()
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub(crate) fn forget_bytes(&self) {
        self.bytes.store(0, Ordering::Release);
    }

    /// A reader begins.
    pub(crate) fn reader_begins(&self) {
        self.lock().readers += 1;
    }

    /// A reader has ended. If it failed, all must end.
    pub(crate) fn reader_ends(&self, outcome: Result<(), Halt>) {
        let mut state = self.lock();
        state.readers -= 1;
        if let Err(Halt::Failed(error)) = outcome {
            state.failed.get_or_insert(error);
            self.stop.now();
        }
        self.ended.notify_all();
    }

    /// Waits until all readers have ended, at most `limit`. Returns whether they have.
    pub(crate) fn await_readers(&self, limit: Duration) -> bool {
        let state = self.lock();
        let woken = self.ended.wait_timeout_while(state, limit, |state| state.readers > 0);
        woken.unwrap_or_else(PoisonError::into_inner).0.readers == 0
    }

    /// The failure of a reader, if any.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.lock().failed.take()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
