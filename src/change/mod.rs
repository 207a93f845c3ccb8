//! Row changes, assembled from messages.
//!
//! `relation` keeps what tables look like, `key` chooses their keys, `assemble` follows the transactions, and together they
//! turn a [`Message`](crate::pgoutput::Message) into a [`Change`]: which table, which position,
//! which rows, over the bytes of the message. A change holds at all times:
//! - its rows have exactly as many values as its relation has columns;
//! - its [`Position`] is above that of every change before it.
//!
//! Not here: what a value means (`types`), what a record looks like (`encode`), any I/O.

mod assemble;
mod disagreement;
mod facts;
mod key;
mod relation;
mod relations;
mod row;

use std::sync::Arc;

pub use self::assemble::{AssembleError, Assembler, Step, Truncated};
pub use self::disagreement::Disagreement;
pub use self::facts::{ColumnFacts, Generated, RelationFacts};
pub use self::relation::{Column, KeyChoice, KeySource, Relation, RelationError};
pub use self::relations::Relations;
pub use self::row::{OldRow, Reselected, Row};
use crate::lsn::Lsn;
use crate::pgoutput::Tuple;
pub use crate::types::{TypeFacts, TypeKind};

/// One change, over the bytes of its message.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// Its place in the order of all changes; the same on every replay.
    pub position: Position,
    /// The change's own position in the WAL. Interleaves across transactions: not an order.
    pub lsn: Lsn,
    /// The transaction it belongs to; none for a snapshot's row and for a non-transactional logical
    /// message.
    pub transaction: Option<Transaction>,
    /// End of the transaction before this one, or where the stream was started. A non-transactional
    /// message counts as a transaction: it has its own position here, and what follows has it too.
    pub last_commit_lsn: Option<Lsn>,
    /// Where the transaction came from, if it was replicated to this server.
    pub origin: Option<ChangeOrigin<'a>>,
    /// What happened.
    pub data: Data<'a>,
}

/// What happened, to what.
#[derive(Debug, Clone, Copy)]
pub enum Data<'a> {
    /// A new row.
    Insert {
        /// The table.
        relation: &'a Arc<Relation>,
        /// The row.
        after: Row<'a>,
    },
    /// A changed row.
    Update {
        /// The table.
        relation: &'a Arc<Relation>,
        /// The row as it was, as far as the replica identity has it.
        before: Option<OldRow<'a>>,
        /// The row as it is.
        after: Row<'a>,
    },
    /// A deleted row.
    Delete {
        /// The table.
        relation: &'a Arc<Relation>,
        /// The row as it was, as far as the replica identity has it.
        before: OldRow<'a>,
    },
    /// A truncated table; a TRUNCATE of several results in one change each.
    Truncate {
        /// The table.
        relation: &'a Arc<Relation>,
    },
    /// A row that a snapshot read.
    Read {
        /// The table.
        relation: &'a Arc<Relation>,
        /// The row as it was read.
        row: Row<'a>,
        /// What the snapshot says of it.
        snapshot: Snapshot,
    },
    /// A logical message of `pg_logical_emit_message`.
    Message {
        /// Whom it is for; text, unless its writer chose other bytes.
        prefix: &'a [u8],
        /// Its content, any bytes.
        content: &'a [u8],
    },
}

impl<'a> Change<'a> {
    /// The same change with values of its row that were read back.
    #[must_use]
    pub const fn with(&self, reselected: &'a Reselected) -> Self {
        let mut change = *self;
        if let Data::Update { relation, before, after } = change.data {
            change.data = Data::Update { relation, before, after: after.with(reselected) };
        }
        change
    }

    /// The kind of change.
    #[must_use]
    pub const fn op(&self) -> Op {
        match self.data {
            Data::Insert { .. } => Op::Create,
            Data::Update { .. } => Op::Update,
            Data::Delete { .. } => Op::Delete,
            Data::Truncate { .. } => Op::Truncate,
            Data::Read { .. } => Op::Read,
            Data::Message { .. } => Op::Message,
        }
    }

    /// The table; none for a logical message.
    #[must_use]
    pub const fn relation(&self) -> Option<&'a Arc<Relation>> {
        match self.data {
            Data::Insert { relation, .. }
            | Data::Update { relation, .. }
            | Data::Delete { relation, .. }
            | Data::Truncate { relation }
            | Data::Read { relation, .. } => Some(relation),
            Data::Message { .. } => None,
        }
    }

    /// The values before and after, as they were sent, if any.
    #[must_use]
    pub const fn tuples(&self) -> (Option<Tuple<'a>>, Option<Tuple<'a>>) {
        match self.data {
            Data::Insert { after: row, .. } | Data::Read { row, .. } => (None, Some(row.tuple())),
            Data::Update { before: Some(before), after, .. } => {
                (Some(before.tuple()), Some(after.tuple()))
            }
            Data::Update { before: None, after, .. } => (None, Some(after.tuple())),
            Data::Delete { before, .. } => (Some(before.tuple()), None),
            Data::Truncate { .. } | Data::Message { .. } => (None, None),
        }
    }

    /// When it happened, in microseconds since the Unix epoch: the commit, or the reading of a
    /// snapshot's row. A non-transactional message has no such time: it is taken to happen when it
    /// is received, at `now_us`.
    #[must_use]
    pub const fn time_us(&self, now_us: i64) -> i64 {
        match (self.transaction, &self.data) {
            (_, Data::Read { snapshot, .. }) => snapshot.time_us,
            (Some(transaction), _) => transaction.commit_time_us,
            (None, _) => now_us,
        }
    }
}

/// The kind of a change, as Debezium's `op` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// A new row, `c`.
    Create,
    /// A changed row, `u`.
    Update,
    /// A deleted row, `d`.
    Delete,
    /// An emptied table, `t`.
    Truncate,
    /// A row that a snapshot read, `r`.
    Read,
    /// A logical message, `m`.
    Message,
}

impl Op {
    /// Debezium's letter.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Create => 'c',
            Self::Update => 'u',
            Self::Delete => 'd',
            Self::Truncate => 't',
            Self::Read => 'r',
            Self::Message => 'm',
        }
    }
}

/// The place of a change in the order of all changes.
///
/// LSNs of rows interleave across transactions and several rows may share one; only this pair
/// orders the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Where the transaction's commit record starts. For a non-transactional logical message: the
    /// message's position.
    pub commit_lsn: Lsn,
    /// Count, from 1, of the transaction's changes as the server sends them, before any filter of
    /// the bridge. Every table of a TRUNCATE counts as one. 0 for a non-transactional message.
    pub ordinal: u64,
}

/// The transaction a change belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// The transaction's 32-bit ID.
    pub xid: u32,
    /// Where its commit record starts.
    pub commit_lsn: Lsn,
    /// When it committed, in microseconds since the Unix epoch.
    pub commit_time_us: i64,
}

/// What a snapshot says of a row that it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Which of its rows this is.
    pub marker: SnapshotMarker,
    /// When it was read, in microseconds since the Unix epoch.
    pub time_us: i64,
    /// The transaction that read it, with the epoch that Postgres counts above its 32 bits.
    pub xid: Option<u64>,
}

/// Which of a snapshot's rows a row is, as Debezium's `source.snapshot` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SnapshotMarker {
    /// The first of all.
    First,
    /// The first of its table, but not of all.
    FirstInTable,
    /// Neither the first nor the last of its table.
    Between,
    /// The last of its table, but not of all.
    LastInTable,
    /// The last of all.
    Last,
    /// One of a snapshot that is taken while the stream runs.
    Incremental,
}

impl SnapshotMarker {
    /// Debezium's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::FirstInTable => "first_in_data_collection",
            Self::Between => "true",
            Self::LastInTable => "last_in_data_collection",
            Self::Last => "last",
            Self::Incremental => "incremental",
        }
    }
}

/// Where a replicated transaction came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeOrigin<'a> {
    /// The origin's name on this server.
    pub name: &'a str,
    /// LSN of the commit on the server of origin.
    pub commit_lsn: Lsn,
}
