//! Lookups of the worker: it calls them from its own thread, and they query the servers
//! asynchronously.
//!
//! Waits here while brokers are unavailable, because a relation can't be used before its topic
//! exists; the worker can be stopped meanwhile.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::ahead::{Ahead, Published};
use super::renames::Guard;
use super::second::Second;
use crate::backoff::{Backoff, Repeats};
use crate::change::{Relation, RelationFacts, Reselected, Row, Transaction};
use crate::config::Resolved;
use crate::error::{self, Error};
use crate::kafka::{self, Topics};
use crate::pipeline::{Dropped, Ensured, Lookup, Stop};
use crate::postgres::publication::{Names, manage};
use crate::postgres::{self, Catalog};
use crate::route::{Router, TopicPlan};
use crate::snapshot::Visibility;
use crate::state::Status;

const DROPPED: &str = include_str!("../../sql/dropped_tables.sql");

pub(super) struct ServerLookup {
    pub(super) settings: Resolved,
    /// Whether the stream names the publication for inserts.
    pub(super) second: Arc<Second>,
    /// The relations described so far.
    pub(super) described: HashSet<u32>,
    pub(super) runtime: Handle,
    pub(super) catalog: Catalog,
    pub(super) ahead: Ahead,
    /// Determines the topics of tables that are looked up ahead.
    pub(super) router: Router,
    pub(super) topics: SharedTopics,
    pub(super) guard: Arc<Guard>,
    pub(super) stop: Arc<Stop>,
}

/// Topics, shared by all publishers.
pub(super) type SharedTopics = Arc<Mutex<TopicMaker>>;

/// Ensures that topics exist.
pub(super) struct TopicMaker {
    pub(super) runtime: Handle,
    pub(super) topics: Topics,
    /// The topics that sessions of this process have ensured.
    pub(super) seen: Arc<Mutex<HashSet<Arc<str>>>>,
    pub(super) stop: Arc<Stop>,
    /// Shows progress.
    pub(super) status: Arc<watch::Sender<Status>>,
}

/// The lookup for rows of a snapshot: all facts about their tables come with them.
pub(super) struct RowLookup(pub(super) SharedTopics, pub(super) Arc<Guard>);

impl Lookup for RowLookup {
    fn relation_facts(
        &mut self,
        _: u32,
        _: &[u32],
        _: Option<&Transaction>,
    ) -> Result<RelationFacts, Error> {
        Ok(RelationFacts::default())
    }

    fn reselect(
        &mut self,
        _: &Relation,
        _: &Row<'_>,
        _: &[usize],
    ) -> Result<Option<Reselected>, Error> {
        Ok(None)
    }

    fn withheld(&mut self, relation: &Relation) -> Result<Option<u32>, Error> {
        self.1.withheld(relation)
    }

    fn ensure_topic(&mut self, topic: &TopicPlan) -> Result<Ensured, Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ensure(topic)
    }

    fn ensure_topics(&mut self, topics: &[TopicPlan]) -> Result<(), Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ensure_all(topics)
    }
}

impl Lookup for ServerLookup {
    fn relation_facts(
        &mut self,
        oid: u32,
        column_types: &[u32],
        described_in: Option<&Transaction>,
    ) -> Result<RelationFacts, Error> {
        let Self { ahead, catalog, settings, described, runtime, stop, second, .. } = self;
        let (facts, others) = match ahead.take(oid, column_types, described_in) {
            Some(facts) => (facts, Vec::new()),
            None => {
                let (table, names) = ((oid, column_types), Names::of(settings));
                let asked = ahead.ask(catalog, table, described_in, names);
                // The table may be locked for long; the result is not needed after a stop.
                let Some(asked) = wait(runtime, stop, asked) else {
                    return Ok(RelationFacts::default());
                };
                asked?
            }
        };
        // The server describes a table again after it was altered, and omits columns that are not
        // in a column list.
        if !described.insert(oid) {
            let follow = async {
                let client = catalog.client().await?;
                if let Err(error) = manage::follow(client, settings, second.is_named(), oid).await {
                    let error = error::told(&error);
                    tracing::warn!(error, "updating the publication failed");
                }
                Ok::<(), Error>(())
            };
            wait(runtime, stop, follow).transpose()?;
        }
        let topic = |(oid, schema, table): &Published| self.router.topic(*oid, schema, table).ok();
        let topics: Vec<TopicPlan> = others.iter().filter_map(topic).collect();
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).describe(topics);
        Ok(facts)
    }

    fn reselect(
        &mut self,
        relation: &Relation,
        row: &Row<'_>,
        columns: &[usize],
    ) -> Result<Option<Reselected>, Error> {
        let Self { runtime, catalog, stop, .. } = self;
        // As above.
        let found = wait(runtime, stop, catalog.reselect(relation, row, columns));
        Ok(found.transpose()?.flatten())
    }

    fn withheld(&mut self, relation: &Relation) -> Result<Option<u32>, Error> {
        self.guard.withheld(relation)
    }

    fn ensure_topic(&mut self, topic: &TopicPlan) -> Result<Ensured, Error> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).ensure(topic)
    }

    fn dropped(&mut self, tables: &[u32]) -> Result<Dropped, Error> {
        let Self { runtime, catalog, stop, .. } = self;
        // After a stop, nothing is forgotten.
        Ok(wait(runtime, stop, dropped(catalog, tables)).transpose()?.unwrap_or_default())
    }

    fn forget(&mut self, tables: &[u32], topics: &[Arc<str>]) {
        for oid in tables {
            self.described.remove(oid);
            self.router.release(*oid);
        }
        self.ahead.forget(tables);
        self.guard.forget(tables);
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).forget(topics);
    }
}

/// Queries which of these tables the catalog does not have.
async fn dropped(catalog: &mut Catalog, tables: &[u32]) -> Result<Dropped, postgres::Error> {
    let doing = "query which tables were dropped";
    let failed = |source| postgres::Error::Sql { doing, source };
    let client = catalog.client().await?;
    let row = client.query_one(DROPPED, &[&tables]).await.map_err(failed)?;
    let sees = row.try_get::<_, &str>(0).ok().and_then(Visibility::parse);
    let through = row.try_get::<_, Option<&str>>(2).ok().flatten().and_then(|lsn| lsn.parse().ok());
    let (Some(sees), Some(through)) = (sees, through) else { return Ok(Dropped::default()) };
    Ok(Dropped { oids: row.try_get(1).map_err(failed)?, sees, through })
}

impl TopicMaker {
    /// Forgets topics that no table has any more.
    fn forget(&mut self, topics: &[Arc<str>]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for topic in topics {
            seen.remove(topic);
            self.topics.forget(topic);
        }
    }

    fn ensure(&mut self, topic: &TopicPlan) -> Result<Ensured, Error> {
        let was_there = self.topics.knows(&topic.name);
        let ensured = self.until_ensured(&topic.name, async |topics| topics.ensure(topic).await)?;
        let Some(limit) = ensured else { return Ok(Ensured::Stopped) };
        self.note(&topic.name, was_there);
        Ok(Ensured::Exists { limit })
    }

    /// Creates all missing topics; progress is in the status, and now and then in the log.
    fn ensure_all(&mut self, topics: &[TopicPlan]) -> Result<(), Error> {
        let Some(first) = topics.first() else { return Ok(()) };
        let missing = topics.iter().filter(|topic| !self.topics.knows(&topic.name));
        let missing: HashSet<Arc<str>> = missing.map(|topic| Arc::clone(&topic.name)).collect();
        let status = Arc::clone(&self.status);
        let show = |reason: Option<String>| status.send_modify(|status| status.reason = reason);
        let ensured = self.until_ensured(&first.name, async |known| {
            let progress = |created: usize, missing: usize| {
                show(Some(format!("creating topics: {created} of {missing}")));
            };
            known.ensure_all(topics, progress).await
        });
        show(None);
        if ensured?.is_some() {
            for topic in missing {
                self.note(&topic, false);
            }
        }
        Ok(())
    }

    /// Queries the settings of existing topics at once, so that callers need not query each. A
    /// failure is left to the caller that queries one.
    fn describe(&mut self, mut topics: Vec<TopicPlan>) {
        topics.retain(|topic| self.topics.knows(&topic.name));
        if topics.is_empty() {
            return;
        }
        let Self { runtime, stop, topics: known, .. } = self;
        let described = wait(runtime, stop, known.ensure_all(&topics, |_, _| {}));
        if let Some(Err(error)) = described {
            tracing::debug!(error = %error, "topics are not described ahead");
        }
    }

    /// Tries again while brokers are unavailable; returns `None` once asked to stop.
    fn until_ensured<T>(
        &mut self,
        topic: &str,
        mut ask: impl AsyncFnMut(&mut Topics) -> Result<T, kafka::Error>,
    ) -> Result<Option<T>, Error> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut repeats = Repeats::new();
        let Self { runtime, stop, topics, .. } = self;
        while !stop.is_now() {
            let Some(ensured) = wait(runtime, stop, ask(topics)) else { break };
            let error = match ensured {
                Ok(ensured) => return Ok(Some(ensured)),
                Err(error) => error,
            };
            if !error.is_transient() {
                return Err(error.into());
            }
            match repeats.again(Instant::now()) {
                Some(folded) => {
                    tracing::warn!(topic, error = %error, folded, "the topic is not there yet");
                }
                None => tracing::debug!(topic, error = %error, "the topic is not there yet"),
            }
            let pause = backoff.next_wait();
            // The sleep must be made inside of the runtime.
            wait(runtime, stop, async { tokio::time::sleep(pause).await });
        }
        Ok(None)
    }

    /// A topic that existed and is created again was deleted meanwhile, with its records.
    fn note(&self, topic: &Arc<str>, was_there: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.insert(Arc::clone(topic)) && !was_there {
            tracing::warn!(
                topic = &**topic,
                "the topic was deleted while in use and is created again: its old records are \
                 gone, and it contains only new changes from here on"
            );
        }
    }
}

/// Waits for the result; returns `None` if asked to stop before.
///
/// Only on a thread outside of the runtime, which would otherwise wait for itself.
fn wait<T>(runtime: &Handle, stop: &Stop, answer: impl Future<Output = T>) -> Option<T> {
    runtime.block_on(async {
        tokio::select! {
            answer = answer => Some(answer),
            () = stop.stopped() => None,
        }
    })
}
