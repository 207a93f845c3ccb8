//! The replication slot: holds back the server's WAL until the bridge has published it.
//!
//! ```text
//!   Absent --create--> Idle <--> Active        Lost: the server invalidated it, what it held is gone
//! ```

use tokio_postgres::Client;

use super::Error;
use crate::lsn::Lsn;

const SLOT: &str = include_str!("../../sql/slot.sql");
const END_READER: &str = include_str!("../../sql/end_slot_reader.sql");
const HOLDER: &str = include_str!("../../sql/slot_holder.sql");
const END_WALSENDER: &str = include_str!("../../sql/end_walsender.sql");

/// Our own status for a slot that the server considers valid although it reported missing WAL for
/// it.
pub const SEGMENT_MISSING: &str = "segment_missing";

/// The server process of one connection. The two together name it among all that the server ever
/// had: ids come again, but not started at the same microsecond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walsender {
    /// Its process id.
    pub pid: i32,
    /// When it was started, as the server writes it.
    pub started: String,
}

/// The state of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotState {
    /// It does not exist.
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
        /// Where the next reader starts; zero while the slot is being created.
        confirmed: Lsn,
    },
    /// The server invalidated it, and what it held is gone.
    Lost {
        /// The server's reason, from version 17 on.
        reason: Option<String>,
    },
    /// It is not for pgoutput in this database.
    Foreign {
        /// Its output plugin; `None` for a physical slot.
        plugin: Option<String>,
        /// Its database; `None` for a physical slot.
        database: Option<String>,
    },
}

/// Reads the state of a slot of `database`.
///
/// # Errors
/// When the query fails.
pub async fn state(client: &Client, name: &str, database: &str) -> Result<SlotState, Error> {
    let failed = |source| Error::Sql { doing: "read the replication slot", source };
    let Some(row) = client.query_opt(SLOT, &[&name]).await.map_err(failed)? else {
        return Ok(SlotState::Absent);
    };
    let (plugin, of): (Option<String>, Option<String>) = (row.get(0), row.get(1));
    if plugin.as_deref() != Some("pgoutput") || of.as_deref() != Some(database) {
        return Ok(SlotState::Foreign { plugin, database: of });
    }
    if row.get::<_, Option<&str>>(4) == Some("lost") {
        return Ok(SlotState::Lost { reason: row.get(5) });
    }
    let confirmed =
        row.get::<_, Option<&str>>(3).and_then(|text| text.parse().ok()).unwrap_or(Lsn::ZERO);
    Ok(match row.get(2) {
        Some(pid) => SlotState::Active { pid, confirmed },
        None => SlotState::Idle { confirmed },
    })
}

/// Whether a slot was ever read from, by the server's own count; a count that was lost, as in a
/// crash, means no.
///
/// # Errors
/// When the query fails.
pub async fn was_read(client: &Client, name: &str) -> Result<bool, Error> {
    let query = "SELECT total_txns > 0 FROM pg_catalog.pg_stat_replication_slots
                 WHERE slot_name = $1";
    let failed = |source| Error::Sql { doing: "read whether the slot was used", source };
    let row = client.query_opt(query, &[&name]).await.map_err(failed)?;
    Ok(row.and_then(|row| row.get::<_, Option<bool>>(0)).unwrap_or(false))
}

/// Ends the reader of a slot; having none is not an error.
///
/// # Errors
/// When the role may not end it, or the query fails.
pub async fn end_reader(client: &Client, name: &str) -> Result<(), Error> {
    let failed = |source| Error::Sql { doing: "end the slot's reader", source };
    client.query(END_READER, &[&name]).await.map_err(failed)?;
    Ok(())
}

/// Identifies the reader that a server process serves, as far as the role may see it.
///
/// # Errors
/// When the query fails.
pub async fn holder(client: &Client, pid: i32) -> Result<Holder, Error> {
    let failed = |source| Error::Sql { doing: "read who uses the slot", source };
    let row = client.query_opt(HOLDER, &[&pid]).await.map_err(failed)?;
    let (name, address) = row.map_or_else(Default::default, |row| (row.get(0), row.get(1)));
    Ok(Holder { pid, name, address })
}

/// The reader of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pid: i32,
    /// Its application name; empty if the role may not see it.
    name: String,
    /// Empty likewise, and for clients on the server's host.
    address: String,
}

impl Holder {
    /// Whether it may have this application name: also if its name can't be seen.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        // The server keeps 63 bytes of a name.
        self.name.is_empty() || name.starts_with(&self.name)
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, name, address } = self;
        write!(f, "server process {pid}")?;
        if !name.is_empty() {
            write!(f, ", application {name:?}")?;
        }
        if !address.is_empty() {
            write!(f, ", from {address}")?;
        }
        Ok(())
    }
}

/// Ends a walsender, if that process still runs. It takes as long as the process needs to notice.
///
/// Returns whether the process was signalled.
///
/// # Errors
/// When the role may not end it, or the query fails.
pub async fn end_walsender(client: &Client, walsender: &Walsender) -> Result<bool, Error> {
    let Walsender { pid, started } = walsender;
    let failed = |source| Error::Sql { doing: "end the walsender", source };
    let row = client.query_opt(END_WALSENDER, &[pid, started]).await.map_err(failed)?;
    Ok(row.is_some_and(|row| row.get(0)))
}

/// Drops a slot; a missing one is not an error.
///
/// Returns whether it existed.
///
/// # Errors
/// When it has a reader, or the query fails.
pub async fn drop(client: &Client, name: &str) -> Result<bool, Error> {
    let query = "SELECT pg_catalog.pg_drop_replication_slot(slot_name)
                 FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let rows = client
        .query(query, &[&name])
        .await
        .map_err(|source| Error::Sql { doing: "drop the replication slot", source })?;
    Ok(!rows.is_empty())
}
