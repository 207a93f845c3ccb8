//! How far the stream was carried, in the two numbers that a restart needs.
//!
//! A position alone would not do: WAL that holds nothing for us ends at no change, and a slot may
//! be confirmed over it. An LSN alone would not do either: a transaction may be published in parts.
//!
//! Holds: along one stream both numbers only grow, so of two progresses one covers the other.

use crate::change::Position;
use crate::lsn::Lsn;

/// Up to here everything is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress {
    /// Every transaction whose commit is before this LSN is published completely. The slot may be
    /// confirmed up to here.
    pub through_lsn: Lsn,
    /// Every change up to and including this one is published.
    pub position: Position,
}

impl Progress {
    /// Nothing is known but that all before `lsn` is done with.
    #[must_use]
    pub const fn at(lsn: Lsn) -> Self {
        Self { through_lsn: lsn, position: Position { commit_lsn: Lsn::ZERO, ordinal: 0 } }
    }

    /// Whether a change is published.
    #[inline]
    #[must_use]
    pub fn covers(&self, position: Position) -> bool {
        self.covers_commit(position.commit_lsn) || position <= self.position
    }

    /// Whether the transaction whose commit is at `commit_lsn` is published to its end.
    #[inline]
    #[must_use]
    pub fn covers_commit(&self, commit_lsn: Lsn) -> bool {
        commit_lsn < self.through_lsn
    }

    /// The greater of both numbers.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            through_lsn: self.through_lsn.max(other.through_lsn),
            position: self.position.max(other.position),
        }
    }

    /// The highest LSN that either number names: the server must have written this far.
    #[must_use]
    pub fn highest_lsn(&self) -> Lsn {
        self.through_lsn.max(self.position.commit_lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(commit_lsn: u64, ordinal: u64) -> Position {
        Position { commit_lsn: Lsn::from(commit_lsn), ordinal }
    }

    #[test]
    fn a_transaction_that_was_cut_is_covered_up_to_the_cut() {
        let progress = Progress { through_lsn: Lsn::from(90), position: position(100, 7) };
        assert!(progress.covers(position(80, 3)) && progress.covers(position(100, 7)));
        assert!(!progress.covers(position(100, 8)) && !progress.covers(position(110, 1)));
        assert!(!progress.covers_commit(Lsn::from(100)), "its end is not published");
    }

    #[test]
    fn a_transaction_that_ended_is_covered_whole_and_the_next_is_not() {
        let progress = Progress { through_lsn: Lsn::from(105), position: position(100, 7) };
        assert!(progress.covers(position(100, u64::MAX)) && progress.covers_commit(Lsn::from(100)));
        // The commit of the next may begin right where this one ended.
        assert!(!progress.covers(position(105, 1)) && !progress.covers_commit(Lsn::from(105)));
    }

    #[test]
    fn a_message_outside_of_transactions_is_covered_without_its_end() {
        let progress = Progress { through_lsn: Lsn::from(90), position: position(95, 0) };
        assert!(progress.covers(position(95, 0)));
        assert!(!progress.covers(position(95, 1)));
    }
}
