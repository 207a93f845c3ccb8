//! Reads the signal table's properties from the catalog.

use tokio_postgres::Client;

use super::Error;
use super::publication::TableName;

const SIGNAL_TABLE: &str = include_str!("../../sql/signal_table.sql");

/// The table's properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalFacts {
    /// `r` for an ordinary table, as `pg_class.relkind` has it.
    pub kind: String,
    /// `p` for one that survives a crash, as `pg_class.relpersistence` has it.
    pub persistence: String,
    /// Whether it is a partition of another.
    pub is_partition: bool,
    /// Whether it inherits from another, or another from it.
    pub inherits: bool,
    /// Whether every role may write a row.
    pub is_open: bool,
    /// The columns, in order, each with whether it is text.
    pub columns: Vec<(String, bool)>,
}

/// Reads the table; `None` if it does not exist.
///
/// # Errors
/// When the query fails.
pub async fn look(client: &Client, table: &TableName) -> Result<Option<SignalFacts>, Error> {
    let failed = |source| Error::Sql { doing: "read the signal table", source };
    let row = client.query_opt(SIGNAL_TABLE, &[&table.schema, &table.name]).await;
    let Some(row) = row.map_err(failed)? else { return Ok(None) };
    let names: Vec<String> = row.try_get(5).map_err(failed)?;
    let are_text: Vec<bool> = row.try_get(6).map_err(failed)?;
    Ok(Some(SignalFacts {
        kind: row.try_get(0).map_err(failed)?,
        persistence: row.try_get(1).map_err(failed)?,
        is_partition: row.try_get(2).map_err(failed)?,
        inherits: row.try_get(3).map_err(failed)?,
        is_open: row.try_get(4).map_err(failed)?,
        columns: names.into_iter().zip(are_text).collect(),
    }))
}
