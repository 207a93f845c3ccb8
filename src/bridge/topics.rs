//! Assigns each captured table its topic, before its first row.
//!
//! At a start and at each check all captured tables are assigned topics, taking into account
//! rowcast's own topics and those that the brokers have. A table that can't be given its topic is
//! left out, and the rest streams:
//!
//! ```text
//!             not in the publication          in it (renamed, a partition, one for all tables)
//! refused     is not added                    the worker leaves it out and notes that (`worker`)
//! no longer   is added like a new table       is read again, and then published
//! refused
//! ```
//!
//! A table that has a topic keeps it. Among tables without a known topic, those in the publication
//! come first, then lower OIDs, so that every start decides in the same way.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio_postgres::Client;

use super::{Bridge, fresh_client_config};
use crate::checkpoint::LeftOutTable;
use crate::config::Resolved;
use crate::error::Error;
use crate::postgres::publication::manage::Look;
use crate::postgres::publication::streamed::{self, InEffect, Streamed};
use crate::postgres::publication::{Names, Plan, Present, TableName};
use crate::route::{Existing, Named, Refusal, Router, TopicPlan};
use crate::state::{LeftOut, LeftOutReason};
use crate::{pipeline, postgres};

/// What is known about topics between two checks.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The topics that tables have, by OID.
    held: HashMap<u32, Arc<str>>,
    /// The topics that the brokers had at the last query.
    pub(super) existing: Arc<Existing>,
}

/// A table that is or will be in the stream.
#[derive(Debug, Clone)]
struct Captured {
    streamed: Streamed,
    /// Whether it is in the publication already.
    is_published: bool,
}

impl Captured {
    fn named(&self) -> Named {
        let TableName { schema, name } = self.streamed.table.clone();
        Named { oid: self.streamed.oid, schema, name }
    }
}

/// The topics of all captured tables.
pub(super) struct Assignment {
    /// Maps tables to topics.
    pub(super) router: Router,
    /// The tables without a topic.
    pub(super) refused: Vec<Refusal>,
    captured: Vec<Captured>,
    /// The tables that would be added to a publication although nothing of them has a topic.
    out: BTreeSet<TableName>,
}

/// What is published, and what should be.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) settings: &'a Resolved,
    pub(super) version: u32,
    pub(super) present: Present<'a>,
    pub(super) plan: &'a Plan,
}

impl Bridge {
    /// Assigns all captured tables their topics. `left_out` are tables that had none before.
    pub(super) async fn assign_topics(
        &self,
        client: &Client,
        view: View<'_>,
        left_out: &BTreeSet<u32>,
    ) -> Result<Assignment, postgres::Error> {
        let mut captured = captured(client, view).await?;
        let mut router = Router::new(view.settings, self.conninfo.database());
        let mut known = self.known_topics();
        router.set_existing(Arc::clone(&known.existing));
        captured.sort_by_key(|table| {
            let TableName { schema, name } = &table.streamed.table;
            let oid = table.streamed.oid;
            let has = known.held.get(&oid).is_some_and(|has| *has == router.name(schema, name));
            (left_out.contains(&oid), !has, !table.is_published, oid)
        });
        let tables: Vec<Named> = captured.iter().map(Captured::named).collect();
        let refused = router.assign(&tables);
        known.held = tables
            .iter()
            .filter_map(|table| Some((table.oid, Arc::clone(router.held_by(table.oid)?))))
            .collect();
        drop(known);
        let refusals = refused.iter();
        self.left_out.put_all(refusals.map(|of| (of.table.oid, pipeline::left_out(of))));
        let mut out: BTreeSet<TableName> = BTreeSet::new();
        if !refused.is_empty() {
            let (with, without): (Vec<_>, Vec<_>) =
                captured.iter().partition(|of| router.held_by(of.streamed.oid).is_some());
            out = without.into_iter().map(|of| of.streamed.root.clone()).collect();
            for of in with {
                out.remove(&of.streamed.root);
            }
        }
        Ok(Assignment { router, refused, captured, out })
    }

    /// Removes tables without a topic from those to be added, and returns those to be read again
    /// because they have a topic now. Uses the last query of the brokers' topics.
    pub(super) async fn look_at_topics(
        &self,
        client: &Client,
        look: &mut Look,
    ) -> Result<Vec<Named>, postgres::Error> {
        let settings = &self.settings;
        let Look { survey, plan, version, .. } = look;
        if survey.main.is_none() {
            return Ok(Vec::new());
        }
        let before: BTreeSet<u32> = self.left_out.oids(LeftOutReason::Topic).into_iter().collect();
        let view = View { settings, version: *version, present: survey.present(), plan };
        let assignment = self.assign_topics(client, view, &before).await?;
        assignment.keep_out(plan);
        let mut settled = Vec::new();
        for oid in before {
            if assignment.refused.iter().any(|refusal| refusal.table.oid == oid) {
                continue;
            }
            match assignment.captured.iter().find(|table| table.streamed.oid == oid) {
                Some(table) if table.is_published => settled.push(table.named()),
                // It is added as a new table, or is gone.
                _ => drop(self.left_out.remove(oid)),
            }
        }
        Ok(settled)
    }

    /// Updates the list of left-out tables at the start of a stream. `settled` are those to be read
    /// again.
    pub(super) fn list_left_out(&self, assignment: &Assignment, settled: &[Named]) {
        let is_settled = |oid: u32| settled.iter().any(|table| table.oid == oid);
        for oid in self.left_out.oids(LeftOutReason::Topic) {
            let is_refused = assignment.refused.iter().any(|refusal| refusal.table.oid == oid);
            if !is_refused && !is_settled(oid) {
                self.left_out.remove(oid);
            }
        }
        for table in settled {
            let (schema, name) = (table.schema.clone(), table.name.clone());
            let error = format!("changes of {table} were left out: its rows are read again");
            tracing::info!("{error}");
            let (reason, fix) = (LeftOutReason::Topic, "none needed".to_owned());
            self.left_out.keep(table.oid, LeftOut { schema, table: name, reason, error, fix });
        }
    }

    /// Queries which topics the brokers have. Without a response, the known ones remain: a topic
    /// that can't be created is found when creating it.
    pub(super) async fn ask_for_topics(&self) {
        let asked = async {
            let config = fresh_client_config(&self.settings).await?;
            Ok::<_, Error>(crate::kafka::topic_names(&config).await?)
        };
        match asked.await {
            Ok(names) => self.known_topics().existing = Arc::new(names.iter().collect()),
            Err(error) => tracing::debug!(%error, "listing the brokers' topics failed"),
        }
    }

    pub(super) fn known_topics(&self) -> std::sync::MutexGuard<'_, Known> {
        self.topics_known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Assignment {
    /// The topics of all tables, and those of rowcast's own that rows may need.
    pub(super) fn plans(&self) -> Vec<TopicPlan> {
        let mut router = self.router.clone();
        let own = router.own_plans();
        let plan = |table: Named| router.topic(table.oid, &table.schema, &table.name).ok();
        own.into_iter().chain(self.placed().filter_map(plan)).collect()
    }

    /// The tables that have topics.
    pub(super) fn placed(&self) -> impl Iterator<Item = Named> {
        let placed = self.captured.iter().map(Captured::named);
        placed.filter(|table| self.router.held_by(table.oid).is_some())
    }

    /// Whether no part of a table that would be added has a topic: for a partitioned table, none of
    /// its partitions.
    pub(super) fn is_out(&self, table: &TableName) -> bool {
        self.out.contains(table)
    }

    /// Whether any of the tables has its topic among these.
    pub(super) fn has_any(&self, existing: &Existing) -> bool {
        let mut topics =
            self.captured.iter().filter_map(|table| self.router.held_by(table.streamed.oid));
        topics.any(|topic| existing.has(topic))
    }

    /// Removes tables without a topic from those to be added to the publications.
    pub(super) fn keep_out(&self, plan: &mut Plan) {
        if self.out.is_empty() {
            return;
        }
        for change in [&mut plan.main, &mut plan.inserts] {
            change.add.retain(|added| !self.is_out(&added.table));
            let (add, alter) = (&change.add, &change.alter);
            let is_put_in =
                |table: &TableName| add.iter().chain(alter).any(|changed| changed.table == *table);
            change.not_owned.retain(|(table, _)| is_put_in(table));
        }
    }

    /// Updates the notes of left-out tables at the start of a stream, for those that are in the
    /// publication or added with this change. Returns the tables that have a topic now and must be
    /// read again; none if `is_read` says that no rows are read.
    pub(super) fn settle_notes(
        &self,
        notes: &mut Vec<LeftOutTable>,
        plan: &Plan,
        is_read: bool,
    ) -> Vec<Named> {
        let mut settled = Vec::new();
        notes.retain(|note| {
            let captured = self.captured.iter().find(|of| of.streamed.oid == note.oid);
            // A table that was dropped or is not captured any more would return as a new one.
            let Some(captured) = captured else { return false };
            if self.router.held_by(note.oid).is_none() {
                return true;
            }
            if is_read {
                settled.push(captured.named());
            }
            is_read
        });
        for Refusal { table: Named { oid, schema, name }, .. } in &self.refused {
            let is_noted = notes.iter().any(|note| note.oid == *oid);
            let captured = self.captured.iter().find(|of| of.streamed.oid == *oid);
            let is_streamed =
                captured.is_some_and(|of| of.is_published || puts_in(plan, &of.streamed.root));
            if is_streamed && !is_noted {
                let (schema, table) = (schema.clone(), name.clone());
                notes.push(LeftOutTable { oid: *oid, schema, table });
            }
        }
        settled
    }
}

/// Whether a table is added to one of the publications.
fn puts_in(plan: &Plan, table: &TableName) -> bool {
    plan.main.add.iter().chain(&plan.inserts.add).any(|added| added.table == *table)
}

/// The tables in the stream once the plan is carried out.
async fn captured(client: &Client, view: View<'_>) -> Result<Vec<Captured>, postgres::Error> {
    let View { settings, version, present, plan } = view;
    let fixed = present.main.filter(|publication| !(publication.is_by_table && settings.manage));
    if let Some(publication) = fixed {
        let names = Names::of(settings).both();
        let tables = streamed::in_effect(client, names, version).await?;
        let is_whole = !publication.is_by_table;
        let mut captured = Vec::new();
        for InEffect { oid, table, .. } in tables {
            let streamed = Streamed { oid, root: table.clone(), table };
            let TableName { schema, name } = &streamed.table;
            let is_captured = !is_whole || settings.captured.matches(schema, name);
            if is_captured && !settings.hides(schema, name) {
                captured.push(Captured { streamed, is_published: true });
            }
        }
        return Ok(captured);
    }
    let stays = |root: &TableName| {
        [(present.main, &plan.main), (present.inserts, &plan.inserts)].iter().any(
            |(held, change)| {
                held.is_some_and(|held| held.tables.contains_key(root))
                    && !change.remove.contains(root)
            },
        )
    };
    // A table that moves between the publications remains published.
    let published = |root: &TableName| stays(root) || (present.has(root) && puts_in(plan, root));
    let added = plan.main.add.iter().chain(&plan.inserts.add);
    let added: BTreeSet<&TableName> = added.map(|added| &added.table).collect();
    let tables = streamed::possible(client, settings.via_root).await?;
    let tables = tables.into_iter().filter(|of| !settings.hides(&of.table.schema, &of.table.name));
    let captured = tables.filter_map(|streamed| {
        let is_published = published(&streamed.root);
        let is_captured = is_published || added.contains(&streamed.root);
        is_captured.then_some(Captured { streamed, is_published })
    });
    Ok(captured.collect())
}
