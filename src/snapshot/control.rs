//! Snapshot requests and the state of snapshots, between those who request them (the admin
//! endpoint, signals in the stream, new tables) and the coordinator that carries them out.
//!
//! A request is kept here until a session takes it; it survives the process once the session has it
//! in the checkpoint. The session writes the state of snapshots here, for those who show it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::checkpoint::SnapshotReason;
pub use crate::checkpoint::SnapshotRequest as Request;

/// Requests that wait, and the state of snapshots.
#[derive(Debug, Default)]
pub struct Control {
    state: Mutex<Inner>,
    asked: Notify,
}

/// The most commands that wait at a time.
const MAX_WAITING: usize = 100;
/// The most bytes of requests that wait at a time, so that they fit into a checkpoint.
const MAX_WAITING_BYTES: usize = 128 * 1024;

/// Too many requests wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} requests are waiting already, which is the maximum")]
pub struct Full {
    /// How many wait.
    pub waiting: usize,
}

#[derive(Debug, Default)]
struct Inner {
    asked: VecDeque<Command>,
    shown: Vec<SnapshotStatus>,
    /// Requests that are not shown yet.
    pending: Vec<Request>,
}

/// A command for snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Take a snapshot.
    Take(Request),
    /// Publish the changes of tables that were left out, without reading their rows.
    Admit {
        /// Their OIDs.
        tables: Vec<u32>,
    },
    /// Take snapshots of attached partitions, and note what the check that found them saw.
    Attached {
        /// A request for each.
        requests: Vec<Request>,
        /// The transactions that the check saw.
        seen: String,
    },
    /// Pause the snapshots of a request.
    Pause {
        /// The request.
        id: String,
    },
    /// Resume them.
    Resume {
        /// The request.
        id: String,
    },
    /// Stop them.
    Stop {
        /// The request.
        id: String,
    },
    /// Stop the snapshots of these tables.
    StopTables {
        /// The tables, as a request names them.
        tables: Vec<String>,
    },
}

impl Command {
    /// Whether it interrupts the current read.
    const fn interrupts(&self) -> bool {
        matches!(self, Self::Pause { .. } | Self::Stop { .. } | Self::StopTables { .. })
    }
}

/// An action on a requested snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Pause it.
    Pause,
    /// Resume it.
    Resume,
    /// Stop it.
    Stop,
}

impl Action {
    /// The command for a request's snapshots.
    #[must_use]
    pub const fn on(self, id: String) -> Command {
        match self {
            Self::Pause => Command::Pause { id },
            Self::Resume => Command::Resume { id },
            Self::Stop => Command::Stop { id },
        }
    }
}

/// The status of one table's snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// The request.
    pub id: String,
    /// `schema.table`, or the requested name if no table matches.
    pub table: String,
    /// Why it is taken.
    pub reason: SnapshotReason,
    /// Only rows for which this SQL condition holds.
    pub condition: Option<String>,
    /// Its state.
    pub state: SnapshotState,
    /// Rows published so far.
    pub rows: u64,
    /// Rows of the table by the server's statistics; `None` if unknown.
    pub rows_estimated: Option<u64>,
    /// What it waits for, or why it failed.
    pub note: Option<String>,
}

/// The state of a table's snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    /// It has not begun.
    Waiting,
    /// Its rows are being read.
    Running,
    /// It is paused.
    Paused,
    /// All rows are published.
    Done,
    /// It was stopped.
    Stopped,
    /// It failed.
    Failed,
}

impl SnapshotState {
    /// Whether it is final.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Stopped | Self::Failed)
    }

    /// The word for pages and terminals.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl Control {
    /// Stores a command for the session. A requested snapshot is shown from now on. A request that
    /// is waiting already, from an earlier session or the checkpoint, is stored only once.
    pub fn ask(&self, command: Command) {
        let mut state = self.lock();
        if let Command::Take(request) = &command {
            if state.asked.contains(&command) {
                return;
            }
            if !state.pending.contains(request) {
                state.pending.push(request.clone());
            }
        }
        state.asked.push_back(command);
        drop(state);
        self.asked.notify_one();
    }

    /// As [`ask`](Self::ask), for external requests: bounded in number and size.
    ///
    /// # Errors
    /// When too many are waiting already; then none of these is stored.
    pub fn try_ask(&self, commands: Vec<Command>) -> Result<(), Full> {
        let state = self.lock();
        let requests = |command: &Command| match command {
            Command::Take(request) => request.bytes(),
            Command::Pause { id } | Command::Resume { id } | Command::Stop { id } => id.len(),
            Command::StopTables { tables } => tables.iter().map(String::len).sum(),
            Command::Admit { .. } | Command::Attached { .. } => 0,
        };
        let waiting = state.asked.len().max(state.pending.len());
        let bytes: usize = state.asked.iter().chain(&commands).map(requests).sum();
        drop(state);
        // A single request may have the maximum size of a request.
        if waiting > 0 && (waiting + commands.len() > MAX_WAITING || bytes > MAX_WAITING_BYTES) {
            return Err(Full { waiting });
        }
        commands.into_iter().for_each(|command| self.ask(command));
        Ok(())
    }

    /// More requests from the front of the queue that can be handled together; others remain. Call
    /// it with the result of [`next`](Self::next).
    pub fn more(&self, first: Request) -> Vec<Request> {
        let mut requests = vec![first];
        let mut state = self.lock();
        while let Some(Command::Take(_)) = state.asked.front() {
            if let Some(Command::Take(request)) = state.asked.pop_front() {
                requests.push(request);
            }
        }
        requests
    }

    /// The next command; waits for one. Cancelling the wait loses nothing.
    pub async fn next(&self) -> Command {
        loop {
            let came = self.asked.notified();
            if let Some(command) = self.lock().asked.pop_front() {
                return command;
            }
            came.await;
        }
    }

    /// Completes once a pause or a stop is waiting: the current read must not delay it.
    pub async fn interrupted(&self) {
        loop {
            let came = self.asked.notified();
            if self.lock().asked.iter().any(Command::interrupts) {
                return;
            }
            came.await;
        }
    }

    /// Sets the status of snapshots: running ones, and those that ended recently.
    pub fn show(&self, snapshots: Vec<SnapshotStatus>) {
        let mut state = self.lock();
        state.pending.retain(|request| snapshots.iter().all(|status| status.id != request.id));
        state.shown = snapshots;
    }

    /// Their status, with those that no session has taken yet.
    #[must_use]
    pub fn shown(&self) -> Vec<SnapshotStatus> {
        let state = self.lock();
        let waiting = state.pending.iter().flat_map(|request| {
            request.tables.iter().map(|table| SnapshotStatus {
                id: request.id.clone(),
                table: table.clone(),
                reason: request.reason,
                condition: request.condition.clone(),
                state: SnapshotState::Waiting,
                rows: 0,
                rows_estimated: None,
                note: None,
            })
        });
        state.shown.iter().cloned().chain(waiting).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_are_taken_once_in_their_order_whenever_they_came() {
        let control = Control::default();
        let pause = |id: &str| Command::Pause { id: id.to_owned() };
        control.ask(pause("a"));
        control.ask(pause("b"));
        assert_eq!(control.next().await, pause("a"));
        assert_eq!(control.next().await, pause("b"));
        let ((), next) = tokio::join!(async { control.ask(pause("c")) }, control.next());
        assert_eq!(next, pause("c"));
    }

    #[test]
    fn a_request_is_shown_from_the_moment_it_is_left() {
        let control = Control::default();
        let tables = vec!["public.a".to_owned(), "public.b".to_owned()];
        let request = Request::new(tables, None, SnapshotReason::Asked);
        control.ask(Command::Take(request.clone()));
        let shown = control.shown();
        assert_eq!(shown.len(), 2);
        assert_eq!((shown[0].id.as_str(), shown[0].state), (&*request.id, SnapshotState::Waiting));
        control.show(Vec::new());
        assert_eq!(control.shown(), shown, "the session has not taken it");
        let done = SnapshotStatus { state: SnapshotState::Done, ..shown[0].clone() };
        control.show(vec![done.clone()]);
        assert_eq!(control.shown(), [done]);
    }

    #[tokio::test]
    async fn a_request_that_is_left_again_is_shown_and_taken_once() {
        let control = Control::default();
        let request = Request::new(vec!["public.a".to_owned()], None, SnapshotReason::Asked);
        for _ in 0..2 {
            control.ask(Command::Take(request.clone()));
        }
        control.ask(Command::Pause { id: request.id.clone() });
        assert_eq!(control.shown().len(), 1);
        assert_eq!(control.next().await, Command::Take(request.clone()));
        assert_eq!(control.next().await, Command::Pause { id: request.id.clone() });
        // A request that was started and then stored again.
        control.ask(Command::Take(request.clone()));
        assert_eq!(control.shown().len(), 1);
        assert_eq!(control.next().await, Command::Take(request));
    }
}
