//! The first snapshot of a pipeline: connections that import the slot's snapshot, a plan of what
//! they read, and the thread that publishes it.
//!
//! The stream is opened before the first row is read, and its rows wait: so the slot has a reader,
//! and no second copy takes it for an unused one.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::drain::{ActiveSession, Cause, Publishing};
use super::lookup::RowLookup;
use super::outlet::Outlet;
use super::setup::{self, Export, Start};
use super::{Bridge, StopOnDrop, told};
use crate::change::KeyChoice;
use crate::checkpoint::{
    Checkpoint, LeafProgress, Ledger, LeftOutTable, PageProgress, SnapshotReason, Snapshots,
    TableProgress, TableSnapshot,
};
use crate::config::SnapshotMode;
use crate::error::Error;
use crate::kafka::Producer;
use crate::lsn::Lsn;
use crate::pipeline;
use crate::pipeline::{Checkpointing, Ended, Stop};
use crate::postgres::publication::TableName;
use crate::postgres::{self, Catalog, ConnInfo, ConnectOptions, slot};
use crate::route::Router;
use crate::snapshot::initial::connection::{PageReader, Reading};
use crate::snapshot::initial::{FirstSnapshot, FirstTable, Leaf, Stamp};
use crate::snapshot::pages::ranges;
use crate::snapshot::progress::{Amount, Measure, Planned};
use crate::snapshot::{Plan, initial, plan};
use crate::state::State;

/// The ID of this request, which no user made.
const ID: &str = "first";

/// A first snapshot that is ready to be read.
pub(super) struct First {
    tables: Vec<FirstTable>,
    readers: Vec<PageReader>,
    stamp: Stamp,
}

impl Bridge {
    /// Imports the snapshot on all connections, plans what they read, and adds it to the
    /// checkpoint.
    pub(super) async fn plan_first(
        &self,
        export: Export,
        catalog: &mut Catalog,
        start: &mut Start,
        stop: &Arc<Stop>,
    ) -> Result<First, Error> {
        let settings = &self.settings;
        let Export { name, keeper, plan: before, server_version } = export;
        let at_most = usize::try_from(settings.memory.readers()).unwrap_or(usize::MAX);
        let connections = settings.snapshot.connections().get().min(at_most);
        let files = files(&before);
        let (info, options) = (self.conninfo.clone(), ConnectOptions::of(settings));
        let begin = {
            let stop = Arc::clone(stop);
            move || begin(connections, (&info, &options), &name, files.as_ref(), &stop)
        };
        // The receiver may have stopped waiting.
        let guard = StopOnDrop::new(stop);
        let begun = tokio::task::spawn_blocking(begin).await;
        guard.done();
        let thread = "snapshot";
        let begun =
            begun.map_err(|error| Error::Thread { thread, reason: error.to_string() })??;
        // Every connection has imported the snapshot.
        drop(keeper);
        // If it did not end on request, it succeeded.
        let (readings, shows, time_us) = begun.unwrap_or_default();
        let client = catalog.client().await?;
        let failed = |source| postgres::Error::Sql { doing: "open a transaction", source };
        let row =
            client.query_one("SELECT pg_catalog.txid_current()", &[]).await.map_err(failed)?;
        let xid = u64::try_from(row.get::<_, i64>(0)).ok();
        let lsn = start.checkpoint.progress.through_lsn;
        let stamp = Stamp { lsn, time_us, xid };

        let is_limited = start.captured.is_some();
        let scope = setup::scope(settings, server_version, is_limited);
        let mut plan = plan::plan(client, &scope).await?;
        same_files(&before, &plan)?;
        for skipped in &plan.skipped {
            tracing::warn!(table = %skipped.name, reason = skipped.reason, "not read");
        }
        self.leave_out(&mut plan, start);
        let tables = self.tables(catalog, &plan).await?;
        let listed = tables.iter().map(|table| listed(table, lsn, &shows)).collect();
        start.checkpoint.snapshots = Arc::new(Snapshots {
            tables: listed,
            left_out: start.checkpoint.snapshots.left_out.clone(),
            is_only: settings.snapshot.mode == SnapshotMode::Only,
            partitions_seen: Some(shows.clone()),
            ..Snapshots::default()
        });
        tracing::info!(
            tables = plan.tables.len(),
            pages = plan.tables.iter().map(plan::PlannedTable::pages).sum::<u64>(),
            connections,
            consistent_point = %lsn,
            "first snapshot: reading existing rows before the stream begins"
        );
        let planned = Arc::new(plan.tables);
        let reader = |reading| PageReader::new(reading, Arc::clone(&planned));
        Ok(First { tables, readers: readings.into_iter().map(reader).collect(), stamp })
    }

    /// Tables without a topic are not read.
    fn leave_out(&self, plan: &mut Plan, start: &mut Start) {
        let Start { router, checkpoint, .. } = start;
        let notes = &mut Arc::make_mut(&mut checkpoint.snapshots).left_out;
        plan.tables.retain(|table| {
            let (oid, TableName { schema, name }) = (table.description.oid(), &table.name);
            let Err(refusal) = router.topic(oid, schema, name) else { return true };
            self.left_out.put(oid, pipeline::left_out(&refusal));
            if notes.iter().all(|note| note.oid != oid) {
                let (schema, table) = (schema.clone(), name.clone());
                notes.push(LeftOutTable { oid, schema, table });
            }
            false
        });
    }

    /// The tables of a plan, as their rows are published.
    async fn tables(&self, catalog: &mut Catalog, plan: &Plan) -> Result<Vec<FirstTable>, Error> {
        let router = Router::new(&self.settings, self.conninfo.database());
        let described = plan.tables.iter().map(|table| &table.description);
        let wanted: Vec<(u32, Option<&[u32]>)> =
            described.map(|table| (table.oid(), Some(table.types()))).collect();
        let mut facts = catalog.relations(&wanted).await?;
        let mut tables = Vec::new();
        for table in &plan.tables {
            let TableName { schema, name } = &table.name;
            let facts = facts.remove(&table.description.oid()).unwrap_or_default();
            let choice = KeyChoice { configured: router.key_columns(schema, name) };
            let relation = table.description.relation(facts, &choice)?;
            let leaf = |leaf: &plan::Leaf| Leaf {
                oid: leaf.oid,
                filenode: leaf.filenode,
                pages: leaf.pages,
                ranges: ranges(leaf.pages, leaf.step()).collect(),
            };
            let entry = self.progress.begin_table(Planned {
                snapshot: ID.to_owned(),
                table: relation.full_name.clone(),
                size: Amount {
                    rows: table.rows().unwrap_or_default(),
                    bytes: 0,
                    pages: table.pages(),
                },
                measure: Measure::Pages,
                done: Amount::default(),
            });
            tables.push(FirstTable {
                relation,
                leaves: table.leaves.iter().map(leaf).collect(),
                entry,
            });
        }
        Ok(tables)
    }

    /// Publishes all rows. Returns the checkpoint that says so; none when it was asked to stop before.
    pub(super) async fn take_first(
        &self,
        active: &mut ActiveSession,
        first: First,
        outlet: &Outlet,
        checkpointing: Checkpointing,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<Option<Checkpoint>, Error> {
        let First { tables, readers, stamp } = first;
        self.enter(State::Snapshot);
        let lookup = || RowLookup(Arc::clone(&outlet.topics), Arc::clone(&outlet.guard));
        let publisher = || outlet.publisher(lookup());
        let snapshot = FirstSnapshot {
            sink: Arc::clone(&active.producer),
            ledger: Arc::clone(&active.ledger),
            metrics: Arc::clone(&self.metrics),
            book: Arc::clone(&self.progress),
            stop: Arc::clone(&active.stop),
            checkpointing,
            tables,
            stamp,
            own: publisher(),
            readers: readers.into_iter().map(|reader| (reader, publisher())).collect(),
        };
        let mut publishing = spawn(snapshot)?;
        match self.attend(active, &mut publishing, shutdown).await {
            Cause::Worker(Ok(Some(checkpoint))) => {
                tracing::info!("first snapshot finished: every row is published");
                Ok(Some(checkpoint))
            }
            cause => self.drain(active, &mut publishing, cause).await.map(|()| None),
        }
    }

    /// With `mode = "only"`, after an interrupted first snapshot: streams until the rest of the
    /// rows is read, because rows and changes together make up the tables. Then the pipeline ends.
    pub(super) async fn stream_until_read(
        &self,
        active: ActiveSession,
        worker: Publishing<Ended>,
        mut shutdown: watch::Receiver<bool>,
        mut all_read: watch::Receiver<bool>,
        checkpoint: Checkpoint,
    ) -> Result<(), Error> {
        let (producer, ledger) = (Arc::clone(&active.producer), Arc::clone(&active.ledger));
        let (stop, stopped) = watch::channel(false);
        let mut streaming = std::pin::pin!(self.stream(active, worker, stopped));
        let is_over = tokio::select! {
            ended = &mut streaming => return ended,
            () = told(&mut shutdown) => false,
            () = told(&mut all_read) => true,
        };
        if is_over {
            tracing::info!("the rest of the first snapshot is published");
        }
        stop.send_replace(true);
        streaming.await?;
        if is_over { self.end_pipeline(&producer, &ledger, checkpoint).await } else { Ok(()) }
    }

    /// With `mode = "only"`: ends after the snapshot.
    pub(super) async fn end_with_the_snapshot(
        &self,
        mut active: ActiveSession,
        checkpoint: Checkpoint,
    ) -> Result<(), Error> {
        self.enter(State::Draining);
        active.close().await;
        self.end_pipeline(&active.producer, &active.ledger, checkpoint).await
    }

    /// Drops the slot, so that the next start is a first start again.
    async fn end_pipeline(
        &self,
        producer: &Arc<Producer>,
        ledger: &Arc<Ledger>,
        checkpoint: Checkpoint,
    ) -> Result<(), Error> {
        let intent = Checkpoint::intent(checkpoint.source, checkpoint.generation + 1);
        self.write_checkpoint(producer, ledger, intent).await?;
        let options = ConnectOptions::of(&self.settings);
        let client = postgres::client::connect(&self.conninfo, &options).await?;
        slot::drop(&client, &self.settings.slot).await?;
        tracing::info!(
            slot = self.settings.slot,
            "snapshot.mode is only: dropped the slot, nothing is streamed"
        );
        Ok(())
    }
}

/// The checkpoint's entry for a table of which nothing is published.
fn listed(table: &FirstTable, lsn: Lsn, shows: &str) -> TableSnapshot {
    let leaf =
        |leaf: &Leaf| LeafProgress { oid: leaf.oid, filenode: leaf.filenode, done: Vec::new() };
    TableSnapshot {
        partition: None,
        id: ID.to_owned(),
        schema: table.relation.schema.clone(),
        table: table.relation.table.clone(),
        reason: SnapshotReason::First,
        condition: None,
        is_paused: false,
        progress: TableProgress::Pages(PageProgress {
            lsn,
            shows: shows.to_owned(),
            leaves: table.leaves.iter().map(leaf).collect(),
        }),
    }
}

/// Connections that have imported the snapshot, and what it shows; `None` if asked to stop.
type Begun = Option<(Vec<Reading>, String, i64)>;

/// Imports the snapshot on `count` connections. One of them takes the locks of a reader, so that no
/// table is rewritten before it is read. Blocks.
fn begin(
    connections: usize,
    (info, options): (&ConnInfo, &ConnectOptions),
    name: &str,
    files: Option<&(String, String)>,
    stop: &Arc<Stop>,
) -> Result<Begun, Error> {
    let mut readings = Vec::new();
    for _ in 0..connections {
        let Some(reading) = Reading::begin(info, options, name, Arc::clone(stop))? else {
            return Ok(None);
        };
        readings.push(reading);
    }
    let Some(first) = readings.first_mut() else { return Ok(None) };
    let stamp = match files {
        Some((names, of)) => first.lock(names, of, initial::STAMP)?,
        None => first.ask(initial::STAMP)?,
    };
    let Some(stamp) = stamp else { return Ok(None) };
    let [Some(shows), Some(time_us)] = stamp.as_slice() else { return Err(no_stamp().into()) };
    let (shows, time_us) = (shows.clone(), time_us.parse().map_err(|_| no_stamp())?);
    Ok(Some((readings, shows, time_us)))
}

const fn no_stamp() -> postgres::Error {
    let what = "unexpected response to the query of what a snapshot shows";
    postgres::Error::Malformed { what }
}

/// All files of a plan, as LOCK TABLE takes them, and what they are for whoever reads that one of
/// them is locked. `None` if there is none.
fn files(plan: &Plan) -> Option<(String, String)> {
    let leaves = plan.tables.iter().flat_map(|table| &table.leaves);
    let leaves: Vec<&TableName> = leaves.map(|leaf| &leaf.name).collect();
    let names: Vec<String> = leaves.iter().map(|leaf| format!("ONLY {}", leaf.sql())).collect();
    let of = match leaves.as_slice() {
        [] => return None,
        [only] => only.to_string(),
        several => format!("one of the {} tables whose rows come first", several.len()),
    };
    Some((names.join(", "), of))
}

/// A table that was rewritten after the slot was created looks empty to the snapshot, and nothing
/// in the stream says so.
fn same_files(before: &Plan, now: &Plan) -> Result<(), Error> {
    let leaves = |plan: &Plan| -> BTreeMap<u32, (u32, TableName)> {
        let leaves = plan.tables.iter().flat_map(|table| &table.leaves);
        leaves.map(|leaf| (leaf.oid, (leaf.filenode, leaf.name.clone()))).collect()
    };
    let now = leaves(now);
    for (oid, (filenode, name)) in leaves(before) {
        if now.get(&oid).is_some_and(|(now, _)| *now != filenode) {
            return Err(Error::Rewritten { table: name.to_string() });
        }
    }
    Ok(())
}

type Taking = FirstSnapshot<Producer, RowLookup, PageReader>;

fn spawn(snapshot: Taking) -> Result<Publishing<Option<Checkpoint>>, Error> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("snapshot".to_owned())
        .spawn(move || {
            // The receiver is gone once the bridge has ended.
            let _ = sender.send(snapshot.run());
        })
        .map_err(|error| Error::Thread { thread: "snapshot", reason: error.to_string() })?;
    Ok(receiver)
}
