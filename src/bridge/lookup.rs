//! The worker's questions, asked from its own thread to servers that are spoken to asynchronously.
//!
//! A broker that is away is waited for here, because a relation can't be used before its topic
//! exists; the worker can be stopped meanwhile.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::setup;
use crate::backoff::Backoff;
use crate::change::{Relation, RelationFacts, Reselected, Row};
use crate::config::Resolved;
use crate::error::Error;
use crate::kafka::Topics;
use crate::postgres::Catalog;
use crate::route::TopicPlan;
use crate::worker::{Lookup, Stop};

pub(super) struct ServerLookup {
    pub(super) settings: Resolved,
    /// The relations described so far.
    pub(super) described: HashSet<u32>,
    pub(super) runtime: Handle,
    pub(super) catalog: Catalog,
    pub(super) topics: SharedTopics,
    pub(super) stop: Arc<Stop>,
}

/// Topics for all who publish.
pub(super) type SharedTopics = Arc<Mutex<TopicMaker>>;

/// Makes sure of topics.
pub(super) struct TopicMaker {
    pub(super) runtime: Handle,
    pub(super) topics: Topics,
    /// The topics that every session of this process made sure of.
    pub(super) seen: Arc<Mutex<HashSet<Arc<str>>>>,
    pub(super) stop: Arc<Stop>,
}

/// The lookup of who publishes rows of a snapshot: all that is known of their tables came with them.
pub(super) struct RowLookup(pub(super) SharedTopics);

impl Lookup for RowLookup {
    fn relation_facts(&mut self, _: u32, _: &[u32]) -> Result<RelationFacts, Error> {
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

    fn ensure_topic(&mut self, topic: &TopicPlan) -> Result<Option<usize>, Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ensure(topic)
    }
}

impl Lookup for ServerLookup {
    fn relation_facts(&mut self, oid: u32, column_types: &[u32]) -> Result<RelationFacts, Error> {
        let stop = Arc::clone(&self.stop);
        self.runtime.block_on(async {
            let facts = tokio::select! {
                facts = self.catalog.relation(oid, column_types) => facts?,
                // The table may be locked for long; nobody uses what is said then.
                () = stopped(&stop) => return Ok(RelationFacts::default()),
            };
            // The server describes a table again after it was altered, and hides from the
            // description the columns that a column list does not have.
            if !self.described.insert(oid) {
                setup::follow(self.catalog.client().await?, &self.settings, oid).await;
            }
            Ok(facts)
        })
    }

    fn reselect(
        &mut self,
        relation: &Relation,
        row: &Row<'_>,
        columns: &[usize],
    ) -> Result<Option<Reselected>, Error> {
        let Self { runtime, catalog, stop, .. } = self;
        runtime.block_on(async {
            tokio::select! {
                found = catalog.reselect(relation, row, columns) => Ok(found?),
                // As above.
                () = stopped(stop) => Ok(None),
            }
        })
    }

    fn ensure_topic(&mut self, topic: &TopicPlan) -> Result<Option<usize>, Error> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).ensure(topic)
    }
}

impl TopicMaker {
    fn ensure(&mut self, topic: &TopicPlan) -> Result<Option<usize>, Error> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let was_there = self.topics.knows(&topic.name);
        loop {
            let ensured = self.runtime.block_on(async {
                tokio::select! {
                    ensured = self.topics.ensure(topic) => ensured,
                    // Nothing goes to it then.
                    () = stopped(&self.stop) => Ok(None),
                }
            });
            let error = match ensured {
                Ok(limit) => {
                    self.note(topic, was_there);
                    return Ok(limit);
                }
                Err(error) => error,
            };
            if !error.is_transient() {
                return Err(error.into());
            }
            tracing::warn!(topic = &*topic.name, error = %error, "the topic is not there yet");
            self.runtime.block_on(async {
                tokio::select! {
                    () = tokio::time::sleep(backoff.next_wait()) => {}
                    () = stopped(&self.stop) => {}
                }
            });
        }
    }

    /// A topic that was here and is made again was deleted meanwhile, and with it what it held.
    fn note(&self, topic: &TopicPlan, was_there: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.insert(Arc::clone(&topic.name)) && !was_there {
            tracing::warn!(
                topic = &*topic.name,
                "the topic was deleted while it was written to, and is made again: the records \
                 that it held are gone, and from here on only new changes are in it"
            );
        }
    }
}

/// Completes once told to stop.
pub(super) async fn stopped(stop: &Stop) {
    while !stop.is_now() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
