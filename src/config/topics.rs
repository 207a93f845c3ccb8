//! `[topics]`: how topics are named and made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How topics are named and made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// Topic name from `{prefix}`, `{database}`, `{schema}` and `{table}`.
    pub template: String,
    /// What a character that Kafka does not allow in a topic becomes: `underscore` (`_`, as Debezium
    /// does it) or `unicode` (`_u` and four hex digits, as `_u0020` for a space), which gives
    /// different tables different topics. A table whose topic another one has is left out.
    pub escape: TopicEscape,
    /// What `{prefix}` stands for, and Debezium's `source.name`. Default: `name`.
    pub prefix: Option<String>,
    /// Make missing topics. When false, a missing topic is an error.
    pub create: bool,
    /// Ask the brokers for the settings of topics, to tell of differences and to know the largest
    /// record. Set it to false where they do not answer such questions: each costs seconds then.
    pub describe: bool,
    /// Partitions of topics that are made. An existing topic is never altered.
    pub partitions: i32,
    /// Replicas of topics that are made; -1 leaves it to the broker's `default.replication.factor`.
    pub replication_factor: i32,
    /// Any topic setting (`retention.ms`, `cleanup.policy`, ...) for topics that are made.
    pub settings: BTreeMap<String, String>,
    /// The topic of the checkpoints: one record a pipeline, which says what is published. It must be
    /// compacted and is made so; several pipelines may share it.
    pub checkpoints: String,
}

/// What a character that Kafka does not allow in a topic becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TopicEscape {
    /// `_`, so that different tables may have one topic.
    Underscore,
    /// `_u` and four hex digits for each UTF-16 unit.
    Unicode,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            // Debezium's own naming, so that its consumers find the same topics.
            template: "{prefix}.{schema}.{table}".to_owned(),
            escape: TopicEscape::Underscore,
            prefix: None,
            create: true,
            describe: true,
            partitions: 1,
            replication_factor: -1,
            settings: BTreeMap::new(),
            checkpoints: "rowcast.checkpoints".to_owned(),
        }
    }
}
