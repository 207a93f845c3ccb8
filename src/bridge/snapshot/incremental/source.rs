//! The connections of a snapshot beside the stream: one that reads chunks, one that asks the catalog
//! and writes watermarks. Both are opened when they are needed, and again after a failure.

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::Client;

use crate::postgres::copy::CopySession;
use crate::postgres::{Catalog, ConnInfo, ConnectOptions, Error};
use crate::snapshot::Watermark;
use crate::snapshot::watermark::WATERMARK_PREFIX;

/// Connections to the server.
pub(super) struct Source {
    info: ConnInfo,
    options: ConnectOptions,
    reader: Option<Reader>,
    catalog: Option<Catalog>,
    /// Whether it was told that others' commits are hidden.
    is_told: bool,
}

/// A connection that reads chunks.
pub(super) struct Reader {
    pub(super) session: CopySession,
    /// Where it looks for names.
    pub(super) search_path: String,
}

impl Source {
    pub(super) fn new(info: &ConnInfo, options: ConnectOptions) -> Self {
        Self { info: info.clone(), options, reader: None, catalog: None, is_told: false }
    }

    pub(super) const fn info(&self) -> &ConnInfo {
        &self.info
    }

    pub(super) const fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Lets the connections go.
    pub(super) fn close(&mut self) {
        self.reader = None;
        self.catalog = None;
    }

    /// Takes the connection that reads; it is given back when all went well.
    pub(super) async fn take_reader(&mut self) -> Result<Reader, Error> {
        if let Some(reader) = self.reader.take() {
            return Ok(reader);
        }
        let mut session = CopySession::connect(&self.info, &self.options).await?;
        let rows = session.query("SHOW search_path").await?;
        let search_path = rows.into_iter().flatten().flatten().next().unwrap_or_default();
        Ok(Reader { session, search_path })
    }

    pub(super) fn give_back(&mut self, reader: Reader) {
        self.reader = Some(reader);
    }

    pub(super) async fn catalog(&mut self) -> Result<&mut Catalog, Error> {
        if self.catalog.is_none() {
            self.catalog = Some(Catalog::connect(&self.info, &self.options).await?);
        }
        self.catalog.as_mut().ok_or(Error::Closed)
    }

    pub(super) async fn client(&mut self) -> Result<&Client, Error> {
        self.catalog().await?.client().await
    }

    /// Writes a watermark, in a transaction of its own that waits for no standby: it is to stand in
    /// the stream while others wait.
    pub(super) async fn write(&mut self, watermark: &Watermark) -> Result<(), Error> {
        let sql = format!(
            "SET synchronous_commit = local; \
             SELECT pg_catalog.pg_logical_emit_message(true, '{WATERMARK_PREFIX}'::text, {}::text)",
            escape_literal(&watermark.content())
        );
        let failed = |source| Error::Sql { doing: "write a watermark", source };
        self.client().await?.batch_execute(&sql).await.map_err(failed)
    }

    /// Transactions whose commits are written and that nobody sees yet; none in the list stands for
    /// those that can't be told. Where a role lacks the right to tell them, that is said once.
    pub(super) async fn commits_waiting(&mut self) -> Result<Vec<Option<u32>>, Error> {
        const WAITING: &str = include_str!("../../../../sql/commits_waiting.sql");
        let failed = |source| Error::Sql { doing: "ask which commits wait", source };
        let rows = self.client().await?.query(WAITING, &[]).await.map_err(failed)?;
        if let Some(hidden) = rows.iter().find(|row| row.get(1))
            && !std::mem::replace(&mut self.is_told, true)
        {
            tracing::warn!(
                fix = format!("GRANT pg_read_all_stats TO {};", escape_identifier(hidden.get(2))),
                "the role may not see whose commits wait for synchronous standbys: each part of a \
                 table that is read beside the stream waits for every transaction that runs"
            );
        }
        let xid = |row: &tokio_postgres::Row| row.get::<_, Option<&str>>(0)?.parse().ok();
        Ok(rows.iter().map(xid).collect())
    }
}
