//! The exported snapshot of a temporary slot, with which a table without a key is read. It
//! corresponds to a position in the stream, and every subtransaction is either visible in it or
//! after it.

use std::time::Duration;

use super::connections::Connections;
use super::task::Failure;
use crate::lsn::Lsn;
use crate::postgres::{self, Blocker, ReplicationClient, SlotOptions, SlotSnapshot, slot};
use crate::snapshot::initial::STAMP;

/// Longest wait for the transactions that run when a slot is created. The stream may wait
/// meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// An exported snapshot.
pub(crate) struct Exported {
    /// The stream contains every transaction that commits from here on, the snapshot all before.
    pub(crate) point: Lsn,
    /// As `pg_current_snapshot()` returns it.
    pub(crate) shows: String,
}

/// Creates a temporary slot, and reads what its snapshot shows.
pub(crate) async fn take(source: &mut Connections) -> Result<Exported, Failure> {
    let mut reader = source.take_reader().await?;
    let (info, options) = (source.info().clone(), source.options().clone());
    let mut keeper = ReplicationClient::connect(&info, &options).await?;
    let walsender = keeper.walsender().await?;
    let slot_options =
        SlotOptions { temporary: true, failover: false, snapshot: SlotSnapshot::Export };
    let name = format!("rowcast_snapshot_{}", uuid::Uuid::now_v7().simple());
    let mut waits_for = None;
    let waits = |blocker: Option<Blocker>, _| waits_for = blocker;
    let making =
        keeper.create_slot_in_time(&name, slot_options, &walsender, (&info, &options), waits);
    let Ok(created) = tokio::time::timeout(PATIENCE, making).await else {
        // Otherwise the server would continue to wait.
        slot::end_walsender(source.client().await?, &walsender).await?;
        let waits_for = waits_for.map_or_else(|| "the server".to_owned(), |it| it.to_string());
        return Err(Failure::Waits(format!("for transactions that began before: {waits_for}")));
    };
    let created = created?;
    let malformed = |what| postgres::Error::Malformed { what };
    let exported = created.snapshot_name.as_deref();
    let exported = exported.ok_or_else(|| malformed("a slot was created without its snapshot"))?;
    reader.session.begin_snapshot(exported).await?;
    let rows = reader.session.query(STAMP).await?;
    reader.session.query("COMMIT").await?;
    source.give_back(reader);
    let shows = rows.into_iter().flatten().next().flatten();
    let shows = shows.ok_or_else(|| malformed("a snapshot has an unexpected format"))?;
    Ok(Exported { point: created.consistent_point, shows })
}
