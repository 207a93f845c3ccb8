//! Captured tables of which nothing is published, each with the reason and the fix.
//!
//! One list per process, by OID: code that leaves a table out puts it here, which logs it once;
//! `/status` shows the list and a metric counts it. It holds the current state only. What must
//! survive the process (changes of a table were left out, so its rows must be read) is in the
//! checkpoint (`checkpoint::LeftOutTable`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;

/// Why a table is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LeftOutReason {
    /// It can't be given its topic.
    Topic,
    /// It was renamed, and hidden columns or rows would be published.
    Renamed,
}

impl LeftOutReason {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Topic, Self::Renamed];

    /// The word for logs and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Renamed => "renamed",
        }
    }
}

/// A table that is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// The reason.
    pub reason: LeftOutReason,
    /// The cause, as a sentence.
    pub error: String,
    /// What an operator can do about it.
    pub fix: String,
}

/// If more tables than this are left out at once, the rest do not get a log line each.
const LISTED: usize = 20;

/// The tables that are left out.
#[derive(Debug, Default)]
pub struct LeftOutList {
    tables: Mutex<BTreeMap<u32, LeftOut>>,
    metrics: Arc<Metrics>,
}

impl LeftOutList {
    /// An empty list that updates these metrics.
    #[must_use]
    pub const fn new(metrics: Arc<Metrics>) -> Self {
        Self { tables: Mutex::new(BTreeMap::new()), metrics }
    }

    /// Adds a table, and logs it unless it was listed with the same error.
    pub fn put(&self, oid: u32, left_out: LeftOut) {
        self.put_all([(oid, left_out)]);
    }

    /// Adds many tables; beyond a few new ones, it logs only how many more there are.
    pub fn put_all(&self, all: impl IntoIterator<Item = (u32, LeftOut)>) {
        let mut tables = self.lock();
        let mut new = 0_usize;
        for (oid, left_out) in all {
            if tables.get(&oid) == Some(&left_out) {
                continue;
            }
            new = new.saturating_add(1);
            if new <= LISTED {
                let LeftOut { reason, error, fix, .. } = &left_out;
                tracing::error!(reason = reason.word(), fix, "{error}");
            }
            tables.insert(oid, left_out);
        }
        if let Some(more) = new.checked_sub(LISTED).filter(|more| *more > 0) {
            tracing::error!(
                more,
                "left out, too: /status names all, each with its reason and the fix"
            );
        }
        self.count(&tables);
    }

    /// Replaces a table's entry without logging it.
    pub fn keep(&self, oid: u32, left_out: LeftOut) {
        let mut tables = self.lock();
        tables.insert(oid, left_out);
        self.count(&tables);
    }

    /// Removes a table. Returns whether it was listed.
    pub fn remove(&self, oid: u32) -> bool {
        let mut tables = self.lock();
        let was_there = tables.remove(&oid).is_some();
        if was_there {
            self.count(&tables);
        }
        was_there
    }

    /// The OIDs of the tables that are left out for a reason.
    #[must_use]
    pub fn oids(&self, reason: LeftOutReason) -> Vec<u32> {
        let tables = self.lock();
        tables.iter().filter(|(_, of)| of.reason == reason).map(|(oid, _)| *oid).collect()
    }

    /// Why a table is left out; `None` if it is not.
    #[must_use]
    pub fn find(&self, schema: &str, table: &str) -> Option<LeftOut> {
        let is_it = |of: &&LeftOut| (of.schema.as_str(), of.table.as_str()) == (schema, table);
        self.lock().values().find(is_it).cloned()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<LeftOut> {
        self.lock().values().cloned().collect()
    }

    fn count(&self, tables: &BTreeMap<u32, LeftOut>) {
        for reason in LeftOutReason::ALL {
            let count = tables.values().filter(|of| of.reason == reason).count();
            self.metrics.set_tables_left_out(reason.word(), count as u64);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, LeftOut>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_counted_by_reason_and_found_by_name() {
        let metrics = Arc::new(Metrics::default());
        let list = LeftOutList::new(Arc::clone(&metrics));
        let one = |table: &str| LeftOut {
            schema: "public".to_owned(),
            table: table.to_owned(),
            reason: LeftOutReason::Topic,
            error: "taken".to_owned(),
            fix: "write".to_owned(),
        };
        list.put(1, one("a"));
        list.put(2, one("b"));
        list.put(2, one("c"));
        let count = |text: &str| metrics.render().contains(text);
        assert!(count("rowcast_tables_left_out{reason=\"topic\"} 2"), "{}", metrics.render());
        assert_eq!((list.find("public", "b"), list.find("public", "c")), (None, Some(one("c"))));
        assert_eq!(list.oids(LeftOutReason::Topic), [1, 2]);
        assert!(list.remove(1) && !list.remove(1));
        assert!(count("rowcast_tables_left_out{reason=\"topic\"} 1"));
        assert_eq!(list.all(), [one("c")]);
    }
}
