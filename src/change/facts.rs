//! What the stream does not say about a table and must be looked up in the catalog.
//!
//! The stream speaks of then, the catalog of now: these are hints, and where they contradict a
//! Relation message the message wins (see `relation`). Not here: the queries, which `postgres` runs.

use std::collections::BTreeMap;

use crate::types::TypeFacts;

/// The catalog's word on one table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RelationFacts {
    /// Columns of the primary key, in key order.
    pub primary_key: Vec<String>,
    /// Columns of the replica identity index, in key order.
    pub identity_index: Vec<String>,
    /// Columns of the first unique index that is neither partial nor on expressions.
    pub unique_index: Vec<String>,
    /// Columns that cannot be null.
    pub not_null: Vec<String>,
    /// The types of the columns, and the types those are made of, by OID.
    pub types: BTreeMap<u32, TypeFacts>,
}
