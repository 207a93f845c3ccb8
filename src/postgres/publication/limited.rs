//! Finds tables that can be published only in part, and why. Pure.

use std::fmt;

use super::{Candidate, Part, Publication, TableName};
use crate::config::Operation;

/// A table that is published only in part, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// The table.
    pub table: TableName,
    /// Why Postgres would refuse to update or delete its rows, and of which partition.
    pub cause: String,
    /// The fixes, safest first.
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
    main: &Publication,
    server_version: u32,
) -> Option<Limited> {
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
    limited(candidate, part, server_version)
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
