//! How long to wait before the next read of the stream.
//!
//! The walsender writes each row separately. A reader that reads at once is woken for each of them,
//! and its wake-ups cost both sides more than the rows: some 400,000 reads for a million rows. A
//! short pause lets rows accumulate, so that one read brings many. But a lone row must not wait, so
//! it pauses only while rows arrive faster than they can be read one by one.
//!
//! ```text
//!            >= BUSY_BYTES within WINDOW, and this read was small
//!   Eager  ------------------------------------------------------>  Paced
//!     ^                                                               |
//!     +---------------------------------------------------------------+
//!            a pause that brought < WORTHWHILE_BYTES
//! ```
//!
//! Pure: time is passed in. The reader makes the pause itself.

use std::time::{Duration, Instant};

/// Length of a pause. Long enough for some dozens of rows at the rate at which a walsender sends (5
/// us a row), short enough to be negligible latency.
pub(crate) const PAUSE: Duration = Duration::from_micros(300);

/// The time over which arrivals are added up before pauses begin.
const WINDOW: Duration = Duration::from_millis(2);

/// So many bytes in a window are a backlog: 80 rows of 200 bytes, or 40,000 rows a second.
const BUSY_BYTES: usize = 16 * 1024;

/// A read this large needs no pause: the socket holds more, and a pause would only leave it there.
const LARGE_READ_BYTES: usize = 128 * 1024;

/// A pause that brought less than this (ten rows) was not worth it: the backlog is gone.
const WORTHWHILE_BYTES: usize = 2 * 1024;

/// Decides on pauses from what each read brought.
#[derive(Debug)]
pub(crate) struct Pacer {
    state: Pacing,
}

#[derive(Debug, PartialEq, Eq)]
enum Pacing {
    /// Reads follow each other at once; arrivals since `since` are added up.
    Eager { since: Instant, bytes: usize },
    /// There is a pause before each read.
    Paced,
}

impl Pacer {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { state: Pacing::Eager { since: now, bytes: 0 } }
    }

    /// Whether rows come faster than they can be read one by one.
    pub(crate) fn is_paced(&self) -> bool {
        self.state == Pacing::Paced
    }

    /// Records a read of `bytes`; returns the pause before the next one.
    pub(crate) fn after_read(&mut self, now: Instant, bytes: usize) -> Option<Duration> {
        match &mut self.state {
            Pacing::Eager { since, bytes: sum } => {
                if now.duration_since(*since) > WINDOW {
                    *since = now;
                    *sum = 0;
                }
                *sum += bytes;
                if *sum < BUSY_BYTES {
                    return None;
                }
                self.state = Pacing::Paced;
            }
            Pacing::Paced if bytes < WORTHWHILE_BYTES => {
                self.state = Pacing::Eager { since: now, bytes: 0 };
                return None;
            }
            Pacing::Paced => {}
        }
        (bytes < LARGE_READ_BYTES).then_some(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: usize = 235;

    /// Reads rows as they arrive, one each `every`; returns how many reads were followed by a
    /// pause.
    fn pauses(rows: u32, every: Duration) -> usize {
        let mut now = Instant::now();
        let mut pacer = Pacer::new(now);
        let mut read = || {
            now += every;
            pacer.after_read(now, ROW)
        };
        (0..rows).filter(|_| read().is_some()).count()
    }

    #[test]
    fn a_lone_row_is_never_delayed() {
        assert_eq!(pauses(1000, Duration::from_secs(1)), 0);
    }

    #[test]
    fn a_thousand_rows_a_second_are_not_delayed() {
        assert_eq!(pauses(10_000, Duration::from_millis(1)), 0);
    }

    #[test]
    fn a_backlog_is_read_in_large_pieces_until_it_is_gone() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        let mut now = start;
        let mut reads = 0;
        while pacer.after_read(now, ROW).is_none() {
            now += Duration::from_micros(5);
            reads += 1;
            assert!(reads < 100, "the backlog is not noticed");
        }
        for _ in 0..100 {
            now += PAUSE;
            assert_eq!(pacer.after_read(now, 60 * ROW), Some(PAUSE));
        }
        now += PAUSE;
        assert_eq!(pacer.after_read(now, ROW), None, "the last row of the backlog");
        assert_eq!(pacer.after_read(now + PAUSE, ROW), None, "a lone row after it");
    }

    #[test]
    fn a_full_read_is_followed_by_the_next_at_once() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now);
        assert_eq!(pacer.after_read(now, LARGE_READ_BYTES), None);
        assert_eq!(pacer.after_read(now, LARGE_READ_BYTES - 1), Some(PAUSE));
    }
}
