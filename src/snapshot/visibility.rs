//! Compares the transactions that a reader saw with those that the stream contained.
//!
//! A transaction is in the WAL before others can see it: it writes its commit, then waits for
//! synchronous standbys if there are any, then leaves the list of running transactions. So the
//! stream may contain its changes while a reader still finds the old rows. Published after those
//! changes, such rows would be older than the events before them.
//!
//! The transactions' IDs show this: the reader has its snapshot (`pg_current_snapshot()`), and
//! [`RecentXids`] holds the stream's transactions. For those from before the session or long ago,
//! the server is queried which transactions wait for synchronous standbys at that moment.

use std::collections::VecDeque;

/// How many transactions of the stream are kept.
const REMEMBERED: usize = 1 << 16;

/// What a reader's snapshot shows, as `pg_current_snapshot()` returns it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Visibility {
    /// Every transaction before this one has ended.
    pub xmin: u64,
    /// Neither this transaction nor any after it is visible, except those before `xmin`: in a
    /// slot's snapshot this one may be less than `xmin`.
    pub xmax: u64,
    /// Transactions between the two that are not visible, ascending.
    pub in_progress: Vec<u64>,
}

impl Visibility {
    /// Parses `xmin:xmax:xip,xip,...`; `None` if it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next()?.parse().ok();
        let (xmin, xmax) = (number()?, number()?);
        let list = parts.next()?;
        let mut in_progress = match list {
            "" => Vec::new(),
            list => list.split(',').map(|xid| xid.parse().ok()).collect::<Option<Vec<u64>>>()?,
        };
        in_progress.sort_unstable();
        Some(Self { xmin, xmax, in_progress })
    }

    /// Whether the transaction with this 32-bit ID is visible, if it committed.
    #[must_use]
    pub fn shows(&self, xid: u32) -> bool {
        let xid = self.widened(xid);
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }

    /// The 64-bit ID of a transaction by its lower half: the candidate nearest to the snapshot.
    fn widened(&self, xid: u32) -> u64 {
        const EPOCH: u64 = 1 << 32;
        let near = (self.xmax & !(EPOCH - 1)) | u64::from(xid);
        if near >= self.xmax.saturating_add(EPOCH / 2) {
            near.saturating_sub(EPOCH)
        } else if near.saturating_add(EPOCH / 2) < self.xmax {
            near + EPOCH
        } else {
            near
        }
    }
}

/// The recent transactions of the stream, in its order.
#[derive(Debug, Default)]
pub struct RecentXids {
    xids: VecDeque<u32>,
    /// The total number.
    count: u64,
}

/// A position in the stream, as the number of transactions before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

impl RecentXids {
    /// Records a transaction of the stream.
    #[inline]
    pub fn push(&mut self, xid: u32) {
        if self.xids.len() == REMEMBERED {
            self.xids.pop_front();
        }
        self.xids.push_back(xid);
        self.count += 1;
    }

    /// The current position.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark(self.count)
    }

    /// A transaction that was streamed before `mark` and that a reader, whose snapshot was taken
    /// after it, did not see. `suspects` that the reader did not see must have been streamed since:
    /// otherwise they were streamed earlier and are not kept any more.
    #[must_use]
    pub fn unseen_before(
        &self,
        mark: Mark,
        snapshot: &Visibility,
        suspects: &[u32],
    ) -> Option<u32> {
        let first = self.count - self.xids.len() as u64;
        let before = usize::try_from(mark.0.saturating_sub(first)).unwrap_or(usize::MAX);
        let before = before.min(self.xids.len());
        let unseen = |xid: &&u32| !snapshot.shows(**xid);
        let known = self.xids.iter().take(before).find(unseen);
        let is_later = |xid: &&u32| self.xids.iter().skip(before).any(|later| later == *xid);
        known.or_else(|| suspects.iter().filter(unseen).find(|xid| !is_later(xid))).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visibility(text: &str) -> Visibility {
        Visibility::parse(text).unwrap()
    }

    #[test]
    fn a_snapshot_is_read_as_the_server_writes_it() {
        let in_progress = vec![12, 15];
        assert_eq!(visibility("10:20:12,15"), Visibility { xmin: 10, xmax: 20, in_progress });
        assert_eq!(visibility("10:10:").in_progress, [0; 0]);
        for text in ["", "10", "10:20", "a:b:", "1:2:x", "1:2:3,", "-1:2:"] {
            assert_eq!(Visibility::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_runs_or_begins_later_is_not_shown() {
        let seen = visibility("10:20:12,15");
        let shown: Vec<u32> = (8..23).filter(|xid| seen.shows(*xid)).collect();
        assert_eq!(shown, [8, 9, 10, 11, 13, 14, 16, 17, 18, 19]);
    }

    #[test]
    fn the_lower_half_of_an_id_is_enough_around_a_turn_of_the_counter() {
        // 2^32 = 4294967296: the counter has just wrapped around.
        let seen = visibility("4294967290:4294967300:4294967295,4294967297");
        for (xid, is_shown) in [
            (4_294_967_280, true),
            (4_294_967_290, true),
            (4_294_967_295, false),
            (0, true),
            (1, false),
            (3, true),
            (4, false),
            (1_000, false),
        ] {
            assert_eq!(seen.shows(xid), is_shown, "{xid}");
        }
        let before = visibility("4294967290:4294967294:");
        assert!(before.shows(4_294_967_293) && !before.shows(4_294_967_294) && !before.shows(5));
    }

    #[test]
    fn what_the_stream_brought_and_the_reader_did_not_see_is_found() {
        let mut recent = RecentXids::default();
        recent.push(11);
        recent.push(12);
        let mark = recent.mark();
        recent.push(15);
        recent.push(21);
        assert_eq!(recent.unseen_before(mark, &visibility("10:20:15"), &[]), None);
        assert_eq!(recent.unseen_before(mark, &visibility("10:20:12,15"), &[]), Some(12));
        // Its ID is above all that have ended, so it is in no list.
        assert_eq!(recent.unseen_before(mark, &visibility("10:12:"), &[]), Some(12));
        // One waiting transaction was streamed since, one before the session.
        assert_eq!(recent.unseen_before(mark, &visibility("10:20:15"), &[15, 13]), None);
        assert_eq!(recent.unseen_before(mark, &visibility("9:20:9,15"), &[15, 9]), Some(9));
    }

    #[test]
    fn what_is_forgotten_is_no_longer_known_and_the_rest_is() {
        let mut recent = RecentXids::default();
        for xid in 0..u32::try_from(REMEMBERED).unwrap() + 10 {
            recent.push(xid);
        }
        let mark = recent.mark();
        let seen = |xid: u32| visibility(&format!("{xid}:1000000:{xid}"));
        assert_eq!(recent.unseen_before(mark, &seen(9), &[]), None);
        assert_eq!(recent.unseen_before(mark, &seen(10), &[]), Some(10));
        assert_eq!(recent.unseen_before(mark, &seen(9), &[9]), Some(9));
    }
}
