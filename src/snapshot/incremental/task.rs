//! The snapshot of one table, as known to this session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::checkpoint::{TableProgress, TableSnapshot};
use crate::error::{Error, Severity};
use crate::snapshot::progress::{Amount, Book, TableId};
use crate::snapshot::table::{Table, TableError};
use crate::snapshot::{self, ChunkSize, Closed, SnapshotState, SnapshotStatus, Spoiled, plan};

const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How often to wait for a commit that is not visible yet before logging it: about a second.
const PATIENT_TRIES: u32 = 7;

/// How often to retry a permanent failure, because the table may have been altered meanwhile.
const TRIES: u32 = 8;

/// One table's snapshot.
pub(crate) struct Task {
    pub(crate) snapshot: TableSnapshot,
    /// The table's description, until it is altered.
    pub(crate) table: Option<Table>,
    /// Its files, likewise, if it is read by pages.
    pub(crate) files: Option<Arc<plan::PlannedTable>>,
    pub(crate) size: ChunkSize,
    /// The open window.
    pub(crate) pending: Option<Pending>,
    /// Do not try before this time.
    pub(crate) retry_at: Option<Instant>,
    /// How it has to end.
    pub(crate) ending: Option<(SnapshotState, Option<String>)>,
    /// Whether it ends because the table was dropped, which is not a failure.
    pub(crate) is_dropped: bool,
    /// Whether it is known to be in the publication.
    pub(crate) is_published: bool,
    /// Transactions before this one must have ended before it is read.
    pub(crate) waits_for: Option<u64>,
    pub(crate) book: TableId,
    /// Whether its size is in the book.
    pub(crate) is_sized: bool,
    pub(crate) note: Option<String>,
    /// Whether it has ended, and is shown so.
    pub(crate) is_over: bool,
    rows: u64,
    backoff: Backoff,
}

/// The state changes once the window is closed.
pub(crate) struct Pending {
    pub(crate) number: u64,
    pub(crate) progress: TableProgress,
    pub(crate) is_last: bool,
    pub(crate) read: Amount,
}

/// Why a table can't be worked on.
pub(crate) enum Failure {
    /// Try again.
    Again(Error),
    /// As above, with the reason for the wait.
    Waits(String),
    /// It ends as failed.
    Never(String),
    /// Nothing is left to read.
    Gone(String),
    /// There is no such table any more.
    Dropped,
    /// A command interrupted it.
    Interrupted,
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Snapshot(snapshot::Error::Postgres(error)) => Self::Again(error.into()),
            TableError::Gone => Self::Dropped,
            TableError::Detached => Self::Gone(error.to_string()),
            error => Self::Never(error.to_string()),
        }
    }
}

impl From<crate::postgres::Error> for Failure {
    fn from(error: crate::postgres::Error) -> Self {
        Self::Again(error.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Again(error)
    }
}

impl Task {
    pub(crate) fn new(snapshot: TableSnapshot, book: TableId, chunk_bytes: u64) -> Self {
        Self {
            snapshot,
            table: None,
            files: None,
            size: ChunkSize::new(chunk_bytes),
            pending: None,
            retry_at: None,
            ending: None,
            is_dropped: false,
            is_published: false,
            waits_for: None,
            book,
            is_sized: false,
            note: None,
            is_over: false,
            rows: 0,
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
        }
    }

    pub(crate) fn name(&self) -> (&str, &str) {
        (&self.snapshot.schema, &self.snapshot.table)
    }

    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.snapshot.schema, self.snapshot.table)
    }

    /// Forgets the table's description, so that it is read again.
    pub(crate) fn forget(&mut self) {
        (self.table, self.files) = (None, None);
    }

    /// Whether it can be worked on now.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        let is_wanted = self.ending.is_some() || !self.snapshot.is_paused;
        is_wanted
            && !self.is_over
            && self.pending.is_none()
            && self.retry_at.is_none_or(|at| at <= now)
    }

    /// Handles a window that was closed or spoiled. Returns whether all rows are published.
    pub(crate) fn heard(&mut self, result: Result<Closed, Spoiled>, book: &Book) -> bool {
        let Some(pending) = self.pending.take() else { return false };
        match result {
            Ok(Closed { published, .. }) => {
                self.snapshot.progress = pending.progress;
                self.rows += published;
                self.note = None;
                self.backoff.reset();
                book.advance(self.book, pending.read);
                return pending.is_last;
            }
            Err(spoiled) => self.spoiled(&spoiled),
        }
        false
    }

    fn spoiled(&mut self, spoiled: &Spoiled) {
        match spoiled {
            Spoiled::Altered | Spoiled::Moved => self.forget(),
            Spoiled::TooManyChanges => self.size.spoiled(),
            Spoiled::CutOff => self.try_later(spoiled.to_string()),
            Spoiled::NoKey => {
                self.forget();
                self.try_later(spoiled.to_string());
            }
            // Most are visible a moment later; one that waits for a standby is not.
            Spoiled::Unseen { .. } if self.backoff.tries() < PATIENT_TRIES => {
                self.retry_at = Some(Instant::now() + self.backoff.next_wait());
            }
            Spoiled::Unseen { .. } => {
                self.try_later(format!("{spoiled}: does it wait for a synchronous standby?"));
            }
        }
        tracing::debug!(table = self.full_name(), %spoiled, "reading a chunk again");
    }

    /// Handles a failure.
    pub(crate) fn failed(&mut self, failure: Failure) {
        let table = self.full_name();
        // The table may be another one by now.
        self.forget();
        match failure {
            Failure::Interrupted => {
                tracing::debug!(table, "a command interrupted the read")
            }
            Failure::Waits(note) => self.try_later(note),
            Failure::Never(reason) => {
                self.ending = Some((SnapshotState::Failed, Some(reason)));
            }
            Failure::Gone(reason) => {
                self.ending.get_or_insert((SnapshotState::Stopped, Some(reason)));
            }
            Failure::Dropped => {
                self.is_dropped = true;
                let reason = TableError::Gone.to_string();
                self.ending.get_or_insert((SnapshotState::Stopped, Some(reason)));
            }
            Failure::Again(error) => {
                let note = error.told();
                if error.severity() != Severity::Retry && self.backoff.tries() + 1 >= TRIES {
                    self.ending.get_or_insert((SnapshotState::Failed, Some(note)));
                    return;
                }
                tracing::warn!(
                    table,
                    error = note,
                    fix = error.fix(),
                    tries = self.backoff.tries() + 1,
                    "snapshot failed: trying again"
                );
                self.try_later(note);
            }
        }
    }

    fn try_later(&mut self, note: String) {
        if self.note.is_none() {
            tracing::info!(table = self.full_name(), note, "snapshot waits");
        }
        self.note = Some(note);
        self.retry_at = Some(Instant::now() + self.backoff.next_wait());
    }

    pub(crate) fn status(&self) -> SnapshotStatus {
        let TableSnapshot { id, reason, condition, is_paused, progress, .. } = &self.snapshot;
        let is_begun = self.pending.is_some() || *progress != TableProgress::Waiting;
        SnapshotStatus {
            id: id.clone(),
            table: self.full_name(),
            reason: *reason,
            condition: condition.clone(),
            state: match (is_paused, is_begun) {
                (true, _) => SnapshotState::Paused,
                (false, true) => SnapshotState::Running,
                (false, false) => SnapshotState::Waiting,
            },
            rows: self.rows,
            rows_estimated: self
                .table
                .as_ref()
                .map(|of| of.rows_estimated)
                .filter(|rows| *rows > 0),
            note: self.note.clone(),
        }
    }
}
