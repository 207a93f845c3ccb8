//! What of a server's settings decides whether a stream runs and lasts, for `rowcast check`.

use tokio_postgres::Client;

use super::Error;

const SERVER: &str = include_str!("../../sql/check_server.sql");

/// The server as one query shows it. What a version does not have is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// As it names itself: `17.2 (Debian 17.2-1)`.
    pub version: String,
    /// The same as a number: 170002.
    pub version_number: u32,
    /// Whether this connection is encrypted.
    pub is_encrypted: bool,
    /// Streams that it may serve at a time, and those that it serves.
    pub walsenders: (i32, i32),
    /// Slots that it may have, and those that there are.
    pub slots: (i32, i32),
    /// Megabytes of WAL that a slot may hold before the server invalidates it; `None` for no limit.
    pub slot_limit_mb: Option<u64>,
    /// Seconds after which an idle slot is given up; none for never.
    pub idle_slot_timeout_s: Option<u64>,
    /// Milliseconds of silence after which the server ends a stream; none for never.
    pub walsender_timeout_ms: Option<u64>,
}

/// Asks for them.
///
/// # Errors
/// When the query fails.
pub async fn server_facts(client: &Client) -> Result<ServerFacts, Error> {
    let failed = |source| Error::Sql { doing: "ask for the server's settings", source };
    let row = client.query_one(SERVER, &[]).await.map_err(failed)?;
    // Zero and below stand for "no limit".
    let limit = |at: usize| {
        let value = row.get::<_, Option<i64>>(at).and_then(|value| u64::try_from(value).ok());
        value.filter(|value| *value > 0)
    };
    Ok(ServerFacts {
        version: row.get(0),
        version_number: row.get::<_, i32>(1).try_into().unwrap_or_default(),
        is_encrypted: row.get(2),
        walsenders: (row.get(3), row.get(4)),
        slots: (row.get(5), row.get(6)),
        slot_limit_mb: limit(7),
        idle_slot_timeout_s: limit(8),
        walsender_timeout_ms: limit(9),
    })
}
