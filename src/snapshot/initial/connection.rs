//! Connections that import an exported snapshot and read pages of tables by COPY.
//!
//! Each has a runtime of its own, on the thread that uses it, so that no other thread is woken for
//! its bytes. The runtime runs only while waiting for bytes: rows are passed on outside of it,
//! because publishing them may wait for a topic, and a thread must not block inside of a runtime.
//!
//! A connection that comes to a table locks it first, and makes sure that it is still the file of the plan:
//! the connection that locked all tables may have read its part and be gone, and somebody may have rewritten
//! the table since. It would look empty, or have its rows on other pages. The wait for that lock is short:
//! whoever alters the table waits for our own locks, and the application waits behind that.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::{LeafRange, Lines, Ranges};
use crate::error::Error;
use crate::failpoint;
use crate::pipeline::Stop;
use crate::postgres::copy::{CopyChunk, CopySession};
use crate::postgres::{self, ConnInfo, ConnectOptions, search_path};
use crate::snapshot::plan;

/// Longest wait for a lock.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '10s'";

/// A connection that has imported a snapshot, with its runtime. Dropping it never blocks.
pub(crate) struct Reading {
    runtime: Option<Runtime>,
    session: Option<CopySession>,
    stop: Arc<Stop>,
}

impl Reading {
    /// Connects and imports the snapshot; `None` if asked to stop before. Blocks.
    ///
    /// # Errors
    /// When it can't connect, or the snapshot is gone.
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
            connected.query(LOCK_TIMEOUT).await?;
            *session = Some(connected);
            Ok(())
        });
        Ok(connected?.map(|()| reading))
    }

    /// Locks tables as reading them does, and asks for one row; none when asked to stop before. Blocks.
    ///
    /// # Errors
    /// When one is locked by somebody else for long, or is gone.
    pub(crate) fn lock(
        &mut self,
        names: &str,
        of: impl std::fmt::Display,
        question: &str,
    ) -> Result<Option<Vec<Option<String>>>, Error> {
        let sql = format!("LOCK TABLE {names} IN ACCESS SHARE MODE; {question}");
        self.ask(&sql).map_err(|error| match error {
            // undefined_table, invalid_schema_name
            Error::Postgres(postgres::Error::Server(server))
                if ["42P01", "3F000"].contains(&server.sqlstate.as_str()) =>
            {
                Error::Dropped { server }
            }
            Error::Postgres(error) => error.locking(of).into(),
            error => error,
        })
    }

    /// Runs a command; `None` if asked to stop before its end. Blocks.
    fn run(&mut self, sql: &str) -> Result<Option<()>, Error> {
        self.drive(async |session| match session {
            Some(session) => session.query(sql).await.map(drop),
            None => Ok(()),
        })
    }

    /// Queries one row; `None` if asked to stop before. Blocks.
    pub(crate) fn ask(&mut self, sql: &str) -> Result<Option<Vec<Option<String>>>, Error> {
        self.drive(async |session| match session {
            Some(session) => Ok(session.query(sql).await?.pop().unwrap_or_default()),
            None => Ok(Vec::new()),
        })
    }

    /// Runs a COPY, and passes on its rows until there are no more, `take` returns false, or it is
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

/// Waits for a result; returns `None` if asked to stop before.
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
    reading: Reading,
    tables: Arc<Vec<plan::PlannedTable>>,
    /// The files that this connection has locked, by OID.
    locked: HashSet<u32>,
}

impl PageReader {
    pub(crate) fn new(reading: Reading, tables: Arc<Vec<plan::PlannedTable>>) -> Self {
        Self { reading, tables, locked: HashSet::new() }
    }
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
        let Self { reading, tables, locked } = self;
        let Some(table) = tables.get(table) else { return Ok(()) };
        let Some(leaf) = table.leaves.get(place.leaf) else { return Ok(()) };
        let sql = table.copy(leaf, place.pages, None);
        if !locked.contains(&leaf.oid) {
            let (names, oid) = (format!("ONLY {}", leaf.name.sql()), leaf.oid);
            let ask = format!("SELECT pg_catalog.pg_relation_filenode({oid})");
            let Some(file) = reading.lock(&names, &leaf.name, &ask)? else { return Ok(()) };
            if file != [Some(leaf.filenode.to_string())] {
                return Err(Error::Rewritten { table: leaf.name.to_string() });
            }
            locked.insert(oid);
        }
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
