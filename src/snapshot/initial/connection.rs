//! Connections that share an exported snapshot and read pages of tables by COPY.
//!
//! Each is made and driven by a runtime of its own, on the thread that uses it, so that no other
//! thread is woken for its bytes. The runtime runs only while bytes are waited for: rows are handed
//! out between, as whoever publishes them may have to wait for a topic, and a thread must not wait
//! inside of a runtime.

use std::sync::Arc;

use tokio::runtime::Runtime;

use super::{LeafRange, Lines, Ranges};
use crate::error::Error;
use crate::failpoint;
use crate::pipeline::Stop;
use crate::postgres::copy::{CopyChunk, CopySession};
use crate::postgres::{self, ConnInfo, ConnectOptions, search_path};
use crate::snapshot::plan;

/// A connection that has imported a snapshot, with the runtime that drives it. Wherever it is
/// dropped, nothing is waited for.
pub(crate) struct Reading {
    runtime: Option<Runtime>,
    session: Option<CopySession>,
    stop: Arc<Stop>,
}

impl Reading {
    /// Connects and imports the snapshot; none when asked to stop before. Blocks.
    ///
    /// # Errors
    /// When it can't, or the snapshot is gone.
    pub(crate) fn begin(
        info: &ConnInfo,
        options: &ConnectOptions,
        snapshot: &str,
        stop: Arc<Stop>,
    ) -> Result<Option<Self>, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime
            .map_err(|error| Error::Thread { thread: "snapshot", reason: error.to_string() })?;
        let mut reading = Self { runtime: Some(runtime), session: None, stop };
        let connected = reading.drive(async |session| {
            let mut connected = CopySession::connect(info, options).await?;
            connected.begin_snapshot(snapshot).await?;
            *session = Some(connected);
            Ok(())
        });
        Ok(connected?.map(|()| reading))
    }

    /// Runs a command; none when asked to stop before its end. Blocks.
    pub(crate) fn run(&mut self, sql: &str) -> Result<Option<()>, Error> {
        self.drive(async |session| match session {
            Some(session) => session.query(sql).await.map(drop),
            None => Ok(()),
        })
    }

    /// Asks for one row; none when asked to stop before. Blocks.
    pub(crate) fn ask(&mut self, sql: &str) -> Result<Option<Vec<Option<String>>>, Error> {
        self.drive(async |session| match session {
            Some(session) => Ok(session.query(sql).await?.pop().unwrap_or_default()),
            None => Ok(Vec::new()),
        })
    }

    /// Runs a COPY, and hands out its rows until there are no more or `take` says false; or until
    /// asked to stop. Blocks.
    fn copy(&mut self, sql: &str, take: &mut dyn FnMut(CopyChunk) -> bool) -> Result<(), Error> {
        let Self { runtime: Some(runtime), session: Some(session), stop } = self else {
            return Ok(());
        };
        let Some(mut copy) = wait(runtime, stop, session.copy_out(sql))? else { return Ok(()) };
        while let Some(Some(chunk)) = wait(runtime, stop, copy.next())? {
            if !take(chunk) {
                break;
            }
        }
        Ok(())
    }

    fn drive<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Option<CopySession>) -> Result<T, postgres::Error>,
    ) -> Result<Option<T>, Error> {
        let Self { runtime: Some(runtime), session, stop } = self else { return Ok(None) };
        wait(runtime, stop, work(session))
    }
}

/// Waits for an answer; returns nothing if it is to stop before.
fn wait<T>(
    runtime: &Runtime,
    stop: &Stop,
    answer: impl Future<Output = Result<T, postgres::Error>>,
) -> Result<Option<T>, Error> {
    runtime.block_on(async {
        tokio::select! {
            answered = failpoint::within("snapshot-0", answer) => Ok(Some(answered?)),
            () = stop.stopped() => Ok(None),
        }
    })
}

impl Drop for Reading {
    fn drop(&mut self) {
        drop(self.session.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Reads ranges of pages of the tables of a plan.
pub(crate) struct PageReader {
    pub(crate) reading: Reading,
    pub(crate) tables: Arc<Vec<plan::PlannedTable>>,
}

impl Lines for CopyChunk {
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.rows()
    }
}

impl Ranges for PageReader {
    type Chunk = CopyChunk;

    fn read(
        &mut self,
        table: usize,
        place: LeafRange,
        take: &mut dyn FnMut(CopyChunk) -> bool,
    ) -> Result<(), Error> {
        let Self { reading, tables } = self;
        let Some(table) = tables.get(table) else { return Ok(()) };
        let Some(leaf) = table.leaves.get(place.leaf) else { return Ok(()) };
        let sql = table.copy(leaf, place.pages, None);
        let has_condition = table.condition.is_some();
        if has_condition && reading.run(search_path::OWN)?.is_none() {
            return Ok(());
        }
        match reading.copy(&sql, take) {
            Err(error) if has_condition => return Err(error.without_text()),
            read => read?,
        };
        if has_condition {
            reading.run(search_path::SAFE)?;
        }
        Ok(())
    }
}
