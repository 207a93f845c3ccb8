//! Publication and slot, found or made; gives the position where the stream starts.
//!
//! Nothing is made before all that is needed was checked, so a first run with too few rights leaves
//! nothing half done, and tells everything that is missing at once.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::topics::View;
use super::{Bridge, start};
use crate::admin::LeftOutReason;
use crate::checkpoint::Checkpoint;
use crate::config::{Resolved, SnapshotMode, TableFilter};
use crate::error::{self, Error};
use crate::lsn::Lsn;
use crate::postgres::filters::{self, Filters, Server};
use crate::postgres::keys::{self, KeyFaults};
use crate::postgres::preflight::{self, Intent, Shortfall};
use crate::postgres::publication::{
    self, Candidate, Publication, PublicationChange, TableName, Wanted, forgetful,
};
use crate::postgres::slot::{self, SlotState};
use crate::postgres::{self, ConnectOptions, ReplicationClient, SlotOptions, SlotSnapshot};
use crate::route::{Named, Router};
use crate::snapshot::{Plan, Scope, plan};

/// The first version that has failover slots.
const FAILOVER_SINCE: u32 = 170_000;

/// Longest wait for the answer to a replication command, where `watchdog` sets none.
const ANSWER: Duration = Duration::from_secs(60);

/// What mends a table that can't be published for want of a replica identity.
pub(super) const IDENTITY_FIX: &str = "\
    ALTER TABLE ... REPLICA IDENTITY FULL, add a primary key, or name the table exactly in \
    postgres.tables if its rows are never updated or deleted";

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
        publication: &settings.publication,
        server_version,
        captured: &settings.captured,
        is_limited,
        settings: &settings.tables,
    }
}

/// Finds or makes what the stream needs, given the checkpoint of the pipeline. `announce` makes a
/// checkpoint durable.
pub(super) async fn prepare(
    bridge: &Bridge,
    checkpoint: Option<&Checkpoint>,
    announce: impl AsyncFnOnce(Checkpoint) -> Result<(), Error>,
) -> Result<Start, Error> {
    let Bridge { settings, conninfo: info, .. } = bridge;
    let client = postgres::client::connect(info, &connect_options(settings)).await?;
    let version = postgres::client::server_version(&client).await?;
    let name = &settings.publication;
    let (present, candidates) = publication::survey(&client, name, version).await?;
    let server = Server { version, present: present.as_ref() };
    let filters = filters::settle(&client, settings, &candidates, server).await?;
    let tables = candidates.iter().map(|candidate| &candidate.table);
    let keys = keys::check(&client, settings, present.as_ref(), tables, version).await?;
    let mut change =
        publication::plan(&candidates, &wanted(settings, &filters, version), present.as_ref());
    let noted = checkpoint.into_iter().flat_map(|before| &before.snapshots.left_out);
    let noted = noted.map(|table| table.oid).chain(bridge.left_out.oids(LeftOutReason::Topic));
    let view = View { settings, version, present: present.as_ref(), change: &change };
    let assignment = bridge.assign_topics(&client, view, &noted.collect()).await?;
    assignment.keep_out(&mut change);
    let slot = slot::state(&client, &settings.slot, info.database()).await?;

    let intent = Intent {
        publication: name,
        present: present.as_ref(),
        change: &change,
        new_slot: (slot == SlotState::Absent).then_some(settings.slot.as_str()),
        manage: settings.manage,
    };
    let mut shortfalls = preflight::check(&client, &intent).await?;
    shortfalls.extend(filters.shortfalls);
    shortfalls.extend(keys.refused.into_values());
    shortfalls.extend(unusable(&settings.slot, &slot));
    if !shortfalls.is_empty() {
        return Err(postgres::Error::Preflight { shortfalls }.into());
    }
    for note in filters.notes.iter().chain(&keys.notes) {
        tracing::warn!("{note}");
    }
    if forgetful::is_forgetful(version) && !bridge.has_streamed() {
        tracing::warn!(
            version,
            "the server is of before May 2025: a table that is put into a publication while a \
             transaction writes to it may be left out from then on, in silence, unless its rows are \
             read too; install its newest minor release"
        );
    }
    let options = connect_options(settings);
    let mut course = start::course(settings, info, &options, &slot, checkpoint).await?;
    if course.takes_snapshot {
        let wanted = |candidate: &&Candidate| {
            let TableName { schema, name } = &candidate.table;
            settings.captured.matches(schema, name)
                && !change.without_identity.contains(&candidate.table)
                && !assignment.is_out(&candidate.table)
        };
        let tables: Vec<TableName> =
            candidates.iter().filter(wanted).map(|candidate| candidate.table.clone()).collect();
        let shortfalls = preflight::check_reading(&client, &tables).await?;
        if !shortfalls.is_empty() {
            return Err(postgres::Error::Preflight { shortfalls }.into());
        }
    }
    if course.makes_slot {
        bridge.rehearse(&client, version, &assignment, &filters.published).await?;
    }
    let is_read = settings.snapshot.mode != SnapshotMode::Never;
    let notes = &mut Arc::make_mut(&mut course.snapshots).left_out;
    let noted_before = notes.clone();
    let settled = assignment.settle_notes(notes, &change, is_read);
    course.is_new |= *notes != noted_before;
    bridge.list_left_out(&assignment, &settled);
    // Where a stream goes on, a table is put in only when it is noted that its rows are missing.
    let goes_on = checkpoint.is_some() && present.is_some() && !course.makes_slot;
    let with_rows = goes_on && settings.manage && is_read;
    let added = if with_rows { std::mem::take(&mut change.add) } else { Vec::new() };
    publish(&client, settings, present.as_ref(), &change).await?;
    let is_whole = present.as_ref().is_some_and(|publication| !publication.is_by_table);
    let captured = is_whole.then(|| settings.captured.clone());
    let (mut made_at, mut export) = (None, None);
    if course.makes_slot {
        let mut planned = None;
        if course.takes_snapshot {
            let plan = plan::plan(&client, &scope(settings, version, is_whole)).await?;
            if !plan.shortfalls.is_empty() {
                return Err(postgres::Error::Preflight { shortfalls: plan.shortfalls }.into());
            }
            planned = Some(plan);
            announce(Checkpoint::intent(course.source.clone(), course.generation)).await?;
        }
        slot::drop(&client, &settings.slot).await?;
        let (lsn, exported) = create_slot(bridge, version, planned).await?;
        bridge.slot_created(checkpoint.is_none_or(Checkpoint::is_intent));
        (made_at, export) = (Some(lsn), exported);
    }
    let checkpoint = course.checkpoint(made_at);
    // The slot itself may stand before it; the server leaves out what lies between.
    let lsn = checkpoint.progress.through_lsn;
    let last_commit_lsn = made_at.is_none().then_some(lsn);
    let settled = settled.into_iter().map(|Named { schema, name, .. }| TableName { schema, name });
    let added = added.into_iter().map(|added| added.table).chain(settled).collect();
    let (is_new, router) = (course.is_new, assignment.router);
    Ok(Start { lsn, checkpoint, is_new, last_commit_lsn, captured, added, router, export })
}

const fn wanted<'a>(
    settings: &'a Resolved,
    filters: &'a Filters,
    server_version: u32,
) -> Wanted<'a> {
    Wanted {
        server_version,
        captured: &settings.captured,
        skipped: settings.skipped.as_slice(),
        via_root: settings.via_root,
        published: &filters.published,
    }
}

/// What the publication lacks of what is captured: `add` and `without_identity`, nothing else. With
/// what speaks against configured keys: a table that can't be keyed by them is not among these.
///
/// # Errors
/// When the server can't be asked, or a filter does not fit its table.
pub(super) async fn missing(
    client: &Client,
    settings: &Resolved,
) -> Result<(PublicationChange, KeyFaults), postgres::Error> {
    let version = postgres::client::server_version(client).await?;
    let survey = publication::survey(client, &settings.publication, version).await?;
    let (present, mut candidates) = survey;
    let Some(present) = present.filter(|publication| publication.is_by_table) else {
        return Ok(Default::default());
    };
    let tables = candidates.iter().map(|candidate| &candidate.table);
    let keys = keys::check(client, settings, Some(&present), tables, version).await?;
    candidates.retain(|candidate| {
        let is_new = !present.tables.contains_key(&candidate.table);
        is_new && !keys.refused.contains_key(&candidate.table)
    });
    let server = Server { version, present: Some(&present) };
    let filters = filters::settle(client, settings, &candidates, server).await?;
    if !filters.shortfalls.is_empty() {
        return Err(postgres::Error::Preflight { shortfalls: filters.shortfalls });
    }
    let planned =
        publication::plan(&candidates, &wanted(settings, &filters, version), Some(&present));
    let PublicationChange { add, without_identity, .. } = planned;
    Ok((PublicationChange { add, without_identity, ..PublicationChange::default() }, keys))
}

/// Brings the column list of a table that was altered up to date, as far as the configuration asks
/// for it and the role may: a column list does not take new columns in by itself.
///
/// The server applies it to what is written from now on. A failure is only logged: nothing that
/// should stay hidden gets out by it, and the next start tries again.
pub(super) async fn follow(client: &Client, settings: &Resolved, oid: u32) {
    let altered = match altered(client, settings, oid).await {
        Ok(Some(change)) => change,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(error = error::told(&error), "the publication can't be kept up to date");
            return;
        }
    };
    let (publication, altered) = (&settings.publication, list(&altered.alter));
    tracing::info!(publication, altered, "publication altered, as the table was");
}

async fn altered(
    client: &Client,
    settings: &Resolved,
    oid: u32,
) -> Result<Option<PublicationChange>, postgres::Error> {
    let Some(candidate) = publication::candidate(client, oid).await? else { return Ok(None) };
    let TableName { schema, name } = &candidate.table;
    if !settings.manage || settings.tables.columns(schema, name).is_none() {
        return Ok(None);
    }
    let version = postgres::client::server_version(client).await?;
    let present = publication::find(client, &settings.publication, version).await?;
    let server = Server { version, present: present.as_ref() };
    let candidates = [candidate];
    let filters = filters::settle(client, settings, &candidates, server).await?;
    if !filters.shortfalls.is_empty() {
        return Err(postgres::Error::Preflight { shortfalls: filters.shortfalls });
    }
    let planned =
        publication::plan(&candidates, &wanted(settings, &filters, version), present.as_ref());
    // Of the other tables nothing was asked, so nothing may be done to them.
    let change = PublicationChange { alter: planned.alter, ..PublicationChange::default() };
    if change.is_empty() {
        return Ok(None);
    }
    publication::apply(client, &settings.publication, &change).await?;
    Ok(Some(change))
}

/// Puts a table into the publication that is not in it yet. Returns whether it was put in just now.
///
/// # Errors
/// When it may not be, or must not be.
pub(super) async fn publish_table(
    client: &Client,
    settings: &Resolved,
    table: &TableName,
) -> Result<bool, postgres::Error> {
    let TableName { schema, name } = table;
    let version = postgres::client::server_version(client).await?;
    if publication::part(client, &settings.publication, table, version).await?.is_some() {
        return Ok(false);
    }
    let refused = |cause: String, fix: String| postgres::Error::Preflight {
        shortfalls: vec![Shortfall { cause, fix }],
    };
    let present = publication::find(client, &settings.publication, version).await?;
    let mut candidates = publication::candidates(client).await?;
    // A partition is published with its root, however its changes are told.
    let names = publication::with_ancestors(client, table).await?;
    candidates.retain(|candidate| names.contains(&candidate.table));
    let server = Server { version, present: present.as_ref() };
    let mut filters = filters::settle(client, settings, &candidates, server).await?;
    let tables = candidates.iter().map(|candidate| &candidate.table);
    let keys = keys::check(client, settings, present.as_ref(), tables, version).await?;
    filters.shortfalls.extend(keys.refused.into_values());
    if !filters.shortfalls.is_empty() {
        return Err(postgres::Error::Preflight { shortfalls: filters.shortfalls });
    }
    let planned =
        publication::plan(&candidates, &wanted(settings, &filters, version), present.as_ref());
    let change = PublicationChange { add: planned.add, ..PublicationChange::default() };
    let statements = || change.sql(&settings.publication).join("; ") + ";";
    if planned.create || change.is_empty() {
        return Err(refused(
            format!(
                "{schema}.{name} can't be put into the publication {:?}: it has no replica \
                 identity, or one of the two is gone",
                settings.publication
            ),
            "ALTER TABLE ... REPLICA IDENTITY FULL, or add a primary key".to_owned(),
        ));
    }
    if !settings.manage || !planned.not_owned.is_empty() {
        return Err(refused(
            format!(
                "{schema}.{name} is not in the publication {:?}, and this role may not, or \
                 postgres.manage says not to, put it in",
                settings.publication
            ),
            format!("as a DBA: {}", statements()),
        ));
    }
    publication::apply(client, &settings.publication, &change).await?;
    let (publication, added) = (&settings.publication, list(&change.add));
    tracing::info!(publication, added, "publication altered, for a snapshot");
    Ok(true)
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

async fn publish(
    client: &Client,
    settings: &Resolved,
    present: Option<&Publication>,
    change: &PublicationChange,
) -> Result<(), Error> {
    let name = &settings.publication;
    if !change.without_identity.is_empty() {
        tracing::warn!(
            tables = list(&change.without_identity),
            fix = IDENTITY_FIX,
            "left out: Postgres would refuse to update or delete their rows once published"
        );
    }
    if present.is_some_and(|publication| !publication.is_by_table) {
        tracing::info!(publication = name, "it is for all tables or whole schemas; left as it is");
        return Ok(());
    }
    if change.is_empty() {
        return Ok(());
    }
    if !settings.manage {
        tracing::warn!(
            publication = name,
            missing = list(&change.add),
            surplus = list(&change.remove),
            other = list(&change.alter),
            operations = ?change.operations,
            via_partition_root = ?change.via_root,
            "it is not as configured; postgres.manage is false, so it stays"
        );
        return Ok(());
    }
    publication::apply(client, name, change).await?;
    tracing::info!(
        publication = name,
        added = list(&change.add),
        removed = list(&change.remove),
        altered = list(&change.alter),
        operations = ?change.operations,
        via_partition_root = ?change.via_root,
        "{}",
        if change.create { "publication created" } else { "publication altered" }
    );
    if change.create && change.add.is_empty() {
        tracing::warn!(tables = ?settings.captured, "no table matches postgres.tables yet");
    }
    Ok(())
}

/// Names for a log line, which stays one that can be read: of many, the first and how many more.
pub(super) fn list<T: ToString>(items: &[T]) -> String {
    const LISTED: usize = 20;
    let names: Vec<String> = items.iter().take(LISTED).map(ToString::to_string).collect();
    match items.len().saturating_sub(LISTED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
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
        ReplicationClient::connect(&bridge.conninfo, &connect_options(settings)).await?;
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

/// How every connection of a bridge is made.
pub(super) fn connect_options(settings: &Resolved) -> ConnectOptions {
    ConnectOptions {
        connect_timeout: settings.connect_timeout,
        application_name: format!("rowcast {}", settings.name),
        status_interval: settings.status_interval,
        answer_timeout: settings.watchdog.server_silent_after.unwrap_or(ANSWER),
    }
}
