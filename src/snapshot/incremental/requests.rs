//! Turns a request into readable tables: resolves its names, notes the tables, and adds them to the
//! publication.

use tokio_postgres::Client;

use super::coordinator::Coordinator;
use super::remaining_rows::missing_rows;
use super::task::{Failure, Task};
use super::tasks::TaskId;
use crate::checkpoint::{
    KeyProgress, LeftOutTable, PageProgress, SnapshotReason, TableProgress, TableSnapshot,
};
use crate::config::{Resolved, TableFilter, TablePattern};
use crate::error::Error;
use crate::postgres;
use crate::postgres::publication::{self, Names, TableName, forgetful, manage, streamed};
use crate::snapshot::progress::{Amount, Measure, Planned};
use crate::snapshot::{
    Asked, Command, Edit, Request, SignalError, SnapshotState, SnapshotStatus, TableNames, plan,
    table,
};
use crate::state::LeftOutReason;

/// The most bytes of requested snapshots in a checkpoint.
const MAX_ASKED_BYTES: usize = 256 * 1024;

/// Most tables in one log line.
const NAMED: usize = 5;

const LEAVES: &str = include_str!("../../../sql/leaves.sql");
const OLDEST_WRITER: &str = include_str!("../../../sql/oldest_writer.sql");

impl Coordinator {
    /// Starts or resumes the snapshot of one table.
    pub(crate) fn begin(&mut self, snapshot: TableSnapshot) {
        let book = self.book.begin_table(Planned {
            snapshot: snapshot.id.clone(),
            table: format!("{}.{}", snapshot.schema, snapshot.table),
            size: Amount::default(),
            measure: Measure::Rows,
            done: Amount::default(),
        });
        let chunk_bytes = self.settings.memory.window_bytes();
        self.tasks.begin(Task::new(snapshot, book, chunk_bytes));
    }

    /// Reports the table's size, by the server, once it was read.
    pub(crate) fn tell_size(&mut self, id: TaskId, table: &table::Table) {
        let task = &mut self.tasks[id];
        if std::mem::replace(&mut task.is_sized, true) {
            return;
        }
        let size = Amount { rows: table.rows_estimated, bytes: 0, pages: table.pages };
        task.book = self.book.begin_table(Planned {
            snapshot: task.snapshot.id.clone(),
            table: task.full_name(),
            size,
            measure: Measure::Rows,
            done: Amount::default(),
        });
    }

    /// Notes the tables of requests, all in one checkpoint.
    pub(crate) async fn take(&mut self, requests: &[Request]) -> Result<(), Error> {
        let mut edits = Vec::new();
        let mut new: Vec<TableSnapshot> = Vec::new();
        let mut answers = Vec::new();
        let (mut left_out, mut all_admitted) = (Vec::new(), Vec::new());
        for request in requests {
            edits.push(Edit::Answer(request.clone()));
            match self.tables_of(request).await? {
                Err(reason) => {
                    log_refused(request, &reason);
                    answers.push((request, SnapshotState::Failed, reason));
                }
                Ok(tables) => {
                    let (tables, refused) = self.with_topics(request, tables).await?;
                    left_out.extend(refused.into_iter().map(Edit::LeaveOut));
                    let (admitted, read_anew) = self.admitted(request, &tables).await?;
                    all_admitted.extend(admitted);
                    let known = (&*new, &*read_anew);
                    let snapshots = self.new_snapshots(request, tables, known).await?;
                    if snapshots.is_empty() {
                        let tables = told_tables(request);
                        tracing::info!(tables, "a snapshot is running already");
                        let note = "it is running already".to_owned();
                        answers.push((request, SnapshotState::Stopped, note));
                    } else if !self.has_room(request, &snapshots, &new) {
                        let reason = "too many snapshots are running: try again when some of \
                                      them are done, or name fewer tables"
                            .to_owned();
                        log_refused(request, &reason);
                        answers.push((request, SnapshotState::Failed, reason));
                    } else {
                        new.extend(snapshots);
                    }
                }
            }
        }
        let mut all: Vec<Edit> = new.iter().cloned().map(Edit::Put).collect();
        // Another request may name one of these itself.
        all.extend(left_out);
        all.extend(all_admitted.iter().map(|&oid| Edit::Admit { oid }));
        all.extend(edits);
        self.note(all).await?;
        for oid in all_admitted {
            self.left_out.remove(oid);
        }
        for (request, state, note) in answers {
            self.answer(request, state, note);
        }
        for snapshot in new {
            let (schema, table, id) = (&snapshot.schema, &snapshot.table, &snapshot.id);
            tracing::info!(
                table = format!("{schema}.{table}"),
                id,
                reason = snapshot.reason.word(),
                "snapshot started while the stream runs"
            );
            self.begin(snapshot);
        }
        Ok(())
    }

    /// The snapshots of a request's tables, without those that are running already.
    async fn new_snapshots(
        &mut self,
        request: &Request,
        tables: Vec<TableName>,
        (taken, read_anew): (&[TableSnapshot], &[TableName]),
    ) -> Result<Vec<TableSnapshot>, Error> {
        // If partitions are tables of their own, it is one.
        let partition = request.partition.filter(|_| self.settings.via_root);
        let is_known = |table: &TableName| {
            let name = (table.schema.as_str(), table.name.as_str());
            let under_way = self.tasks.iter().filter(|task| !task.is_over);
            let mut snapshots = under_way.map(|task| &task.snapshot).chain(taken);
            !read_anew.contains(table)
                && snapshots.any(|snapshot| {
                    (snapshot.schema.as_str(), snapshot.table.as_str()) == name
                        && snapshot.partition == partition
                        && (snapshot.id == request.id
                        // Rows that are read anyway are not read twice, unless requested.
                        || (request.reason != SnapshotReason::Asked
                            && snapshot.condition.is_none()))
                })
        };
        let tables: Vec<TableName> = tables.into_iter().filter(|table| !is_known(table)).collect();
        let mut new = Vec::new();
        for TableName { schema, name } in tables {
            // No change of a table without a key is published before its rows. A table with only a
            // new partition is published already.
            let is_keyless = request.reason == SnapshotReason::Added
                && request.partition.is_none()
                && !table::has_key(self.source.client().await?, &schema, &name).await?;
            new.push(TableSnapshot {
                partition,
                id: request.id.clone(),
                schema,
                table: name,
                reason: request.reason,
                condition: request.condition.clone(),
                is_paused: false,
                progress: match is_keyless {
                    true => TableProgress::Pages(PageProgress::default()),
                    false => TableProgress::Waiting,
                },
            });
        }
        Ok(new)
    }

    /// Whether the request still fits into the checkpoint, together with the running ones.
    fn has_room(
        &self,
        request: &Request,
        snapshots: &[TableSnapshot],
        new: &[TableSnapshot],
    ) -> bool {
        let under_way = self.tasks.iter().filter(|task| !task.is_over).map(|task| &task.snapshot);
        let asked = under_way
            .chain(snapshots)
            .chain(new)
            .filter(|snapshot| snapshot.reason == SnapshotReason::Asked);
        request.reason != SnapshotReason::Asked
            || asked.map(TableSnapshot::bytes).sum::<usize>() <= MAX_ASKED_BYTES
    }

    /// The tables that are newly published, by OID: from here on each has its topic. And those of
    /// them of which changes were left out, so that a read in progress is not enough.
    async fn admitted(
        &mut self,
        request: &Request,
        tables: &[TableName],
    ) -> Result<(Vec<u32>, Vec<TableName>), Error> {
        let (mut admitted, mut read_anew) = (Vec::new(), Vec::new());
        if request.reason != SnapshotReason::Added || request.partition.is_some() {
            return Ok((admitted, read_anew));
        }
        let left_out = self.left_out.oids(LeftOutReason::Topic);
        let is_for_missing = self.published.is_for_missing(&request.id);
        let client = self.source.client().await?;
        for table in tables {
            let Some(oid) = streamed::oid(client, table).await? else { continue };
            admitted.push(oid);
            if is_for_missing || left_out.contains(&oid) {
                read_anew.push(table.clone());
            }
        }
        Ok((admitted, read_anew))
    }

    /// Those that are not left out for lack of a topic, and left-out partitions: all rows of one
    /// are read once it has a topic. A request for a table by its own name implies that it has one
    /// now.
    async fn with_topics(
        &mut self,
        request: &Request,
        tables: Vec<TableName>,
    ) -> Result<(Vec<TableName>, Vec<LeftOutTable>), Error> {
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        let left_out = self.left_out.oids(LeftOutReason::Topic);
        if left_out.is_empty() || request.reason != SnapshotReason::Added {
            return Ok((tables, refused));
        }
        let client = self.source.client().await?;
        for table in tables {
            let exactly = TablePattern::exact(&table.schema, &table.name);
            let is_named = request.partition.is_none() && request.tables.contains(&exactly);
            match streamed::oid(client, &table).await? {
                Some(oid) if left_out.contains(&oid) && !is_named => {
                    let TableName { schema, name: table } = table;
                    refused.push(LeftOutTable { oid, schema, table });
                }
                _ => kept.push(table),
            }
        }
        Ok((kept, refused))
    }

    /// Publishes changes of tables that were left out from here on.
    pub(crate) async fn admit_again(&mut self, tables: &[u32]) -> Result<(), Error> {
        self.note(tables.iter().map(|&oid| Edit::Admit { oid }).collect()).await?;
        for &oid in tables {
            self.left_out.remove(oid);
        }
        Ok(())
    }

    /// Notes requests for partitions together with the check that found them, and takes them.
    pub(crate) async fn attached(&mut self, requests: &[Request], seen: &str) -> Result<(), Error> {
        let mut edits: Vec<Edit> = requests.iter().cloned().map(Edit::Ask).collect();
        edits.push(Edit::SawPartitions(seen.to_owned()));
        self.note(edits).await?;
        for request in requests {
            self.control.ask(Command::Take(request.clone()));
        }
        Ok(())
    }

    /// The tables that a request selects, or why there are none.
    async fn tables_of(
        &mut self,
        request: &Request,
    ) -> Result<Result<Vec<TableName>, String>, Error> {
        let matching = match self.matching(request).await? {
            Ok(matching) => matching,
            Err(reason) => return Ok(Err(reason)),
        };
        // Without those that are left out.
        let Resolved { captured, via_root, .. } = self.published.settings();
        let (tables, others): (Vec<_>, Vec<_>) =
            matching.into_iter().partition(|table| captured.matches(&table.schema, &table.name));
        if tables.is_empty() {
            let mut names: Vec<String> = others.iter().map(ToString::to_string).collect();
            names.truncate(NAMED);
            return Ok(Err(format!("{}: not matched by postgres.tables", names.join(", "))));
        }
        // These are not published, so their rows are not either.
        let is_out = |table: &TableName| self.left_out.find(&table.schema, &table.name);
        let (tables, out) = match request.reason {
            SnapshotReason::Asked => tables.into_iter().partition(|table| is_out(table).is_none()),
            _ => (tables, Vec::<TableName>::new()),
        };
        if let (true, Some(out)) = (tables.is_empty(), out.first().and_then(is_out)) {
            return Ok(Err(format!("{}; fix: {}", out.error, out.fix)));
        }
        let client = self.source.client().await?;
        if let (Some(condition), Some(table)) = (&request.condition, tables.first())
            && let Some(refused) = plan::refusal(client, table, condition).await?
        {
            return Ok(Err(refused.without_text()));
        }
        if via_root {
            return Ok(Ok(tables));
        }
        if let Some(partition) = request.partition {
            let name = publication::name(client, partition).await?;
            return Ok(Ok(name.into_iter().collect()));
        }
        // The stream has partitions, so they are read one by one.
        let mut leaves = Vec::new();
        for table in tables {
            leaves.extend(leaves_of(client, table).await?);
        }
        Ok(Ok(leaves))
    }

    /// The tables of the database that a request names; or why there are none. Those of a partition
    /// that the stream names, and that was left out, are its own.
    async fn matching(
        &mut self,
        request: &Request,
    ) -> Result<Result<Vec<TableName>, String>, Error> {
        let names = match Requested::of(request) {
            Ok(names) => names,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let is_named = |table: &TableName| names.matches(&table.schema, &table.name);
        let client = self.source.client().await?;
        let candidates = publication::candidates(client).await?;
        let tables = candidates.into_iter().map(|candidate| candidate.table);
        let matching: Vec<TableName> = tables.filter(is_named).collect();
        if !matching.is_empty() {
            return Ok(Ok(matching));
        }
        if request.reason == SnapshotReason::Added {
            let leaves = streamed::possible(client, false).await?.into_iter();
            let leaves: Vec<TableName> = leaves.map(|leaf| leaf.table).filter(is_named).collect();
            if !leaves.is_empty() {
                return Ok(Ok(leaves));
            }
        }
        Ok(Err(
            "no such table; views, foreign tables and single partitions can't have snapshots of \
                their own"
                .to_owned(),
        ))
    }

    /// Shows a request that starts no snapshot.
    fn answer(&mut self, request: &Request, state: SnapshotState, note: String) {
        self.ended(SnapshotStatus {
            id: request.id.clone(),
            table: told_tables(request),
            reason: request.reason,
            condition: request.condition.clone(),
            state,
            rows: 0,
            rows_estimated: None,
            note: Some(note),
        });
    }

    /// Pauses or resumes the tables of a request, durably.
    pub(crate) async fn pause(&mut self, id: &str, is_paused: bool) -> Result<(), Error> {
        let mut edits = Vec::new();
        for task in self.tasks.ids(|task| task.snapshot.id == id) {
            // What its window publishes must be noted before this is.
            self.settle(task).await;
            let task = &self.tasks[task];
            if task.snapshot.is_paused != is_paused && !task.is_over {
                edits.push(Edit::Put(TableSnapshot { is_paused, ..task.snapshot.clone() }));
            }
        }
        if edits.is_empty() {
            return Ok(());
        }
        self.note(edits).await?;
        for task in self.tasks.iter_mut().filter(|task| task.snapshot.id == id) {
            task.snapshot.is_paused = is_paused;
            task.retry_at = None;
        }
        Ok(())
    }

    /// Ensures that the table is in the publication, and that all its changes are streamed.
    pub(crate) async fn admit(&mut self, id: TaskId) -> Result<(), Failure> {
        let task = &self.tasks[id];
        let name =
            TableName { schema: task.snapshot.schema.clone(), name: task.snapshot.table.clone() };
        let (mut is_published, mut waits_for) = (task.is_published, task.waits_for);
        // A table that an earlier session added, which ended before it was read.
        let mut is_new = task.snapshot.reason == SnapshotReason::Added
            && !matches!(task.snapshot.progress, TableProgress::Keys(_));
        let client = self.source.client().await?;
        if !is_published {
            let (is_named, settings) = (self.published.names_inserts(), self.published.settings());
            is_new |= manage::publish_table(client, &settings, is_named, &name).await?;
            is_published = true;
            if is_new {
                waits_for = Some(next_xid(client).await?);
            }
        }
        let task = &mut self.tasks[id];
        (task.is_published, task.waits_for) = (is_published, waits_for);
        let Some(xid) = waits_for else { return Ok(()) };
        let client = self.source.client().await?;
        let failed = |source| postgres::Error::Sql { doing: "read which transactions run", source };
        let xid = i64::try_from(xid).unwrap_or(i64::MAX);
        let row = client.query_one(OLDEST_WRITER, &[&xid]).await.map_err(failed)?;
        if !row.get::<_, bool>(0) {
            let oldest = row.get::<_, Option<&str>>(1).unwrap_or("hidden from this role");
            return Err(Failure::Waits(format!(
                "for a transaction that began before the table was published: {oldest}"
            )));
        }
        if self.settings.manage {
            let version = postgres::client::server_version(client).await?;
            forgetful::remind(client, Names::of(&self.settings), &name, version).await?;
        }
        self.tasks[id].waits_for = None;
        Ok(())
    }
}

/// The rest of a table whose pages were read in part is read by key. The condition for the
/// remaining rows is our own, so it is kept apart from a request's condition, as long as the
/// snapshot lasts.
pub(crate) fn what_is_missing(snapshot: TableSnapshot) -> TableSnapshot {
    let TableProgress::Pages(pages) = &snapshot.progress else { return snapshot };
    let progress = match missing_rows(pages) {
        None => TableProgress::Waiting,
        missing => TableProgress::Keys(KeyProgress { missing, ..KeyProgress::default() }),
    };
    TableSnapshot { progress, ..snapshot }
}

/// The next transaction ID.
async fn next_xid(client: &Client) -> Result<u64, postgres::Error> {
    const NEXT: &str = "SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text";
    let failed = |source| postgres::Error::Sql { doing: "read the next transaction ID", source };
    let row = client.query_one(NEXT, &[]).await.map_err(failed)?;
    let malformed = postgres::Error::Malformed { what: "a transaction ID is not a number" };
    row.get::<_, &str>(0).parse().map_err(|_| malformed)
}

fn log_refused(request: &Request, reason: &str) {
    let (tables, id) = (told_tables(request), &request.id);
    tracing::error!(tables, id, reason, "snapshot refused");
}

/// The first names of a request, for a log line.
fn told_tables(request: &Request) -> String {
    let mut names: Vec<String> = request.tables.iter().take(NAMED).cloned().collect();
    if request.tables.len() > NAMED {
        names.push(format!("{} more", request.tables.len() - NAMED));
    }
    names.join(", ")
}

/// The names of a request.
enum Requested {
    /// Of a user's request.
    Asked(TableNames),
    /// Of our own request.
    Own(TableFilter),
}

impl Requested {
    /// Ours are as many as there are tables, and name each exactly.
    fn of(request: &Request) -> Result<Self, SignalError> {
        match request.reason {
            SnapshotReason::Asked => {
                Asked { tables: request.tables.clone(), condition: request.condition.clone() }
                    .check()
                    .map(Self::Asked)
            }
            _ => Ok(Self::Own(TableFilter::parse(&request.tables, &[])?)),
        }
    }

    fn matches(&self, schema: &str, table: &str) -> bool {
        match self {
            Self::Asked(names) => names.matches(schema, table),
            Self::Own(filter) => filter.matches(schema, table),
        }
    }
}

async fn leaves_of(client: &Client, table: TableName) -> Result<Vec<TableName>, postgres::Error> {
    let failed = |source| postgres::Error::Sql { doing: "read partitions", source };
    let rows = client.query(LEAVES, &[&table.schema, &table.name]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| TableName { schema: row.get(0), name: row.get(1) }).collect())
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
