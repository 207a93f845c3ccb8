//! Suppresses changes that are contained in rows that will be read.
//!
//! If a table without a key was added to the publication, a change that its snapshot shows would be
//! published twice: as itself, and in the rows. Until that snapshot is taken, all its changes are
//! left out; then those before the snapshot's position in the stream.
//!
//! Not here: the reading (`apply_keyless`).

use crate::checkpoint::{SnapshotReason, Snapshots, TableProgress};
use crate::lsn::Lsn;

/// The tables whose changes are left out, by schema and name.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    tables: Vec<Unread>,
}

#[derive(Debug)]
struct Unread {
    schema: String,
    table: String,
    /// The position from which on its changes are published, if known.
    since: Option<Lsn>,
}

impl LeftOut {
    /// `stands` is the state of snapshots from here on.
    pub(crate) fn follow(&mut self, stands: &Snapshots) {
        let added = stands.tables.iter().filter(|table| table.reason == SnapshotReason::Added);
        let unread = added.filter_map(|table| {
            let TableProgress::Pages(pages) = &table.progress else { return None };
            let (schema, name) = (table.schema.clone(), table.table.clone());
            let since = (!table.is_unread()).then_some(pages.lsn);
            Some(Unread { schema, table: name, since })
        });
        self.tables = unread.collect();
    }

    /// The stream has reached `end_lsn`.
    pub(crate) fn reached(&mut self, end_lsn: Lsn) {
        self.tables.retain(|table| table.since.is_none_or(|since| since > end_lsn));
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether a change of the transaction that commits at `commit_lsn` is left out.
    pub(crate) fn has(&self, (schema, name): (&str, &str), commit_lsn: Lsn) -> bool {
        self.tables.iter().any(|Unread { schema: of, table, since }| {
            (&**of, &**table) == (schema, name) && since.is_none_or(|since| commit_lsn < since)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{PageProgress, TableSnapshot};

    fn listed(reason: SnapshotReason, progress: TableProgress) -> Snapshots {
        let (id, schema, table) = ("1".to_owned(), "public".to_owned(), "log".to_owned());
        let (condition, is_paused) = (None, false);
        let table = TableSnapshot {
            id,
            schema,
            table,
            reason,
            condition,
            is_paused,
            partition: None,
            progress,
        };
        Snapshots { tables: vec![table], ..Snapshots::default() }
    }

    fn pages(lsn: u64) -> TableProgress {
        TableProgress::Pages(PageProgress { lsn: Lsn::from(lsn), ..PageProgress::default() })
    }

    fn has(left_out: &LeftOut, commit_lsn: u64) -> bool {
        left_out.has(("public", "log"), Lsn::from(commit_lsn))
    }

    #[test]
    fn changes_are_left_out_until_the_point_of_the_snapshot_and_no_longer() {
        let mut left_out = LeftOut::default();
        left_out.follow(&listed(SnapshotReason::Added, pages(0)));
        assert!(has(&left_out, 10));
        assert!(!left_out.has(("public", "rides"), Lsn::from(10)));
        left_out.reached(Lsn::from(40));
        assert!(has(&left_out, 41), "the end is not known yet");
        left_out.follow(&listed(SnapshotReason::Added, pages(50)));
        assert!(has(&left_out, 49) && !has(&left_out, 50));
        left_out.reached(Lsn::from(49));
        assert!(has(&left_out, 49));
        left_out.reached(Lsn::from(50));
        assert!(left_out.is_empty());
    }

    #[test]
    fn what_the_stream_has_told_all_along_is_never_left_out() {
        let mut left_out = LeftOut::default();
        for reason in [SnapshotReason::First, SnapshotReason::Asked] {
            for lsn in [0, 50] {
                left_out.follow(&listed(reason, pages(lsn)));
                assert!(!has(&left_out, 10));
            }
        }
        left_out.follow(&listed(SnapshotReason::Added, TableProgress::Waiting));
        assert!(!has(&left_out, 10), "it has a key");
    }
}
