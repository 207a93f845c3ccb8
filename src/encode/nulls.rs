//! Nulls in columns that are `NOT NULL` in the catalog.
//!
//! The catalog describes the table as it is now, and not even every row of it:
//!
//! - the row was written before the constraint, and read from the WAL after it;
//! - PostgreSQL 18 has constraints that are `NOT VALID`, and the catalog may have changed since it
//!   was asked;
//! - a domain's `NOT NULL` is not checked where a value is taken from a scalar sub-select without rows.
//!
//! A schema that says "required" leaves no place for such a null, and what would be there instead
//! (`""`, 0, 1970-01-01) is a value that nobody wrote. So the column's schema becomes optional with
//! the first null that is met, and stays so until the table is described again.

use std::sync::Arc;

use super::plan::Plan;
use super::rules::RuleError;
use super::{Encoder, PlanId};
use crate::change::{Change, Data};
use crate::pgoutput::Datum;

impl Encoder {
    /// Makes the plan again where a row has a null that its schema has no place for.
    #[inline]
    pub(super) fn heed_nulls(&mut self, change: &Change<'_>, id: PlanId) -> Result<(), RuleError> {
        let plan = self.plans.get(id).filter(|plan| plan.has_required);
        let Some(plan) = plan else { return Ok(()) };
        if !nulls(plan, change).any(|_| true) {
            return Ok(());
        }
        let nullable: Vec<usize> =
            plan.nullable.iter().copied().chain(nulls(plan, change)).collect();
        let (relation, topic) = (Arc::clone(&plan.relation), plan.topic.clone());
        self.make_plan(&relation, topic.as_deref(), &nullable).map(drop)
    }
}

/// Places of required columns that are null in the row, before or after the change.
fn nulls<'p>(plan: &'p Plan, change: &Change<'p>) -> impl Iterator<Item = usize> + use<'p> {
    let (before, after) = match change.data {
        Data::Insert { after: row, .. } | Data::Read { row, .. } => (None, Some(row)),
        Data::Update { before, after, .. } => (before, Some(after)),
        Data::Delete { before, .. } => (Some(before), None),
        Data::Truncate { .. } | Data::Message { .. } => (None, None),
    };
    let is_required = |at: usize| plan.columns.get(at).is_some_and(|column| column.required);
    let before = before.into_iter().flat_map(move |row| {
        let values = row.tuple().into_iter().enumerate();
        // What the server does not send of an old row comes as a null that is none.
        values.filter(move |&(at, datum)| datum == Datum::Null && row.has(&plan.relation, at))
    });
    let after = after.into_iter().flat_map(move |row| {
        let values = row.tuple().into_iter().enumerate();
        values.filter(move |&(at, sent)| match sent {
            Datum::Unchanged => row.unchanged(&plan.relation, at) == Datum::Null,
            sent => sent == Datum::Null,
        })
    });
    before.chain(after).map(|(at, _)| at).filter(move |&at| is_required(at))
}
