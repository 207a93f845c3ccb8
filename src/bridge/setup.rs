//! Publication and slot, found or made; gives the position where the stream starts.
//!
//! Nothing is made before all that is needed was checked, so a first run with too few rights leaves
//! nothing half done, and tells everything that is missing at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_postgres::Client;

use super::topics::{Assignment, View};
use super::{Bridge, resume_point, signal_table};
use crate::checkpoint::Checkpoint;
use crate::config::{Resolved, SnapshotMode, TableFilter};
use crate::error::Error;
use crate::lsn::Lsn;
use crate::postgres::filters::{Asked, Probes};
use crate::postgres::preflight::{self, Intent, Shortfall};
use crate::postgres::publication::manage::{self, Look};
use crate::postgres::publication::streamed::in_effect;
use crate::postgres::publication::{
    self, Candidate, Names, PublicationChange, Published, TableName, forgetful,
};
use crate::postgres::slot::{self, SlotState};
use crate::postgres::{self, ConnectOptions, ReplicationClient, SlotOptions, SlotSnapshot, client};
use crate::route::{Named, Router};
use crate::snapshot::{Plan, Scope, plan};
use crate::state::LeftOutReason;

/// The first version that has failover slots.
const FAILOVER_SINCE: u32 = 170_000;

/// The first version that decodes on a standby.
const STANDBY_SINCE: u32 = 160_000;

/// Where a stream starts.
pub(super) struct Start {
    /// The position to ask the server for.
    pub(super) lsn: Lsn,
    /// What is published so far.
    pub(super) checkpoint: Checkpoint,
    /// Whether the checkpoint is not in its topic yet.
    pub(super) is_new: bool,
    /// Up to where commits were streamed from this slot before; none from one that was just made.
    pub(super) last_commit_lsn: Option<Lsn>,
    /// The tables to publish, where the publication can't be limited to them.
    pub(super) captured: Option<TableFilter>,
    /// Tables that are to come to the publication, and with them the rows that they have.
    pub(super) added: Vec<TableName>,
    /// Knows which table has which topic.
    pub(super) router: Router,
    /// The snapshot that is to be published first.
    pub(super) export: Option<Export>,
}

/// A snapshot that shows the database as it is where a slot starts.
pub(super) struct Export {
    /// Its name, for those who import it.
    pub(super) name: String,
    /// Keeps it until all have done so.
    pub(super) keeper: ReplicationClient,
    /// What is to be read, as it was before.
    pub(super) plan: Plan,
    /// The server's version.
    pub(super) server_version: u32,
}

/// What of the database a snapshot reads.
pub(super) fn scope(settings: &Resolved, server_version: u32, is_limited: bool) -> Scope<'_> {
    Scope {
        publications: Names::of(settings).both(),
        server_version,
        captured: &settings.captured,
        is_limited,
        settings: &settings.tables,
        signals: settings.signal_table.as_ref(),
    }
}

/// Finds or makes what the stream needs, given the checkpoint of the pipeline. `announce` makes a
/// checkpoint durable.
pub(super) async fn prepare(
    bridge: &Bridge,
    checkpoint: Option<&Checkpoint>,
    announce: impl AsyncFnOnce(Checkpoint) -> Result<(), Error>,
) -> Result<Start, Error> {
    let Bridge { conninfo: info, .. } = bridge;
    let client = client::connect(info, &ConnectOptions::of(&bridge.settings)).await?;
    let version = client::server_version(&client).await?;
    let (manage, has_streamed) = (bridge.settings.manage, bridge.has_streamed());
    refuse_standby(&client, version, manage, has_streamed).await?;
    let through = checkpoint.map_or(Lsn::ZERO, |before| before.progress.through_lsn);
    let named = bridge.look_at_names(&client, through).await?;
    let settings = &named.settings_of_published(&bridge.settings);
    let names = Names::of(settings);
    let altering = bridge.altering.lock().await;
    let planned_at = *altering;
    let survey = publication::survey(&client, names, version).await?;
    let slot = slot::state(&client, &settings.slot, info.database()).await?;
    let slot = bridge.with_lost_wal(slot);
    let exists = survey.inserts.is_some();
    let is_named = bridge.may_name_second(&client, &slot, checkpoint, exists).await?;
    let goes_on = checkpoint.is_some_and(|before| !before.is_intent());
    // Where rows are published already, no lock of the application holds a start up.
    let mut probes = Probes::new(if goes_on { Asked::Unlocked } else { Asked::All });
    let mut look = manage::plan(&client, settings, survey, is_named, (true, &mut probes)).await?;
    look.plan.keep_out(|table| look.filters.unknown.contains(table));
    // What is published of a locked table may stay as it is, but not under another filter than before.
    let present = look.survey.present();
    let is_other = |table: &&TableName| {
        present.part(table).is_some() && named.keeps_back_otherwise(&bridge.settings, table)
    };
    if let Some(table) = look.filters.unknown.iter().find(is_other) {
        return Err(postgres::Error::Altered { table: table.to_string() }.into());
    }
    if goes_on {
        leave_out_unkeyed(&client, settings, &mut look).await?;
    }
    bridge.show_limits(&look);
    if !manage::may_alter(settings, &look.survey) {
        // That is a warning, and no reason not to start.
        let urgent = look.plan.urgent();
        look.plan.main.remove.retain(|table| !urgent.contains(table));
        if !look.plan.main.create {
            look.plan.inserts = PublicationChange::default();
        }
    }
    let noted = checkpoint.into_iter().flat_map(|before| &before.snapshots.left_out);
    let noted = noted.map(|table| table.oid).chain(bridge.left_out.oids(LeftOutReason::Topic));
    let view = View { settings, version, present: look.survey.present(), plan: &look.plan };
    let assignment = bridge.assign_topics(&client, view, &noted.collect()).await?;
    assignment.keep_out(&mut look.plan);

    let mut signals = signal_table::look(&client, settings, &look).await?;
    let mut shortfalls = check(&client, settings, &look, &slot).await?;
    if !bridge.has_streamed() {
        shortfalls.append(&mut signals.shortfalls);
    }
    shortfalls.extend(look.filters.shortfalls.drain(..).map(|(_, shortfall)| shortfall));
    shortfalls.extend(std::mem::take(&mut look.keys.refused).into_values());
    shortfalls.extend(named.shortfalls.iter().cloned());
    shortfalls.extend(unusable(&settings.slot, &slot));
    // All of it in one round: a first start reads rows too.
    let is_first = slot == SlotState::Absent && checkpoint.is_none();
    if is_first && settings.snapshot.mode != SnapshotMode::Never {
        shortfalls.extend(check_reading(&client, settings, &look, &assignment).await?);
    }
    if !shortfalls.is_empty() {
        return Err(postgres::Error::Preflight { shortfalls }.into());
    }
    for note in look.filters.notes.iter().chain(&look.keys.notes) {
        tracing::warn!("{note}");
    }
    bridge.tell_of_refused_ddl(&look);
    named.tell();
    bridge.note_signal_table(signals);
    // What follows waits for Kafka, and what the application needs to be altered does not.
    drop(altering);
    // Durable before anything of the tables is published under these settings.
    bridge.settle_names(named).await?;
    if forgetful::is_forgetful(version) && !bridge.has_streamed() {
        tracing::warn!(
            version,
            "the server is of before May 2025: a table that is put into a publication while a \
             transaction writes to it may be left out from then on, in silence, unless its rows are \
             read too; install its newest minor release"
        );
    }
    let options = ConnectOptions::of(settings);
    let existing = Arc::clone(&bridge.known_topics().existing);
    let is_stranded = checkpoint.is_none()
        && !bridge.has_streamed()
        && !assignment.has_any(&existing)
        && slot::was_read(&client, &settings.slot).await?;
    let mut course =
        resume_point::course(settings, info, &options, &slot, checkpoint, is_stranded).await?;
    if course.takes_snapshot && !is_first {
        let shortfalls = check_reading(&client, settings, &look, &assignment).await?;
        if !shortfalls.is_empty() {
            return Err(postgres::Error::Preflight { shortfalls }.into());
        }
    }
    if course.makes_slot {
        bridge.rehearse(&client, version, &assignment, &look.filters.published).await?;
    }
    let is_read = settings.snapshot.mode != SnapshotMode::Never;
    let notes = &mut Arc::make_mut(&mut course.snapshots).left_out;
    let noted_before = notes.clone();
    let settled = assignment.settle_notes(notes, &look.plan, is_read);
    course.is_new |= *notes != noted_before;
    bridge.list_left_out(&assignment, &settled);
    // Where a stream goes on, a table is put in only when it is noted that its rows are missing.
    let goes_on = checkpoint.is_some() && look.survey.main.is_some() && !course.makes_slot;
    let with_rows = goes_on && settings.manage && is_read;
    let added = if with_rows {
        look.plan.put_off_gains(|of| !settings.hides(&of.schema, &of.name))
    } else {
        Vec::new()
    };
    let altering = bridge.altering.lock().await;
    if *altering != planned_at {
        return Err(postgres::Error::Altered { table: names.main.to_owned() }.into());
    }
    manage::publish(&client, settings, &look.survey, &look.plan).await?;
    let exists = exists || (settings.manage && look.plan.inserts.create);
    if exists && look.survey.inserts.is_none() {
        bridge.second.exists_since(client::wal_end(&client).await?);
    }
    let is_whole = look.survey.main.as_ref().is_some_and(|publication| !publication.is_by_table);
    let captured = is_whole.then(|| bridge.settings.captured.clone());
    let (mut made_at, mut export) = (None, None);
    // A slot may be long in coming, and the tables are published already.
    bridge.second.set_named(exists && (is_named || course.makes_slot));
    drop(altering);
    bridge.set_guards(true);
    if course.makes_slot {
        let mut planned = None;
        if course.takes_snapshot {
            let plan = plan::plan(&client, &scope(settings, version, is_whole)).await?;
            if !plan.shortfalls.is_empty() {
                return Err(postgres::Error::Preflight { shortfalls: plan.shortfalls }.into());
            }
            planned = Some(plan);
        }
        let announce = if course.takes_snapshot {
            announce(Checkpoint::intent(course.source.clone(), course.generation)).await?;
            None
        } else {
            Some(announce)
        };
        slot::drop(&client, &settings.slot).await?;
        bridge.is_wal_lost.store(false, Ordering::Release);
        let (lsn, exported) = create_slot(bridge, version, planned).await?;
        bridge.slot_created(checkpoint.is_none_or(Checkpoint::is_intent));
        (made_at, export) = (Some(lsn), exported);
        // Without a snapshot the slot is all there is: a start that is killed before its first
        // checkpoint goes on from it.
        if let Some(announce) = announce {
            announce(course.checkpoint(made_at)).await?;
        }
    }
    let checkpoint = course.checkpoint(made_at);
    // The slot itself may stand before it; the server leaves out what lies between.
    let lsn = checkpoint.progress.through_lsn;
    let last_commit_lsn = made_at.is_none().then_some(lsn);
    let settled = settled.into_iter().map(|Named { schema, name, .. }| TableName { schema, name });
    let added = added.into_iter().chain(settled).collect();
    let (is_new, router) = (course.is_new, assignment.router);
    Ok(Start { lsn, checkpoint, is_new, last_commit_lsn, captured, added, router, export })
}

impl Bridge {
    /// The state of the slot, with what the server said of its WAL.
    fn with_lost_wal(&self, slot: SlotState) -> SlotState {
        match slot {
            SlotState::Idle { .. } if self.is_wal_lost.load(Ordering::Acquire) => {
                SlotState::Lost { reason: Some(slot::SEGMENT_MISSING.to_owned()) }
            }
            slot => slot,
        }
    }

    /// Whether the stream may name the publication for inserts from its start on.
    async fn may_name_second(
        &self,
        client: &Client,
        slot: &SlotState,
        checkpoint: Option<&Checkpoint>,
        exists: bool,
    ) -> Result<bool, postgres::Error> {
        let SlotState::Idle { confirmed } = slot else {
            // It is created before the slot is.
            return Ok(true);
        };
        if self.second.wants_wal_end() {
            self.second.exists_since(client::wal_end(client).await?);
        }
        let published = checkpoint.map_or(Lsn::ZERO, |found| found.progress.through_lsn);
        Ok(exists && self.second.may_be_named(published.max(*confirmed)))
    }
}

/// Refuses a standby that can't be decoded on, or where nothing can be created though it is to be.
async fn refuse_standby(
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

impl Bridge {
    /// Says once which tables' ALTERs Postgres will refuse for the publication, and what changes that.
    pub(super) fn tell_of_refused_ddl(&self, look: &Look) {
        if self.has_streamed() {
            return;
        }
        let tables = |has: fn(&Published) -> bool| -> Vec<&TableName> {
            let part = look.filters.published.iter().filter(|(_, part)| has(part));
            part.map(|(table, _)| table).collect()
        };
        let listed = tables(|part| part.columns.is_some());
        let filtered = tables(|part| part.condition.is_some());
        if !listed.is_empty() {
            tracing::info!(
                tables = manage::list(&listed),
                fix =
                    "postgres.column_lists = \"none\", with which rowcast alone leaves columns out",
                "the publication lists the columns of these tables: Postgres refuses DROP COLUMN and \
                 ALTER COLUMN ... TYPE of a listed column"
            );
        }
        if !filtered.is_empty() {
            tracing::info!(
                tables = manage::list(&filtered),
                "the publication filters the rows of these tables: Postgres refuses DROP COLUMN and \
                 ALTER COLUMN ... TYPE of a column that the condition looks at"
            );
        }
    }
}

/// A table that came while the stream went on and can't be keyed as configured ends no stream: it is
/// left out until it can be, as at each look, which logs it. One that is published is refused.
async fn leave_out_unkeyed(
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

/// What speaks against a start, of the server and of the role's rights.
async fn check(
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

/// What keeps the role from reading the tables whose rows are to come first.
async fn check_reading(
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

/// Why a slot of this name is not one to stream from, where it is another's.
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

/// Makes the slot, and the snapshot of its start where something is planned to be read.
async fn create_slot(
    bridge: &Bridge,
    version: u32,
    plan: Option<Plan>,
) -> Result<(Lsn, Option<Export>), Error> {
    let settings = &bridge.settings;
    if settings.failover && version < FAILOVER_SINCE {
        tracing::warn!("postgres.failover needs PostgreSQL 17; the slot is made without");
    }
    let mut client =
        ReplicationClient::connect(&bridge.conninfo, &ConnectOptions::of(settings)).await?;
    let options = SlotOptions {
        temporary: false,
        failover: settings.failover,
        snapshot: if plan.is_some() { SlotSnapshot::Export } else { SlotSnapshot::Nothing },
    };
    let created = bridge.create_slot(&mut client, &settings.slot, options).await?;
    tracing::info!(
        slot = settings.slot,
        consistent_point = %created.consistent_point,
        "replication slot created: the stream has every transaction that commits from now on"
    );
    let export = plan.zip(created.snapshot_name).map(|(plan, name)| {
        let server_version = version;
        Export { name, keeper: client, plan, server_version }
    });
    Ok((created.consistent_point, export))
}
