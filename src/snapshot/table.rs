//! Reads what a snapshot needs to know of a table while the stream runs: its description as in the
//! stream, and the key to read it by.
//!
//! All of it is from the catalog at one moment. The transaction that reads a chunk checks again
//! that the table is unchanged: `what_is_read`.

use std::sync::Arc;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::{Client, Row, SimpleQueryMessage};

use super::incremental::keyset::{KeyColumn, Keyset};
use super::plan::unreadable;
use super::relation::Description;
use crate::change::{KeyChoice, Relation};
use crate::postgres::publication::{self, Published, TableName};
use crate::postgres::{self, Catalog};

const TABLE: &str = include_str!("../../sql/table_to_read.sql");
const KEY: &str = include_str!("../../sql/key_to_read_by.sql");
const WHAT_IS_READ: &str = include_str!("../../sql/what_is_read.sql");

/// A table that can be read.
#[derive(Debug, Clone)]
pub struct Table {
    /// As the stream would describe it.
    pub relation: Arc<Relation>,
    /// How it is read in key order; `None` if it has no suitable key.
    pub keyset: Option<Keyset>,
    /// Whether a user's condition is part of the query.
    pub has_condition: bool,
    /// Identifies the table's shape, which an ALTER changes.
    pub shape: String,
    /// Only the partition with this OID is read.
    pub partition: Option<u32>,
    /// Rows, by the server's statistics.
    pub rows_estimated: u64,
    /// Pages, by the server's statistics.
    pub pages: u64,
}

impl Table {
    /// Its name in SQL.
    #[must_use]
    pub fn name(&self) -> String {
        let Relation { schema, table, .. } = self.relation.as_ref();
        format!("{}.{}", escape_identifier(schema), escape_identifier(table))
    }

    /// The query for the transaction's snapshot and the table's shape, in this order.
    #[must_use]
    pub fn what_is_read(&self) -> String {
        what_is_read(&self.name(), self.partition)
    }
}

/// Why a table can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It does not exist.
    #[error("it does not exist")]
    Gone,
    /// The partition does not belong to this table.
    #[error("the partition was detached or dropped")]
    Detached,
    /// It is not a table.
    #[error("{reason}")]
    NoTable {
        /// What it is.
        reason: &'static str,
    },
    /// The configuration does not match it, or the catalog can't be queried.
    #[error(transparent)]
    Snapshot(#[from] super::Error),
}

impl From<postgres::Error> for TableError {
    fn from(error: postgres::Error) -> Self {
        Self::Snapshot(error.into())
    }
}

/// What to read of a table.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub table: &'a str,
    /// What the publication has of it.
    pub published: &'a Published,
    /// The server's version, as `server_version_num`.
    pub server_version: u32,
    /// The configured key.
    pub key: Option<&'a [String]>,
    /// Only rows for which this SQL condition of a user's holds.
    pub condition: Option<&'a str>,
    /// Only rows that are still missing, by a condition of our own.
    pub missing: Option<&'a str>,
    /// Only the partition with this OID.
    pub partition: Option<u32>,
}

impl Wanted<'_> {
    fn name(&self) -> String {
        format!("{}.{}", escape_identifier(self.schema), escape_identifier(self.table))
    }
}

/// Reads a table's description.
///
/// # Errors
/// [`TableError`] when the table or the catalog can't be read.
pub async fn look(catalog: &mut Catalog, wanted: &Wanted<'_>) -> Result<Table, TableError> {
    let failed = |source| postgres::Error::Sql { doing: "read a table's description", source };
    // Read first, so that a later change is noticed.
    let client = catalog.client().await?;
    let ask = what_is_read(&wanted.name(), wanted.partition);
    let shape = shape(client, &ask).await.map_err(failed)?;
    let found = client.query_opt(TABLE, &[&wanted.schema, &wanted.table]).await.map_err(failed)?;
    let mut found = found.ok_or(TableError::Gone)?;
    let oid: u32 = found.get(0);
    let leaf = match wanted.partition {
        Some(partition) => Some(leaf(client, oid, partition).await?),
        None => None,
    };
    let from = match found.get(1) {
        "p" if let Some((leaf, _)) = &leaf => format!("ONLY {}", leaf.sql()),
        "r" => format!("ONLY {}", wanted.name()),
        // Its rows are those of its partitions.
        "p" => wanted.name(),
        kind => {
            let reason = unreadable(kind, "p").unwrap_or("it is not an ordinary table");
            return Err(TableError::NoTable { reason });
        }
    };
    // How large it is.
    if let Some((_, of_leaf)) = leaf {
        found = of_leaf;
    }
    let columns = wanted.published.columns.as_deref();
    let described = Description::read(client, wanted.server_version, oid, columns).await?;
    let described = described.ok_or(TableError::Gone)?;
    let columns = described.columns().to_vec();
    let mut keyset = None;
    if let Some(row) = client.query_opt(KEY, &[&oid]).await.map_err(failed)? {
        let (names, types): (Vec<String>, Vec<String>) = (row.get(0), row.get(1));
        let schemas: Vec<String> = row.get(2);
        let key = names.into_iter().zip(types).zip(schemas);
        let key: Vec<KeyColumn> = key
            .map(|((name, type_sql), operators)| KeyColumn { name, type_sql, operators })
            .collect();
        // Unpublished columns are not in the stream.
        if key.iter().all(|key| columns.contains(&key.name)) {
            let published = wanted.published.condition.as_deref();
            let conditions = [published, wanted.condition, wanted.missing];
            let conditions = conditions.into_iter().flatten().map(str::to_owned).collect();
            keyset = Some(Keyset { from, columns, key, conditions });
        }
    }
    let facts = catalog.relation(oid, described.types()).await?;
    let relation = described.relation(facts, &KeyChoice { configured: wanted.key })?;
    let number = |value: Option<i64>| value.and_then(|value| value.try_into().ok()).unwrap_or(0);
    Ok(Table {
        relation,
        keyset,
        has_condition: wanted.condition.is_some(),
        shape,
        partition: wanted.partition,
        rows_estimated: number(found.get(2)),
        pages: number(found.get(3)),
    })
}

/// Whether a table has a key by which it can be read; true if it does not exist, because then it
/// does not matter.
///
/// # Errors
/// When a query fails.
pub async fn has_key(client: &Client, schema: &str, table: &str) -> Result<bool, postgres::Error> {
    let failed = |source| postgres::Error::Sql { doing: "read a table's key", source };
    let Some(found) = client.query_opt(TABLE, &[&schema, &table]).await.map_err(failed)? else {
        return Ok(true);
    };
    let oid: u32 = found.get(0);
    Ok(client.query_opt(KEY, &[&oid]).await.map_err(failed)?.is_some())
}

/// A partition of a table.
async fn leaf(client: &Client, root: u32, partition: u32) -> Result<(TableName, Row), TableError> {
    let failed = |source| postgres::Error::Sql { doing: "read a partition's description", source };
    let name = publication::name(client, partition).await?.ok_or(TableError::Detached)?;
    let ask = "SELECT relid::oid FROM pg_catalog.pg_partition_ancestors($1::oid::regclass)";
    let ancestors = client.query(ask, &[&partition]).await.map_err(failed)?;
    if !ancestors.iter().any(|ancestor| ancestor.get::<_, u32>(0) == root) {
        return Err(TableError::Detached);
    }
    let row = client.query_opt(TABLE, &[&name.schema, &name.name]).await.map_err(failed)?;
    Ok((name, row.ok_or(TableError::Detached)?))
}

/// The query for the transaction's snapshot and the shape of a table (its name in SQL) or of this
/// partition of it, in this order.
fn what_is_read(table: &str, partition: Option<u32>) -> String {
    let partition = partition.map_or_else(|| "NULL".to_owned(), |oid| oid.to_string());
    // The name last: it may contain the other placeholder.
    WHAT_IS_READ.replace("$2", &partition).replace("$1", escape_literal(table).trim_start())
}

async fn shape(client: &Client, query: &str) -> Result<String, tokio_postgres::Error> {
    let messages = client.simple_query(query).await?;
    let shape = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(1),
        _ => None,
    });
    Ok(shape.unwrap_or_default().to_owned())
}
