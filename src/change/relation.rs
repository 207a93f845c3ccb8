//! Tables as the stream last described them, and the choice of their key.
//!
//! A Relation message comes before the first row of a table and again after each change of it.
//! Each makes a new [`Relation`] behind an `Arc`: whoever derives something from one (codecs,
//! a topic) keeps the `Arc` beside it and compares with `Arc::ptr_eq` to see that it still holds.
//!
//! The key must be known for every change of a row, or order and compaction per key would break.
//! So a catalog key is used only where the message agrees that deletes will carry it:
//!
//! | replica identity | key, first that applies |
//! |---|---|
//! | any | the configured columns |
//! | DEFAULT | the columns flagged in the message (the primary key then), in the catalog's order |
//! | INDEX | the primary key if the index covers it; the index |
//! | FULL, NOTHING | the primary key; a unique index without nullable columns |
//! | DEFAULT, no column flagged | a unique index without nullable columns |
//!
//! Else there is no key. A catalog key with a column that the message does not have is passed over.
//!
//! Of a column the message has the name and the type; the rest is the catalog's word of now, and
//! holds only as long as name and type agree. Where they do not, the column is as if the catalog
//! knew nothing of it, and the difference is kept as a [`Disagreement`] for the log.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use crate::pgoutput::{RelationBody, RelationColumn, ReplicaIdentity};
use crate::types::TypeFacts;

use super::facts::{Generated, RelationFacts};

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
    /// What the server sends of an old row.
    pub replica_identity: ReplicaIdentity,
    /// The published columns, in the order of a row's values.
    pub columns: Vec<Column>,
    /// Places in `columns` of the key's columns, in key order; empty where there is no key.
    pub key: Vec<usize>,
    /// Where the key comes from.
    pub key_source: KeySource,
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

/// What the catalog says of now against what the stream says of then. Nothing fails by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disagreement {
    /// The table has been dropped, or was never to be seen by the role.
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
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TableGone => f.write_str("the table is gone"),
            Self::ColumnGone { column } => write!(f, "column {column:?} is gone"),
            Self::TypeChanged { column, then, now } => {
                write!(f, "column {column:?} had the type with OID {then} and has that with {now}")
            }
        }
    }
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

/// The tables of the stream, by OID.
#[derive(Debug, Default)]
pub struct Relations {
    by_oid: HashMap<u32, Arc<Relation>>,
}

impl Relations {
    /// Compiles a Relation message and puts it in place of what was known of the table.
    ///
    /// # Errors
    ///
    /// [`RelationError`] when the configured key does not fit the table.
    pub fn insert(
        &mut self,
        body: &RelationBody<'_>,
        facts: RelationFacts,
        choice: &KeyChoice<'_>,
    ) -> Result<Arc<Relation>, RelationError> {
        let relation = Arc::new(Relation::compile(body, facts, choice)?);
        self.by_oid.insert(relation.oid, Arc::clone(&relation));
        Ok(relation)
    }

    /// The table with this OID, as last described.
    #[must_use]
    pub fn by_oid(&self, oid: u32) -> Option<&Arc<Relation>> {
        self.by_oid.get(&oid)
    }
}

impl Relation {
    /// Whether old rows carry the column.
    #[must_use]
    pub fn is_in_identity(&self, column: usize) -> bool {
        self.columns.get(column).is_some_and(|column| column.in_identity)
    }

    /// Names of key columns that a key-only old row does not carry, so that a delete could not be
    /// keyed. Empty for every key the table chose by itself; a configured key may name some.
    pub fn key_outside_identity(&self) -> impl Iterator<Item = &str> {
        self.key.iter().filter_map(|&at| {
            let column = self.columns.get(at)?;
            (!column.in_identity).then_some(column.name.as_str())
        })
    }

    fn compile(
        body: &RelationBody<'_>,
        facts: RelationFacts,
        choice: &KeyChoice<'_>,
    ) -> Result<Self, RelationError> {
        let disagreements = disagreements(body, &facts);
        let columns = body.columns.iter().map(|column| {
            let known = facts.column(column.name).filter(|known| known.type_oid == column.type_oid);
            Column {
                name: column.name.to_owned(),
                type_oid: column.type_oid,
                typmod: column.typmod,
                in_identity: column.in_identity,
                not_null: known.is_some_and(|known| known.not_null),
                default: known.and_then(|known| known.default.clone()),
                generated: known.map_or(Generated::No, |known| known.generated),
            }
        });
        let mut relation = Self {
            oid: body.oid,
            schema: body.schema.to_owned(),
            table: body.table.to_owned(),
            full_name: format!("{}.{}", body.schema, body.table),
            replica_identity: body.replica_identity,
            columns: columns.collect(),
            key: Vec::new(),
            key_source: KeySource::None,
            types: BTreeMap::new(),
            disagreements,
        };
        (relation.key, relation.key_source) = match choice.configured {
            Some(names) => (relation.configured_key(names)?, KeySource::Configured),
            None => relation.own_key(&facts),
        };
        relation.types = facts.types;
        Ok(relation)
    }

    fn configured_key(&self, names: &[String]) -> Result<Vec<usize>, RelationError> {
        if names.is_empty() {
            return Err(RelationError::EmptyKey { table: self.full_name.clone() });
        }
        let place = |name: &String| {
            self.place(name).ok_or_else(|| RelationError::NoSuchKeyColumn {
                table: self.full_name.clone(),
                column: name.clone(),
                columns: self
                    .columns
                    .iter()
                    .map(|column| column.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
        };
        names.iter().map(place).collect()
    }

    /// The table in the module's doc.
    fn own_key(&self, facts: &RelationFacts) -> (Vec<usize>, KeySource) {
        let flagged: Vec<usize> =
            (0..self.columns.len()).filter(|&at| self.is_in_identity(at)).collect();
        let primary_key = self.places(&facts.primary_key);
        let unique_index = self
            .places(&facts.unique_index)
            .filter(|key| key.iter().all(|&at| self.columns.get(at).is_some_and(|c| c.not_null)))
            .map(|key| (key, KeySource::UniqueIndex));

        let key = match self.replica_identity {
            ReplicaIdentity::Default if !flagged.is_empty() => {
                let agreed = primary_key.filter(|key| is_same_set(key, &flagged));
                Some((agreed.unwrap_or(flagged), KeySource::PrimaryKey))
            }
            ReplicaIdentity::Index if !flagged.is_empty() => primary_key
                .filter(|key| key.iter().all(|at| flagged.contains(at)))
                .map(|key| (key, KeySource::PrimaryKey))
                .or_else(|| {
                    let agreed =
                        self.places(&facts.identity_index).filter(|key| is_same_set(key, &flagged));
                    Some((agreed.unwrap_or(flagged), KeySource::ReplicaIdentity))
                }),
            ReplicaIdentity::Full | ReplicaIdentity::Nothing => {
                primary_key.map(|key| (key, KeySource::PrimaryKey)).or(unique_index)
            }
            ReplicaIdentity::Default | ReplicaIdentity::Index => unique_index,
        };
        key.unwrap_or((Vec::new(), KeySource::None))
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// Places of all the names; none if there are no names or a column is gone.
    fn places(&self, names: &[String]) -> Option<Vec<usize>> {
        if names.is_empty() {
            return None;
        }
        names.iter().map(|name| self.place(name)).collect()
    }
}

/// Where the catalog says otherwise than the message. A column that only the catalog has is none:
/// it is unpublished, or younger than the message.
fn disagreements(body: &RelationBody<'_>, facts: &RelationFacts) -> Vec<Disagreement> {
    if facts.columns.is_empty() && body.columns.iter().next().is_some() {
        return vec![Disagreement::TableGone];
    }
    let disagreement = |column: RelationColumn<'_>| match facts.column(column.name) {
        None => Some(Disagreement::ColumnGone { column: column.name.to_owned() }),
        Some(known) if known.type_oid != column.type_oid => Some(Disagreement::TypeChanged {
            column: column.name.to_owned(),
            then: column.type_oid,
            now: known.type_oid,
        }),
        Some(_) => None,
    };
    body.columns.iter().filter_map(disagreement).collect()
}

fn is_same_set(left: &[usize], right: &[usize]) -> bool {
    left.len() == right.len() && left.iter().all(|at| right.contains(at))
}
