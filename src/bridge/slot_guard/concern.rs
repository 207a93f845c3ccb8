//! Decides whether what a slot holds is a reason to warn, and how often.
//!
//! | | filling | critical |
//! |---|---|---|
//! | remaining part of the bound | below a half | below a tenth |
//! | time left at the current rate | below six hours | below half an hour |
//! | the server's status | | `unreserved`: the next checkpoint may invalidate the slot |
//! | no visible bound | 10 GB are held | |

use std::time::Duration;

use crate::state::SlotRoom;

/// This much without a visible bound is a reason to set one.
const MUCH_BYTES: u64 = 10 << 30;

/// Longest time between two warnings while the concern lasts.
const REPEAT: Duration = Duration::from_secs(600);

/// The level of concern.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Concern {
    #[default]
    None,
    Filling,
    Critical,
}

/// Judges one check.
pub(crate) fn judge(retained_bytes: u64, wal_status: &str, rooms: &[SlotRoom]) -> Concern {
    if wal_status == "unreserved" {
        return Concern::Critical;
    }
    if rooms.is_empty() {
        return if retained_bytes >= MUCH_BYTES { Concern::Filling } else { Concern::None };
    }
    let of = |room: &SlotRoom| {
        let whole = retained_bytes.saturating_add(room.bytes);
        let below = |seconds| room.seconds_left.is_some_and(|left| left < seconds);
        if room.bytes < whole / 10 || below(30 * 60) {
            Concern::Critical
        } else if room.bytes < whole / 2 || below(6 * 3600) {
            Concern::Filling
        } else {
            Concern::None
        }
    };
    rooms.iter().map(of).max().unwrap_or_default()
}

/// Remembers what was logged.
#[derive(Debug, Default)]
pub(crate) struct Teller {
    last: Concern,
    said_at: Option<Duration>,
}

impl Teller {
    /// Whether to log it now: when it has become worse, and again from time to time.
    pub(crate) fn is_due(&mut self, now: Duration, concern: Concern) -> bool {
        let worse = concern > self.last;
        self.last = concern;
        if concern == Concern::None {
            return false;
        }
        let due = worse || self.said_at.is_none_or(|at| now.saturating_sub(at) >= REPEAT);
        if due {
            self.said_at = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(bytes: u64, seconds_left: Option<u64>) -> [SlotRoom; 1] {
        [SlotRoom { bound: "disk".to_owned(), bytes, seconds_left }]
    }

    #[test]
    fn it_is_judged_by_what_is_left_and_by_how_long_that_lasts() {
        for (retained, status, rooms, concern) in [
            (10, "reserved", &room(90, None)[..], Concern::None),
            (60, "extended", &room(40, None), Concern::Filling),
            (95, "extended", &room(5, None), Concern::Critical),
            (10, "reserved", &room(90, Some(3600)), Concern::Filling),
            (10, "reserved", &room(90, Some(60)), Concern::Critical),
            (10, "unreserved", &room(90, None), Concern::Critical),
            (10, "reserved", &[], Concern::None),
            (MUCH_BYTES, "extended", &[], Concern::Filling),
            (0, "reserved", &room(0, None), Concern::None),
        ] {
            assert_eq!(judge(retained, status, rooms), concern, "{retained} {status} {rooms:?}");
        }
    }

    #[test]
    fn a_concern_is_told_when_it_grows_and_else_seldom() {
        let mut teller = Teller::default();
        let minute = |n: u64| Duration::from_secs(60 * n);
        let mut due = |at, concern| teller.is_due(minute(at), concern);
        assert!(!due(0, Concern::None));
        assert!(due(1, Concern::Filling));
        assert!(!due(2, Concern::Filling));
        assert!(due(3, Concern::Critical));
        assert!(!due(4, Concern::Filling), "an improvement is not logged");
        assert!(due(5, Concern::Critical));
        assert!(!due(6, Concern::Critical));
        assert!(due(15, Concern::Critical));
        assert!(!due(16, Concern::None));
    }
}
