//! A consumer that reads all the time, as consumers do.
//!
//! It tells how far the stream has come, and in the end what it saw: which must be what a reader
//! sees who comes later.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rowcast::lsn::Lsn;

use crate::check::commit_lsn;
use crate::support::PATIENCE;
use crate::support::consume::{OwnedRecord, RecordReader};

/// Longer than any run.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Default)]
struct Shared {
    newest: AtomicU64,
    count: AtomicUsize,
    delays: Mutex<Delays>,
    topics: AtomicUsize,
    stop: AtomicBool,
}

/// Both in milliseconds.
#[derive(Debug, Default)]
struct Delays {
    /// What was committed before has waited since then, as far as is measured here.
    begun: u64,
    longest: u64,
}

/// The consumer, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<OwnedRecord>>,
}

impl Watcher {
    /// Starts to read topics that exist.
    pub(crate) fn start(brokers: String, topics: Vec<String>) -> Self {
        let shared = Arc::<Shared>::default();
        let told = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let mut reader = RecordReader::open(&brokers, &topics, PATIENCE);
            let mut topics = HashSet::new();
            reader.until(
                |records| {
                    let seen = told.count.swap(records.len(), Ordering::Relaxed);
                    let newest = records[seen..].iter().filter_map(commit_lsn).max();
                    told.newest.fetch_max(newest.unwrap_or(0), Ordering::Relaxed);
                    topics.extend(records[seen..].iter().map(|record| record.topic.clone()));
                    told.topics.store(topics.len(), Ordering::Relaxed);
                    told.delays().see(&records[seen..]);
                    told.stop.load(Ordering::Relaxed)
                },
                FOREVER,
            );
            reader.records
        });
        Self { shared, thread }
    }

    /// The newest commit of which a record was seen.
    pub(crate) fn newest(&self) -> Lsn {
        Lsn::from(self.shared.newest.load(Ordering::Relaxed))
    }

    /// From now on delays count. A row that was committed already has waited from now on too: what
    /// it waited for before is none of what comes now.
    pub(crate) fn measure_delays(&self) {
        *self.shared.delays() = Delays { begun: now(), longest: 0 };
    }

    /// The longest time from a commit to the sight of its record, since
    /// [`measure_delays`](Self::measure_delays).
    pub(crate) fn longest_delay(&self) -> Duration {
        Duration::from_millis(self.shared.delays().longest)
    }

    /// How many topics records were seen of.
    pub(crate) fn topics(&self) -> usize {
        self.shared.topics.load(Ordering::Relaxed)
    }

    /// Records seen so far.
    pub(crate) fn count(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Ends, and gives all that was seen.
    pub(crate) fn stop(self) -> Vec<OwnedRecord> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Shared {
    fn delays(&self) -> MutexGuard<'_, Delays> {
        self.delays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delays {
    /// By the clock that the server has too.
    fn see(&mut self, records: &[OwnedRecord]) {
        let committed = records.iter().filter_map(|record| record.timestamp_ms).min();
        let Some(committed) = committed.and_then(|ms| u64::try_from(ms).ok()) else { return };
        self.longest = self.longest.max(now().saturating_sub(committed.max(self.begun)));
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
