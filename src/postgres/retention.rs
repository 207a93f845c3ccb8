//! Reads how much WAL a slot holds back, and how much more it may hold.
//!
//! Two things bound what a slot holds: the server invalidates it (`max_slot_wal_keep_size`), or the
//! disk is full and the server stops. The server reports the first; the second needs access to the
//! disk, which is possible only on the same host with the permission to read the data directory.
//!
//! Not here: how fast it grows, and what to do about it.

use std::path::Path;

use tokio_postgres::Client;

use super::Error;

const RETENTION: &str = include_str!("../../sql/slot_retention.sql");

/// What a slot holds back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// Bytes of WAL since the position that the slot needs.
    pub retained_bytes: u64,
    /// The server's status: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// Whether it has a reader.
    pub is_active: bool,
    /// Bytes that may be written before the server invalidates the slot; `None` if it never does.
    pub keep_size_room: Option<u64>,
    /// Bytes free on the disk that holds the WAL; `None` if not visible from here.
    pub disk_room: Option<u64>,
}

/// Reads what a slot holds back; `None` if the slot does not exist.
///
/// # Errors
/// When the query fails.
pub async fn retention(client: &Client, slot: &str) -> Result<Option<Retention>, Error> {
    let failed = |source| Error::Sql { doing: "read what the slot retains", source };
    let Some(row) = client.query_opt(RETENTION, &[&slot]).await.map_err(failed)? else {
        return Ok(None);
    };
    let bytes = |at: usize| row.get::<_, Option<i64>>(at).map(|n| u64::try_from(n).unwrap_or(0));
    let directory: Option<&str> = row.get(4);
    Ok(Some(Retention {
        retained_bytes: bytes(0).unwrap_or(0),
        wal_status: row.get::<_, Option<String>>(1).unwrap_or_default(),
        is_active: row.get(3),
        keep_size_room: bytes(2),
        disk_room: directory.and_then(|directory| free_bytes(&Path::new(directory).join("pg_wal"))),
    }))
}

/// Free bytes for non-root users on the disk of a directory.
fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}
