//! What the worker tells an operator: of tables as they are described, and of rows that can't be
//! published. Names of tables and columns, never values.

use std::collections::HashSet;

use crate::change::{Change, Op, Relation};
use crate::encode::EncodeError;
use crate::error::Error;
use crate::lsn::Lsn;
use crate::route::TopicPlan;

/// Whether the stream may go on without a change that can't be published; logs the first of each
/// table and reason.
#[cold]
pub(super) fn go_on_without(
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
    let Some(relation) = change.relation() else { return Err(error) };
    if told.insert((relation.oid, reason)) {
        tracing::warn!(
            table = relation.full_name,
            reason,
            error = error.told(),
            fix = error.fix(),
            "sent to the dead letter topic; more of the kind are only counted"
        );
    }
    Ok(())
}

/// Logs what an operator may want to know of a table that was described.
pub(super) fn report(before: Option<&Relation>, relation: &Relation, plan: &TopicPlan) {
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
            "table renamed: its topic follows its name"
        ),
        Some(before) if !before.key_names().eq(relation.key_names()) => tracing::warn!(
            table,
            before = names(before),
            now = names(relation),
            "the table's key has changed: its rows stand under other keys from here on"
        ),
        _ => {}
    }
    for disagreement in &relation.disagreements {
        tracing::warn!(
            table,
            "the catalog of now differs from the stream of then, which is followed: {disagreement}"
        );
    }
    let unkeyed: Vec<&str> = relation.key_outside_identity().collect();
    if !unkeyed.is_empty() {
        tracing::warn!(
            table,
            columns = unkeyed.join(", "),
            "a delete of this table can't be keyed, and will stop the stream: its replica identity \
             lacks configured key columns; ALTER TABLE ... REPLICA IDENTITY FULL"
        );
    }
}
