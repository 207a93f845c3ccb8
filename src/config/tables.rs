//! `[tables."schema.table"]`: what one table does differently.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one table, or all that match a glob, does differently.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Table {
    /// The topic, instead of the one from `topics.template`.
    pub topic: Option<String>,
    /// Key columns, instead of the primary key.
    pub key: Option<Vec<String>>,
    /// Partitions of the topic when it is made, instead of `topics.partitions`.
    pub partitions: Option<i32>,
    /// Replicas of the topic when it is made, instead of `topics.replication_factor`.
    pub replication_factor: Option<i32>,
    /// Topic settings when it is made; they are laid over `topics.settings`.
    pub settings: BTreeMap<String, String>,
}
