//! Reads one chunk between two watermarks, and hands it over.

use std::sync::Arc;
use std::time::Instant;

use postgres_protocol::escape::escape_identifier;

use super::connections::{LOCK_TIMEOUT, Reader};
use super::coordinator::Coordinator;
use super::interrupt::Interrupt;
use super::requests::what_is_missing;
use super::task::{Failure, Pending, Task};
use super::tasks::TaskId;
use crate::checkpoint::{KeyProgress, TableProgress, TableSnapshot};
use crate::config::condition;
use crate::postgres::publication::{Names, TableName, streamed};
use crate::postgres::{self, CopySession, Error, search_path};
use crate::snapshot::progress::Amount;
use crate::snapshot::table::{self, Table, Wanted};
use crate::snapshot::{Chunk, Edit, Order, RowReader};

/// The result of reading.
enum Read {
    Chunk {
        chunk: Box<Chunk>,
        /// The end of the snapshot, if determined just now.
        last: Option<Vec<String>>,
        /// Whether there are no rows after it.
        is_last: bool,
    },
    /// The table was altered.
    Altered,
}

/// The range to read.
struct Bounds {
    after: Option<Vec<String>>,
    /// `None` if it has to be determined.
    last: Option<Vec<String>>,
    rows: u64,
    bytes: u64,
    /// The role that reads, for a request with a condition.
    role: Option<String>,
}

/// Runs the rest of the transaction as the role for requests with a condition.
pub(crate) async fn become_reader(
    session: &mut CopySession,
    role: Option<&str>,
) -> Result<(), Failure> {
    let Some(role) = role else { return Ok(()) };
    let role = escape_identifier(role);
    match session.query(&format!("SET LOCAL ROLE {role}")).await {
        Ok(_) => Ok(()),
        Err(Error::Server(refused)) => Err(Failure::Never(format!(
            "the role of postgres.url can't become postgres.snapshot_role (SQLSTATE {}); as a DBA: \
             GRANT {role} TO the role of postgres.url",
            refused.sqlstate
        ))),
        Err(error) => Err(error.into()),
    }
}

impl Coordinator {
    /// Reads the next chunk of a table and hands it over.
    pub(crate) async fn advance(&mut self, id: TaskId) -> Result<(), Failure> {
        self.admit(id).await?;
        let table = self.look(id).await?;
        let task = &mut self.tasks[id];
        task.table = Some(table.clone());
        let is_unread = task.snapshot.is_unread();
        let Some(keyset) = table.keyset.as_ref().filter(|_| !is_unread) else {
            return self.read_pages(id, &table).await;
        };
        self.tell_size(id, &table);
        let task = &mut self.tasks[id];
        if let TableProgress::Pages(_) = &task.snapshot.progress {
            task.snapshot = what_is_missing(task.snapshot.clone());
            // It is read with another condition.
            task.forget();
            return Ok(());
        }
        let columns: Vec<String> = keyset.key.iter().map(|column| column.name.clone()).collect();
        let progress = keys_so_far(task, columns);
        let bounds = Bounds {
            after: progress.after.clone(),
            last: progress.last.clone(),
            rows: task.size.rows(),
            bytes: task.size.limit_bytes(),
            role: task.snapshot.condition.as_ref().and(self.settings.snapshot_role.clone()),
        };
        let started = Instant::now();
        let mut reader = self.source.take_reader().await?;
        let read = self.read(&mut reader, &table, &bounds).await?;
        self.source.give_back(reader);
        let task = &mut self.tasks[id];
        let Read::Chunk { chunk, last, is_last } = read else {
            task.forget();
            return Ok(());
        };
        let (rows, bytes) = (chunk.rows(), chunk.len_bytes());
        task.size.read(rows, bytes, started.elapsed());
        let after = key_of_last(&chunk, &progress.columns)?.or(progress.after);
        let progress =
            TableProgress::Keys(KeyProgress { after, last: last.or(progress.last), ..progress });
        let edit = if is_last {
            Edit::remove(&task.snapshot)
        } else {
            Edit::Put(TableSnapshot { progress: progress.clone(), ..task.snapshot.clone() })
        };
        let oid = table.relation.oid;
        let number = self.emit(Order::Close { oid, chunk, edits: vec![edit] }).await?;
        let read = Amount { rows, bytes, pages: 0 };
        self.tasks[id].pending = Some(Pending { number, progress, is_last, read });
        Ok(())
    }

    /// Reads the table's description, if not known.
    async fn look(&mut self, id: TaskId) -> Result<Table, Failure> {
        let task = &self.tasks[id];
        if let Some(table) = &task.table {
            return Ok(table.clone());
        }
        let TableSnapshot { schema, table: name, condition, progress, partition, .. } =
            task.snapshot.clone();
        if let Some(Err(error)) = condition.as_deref().map(condition::check) {
            return Err(Failure::Never(error.to_string()));
        }
        let of_table = self.settings.tables.of(&schema, &name);
        let configured = of_table.and_then(|table| table.snapshot_where.clone());
        let missing = match progress {
            TableProgress::Keys(keys) => keys.missing,
            TableProgress::Waiting | TableProgress::Pages(_) => None,
        };
        let condition = condition.or(configured);
        let catalog = self.source.catalog().await?;
        let client = catalog.client().await?;
        let server_version = postgres::client::server_version(client).await?;
        let table = TableName { schema: schema.clone(), name: name.clone() };
        let names = Names::of(&self.settings);
        let published = streamed::part(client, names, &table, server_version).await?;
        let Some(published) = published else {
            return Err(Failure::Gone("it is not in the publication any more".to_owned()));
        };
        let wanted = Wanted {
            schema: &schema,
            table: &name,
            published: &published,
            server_version,
            key: of_table.and_then(|table| table.key.as_deref()),
            condition: condition.as_deref(),
            missing: missing.as_deref(),
            partition,
        };
        Ok(table::look(catalog, &wanted).await?)
    }

    /// Reads a chunk after writing the low watermark. The reader must not be used after an error.
    async fn read(
        &mut self,
        reader: &mut Reader,
        table: &Table,
        bounds: &Bounds,
    ) -> Result<Read, Failure> {
        let Some(keyset) = &table.keyset else { return Ok(Read::Altered) };
        let session = &mut reader.session;
        let mut interrupt = Interrupt::by_commands(Arc::clone(&self.control));
        session.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // Against an ALTER, and before the snapshot is taken: after it, the lock would be too late.
        let lock = format!("{LOCK_TIMEOUT}; LOCK TABLE {} IN ACCESS SHARE MODE", keyset.from);
        let locked = async {
            session.query(&lock).await.map_err(|error| error.locking(&table.relation.full_name))
        };
        interrupt.wait(locked).await?;

        let key = keyset.key.iter().map(|column| column.name.clone()).collect();
        let limit_bytes = usize::try_from(bounds.bytes).unwrap_or(usize::MAX);
        self.emit(Order::Open { oid: table.relation.oid, key, limit_bytes }).await?;
        let Some(mut chunk) = self.source.look(session, table).await? else {
            session.query("ROLLBACK").await?;
            return Ok(Read::Altered);
        };
        if table.has_condition {
            session.query(search_path::OWN).await?;
            become_reader(session, bounds.role.as_deref()).await?;
        }
        let malformed = || postgres::Error::Malformed { what: "a key has an unexpected format" };
        let found = match &bounds.last {
            Some(_) => None,
            None => {
                let rows = interrupt.wait(session.query(&keyset.last())).await?;
                let Some(row) = rows.into_iter().next() else {
                    session.query("ROLLBACK").await?;
                    return Ok(Read::Chunk { chunk, last: None, is_last: true });
                };
                Some(row.into_iter().collect::<Option<Vec<String>>>().ok_or_else(malformed)?)
            }
        };
        let last = found.as_ref().or(bounds.last.as_ref()).ok_or_else(malformed)?;
        let sql = keyset.chunk(bounds.after.as_deref(), last, bounds.rows);
        let mut copy = interrupt.wait(session.copy_out(&sql)).await?;
        let mut is_cut = false;
        while let Some(rows) = interrupt.wait(copy.next()).await? {
            for line in rows.rows() {
                // Rows beyond the limit are read again; the next chunk has fewer rows.
                is_cut |= chunk.rows() > 0 && chunk.len_bytes() + line.len() as u64 > bounds.bytes;
                if !is_cut {
                    chunk.push(line);
                }
            }
        }
        let is_last = !is_cut && chunk.rows() < bounds.rows;
        // Undoes all settings that a condition made.
        session.query("ROLLBACK").await?;
        Ok(Read::Chunk { chunk, last: found, is_last })
    }
}

/// How far the table was read by this key.
fn keys_so_far(task: &Task, columns: Vec<String>) -> KeyProgress {
    match &task.snapshot.progress {
        TableProgress::Keys(keys) if keys.columns == columns => keys.clone(),
        TableProgress::Keys(keys) => {
            if !keys.columns.is_empty() {
                tracing::warn!(
                    table = task.full_name(),
                    "its key has changed: reading it again from the start"
                );
            }
            let missing = keys.missing.clone();
            KeyProgress { columns, missing, ..KeyProgress::default() }
        }
        TableProgress::Waiting | TableProgress::Pages(_) => {
            KeyProgress { columns, ..KeyProgress::default() }
        }
    }
}

/// The key of the last row, as text.
fn key_of_last(chunk: &Chunk, key: &[String]) -> Result<Option<Vec<String>>, Failure> {
    let Some(line) = chunk.last() else { return Ok(None) };
    let mut reader = RowReader::default();
    let relation = chunk.relation.as_ref();
    let row = reader.read(line, relation).map_err(crate::error::Error::from)?;
    let text = |name: &String| match row.tuple().datum(relation.place(name)?)? {
        crate::pgoutput::Datum::Text(text) => String::from_utf8(text.to_vec()).ok(),
        _ => None,
    };
    let key = key.iter().map(text).collect::<Option<Vec<String>>>();
    let unreadable = || Failure::Never("its key is not text in UTF-8".to_owned());
    key.map(Some).ok_or_else(unreadable)
}
