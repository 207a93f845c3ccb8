//! Reads from the catalog what a Relation message lacks: a table's keys, nullable columns,
//! defaults, and the parts of its types.
//!
//! Queried once per relation version, for that relation alone or for many at once: a catalog of a
//! million types costs nothing here. The catalog describes the present and the stream the past; if
//! they differ, the message takes precedence. A table that is gone has no facts, which is not an
//! error.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::conninfo::ConnInfo;
use super::defaults::{self, Written};
use super::session::ConnectOptions;
use super::startup::TEXT_SETTINGS;
use super::{Error, client};
use crate::change::{ColumnFacts, Generated, RelationFacts, TypeFacts, TypeKind};

const INDEXES: &str = include_str!("../../sql/indexes_of_table.sql");
const COLUMNS: &str = include_str!("../../sql/columns_of_table.sql");
const PARTIAL_PARTITIONS: &str = include_str!("../../sql/partial_partitions.sql");
const EQUALITY: &str = include_str!("../../sql/equality_of_types.sql");
const TYPES: &str = include_str!("../../sql/types.sql");

/// Most tables in one query, so that results are small.
pub(crate) const BATCH: usize = 500;

/// The first OID that is not one of the server's own.
const FIRST_OF_USERS: u32 = 16_384;

/// Most types whose equality operators are kept: an application may create and drop types forever.
const KNOWN_TYPES: usize = 4096;

/// Queries the catalog, over a connection that is opened again when it was lost.
pub struct Catalog {
    info: ConnInfo,
    options: ConnectOptions,
    client: Client,
    /// The equality operator of each known type; `None` for the system's own.
    pub(super) equalities: BTreeMap<u32, Option<Equality>>,
}

/// The equality operator of a type, if it is not one of the system's.
#[derive(Debug, Clone)]
pub(super) struct Equality {
    /// Its schema.
    pub(super) schema: String,
    /// The type that it takes, as written in SQL.
    pub(super) type_sql: String,
}

impl Catalog {
    /// Connects.
    ///
    /// # Errors
    /// As [`client::connect`].
    pub async fn connect(info: &ConnInfo, options: &ConnectOptions) -> Result<Self, Error> {
        let client = open(info, options).await?;
        let (info, options) = (info.clone(), options.clone());
        Ok(Self { info, options, client, equalities: BTreeMap::new() })
    }

    /// A working connection.
    ///
    /// # Errors
    /// When it is lost and can't be opened again.
    pub async fn client(&mut self) -> Result<&Client, Error> {
        if self.client.is_closed() {
            self.client = open(&self.info, &self.options).await?;
        }
        Ok(&self.client)
    }

    /// The catalog's facts about a table and these types of its columns.
    ///
    /// # Errors
    /// When a query fails, or the connection is lost and can't be opened again.
    pub async fn relation(
        &mut self,
        oid: u32,
        column_types: &[u32],
    ) -> Result<RelationFacts, Error> {
        let mut facts = self.relations(&[(oid, Some(column_types))]).await?;
        Ok(facts.remove(&oid).unwrap_or_default())
    }

    /// The same for several tables, by OID, in few queries: with these types of each, or those of
    /// all its columns. A table that is gone has no facts.
    ///
    /// # Errors
    /// As [`relation`](Self::relation).
    pub async fn relations(
        &mut self,
        tables: &[(u32, Option<&[u32]>)],
    ) -> Result<HashMap<u32, RelationFacts>, Error> {
        self.client().await?;
        let mut facts = HashMap::with_capacity(tables.len());
        for batch in tables.chunks(BATCH) {
            self.batch(batch, &mut facts).await?;
        }
        Ok(facts)
    }

    async fn batch(
        &self,
        tables: &[(u32, Option<&[u32]>)],
        facts: &mut HashMap<u32, RelationFacts>,
    ) -> Result<(), Error> {
        let oids: Vec<u32> = tables.iter().map(|(oid, _)| *oid).collect();
        let ask = async |doing, query| {
            let params: &[(&(dyn ToSql + Sync), Type)] = &[(&oids, Type::OID_ARRAY)];
            let rows = self.client.query_typed(query, params).await;
            rows.map_err(|source| Error::Sql { doing, source })
        };
        // Sent together: the server processes them in turn, with one round trip.
        let (indexes, columns, partial) = tokio::try_join!(
            ask("read the keys of tables", INDEXES),
            ask("read the columns of tables", COLUMNS),
            ask("read the partitions of tables", PARTIAL_PARTITIONS),
        )?;
        for row in indexes {
            let facts: &mut RelationFacts = facts.entry(row.get(0)).or_default();
            let (is_primary, is_identity): (bool, bool) = (row.get(1), row.get(2));
            let columns: Vec<String> = row.get(3);
            if is_identity {
                facts.identity_index.clone_from(&columns);
            }
            if is_primary {
                facts.primary_key = columns;
            } else {
                facts.unique_indexes.push(columns);
            }
        }
        let mut written = Vec::new();
        for row in columns {
            let columns = &mut facts.entry(row.get(0)).or_default().columns;
            let column = column(&row);
            let default = column.default.as_deref().and_then(|expression| {
                Written::of(expression, column.type_oid, row.get(6), row.get(7))
            });
            written.extend(default.map(|default| ((row.get(0), columns.len()), default)));
            columns.push(column);
        }
        self.settle_defaults(written, facts).await?;
        for row in partial {
            facts.entry(row.get(0)).or_default().has_partial_partitions = true;
        }
        let types_of = |oid: &u32, types: &Option<&[u32]>, facts: &HashMap<u32, RelationFacts>| {
            let columns = facts.get(oid).into_iter().flat_map(|facts| &facts.columns);
            types.map_or_else(|| columns.map(|column| column.type_oid).collect(), <[u32]>::to_vec)
        };
        let used: BTreeSet<u32> =
            tables.iter().flat_map(|(oid, types)| types_of(oid, types, facts)).collect();
        let known = self.types(&Vec::from_iter(used)).await?;
        for (oid, types) in tables {
            let types = types_of(oid, types, facts);
            facts.entry(*oid).or_default().types = with_parts(types, &known);
        }
        Ok(())
    }

    /// Reads how values of these types are compared, if not known yet.
    pub(super) async fn learn_equalities(&mut self, types: &[u32]) -> Result<(), Error> {
        if self.equalities.len() > KNOWN_TYPES {
            self.equalities.clear();
        }
        let is_new = |oid: &u32| *oid >= FIRST_OF_USERS && !self.equalities.contains_key(oid);
        let new: Vec<u32> = types.iter().copied().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        let failed = |source| Error::Sql { doing: "read how values are compared", source };
        let rows = self.client().await?.query(EQUALITY, &[&new]).await.map_err(failed)?;
        self.equalities.extend(new.into_iter().map(|oid| (oid, None)));
        for row in &rows {
            let equality = Equality { schema: row.get(1), type_sql: row.get(2) };
            self.equalities.insert(row.get(0), Some(equality));
        }
        Ok(())
    }

    /// Replaces defaults that columns store differently from how they are written.
    async fn settle_defaults(
        &self,
        written: Vec<((u32, usize), Written)>,
        facts: &mut HashMap<u32, RelationFacts>,
    ) -> Result<(), Error> {
        if written.is_empty() {
            return Ok(());
        }
        let (places, written): (Vec<(u32, usize)>, Vec<Written>) = written.into_iter().unzip();
        let failed = |source| Error::Sql { doing: "read the defaults of columns", source };
        let held = defaults::held(&self.client, &written).await.map_err(failed)?;
        for ((oid, at), held) in places.into_iter().zip(held) {
            let column = facts.get_mut(&oid).and_then(|facts| facts.columns.get_mut(at));
            if let Some(column) = column {
                column.default = held.map(|held| escape_literal(&held));
            }
        }
        Ok(())
    }

    async fn types(&self, oids: &[u32]) -> Result<BTreeMap<u32, TypeFacts>, Error> {
        let rows = self
            .client
            .query_typed(TYPES, &[(&oids, Type::OID_ARRAY)])
            .await
            .map_err(|source| Error::Sql { doing: "read the types of a table", source })?;
        let facts = rows.iter().map(|row| {
            let oid: u32 = row.get(0);
            let kind = match (row.get::<_, &str>(3), row.get::<_, bool>(4)) {
                ("d", _) => TypeKind::Domain { base: row.get(6), typmod: row.get(7) },
                (_, true) => TypeKind::Array {
                    element: row.get(5),
                    delimiter: u8::try_from(row.get::<_, i32>(9)).unwrap_or(b','),
                },
                ("e", _) => TypeKind::Enum { labels: row.get(8) },
                ("r", _) => TypeKind::Range,
                ("m", _) => TypeKind::Multirange,
                ("c", _) => TypeKind::Composite,
                ("p", _) => TypeKind::Pseudo,
                _ => TypeKind::Base,
            };
            (oid, TypeFacts { oid, schema: row.get(1), name: row.get(2), kind })
        });
        Ok(facts.collect())
    }
}

/// A connection with whose settings values, and constants in defaults, have the same text as in the
/// stream.
async fn open(info: &ConnInfo, options: &ConnectOptions) -> Result<Client, Error> {
    let client = client::connect(info, options).await?;
    let set = TEXT_SETTINGS.map(|(name, value)| format!("SET {name} = '{value}'"));
    let failed = |source| Error::Sql { doing: "set the format of values", source };
    client.batch_execute(&set.join("; ")).await.map_err(failed)?;
    Ok(client)
}

/// Those of the known types that are listed or are parts of a listed one.
pub(crate) fn with_parts(
    mut wanted: Vec<u32>,
    known: &BTreeMap<u32, TypeFacts>,
) -> BTreeMap<u32, TypeFacts> {
    let mut found = BTreeMap::new();
    while let Some(oid) = wanted.pop() {
        let Some(facts) = known.get(&oid).filter(|_| !found.contains_key(&oid)) else { continue };
        match facts.kind {
            TypeKind::Domain { base, .. } => wanted.push(base),
            TypeKind::Array { element, .. } => wanted.push(element),
            _ => {}
        }
        found.insert(oid, facts.clone());
    }
    found
}

/// One column, from a row that begins with the table.
fn column(row: &tokio_postgres::Row) -> ColumnFacts {
    let generated = match row.get(4) {
        "s" => Generated::Stored,
        "v" => Generated::Virtual,
        _ => Generated::No,
    };
    let expression: Option<String> = row.get(5);
    ColumnFacts {
        name: row.get(1),
        type_oid: row.get(2),
        not_null: row.get(3),
        default: expression.filter(|_| generated == Generated::No),
        generated,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// PostgreSQL 18 sets `attnotnull` for a constraint that applies to new rows only.
    #[test]
    fn every_query_that_asks_for_not_null_asks_whether_it_was_validated() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
        let mut asked = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let count = |word: &str| text.matches(word).count();
            asked += count("attnotnull");
            assert_eq!(count("attnotnull"), count("convalidated"), "{}", path.display());
        }
        assert!(asked > 0, "some query reads it");
    }
}
