//! The catalog's facts about a type: the stream only has a type's OID.
//!
//! Here and not with the facts about tables, because codecs are chosen by them and know no tables.

/// The catalog's facts about one type.
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
        /// The delimiter between elements: a comma for most types.
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
