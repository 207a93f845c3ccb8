//! The connections of snapshots while the stream runs: one reads chunks, one queries the catalog
//! and writes watermarks. Both are opened when needed, and again after a failure.

use std::sync::Arc;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::Client;

use super::watermark::WATERMARK_PREFIX;
use crate::clock::now_us;
use crate::postgres::copy::CopySession;
use crate::postgres::{Catalog, ConnInfo, ConnectOptions, Error};
use crate::snapshot::table::Table;
use crate::snapshot::{Chunk, Visibility, Watermark};

/// Longest wait for a lock on a table that is read: the stream waits too, or other tables do.
pub(super) const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '1s'";

/// Connections to the server.
pub(crate) struct Connections {
    info: ConnInfo,
    options: ConnectOptions,
    reader: Option<Reader>,
    catalog: Option<Catalog>,
    /// Whether it was logged that others' commits are hidden.
    is_told: bool,
}

/// A connection that reads chunks.
pub(crate) struct Reader {
    pub(crate) session: CopySession,
}

impl Connections {
    pub(crate) fn new(info: &ConnInfo, options: ConnectOptions) -> Self {
        Self { info: info.clone(), options, reader: None, catalog: None, is_told: false }
    }

    pub(crate) const fn info(&self) -> &ConnInfo {
        &self.info
    }

    pub(crate) const fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Closes the connections.
    pub(crate) fn close(&mut self) {
        self.reader = None;
        self.catalog = None;
    }

    /// Takes the reading connection; it is returned on success.
    pub(crate) async fn take_reader(&mut self) -> Result<Reader, Error> {
        if let Some(reader) = self.reader.take() {
            return Ok(reader);
        }
        let session = CopySession::connect(&self.info, &self.options).await?;
        Ok(Reader { session })
    }

    pub(crate) fn give_back(&mut self, reader: Reader) {
        self.reader = Some(reader);
    }

    pub(crate) async fn catalog(&mut self) -> Result<&mut Catalog, Error> {
        if self.catalog.is_none() {
            self.catalog = Some(Catalog::connect(&self.info, &self.options).await?);
        }
        self.catalog.as_mut().ok_or(Error::Closed)
    }

    pub(crate) async fn client(&mut self) -> Result<&Client, Error> {
        self.catalog().await?.client().await
    }

    /// Writes a watermark, in a transaction of its own that does not wait for standbys: it must
    /// reach the stream while others wait.
    pub(crate) async fn write(&mut self, watermark: &Watermark) -> Result<(), Error> {
        let sql = format!(
            "SET synchronous_commit = local; \
             SELECT pg_catalog.pg_logical_emit_message(true, '{WATERMARK_PREFIX}'::text, {}::text)",
            escape_literal(&watermark.content())
        );
        let failed = |source| Error::Sql { doing: "write a watermark", source };
        self.client().await?.batch_execute(&sql).await.map_err(failed)
    }

    /// In a transaction without a snapshot yet: reads what it sees, and whether the table is
    /// unchanged. Returns a chunk for the rows; `None` if the table was altered.
    pub(crate) async fn look(
        &mut self,
        session: &mut CopySession,
        table: &Table,
    ) -> Result<Option<Box<Chunk>>, Error> {
        // First the waiting commits, then the snapshot: a commit that completes in between is
        // visible to it.
        let waiting = self.commits_waiting().await?;
        let seen = session.query(&table.what_is_read()).await?;
        let mut seen = seen.into_iter().flatten();
        let visibility = seen.next().flatten().and_then(|text| Visibility::parse(&text));
        let visibility = visibility.ok_or(Error::Malformed { what: "a snapshot is none" })?;
        if seen.next().flatten().unwrap_or_default() != table.shape {
            return Ok(None);
        }
        let mut chunk = Chunk::new(Arc::clone(&table.relation), visibility, now_us());
        chunk.suspects = suspects(&waiting, &chunk.visibility);
        Ok(Some(Box::new(chunk)))
    }

    /// Transactions whose commits are written but not visible yet; a `None` in the list is an
    /// unknown one. If the role lacks the permission to see them, that is logged once.
    async fn commits_waiting(&mut self) -> Result<Vec<Option<u32>>, Error> {
        const WAITING: &str = include_str!("../../../sql/commits_waiting.sql");
        let failed = |source| Error::Sql { doing: "read which commits wait", source };
        let rows = self.client().await?.query(WAITING, &[]).await.map_err(failed)?;
        if let Some(hidden) = rows.iter().find(|row| row.get(1))
            && !std::mem::replace(&mut self.is_told, true)
        {
            tracing::warn!(
                fix = format!("GRANT pg_read_all_stats TO {};", escape_identifier(hidden.get(2))),
                "the role may not see whose commits wait for synchronous standbys: each chunk of \
                 a table that is read while the stream runs waits for all running transactions"
            );
        }
        let xid = |row: &tokio_postgres::Row| row.get::<_, Option<&str>>(0)?.parse().ok();
        Ok(rows.iter().map(xid).collect())
    }
}

/// Transactions of which only the server knows that they committed before the window.
fn suspects(waiting: &[Option<u32>], seen: &Visibility) -> Vec<u32> {
    let known = waiting.iter().flatten().copied();
    if waiting.iter().all(Option::is_some) {
        return known.collect();
    }
    // Some are unknown: any running transaction may be one.
    let lower_half = |xid: &u64| u32::try_from(xid & u64::from(u32::MAX)).unwrap_or_default();
    known.chain(seen.in_progress.iter().map(lower_half)).collect()
}
