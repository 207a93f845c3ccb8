//! The replication slot: what holds the server's WAL until the bridge has published it.
//!
//! ```text
//!   Absent --create--> Idle <--> Active        Lost: the server gave up on it, what it held is gone
//! ```

use tokio_postgres::Client;

use super::Error;
use crate::lsn::Lsn;

const SLOT: &str = include_str!("../../sql/slot.sql");
const END_READER: &str = include_str!("../../sql/end_slot_reader.sql");

/// How a slot stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotState {
    /// There is none of this name.
    Absent,
    /// It waits for a reader.
    Idle {
        /// Where the next reader starts.
        confirmed: Lsn,
    },
    /// Another process reads from it.
    Active {
        /// The server process that serves it.
        pid: i32,
        /// Where the next reader starts.
        confirmed: Lsn,
    },
    /// The server removed WAL that it needs.
    Lost,
    /// It is not one for pgoutput in this database.
    Foreign {
        /// Its output plugin; none for a physical slot.
        plugin: Option<String>,
        /// Its database; none for a physical slot.
        database: Option<String>,
    },
}

/// Asks how a slot of `database` stands.
///
/// # Errors
/// When the query fails.
pub async fn state(client: &Client, name: &str, database: &str) -> Result<SlotState, Error> {
    let failed = |source| Error::Sql { doing: "ask for the replication slot", source };
    let Some(row) = client.query_opt(SLOT, &[&name]).await.map_err(failed)? else {
        return Ok(SlotState::Absent);
    };
    let (plugin, of): (Option<String>, Option<String>) = (row.get(0), row.get(1));
    if plugin.as_deref() != Some("pgoutput") || of.as_deref() != Some(database) {
        return Ok(SlotState::Foreign { plugin, database: of });
    }
    if row.get::<_, Option<&str>>(4) == Some("lost") {
        return Ok(SlotState::Lost);
    }
    let confirmed =
        row.get::<_, Option<&str>>(3).and_then(|text| text.parse().ok()).unwrap_or(Lsn::ZERO);
    Ok(match row.get(2) {
        Some(pid) => SlotState::Active { pid, confirmed },
        None => SlotState::Idle { confirmed },
    })
}

/// Ends whoever reads from a slot; nobody is no error.
///
/// # Errors
/// When the role may not end it, or the query fails.
pub async fn end_reader(client: &Client, name: &str) -> Result<(), Error> {
    let failed = |source| Error::Sql { doing: "end the slot's reader", source };
    client.query(END_READER, &[&name]).await.map_err(failed)?;
    Ok(())
}

/// Drops a slot; one that is not there is no error.
///
/// Returns whether there was one.
///
/// # Errors
/// When somebody reads from it, or the query fails.
pub async fn drop(client: &Client, name: &str) -> Result<bool, Error> {
    let query = "SELECT pg_catalog.pg_drop_replication_slot(slot_name)
                 FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let rows = client
        .query(query, &[&name])
        .await
        .map_err(|source| Error::Sql { doing: "drop the replication slot", source })?;
    Ok(!rows.is_empty())
}
