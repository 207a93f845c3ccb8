//! Where the WAL ends, and where slots are.

use std::time::Duration;

use rowcast::lsn::Lsn;
use tokio_postgres::Client;

use super::eventually;

/// The end of the WAL: whatever commits from now on does so behind it.
pub async fn wal_end(client: &Client) -> Lsn {
    let end = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await;
    end.expect("ask").get::<_, String>(0).parse().expect("an LSN as Postgres prints it")
}

/// Where the slot of a pipeline is confirmed; none while there is no slot.
pub async fn confirmed(client: &Client, pipeline: &str) -> Option<Lsn> {
    let query = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1";
    let slot = client.query_opt(query, &[&format!("rowcast_{pipeline}")]).await.expect("ask")?;
    let lsn: Option<String> = slot.get(0);
    lsn.map(|lsn| lsn.parse().expect("an LSN as Postgres prints it"))
}

/// Waits until the slot of a pipeline is confirmed at `end`, or beyond.
pub async fn until_confirmed(client: &Client, pipeline: &str, end: Lsn, deadline: Duration) {
    eventually(deadline, &format!("{pipeline} to be confirmed at {end}"), async || {
        confirmed(client, pipeline).await.filter(|&at| at >= end).map(drop)
    })
    .await;
}

/// Waits until a logical slot of this name is read by a walsender.
pub async fn slot_active(client: &Client, slot: &str, deadline: Duration) {
    let query = "SELECT active FROM pg_replication_slots WHERE slot_name = $1";
    eventually(deadline, &format!("slot {slot} to be active"), async || {
        let row = client.query_opt(query, &[&slot]).await.expect("ask for the slot")?;
        row.get::<_, bool>(0).then_some(())
    })
    .await;
}
