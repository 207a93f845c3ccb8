//! What a user may set, and the resolved form that the bridge runs with.
//!
//! One struct per section; each field's doc comment is its manual entry. Sources of settings, in
//! rising precedence: the defaults here, a file, the environment, the command line. `load` reads
//! them and names the origin of every value that it refuses.
//!
//! Not here: what a setting means to Postgres or Kafka. What only a server can check (a table that
//! does not exist, a topic setting that Kafka refuses) is checked by the code that queries the
//! server.

pub mod admin;
mod check;
pub mod columns;
pub mod condition;
pub mod delivery;
mod environment;
pub mod errors;
pub mod fault;
pub mod format;
pub mod hiding;
pub mod kafka;
mod keys;
pub mod listing;
pub mod load;
pub mod log;
mod mask;
pub mod memory;
mod modes;
pub mod operations;
pub mod pattern;
pub mod postgres;
mod reload;
pub mod resolve_error;
pub mod resolved;
mod rule;
pub mod secret;
pub mod signals;
pub mod size;
pub mod snapshot;
pub mod source;
pub mod tables;
mod toml;
pub mod topics;
mod tree;
pub mod unmatched;
mod walk;
pub mod watchdog;
mod yaml;

#[cfg(test)]
mod manual;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::admin::Admin;
pub use self::columns::{ColumnRules, RuleKey};
pub use self::delivery::{Delivery, OnGap};
pub use self::errors::{Errors, OnError, OnOversize};
pub use self::fault::{Fault, LoadError, Origin, Problem};
pub use self::format::{Format, KeyFormat, TypeProfile, UnchangedToast, ValueFormat};
pub use self::hiding::{Hiding, Loosened, NamedColumn, toml_text};
pub use self::kafka::Kafka;
pub(crate) use self::keys::nearest;
pub use self::load::{FlagSetting, Loaded, Origins, Sources, load};
pub use self::log::{Log, LogFormat};
pub use self::memory::Memory;
pub use self::modes::{BinaryMode, DecimalMode, HstoreMode, IntervalMode, TimePrecisionMode};
pub use self::operations::Operation;
pub use self::pattern::{TableFilter, TablePattern, exactly};
pub use self::postgres::{ColumnLists, Postgres};
pub use self::reload::NeedsRestart;
pub use self::resolve_error::{ResolveError, Warning};
pub use self::resolved::Resolved;
pub use self::secret::Secret;
pub use self::signals::SignalTable;
pub use self::size::Size;
pub use self::snapshot::{Snapshot, SnapshotMode};
pub use self::source::{SecretError, SecretSource};
pub use self::tables::{Hidden, Table, TableSettings};
pub use self::topics::{TopicEscape, Topics};
pub use self::unmatched::{Unmatched, later, nearest_names, unmatched};
pub use self::watchdog::Watchdog;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The pipeline's name: the topic prefix, Debezium's `source.name`, and the stem of the slot's
    /// and the publication's names. Default: the database's name.
    pub name: Option<String>,
    /// The delivery guarantee. `at-least-once`: nothing is lost, and after a crash at most the last
    /// second is published again. `exactly-once`: records are written in Kafka transactions, and
    /// readers with `isolation.level=read_committed` see each change once. See
    /// [delivery](delivery.md).
    pub delivery: Delivery,
    /// Bounds the memory for rows in the pipeline, whatever the size of a transaction and however
    /// long Kafka is unavailable; the database waits meanwhile. The process needs about 30 MB in
    /// addition.
    pub memory: Size,
    /// The database to read.
    pub postgres: Postgres,
    /// The brokers that are written to.
    pub kafka: Kafka,
    /// How topics are named and created.
    pub topics: Topics,
    /// The form of records.
    pub format: Format,
    /// What happens to a row that can't be published.
    pub errors: Errors,
    /// Settings of single tables, by `schema.table` or a glob of it; the first pattern that matches
    /// in alphabetical order applies, an exact name before any glob.
    pub tables: BTreeMap<String, Table>,
    /// How rows that existed before the stream are read.
    pub snapshot: Snapshot,
    /// When a pipeline without progress counts as stalled.
    pub watchdog: Watchdog,
    /// The HTTP endpoint for health and metrics.
    pub admin: Admin,
    /// Level and format of the log.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            delivery: Delivery::default(),
            name: None,
            memory: Memory::DEFAULT,
            postgres: Postgres::default(),
            kafka: Kafka::default(),
            topics: Topics::default(),
            format: Format::default(),
            errors: Errors::default(),
            tables: BTreeMap::new(),
            snapshot: Snapshot::default(),
            watchdog: Watchdog::default(),
            admin: Admin::default(),
            log: Log::default(),
        }
    }
}
