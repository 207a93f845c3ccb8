//! Takes requests for snapshots, reads chunks between watermarks and hands them to the stream's
//! thread; tables take turns.
//!
//! 1. A request is first noted durably, and only then a table is added to the publication: so a
//!    table in the publication without its rows is always known.
//! 2. A table that was added to the publication is read only after every earlier transaction has
//!    ended: the writes of such a transaction are not streamed if it found the table unpublished.
//! 3. A chunk is a transaction that locks its table against an ALTER, then writes the low
//!    watermark, then takes its snapshot. The snapshot, and commits that were not visible yet, go
//!    to the worker with the rows, before the high watermark is written.
//! 4. Its outcome returns when the stream has reached that. Then the next chunk begins.
//!
//! A table without a key is read by pages instead, while the stream waits (`read_pages`).
//!
//! A table that fails holds up neither others nor the stream: it is tried again, later each time,
//! and ends as failed if a retry can't help. The coordinator ends with the session; the next one
//! continues from the checkpoint.
//!
//! Not here: publishing a chunk's rows (`apply`), and what makes it exact (`window`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::connections::Connections;
use super::task::{Failure, Task};
use super::tasks::{TaskId, Tasks};
use crate::checkpoint::Snapshots;
use crate::config::Resolved;
use crate::error::Error;
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::postgres::publication::{self, TableName};
use crate::snapshot::progress::Book;
use crate::snapshot::{
    Command, Control, Edit, Exchange, Order, Outcome, Request, SnapshotState, SnapshotStatus,
    TableNames,
};
use crate::state::LeftOutList;

/// Most windows open at a time; each holds a chunk and the keys that changed.
const WINDOWS: usize = 2;

/// Most ended snapshots that are still shown.
const SHOWN: usize = 100;

/// What is currently published, which changes while tables are read.
pub(crate) trait Published: Send + Sync {
    /// The settings, with the rules for tables under their current names.
    fn settings(&self) -> Resolved;

    /// Whether the stream names the publication for inserts.
    fn names_inserts(&self) -> bool;

    /// Whether a request is for rows of tables that were left out: a read in progress may be too
    /// old for it.
    fn is_for_missing(&self, request: &str) -> bool;
}

/// What the coordinator shares with the rest of the pipeline.
pub(crate) struct Shared {
    pub(crate) published: Box<dyn Published>,
    pub(crate) control: Arc<Control>,
    pub(crate) book: Arc<Book>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) left_out: Arc<LeftOutList>,
}

/// Takes snapshots while one session streams.
pub(crate) struct Coordinator {
    pub(super) settings: Resolved,
    pub(super) published: Box<dyn Published>,
    pub(super) source: Connections,
    pub(super) control: Arc<Control>,
    pub(super) book: Arc<Book>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) left_out: Arc<LeftOutList>,
    pub(super) exchange: Arc<Exchange>,
    pub(super) outcomes: UnboundedReceiver<Outcome>,
    pub(super) confirmed: watch::Receiver<Lsn>,
    pub(super) tasks: Tasks,
    pub(super) ended: VecDeque<SnapshotStatus>,
    /// The task that had the last turn.
    pub(super) turn: Option<TaskId>,
    /// Whether nothing is left to read, and everything was published or stopped on request.
    pub(super) all_read: watch::Sender<bool>,
}

impl Coordinator {
    /// `stands` is the checkpoint's state at the start of the session.
    pub(crate) fn new(
        settings: Resolved,
        source: Connections,
        shared: Shared,
        (exchange, outcomes): (Arc<Exchange>, UnboundedReceiver<Outcome>),
        confirmed: watch::Receiver<Lsn>,
        stands: &Snapshots,
    ) -> Self {
        let Shared { published, control, book, metrics, left_out } = shared;
        let mut coordinator = Self {
            settings,
            published,
            source,
            control,
            book,
            metrics,
            left_out,
            exchange,
            outcomes,
            confirmed,
            tasks: Tasks::default(),
            ended: VecDeque::new(),
            turn: None,
            all_read: watch::Sender::new(false),
        };
        for snapshot in &stands.tables {
            let (schema, table, id) = (&snapshot.schema, &snapshot.table, &snapshot.id);
            tracing::info!(table = %format_args!("{schema}.{table}"), id, "snapshot resumed");
            coordinator.begin(snapshot.clone());
        }
        for request in &stands.requests {
            coordinator.control.ask(Command::Take(request.clone()));
        }
        coordinator
    }

    /// Turns true when nothing is left to read; never if a table's snapshot has failed.
    pub(crate) fn all_read(&self) -> watch::Receiver<bool> {
        self.all_read.subscribe()
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            while let Ok(outcome) = self.outcomes.try_recv() {
                self.heard(outcome);
            }
            self.tasks.remove_ended();
            self.show();
            let is_failed = |status: &SnapshotStatus| status.state == SnapshotState::Failed;
            if self.tasks.is_empty() && !self.ended.iter().any(is_failed) {
                self.all_read.send_replace(true);
            }
            let next = self.next_task();
            // Commands are carried out between two chunks.
            let patience = next.map_or_else(|| self.wait(), |_| Duration::ZERO);
            tokio::select! {
                biased;
                Some(outcome) = self.outcomes.recv(), if next.is_none() => self.heard(outcome),
                command = self.control.next() => self.obey(command).await,
                () = tokio::time::sleep(patience) => {
                    if let Some(id) = next {
                        self.turn = Some(id);
                        self.work_on(id).await;
                    }
                }
            }
        }
    }

    /// The next task in turn that can be worked on.
    fn next_task(&self) -> Option<TaskId> {
        let open = self.tasks.iter().filter(|task| task.pending.is_some()).count();
        if open >= WINDOWS {
            return None;
        }
        let now = Instant::now();
        let mut in_turn = self.tasks.in_turn(self.turn);
        let next =
            in_turn.find(|(id, task)| task.is_ready(now) && !self.waits_for_another(*id, task));
        next.map(|(id, _)| id)
    }

    /// Several snapshots of one table are taken one at a time.
    fn waits_for_another(&self, id: TaskId, task: &Task) -> bool {
        if task.ending.is_some() {
            return false;
        }
        let mut same =
            self.tasks.before(id).filter(|other| other.name() == task.name() && !other.is_over);
        same.any(|other| !other.snapshot.is_paused || other.pending.is_some())
    }

    /// How long until a table is tried again.
    fn wait(&self) -> Duration {
        const LONGEST: Duration = Duration::from_secs(3600);
        let now = Instant::now();
        let due =
            self.tasks.iter().filter(|task| task.pending.is_none()).filter_map(|t| t.retry_at);
        due.map(|at| at.saturating_duration_since(now)).min().unwrap_or(LONGEST)
    }

    async fn work_on(&mut self, id: TaskId) {
        let worked = match &self.tasks[id] {
            Task { ending: Some(_), .. } => self.end(id).await,
            _ => self.advance(id).await,
        };
        let Err(mut failure) = worked else { return };
        if let Failure::Again(error) = &failure
            && error.severity() != crate::error::Severity::Retry
            && self.is_dropped(id).await
        {
            failure = Failure::Dropped;
        }
        if let Failure::Again(error) = failure {
            let task = &self.tasks[id];
            let (schema, table) = task.name();
            let configured = self.settings.tables.of(schema, table);
            let has_condition = task.snapshot.condition.is_some()
                || configured.is_some_and(|of| of.snapshot_where.is_some());
            failure = Failure::Again(if has_condition { error.without_text() } else { error });
        }
        if let Failure::Again(error) = &failure
            && error.severity() == crate::error::Severity::Retry
        {
            // The connection may be in the middle of something, so it is not reused.
            self.source.close();
        }
        self.tasks[id].failed(failure);
    }

    /// Whether the table no longer exists, if the server can be queried.
    async fn is_dropped(&mut self, id: TaskId) -> bool {
        let task = &self.tasks[id];
        let (schema, name) = task.name();
        let name = TableName { schema: schema.to_owned(), name: name.to_owned() };
        let Ok(client) = self.source.client().await else { return false };
        publication::with_ancestors(client, &name).await.is_ok_and(|names| names.is_empty())
    }

    /// Handles the outcome of a watermark.
    fn heard(&mut self, outcome: Outcome) {
        let is_its = |task: &Task| {
            task.pending.as_ref().is_some_and(|pending| pending.number == outcome.number)
        };
        // Nobody waits for the low watermark of a window.
        let Some(&id) = self.tasks.ids(is_its).first() else { return };
        if self.tasks[id].heard(outcome.result, &self.book) {
            self.over(id, SnapshotState::Done, None);
        }
    }

    /// Places an order and writes its watermark; returns its number.
    pub(super) async fn emit(&mut self, order: Order) -> Result<u64, Error> {
        let watermark = self.exchange.place(order);
        match self.source.write(&watermark).await {
            Ok(()) => Ok(watermark.number),
            // It may have been written anyway, and processed.
            Err(_) if !self.exchange.withdraw(watermark.number) => Ok(watermark.number),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes the state of snapshots, and waits until that is durable.
    pub(super) async fn note(&mut self, edits: Vec<Edit>) -> Result<(), Error> {
        let number = self.emit(Order::Note(edits)).await?;
        let end_lsn = loop {
            match self.outcomes.recv().await {
                Some(outcome) if outcome.number == number => break outcome.end_lsn,
                Some(outcome) => self.heard(outcome),
                // The session ends.
                None => std::future::pending().await,
            }
        };
        if self.confirmed.wait_for(|confirmed| *confirmed >= end_lsn).await.is_err() {
            std::future::pending().await
        }
        Ok(())
    }

    /// Waits until the table has no open window.
    pub(super) async fn settle(&mut self, id: TaskId) {
        while self.tasks[id].pending.is_some() {
            match self.outcomes.recv().await {
                Some(outcome) => self.heard(outcome),
                None => std::future::pending().await,
            }
        }
    }

    /// Removes the table's snapshot from the state, and reports its end.
    async fn end(&mut self, id: TaskId) -> Result<(), Failure> {
        self.settle(id).await;
        let task = &self.tasks[id];
        let Some((state, note)) = task.ending.clone().filter(|_| !task.is_over) else {
            return Ok(());
        };
        let edit = Edit::remove(&task.snapshot);
        self.note(vec![edit]).await.map_err(Failure::Again)?;
        self.over(id, state, note);
        Ok(())
    }

    /// Reports a table's snapshot that ended and is removed from the state.
    fn over(&mut self, id: TaskId, state: SnapshotState, note: Option<String>) {
        let task = &mut self.tasks[id];
        task.is_over = true;
        let status = SnapshotStatus { state, note, ..task.status() };
        let SnapshotStatus { table, id, rows, note, .. } = &status;
        match state {
            SnapshotState::Failed => {
                self.book.remove(task.book);
                self.metrics.snapshots_failed.inc();
                let reason = note.as_deref().unwrap_or_default();
                tracing::error!(table, id, rows, reason, "snapshot failed");
            }
            SnapshotState::Stopped if task.is_dropped => {
                self.book.remove(task.book);
                tracing::info!(table, id, rows, "snapshot stopped: the table was dropped");
            }
            SnapshotState::Stopped => {
                self.book.remove(task.book);
                tracing::warn!(table, id, rows, note, "snapshot stopped");
            }
            _ => {
                self.book.finish(task.book);
                tracing::info!(table, id, rows, "snapshot done");
            }
        }
        self.ended(status);
    }

    /// Shows a snapshot that ended, or did not begin, among the recent ones.
    pub(super) fn ended(&mut self, status: SnapshotStatus) {
        push_last(&mut self.ended, status);
    }

    fn show(&self) {
        let tasks = self.tasks.iter().map(Task::status);
        self.control.show(self.ended.iter().cloned().chain(tasks).collect());
    }

    async fn obey(&mut self, command: Command) {
        // Waiting requests are noted together.
        let commands = match command {
            Command::Take(first) => {
                self.control.more(first).into_iter().map(Command::Take).collect()
            }
            command => vec![command],
        };
        // If the session ends meanwhile, the next one carries it out.
        let mut undone = Undone { commands: commands.clone(), control: self.control.clone() };
        let requests: Vec<Request> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Take(request) => Some(request.clone()),
                _ => None,
            })
            .collect();
        let Some(command) = commands.first() else { return };
        let obeyed = match command {
            Command::Take(_) => self.take(&requests).await,
            Command::Admit { tables } => self.admit_again(tables).await,
            Command::Attached { requests, seen } => self.attached(requests, seen).await,
            Command::Pause { id } => self.pause(id, true).await,
            Command::Resume { id } => self.pause(id, false).await,
            Command::Stop { id } => {
                self.stop(|task| task.snapshot.id == *id);
                Ok(())
            }
            Command::StopTables { tables } => {
                // They were parsed before; an invalid name has no snapshot.
                let names = TableNames::parse(tables).unwrap_or_default();
                self.stop(|task| names.matches(&task.snapshot.schema, &task.snapshot.table));
                Ok(())
            }
        };
        match obeyed {
            Ok(()) => undone.commands.clear(),
            Err(error) => {
                tracing::warn!(error = error.told(), "a snapshot command failed: trying again");
                self.source.close();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

impl Coordinator {
    /// Stops these snapshots.
    fn stop(&mut self, is_meant: impl Fn(&Task) -> bool) {
        for task in self.tasks.iter_mut().filter(|task| is_meant(task)) {
            task.ending.get_or_insert((SnapshotState::Stopped, None));
            task.retry_at = None;
        }
    }
}

/// Commands that are stored again for the next session unless they were carried out.
struct Undone {
    commands: Vec<Command>,
    control: Arc<Control>,
}

impl Drop for Undone {
    fn drop(&mut self) {
        for command in self.commands.drain(..) {
            self.control.ask(command);
        }
    }
}

/// Appends to a list that keeps the last [`SHOWN`] entries.
fn push_last<T>(list: &mut VecDeque<T>, item: T) {
    list.push_back(item);
    while list.len() > SHOWN {
        list.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_what_ended_is_bounded() {
        // The list may be full already.
        let mut list: VecDeque<usize> = (0..SHOWN + 50).collect();
        push_last(&mut list, 1_000);
        assert_eq!((list.len(), list.front(), list.back()), (SHOWN, Some(&51), Some(&1_000)));
    }
}
