//! What is asked of snapshots, and how they stand: the desk between those who ask (the admin
//! endpoint, signals in the stream, tables that come up) and the one who carries it out.
//!
//! A request is kept here until a session takes it; it outlives the process once the session has it
//! in the checkpoint. How snapshots stand is told here by the session and read by whoever shows it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::checkpoint::SnapshotReason;

/// The desk.
#[derive(Debug, Default)]
pub struct Control {
    state: Mutex<State>,
    asked: Notify,
}

#[derive(Debug, Default)]
struct State {
    asked: VecDeque<Command>,
    shown: Vec<SnapshotStatus>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Take a snapshot.
    Take(Request),
    /// Let the snapshots of a request wait.
    Pause {
        /// The request.
        id: String,
    },
    /// Go on with them.
    Resume {
        /// The request.
        id: String,
    },
    /// End them where they are.
    Stop {
        /// The request.
        id: String,
    },
}

/// A snapshot that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Names it from here on.
    pub id: String,
    /// The tables, as `schema.table` or globs of it.
    pub tables: Vec<String>,
    /// Only rows for which this SQL condition holds.
    pub condition: Option<String>,
    /// Who asks.
    pub reason: SnapshotReason,
}

/// How the snapshot of one table stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// The request.
    pub id: String,
    /// `schema.table`, or what was asked for where no table matches.
    pub table: String,
    /// Why it is taken.
    pub reason: SnapshotReason,
    /// Only rows for which this SQL condition holds.
    pub condition: Option<String>,
    /// Where it stands.
    pub state: SnapshotState,
    /// Rows published so far.
    pub rows: u64,
    /// Rows there are, as the server's statistics have it; none where they know nothing.
    pub rows_estimated: Option<u64>,
    /// What it waits for, or why it failed.
    pub note: Option<String>,
}

/// Where the snapshot of a table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    /// Its turn has not come.
    Waiting,
    /// Its rows are read.
    Running,
    /// It waits to be resumed.
    Paused,
    /// All rows are published.
    Done,
    /// It was stopped.
    Stopped,
    /// It can't be taken.
    Failed,
}

impl Request {
    /// A request with an ID of its own.
    #[must_use]
    pub fn new(tables: Vec<String>, condition: Option<String>, reason: SnapshotReason) -> Self {
        Self { id: uuid::Uuid::now_v7().to_string(), tables, condition, reason }
    }
}

impl Control {
    /// Leaves a command for the session.
    pub fn ask(&self, command: Command) {
        self.lock().asked.push_back(command);
        self.asked.notify_one();
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

    /// Tells how the snapshots stand: those under way and those that ended lately.
    pub fn show(&self, snapshots: Vec<SnapshotStatus>) {
        self.lock().shown = snapshots;
    }

    /// How they stand.
    #[must_use]
    pub fn shown(&self) -> Vec<SnapshotStatus> {
        self.lock().shown.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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
}
