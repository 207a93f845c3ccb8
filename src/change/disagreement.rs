//! Differences between the catalog, which describes the present, and the stream, which describes
//! the past.
//!
//! They are caused by lag and DDL, so nothing fails: the stream's definition is used, and the
//! difference is logged, to explain a key or a missing default. Found in `relations`.

use std::fmt;

/// One difference between a table in the stream and in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disagreement {
    /// The table has been dropped.
    TableGone,
    /// A column has been dropped or renamed.
    ColumnGone {
        /// Its name in the stream.
        column: String,
    },
    /// A column has got another type.
    TypeChanged {
        /// Its name.
        column: String,
        /// The type's OID in the stream.
        then: u32,
        /// The type's OID in the catalog.
        now: u32,
    },
    /// The primary key has got other columns.
    PrimaryKeyChanged {
        /// Its columns in the stream, in the table's order.
        then: Vec<String>,
        /// Its columns in the catalog, in key order; empty if there is none.
        now: Vec<String>,
    },
    /// The stream describes a partitioned table's root, under which every old row is whole; there
    /// are partitions whose old rows are not.
    PartialPartitions,
    /// The primary key, or the replica identity index, has generated columns that are not
    /// published, and the rest of it keys nothing.
    KeyUnpublished {
        /// The columns.
        columns: Vec<String>,
    },
    /// The replica identity index has columns that may hold nulls.
    KeyNullable {
        /// The columns.
        columns: Vec<String>,
    },
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableGone => f.write_str("the table is gone"),
            Self::ColumnGone { column } => write!(f, "column {column:?} is gone"),
            Self::TypeChanged { column, then, now } => {
                write!(f, "column {column:?} had the type with OID {then} and has that with {now}")
            }
            Self::PrimaryKeyChanged { then, now } => {
                write!(f, "the primary key was {then:?} and is {now:?}")
            }
            Self::PartialPartitions => f.write_str(
                "REPLICA IDENTITY is FULL on the root and not on all partitions, so of old rows no \
                 more than the primary key is taken; ALTER TABLE ... REPLICA IDENTITY FULL on each \
                 partition",
            ),
            Self::KeyUnpublished { columns } => write!(
                f,
                "the table's key has generated columns that are not published, {columns:?}, so its \
                 rows have no key"
            ),
            Self::KeyNullable { columns } => write!(
                f,
                "the replica identity index has columns that may hold nulls, {columns:?}, so its \
                 rows have no key until their NOT NULL is valid; ALTER TABLE ... VALIDATE CONSTRAINT"
            ),
        }
    }
}
