//! Tables that nothing tells the rows of apart: read whole from the snapshot of a temporary slot, while
//! the stream waits.
//!
//! 1. The stream comes to a stop at a watermark.
//! 2. A slot is made: where that begins, is the point that its snapshot shows. The slot goes with its
//!    connection, as soon as the snapshot is imported.
//! 3. The rows are read by pages, and published where the stream stands.
//! 4. One more watermark lets the stream pass the point, from where on all of this holds.
//!
//! A table that a first snapshot left in the middle is read anew: what was published of it, and what
//! was written since, comes again. To leave out the rows that were written since would lose those
//! between the stop and the point, which the stream leaves out.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use super::Coordinator;
use super::source::Source;
use super::task::{Failure, Pending};
use crate::checkpoint::TableProgress;
use crate::config::{Resolved, TableFilter, exactly};
use crate::postgres::copy::CopySession;
use crate::postgres::{self, Error, ReplicationClient, SlotOptions, SlotSnapshot};
use crate::snapshot::exchange::{Hold, Rows};
use crate::snapshot::pages::{PAGE_BYTES, RANGE_BYTES, ranges};
use crate::snapshot::plan::{self, Plan, Scope};
use crate::snapshot::progress::Amount;
use crate::snapshot::table::Table;
use crate::snapshot::{Chunk, Edit, Order, Visibility};

/// Chunks that may wait for the worker.
const CHUNKS: usize = 1;

impl Coordinator {
    /// Reads a table whole, and hands it over.
    pub(super) async fn read_whole(&mut self, at: usize, table: &Table) -> Result<(), Failure> {
        let Some(task) = self.tasks.get(at) else { return Ok(()) };
        let (name, id) = (task.full_name(), task.snapshot.id.clone());
        let condition = task.snapshot.condition.clone();
        let edits = vec![Edit::remove(&task.snapshot)];
        let (entered, has_entered) = oneshot::channel();
        let (rows, received) = mpsc::channel(CHUNKS);
        let oid = table.relation.oid;
        let hold = Hold { oid, entered, rows: received, edits };
        let number = self.emit(Order::Hold(hold)).await?;
        if has_entered.await.is_err() {
            return Err(Error::Closed.into());
        }
        tracing::info!(
            table = name,
            id,
            "the stream waits: the table has no key, and is read whole"
        );
        let reading = Reading {
            settings: &self.settings,
            table,
            condition: condition.as_deref(),
            chunk_bytes: self.settings.memory.window_bytes(),
            rows: &rows,
        };
        // Without a sender the stream goes on, whatever came of it.
        let read = reading.all(&mut self.source).await;
        drop(rows);
        let read = read?;
        if let Some(task) = self.tasks.get_mut(at) {
            let progress = TableProgress::Waiting;
            task.pending = Some(Pending { number, progress, is_last: true, read });
        }
        // So that the stream comes to the point, though nobody may write.
        self.emit(Order::Note(Vec::new())).await?;
        Ok(())
    }
}

/// A table that is read whole.
struct Reading<'a> {
    settings: &'a Resolved,
    table: &'a Table,
    condition: Option<&'a str>,
    chunk_bytes: u64,
    rows: &'a mpsc::Sender<Rows>,
}

impl Reading<'_> {
    async fn all(&self, source: &mut Source) -> Result<Amount, Failure> {
        let mut keeper = ReplicationClient::connect(source.info(), source.options()).await?;
        let options =
            SlotOptions { temporary: true, failover: false, snapshot: SlotSnapshot::Export };
        let slot = format!("rowcast_whole_{}", uuid::Uuid::now_v7().simple());
        let created = keeper.create_slot(&slot, options).await?;
        let exported = created.snapshot_name.as_deref();
        let malformed = postgres::Error::Malformed { what: "a slot came without its snapshot" };
        let exported = exported.ok_or(malformed)?;
        let mut session = CopySession::connect(source.info(), source.options()).await?;
        session.begin_snapshot(exported).await?;
        drop(keeper);
        let plan = self.plan(source).await?;
        if let Some(shortfall) = plan.shortfalls.first() {
            return Err(Failure::Never(shortfall.to_string()));
        }
        let gone = || Failure::Gone("it is not in the publication any more".to_owned());
        let planned = plan.tables.first().ok_or_else(gone)?;
        let mut read = Amount::default();
        for leaf in &planned.leaves {
            for range in ranges(leaf.pages, RANGE_BYTES / PAGE_BYTES) {
                let sql = planned.copy(leaf, range, self.condition);
                read = read.plus(self.range(&mut session, &sql).await?);
            }
        }
        session.query("COMMIT").await?;
        self.give(Rows::All { point: created.consistent_point }).await?;
        Ok(read)
    }

    async fn plan(&self, source: &mut Source) -> Result<Plan, Failure> {
        let relation = self.table.relation.as_ref();
        let pattern = exactly(&relation.schema, &relation.table);
        let captured = TableFilter::parse(&[pattern], &[]);
        let captured = captured.map_err(|fault| Failure::Never(fault.to_string()))?;
        let client = source.client().await?;
        let scope = Scope {
            publication: &self.settings.publication,
            server_version: postgres::client::server_version(client).await?,
            captured: &captured,
            is_limited: true,
            settings: &self.settings.tables,
        };
        Ok(plan::plan(client, &scope).await?)
    }

    async fn range(&self, session: &mut CopySession, sql: &str) -> Result<Amount, Failure> {
        let mut read = Amount::default();
        let mut copy = session.copy_out(sql).await?;
        let mut chunk = self.chunk();
        while let Some(rows) = copy.next().await? {
            for line in rows.rows() {
                chunk.push(line);
                read = read.plus(Amount { rows: 1, bytes: line.len() as u64, pages: 0 });
                if chunk.len_bytes() >= self.chunk_bytes {
                    self.give(Rows::Some(std::mem::replace(&mut chunk, self.chunk()))).await?;
                }
            }
        }
        if chunk.rows() > 0 {
            self.give(Rows::Some(chunk)).await?;
        }
        Ok(read)
    }

    fn chunk(&self) -> Box<Chunk> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_us = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
        Box::new(Chunk::new(self.table.relation.clone(), Visibility::default(), now_us))
    }

    async fn give(&self, rows: Rows) -> Result<(), Failure> {
        self.rows.send(rows).await.map_err(|_| Error::Closed.into())
    }
}
