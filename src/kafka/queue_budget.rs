//! Bounds the memory of records that wait for the brokers, including overhead.
//!
//! librdkafka bounds its queue by the bytes of the values alone, and by a number of records.
//! Neither bounds memory: a small row takes several times its value, and a flood of tombstones,
//! keys and headers would count as nothing. So records are weighed here, when they enter and by the
//! same rule when they leave.
//!
//! Must hold: what was taken is returned once, when the client is done with the record; a record
//! heavier than the whole budget passes alone.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that the client takes for a record in addition to its key and value: the message itself, its list of
/// headers, what the allocator adds to each, and our ticket.
///
/// Measured with librdkafka 2.12 on x86-64 and glibc, in bytes besides key and value, and as
/// weighed here, which must not be less:
///
/// | headers | 0 | 3 | 7 | 8 | 12 |
/// |---|---|---|---|---|---|
/// | measured | 192 | 528 | 944 | 1072 | 1424 |
/// | weighed | 384 | 672 | 1056 | 1152 | 1536 |
const RECORD_BYTES: u64 = 384;

/// Bytes of a header: its own allocation, with name and value.
const HEADER_BYTES: u64 = 96;

/// The memory that a record takes while it waits.
pub(super) const fn weight(key_bytes: usize, value_bytes: usize, headers: usize) -> u64 {
    RECORD_BYTES + key_bytes as u64 + value_bytes as u64 + HEADER_BYTES * headers as u64
}

/// Counts the used part of the budget.
#[derive(Debug)]
pub(super) struct Room {
    limit: u64,
    taken: AtomicU64,
}

impl Room {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, taken: AtomicU64::new(0) }
    }

    /// Takes this much, unless it is more than is left.
    pub(super) fn take(&self, weight: u64) -> bool {
        let with =
            |taken: u64| (taken == 0 || taken + weight <= self.limit).then(|| taken + weight);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, with).is_ok()
    }

    /// Returns what a record took.
    pub(super) fn give_back(&self, weight: u64) {
        let before = self.taken.fetch_sub(weight, Ordering::AcqRel);
        debug_assert!(before >= weight, "{weight} returned of {before}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_heavier_than_the_room_passes_alone() {
        let room = Room::new(100);
        assert!(room.take(1_000));
        assert!(!room.take(1));
        room.give_back(1_000);
        assert!(room.take(100));
    }

    #[test]
    fn threads_that_take_side_by_side_never_take_more_than_there_is() {
        let room = Room::new(100);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if room.take(40) {
                            assert!(room.taken.load(Ordering::Acquire) <= room.limit);
                            room.give_back(40);
                        }
                    }
                });
            }
        });
        assert_eq!(room.taken.load(Ordering::Acquire), 0);
    }

    proptest! {
        #[test]
        fn never_more_is_taken_than_there_is(
            weights in prop::collection::vec((1_u64..60, any::<bool>()), 1..200),
        ) {
            let room = Room::new(100);
            let mut waiting = VecDeque::new();
            for (weight, one_leaves) in weights {
                let before: u64 = waiting.iter().sum();
                let taken = room.take(weight);
                prop_assert_eq!(taken, before + weight <= 100);
                if taken {
                    waiting.push_back(weight);
                }
                if one_leaves && let Some(gone) = waiting.pop_front() {
                    room.give_back(gone);
                }
            }
        }
    }
}
