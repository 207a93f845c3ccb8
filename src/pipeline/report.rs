//! Logs tables as they are described, and changes that can't be published. Names of tables and
//! columns, never values.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::change::{Change, Op, Relation};
use crate::encode::{EncodeError, Records};
use crate::error::Error;
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::postgres::publication::TableName;
use crate::route::TopicPlan;

/// Most columns that are remembered as logged.
const TOLD_OF: usize = 4096;

/// Whether the stream may skip a change that can't be published; logs the first of each table and
/// reason.
#[cold]
pub(crate) fn go_on_without(
    change: &Change<'_>,
    lsn: Lsn,
    source: &EncodeError,
    goes_on: bool,
    told: &mut HashSet<(u32, &'static str)>,
) -> Result<(), Error> {
    let error = match change.op() {
        Op::Read => Error::EncodeRow(source.clone()),
        _ => Error::Encode { lsn, position: change.position, source: source.clone() },
    };
    let (true, Some(reason)) = (goes_on, source.reason()) else { return Err(error) };
    let relation = change.relation();
    if told.insert((relation.map_or(0, |relation| relation.oid), reason)) {
        tracing::warn!(
            table = relation.map(|relation| relation.full_name.as_str()),
            reason,
            error = error.told(),
            fix = error.fix(),
            "sent to the dead letter topic; further ones of this kind are only counted"
        );
    }
    Ok(())
}

/// Counts characters that were replaced because readers refuse them; logs the first of each column,
/// across all publishers: the stream, and each connection of a snapshot.
#[cold]
pub(crate) fn report_replaced(change: &Change<'_>, records: &Records, metrics: &Metrics) {
    static TOLD: Mutex<BTreeSet<(u32, String)>> = Mutex::new(BTreeSet::new());
    let Some(relation) = change.relation() else { return };
    for &(at, count) in records.replaced() {
        metrics.json_replaced.inc_by(count);
        let column = relation.columns.get(at).map_or("", |column| &column.name);
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        // Tables are created and dropped: what was logged long ago may be logged again.
        if told.len() >= TOLD_OF {
            told.clear();
        }
        if told.insert((relation.oid, column.to_owned())) {
            tracing::warn!(
                table = relation.full_name,
                column,
                "JSON with a lone surrogate, which readers refuse: publishing U+FFFD instead; \
                 further ones in this column are only counted"
            );
        }
    }
}

/// Logs what an operator may want to know about a described table.
pub(crate) fn report(
    before: Option<&Relation>,
    relation: &Relation,
    plan: &TopicPlan,
    has_old_rows: bool,
) {
    let table = relation.full_name.as_str();
    tracing::debug!(
        table,
        topic = &*plan.name,
        key = ?relation.key_source,
        columns = relation.columns.len(),
        "table described"
    );
    let names = |relation: &Relation| relation.key_names().collect::<Vec<_>>().join(", ");
    match before {
        Some(before) if before.full_name != table => tracing::info!(
            from = before.full_name,
            to = table,
            topic = &*plan.name,
            "table renamed: its topic changes with its name"
        ),
        Some(before) if !before.key_names().eq(relation.key_names()) => tracing::warn!(
            table,
            before = names(before),
            now = names(relation),
            "the table's key has changed: its rows have other keys from here on"
        ),
        _ => {}
    }
    for disagreement in &relation.disagreements {
        tracing::warn!(
            table,
            "catalog is newer than the stream; using the stream's definition: {disagreement}"
        );
    }
    let unkeyed: Vec<&str> = relation.key_outside_identity().collect();
    if has_old_rows && !unkeyed.is_empty() {
        let name = TableName { schema: relation.schema.clone(), name: relation.table.clone() };
        let fix = format!("ALTER TABLE {} REPLICA IDENTITY FULL; and each partition", name.sql());
        tracing::error!(
            table,
            columns = unkeyed.join(", "),
            fix,
            "the replica identity lacks columns of the configured key: a DELETE can't be keyed \
             and is handled by errors.on_error, and an UPDATE of these columns leaves the row \
             under its old key"
        );
    }
}
