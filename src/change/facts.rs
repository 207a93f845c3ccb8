//! Facts about a table that the stream lacks and that are looked up in the catalog.
//!
//! The stream describes the past, the catalog the present: these are hints, and if they contradict
//! a Relation message the message takes precedence (see `relation`). Not here: the queries, which
//! `postgres` runs.

use std::collections::BTreeMap;

use crate::types::TypeFacts;

/// The catalog's facts about one table. A table that is gone has none, which is the default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RelationFacts {
    /// Columns of the primary key, in key order.
    pub primary_key: Vec<String>,
    /// Columns of the replica identity index, in key order.
    pub identity_index: Vec<String>,
    /// Columns of each other unique index that is neither partial nor on expressions, by the
    /// indexes' names.
    pub unique_indexes: Vec<Vec<String>>,
    /// The table's columns, whether they are published or not, in the table's order.
    pub columns: Vec<ColumnFacts>,
    /// Whether it is partitioned, and partitions have another replica identity than FULL.
    pub has_partial_partitions: bool,
    /// The types of the columns, and the types those are made of, by OID.
    pub types: BTreeMap<u32, TypeFacts>,
}

/// The catalog's facts about one column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// OID of its type.
    pub type_oid: u32,
    /// Whether it cannot be null, by its own constraint or its domain's.
    pub not_null: bool,
    /// The SQL expression of its default; none for a generated column.
    pub default: Option<String>,
    /// Whether its values are computed from other columns.
    pub generated: Generated,
}

/// Where a generated column's values are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Generated {
    /// It is an ordinary column.
    #[default]
    No,
    /// When the row is written. Published only if the publication asks for it (PostgreSQL 18).
    Stored,
    /// When the row is read, so never published (PostgreSQL 18).
    Virtual,
}

impl RelationFacts {
    /// What is known of a column, if the catalog has one of this name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&ColumnFacts> {
        self.columns.iter().find(|column| column.name == name)
    }
}
