//! Which topic a table's changes go to, and how that topic is made.
//!
//! Names follow the template, unless the table has one of its own (`names`). No two tables have one
//! topic, unless configured (`claims`): one that would is refused, with the line to write. That is
//! known before a row of it is, for all captured tables at once ([`Router::assign`]), and whenever
//! one is described.
//!
//! Not here: whether a topic exists, brokers, and what becomes of a table without a topic.

mod claims;
mod names;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use self::claims::Claims;
pub use self::claims::{Conflict, Existing, Named};
use self::names::{Naming, check, metric_name};
use crate::config::{OnError, OnOversize, Operation, Resolved, TableSettings, TopicEscape, Topics};

/// A topic, and how to make it where it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// The topic's name.
    pub name: Arc<str>,
    /// Partitions to make it with.
    pub partitions: i32,
    /// Replicas to make it with; -1 for the broker's default.
    pub replication_factor: i32,
    /// Topic settings to make it with.
    pub settings: BTreeMap<String, String>,
}

/// A table that gets no topic, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The table.
    pub table: Named,
    /// The topic that it would have.
    pub topic: Arc<str>,
    /// What is against it.
    pub conflict: Conflict,
    /// A topic that it can have.
    free: Option<String>,
    /// Whether it has one with `topics.escape = "unicode"`.
    unicode_helps: bool,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, topic, conflict, .. } = self;
        match conflict {
            Conflict::Taken(other) => write!(
                f,
                "the tables {other} and {table} would share the topic {topic:?}: {other} keeps it, \
                 {table} is left out"
            ),
            Conflict::Metric { table: other, topic: other_topic } => {
                write!(f, "the topic {topic:?} of {table} can't be next to {other_topic:?}")?;
                if let Some(other) = other {
                    write!(f, " of {other}")?;
                }
                write!(
                    f,
                    ": Kafka refuses topics that differ only in '.' and '_'; {table} is left out"
                )
            }
            Conflict::Own(what) => write!(
                f,
                "the table {table} would share the topic {topic:?} with rowcast's own {what}: it is \
                 left out"
            ),
            Conflict::Name(reason) => write!(
                f,
                "the topic {topic:?} of {table} is not one that Kafka takes: {reason}; the table is \
                 left out"
            ),
        }
    }
}

impl Refusal {
    /// What an operator can do about it: the lines to write.
    #[must_use]
    pub fn fix(&self) -> String {
        let name = self.free.as_deref().unwrap_or("...");
        let own = format!("[tables.{}] topic = \"{name}\"", self.table.section());
        if self.unicode_helps {
            format!("{own}; or, for all tables, [topics] escape = \"unicode\"")
        } else {
            own
        }
    }
}

/// Names topics.
#[derive(Debug, Clone)]
pub struct Router {
    topics: Topics,
    naming: Naming,
    tables: TableSettings,
    dead_letter: Option<String>,
    /// Whether rows may become dead letters, and not messages alone.
    has_dead_rows: bool,
    claims: Claims,
    /// Tables that get their topic from whoever has it, once.
    taking_over: HashSet<u32>,
    /// The tables that they got it from.
    gone: Vec<u32>,
}

impl Router {
    /// A router for the tables of a database.
    #[must_use]
    pub fn new(settings: &Resolved, database: &str) -> Self {
        let mut router = Self {
            topics: settings.topics.clone(),
            naming: Naming {
                template: settings.topics.template.clone(),
                prefix: settings.prefix.clone(),
                database: database.to_owned(),
                escape: settings.topics.escape,
            },
            tables: settings.tables.clone(),
            dead_letter: settings.errors.dead_letter_topic.clone(),
            has_dead_rows: settings.errors.on_error == Some(OnError::SkipWithDeadLetter)
                || settings.errors.on_oversize == Some(OnOversize::DeadLetter),
            claims: Claims::default(),
            taking_over: HashSet::new(),
            gone: Vec::new(),
        };
        router.claims = Claims::new(router.own_topics(settings));
        router
    }

    /// The topics that are rowcast's own, with what is in each.
    #[must_use]
    pub fn own_topics(&self, settings: &Resolved) -> Vec<(Arc<str>, &'static str)> {
        let mut own = vec![
            (self.topics.checkpoints.as_str().into(), "checkpoints"),
            (self.message_topic().name, "logical messages"),
        ];
        if settings.format.transaction_metadata {
            own.push((self.transaction_topic().name, "records around transactions"));
        }
        // Where nobody said what becomes of a logical message, it may become one.
        let errors = &settings.errors;
        let of_messages = (errors.on_error.is_none() || errors.on_oversize.is_none())
            && !settings.skipped.contains(&Operation::Message);
        if self.has_dead_rows || of_messages {
            own.push((self.dead_letter_topic().name, "dead letters"));
        }
        own
    }

    /// How the topics of rowcast's own are made that rows may need: of those that the configuration
    /// asks for.
    #[must_use]
    pub fn own_plans(&self) -> Vec<TopicPlan> {
        let dead_letters = self.has_dead_rows.then(|| self.dead_letter_topic());
        let plans = [Some(self.transaction_topic()), dead_letters];
        plans.into_iter().flatten().filter(|plan| self.claims.is_own(&plan.name)).collect()
    }

    /// Takes note of the topics that the brokers have.
    pub fn set_existing(&mut self, existing: Arc<Existing>) {
        self.claims.set_existing(existing);
    }

    /// Assigns each of these tables its topic, in this order. Returns those that get none.
    pub fn assign<'a>(&mut self, tables: impl IntoIterator<Item = &'a Named>) -> Vec<Refusal> {
        let all = tables.into_iter();
        let refused =
            all.filter_map(|table| self.topic(table.oid, &table.schema, &table.name).err());
        refused.map(|refusal| *refusal).collect()
    }

    /// What the topic of a table is called, whoever has it.
    #[must_use]
    pub fn name(&self, schema: &str, table: &str) -> Arc<str> {
        match self.tables.of(schema, table).and_then(|own| own.topic.as_deref()) {
            Some(name) => name.into(),
            None => self.naming.derived(schema, table).into(),
        }
    }

    /// What the topics of all tables begin with that have none of their own, and whether that is all of
    /// their name.
    #[must_use]
    pub fn beginning(&self) -> (String, bool) {
        self.naming.beginning()
    }

    /// The topic that a table has been given.
    #[must_use]
    pub fn held_by(&self, oid: u32) -> Option<&Arc<str>> {
        self.claims.held_by(oid)
    }

    /// Another table that has the topic of this one too, as the configuration names it.
    #[must_use]
    pub fn shares_with(&self, oid: u32) -> Option<&Named> {
        self.claims.shares_with(oid)
    }

    /// The key columns configured for a table, if any.
    #[must_use]
    pub fn key_columns(&self, schema: &str, table: &str) -> Option<&[String]> {
        self.tables.of(schema, table)?.key.as_deref()
    }

    /// The topic of a table, which is its own from here on.
    ///
    /// # Errors
    /// When Kafka would not take the name, or somebody else has it.
    pub fn topic(
        &mut self,
        oid: u32,
        schema: &str,
        table: &str,
    ) -> Result<TopicPlan, Box<Refusal>> {
        let named = Named { oid, schema: schema.to_owned(), name: table.to_owned() };
        let own = self.tables.of(schema, table).cloned().unwrap_or_default();
        let name = self.name(schema, table);
        let is_given = own.topic.is_some();
        let claimed = match check(&name) {
            Err(reason) => Err(Conflict::Name(reason)),
            Ok(()) if self.taking_over.remove(&oid) => {
                self.gone.extend(self.claims.take_over(&named, &name, is_given));
                Ok(())
            }
            Ok(()) => self.claims.claim(&named, &name, is_given),
        };
        if let Err(conflict) = claimed {
            return Err(Box::new(self.refusal(named, name, conflict)));
        }
        let mut settings = self.topics.settings.clone();
        settings.extend(own.settings);
        Ok(TopicPlan {
            name,
            partitions: own.partitions.unwrap_or(self.topics.partitions),
            replication_factor: own.replication_factor.unwrap_or(self.topics.replication_factor),
            settings,
        })
    }

    /// This table is gone. Returns its topic, if that is no other table's.
    pub fn release(&mut self, oid: u32) -> Option<Arc<str>> {
        self.taking_over.remove(&oid);
        self.claims.leave(oid)
    }

    /// It is known of this table that nobody else has its topic any more.
    pub fn take_over(&mut self, oid: u32) {
        self.taking_over.insert(oid);
    }

    /// The tables whose topics were taken over since this was last asked.
    pub fn take_gone(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.gone)
    }

    fn refusal(&self, table: Named, topic: Arc<str>, conflict: Conflict) -> Refusal {
        let in_unicode = self.naming.derived_by(TopicEscape::Unicode, &table.schema, &table.name);
        let is_given =
            self.tables.of(&table.schema, &table.name).is_some_and(|own| own.topic.is_some());
        let is_free = |name: &str| check(name).is_ok() && self.claims.is_free(&name.into());
        // All names change with it, so one that is in the way need not be any more.
        let moves = match &conflict {
            Conflict::Taken(other) | Conflict::Metric { table: Some(other), .. } => {
                let other =
                    self.naming.derived_by(TopicEscape::Unicode, &other.schema, &other.name);
                metric_name(&other) != metric_name(&in_unicode)
            }
            Conflict::Metric { table: None, .. } | Conflict::Own(_) => is_free(&in_unicode),
            Conflict::Name(_) => false,
        };
        let unicode_helps = !is_given
            && self.naming.escape == TopicEscape::Underscore
            && moves
            && check(&in_unicode).is_ok();
        let numbered = (2..100).map(|number| {
            let kept: String = topic.chars().take(240).collect();
            format!("{kept}-{number}")
        });
        let free = std::iter::once(in_unicode).chain(numbered).find(|name| is_free(name));
        Refusal { table, topic, conflict, free, unicode_helps }
    }

    /// The topic of logical messages, as Debezium names it.
    #[must_use]
    pub fn message_topic(&self) -> TopicPlan {
        self.topic_of("message", self.topics.partitions)
    }

    /// The topic of the records around transactions, as Debezium names it. Their order matters and
    /// every one has another key, so they are in one partition.
    #[must_use]
    pub fn transaction_topic(&self) -> TopicPlan {
        self.topic_of("transaction", 1)
    }

    /// The topic of rows that can't be published.
    #[must_use]
    pub fn dead_letter_topic(&self) -> TopicPlan {
        let plan = self.topic_of("dead-letter", self.topics.partitions);
        match &self.dead_letter {
            Some(name) => TopicPlan { name: name.as_str().into(), ..plan },
            None => plan,
        }
    }

    fn topic_of(&self, kind: &str, partitions: i32) -> TopicPlan {
        TopicPlan {
            name: self.naming.own(kind).into(),
            partitions,
            replication_factor: self.topics.replication_factor,
            settings: self.topics.settings.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
