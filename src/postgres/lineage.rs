//! Reads the current names of tables, their columns, and what they are partitions of, to compare
//! them with what is stored.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::Error;
use crate::checkpoint::{DatabaseId, Identity, Present, Root};

const LINEAGE: &str = include_str!("../../sql/lineage.sql");
const COLUMNS: &str = include_str!("../../sql/columns_by_number.sql");

/// The tables of a database.
#[derive(Debug, Default)]
pub struct Lineage {
    /// Tables and partitions, by OID.
    pub tables: BTreeMap<u32, Identity>,
    /// Schema and name of everything that has rows, views too.
    pub names: Vec<(String, String)>,
}

/// All tables, or those with these OIDs.
///
/// # Errors
/// When the query fails.
pub async fn lineage(client: &Client, oids: Option<&[u32]>) -> Result<Lineage, Error> {
    let failed = |source| Error::Sql { doing: "read the names of tables", source };
    let rows = client.query(LINEAGE, &[&oids]).await.map_err(failed)?;
    let mut found = Lineage::default();
    for row in rows {
        let (schema, table): (String, String) = (row.get(1), row.get(2));
        found.names.push((schema.clone(), table.clone()));
        if row.get(3) {
            let root = row.get::<_, Option<u32>>(4);
            let root = root.map(|oid| Root { oid, schema: row.get(5), table: row.get(6) });
            found.tables.insert(row.get(0), Identity { schema, table, root });
        }
    }
    Ok(found)
}

/// Tables with the names of their columns, if `has_columns` says that these matter.
///
/// # Errors
/// When the query fails.
pub async fn with_columns(
    client: &Client,
    tables: BTreeMap<u32, Identity>,
    has_columns: impl Fn(u32, &Identity) -> bool,
) -> Result<Vec<Present>, Error> {
    let failed = |source| Error::Sql { doing: "read the names of columns", source };
    let wanted: Vec<u32> =
        tables.iter().filter(|(oid, of)| has_columns(**oid, of)).map(|(oid, _)| *oid).collect();
    let mut columns: BTreeMap<u32, BTreeMap<i16, String>> = BTreeMap::new();
    if !wanted.is_empty() {
        for row in client.query(COLUMNS, &[&wanted]).await.map_err(failed)? {
            columns.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
        }
    }
    let present = tables.into_iter().map(|(oid, identity)| {
        let columns = columns.remove(&oid).unwrap_or_default();
        Present { oid, identity, columns }
    });
    Ok(present.collect())
}

/// Which database of which cluster this is. If the role may not read the cluster's identifier, that
/// is empty.
///
/// # Errors
/// When the query fails for another reason.
pub async fn place(client: &Client, database: &str) -> Result<DatabaseId, Error> {
    const QUERY: &str = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()";
    let system_identifier = match client.query_one(QUERY, &[]).await {
        Ok(row) => row.get(0),
        Err(error) if error.as_db_error().is_some() => String::new(),
        Err(source) => {
            return Err(Error::Sql { doing: "read the cluster's identifier", source });
        }
    };
    Ok(DatabaseId { system_identifier, database: database.to_owned() })
}
