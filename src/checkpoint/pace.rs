//! Decides when the next checkpoint is due.
//!
//! A checkpoint of published changes is due after a fixed interval. One that only covers idle WAL
//! is due after ever longer ones, up to a limit, so that a quiet pipeline writes little and a busy
//! one confirms soon after it became quiet. A server that asks for an answer (one that wants to
//! shut down waits for it) is answered with a checkpoint soon.

use std::time::{Duration, Instant};

use super::progress::Progress;

/// The first wait before a checkpoint that only covers idle WAL.
const IDLE_FIRST: Duration = Duration::from_secs(1);

/// Decides when a checkpoint is written.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    idle_limit: Duration,
    idle: Duration,
    written: Progress,
    written_at: Instant,
    is_asked: bool,
}

impl Pace {
    /// A pace of at most one checkpoint an `interval`, and of idle ones at least one in
    /// `idle_limit`. `progress` is durable already.
    #[must_use]
    pub fn new(progress: Progress, interval: Duration, idle_limit: Duration, now: Instant) -> Self {
        let idle = IDLE_FIRST.min(idle_limit);
        let written_at = now.checked_sub(interval).unwrap_or(now);
        Self { interval, idle_limit, idle, written: progress, written_at, is_asked: false }
    }

    /// The server requested a status update.
    pub const fn ask(&mut self) {
        self.is_asked = true;
    }

    /// When a checkpoint with this progress is due; `None` when it would say nothing new.
    /// `with_records`: it covers records even though no position moved (those around an empty
    /// transaction).
    #[must_use]
    pub fn due_at(&self, progress: Progress, with_records: bool) -> Option<Instant> {
        let wait = if with_records || progress.position != self.written.position {
            self.interval
        } else if progress == self.written {
            return None;
        } else if self.is_asked {
            IDLE_FIRST.min(self.idle)
        } else {
            self.idle
        };
        Some(self.written_at + wait)
    }

    /// A checkpoint with this progress was handed over.
    pub fn written(&mut self, progress: Progress, now: Instant) {
        self.idle = if progress.position == self.written.position {
            (self.idle * 2).min(self.idle_limit)
        } else {
            IDLE_FIRST.min(self.idle_limit)
        };
        self.is_asked = false;
        self.written = progress;
        self.written_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Position;
    use crate::lsn::Lsn;

    const SECOND: Duration = Duration::from_secs(1);

    fn progress(through: u64, commit: u64) -> Progress {
        let position = Position { commit_lsn: Lsn::from(commit), ordinal: 1 };
        Progress { through_lsn: Lsn::from(through), position }
    }

    #[test]
    fn changes_are_told_of_after_the_interval_and_at_once_after_a_rest() {
        let now = Instant::now();
        let mut pace = Pace::new(progress(5, 4), SECOND / 10, 10 * SECOND, now);
        assert_eq!(pace.due_at(progress(5, 4), false), None);
        assert_eq!(pace.due_at(progress(9, 8), false), Some(now));
        pace.written(progress(9, 8), now);
        assert_eq!(pace.due_at(progress(9, 8), false), None);
        assert_eq!(pace.due_at(progress(9, 8), true), Some(now + SECOND / 10));
        assert_eq!(pace.due_at(progress(12, 11), false), Some(now + SECOND / 10));
    }

    #[test]
    fn idle_wal_is_told_of_ever_less_often_until_a_change_comes() {
        let mut now = Instant::now();
        let mut pace = Pace::new(progress(5, 4), SECOND, 10 * SECOND, now);
        pace.written(progress(9, 8), now);
        for (through, wait) in [(10, 1), (11, 2), (12, 4), (13, 8), (14, 10), (15, 10)] {
            let due = pace.due_at(progress(through, 8), false).unwrap();
            assert_eq!(due, now + wait * SECOND);
            now = due;
            pace.written(progress(through, 8), now);
        }
        pace.ask();
        assert_eq!(pace.due_at(progress(15, 8), false), None, "there is nothing to tell");
        assert_eq!(pace.due_at(progress(16, 8), false), Some(now + SECOND));
        pace.written(progress(20, 19), now);
        assert_eq!(pace.due_at(progress(21, 19), false), Some(now + SECOND));
    }
}
