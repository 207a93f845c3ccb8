//! Lists the tables in the stream: those of a publication, or a partitioned table's partitions if
//! their changes are not published as their root's.

use tokio_postgres::Client;

use super::{FILTERS_SINCE, Names, Published, TableName, row_filters};
use crate::postgres::Error;

const STREAMED_TABLES: &str = include_str!("../../../sql/streamed_tables.sql");
const TABLE_OID: &str = include_str!("../../../sql/table_oid.sql");
const PUBLISHED_TABLES: &str = concat!(
    include_str!("../../../sql/published.sql"),
    include_str!("../../../sql/published_tables.sql")
);
const PUBLISHED_TABLES_14: &str = concat!(
    include_str!("../../../sql/published_14.sql"),
    include_str!("../../../sql/published_tables.sql")
);

/// A table in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streamed {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub table: TableName,
    /// The table that is added to a publication for it: itself, or its partition root.
    pub root: TableName,
}

/// A table whose changes publications contain, in any way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InEffect {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub table: TableName,
    /// What kind of relation it is, as `relkind`.
    pub kind: String,
    /// The published columns; `None` for all that are not generated.
    pub columns: Option<Vec<String>>,
    /// The entry of the publication that filters its rows.
    filtered_by: Option<u32>,
}

/// The tables whose changes the publications contain, in any way. Does not wait for locks.
///
/// # Errors
/// When the query fails.
pub async fn in_effect(
    client: &Client,
    publications: [&str; 2],
    server_version: u32,
) -> Result<Vec<InEffect>, Error> {
    published(client, publications, server_version, None).await
}

async fn published(
    client: &Client,
    publications: [&str; 2],
    server_version: u32,
    table: Option<&TableName>,
) -> Result<Vec<InEffect>, Error> {
    let failed = |source| Error::Sql { doing: "read the published tables", source };
    let query =
        if server_version >= FILTERS_SINCE { PUBLISHED_TABLES } else { PUBLISHED_TABLES_14 };
    let (schema, name) = table.map(|of| (of.schema.as_str(), of.name.as_str())).unzip();
    let rows = client.query(query, &[&publications.as_slice(), &schema, &name]).await;
    let found = |row: &tokio_postgres::Row| InEffect {
        oid: row.get(0),
        table: TableName { schema: row.get(1), name: row.get(2) },
        kind: row.get(3),
        columns: row.get(4),
        filtered_by: row.get(5),
    };
    Ok(rows.map_err(failed)?.iter().map(found).collect())
}

/// What is published of these tables, in their order. Reading rows needs their filters, so this
/// waits for locks.
///
/// # Errors
/// When a query fails.
pub async fn parts(client: &Client, tables: &[InEffect]) -> Result<Vec<Published>, Error> {
    let entries: Vec<u32> = tables.iter().filter_map(|table| table.filtered_by).collect();
    let mut filters = row_filters::wait_for(client, &entries).await?;
    let mut parts = Vec::with_capacity(tables.len());
    for InEffect { table, columns, filtered_by, .. } in tables {
        let condition = filtered_by.and_then(|entry| filters.remove(&entry));
        if filtered_by.is_some() && condition.is_none() {
            // It was altered meanwhile: it must not be read without a filter.
            return Err(Error::Altered { table: table.to_string() });
        }
        parts.push(Published { columns: columns.clone(), condition });
    }
    Ok(parts)
}

/// What the publications contain of a table in effect, in any way; `None` if they do not.
///
/// # Errors
/// When a query fails.
pub async fn part(
    client: &Client,
    names: Names<'_>,
    table: &TableName,
    server_version: u32,
) -> Result<Option<Published>, Error> {
    let found = published(client, names.both(), server_version, Some(table)).await?;
    Ok(parts(client, &found).await?.pop())
}

/// Whether the publications contain a table in effect, in any way.
///
/// # Errors
/// When the query fails.
pub async fn is_published(
    client: &Client,
    names: Names<'_>,
    table: &TableName,
    server_version: u32,
) -> Result<bool, Error> {
    Ok(!published(client, names.both(), server_version, Some(table)).await?.is_empty())
}

/// All tables whose changes could be streamed, by age.
///
/// # Errors
/// When the query fails.
pub async fn possible(client: &Client, via_root: bool) -> Result<Vec<Streamed>, Error> {
    let failed = |source| Error::Sql { doing: "read which tables could be streamed", source };
    let rows = client.query(STREAMED_TABLES, &[&via_root]).await.map_err(failed)?;
    let streamed = |row: &tokio_postgres::Row| Streamed {
        oid: row.get(0),
        table: TableName { schema: row.get(1), name: row.get(2) },
        root: TableName { schema: row.get(3), name: row.get(4) },
    };
    Ok(rows.iter().map(streamed).collect())
}

/// The OID of the table of this name, if it exists.
///
/// # Errors
/// When the query fails.
pub async fn oid(client: &Client, table: &TableName) -> Result<Option<u32>, Error> {
    let failed = |source| Error::Sql { doing: "read the OID of a table", source };
    let row = client.query_opt(TABLE_OID, &[&table.schema, &table.name]).await.map_err(failed)?;
    Ok(row.map(|row| row.get(0)))
}
