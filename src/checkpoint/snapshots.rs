//! How far snapshots are: the part of a checkpoint by which one that was cut off goes on.
//!
//! Only tables that are not finished are in it, so most checkpoints have none. A table is listed
//! before its first row is published, and taken out with its last one: what is in the topic of a
//! table that is not listed is whole. Rows and their place here are durable together with
//! exactly-once; else the place is never ahead of the rows.
//!
//! Not here: how rows are read.

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;

/// The snapshots that are under way or waiting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// The tables that are not finished, in the order in which they were asked for.
    pub tables: Vec<TableSnapshot>,
    /// Requests of which nobody has said yet which tables they mean.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<SnapshotRequest>,
    /// Tables of which changes were left out, in the order in which that began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOutTable>,
    /// Whether the pipeline ends once there are none: it began with `snapshot.mode = "only"`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_only: bool,
    /// The transactions that a look at the partitions of tables saw, as `pg_current_snapshot()` returns
    /// it: rows of partitions that any of them attached are read, or asked for here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions_seen: Option<String>,
}

impl Snapshots {
    /// Whether there is nothing to say.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.tables.is_empty()
            && self.requests.is_empty()
            && self.left_out.is_empty()
            && !self.is_only
            && self.partitions_seen.is_none()
    }
}

/// A table of which changes were left out. Until its rows are read again nothing of it is
/// published, also where the reason is gone: its topic would show rows as they never were together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutTable {
    /// Its OID, which stays when it is renamed.
    pub oid: u32,
    /// Its schema when it was left out.
    pub schema: String,
    /// Its name then.
    pub table: String,
}

/// A snapshot that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRequest {
    /// Names it from here on.
    pub id: String,
    /// The tables, as `schema.table` or globs of it.
    pub tables: Vec<String>,
    /// Only rows for which this SQL condition holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Who asks.
    pub reason: SnapshotReason,
    /// Only the rows of the partition with this OID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
}

impl SnapshotRequest {
    /// A request with an ID of its own.
    #[must_use]
    pub fn new(tables: Vec<String>, condition: Option<String>, reason: SnapshotReason) -> Self {
        let id = uuid::Uuid::now_v7().to_string();
        Self { id, tables, condition, reason, partition: None }
    }

    /// A request for the rows of one partition of a table, which came to it with them.
    #[must_use]
    pub fn of_partition(table: String, partition: u32) -> Self {
        let request = Self::new(vec![table], None, SnapshotReason::Added);
        Self { partition: Some(partition), ..request }
    }

    /// About how many bytes it has in a checkpoint.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let names: usize = self.tables.iter().map(|name| name.len() + 3).sum();
        names + self.id.len() + self.condition.as_ref().map_or(0, String::len) + 64
    }
}

/// The snapshot of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSnapshot {
    /// The request that it belongs to.
    pub id: String,
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// Why it is taken.
    pub reason: SnapshotReason,
    /// Only rows for which this SQL condition holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Whether it waits to be resumed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_paused: bool,
    /// Only the rows of the partition with this OID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// What is published of it.
    #[serde(default)]
    pub progress: TableProgress,
}

impl TableSnapshot {
    /// About how many bytes it has in a checkpoint, before anything of it is published.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let condition = self.condition.as_ref().map_or(0, String::len);
        self.id.len() + self.schema.len() + self.table.len() + condition + 128
    }

    /// Whether the table has no key and came to those that are published, and the snapshot is yet to
    /// be taken by which its rows are read: until then none of its changes is published.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        self.reason == SnapshotReason::Added
            && matches!(&self.progress, TableProgress::Pages(pages) if pages.lsn == Lsn::ZERO)
    }
}

/// Why a table's rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotReason {
    /// The pipeline began.
    First,
    /// The table came to those that are published.
    Added,
    /// Somebody asked for it.
    Asked,
}

impl SnapshotReason {
    /// The word for logs and pages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Added => "added",
            Self::Asked => "asked",
        }
    }
}

/// What is published of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableProgress {
    /// Nothing.
    #[default]
    Waiting,
    /// Ranges of its pages, as one exported snapshot showed them.
    Pages(PageProgress),
    /// Its rows in the order of a key.
    Keys(KeyProgress),
}

/// Pages that are published. Nothing is known of the snapshot, and [`lsn`](Self::lsn) is zero, where
/// a table has no key and no row of it is read yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageProgress {
    /// The point of the stream that the exported snapshot shows.
    pub lsn: Lsn,
    /// The transactions that the exported snapshot shows, as `pg_current_snapshot()` returns it.
    pub shows: String,
    /// The table itself, or its partitions, as they were when it was taken.
    pub leaves: Vec<LeafProgress>,
}

/// Pages of one table or partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafProgress {
    /// The table's or the partition's OID.
    pub oid: u32,
    /// The file that holds it; another one has its rows in other places.
    pub filenode: u32,
    /// The ranges of pages that are published, each from the first to before the second number,
    /// ascending and apart.
    pub done: Vec<(u32, u32)>,
}

/// Rows that are published in the order of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyProgress {
    /// The key's columns; none before it is looked at.
    pub columns: Vec<String>,
    /// Only rows for which this SQL condition holds: the others were published by pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The key of the last row that is published, as text; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<String>>,
    /// The greatest key when the snapshot began, as text: rows after it are in the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_table_without_its_snapshot_has_no_change_published() {
        let snapshot = |reason, progress| TableSnapshot {
            partition: None,
            id: "1".to_owned(),
            schema: "public".to_owned(),
            table: "log".to_owned(),
            reason,
            condition: None,
            is_paused: false,
            progress,
        };
        let pages = |lsn: u64| {
            TableProgress::Pages(PageProgress { lsn: Lsn::from(lsn), ..PageProgress::default() })
        };
        assert!(snapshot(SnapshotReason::Added, pages(0)).is_unread());
        assert!(!snapshot(SnapshotReason::Added, pages(7)).is_unread());
        assert!(!snapshot(SnapshotReason::Added, TableProgress::Waiting).is_unread());
        assert!(!snapshot(SnapshotReason::Asked, pages(0)).is_unread());
    }
}
