//! Changes that are not published, because rows that are read whole have them, or will.
//!
//! Of a table that came to the publication and has no key, a change from before its rows were read
//! would come twice: as itself, and in the rows. Not here: the reading (`hold`).

use crate::checkpoint::{SnapshotReason, Snapshots, TableProgress};
use crate::lsn::Lsn;
use crate::snapshot::Closed;
use crate::snapshot::exchange::{Edit, Outcome};

/// Changes that are left out, for the rows that were read have them, or will.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Tables that are not read yet.
    unread: Vec<(String, String)>,
    /// Tables that were read, each with the point from which on its changes are published.
    read: Vec<(Lsn, Read)>,
}

/// A table that was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) oid: u32,
    /// Of the watermark at which it was read.
    pub(super) number: u64,
    /// What holds once the stream has come to the point.
    pub(super) edits: Vec<Edit>,
    pub(super) closed: Closed,
}

impl LeftOut {
    /// `stands` is how snapshots stand from here on.
    pub(super) fn follow(&mut self, stands: &Snapshots) {
        let unread = stands.tables.iter().filter(|table| {
            table.reason == SnapshotReason::Added
                && matches!(&table.progress, TableProgress::Pages(pages) if pages.lsn == Lsn::ZERO)
        });
        self.unread = unread.map(|table| (table.schema.clone(), table.table.clone())).collect();
    }

    /// A table was read as of a point.
    pub(super) fn read_as_of(&mut self, point: Lsn, read: Read) {
        self.read.push((point, read));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.read.is_empty()
    }

    /// Whether a table was read as of a point that the stream has not come to.
    pub(super) const fn is_behind(&self) -> bool {
        !self.read.is_empty()
    }

    /// Whether a change of the transaction that commits at `commit_lsn` is left out.
    pub(super) fn has(&self, oid: u32, name: (&str, &str), commit_lsn: Lsn) -> bool {
        match self.read.iter().find(|(_, read)| read.oid == oid) {
            Some((point, _)) => commit_lsn < *point,
            None => self.unread.iter().any(|(schema, table)| (&**schema, &**table) == name),
        }
    }

    /// The stream has come to `end_lsn`: gives what holds from here on.
    pub(super) fn reached(&mut self, end_lsn: Lsn) -> Vec<(Vec<Edit>, Outcome)> {
        let due = self.read.extract_if(.., |(point, _)| *point <= end_lsn);
        due.map(|(_, Read { number, edits, closed, .. })| {
            (edits, Outcome { number, end_lsn, result: Ok(closed) })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{PageProgress, TableSnapshot};

    fn listed(reason: SnapshotReason, progress: TableProgress) -> Snapshots {
        let (id, schema, table) = ("1".to_owned(), "public".to_owned(), "log".to_owned());
        let (condition, is_paused) = (None, false);
        let table = TableSnapshot { id, schema, table, reason, condition, is_paused, progress };
        Snapshots { tables: vec![table], ..Snapshots::default() }
    }

    fn has(left_out: &LeftOut, commit_lsn: u64) -> bool {
        left_out.has(7, ("public", "log"), Lsn::from(commit_lsn))
    }

    #[test]
    fn changes_are_left_out_until_the_point_that_the_rows_show_and_no_longer() {
        let mut left_out = LeftOut::default();
        let unread = TableProgress::Pages(PageProgress::default());
        left_out.follow(&listed(SnapshotReason::Added, unread.clone()));
        assert!(has(&left_out, 10) && !left_out.is_behind());
        assert!(!left_out.has(8, ("public", "rides"), Lsn::from(10)));
        let (edits, closed) = (Vec::new(), Closed::default());
        left_out.read_as_of(Lsn::from(50), Read { oid: 7, number: 3, edits, closed });
        assert!(has(&left_out, 49) && !has(&left_out, 50), "it is listed still, and read");
        assert!(left_out.is_behind() && left_out.reached(Lsn::from(49)).is_empty());
        let reached = left_out.reached(Lsn::from(50));
        assert_eq!(reached.len(), 1);
        left_out.follow(&Snapshots::default());
        assert!(left_out.is_empty());

        // What a first snapshot left is in the stream since, and so is what is asked for again.
        for reason in [SnapshotReason::First, SnapshotReason::Asked] {
            left_out.follow(&listed(reason, unread.clone()));
            assert!(!has(&left_out, 10));
        }
        left_out.follow(&listed(SnapshotReason::Added, TableProgress::Waiting));
        assert!(!has(&left_out, 10), "it has a key");
    }
}
