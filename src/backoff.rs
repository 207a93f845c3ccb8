//! How long to wait before the next try, with jitter.
//!
//! Many sidecars lose one broker at the same moment; jitter keeps them from coming back at the
//! same moment too. The wait doubles from `first` to `longest` and starts again after
//! [`Backoff::reset`]. Not here: sleeping, and the decision whether to try again.

use std::time::Duration;

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

    /// The next wait: between half and the whole of the doubled one.
    pub fn next_wait(&mut self) -> Duration {
        let full = self.first.saturating_mul(1 << self.tries.min(20)).min(self.longest);
        self.tries = self.tries.saturating_add(1);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Something worked: the next wait is short again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// Waits taken since the last reset.
    #[must_use]
    pub const fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
