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
const HOLDER: &str = include_str!("../../sql/slot_holder.sql");
const END_WALSENDER: &str = include_str!("../../sql/end_walsender.sql");

/// Our own word for a slot that the server takes for whole, and says that it lacks WAL for.
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
        /// Where the next reader starts; zero while the slot is being made.
        confirmed: Lsn,
    },
    /// The server gave up on it, and what it held is gone.
    Lost {
        /// The server's word for the reason, from version 17 on.
        reason: Option<String>,
    },
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
        return Ok(SlotState::Lost { reason: row.get(5) });
    }
    let confirmed =
        row.get::<_, Option<&str>>(3).and_then(|text| text.parse().ok()).unwrap_or(Lsn::ZERO);
    Ok(match row.get(2) {
        Some(pid) => SlotState::Active { pid, confirmed },
        None => SlotState::Idle { confirmed },
    })
}

/// Whether somebody has read from a slot, by the server's own count; one that it has lost, as in a
/// crash, counts as none.
///
/// # Errors
/// When the query fails.
pub async fn was_read(client: &Client, name: &str) -> Result<bool, Error> {
    let query = "SELECT total_txns > 0 FROM pg_catalog.pg_stat_replication_slots
                 WHERE slot_name = $1";
    let failed = |source| Error::Sql { doing: "ask whether the slot was read from", source };
    let row = client.query_opt(query, &[&name]).await.map_err(failed)?;
    Ok(row.and_then(|row| row.get::<_, Option<bool>>(0)).unwrap_or(false))
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

/// Says who the reader is that a server process serves, as far as the role may see it.
///
/// # Errors
/// When the query fails.
pub async fn holder(client: &Client, pid: i32) -> Result<Holder, Error> {
    let failed = |source| Error::Sql { doing: "ask who reads from the slot", source };
    let row = client.query_opt(HOLDER, &[&pid]).await.map_err(failed)?;
    let (name, address) = row.map_or_else(Default::default, |row| (row.get(0), row.get(1)));
    Ok(Holder { pid, name, address })
}

/// Who reads from a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pid: i32,
    /// The name that it gave itself; empty where the role may not see it.
    name: String,
    /// Empty likewise, and for who is on the server's host.
    address: String,
}

impl Holder {
    /// Whether it may be who names itself so: also where its name can't be seen.
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

/// Ends a walsender, if that very process still runs. It takes as long as the process needs to
/// notice.
///
/// Returns whether it was asked to end.
///
/// # Errors
/// When the role may not end it, or the query fails.
pub async fn end_walsender(client: &Client, walsender: &Walsender) -> Result<bool, Error> {
    let Walsender { pid, started } = walsender;
    let failed = |source| Error::Sql { doing: "end the walsender", source };
    let row = client.query_opt(END_WALSENDER, &[pid, started]).await.map_err(failed)?;
    Ok(row.is_some_and(|row| row.get(0)))
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
