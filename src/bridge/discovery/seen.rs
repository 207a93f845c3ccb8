//! What checks have found and logged, so that each thing is requested and logged once.

use std::collections::{BTreeMap, BTreeSet};

use crate::bridge::limits::TOLD;
use crate::postgres::filters::{Filters, Probes};
use crate::postgres::keys::KeyFaults;
use crate::postgres::publication::{Names, Plan, TableName};

const NOT_OWNED: &str = "left out: only its owner may publish it";

/// What was requested or tried, and must not be repeated.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) asked: BTreeSet<TableName>,
    /// Tables that were left out and are to be read again, by OID.
    pub(super) settled: BTreeSet<u32>,
    /// Tables whose lock was taken, with the number of tries.
    pub(super) locked: BTreeMap<TableName, u32>,
    /// Tables whose configured key is impossible; a start refuses those that it sees.
    without_key: BTreeSet<TableName>,
    /// What else was logged about keys. `None` before the first check: the start logged it.
    key_notes: Option<BTreeSet<String>>,
    /// Tables whose filters are impossible, with the reason.
    without_filter: BTreeSet<(TableName, String)>,
    /// Tables that only their owners may publish.
    not_owned: BTreeSet<TableName>,
    /// Results about row filters from the last full check.
    pub(super) probes: Probes,
}

impl Seen {
    /// Logs which tables can't have their configured key, each once until they can.
    pub(super) fn note_keys(&mut self, keys: &KeyFaults) {
        for (table, fault) in &keys.refused {
            if !self.without_key.contains(table) {
                tracing::error!(
                    %table,
                    cause = fault.cause,
                    fix = fault.fix,
                    "the configured key is impossible: a new table is left out until it is \
                     possible"
                );
            }
        }
        self.without_key = keys.refused.keys().cloned().collect();
        let notes: BTreeSet<String> = keys.notes.iter().cloned().collect();
        let before = self.key_notes.replace(notes.clone()).unwrap_or_else(|| notes.clone());
        for note in notes.difference(&before) {
            tracing::warn!("{note}");
        }
    }

    /// Logs which tables only their owners may publish, each once until they are published.
    pub(super) fn note_not_owned(&mut self, plan: &Plan, names: Names<'_>) {
        let not_owned: BTreeMap<&TableName, &str> =
            plan.main.not_owned.iter().map(|(table, owner)| (table, owner.as_str())).collect();
        self.not_owned.retain(|table| not_owned.contains_key(table));
        let by_table = plan.by_table();
        let mut new = 0_usize;
        for (table, owner) in not_owned {
            let Some(own) = by_table.get(table) else { continue };
            if !self.not_owned.insert(table.clone()) {
                continue;
            }
            new = new.saturating_add(1);
            let fix = format!("as a DBA: {}", own.script(names));
            if new <= TOLD {
                tracing::warn!(%table, owner, fix, "{NOT_OWNED}");
            } else {
                tracing::debug!(%table, owner, fix, "{NOT_OWNED}");
            }
        }
        let more = new.saturating_sub(TOLD);
        if more > 0 {
            tracing::warn!(more, "{NOT_OWNED}; each is logged at debug");
        }
    }

    /// Logs which tables can't be filtered as configured, each once until they can.
    pub(super) fn note_filters(&mut self, filters: &Filters) {
        let mut faults = BTreeSet::new();
        for (table, fault) in &filters.shortfalls {
            let entry = (table.clone(), fault.cause.clone());
            if !self.without_filter.contains(&entry) {
                tracing::error!(
                    %table,
                    cause = fault.cause,
                    fix = fault.fix,
                    "the configured filter is impossible: until it is possible, a new table is \
                     left out, and a published table stays as it is"
                );
            }
            faults.insert(entry);
        }
        self.without_filter = faults;
    }
}
