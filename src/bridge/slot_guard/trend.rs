//! Forecasts when the WAL that a slot holds will reach a bound.
//!
//! The rate is that between the oldest and the newest of the last few checks, which evens out a
//! checkpoint or a bulk load and still follows within a minute. There is no forecast if the amount
//! does not grow.

use std::collections::VecDeque;
use std::time::Duration;

/// Checks that are kept: one minute.
const LOOKS: usize = 7;

/// A forecast beyond this is meaningless.
const HORIZON: Duration = Duration::from_secs(365 * 24 * 3600);

/// The last few checks.
#[derive(Debug, Default)]
pub(crate) struct Trend {
    /// Time (monotonic) and bytes held.
    looks: VecDeque<(Duration, u64)>,
}

impl Trend {
    /// Records what is held now.
    pub(crate) fn look(&mut self, now: Duration, retained_bytes: u64) {
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back((now, retained_bytes));
    }

    /// Forgets everything, because the slot is a new one.
    pub(crate) fn forget(&mut self) {
        self.looks.clear();
    }

    /// How long until `room` more bytes are held, at the current rate; `None` if never, or too far
    /// ahead for a forecast.
    pub(crate) fn time_to_fill(&self, room: u64) -> Option<Duration> {
        let (&(first_at, first), &(last_at, last)) = (self.looks.front()?, self.looks.back()?);
        let grown = u128::from(last.checked_sub(first).filter(|&grown| grown > 0)?);
        let elapsed = last_at.checked_sub(first_at).filter(|elapsed| !elapsed.is_zero())?;
        let millis = u128::from(room) * elapsed.as_millis() / grown;
        let left = Duration::from_millis(u64::try_from(millis).ok()?);
        (left <= HORIZON).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trend(looks: impl IntoIterator<Item = (u64, u64)>) -> Trend {
        let mut trend = Trend::default();
        for (seconds, bytes) in looks {
            trend.look(Duration::from_secs(seconds), bytes);
        }
        trend
    }

    #[test]
    fn one_look_or_no_growth_foretells_nothing() {
        assert_eq!(trend([]).time_to_fill(1), None);
        assert_eq!(trend([(0, 100)]).time_to_fill(1), None);
        assert_eq!(trend([(0, 100), (10, 100)]).time_to_fill(1), None);
        assert_eq!(trend([(0, 100), (10, 50)]).time_to_fill(1), None);
        assert_eq!(trend([(10, 50), (10, 100)]).time_to_fill(1), None, "no time has passed");
    }

    #[test]
    fn only_the_last_minute_counts() {
        // Fast at first, then one byte per second.
        let looks =
            (0..20).map(|n| (n * 10, if n < 5 { n * 1_000_000 } else { 5_000_000 + n * 10 }));
        assert_eq!(trend(looks).time_to_fill(60), Some(Duration::from_secs(60)));
    }

    proptest! {
        #[test]
        fn even_growth_is_foretold_to_the_millisecond(
            start in 0_u64..1 << 50,
            bytes_a_second in 1_u64..1 << 30,
            looks in 2_u64..20,
            seconds in 0_u64..1_000_000,
        ) {
            let trend = trend((0..looks).map(|n| (n * 10, start + n * 10 * bytes_a_second)));
            let left = trend.time_to_fill(seconds * bytes_a_second);
            prop_assert_eq!(left, Some(Duration::from_secs(seconds)));
        }

        #[test]
        fn more_room_is_never_filled_earlier_and_nothing_overflows(
            looks in prop::collection::vec((any::<u32>(), any::<u64>()), 0..10),
            rooms in any::<(u64, u64)>(),
        ) {
            let trend = trend(looks.into_iter().map(|(at, bytes)| (at.into(), bytes)));
            let (less, more) = (rooms.0.min(rooms.1), rooms.0.max(rooms.1));
            if let Some(later) = trend.time_to_fill(more) {
                prop_assert!(trend.time_to_fill(less).is_some_and(|sooner| sooner <= later));
            }
        }
    }
}
