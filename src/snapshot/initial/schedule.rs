//! Schedules which part of which table is read next, and marks the first and last rows. Pure.
//!
//! Tables are read in the order of the plan, and their ranges in order too; a free reader takes the
//! next. The last row of a table is not known before all its ranges are read; so each range's last
//! row is held back, one per table at a time:
//!
//! ```text
//! range read --its last row--> held by the table --table read--> held over all --all read--> last
//!                                |                    |
//!                                v another is held    v another table is read
//!                              `true`                `last_in_data_collection`
//! ```
//!
//! Must hold: every row that is held back is released once; a range is complete only when its held
//! row was released. Not here: rows themselves, threads, acknowledgements.

use crate::change::SnapshotMarker;

/// A range of a table's pages, by the indexes of both in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    /// The table.
    pub table: usize,
    /// The range.
    pub range: usize,
}

/// A row that was held back and must be published now.
#[derive(Debug, PartialEq, Eq)]
pub struct Release<R> {
    /// Its range, which is complete once the row is published.
    pub task: Task,
    /// The row.
    pub row: R,
    /// Its marker.
    pub marker: SnapshotMarker,
}

/// Hands out ranges and holds rows back.
#[derive(Debug)]
pub struct Schedule<R> {
    tables: Vec<Scheduled<R>>,
    next: Task,
    /// The last row of a finished table: the last of all, if no other follows.
    last: Option<(Task, R)>,
    is_first_out: bool,
    unread_tables: usize,
}

#[derive(Debug)]
struct Scheduled<R> {
    ranges: usize,
    unread_ranges: usize,
    is_first_out: bool,
    held: Option<(Task, R)>,
}

impl<R> Schedule<R> {
    /// A schedule of tables, each with its number of ranges.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = usize>) -> Self {
        let table =
            |ranges| Scheduled { ranges, unread_ranges: ranges, is_first_out: false, held: None };
        let tables: Vec<_> = ranges.into_iter().map(table).collect();
        let unread_tables = tables.iter().filter(|table| table.ranges > 0).count();
        let next = Task { table: 0, range: 0 };
        Self { tables, next, last: None, is_first_out: false, unread_tables }
    }

    /// The next range to read; `None` if all are taken.
    pub fn take(&mut self) -> Option<Task> {
        loop {
            let ranges = self.tables.get(self.next.table)?.ranges;
            if self.next.range < ranges {
                let task = self.next;
                self.next.range += 1;
                return Some(task);
            }
            self.next = Task { table: self.next.table + 1, range: 0 };
        }
    }

    /// The marker of a row that is published now without being held back.
    pub fn marker(&mut self, table: usize) -> SnapshotMarker {
        let is_first_of_all = !std::mem::replace(&mut self.is_first_out, true);
        let is_first = self
            .tables
            .get_mut(table)
            .is_some_and(|table| !std::mem::replace(&mut table.is_first_out, true));
        match (is_first_of_all, is_first) {
            (true, _) => SnapshotMarker::First,
            (false, true) => SnapshotMarker::FirstInTable,
            (false, false) => SnapshotMarker::Between,
        }
    }

    /// A range was read; all its rows except the held one are published. Returns the rows that the
    /// caller must publish now.
    pub fn finish(&mut self, task: Task, held: Option<R>) -> Vec<Release<R>> {
        let mut releases = Vec::new();
        let Some(table) = self.tables.get_mut(task.table) else { return releases };
        table.unread_ranges = table.unread_ranges.saturating_sub(1);
        let is_read = table.unread_ranges == 0;
        if let Some(row) = held
            && let Some((task, row)) = table.held.replace((task, row))
        {
            let marker = self.marker(task.table);
            releases.push(Release { task, row, marker });
        }
        if is_read {
            self.unread_tables = self.unread_tables.saturating_sub(1);
            let held = self.tables.get_mut(task.table).and_then(|table| table.held.take());
            if let Some(held) = held
                && let Some((task, row)) = self.last.replace(held)
            {
                let marker = self.end_marker(task.table);
                releases.push(Release { task, row, marker });
            }
        }
        if self.is_read()
            && let Some((task, row)) = self.last.take()
        {
            releases.push(Release { task, row, marker: SnapshotMarker::Last });
        }
        releases
    }

    /// Releases all held rows, so that a checkpoint can list their ranges as complete.
    pub fn release_held(&mut self) -> Vec<Release<R>> {
        let mut releases = Vec::new();
        if let Some((task, row)) = self.last.take() {
            let marker = self.end_marker(task.table);
            releases.push(Release { task, row, marker });
        }
        for at in 0..self.tables.len() {
            if let Some((task, row)) = self.tables.get_mut(at).and_then(|table| table.held.take()) {
                let marker = self.marker(at);
                releases.push(Release { task, row, marker });
            }
        }
        releases
    }

    /// Whether all ranges are read.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        self.unread_tables == 0
    }

    /// The marker of a table's last row if another table follows. The first row of all is marked as
    /// such instead, as in Debezium.
    fn end_marker(&mut self, table: usize) -> SnapshotMarker {
        match self.marker(table) {
            SnapshotMarker::First => SnapshotMarker::First,
            _ => SnapshotMarker::LastInTable,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tables_come_in_the_order_of_the_plan_and_empty_ones_not_at_all() {
        let mut schedule = Schedule::<()>::new([2, 0, 1]);
        let taken: Vec<_> = std::iter::from_fn(|| schedule.take()).collect();
        let task = |table, range| Task { table, range };
        assert_eq!(taken, [task(0, 0), task(0, 1), task(2, 0)]);
        assert!(!schedule.is_read());
    }

    #[test]
    fn without_a_range_everything_is_read() {
        assert!(Schedule::<()>::new([0, 0]).is_read());
        assert!(Schedule::<()>::new([]).is_read());
    }

    #[test]
    fn a_row_that_is_all_there_is_is_the_last() {
        let mut schedule = Schedule::new([1]);
        let task = schedule.take().expect("a range");
        let releases = schedule.finish(task, Some("row"));
        assert_eq!(releases, [Release { task, row: "row", marker: SnapshotMarker::Last }]);
    }

    #[test]
    fn the_last_row_of_all_says_so_when_the_tables_after_it_are_empty() {
        let mut schedule = Schedule::new([1, 1]);
        let (first, second) = (schedule.take().expect("one"), schedule.take().expect("two"));
        assert_eq!(schedule.finish(first, Some("row")), []);
        let releases = schedule.finish(second, None);
        assert_eq!(releases, [Release { task: first, row: "row", marker: SnapshotMarker::Last }]);
    }

    /// Rows of each range of each table.
    fn plan() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(0_u8..4, 0..5), 0..5)
    }

    /// The result: markers by table, and the rows' ranges.
    #[derive(Default)]
    struct Published {
        markers: BTreeMap<usize, Vec<SnapshotMarker>>,
        rows: BTreeMap<Task, u8>,
        whole: BTreeSet<Task>,
    }

    impl Published {
        fn row(&mut self, task: Task, marker: SnapshotMarker) {
            self.markers.entry(task.table).or_default().push(marker);
            *self.rows.entry(task).or_default() += 1;
        }

        fn all(&mut self, releases: Vec<Release<()>>) {
            for Release { task, marker, .. } in releases {
                self.row(task, marker);
                assert!(self.whole.insert(task), "{task:?} is complete twice");
            }
        }

        fn count(&self, marker: SnapshotMarker) -> usize {
            self.markers.values().flatten().filter(|found| **found == marker).count()
        }
    }

    /// Simulates `readers` that take turns as in `turns`.
    fn read(plan: &[Vec<u8>], readers: usize, turns: &[(u8, bool)], gives_up: bool) -> Published {
        let mut schedule = Schedule::new(plan.iter().map(Vec::len));
        let mut published = Published::default();
        let mut reading: Vec<Option<(Task, u8)>> = vec![None; readers];
        let mut turns = turns.iter().cycle();
        while !schedule.is_read() {
            let (reader, checkpoint) = *turns.next().expect("it is a cycle");
            if checkpoint && gives_up {
                let releases = schedule.release_held();
                published.all(releases);
            }
            // The reader whose turn it is, or the next with something to do.
            for offset in 0..readers {
                let at = &mut reading[(usize::from(reader) + offset) % readers];
                match *at {
                    None => match schedule.take() {
                        Some(task) => *at = Some((task, plan[task.table][task.range])),
                        None => continue,
                    },
                    Some((task, left @ 2..)) => {
                        published.row(task, schedule.marker(task.table));
                        *at = Some((task, left - 1));
                    }
                    Some((task, left)) => {
                        let releases = schedule.finish(task, (left == 1).then_some(()));
                        if left == 0 {
                            assert!(published.whole.insert(task), "{task:?} is complete twice");
                        }
                        published.all(releases);
                        *at = None;
                    }
                }
                break;
            }
        }
        published
    }

    proptest! {
        #[test]
        fn every_row_comes_out_once_and_the_ends_say_what_they_are(
            plan in plan(),
            readers in 1_usize..5,
            turns in prop::collection::vec((any::<u8>(), prop::bool::weighted(0.2)), 1..60),
            gives_up: bool,
        ) {
            let published = read(&plan, readers, &turns, gives_up);
            let rows: u32 = plan.iter().flatten().map(|rows| u32::from(*rows)).sum();
            for (table, ranges) in plan.iter().enumerate() {
                for (range, rows) in ranges.iter().enumerate() {
                    let task = Task { table, range };
                    prop_assert_eq!(published.rows.get(&task).copied().unwrap_or(0), *rows);
                    prop_assert!(published.whole.contains(&task), "{:?} is never complete", task);
                }
            }
            let first = usize::from(rows > 1);
            if !gives_up {
                prop_assert_eq!(published.count(SnapshotMarker::First), first);
                prop_assert_eq!(published.count(SnapshotMarker::Last), usize::from(rows > 0));
            }
            prop_assert!(published.count(SnapshotMarker::First) <= 1);
            prop_assert!(published.count(SnapshotMarker::Last) <= 1);
            for markers in published.markers.values() {
                let count = |wanted: &[SnapshotMarker]| {
                    markers.iter().filter(|marker| wanted.contains(marker)).count()
                };
                let firsts = count(&[SnapshotMarker::First, SnapshotMarker::FirstInTable]);
                let lasts = count(&[SnapshotMarker::LastInTable, SnapshotMarker::Last]);
                if markers.len() > 1 {
                    prop_assert_eq!(firsts, 1);
                }
                if gives_up {
                    prop_assert!(lasts <= 1);
                } else if markers.len() > 1 {
                    prop_assert_eq!(lasts, 1);
                } else {
                    prop_assert_eq!(firsts + lasts, 1);
                }
            }
        }
    }
}
