//! Tables of which not all that is asked for can be published, and why; pure.

use std::fmt;

use super::plan::{Plan, Present, TableChange, Wanted};
use super::{Candidate, Names, Part, Publication, TableName};
use crate::config::Operation;

/// A table of which not all that is asked for is published, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// The table.
    pub table: TableName,
    /// Why Postgres would refuse to update or delete its rows, and of which partition.
    pub cause: String,
    /// What changes that, safest first.
    pub fix: String,
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.table, self.cause)
    }
}

/// Why Postgres refuses to update or delete rows of a table, published as it is, if it does.
pub(super) fn harm(
    candidate: &Candidate,
    wanted: &Wanted<'_>,
    present: Present<'_>,
) -> Option<Limited> {
    let main = present.main?;
    let updates = [Operation::Update, Operation::Delete];
    if !updates.iter().any(|operation| main.operations.contains(operation)) {
        return None;
    }
    let table = &candidate.table;
    let part = Part {
        columns: main.tables.get(table).and_then(|published| published.columns.as_deref()),
        condition: main.conditions.get(table).map(Vec::as_slice).unwrap_or_default(),
        generated: main.generated,
    };
    limited(candidate, part, wanted.server_version)
}

/// Why a table can't be published with its updates and deletes, if it can't.
pub(super) fn limited(
    candidate: &Candidate,
    part: Part<'_>,
    server_version: u32,
) -> Option<Limited> {
    let mut refused = candidate.refused(part, server_version);
    let (leaf, why) = refused.next()?;
    let others = refused.count();
    let of = match leaf.table == candidate.table {
        true => String::new(),
        false => format!("partition {}: ", leaf.table),
    };
    let (more, each) = match others {
        0 => (String::new(), ""),
        others => (format!(" (and {others} more)"), " (of each of these partitions)"),
    };
    Some(Limited {
        table: candidate.table.clone(),
        cause: format!("{of}{why}{more}"),
        fix: leaf.fix(server_version) + each,
    })
}

/// Why a table stays in the publication for inserts though it could leave it. Who could have it leave
/// is told what to run: to be a member of its owner is more than a replication role should have.
pub(super) fn kept_back(
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
            "as a DBA: {} (then ask for a snapshot of it: rows that were updated or deleted \
             meanwhile are not known)",
            plan.script(names)
        ),
    })
}
