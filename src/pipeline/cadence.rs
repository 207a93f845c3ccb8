//! Decides when a checkpoint is due, and when the open Kafka transaction is committed or cut.
//!
//! The rate of Kafka transactions is limited, not their age: a lone change after a pause is
//! committed at once, the next ones once the interval is over. Under a backlog the interval is
//! longer, because each commit costs a pause of some round trips and no one waits for single rows.
//!
//! Not here: what is sent, and in which order (`commit`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::change::Position;
use crate::checkpoint::{Checkpoint, Pace, Progress, Snapshots};
use crate::encode::Records;
use crate::lsn::Lsn;

/// Header of a change whose source transaction is split over several Kafka transactions:
/// `continues` on the last change before a cut, `continued` on all that follow in the source
/// transaction.
pub(crate) const HEADER_SPLIT: &str = "rowcast.split";

/// With `at-least-once`, the shortest time between two checkpoints, and so how much may be
/// repeated.
const INTERVAL: Duration = Duration::from_secs(1);

/// How much longer the commit interval may be under a backlog.
const BACKLOG_FACTOR: u32 = 10;

/// How long a Kafka transaction may be open. The brokers abort it after `transaction.timeout.ms`,
/// and the commit takes time too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ages {
    /// After this it is cut at the next change.
    pub(crate) busy: Duration,
    /// After this it is cut even if no next change arrives.
    pub(crate) idle: Duration,
}

impl Ages {
    const NONE: Self = Self { busy: Duration::MAX, idle: Duration::MAX };

    fn of(timeout: Duration) -> Self {
        Self { busy: timeout / 3, idle: timeout / 2 }
    }
}

/// What the worker needs to write checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpointing {
    /// The topic of checkpoints.
    pub topic: Arc<str>,
    /// The pipeline's name, which is the checkpoint's key.
    pub pipeline: String,
    /// The checkpoint at the start: what it covers is not sent again.
    pub start: Checkpoint,
    /// Whether that one is not in the topic yet.
    pub is_new: bool,
    /// With or without Kafka transactions.
    pub mode: Mode,
    /// Longest time between two checkpoints that only cover idle WAL.
    pub idle_limit: Duration,
    /// At the end, longest wait for the brokers.
    pub drain_limit: Duration,
}

/// With or without Kafka transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Records first, then, once they are acknowledged, the checkpoint.
    AtLeastOnce,
    /// Records and the checkpoint in one transaction.
    ExactlyOnce {
        /// Shortest time between two commits.
        commit_interval: Duration,
        /// Bytes of records above which a source transaction is cut.
        max_transaction_bytes: u64,
        /// When the brokers abort a transaction that is not committed.
        timeout: Duration,
    },
}

/// The state of checkpoints and transactions.
pub(crate) struct Cadence {
    pub(crate) told: Checkpointing,
    pub(crate) pace: Pace,
    /// The Kafka transaction that is open.
    pub(crate) open: Option<Open>,
    /// Whether parts of the open source transaction are in an earlier Kafka transaction.
    pub(crate) is_continued: bool,
    is_backlog: bool,
    /// States of the snapshots, each with the position through which the stream must be published
    /// before it is valid; ascending, and at least one.
    snapshots: VecDeque<(Lsn, Arc<Snapshots>)>,
    /// The last change whose records were all sent and that is not in the ledger yet.
    pub(crate) last_change: Option<Position>,
    /// The last checkpoint as a record's value.
    pub(crate) json: Vec<u8>,
    /// A recent time, read once per chunk.
    now: Instant,
}

/// A Kafka transaction that is open.
pub(crate) struct Open {
    pub(crate) since: Instant,
    pub(crate) bytes: u64,
}

impl Cadence {
    pub(crate) fn new(told: Checkpointing) -> Self {
        let now = Instant::now();
        let interval = match told.mode {
            Mode::AtLeastOnce => INTERVAL,
            Mode::ExactlyOnce { commit_interval, timeout, .. } => {
                commit_interval.min(Ages::of(timeout).busy)
            }
        };
        let snapshots = Arc::clone(&told.start.snapshots);
        let pace = Pace::new(told.start.progress, interval, told.idle_limit, now);
        Self {
            told,
            pace,
            open: None,
            is_continued: false,
            is_backlog: false,
            snapshots: VecDeque::from([(Lsn::ZERO, snapshots)]),
            last_change: None,
            json: Vec::new(),
            now,
        }
    }

    /// What was published before the start.
    pub(crate) const fn resumed_from(&self) -> Progress {
        self.told.start.progress
    }

    /// The server requested a status update.
    pub(crate) const fn ask(&mut self) {
        self.pace.ask();
    }

    /// A source transaction begins; the ledger has everything before it.
    pub(crate) fn source_began(&mut self, commit_lsn: Lsn) {
        let start = self.told.start.progress;
        self.is_continued = self.is_transactional()
            && start.position.commit_lsn == commit_lsn
            && !start.covers_commit(commit_lsn);
    }

    /// A chunk begins; `more` says whether others wait after it.
    pub(crate) fn chunk_begins(&mut self, is_backlog: bool) {
        self.now = Instant::now();
        self.is_backlog = is_backlog;
    }

    /// All records of a change were sent.
    pub(crate) const fn sent_change(&mut self, position: Position) {
        self.last_change = Some(position);
    }

    /// Bytes of a record were sent.
    pub(crate) const fn sent_bytes(&mut self, bytes: u64) {
        if let Some(open) = &mut self.open {
            open.bytes += bytes;
        }
    }

    /// Sets the snapshots' state once the stream is published through `through_lsn`.
    pub(crate) fn snapshots_stand(&mut self, through_lsn: Lsn, snapshots: Arc<Snapshots>) {
        debug_assert!(self.snapshots.back().is_none_or(|(lsn, _)| *lsn <= through_lsn));
        self.snapshots.push_back((through_lsn, snapshots));
    }

    /// The snapshots' state at this progress.
    pub(crate) fn snapshots_at(&self, progress: Progress) -> Arc<Snapshots> {
        let held = self.snapshots.iter().rev().find(|(lsn, _)| *lsn <= progress.through_lsn);
        held.map(|(_, snapshots)| Arc::clone(snapshots)).unwrap_or_default()
    }

    /// A checkpoint with this progress was handed over.
    pub(crate) fn written(&mut self, progress: Progress) {
        let now = Instant::now();
        self.pace.written(progress, now);
        let is_past = |at: &(Lsn, _)| at.0 <= progress.through_lsn;
        while self.snapshots.len() > 1 && self.snapshots.get(1).is_some_and(is_past) {
            self.snapshots.pop_front();
        }
    }

    /// Whether the snapshots' state differs from the last checkpoint's.
    fn has_snapshot_news(&self, progress: Progress) -> bool {
        self.snapshots.get(1).is_some_and(|(lsn, _)| *lsn <= progress.through_lsn)
    }

    /// The split header of the next change; `None` if its source transaction is not split so far.
    pub(crate) fn split(&self, records: &Records) -> Option<Split> {
        let Mode::ExactlyOnce { max_transaction_bytes, .. } = self.told.mode else { return None };
        let too_much = self.open.as_ref().is_some_and(|open| {
            let bytes: usize = records
                .iter()
                .map(|record| {
                    record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)
                })
                .sum();
            open.bytes + bytes as u64 >= max_transaction_bytes
                || self.now.saturating_duration_since(open.since) >= self.ages().busy
        });
        match (too_much, self.is_continued) {
            (true, _) => Some(Split::Continues),
            (false, true) => Some(Split::Continued),
            (false, false) => None,
        }
    }

    /// Whether the open Kafka transaction has reached its limit of size or age.
    pub(crate) fn is_full(&self) -> bool {
        let Mode::ExactlyOnce { max_transaction_bytes, .. } = self.told.mode else { return false };
        let is_full = |open: &Open| {
            open.bytes >= max_transaction_bytes || open.since.elapsed() >= self.ages().busy
        };
        self.open.as_ref().is_some_and(is_full)
    }

    /// How old a Kafka transaction may be.
    pub(crate) fn ages(&self) -> Ages {
        match self.told.mode {
            Mode::AtLeastOnce => Ages::NONE,
            Mode::ExactlyOnce { timeout, .. } => Ages::of(timeout),
        }
    }

    pub(crate) const fn is_transactional(&self) -> bool {
        matches!(self.told.mode, Mode::ExactlyOnce { .. })
    }

    /// Whether a checkpoint with this progress is due.
    pub(crate) fn is_due(&self, progress: Progress) -> bool {
        let stretch = match self.told.mode {
            Mode::ExactlyOnce { commit_interval, timeout, .. } if self.is_backlog => {
                (commit_interval * (BACKLOG_FACTOR - 1)).min(Ages::of(timeout).busy)
            }
            _ => Duration::ZERO,
        };
        self.due_at(progress).is_some_and(|due| due + stretch <= Instant::now())
    }

    /// Whether a checkpoint with this progress would be new.
    pub(crate) fn is_news(&self, progress: Progress) -> bool {
        self.due_at(progress).is_some()
    }

    /// When a checkpoint with this progress is due, if nothing else changes that.
    pub(crate) fn due_at(&self, progress: Progress) -> Option<Instant> {
        let with_records = self.open.is_some() || self.has_snapshot_news(progress);
        self.pace.due_at(progress, with_records)
    }
}

/// Whether a change's source transaction is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    /// Its source transaction continues in the next Kafka transaction.
    Continues,
    /// Its source transaction began in an earlier Kafka transaction.
    Continued,
}

impl Split {
    pub(crate) const fn header(self) -> (&'static str, Option<&'static [u8]>) {
        (
            HEADER_SPLIT,
            Some(match self {
                Self::Continues => b"continues",
                Self::Continued => b"continued",
            }),
        )
    }
}
