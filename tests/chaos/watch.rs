//! A consumer that reads all the time, as consumers do.
//!
//! It tells how far the stream has come, and in the end what it saw: which must be what a reader
//! sees who comes later.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
    /// Milliseconds.
    longest_delay: AtomicU64,
    topics: AtomicUsize,
    stop: AtomicBool,
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
                    let delay = records[seen..].iter().map(age).max().unwrap_or_default();
                    told.longest_delay.fetch_max(delay, Ordering::Relaxed);
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

    /// The longest time from a commit to the sight of its record, since it was last asked for.
    pub(crate) fn take_longest_delay(&self) -> Duration {
        Duration::from_millis(self.shared.longest_delay.swap(0, Ordering::Relaxed))
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

/// Milliseconds since the record's change was committed, by the clock that the server has too.
fn age(record: &OwnedRecord) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let committed = record.timestamp_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_sub(committed)
}
