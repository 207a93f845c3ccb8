//! What speaks against a start: the server's settings, the role's rights, a slot that is another's.

use std::collections::BTreeMap;

use tokio_postgres::Client;

use super::topics::Assignment;
use crate::config::Resolved;
use crate::postgres::preflight::{self, Intent, Shortfall};
use crate::postgres::publication::manage::Look;
use crate::postgres::publication::streamed::in_effect;
use crate::postgres::publication::{self, Candidate, Names, TableName};
use crate::postgres::slot::SlotState;
use crate::postgres::{self, client};

/// The first version that decodes on a standby.
const STANDBY_SINCE: u32 = 160_000;

/// An error that names all shortfalls, if any.
pub(super) fn refuse(shortfalls: Vec<Shortfall>) -> Result<(), postgres::Error> {
    if shortfalls.is_empty() { Ok(()) } else { Err(postgres::Error::Preflight { shortfalls }) }
}

/// Refuses a standby that can't decode, or on which something would have to be created.
pub(super) async fn refuse_standby(
    client: &Client,
    version: u32,
    manage: bool,
    has_streamed: bool,
) -> Result<(), postgres::Error> {
    let is_too_old = version < STANDBY_SINCE;
    if (is_too_old || manage) && client::in_recovery(client).await? {
        return Err(postgres::Error::Standby { is_too_old, has_streamed });
    }
    Ok(())
}

/// A table that was created later and can't have its configured key does not end the stream: it is
/// left out until it can, as in each check, which logs it. A published table with an impossible key
/// is refused.
pub(super) async fn leave_out_unkeyed(
    client: &Client,
    settings: &Resolved,
    look: &mut Look,
) -> Result<(), postgres::Error> {
    let Look { survey, keys, plan, version, .. } = look;
    if keys.refused.is_empty() || survey.main.is_none() {
        return Ok(());
    }
    let streamed = in_effect(client, Names::of(settings).both(), *version).await?;
    let is_streamed = |table: &TableName| {
        survey.present().has(table) || streamed.iter().any(|of| of.table == *table)
    };
    let mut refused = BTreeMap::new();
    for (table, fault) in std::mem::take(&mut keys.refused) {
        // A partition is published with its root.
        let members = publication::with_ancestors(client, &table).await?;
        if members.iter().any(is_streamed) {
            refused.insert(table, fault);
        } else {
            plan.keep_out(|other| members.contains(other));
        }
    }
    keys.refused = refused;
    Ok(())
}

/// What prevents a start, of the server and of the role's rights.
pub(super) async fn check(
    client: &Client,
    settings: &Resolved,
    look: &Look,
    slot: &SlotState,
) -> Result<Vec<Shortfall>, postgres::Error> {
    let intent = Intent {
        names: Names::of(settings),
        present: look.survey.main.as_ref(),
        plan: &look.plan,
        new_slot: (*slot == SlotState::Absent).then_some(settings.slot.as_str()),
        manage: settings.manage,
    };
    preflight::check(client, &intent).await
}

/// What prevents the role from reading the tables of the first snapshot.
pub(super) async fn check_reading(
    client: &Client,
    settings: &Resolved,
    look: &Look,
    assignment: &Assignment,
) -> Result<Vec<Shortfall>, postgres::Error> {
    let wanted = |candidate: &&Candidate| {
        let TableName { schema, name } = &candidate.table;
        let mut left_out = look.plan.left_out.iter();
        settings.captured.matches(schema, name)
            && !left_out.any(|limited| limited.table == candidate.table)
            && !assignment.is_out(&candidate.table)
    };
    let tables = look.survey.candidates.iter().filter(wanted);
    let tables: Vec<TableName> = tables.map(|candidate| candidate.table.clone()).collect();
    preflight::check_reading(client, &tables).await
}

/// Why the existing slot of this name can't be used, if so.
pub(super) fn unusable(name: &str, state: &SlotState) -> Option<Shortfall> {
    match state {
        SlotState::Foreign { plugin, database } => Some(Shortfall {
            cause: format!(
                "the slot {name:?} is for the plugin {} in database {}, not for pgoutput here",
                plugin.as_deref().unwrap_or("(physical)"),
                database.as_deref().unwrap_or("(none)")
            ),
            fix: "set postgres.slot to another name".to_owned(),
        }),
        _ => None,
    }
}
