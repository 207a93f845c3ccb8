//! The snapshots of a session, each by the number that it was given when it began.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use super::task::Task;

/// Names the snapshot of one table for as long as the session lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskId(u64);

/// The snapshots that are under way, in the order in which they began.
#[derive(Default)]
pub(crate) struct Tasks {
    begun: u64,
    all: BTreeMap<TaskId, Task>,
}

impl Tasks {
    pub(super) fn begin(&mut self, task: Task) {
        self.begun += 1;
        self.all.insert(TaskId(self.begun), task);
    }

    /// Removes those that are over. Whoever works on one keeps its number meanwhile, so this is done
    /// between two turns.
    pub(super) fn remove_ended(&mut self) {
        self.all.retain(|_, task| !task.is_over);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.all.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        self.all.values_mut()
    }

    /// The numbers of those that are meant.
    pub(super) fn ids(&self, is_meant: impl Fn(&Task) -> bool) -> Vec<TaskId> {
        let meant = self.all.iter().filter(|(_, task)| is_meant(task));
        meant.map(|(id, _)| *id).collect()
    }

    /// Those that began before this one.
    pub(super) fn before(&self, id: TaskId) -> impl Iterator<Item = &Task> {
        self.all.range(..id).map(|(_, task)| task)
    }

    /// All numbers in turn, beginning behind `last`.
    pub(super) fn in_turn(&self, last: Option<TaskId>) -> impl Iterator<Item = (TaskId, &Task)> {
        let is_behind = move |id: TaskId| last.is_none_or(|last| id > last);
        let behind = self.all.iter().filter(move |(id, _)| is_behind(**id));
        let from_the_first = self.all.iter().filter(move |(id, _)| !is_behind(**id));
        behind.chain(from_the_first).map(|(id, task)| (*id, task))
    }
}

// A number is given out for a task that is there, and the task stays until the turn is over: a number
// without a task is a mistake in this folder, which must not pass unseen.
impl Index<TaskId> for Tasks {
    type Output = Task;

    #[expect(clippy::expect_used, reason = "see above")]
    fn index(&self, id: TaskId) -> &Task {
        self.all.get(&id).expect("a snapshot stays while somebody works on it")
    }
}

impl IndexMut<TaskId> for Tasks {
    #[expect(clippy::expect_used, reason = "see above")]
    fn index_mut(&mut self, id: TaskId) -> &mut Task {
        self.all.get_mut(&id).expect("a snapshot stays while somebody works on it")
    }
}
