//! What the catalog says of a type: the stream names types by OID alone.
//!
//! Here rather than beside the facts on tables, for codecs are chosen by them and know no tables.

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
#[non_exhaustive]
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
        /// What stands between elements: a comma for most types.
        delimiter: u8,
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
