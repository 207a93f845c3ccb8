//! How long to wait before the next try, with jitter; and how often to log a repeated message.
//!
//! Many sidecars lose a broker at the same moment; jitter keeps them from reconnecting at the same
//! moment. The wait doubles from `first` to `longest` and starts again after [`Backoff::reset`].
//! Not here: sleeping, and the decision whether to try again.

use std::time::{Duration, Instant};

use rand::RngExt;

/// Exponential waits with jitter.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
}

impl Backoff {
    /// Waits from `first`, doubling, to at most `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, tries: 0 }
    }

    /// The next wait: between half and all of the doubled wait.
    pub fn next_wait(&mut self) -> Duration {
        let full = self.first.saturating_mul(1 << self.tries.min(20)).min(self.longest);
        self.tries = self.tries.saturating_add(1);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Resets after a success: the next wait is short again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// Waits taken since the last reset.
    #[must_use]
    pub const fn tries(&self) -> u32 {
        self.tries
    }
}

/// Limits a message that would repeat for as long as a condition lasts: logged at first, then
/// rarely.
#[derive(Debug, Clone, Default)]
pub struct Repeats {
    logged_at: Option<Instant>,
    last: Option<Instant>,
    folded: u64,
}

impl Repeats {
    /// Shortest time between two log lines of the same message.
    pub const APART: Duration = Duration::from_secs(30);

    /// Nothing was logged yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { logged_at: None, last: None, folded: 0 }
    }

    /// The condition holds again. Returns, if this time is to be logged, how many were skipped
    /// since the last log line. The first time after a pause of twice `APART` is logged, too.
    pub fn again(&mut self, now: Instant) -> Option<u64> {
        let is_new = self.last.is_none_or(|last| now.duration_since(last) >= 2 * Self::APART);
        self.last = Some(now);
        if is_new || self.logged_at.is_none_or(|at| now.duration_since(at) >= Self::APART) {
            self.logged_at = Some(now);
            return Some(std::mem::take(&mut self.folded));
        }
        self.folded += 1;
        None
    }

    /// The caller logs it now. Returns how many times were skipped.
    pub fn told(&mut self, now: Instant) -> u64 {
        self.last = Some(now);
        self.logged_at = Some(now);
        std::mem::take(&mut self.folded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_logged_at_first_and_then_each_half_minute_with_the_count() {
        let start = Instant::now();
        let mut repeats = Repeats::default();
        let mut again = |seconds| repeats.again(start + Duration::from_secs(seconds));
        let logged: Vec<(u64, u64)> =
            (0..=95).filter_map(|at| again(at).map(|folded| (at, folded))).collect();
        assert_eq!(logged, [(0, 0), (30, 29), (60, 29), (90, 29)]);
        assert_eq!(again(160), Some(5), "it had ended, and begins again");
        assert_eq!(again(161), None);
        assert_eq!(repeats.told(start + Duration::from_secs(170)), 1);
        assert_eq!(repeats.again(start + Duration::from_secs(199)), None);
        assert_eq!(repeats.again(start + Duration::from_secs(200)), Some(1));
    }

    #[test]
    fn waits_grow_to_the_longest_and_start_again_after_a_reset() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, longest);
        for step in 0..40_u32 {
            let full = first.saturating_mul(1 << step.min(20)).min(longest);
            let wait = backoff.next_wait();
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= first);
    }
}
