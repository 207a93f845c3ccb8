//! What a Relation message does not say of a table: its keys, which columns can be null and what
//! they hold by default, and what its types are made of.
//!
//! Asked once per relation version, of that relation alone: a catalog of a million types costs
//! nothing here. The catalog speaks of now and the stream of then; whoever takes these facts lets
//! the message win. A table that is gone has no facts, which is no error.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::Error;
use super::client;
use super::conninfo::ConnInfo;
use super::session::ConnectOptions;
use super::startup::TEXT_SETTINGS;
use crate::change::{ColumnFacts, Generated, RelationFacts, TypeFacts, TypeKind};

const INDEXES: &str = include_str!("../../sql/indexes_of_table.sql");
const COLUMNS: &str = include_str!("../../sql/columns_of_table.sql");
const PARTIAL_PARTITIONS: &str = include_str!("../../sql/partial_partitions.sql");
const TYPES: &str = include_str!("../../sql/types.sql");

/// Asks the catalog, over a connection that is opened again when it was lost.
pub struct Catalog {
    info: ConnInfo,
    options: ConnectOptions,
    client: Client,
}

impl Catalog {
    /// Connects.
    ///
    /// # Errors
    /// As [`client::connect`].
    pub async fn connect(info: &ConnInfo, options: &ConnectOptions) -> Result<Self, Error> {
        let client = open(info, options).await?;
        Ok(Self { info: info.clone(), options: options.clone(), client })
    }

    /// A connection that works.
    ///
    /// # Errors
    /// When it is lost and can't be opened again.
    pub async fn client(&mut self) -> Result<&Client, Error> {
        if self.client.is_closed() {
            self.client = open(&self.info, &self.options).await?;
        }
        Ok(&self.client)
    }

    /// What the catalog knows of a table and of these types of its columns.
    ///
    /// # Errors
    /// When a query fails, or the connection is lost and can't be opened again.
    pub async fn relation(
        &mut self,
        oid: u32,
        column_types: &[u32],
    ) -> Result<RelationFacts, Error> {
        self.client().await?;
        let mut facts = RelationFacts::default();
        let failed = |source| Error::Sql { doing: "ask for the keys of a table", source };
        for row in self.client.query(INDEXES, &[&oid]).await.map_err(failed)? {
            let (is_primary, is_identity): (bool, bool) = (row.get(0), row.get(1));
            let columns: Vec<String> = row.get(2);
            if is_identity {
                facts.identity_index.clone_from(&columns);
            }
            if is_primary {
                facts.primary_key = columns;
            } else {
                facts.unique_indexes.push(columns);
            }
        }
        let failed = |source| Error::Sql { doing: "ask for the columns of a table", source };
        let columns = self.client.query(COLUMNS, &[&oid]).await.map_err(failed)?;
        facts.columns = columns.iter().map(column).collect();
        let failed = |source| Error::Sql { doing: "ask for the partitions of a table", source };
        let partial = self.client.query_one(PARTIAL_PARTITIONS, &[&oid]).await.map_err(failed)?;
        facts.has_partial_partitions = partial.get(0);
        facts.types = self.types(column_types).await?;
        Ok(facts)
    }

    async fn types(&self, oids: &[u32]) -> Result<BTreeMap<u32, TypeFacts>, Error> {
        let rows = self
            .client
            .query(TYPES, &[&oids])
            .await
            .map_err(|source| Error::Sql { doing: "ask for the types of a table", source })?;
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

/// A connection on which values, and constants in defaults, have the text that they have in the
/// stream.
async fn open(info: &ConnInfo, options: &ConnectOptions) -> Result<Client, Error> {
    let client = client::connect(info, options).await?;
    let set = TEXT_SETTINGS.map(|(name, value)| format!("SET {name} = '{value}'"));
    let failed = |source| Error::Sql { doing: "settle the form of values", source };
    client.batch_execute(&set.join("; ")).await.map_err(failed)?;
    Ok(client)
}

fn column(row: &tokio_postgres::Row) -> ColumnFacts {
    let generated = match row.get(3) {
        "s" => Generated::Stored,
        "v" => Generated::Virtual,
        _ => Generated::No,
    };
    let expression: Option<String> = row.get(4);
    ColumnFacts {
        name: row.get(0),
        type_oid: row.get(1),
        not_null: row.get(2),
        default: expression.filter(|_| generated == Generated::No),
        generated,
    }
}
