//! What a simulator asks of the database: rows to insert, update and delete, in transactions.
//!
//! A simulator knows a world (taxis, a shop) and no SQL; `write` knows SQL and no world. These
//! types are all that passes between them. Rows are JSON objects by column name, so that one
//! statement a table and kind serves one row and a thousand.

use std::collections::VecDeque;

use serde::Serialize;

/// A table that a simulator writes.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its name, as in the schema file.
    pub name: &'static str,
    /// Its primary key.
    pub key: &'static [&'static str],
    /// Its other columns.
    pub columns: &'static [&'static str],
    /// Whether the first key column takes its values from an identity sequence.
    pub identity: bool,
}

/// What is done to a row. The order is the one in which kinds may be grouped within a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The row is new.
    Insert,
    /// Its columns change, its key does not.
    Update,
    /// It goes.
    Delete,
}

/// One row to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// Where.
    pub table: &'static Target,
    /// What.
    pub kind: Kind,
    /// The key that distinguishes rows of one table (second part 0 for single keys).
    pub key: (i64, i32),
    /// The whole row after the change (for a delete: before it), a JSON object.
    pub row: String,
}

impl RowChange {
    pub(super) fn new(
        table: &'static Target,
        kind: Kind,
        key: (i64, i32),
        row: &impl Serialize,
    ) -> Self {
        // Rows are structs of numbers and text, for which this cannot fail.
        let row = serde_json::to_string(row).unwrap_or_default();
        Self { table, kind, key, row }
    }
}

/// Rows that are written in one transaction, in this order.
pub type Step = Vec<RowChange>;

/// Values of the identity sequences, taken ahead so that a simulator need not wait for them.
#[derive(Debug, Default)]
pub struct Ids {
    taken: Vec<(&'static str, VecDeque<i64>)>,
}

impl Ids {
    /// Adds values of `table`'s sequence.
    pub fn offer(&mut self, table: &'static Target, ids: impl IntoIterator<Item = i64>) {
        match self.taken.iter_mut().find(|(name, _)| *name == table.name) {
            Some((_, queue)) => queue.extend(ids),
            None => self.taken.push((table.name, ids.into_iter().collect())),
        }
    }

    /// How many values of `table`'s sequence are left.
    #[must_use]
    pub fn left(&self, table: &'static Target) -> usize {
        self.taken.iter().find(|(name, _)| *name == table.name).map_or(0, |(_, ids)| ids.len())
    }

    /// Whether a step can be taken: each step needs at most one value of each table.
    #[must_use]
    pub fn suffice(&self, tables: &[&'static Target]) -> bool {
        tables.iter().filter(|table| table.identity).all(|table| self.left(table) > 0)
    }

    /// Takes one value. `None` when the caller forgot to ask [`Ids::suffice`].
    pub(super) fn take(&mut self, table: &'static Target) -> Option<i64> {
        self.taken.iter_mut().find(|(name, _)| *name == table.name)?.1.pop_front()
    }
}

/// Whole cents (or hundredths of a mile) as a decimal number with two places.
pub(super) fn hundredths(value: i64) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let value = value.unsigned_abs();
    format!("{sign}{}.{:02}", value / 100, value % 100)
}

/// Seconds since 1970 as Postgres reads them.
pub(super) fn timestamp(epoch_s: i64) -> String {
    jiff::Timestamp::from_second(epoch_s).unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundredths_keep_both_places_and_the_sign() {
        assert_eq!(hundredths(0), "0.00");
        assert_eq!(hundredths(7), "0.07");
        assert_eq!(hundredths(1650), "16.50");
        assert_eq!(hundredths(-305), "-3.05");
    }
}
