//! Decides which publication each table belongs to, and so what changes. Pure.
//!
//! | a captured table | is in |
//! |---|---|
//! | whose updates and deletes Postgres allows once published | the publication |
//! | whose updates or deletes it would refuse (`identity`) | the one for inserts, so that the application keeps working |
//! | the same, and that one can't be used, or not yet | neither; it is reported |
//!
//! A table is in at most one of the two. If its columns or rows change, or it moves between them,
//! it is removed and added again in the same transaction, so that no change is missed. The server
//! applies a publication as it was when a change was made: an alteration affects what is written
//! from now on.

use std::collections::BTreeSet;

use super::limited::{Limited, harm, limited};
use super::plan::{Inserts, Plan, Present, TableChange, Wanted};
use super::{Candidate, Names, Part, Publication, TableName};
use crate::config::Operation;

/// What must change so that exactly what is wanted is published.
#[must_use]
pub fn plan(candidates: &[Candidate], wanted: &Wanted<'_>, present: Present<'_>) -> Plan {
    let mut plan = Plan::default();
    let captured = candidates.iter().filter(|candidate| wanted.has(&candidate.table));
    if let Some(whole) = present.main.filter(|publication| !publication.is_by_table) {
        // Rowcast may not change it.
        let covered = captured.filter_map(|candidate| whole.covered(candidate));
        plan.harmed = covered
            .filter_map(|candidate| harm(&candidate, whole, wanted.server_version))
            .collect();
        return plan;
    }
    plan.main.options(present.main, wanted.operations(&Operation::ALL), wanted.via_root);
    if wanted.inserts != Inserts::Untouched {
        let operations = wanted.operations(&[Operation::Insert, Operation::Truncate]);
        plan.inserts.options(present.inserts, operations, wanted.via_root);
    }
    let mut placing = Placing {
        wanted,
        present,
        plan: &mut plan,
        in_main: BTreeSet::new(),
        in_inserts: BTreeSet::new(),
    };
    for candidate in captured {
        placing.place(candidate);
    }
    let Placing { in_main, in_inserts, .. } = placing;
    plan.main.keep(present.main, &in_main);
    if wanted.inserts != Inserts::Untouched {
        plan.inserts.keep(present.inserts, &in_inserts);
    }
    plan
}

/// Finds a publication for each table.
struct Placing<'a, 'p, 'w> {
    wanted: &'a Wanted<'w>,
    present: Present<'a>,
    plan: &'p mut Plan,
    in_main: BTreeSet<&'a TableName>,
    in_inserts: BTreeSet<&'a TableName>,
}

impl<'a> Placing<'a, '_, '_> {
    fn place(&mut self, candidate: &'a Candidate) {
        let Self { wanted, present, .. } = *self;
        let table = &candidate.table;
        let published = wanted.published.get(table).cloned().unwrap_or_default();
        let in_publication = present.main.and_then(|main| main.tables.get(table));
        let harm = in_publication
            .and(present.main)
            .and_then(|main| harm(candidate, main, wanted.server_version));
        self.plan.harmed.extend(harm.clone());
        let change = TableChange { table: table.clone(), published };
        let part = Part {
            columns: change.published.columns.as_deref(),
            condition: wanted.conditions.get(table).map(Vec::as_slice).unwrap_or_default(),
            generated: present.main.is_some_and(|main| main.generated),
        };
        let limited = wanted
            .needs_identity()
            .then(|| limited(candidate, part, wanted.server_version))
            .flatten()
            .or_else(|| kept_back(candidate, present, &change, wanted.names));
        if present.is_unread(table) {
            // It remains where it is until it is not locked any more.
            self.in_main.insert(table);
            self.in_inserts.insert(table);
            let is_there = present.inserts.is_some_and(|held| held.tables.contains_key(table));
            self.plan.insert_only.extend(limited.filter(|_| is_there));
            return;
        }
        // Removing it does not require ownership of the table; adding it does.
        let only_leaves = harm.filter(|_| !candidate.is_owned && limited.is_none());
        if let Some(harm) = only_leaves.filter(|_| in_publication != Some(&change.published)) {
            let harm = Limited { fix: String::new(), ..harm };
            self.plan.left_out.push(for_dba(harm, &change, wanted.names));
            return;
        }
        match limited {
            Some(limited) => self.place_limited(candidate, change, limited),
            None => {
                self.in_main.insert(table);
                if !self.plan.main.hold(present.main, change) && !candidate.is_owned {
                    self.plan.main.not_owned.push((table.clone(), candidate.owner.clone()));
                }
            }
        }
    }

    /// A table whose updates and deletes can't be published goes to the publication for inserts, if it
    /// may.
    fn place_limited(&mut self, candidate: &'a Candidate, change: TableChange, limited: Limited) {
        let Self { wanted, present, .. } = *self;
        let table = &candidate.table;
        let is_there = present.inserts.is_some_and(|inserts| inserts.tables.contains_key(table));
        let may_alter = wanted.inserts != Inserts::Untouched && candidate.is_owned;
        let may_come = wanted.inserts == Inserts::Used && may_alter;
        if is_there || may_come {
            self.in_inserts.insert(table);
            if may_alter {
                self.plan.inserts.hold(present.inserts, change);
            }
            // Signals are inserts only.
            if !wanted.signals.is_some_and(|of| of.hides(&table.schema, &table.name)) {
                self.plan.insert_only.push(limited);
            }
        } else if candidate.is_owned {
            self.plan.left_out.push(limited);
        } else {
            self.plan.left_out.push(for_dba(limited, &change, wanted.names));
        }
    }
}

/// Why a table remains in the publication for inserts although it could leave it. The fix is for a
/// DBA: membership in its owner is more than a replication role should have.
fn kept_back(
    candidate: &Candidate,
    present: Present<'_>,
    change: &TableChange,
    names: Names<'_>,
) -> Option<Limited> {
    let table = &candidate.table;
    let has = |publication: Option<&Publication>| {
        publication.is_some_and(|publication| publication.tables.contains_key(table))
    };
    if candidate.is_owned || !has(present.inserts) || has(present.main) {
        return None;
    }
    let mut plan = Plan::default();
    plan.main.add.push(change.clone());
    plan.inserts.remove.push(table.clone());
    Some(Limited {
        table: table.clone(),
        cause: format!(
            "only its owner, {:?}, may publish its updates and deletes too",
            candidate.owner
        ),
        fix: format!(
            "as a DBA: {} (then request a snapshot of it: updates and deletes of the meantime \
             are not known)",
            plan.script(names)
        ),
    })
}

/// The same for a left-out table that only its owner may add again: the fix is for a DBA.
fn for_dba(limited: Limited, change: &TableChange, names: Names<'_>) -> Limited {
    let mut plan = Plan::default();
    plan.main.add.push(change.clone());
    let add = plan.main.sql(names.main).join("; ");
    let fix = match limited.fix.as_str() {
        "" => format!("as a DBA: {add};"),
        // Fixes that are not pure SQL are not combined with SQL.
        first if first.ends_with(';') => format!("as a DBA: {first} {add};"),
        first => format!("{first}, then as a DBA: {add};"),
    };
    let meanwhile = "(then request a snapshot of it: changes of the meantime are not known)";
    Limited { fix: format!("{fix} {meanwhile}"), ..limited }
}

#[cfg(test)]
#[path = "placing_tests.rs"]
mod tests;
