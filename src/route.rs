//! Which topic a table's changes go to, and how that topic is made.
//!
//! Names follow the template, unless the table has one of its own. Kafka allows fewer characters
//! in a topic than Postgres in a table, so two tables can fall on one name; that is refused here,
//! since their keys could then not be told apart. Two tables that are *given* the same topic by
//! name are what the user asked for.
//!
//! Not here: whether a topic exists, and brokers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::{Resolved, TableSettings, Topics};

/// Kafka's own limit on a topic's name.
const TOPIC_NAME_BYTES_MAX: usize = 249;

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

/// Why a table has no topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Two tables' names become one topic's.
    #[error(
        "tables {first} and {second} would share the topic {topic:?}, as their names differ only in characters that Kafka does not allow"
    )]
    Collision {
        /// The table that had the topic first.
        first: String,
        /// The table that would share it.
        second: String,
        /// The topic.
        topic: String,
    },
    /// A table's name becomes that of the topic that tells of transactions.
    #[error("table {table} would share the topic {topic:?} with the records around transactions")]
    Reserved {
        /// The table.
        table: String,
        /// The topic.
        topic: String,
    },
    /// A table's name becomes that of the topic of the checkpoints.
    #[error(
        "topics.template gives table {table} the topic {topic:?}, which topics.checkpoints names \
         for the checkpoints"
    )]
    Checkpoints {
        /// The table.
        table: String,
        /// The topic.
        topic: String,
    },
    /// Kafka would refuse the name.
    #[error("table {table} has the topic name {topic:?}, which Kafka does not take: {reason}")]
    Name {
        /// The table.
        table: String,
        /// The topic.
        topic: String,
        /// What Kafka has against it.
        reason: &'static str,
    },
}

/// Names topics.
#[derive(Debug)]
pub struct Router {
    topics: Topics,
    prefix: String,
    database: String,
    tables: TableSettings,
    dead_letter: Option<String>,
    /// The topic of the records around transactions, where they are wanted.
    reserved: Option<Arc<str>>,
    /// Which table a topic was derived for.
    derived: HashMap<Arc<str>, String>,
}

impl Router {
    /// A router for the tables of a database.
    #[must_use]
    pub fn new(settings: &Resolved, database: &str) -> Self {
        let mut router = Self {
            topics: settings.topics.clone(),
            prefix: settings.prefix.clone(),
            database: database.to_owned(),
            tables: settings.tables.clone(),
            dead_letter: settings.errors.dead_letter_topic.clone(),
            reserved: None,
            derived: HashMap::new(),
        };
        if settings.format.transaction_metadata {
            router.reserved = Some(router.transaction_topic().name);
        }
        router
    }

    /// The key columns configured for a table, if any.
    #[must_use]
    pub fn key_columns(&self, schema: &str, table: &str) -> Option<&[String]> {
        self.tables.of(schema, table)?.key.as_deref()
    }

    /// The topic of a table.
    ///
    /// # Errors
    /// When Kafka would not take the name, or another table already has it.
    pub fn topic(&mut self, schema: &str, table: &str) -> Result<TopicPlan, RouteError> {
        let full_name = format!("{schema}.{table}");
        let own = self.tables.of(schema, table).cloned().unwrap_or_default();
        let name: Arc<str> = match &own.topic {
            Some(name) => name.as_str().into(),
            None => self.derived_name(schema, table).into(),
        };
        check_name(&name).map_err(|reason| RouteError::Name {
            table: full_name.clone(),
            topic: name.to_string(),
            reason,
        })?;
        if self.reserved.as_ref() == Some(&name) {
            return Err(RouteError::Reserved { table: full_name, topic: name.to_string() });
        }
        if *name == self.topics.checkpoints {
            return Err(RouteError::Checkpoints { table: full_name, topic: name.to_string() });
        }
        if own.topic.is_none() {
            let holder = self.derived.entry(Arc::clone(&name)).or_insert_with(|| full_name.clone());
            if *holder != full_name {
                return Err(RouteError::Collision {
                    first: holder.clone(),
                    second: full_name,
                    topic: name.to_string(),
                });
            }
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

    /// The topic of logical messages, as Debezium names it.
    #[must_use]
    pub fn message_topic(&self) -> TopicPlan {
        self.topic_of("message", self.topics.partitions)
    }

    /// The topic of the records around transactions, as Debezium names it. They tell an order and
    /// every one has another key, so they stand in one partition.
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
            name: sanitised(&format!("{}.{kind}", self.prefix)).into(),
            partitions,
            replication_factor: self.topics.replication_factor,
            settings: self.topics.settings.clone(),
        }
    }

    fn derived_name(&self, schema: &str, table: &str) -> String {
        // Placeholders are filled in one pass, so a table named `{schema}` stays what it is.
        let mut name = String::new();
        let mut rest = self.topics.template.as_str();
        while let Some(open) = rest.find('{') {
            let (before, from_open) = rest.split_at(open);
            name.push_str(before);
            let Some(close) = from_open.find('}') else {
                rest = from_open;
                break;
            };
            let (placeholder, after) = from_open.split_at(close + 1);
            name.push_str(match placeholder {
                "{prefix}" => &self.prefix,
                "{database}" => &self.database,
                "{schema}" => schema,
                "{table}" => table,
                other => other,
            });
            rest = after;
        }
        name.push_str(rest);
        sanitised(&name)
    }
}

fn sanitised(name: &str) -> String {
    name.chars().map(|char| if is_allowed(char) { char } else { '_' }).collect()
}

fn is_allowed(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-')
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("it is empty")
    } else if name == "." || name == ".." {
        Err("the names . and .. are reserved")
    } else if name.len() > TOPIC_NAME_BYTES_MAX {
        Err("it is longer than 249 bytes")
    } else if !name.chars().all(is_allowed) {
        Err("only ASCII letters, digits, '.', '_' and '-' are allowed")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Format, Kafka, Table};

    fn router(tables: &[(&str, Table)]) -> Router {
        let tables = tables.iter().map(|(name, table)| ((*name).to_owned(), table.clone()));
        router_of(Config { tables: tables.collect(), ..Config::default() })
    }

    fn router_of(config: Config) -> Router {
        let kafka = Kafka { brokers: Some("b:9092".to_owned()), ..Kafka::default() };
        let config = Config { name: Some("nyc".to_owned()), kafka, ..config };
        Router::new(&config.resolve("taxi").unwrap(), "taxi")
    }

    fn with_topic(topic: &str) -> Table {
        Table { topic: Some(topic.to_owned()), ..Table::default() }
    }

    #[test]
    fn a_topic_is_named_as_debezium_names_it() {
        let plan = router(&[]).topic("public", "rides").unwrap();
        assert_eq!(&*plan.name, "nyc.public.rides");
    }

    #[test]
    fn characters_that_kafka_refuses_become_underscores() {
        let plan = router(&[]).topic("public", "fahrten für heute").unwrap();
        assert_eq!(&*plan.name, "nyc.public.fahrten_f_r_heute");
    }

    #[test]
    fn two_tables_that_fall_on_one_name_are_refused() {
        let mut router = router(&[]);
        router.topic("public", "a b").unwrap();
        router.topic("public", "a b").unwrap();
        let error = router.topic("public", "a_b").unwrap_err();
        assert!(matches!(error, RouteError::Collision { .. }), "{error}");
    }

    #[test]
    fn a_table_does_not_get_the_topic_that_tells_of_transactions() {
        let router = |transaction_metadata| {
            let template = "{prefix}.{table}".to_owned();
            let topics = Topics { template, ..Topics::default() };
            let format = Format { transaction_metadata, ..Format::default() };
            router_of(Config { topics, format, ..Config::default() })
        };
        let error = router(true).topic("public", "transaction").unwrap_err();
        assert!(matches!(error, RouteError::Reserved { .. }), "{error}");
        router(true).topic("public", "trips").unwrap();
        router(false).topic("public", "transaction").unwrap();
    }

    #[test]
    fn a_table_does_not_get_the_topic_of_the_checkpoints() {
        let topics = Topics { checkpoints: "nyc.public.state".to_owned(), ..Topics::default() };
        let mut router = router_of(Config { topics, ..Config::default() });
        let error = router.topic("public", "state").unwrap_err();
        assert_eq!(
            error.to_string(),
            "topics.template gives table public.state the topic \"nyc.public.state\", which \
             topics.checkpoints names for the checkpoints"
        );
        router.topic("public", "rides").unwrap();
    }

    #[test]
    fn a_given_topic_may_serve_several_tables() {
        let shared = with_topic("all");
        let mut router = router(&[("a.t", shared.clone()), ("b.t", shared)]);
        assert_eq!(router.topic("a", "t").unwrap().name, router.topic("b", "t").unwrap().name);
    }

    #[test]
    fn an_exact_name_comes_before_a_glob_and_globs_in_alphabetical_order() {
        let mut router = router(&[
            ("*.rides", with_topic("any-schema")),
            ("public.*", with_topic("any-table")),
            ("public.rides", with_topic("exact")),
        ]);
        assert_eq!(&*router.topic("public", "rides").unwrap().name, "exact");
        assert_eq!(&*router.topic("other", "rides").unwrap().name, "any-schema");
        assert_eq!(&*router.topic("public", "zones").unwrap().name, "any-table");
    }

    #[test]
    fn a_table_named_like_a_placeholder_stays_what_it_is() {
        let plan = router(&[]).topic("public", "{prefix}").unwrap();
        assert_eq!(&*plan.name, "nyc.public._prefix_");
    }

    #[test]
    fn a_name_that_kafka_refuses_is_an_error() {
        for topic in ["", ".", "..", "a b", &"x".repeat(250)] {
            let mut router = router(&[("public.rides", with_topic(topic))]);
            let error = router.topic("public", "rides").unwrap_err();
            assert!(matches!(error, RouteError::Name { .. }), "{error}");
        }
    }

    #[test]
    fn a_tables_settings_lie_over_the_general_ones() {
        let topics = Topics {
            settings: [("a", "1"), ("b", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..Topics::default()
        };
        let table = Table {
            partitions: Some(2),
            settings: [("b".to_owned(), "2".to_owned())].into(),
            ..Table::default()
        };
        let tables = [("public.rides".to_owned(), table)].into();
        let mut router = router_of(Config { topics, tables, ..Config::default() });
        let plan = router.topic("public", "rides").unwrap();
        assert_eq!(plan.partitions, 2);
        let settings: Vec<_> = plan.settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(settings, ["a=1", "b=2"]);
    }
}
