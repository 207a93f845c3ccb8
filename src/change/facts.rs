//! What the stream does not say about a table and must be looked up in the catalog.
//!
//! The stream speaks of then, the catalog of now: these are hints, and where they contradict a
//! Relation message the message wins (see `relation`). Not here: the queries, which `postgres` runs.

use std::collections::BTreeMap;

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

/// The catalog's word on one type.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeFacts {
    /// The type's OID.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What sort of type it is.
    pub kind: TypeKind,
}

/// The sorts of types that Postgres knows.
#[derive(Debug, Clone, PartialEq)]
pub enum TypeKind {
    /// A type of its own.
    Base,
    /// One of a list of labels.
    Enum {
        /// The labels in sort order.
        labels: Vec<String>,
    },
    /// Another type under a constraint.
    Domain {
        /// OID of the type it stands for.
        base: u32,
        /// Type modifier of that type; -1 for none.
        typmod: i32,
    },
    /// An array.
    Array {
        /// OID of the element type.
        element: u32,
    },
    /// A range.
    Range,
    /// A set of ranges.
    Multirange,
    /// A row type.
    Composite,
    /// A type no column can have.
    Pseudo,
}
