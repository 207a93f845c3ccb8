//! A rate over the last half minute, which follows a change of pace and evens out single ranges.

use std::collections::VecDeque;
use std::time::Duration;

use super::Amount;

/// How far back the rate looks.
pub(super) const SPAN: Duration = Duration::from_secs(30);

/// Time between two marks; with [`SPAN`], it bounds the number of marks.
const SPACING: Duration = Duration::from_secs(1);

/// Less time than this is not enough for a rate.
const SHORTEST: Duration = Duration::from_secs(1);

/// The amount done before a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Mark {
    at: Duration,
    amount: Amount,
    work: f64,
}

/// The amount done, with the marks of the last half minute.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    since: Option<Duration>,
    marks: VecDeque<Mark>,
    now: Mark,
}

/// Amounts per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rate {
    /// Rows.
    pub(super) rows: f64,
    /// Bytes.
    pub(super) bytes: f64,
    /// Work, in the unit in which it was added.
    pub(super) work: f64,
}

impl Window {
    /// Starts measuring.
    pub(super) fn begin(&mut self, at: Duration) {
        self.since.get_or_insert(at);
    }

    /// Records what was done; `at` is monotonic.
    pub(super) fn add(&mut self, at: Duration, amount: Amount, work: f64) {
        self.begin(at);
        let before = self.now;
        if self.marks.back().is_none_or(|mark| at.saturating_sub(mark.at) >= SPACING) {
            self.marks.push_back(Mark { at, ..before });
        }
        let from = at.saturating_sub(SPAN);
        while self.marks.front().is_some_and(|first| first.at < from) {
            self.marks.pop_front();
        }
        self.now = Mark { at, amount: before.amount.plus(amount), work: before.work + work };
    }

    /// The rate until `at`; `None` before there is one. It falls while nothing is added.
    pub(super) fn rate(&self, at: Duration) -> Option<Rate> {
        let from = at.saturating_sub(SPAN).max(self.since?);
        let elapsed = at.saturating_sub(from);
        if elapsed < SHORTEST {
            return None;
        }
        // A mark holds what was done before it. What was recorded at the first moment took time
        // before it.
        let start = self.marks.iter().find(|mark| mark.at > from).unwrap_or(&self.now);
        let each = |done: f64| done / elapsed.as_secs_f64();
        let done = self.now.amount.minus(start.amount);
        Some(Rate {
            rows: each(as_f64(done.rows)),
            bytes: each(as_f64(done.bytes)),
            work: each(self.now.work - start.work),
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }
}

/// Exact up to 2^53, which is more rows or bytes than a snapshot has.
#[expect(clippy::cast_precision_loss, reason = "a rate is not a count")]
pub(super) const fn as_f64(count: u64) -> f64 {
    count as f64
}
