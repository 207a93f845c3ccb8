//! Tables as the stream last described them.
//!
//! A Relation message comes before the first row of a table and again after each change of it. Each
//! makes a new [`Relation`] behind an `Arc`: code that derives something from one (codecs, a topic)
//! keeps the `Arc` with it and compares with `Arc::ptr_eq` whether it is still valid.
//!
//! Which columns key a table's rows is chosen in `key`.
//!
//! Of a column the message has the name and the type; the rest is the catalog's word of now, and
//! holds only as long as name and type agree. Where they do not, the column is as if the catalog
//! knew nothing of it, and the difference is kept as a [`Disagreement`] for the log.

use std::collections::BTreeMap;

use super::disagreement::Disagreement;
use super::facts::Generated;
use crate::pgoutput::ReplicaIdentity;
use crate::types::TypeFacts;

/// A table as one Relation message described it.
#[derive(Debug, Clone, PartialEq)]
pub struct Relation {
    /// The table's OID.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// `schema.table`.
    pub full_name: String,
    /// What the server sends of an old row: what the message says, but no more than can be relied
    /// on.
    pub replica_identity: ReplicaIdentity,
    /// The published columns, in the order of a row's values.
    pub columns: Vec<Column>,
    /// Places in `columns` of the key's columns, in key order; empty if there is no key.
    pub key: Vec<usize>,
    /// Where the key comes from.
    pub key_source: KeySource,
    /// Places of the columns that distinguish a row from every other: the key, unless the
    /// configuration chose another. Empty if there are none.
    pub row_key: Vec<usize>,
    /// The columns' types, as far as the catalog knew them.
    pub types: BTreeMap<u32, TypeFacts>,
    /// Where the catalog says otherwise than the message.
    pub disagreements: Vec<Disagreement>,
}

/// One published column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// OID of its type.
    pub type_oid: u32,
    /// Its type modifier; -1 for none.
    pub typmod: i32,
    /// Whether old rows carry it under the table's replica identity.
    pub in_identity: bool,
    /// Whether the catalog says that it cannot be null. A row from before it was made so may still
    /// hold a null.
    pub not_null: bool,
    /// The SQL expression of its default, as the catalog has it now.
    pub default: Option<String>,
    /// Whether its values are computed from other columns.
    pub generated: Generated,
}

/// Where a table's key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySource {
    /// The configuration.
    Configured,
    /// The primary key.
    PrimaryKey,
    /// The replica identity index.
    ReplicaIdentity,
    /// A unique index.
    UniqueIndex,
    /// There is no key.
    None,
}

/// What the user said about the key.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyChoice<'a> {
    /// Columns to key by, instead of the table's own key.
    pub configured: Option<&'a [String]>,
}

/// A table that cannot be captured as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelationError {
    /// A configured key column is not among the published columns.
    #[error(
        "choosing the key of table {table}: configured column {column:?} is not one of its published columns ({columns})"
    )]
    NoSuchKeyColumn {
        /// `schema.table`.
        table: String,
        /// The configured column.
        column: String,
        /// The columns there are, comma separated.
        columns: String,
    },
    /// The configured key has no columns.
    #[error("choosing the key of table {table}: the configured key has no columns")]
    EmptyKey {
        /// `schema.table`.
        table: String,
    },
}

impl Relation {
    /// Whether old rows carry the column.
    #[must_use]
    pub fn is_in_identity(&self, column: usize) -> bool {
        self.columns.get(column).is_some_and(|column| column.in_identity)
    }

    /// Names of the key's columns, in key order.
    pub fn key_names(&self) -> impl Iterator<Item = &str> {
        self.key.iter().filter_map(|&at| Some(self.columns.get(at)?.name.as_str()))
    }

    /// Whether rows with nulls in the key can be right: where the message does not vouch for the
    /// key, and rows are from before it. For a replica identity index it does not, as PostgreSQL 18
    /// takes one whose columns hold nulls from before their NOT NULL.
    #[must_use]
    pub const fn key_may_be_null(&self) -> bool {
        matches!(
            (self.key_source, self.replica_identity),
            (KeySource::UniqueIndex | KeySource::ReplicaIdentity, _)
                | (
                    KeySource::PrimaryKey,
                    ReplicaIdentity::Full | ReplicaIdentity::Nothing | ReplicaIdentity::Index
                )
        )
    }

    /// Names of the columns of a configured key that old rows do not carry, so that a delete could
    /// not be keyed, and an update of them would leave the row under its old key. None where old rows
    /// carry nothing: Postgres then refuses updates and deletes, or sends none.
    pub fn key_outside_identity(&self) -> impl Iterator<Item = &str> {
        let is_configured = self.key_source == KeySource::Configured;
        let has_old_rows = self.columns.iter().any(|column| column.in_identity);
        let key = (is_configured && has_old_rows).then_some(&self.key).into_iter().flatten();
        key.filter_map(|&at| {
            let column = self.columns.get(at)?;
            (!column.in_identity).then_some(column.name.as_str())
        })
    }

    /// The position of the column of this name.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}
