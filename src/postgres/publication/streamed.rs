//! The tables that the stream names: those of a publication, or in the place of a partitioned table
//! its partitions, where their changes are not published as their root's.

use tokio_postgres::Client;

use super::{FILTERS_SINCE, Names, TableName};
use crate::postgres::Error;

const STREAMED_TABLES: &str = include_str!("../../../sql/streamed_tables.sql");
const TABLE_OID: &str = include_str!("../../../sql/table_oid.sql");
const PUBLISHED_TABLES: &str = include_str!("../../../sql/published_tables.sql");
const PUBLISHED_TABLES_14: &str = include_str!("../../../sql/published_tables_14.sql");

/// A table that the stream names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streamed {
    /// Its OID.
    pub oid: u32,
    /// Its name.
    pub table: TableName,
    /// The table that is put into a publication for it: itself, or the root of its partitions.
    pub root: TableName,
}

/// The tables whose changes the publications have, by whatever way.
///
/// # Errors
/// When the query fails.
pub async fn in_effect(
    client: &Client,
    names: Names<'_>,
    server_version: u32,
) -> Result<Vec<Streamed>, Error> {
    let failed = |source| Error::Sql { doing: "ask for the published tables", source };
    let query =
        if server_version >= FILTERS_SINCE { PUBLISHED_TABLES } else { PUBLISHED_TABLES_14 };
    let rows = client.query(query, &[&names.both().as_slice()]).await.map_err(failed)?;
    let streamed = |row: &tokio_postgres::Row| {
        let table = TableName { schema: row.get(1), name: row.get(2) };
        Streamed { oid: row.get(0), root: table.clone(), table }
    };
    Ok(rows.iter().map(streamed).collect())
}

/// All tables whose changes could be streamed, by age.
///
/// # Errors
/// When the query fails.
pub async fn possible(client: &Client, via_root: bool) -> Result<Vec<Streamed>, Error> {
    let failed = |source| Error::Sql { doing: "ask which tables could be streamed", source };
    let rows = client.query(STREAMED_TABLES, &[&via_root]).await.map_err(failed)?;
    let streamed = |row: &tokio_postgres::Row| Streamed {
        oid: row.get(0),
        table: TableName { schema: row.get(1), name: row.get(2) },
        root: TableName { schema: row.get(3), name: row.get(4) },
    };
    Ok(rows.iter().map(streamed).collect())
}

/// The OID of a table, if there is one of that name.
///
/// # Errors
/// When the query fails.
pub async fn oid(client: &Client, table: &TableName) -> Result<Option<u32>, Error> {
    let failed = |source| Error::Sql { doing: "ask for a table", source };
    let row = client.query_opt(TABLE_OID, &[&table.schema, &table.name]).await.map_err(failed)?;
    Ok(row.map(|row| row.get(0)))
}
