//! Reads row filters as the server writes them.
//!
//! A publication stores a row filter as an expression tree. The function that writes its text reads
//! the table, and from PostgreSQL 17 on locks it as a reader does. So checks of publications read
//! the text separately, wait for locks only briefly, and continue without the filter of a locked
//! table.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::lock_is_taken;
use crate::postgres::Error;

const ROW_FILTERS: &str = include_str!("../../../sql/row_filters.sql");

/// How long to wait for a lock.
const GLANCE: Duration = Duration::from_millis(100);

/// The row filters of these entries of publications, by the entry's OID, except those of locked
/// tables.
///
/// # Errors
/// When the server refuses it for another reason. The client must have no transaction open.
pub(super) async fn glance(
    client: &Client,
    entries: &[u32],
) -> Result<BTreeMap<u32, String>, Error> {
    match read(client, entries, Some(GLANCE)).await {
        Err(error) if lock_is_taken(&error) => {}
        read => return read,
    }
    let mut found = BTreeMap::new();
    // A locked one does not hold up the others.
    for entry in entries {
        match read(client, std::slice::from_ref(entry), Some(GLANCE)).await {
            Ok(one) => found.extend(one),
            Err(error) if lock_is_taken(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The same for all of them: waits for locks as long as the session's settings allow.
///
/// # Errors
/// When the server refuses it.
pub(super) async fn wait_for(
    client: &Client,
    entries: &[u32],
) -> Result<BTreeMap<u32, String>, Error> {
    read(client, entries, None).await
}

async fn read(
    client: &Client,
    entries: &[u32],
    patience: Option<Duration>,
) -> Result<BTreeMap<u32, String>, Error> {
    if entries.is_empty() {
        return Ok(BTreeMap::new());
    }
    let oids: Vec<String> = entries.iter().map(u32::to_string).collect();
    let mut sql = ROW_FILTERS.replace("$1", &format!("'{{{}}}'::oid[]", oids.join(",")));
    if let Some(patience) = patience {
        // Several statements in one simple query are one transaction.
        sql = format!("SET LOCAL lock_timeout = {};\n{sql}", patience.as_millis());
    }
    let failed = |source| Error::Sql { doing: "read row filters", source };
    let mut found = BTreeMap::new();
    for message in client.simple_query(&sql).await.map_err(failed)? {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let entry = row.get(0).and_then(|oid| oid.parse().ok());
        found.extend(entry.zip(row.get(1).map(str::to_owned)));
    }
    Ok(found)
}
