//! Reads tables without a key by pages, a few at a time while the stream waits.
//!
//! 1. The snapshot of a temporary slot is taken, and noted with its position in the stream. For a
//!    table that was just added to the publication, the stream publishes exactly what that snapshot
//!    does not show; so the stream waits while it is taken. Other tables were streamed all along.
//! 2. The stream stops at a watermark. Only then some pages are read; the rows in them that the
//!    snapshot shows, and that have not changed since, are published at that position of the
//!    stream, together with a note of the pages.
//! 3. This repeats until all pages are read.
//!
//! Changes since the snapshot are in the stream, whether their row was read or not: there may be an
//! update or a delete of a row that was not read, as with a key.
//!
//! An interrupted first snapshot leaves its snapshot and pages in the note, and this continues from
//! there.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::connections::{Connections, LOCK_TIMEOUT, Reader};
use super::coordinator::Coordinator;
use super::exported::{self, Exported};
use super::interrupt::Interrupt;
use super::orders::{Brought, Hold};
use super::read_chunk::become_reader;
use super::remaining_rows::shown_rows;
use super::task::{Failure, Pending};
use super::tasks::TaskId;
use crate::checkpoint::{LeafProgress, PageProgress, TableProgress, TableSnapshot};
use crate::clock::now_us;
use crate::config::{TableFilter, exactly};
use crate::postgres::publication::Names;
use crate::postgres::{self, Error, search_path};
use crate::snapshot::plan::{self, Leaf, Scope};
use crate::snapshot::progress::{Amount, Measure, Planned};
use crate::snapshot::table::Table;
use crate::snapshot::{Chunk, DonePages, Edit, Order, PageRange, Visibility};

/// Chunks that may wait for the worker.
const CHUNKS: usize = 1;

impl Coordinator {
    /// Reads the next pages of a table, and hands them over.
    pub(crate) async fn read_pages(&mut self, id: TaskId, table: &Table) -> Result<(), Failure> {
        let files = self.files(id, table).await?;
        let task = &mut self.tasks[id];
        let noted = match &task.snapshot.progress {
            TableProgress::Pages(pages) => {
                Visibility::parse(&pages.shows).map(|shows| (pages.clone(), shows))
            }
            TableProgress::Waiting | TableProgress::Keys(_) => None,
        };
        let Some((progress, shows)) = noted else {
            return self.begin_pages(id, table, &files).await;
        };
        if was_rewritten(&progress, &files.leaves) {
            tracing::warn!(
                table = task.full_name(),
                "it was rewritten, and its rows are in other places: reading all of them again"
            );
            task.snapshot.progress = TableProgress::Waiting;
            task.forget();
            return Ok(());
        }
        self.tell_pages(id, &files, &progress);
        let task = &self.tasks[id];
        let snapshot = task.snapshot.clone();
        let is_asked = snapshot.condition.is_some();
        let Some(next) = Next::of(&progress, &files.leaves) else {
            let number = self.emit(Order::Note(vec![Edit::remove(&snapshot)])).await?;
            let progress = TableProgress::Pages(progress);
            self.wait_for(id, Pending { number, progress, is_last: true, read: Amount::default() });
            return Ok(());
        };
        let is_last = Next::of(&next.progress, &files.leaves).is_none();
        let progress = TableProgress::Pages(next.progress.clone());
        let edit = if is_last {
            Edit::remove(&snapshot)
        } else {
            Edit::Put(TableSnapshot { progress: progress.clone(), ..snapshot })
        };
        let read = self.read_next((table, &files), &next, &shows, (edit, is_asked)).await?;
        match read {
            None => self.tasks[id].forget(),
            Some((number, read)) => {
                self.wait_for(id, Pending { number, progress, is_last, read });
            }
        }
        Ok(())
    }

    /// Reads pages while the stream waits, and has `edit` hold once they are published. Returns the
    /// order's number and what was read; none where the table is another one by now.
    async fn read_next(
        &mut self,
        (table, files): (&Table, &plan::PlannedTable),
        next: &Next<'_>,
        shows: &Visibility,
        (edit, is_asked): (Edit, bool),
    ) -> Result<Option<(u64, Amount)>, Failure> {
        let reader = self.source.take_reader().await?;
        let (number, bring) = self.hold(table).await?;
        let role = self.settings.snapshot_role.clone().filter(|_| is_asked);
        let limit = is_asked.then_some(self.settings.snapshot.condition_timeout);
        let mut interrupt = Interrupt::after(Arc::clone(&self.control), limit);
        let reading = Reading {
            table,
            leaf: next.leaf,
            sql: files.copy(next.leaf, next.range, Some(&shown_rows(shows))),
            has_condition: files.condition.is_some(),
            role: role.as_deref(),
            chunk_bytes: self.settings.memory.window_bytes(),
            bring: &bring,
        };
        // Without a sender the stream continues, whatever the result.
        let read = match reading.read(reader, &mut self.source, &mut interrupt).await {
            Err(failure @ Failure::Never(_)) => {
                // The snapshot ends here, so what was published of it need not be published again.
                let _ = bring.send(Brought::End { edits: Vec::new(), is_durable: false }).await;
                return Err(failure);
            }
            read => read?,
        };
        let read = match read {
            Read::Altered => return Ok(None),
            // The outcome says why.
            Read::Refused => Amount::default(),
            Read::All(read) => {
                let end = Brought::End { edits: vec![edit], is_durable: false };
                // If no one takes it, the session ends.
                let _ = bring.send(end).await;
                let pages = next.range.to.min(next.leaf.pages).saturating_sub(next.range.from);
                Amount { pages: pages.into(), ..read }
            }
        };
        Ok(Some((number, read)))
    }

    /// Takes the snapshot for reading the table, and notes it.
    async fn begin_pages(
        &mut self,
        id: TaskId,
        table: &Table,
        files: &plan::PlannedTable,
    ) -> Result<(), Failure> {
        let task = &self.tasks[id];
        let held = match task.snapshot.is_unread() {
            true => Some(self.hold(table).await?),
            false => None,
        };
        let Exported { point, shows } = exported::take(&mut self.source).await?;
        let leaf =
            |leaf: &Leaf| LeafProgress { oid: leaf.oid, filenode: leaf.filenode, done: Vec::new() };
        let leaves = files.leaves.iter().map(leaf).collect();
        let progress = TableProgress::Pages(PageProgress { lsn: point, shows, leaves });
        let task = &self.tasks[id];
        let edits =
            vec![Edit::Put(TableSnapshot { progress: progress.clone(), ..task.snapshot.clone() })];
        match held {
            Some((number, bring)) => {
                // What is left out depends on it. If no one takes it, the session ends.
                let _ = bring.send(Brought::End { edits, is_durable: true }).await;
                let read = Amount::default();
                self.wait_for(id, Pending { number, progress, is_last: false, read });
            }
            None => {
                self.note(edits).await?;
                self.tasks[id].snapshot.progress = progress;
            }
        }
        Ok(())
    }

    /// Stops the stream. It continues when the sender is dropped.
    async fn hold(&mut self, table: &Table) -> Result<(u64, mpsc::Sender<Brought>), Failure> {
        let (entered, has_entered) = oneshot::channel();
        let (bring, brought) = mpsc::channel(CHUNKS);
        let hold = Hold { oid: table.relation.oid, entered, brought };
        let number = self.emit(Order::Hold(hold)).await?;
        has_entered.await.map_err(|_| Error::Closed)?;
        Ok((number, bring))
    }

    fn wait_for(&mut self, id: TaskId, pending: Pending) {
        self.tasks[id].pending = Some(pending);
    }

    /// Reads the files of a table, if not known.
    async fn files(
        &mut self,
        id: TaskId,
        table: &Table,
    ) -> Result<Arc<plan::PlannedTable>, Failure> {
        let task = &self.tasks[id];
        if let Some(files) = &task.files {
            return Ok(Arc::clone(files));
        }
        let (condition, partition) = (task.snapshot.condition.clone(), task.snapshot.partition);
        let relation = table.relation.as_ref();
        let pattern = exactly(&relation.schema, &relation.table);
        let captured = TableFilter::parse(&[pattern], &[]);
        let captured = captured.map_err(|fault| Failure::Never(fault.to_string()))?;
        let client = self.source.client().await?;
        let scope = Scope {
            publications: Names::of(&self.settings).both(),
            server_version: postgres::client::server_version(client).await?,
            captured: &captured,
            is_limited: true,
            settings: &self.settings.tables,
            signals: None,
        };
        let plan = plan::plan(client, &scope).await?;
        if let Some(shortfall) = plan.shortfalls.first() {
            return Err(Failure::Never(shortfall.to_string()));
        }
        let gone = || Failure::Gone("it is not in the publication any more".to_owned());
        let mut files = plan.tables.into_iter().next().ok_or_else(gone)?;
        files.condition = condition.or(files.condition);
        files.leaves.retain(|leaf| partition.is_none_or(|oid| leaf.oid == oid));
        let files = Arc::new(files);
        self.tasks[id].files = Some(Arc::clone(&files));
        Ok(files)
    }

    /// Reports the table's size once.
    fn tell_pages(&mut self, id: TaskId, files: &plan::PlannedTable, progress: &PageProgress) {
        let task = &mut self.tasks[id];
        if std::mem::replace(&mut task.is_sized, true) {
            return;
        }
        let done = files.leaves.iter().map(|leaf| done_of(progress, leaf.oid).count(leaf.pages));
        task.book = self.book.begin_table(Planned {
            snapshot: task.snapshot.id.clone(),
            table: task.full_name(),
            size: Amount { rows: files.rows().unwrap_or_default(), bytes: 0, pages: files.pages() },
            measure: Measure::Pages,
            done: Amount { pages: done.sum(), ..Amount::default() },
        });
    }
}

/// The next pages.
struct Next<'a> {
    leaf: &'a Leaf,
    range: PageRange,
    /// What holds once they are published.
    progress: PageProgress,
}

impl<'a> Next<'a> {
    /// `None` if all are published.
    fn of(progress: &PageProgress, leaves: &'a [Leaf]) -> Option<Self> {
        leaves.iter().find_map(|leaf| {
            let mut done = done_of(progress, leaf.oid);
            let range = done.next(leaf.pages, leaf.step())?;
            done.insert(range);
            let done = done.as_slice().to_vec();
            let mut progress = progress.clone();
            match progress.leaves.iter_mut().find(|noted| noted.oid == leaf.oid) {
                Some(noted) => noted.done = done,
                // It was attached meanwhile.
                None => {
                    let (oid, filenode) = (leaf.oid, leaf.filenode);
                    progress.leaves.push(LeafProgress { oid, filenode, done });
                }
            }
            Some(Self { leaf, range, progress })
        })
    }
}

fn done_of(progress: &PageProgress, oid: u32) -> DonePages {
    let noted = progress.leaves.iter().find(|noted| noted.oid == oid);
    noted.map(|noted| DonePages::from(noted.done.clone())).unwrap_or_default()
}

/// Whether a file differs from the snapshot's: its rows are in other places, and may have another
/// transaction ID.
fn was_rewritten(progress: &PageProgress, leaves: &[Leaf]) -> bool {
    leaves.iter().any(|leaf| {
        let mut noted = progress.leaves.iter();
        noted.any(|noted| noted.oid == leaf.oid && noted.filenode != leaf.filenode)
    })
}

/// Pages that are read while the stream waits.
struct Reading<'a> {
    table: &'a Table,
    leaf: &'a Leaf,
    sql: String,
    /// Whether it includes a user's condition.
    has_condition: bool,
    /// Who reads, where somebody asked with a condition.
    role: Option<&'a str>,
    chunk_bytes: u64,
    bring: &'a mpsc::Sender<Brought>,
}

/// What came of reading.
enum Read {
    All(Amount),
    /// The table is another one than it was.
    Altered,
    /// The worker accepts no more.
    Refused,
}

impl Reading<'_> {
    /// The reader is returned on success.
    async fn read(
        &self,
        mut reader: Reader,
        source: &mut Connections,
        interrupt: &mut Interrupt,
    ) -> Result<Read, Failure> {
        let session = &mut reader.session;
        session.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        session.query(LOCK_TIMEOUT).await?;
        // Against an ALTER, and before the snapshot is taken: after it, the lock would be too late.
        let lock = format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", self.leaf.name.sql());
        session.query(&lock).await.map_err(|error| error.locking(&self.leaf.name))?;
        let seen = source.look(session, self.table).await?;
        let ask = format!("SELECT pg_catalog.pg_relation_filenode({})", self.leaf.oid);
        let file = session.query(&ask).await?.into_iter().flatten().next().flatten();
        let is_same = file == Some(self.leaf.filenode.to_string());
        let Some(mut chunk) = seen.filter(|_| is_same) else {
            session.query("ROLLBACK").await?;
            source.give_back(reader);
            return Ok(Read::Altered);
        };
        let mut read = Amount::default();
        if self.has_condition {
            session.query(search_path::OWN).await?;
            become_reader(session, self.role).await?;
        }
        let mut copy = interrupt.wait(session.copy_out(&self.sql)).await?;
        while let Some(rows) = interrupt.wait(copy.next()).await? {
            for line in rows.rows() {
                chunk.push(line);
                read = read.plus(Amount { rows: 1, bytes: line.len() as u64, pages: 0 });
                if chunk.len_bytes() >= self.chunk_bytes {
                    let another = Box::new(chunk.another(now_us()));
                    let full = std::mem::replace(&mut chunk, another);
                    if !self.takes(full, interrupt).await? {
                        return Ok(Read::Refused);
                    }
                }
            }
        }
        // Even without rows: the worker checks whether there should be some.
        if !self.takes(chunk, interrupt).await? {
            return Ok(Read::Refused);
        }
        // Whatever a condition has set is undone.
        session.query("ROLLBACK").await?;
        source.give_back(reader);
        Ok(Read::All(read))
    }

    /// Hands rows to the worker, which may wait for Kafka. Returns whether it accepts more.
    async fn takes(&self, rows: Box<Chunk>, interrupt: &Interrupt) -> Result<bool, Failure> {
        let brought = async { Ok::<_, Error>(self.bring.send(Brought::Rows(rows)).await.is_ok()) };
        interrupt.race(brought).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::publication::TableName;

    fn leaf(oid: u32, filenode: u32, pages: u32) -> Leaf {
        let name = TableName { schema: "public".to_owned(), name: format!("log_{oid}") };
        Leaf { oid, name, filenode, pages, rows: None, whole_bytes: None }
    }

    fn noted(oid: u32, filenode: u32, done: &[(u32, u32)]) -> LeafProgress {
        LeafProgress { oid, filenode, done: done.to_vec() }
    }

    #[test]
    fn every_page_of_every_file_comes_once_and_what_was_published_does_not_come() {
        let leaves = [leaf(5, 50, 600), leaf(6, 60, 0), leaf(7, 70, 300)];
        let begun = vec![noted(5, 50, &[(0, 256)]), noted(6, 60, &[]), noted(9, 90, &[])];
        let mut progress = PageProgress { leaves: begun, ..PageProgress::default() };
        let mut read = Vec::new();
        while let Some(next) = Next::of(&progress, &leaves) {
            read.push((next.leaf.oid, next.range.from, next.range.to));
            progress = next.progress;
        }
        let end = crate::snapshot::pages::END;
        let expected = [(5, 256, 512), (5, 512, end), (6, 0, end), (7, 0, 256), (7, 256, end)];
        assert_eq!(read, expected);
        let all = [(0, end)];
        // A partition that is gone remains as noted, an attached one is added.
        let expected = [(5, 50, true), (6, 60, true), (9, 90, false), (7, 70, true)];
        let expected =
            expected.map(|(oid, file, is_done)| noted(oid, file, if is_done { &all } else { &[] }));
        assert_eq!(progress.leaves, expected);
    }

    #[test]
    fn a_table_was_rewritten_when_a_file_that_the_snapshot_showed_is_another() {
        let begun = vec![noted(5, 50, &[(0, 256)]), noted(6, 60, &[])];
        let progress = PageProgress { leaves: begun, ..PageProgress::default() };
        assert!(!was_rewritten(&progress, &[leaf(5, 50, 600), leaf(6, 60, 1), leaf(7, 70, 1)]));
        assert!(was_rewritten(&progress, &[leaf(5, 50, 600), leaf(6, 61, 1)]));
    }
}
