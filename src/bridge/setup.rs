//! Finds or creates publication and slot, and returns the position where the stream starts.
//!
//! Nothing is created before everything that is needed was checked: a first run with too few rights
//! leaves nothing half done, and its error names everything that is missing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_postgres::Client;

use super::preconditions::{
    check, check_reading, leave_out_unkeyed, refuse, refuse_standby, unusable,
};
use super::renames::Findings;
use super::resume_point::Course;
use super::topics::{Assignment, View};
use super::{Bridge, resume_point, signal_table};
use crate::checkpoint::Checkpoint;
use crate::config::{Resolved, SnapshotMode, TableFilter};
use crate::error::Error;
use crate::lsn::Lsn;
use crate::postgres::filters::{Asked, Probes};
use crate::postgres::preflight::Shortfall;
use crate::postgres::publication::manage::{self, Look};
use crate::postgres::publication::{
    self, Names, PublicationChange, Published, TableName, forgetful,
};
use crate::postgres::slot::{self, SlotState};
use crate::postgres::{self, ConnectOptions, ReplicationClient, SlotOptions, SlotSnapshot, client};
use crate::route::{Named, Router};
use crate::snapshot::{Plan, Scope, plan};
use crate::state::LeftOutReason;

/// The first version that has failover slots.
const FAILOVER_SINCE: u32 = 170_000;

/// Where a stream starts.
pub(super) struct Start {
    /// The position to request from the server.
    pub(super) lsn: Lsn,
    /// What is published so far.
    pub(super) checkpoint: Checkpoint,
    /// Whether the checkpoint is not in its topic yet.
    pub(super) is_new: bool,
    /// End of the last commit streamed from this slot before; `None` for a new slot.
    pub(super) last_commit_lsn: Option<Lsn>,
    /// The tables to publish, if the publication can't be limited to them.
    pub(super) captured: Option<TableFilter>,
    /// Tables to be added to the publication with their existing rows.
    pub(super) added: Vec<TableName>,
    /// Maps tables to topics.
    pub(super) router: Router,
    /// The snapshot to publish first.
    pub(super) export: Option<Export>,
}

/// An exported snapshot that shows the database at a slot's start.
pub(super) struct Export {
    /// Its name, for import.
    pub(super) name: String,
    /// The connection that keeps it valid until all have imported it.
    pub(super) keeper: ReplicationClient,
    /// What to read, as planned before.
    pub(super) plan: Plan,
    /// The server's version.
    pub(super) server_version: u32,
}

/// What a snapshot reads.
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

/// Finds or creates what the stream needs, given the checkpoint of the pipeline. `announce` makes a
/// checkpoint durable.
///
/// # Errors
/// What is missing in Postgres, all of it at once; what can't be asked or created.
pub(super) async fn prepare(
    bridge: &Bridge,
    checkpoint: Option<&Checkpoint>,
    announce: impl AsyncFnOnce(Checkpoint) -> Result<(), Error>,
) -> Result<Start, Error> {
    let client = client::connect(&bridge.conninfo, &ConnectOptions::of(&bridge.settings)).await?;
    let version = client::server_version(&client).await?;
    let (manage, has_streamed) = (bridge.settings.manage, bridge.has_streamed());
    refuse_standby(&client, version, manage, has_streamed).await?;
    let through = checkpoint.map_or(Lsn::ZERO, |before| before.progress.through_lsn);
    let named = bridge.look_at_names(&client, through).await?;
    let settings = &named.settings_of_published(&bridge.settings);
    let setup = Setup { bridge, settings, client: &client, version, checkpoint };

    let altering = bridge.altering.lock().await;
    let planned_at = *altering;
    let mut found = setup.look(&named).await?;
    setup.refuse_what_is_missing(&mut found, &named).await?;
    // The next steps wait for Kafka; alterations that the application needs must not.
    drop(altering);
    // Made durable before anything is published with these settings.
    bridge.settle_names(named).await?;

    let mut course = setup.course(&found).await?;
    if course.makes_slot {
        bridge.rehearse(&found.assignment).await?;
        setup.check_rules(&found).await?;
    }
    let missing = setup.note_missing_rows(&mut found, &mut course);
    setup.publish(&found, &course, planned_at).await?;
    let is_whole = found.look.survey.main.as_ref().is_some_and(|main| !main.is_by_table);
    let made = if course.makes_slot {
        setup.create_slot(&course, is_whole, announce).await?
    } else {
        Made::default()
    };
    let checkpoint = course.checkpoint(made.at);
    // The slot itself may be at an earlier position; the server leaves out what lies between.
    let lsn = checkpoint.progress.through_lsn;
    Ok(Start {
        lsn,
        checkpoint,
        is_new: course.is_new,
        last_commit_lsn: made.at.is_none().then_some(lsn),
        captured: is_whole.then(|| bridge.settings.captured.clone()),
        added: missing,
        router: found.assignment.router,
        export: made.export,
    })
}

/// A start on one server, step by step. The steps are in the order of [`prepare`].
pub(super) struct Setup<'a> {
    pub(super) bridge: &'a Bridge,
    /// Without the tables whose events are held back.
    pub(super) settings: &'a Resolved,
    pub(super) client: &'a Client,
    pub(super) version: u32,
    pub(super) checkpoint: Option<&'a Checkpoint>,
}

/// What a start found, and what it is to change. Nothing is created yet.
pub(super) struct Found {
    pub(super) slot: SlotState,
    pub(super) look: Look,
    pub(super) assignment: Assignment,
    /// Whether the publication for inserts exists, and whether the stream may name it from its start.
    has_second: bool,
    names_second: bool,
    /// Nothing was published by this pipeline so far.
    is_first: bool,
}

/// What was created for the stream.
#[derive(Default)]
struct Made {
    at: Option<Lsn>,
    export: Option<Export>,
}

impl Setup<'_> {
    /// Looks at publication, slot and topics, and plans what is to become of them.
    pub(super) async fn look(&self, named: &Findings) -> Result<Found, Error> {
        let Self { bridge, settings, client, version, checkpoint } = *self;
        let survey = publication::survey(client, Names::of(settings), version).await?;
        let slot = slot::state(client, &settings.slot, bridge.conninfo.database()).await?;
        let slot = bridge.with_lost_wal(slot);
        let has_second = survey.inserts.is_some();
        let names_second = bridge.may_name_second(client, &slot, checkpoint, has_second).await?;
        let goes_on = checkpoint.is_some_and(|before| !before.is_intent());
        // If rows were published already, a lock of the application does not hold up a start.
        let mut probes = Probes::new(if goes_on { Asked::Unlocked } else { Asked::All });
        let mut look =
            manage::plan(client, settings, survey, names_second, (true, &mut probes)).await?;
        look.plan.keep_out(|table| look.filters.unknown.contains(table));
        self.refuse_other_filter(&look, named)?;
        if goes_on {
            leave_out_unkeyed(client, settings, &mut look).await?;
        }
        bridge.show_limits(&look);
        if !manage::may_alter(settings, &look.survey) {
            // This is a warning, not a reason to refuse the start.
            let urgent = look.plan.urgent();
            look.plan.main.remove.retain(|table| !urgent.contains(table));
            if !look.plan.main.create {
                look.plan.inserts = PublicationChange::default();
            }
        }
        let noted = checkpoint.into_iter().flat_map(|before| &before.snapshots.left_out);
        let noted = noted.map(|table| table.oid).chain(bridge.left_out.oids(LeftOutReason::Topic));
        let view = View { settings, version, present: look.survey.present(), plan: &look.plan };
        let assignment = bridge.assign_topics(client, view, &noted.collect()).await?;
        assignment.keep_out(&mut look.plan);
        let is_first = slot == SlotState::Absent && checkpoint.is_none();
        Ok(Found { slot, look, assignment, has_second, names_second, is_first })
    }

    /// What is published of a locked table may stay as it is, but not under another filter than before.
    fn refuse_other_filter(&self, look: &Look, named: &Findings) -> Result<(), postgres::Error> {
        let present = look.survey.present();
        let is_other = |table: &&TableName| {
            present.part(table).is_some()
                && named.keeps_back_otherwise(&self.bridge.settings, table)
        };
        match look.filters.unknown.iter().find(is_other) {
            Some(table) => Err(postgres::Error::Altered { table: table.to_string() }),
            None => Ok(()),
        }
    }

    /// Everything that is missing for a start, each with what it is about.
    pub(super) async fn missing(
        &self,
        found: &mut Found,
        named: &Findings,
        signals: &mut signal_table::Found,
    ) -> Result<Vec<(&'static str, Shortfall)>, Error> {
        let Self { bridge, settings, client, .. } = *self;
        let Found { slot, look, assignment, is_first, .. } = found;
        let mut missing = Vec::new();
        let mut add = |what, shortfalls: Vec<Shortfall>| {
            missing.extend(shortfalls.into_iter().map(|shortfall| (what, shortfall)));
        };
        add("postgres.rights", check(client, settings, look, slot).await?);
        if !bridge.has_streamed() {
            add("postgres.signals", std::mem::take(&mut signals.shortfalls));
        }
        let filters = look.filters.shortfalls.drain(..).map(|(_, shortfall)| shortfall);
        add("postgres.filters", filters.collect());
        add("postgres.keys", std::mem::take(&mut look.keys.refused).into_values().collect());
        add("postgres.names", named.shortfalls.clone());
        add("postgres.slot", unusable(&settings.slot, slot).into_iter().collect());
        // In one round, because a first start reads rows too.
        if *is_first && settings.snapshot.mode != SnapshotMode::Never {
            add("postgres.reading", check_reading(client, settings, look, assignment).await?);
        }
        Ok(missing)
    }

    /// Refuses a start with everything that is missing for it, and logs what is worth a warning.
    async fn refuse_what_is_missing(
        &self,
        found: &mut Found,
        named: &Findings,
    ) -> Result<(), Error> {
        let Self { bridge, settings, client, version, .. } = *self;
        let mut signals = signal_table::look(client, settings, &found.look).await?;
        let missing = self.missing(found, named, &mut signals).await?;
        refuse(missing.into_iter().map(|(_, shortfall)| shortfall).collect())?;
        let look = &found.look;
        for note in look.filters.notes.iter().chain(&look.keys.notes) {
            tracing::warn!("{note}");
        }
        bridge.tell_of_refused_ddl(look);
        named.tell();
        bridge.note_signal_table(signals);
        if forgetful::is_forgetful(version) && !bridge.has_streamed() {
            tracing::warn!(
                version,
                "this server release is older than May 2025: a table that is added to a \
                 publication transaction writes to it may silently be left out from then on, \
                 unless its rows are read too; install its newest minor release"
            );
        }
        Ok(())
    }

    /// Decides where the stream starts, and tries what a slot that is created would need.
    pub(super) async fn course(&self, found: &Found) -> Result<Course, Error> {
        let Self { bridge, settings, client, checkpoint, .. } = *self;
        let Found { slot, look, assignment, is_first, .. } = found;
        let existing = Arc::clone(&bridge.known_topics().existing);
        let is_stranded = checkpoint.is_none()
            && !bridge.has_streamed()
            && !assignment.has_any(&existing)
            && slot::was_read(client, &settings.slot).await?;
        let (info, options) = (&bridge.conninfo, ConnectOptions::of(settings));
        let course =
            resume_point::course(settings, info, &options, slot, checkpoint, is_stranded).await?;
        if course.takes_snapshot && !is_first {
            refuse(check_reading(client, settings, look, assignment).await?)?;
        }
        Ok(course)
    }

    /// Checks whether the keys and rules of tables fit them.
    pub(super) async fn check_rules(&self, found: &Found) -> Result<(), Error> {
        let Self { bridge, client, version, .. } = *self;
        let Found { look, assignment, .. } = found;
        bridge.check_rules(client, version, assignment, &look.filters.published).await
    }

    /// Notes the tables whose rows are to be read next to the stream. Returns these tables.
    fn note_missing_rows(&self, found: &mut Found, course: &mut Course) -> Vec<TableName> {
        let Self { bridge, settings, checkpoint, .. } = *self;
        let Found { look, assignment, .. } = found;
        let is_read = settings.snapshot.mode != SnapshotMode::Never;
        let notes = &mut Arc::make_mut(&mut course.snapshots).left_out;
        let noted_before = notes.clone();
        let settled = assignment.settle_notes(notes, &look.plan, is_read);
        course.is_new |= *notes != noted_before;
        bridge.list_left_out(assignment, &settled);
        // If a stream continues, a table is added only after it is noted that its rows are missing.
        let goes_on = checkpoint.is_some() && look.survey.main.is_some() && !course.makes_slot;
        let mut missing = if goes_on && settings.manage && is_read {
            look.plan.put_off_gains(|of| !settings.hides(&of.schema, &of.name))
        } else {
            Vec::new()
        };
        let name = |Named { schema, name, .. }| TableName { schema, name };
        missing.extend(settled.into_iter().map(name));
        missing
    }

    /// Creates or alters the publications, unless another did so since they were looked at.
    async fn publish(&self, found: &Found, course: &Course, planned_at: u64) -> Result<(), Error> {
        let Self { bridge, settings, client, .. } = *self;
        let Found { look, .. } = found;
        let altering = bridge.altering.lock().await;
        if *altering != planned_at {
            let table = Names::of(settings).main.to_owned();
            return Err(postgres::Error::Altered { table }.into());
        }
        manage::publish(client, settings, &look.survey, &look.plan).await?;
        let has_second = found.has_second || (settings.manage && look.plan.inserts.create);
        if has_second && look.survey.inserts.is_none() {
            bridge.second.exists_since(client::wal_end(client).await?);
        }
        bridge.second.set_named(has_second && (found.names_second || course.makes_slot));
        // Creating a slot may take long, and the tables are published already.
        drop(altering);
        bridge.set_guards(true);
        Ok(())
    }

    /// Creates the slot, and plans the snapshot that is read first, if any.
    async fn create_slot(
        &self,
        course: &Course,
        is_whole: bool,
        announce: impl AsyncFnOnce(Checkpoint) -> Result<(), Error>,
    ) -> Result<Made, Error> {
        let Self { bridge, settings, client, version, checkpoint } = *self;
        let (plan, announce) = if course.takes_snapshot {
            let mut plan = plan::plan(client, &scope(settings, version, is_whole)).await?;
            refuse(std::mem::take(&mut plan.shortfalls))?;
            announce(Checkpoint::intent(course.source.clone(), course.generation)).await?;
            (Some(plan), None)
        } else {
            (None, Some(announce))
        };
        slot::drop(client, &settings.slot).await?;
        bridge.is_wal_lost.store(false, Ordering::Release);
        let (lsn, export) = create_slot(bridge, version, plan).await?;
        bridge.slot_created(checkpoint.is_none_or(Checkpoint::is_intent));
        let made = Made { at: Some(lsn), export };
        // Without a snapshot the slot is the only state: a start that is killed before its first
        // checkpoint continues from it.
        if let Some(announce) = announce {
            announce(course.checkpoint(made.at)).await?;
        }
        Ok(made)
    }
}

impl Bridge {
    /// The state of the slot, including WAL that the server reported missing.
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

impl Bridge {
    /// Logs once which tables' DDL Postgres will refuse because of the publication, and how to
    /// change that.
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

/// Creates the slot, and exports the snapshot of its start if something is planned to be read.
async fn create_slot(
    bridge: &Bridge,
    version: u32,
    plan: Option<Plan>,
) -> Result<(Lsn, Option<Export>), Error> {
    let settings = &bridge.settings;
    if settings.failover && version < FAILOVER_SINCE {
        tracing::warn!("postgres.failover requires PostgreSQL 17; creating the slot without it");
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
