//! `[topics]`: how topics are named and created.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How topics are named and created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// Template of topic names, with `{prefix}`, `{database}`, `{schema}` and `{table}`.
    pub template: String,
    /// How a character that Kafka does not allow in a topic's name is replaced: `underscore` (`_`,
    /// as in Debezium) or `unicode` (`_u` and four hex digits, such as `_u0020` for a space), with
    /// which different tables always have different topics. A table that would share another
    /// table's topic is left out.
    pub escape: TopicEscape,
    /// The value of `{prefix}`, and Debezium's `source.name`. Default: `name`.
    pub prefix: Option<String>,
    /// Create missing topics. If false, a missing topic is an error.
    pub create: bool,
    /// Query the settings of topics from the brokers, to report differences and to know the largest
    /// record. Set it to false if the brokers do not answer such requests: each would take seconds.
    pub describe: bool,
    /// Partitions of topics that rowcast creates. An existing topic is never altered.
    pub partitions: i32,
    /// Replicas of topics that rowcast creates; -1 uses the broker's `default.replication.factor`.
    pub replication_factor: i32,
    /// Any topic setting (`retention.ms`, `cleanup.policy`, ...) for topics that rowcast creates.
    pub settings: BTreeMap<String, String>,
    /// The topic of the checkpoints: one record per pipeline, which says what is published. It must
    /// be compacted, and rowcast creates it so; several pipelines may share it.
    pub checkpoints: String,
}

/// How a character that Kafka does not allow in a topic's name is replaced.
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
            // Debezium's naming, so that its consumers find the same topics.
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
