//! The database's side of a check: the server, the role, the tables, the publication and the slot.

use std::sync::Arc;

use tokio_postgres::Client;

use super::Reached;
use crate::bridge::preconditions::refuse_standby;
use crate::bridge::setup::{Found, Setup};
use crate::bridge::{Bridge, signal_table};
use crate::check::Finding;
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::few::few;
use crate::lsn::Lsn;
use crate::postgres::publication::{Names, PublicationChange, TableName, forgetful};
use crate::postgres::slot::SlotState;
use crate::postgres::{
    ConnectOptions, ReplicationClient, ServerFacts, client, retention, server_facts,
};
use crate::route::{Existing, TopicPlan};
use crate::state::LimitedTable;

/// A stream that is silent for so little is ended by a short pause of the network.
const SHORT_MS: u64 = 10_000;

impl Bridge {
    /// Checks everything that the database can be asked. Returns the topics of the tables; none where
    /// the tables could not be looked at.
    pub(super) async fn check_database(
        &self,
        client: &Client,
        reached: Option<&Reached>,
        findings: &mut Vec<Finding>,
    ) -> Option<Vec<TopicPlan>> {
        let facts = match server_facts(client).await {
            Ok(facts) => facts,
            Err(error) => {
                findings.push(self.refused("postgres.connection", error.into()).await);
                return None;
            }
        };
        findings.extend(self.server(&facts));
        let (version, manage) = (facts.version_number, self.settings.manage);
        if let Err(error) = refuse_standby(client, version, manage, false).await {
            findings.push(self.refused("postgres.standby", error.into()).await);
            return None;
        }
        if let Some(refused) = self.check_replication().await {
            findings.push(refused);
        }
        if let Ok(missing) = client::missing_standbys(client).await
            && !missing.is_empty()
        {
            findings.push(Finding::warning(
                "postgres.standbys",
                format!(
                    "synchronized_standby_slots names slots that are missing or idle: {missing}"
                ),
                Some(
                    "no change is streamed until these standbys have it: start them, or take \
                      their slots out of synchronized_standby_slots"
                        .to_owned(),
                ),
            ));
        }
        let looked = self.check_tables(client, &facts, reached, findings).await;
        match looked {
            Ok(plans) => Some(plans),
            Err(error) => {
                findings.push(self.refused("postgres.tables", error).await);
                None
            }
        }
    }

    /// The server and its settings.
    fn server(&self, facts: &ServerFacts) -> Vec<Finding> {
        let host = self.conninfo.hosts().first().map(ToString::to_string).unwrap_or_default();
        let encrypted = if facts.is_encrypted { "encrypted" } else { "not encrypted" };
        let mut findings = vec![Finding::ok(
            "postgres.connection",
            format!(
                "PostgreSQL {} at {host}, database {}, as {}, {encrypted}",
                facts.version,
                self.conninfo.database(),
                self.conninfo.user()
            ),
        )];
        if forgetful::is_forgetful(facts.version_number) {
            findings.push(Finding::warning(
                "postgres.version",
                "a server of before May 2025 may leave out what is written to a table that is put into \
                 a publication while a transaction writes to it"
                    .to_owned(),
                Some("install its newest minor release".to_owned()),
            ));
        }
        let (max, taken) = facts.walsenders;
        if max > 0 && taken >= max {
            findings.push(Finding::error(
                "postgres.walsenders",
                format!("all {max} walsenders of the server are taken"),
                Some(
                    "-- then restart the server:\nALTER SYSTEM SET max_wal_senders = ".to_owned()
                        + &format!("{};", max + 10),
                ),
            ));
        } else {
            let (slots, of) = (facts.slots.1, facts.slots.0);
            findings.push(Finding::ok(
                "postgres.capacity",
                format!("{taken} of {max} walsenders and {slots} of {of} slots are taken"),
            ));
        }
        findings.extend(limits(facts));
        findings
    }

    /// Whether a replication connection can be opened: poolers pass queries, and not that.
    async fn check_replication(&self) -> Option<Finding> {
        let options = ConnectOptions::of(&self.settings);
        let connected = async {
            let mut client = ReplicationClient::connect(&self.conninfo, &options).await?;
            client.identify_system().await
        };
        match connected.await {
            Ok(_) => None,
            Err(error) => Some(self.refused("postgres.replication", error.into()).await),
        }
    }

    /// Tables, publication and slot, by the steps of a start.
    async fn check_tables(
        &self,
        client: &Client,
        facts: &ServerFacts,
        reached: Option<&Reached>,
        findings: &mut Vec<Finding>,
    ) -> Result<Vec<TopicPlan>, Error> {
        if let Some(Reached { topics, .. }) = reached {
            self.known_topics().existing = Arc::new(topics.iter().cloned().collect::<Existing>());
        }
        let checkpoint = reached.and_then(|reached| reached.checkpoint.as_ref());
        let through = checkpoint.map_or(Lsn::ZERO, |before| before.progress.through_lsn);
        let named = self.look_at_names(client, through).await?;
        let settings = &named.settings_of_published(&self.settings);
        let version = facts.version_number;
        let setup = Setup { bridge: self, settings, client, version, checkpoint };
        let mut found = setup.look(&named).await?;
        let mut signals = signal_table::look(client, settings, &found.look).await?;
        let missing = setup.missing(&mut found, &named, &mut signals).await?;
        let is_complete = missing.is_empty();
        findings.extend(
            missing.into_iter().map(|(check, of)| Finding::error(check, of.cause, Some(of.fix))),
        );
        let notes = named.notes.iter();
        findings.extend(notes.map(|(note, fix)| {
            Finding::warning("postgres.names", note.clone(), Some(fix.clone()))
        }));
        findings.extend(self.captured(&found));
        findings.push(publication(Names::of(settings), &found));
        findings.extend(self.slot(client, &found, checkpoint).await?);
        // What is missing is said already, and would be said of the slot again.
        if is_complete && !matches!(found.slot, SlotState::Active { .. }) && reached.is_some() {
            match self.check_start(&setup, &found).await {
                Ok(what) => findings.push(Finding::ok("postgres.start", what.to_owned())),
                Err(error) => findings.push(self.refused("postgres.start", error).await),
            }
        }
        Ok(found.assignment.plans())
    }

    /// What a start would do.
    async fn check_start(&self, setup: &Setup<'_>, found: &Found) -> Result<&'static str, Error> {
        let course = setup.course(found).await?;
        if !course.makes_slot {
            return Ok("continues where the slot and the checkpoint are");
        }
        setup.check_rules(found).await?;
        Ok(match course.takes_snapshot {
            true => "a first start: creates the slot, and publishes all rows first",
            false => "a first start: creates the slot, and publishes what comes after",
        })
    }

    /// The tables that are captured, and those of which not everything can be.
    fn captured(&self, found: &Found) -> Vec<Finding> {
        let captured = &self.settings.captured;
        let candidates = &found.look.survey.candidates;
        let matching: Vec<&TableName> = candidates
            .iter()
            .map(|candidate| &candidate.table)
            .filter(|table| captured.matches(&table.schema, &table.name))
            .collect();
        let database = self.conninfo.database();
        let mut findings =
            vec![if matching.is_empty() {
                let others: Vec<String> =
                    candidates.iter().map(|candidate| candidate.table.to_string()).collect();
                let has = match others.len() {
                    0 => "which has no tables".to_owned(),
                    n => format!("which has {n}: {}", few(&others)),
                };
                Finding::warning(
                "postgres.tables",
                format!("postgres.tables matches no table of the database {database}, {has}"),
                Some("correct postgres.tables, or the database of postgres.url; tables that are \
                      created later are captured when they match"
                    .to_owned()),
            )
            } else {
                let names: Vec<String> = matching.iter().map(ToString::to_string).collect();
                Finding::ok(
                    "postgres.tables",
                    format!("{} of {} match: {}", names.len(), candidates.len(), few(&names)),
                )
            }];
        let limits = self.status.borrow().limits.clone();
        let mut add = |check, what: &str, list: Vec<LimitedTable>| {
            findings.extend(list.into_iter().map(|LimitedTable { table, cause, fix }| {
                Finding::warning(check, format!("{table}: {what}: {cause}"), Some(fix))
            }));
        };
        add("postgres.insert_only", "only inserts are captured", limits.insert_only);
        add("postgres.left_out", "left out", limits.left_out);
        add("postgres.refused", "Postgres refuses updates or deletes", limits.refused);
        let notes = found.look.filters.notes.iter().chain(&found.look.keys.notes);
        findings
            .extend(notes.map(|note| Finding::warning("postgres.keys", note.to_string(), None)));
        findings
    }

    /// The slot, and the WAL that it holds.
    async fn slot(
        &self,
        client: &Client,
        found: &Found,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Vec<Finding>, Error> {
        let name = &self.settings.slot;
        let Some(held) = retention(client, name).await? else {
            return Ok(vec![]);
        };
        let megabytes = held.retained_bytes / 1_000_000;
        let mut findings = Vec::new();
        match &found.slot {
            SlotState::Active { pid, .. } => findings.push(Finding::warning(
                "postgres.slot",
                format!(
                    "{name:?} is read by the server process {pid}, and holds {megabytes} MB of WAL"
                ),
                Some(
                    "is rowcast running already? a second copy waits until the first one ends"
                        .to_owned(),
                ),
            )),
            SlotState::Idle { .. } => findings.push(Finding::ok(
                "postgres.slot",
                format!(
                    "{name:?} is free, holds {megabytes} MB of WAL{}",
                    if checkpoint.is_some() { "" } else { ", and no checkpoint is known" }
                ),
            )),
            SlotState::Absent | SlotState::Foreign { .. } | SlotState::Lost { .. } => {}
        }
        if let Some(room) = held.keep_size_room.filter(|room| *room < held.retained_bytes) {
            findings.push(Finding::warning(
                "postgres.slot_room",
                format!(
                    "the server invalidates the slot after {} MB more of WAL \
                     (max_slot_wal_keep_size)",
                    room / 1_000_000
                ),
                Some("start rowcast soon, or raise max_slot_wal_keep_size".to_owned()),
            ));
        }
        Ok(findings)
    }
}

/// Settings with which the server invalidates a slot, or ends a stream.
fn limits(facts: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(limit) = facts.slot_limit_mb {
        findings.push(Finding::warning(
            "postgres.slot_limit",
            format!(
                "max_slot_wal_keep_size is {limit} MB: a slot that holds more is given up, and its \
                 changes are lost"
            ),
            Some(
                "set postgres.on_gap = \"snapshot\", so that all rows are read again then"
                    .to_owned(),
            ),
        ));
    }
    if let Some(after) = facts.idle_slot_timeout_s {
        findings.push(Finding::warning(
            "postgres.slot_timeout",
            format!(
                "idle_replication_slot_timeout is {after} s: a slot that nobody reads for so \
                     long is given up, and its changes are lost"
            ),
            Some("ALTER SYSTEM SET idle_replication_slot_timeout = 0;".to_owned()),
        ));
    }
    if let Some(short) = facts.walsender_timeout_ms.filter(|ms| *ms < SHORT_MS) {
        findings.push(Finding::warning(
            "postgres.walsender_timeout",
            format!("wal_sender_timeout is {short} ms: a short pause of the network ends a stream"),
            Some("ALTER SYSTEM SET wal_sender_timeout = '1min';".to_owned()),
        ));
    }
    findings
}

/// What a start does to the publication.
fn publication(names: Names<'_>, found: &Found) -> Finding {
    let name = names.main;
    let PublicationChange { create, add, alter, remove, .. } = &found.look.plan.main;
    let list = |tables: &mut dyn Iterator<Item = &TableName>| {
        few(&tables.map(ToString::to_string).collect::<Vec<_>>())
    };
    let added = list(&mut add.iter().map(|change| &change.table));
    if *create {
        let of = if add.is_empty() { "without tables".to_owned() } else { format!("for {added}") };
        return Finding::ok("postgres.publication", format!("{name:?} is created {of}"));
    }
    if !remove.is_empty() {
        let removed = list(&mut remove.iter());
        return Finding::warning(
            "postgres.publication",
            format!("{name:?} exists, and a start takes {removed} out of it"),
            Some("where another program reads from it, set postgres.publication to a name of its own"
                .to_owned()),
        );
    }
    let altered = list(&mut alter.iter().map(|change| &change.table));
    let what = match (add.is_empty(), alter.is_empty()) {
        (true, true) => "is as configured".to_owned(),
        (false, true) => format!("exists, and a start adds {added}"),
        (true, false) => format!("exists, and a start alters {altered} in it"),
        (false, false) => format!("exists, and a start adds {added} and alters {altered} in it"),
    };
    Finding::ok("postgres.publication", format!("{name:?} {what}"))
}
