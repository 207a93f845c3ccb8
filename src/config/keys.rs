//! Every configuration key, and what it accepts.
//!
//! The section structs say what a key means and what its default is; this table says what may be
//! written for it, so that all sources are checked by one rule and all faults are found at once.
//! A test holds the table and the structs together.

use std::time::Duration;

use super::memory::Memory;
use super::size::Size;

/// What a key accepts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A text that must pass a further rule.
    Text(Rule),
    /// A text that is never shown.
    Secret,
    Boolean,
    Integer {
        min: i64,
        max: i64,
        /// A value below `min` that has a meaning of its own.
        or: Option<i64>,
    },
    Duration {
        min: Duration,
        max: Duration,
    },
    /// A number of bytes with its unit.
    Size {
        min: Size,
        max: Size,
    },
    /// The name of a file.
    Path,
    OneOf(&'static [&'static str]),
    /// An IP address and a port.
    Address,
    /// Names of hosts, without ports.
    Hosts,
    /// Globs of `schema.table`.
    Patterns {
        /// Whether the list may be empty.
        empty: bool,
    },
    /// Column names.
    Columns,
    /// Names of any kind.
    Names,
    /// Globs of column names.
    ColumnPatterns {
        /// Whether the list may be empty.
        empty: bool,
    },
    /// Globs of column names with numbers from 0 on.
    Counts {
        max: i64,
    },
    /// Kinds of row changes.
    Operations,
    /// Any names with texts.
    Texts,
    /// librdkafka properties with their values.
    Properties,
    /// librdkafka properties with the files that hold their values.
    PropertyFiles,
    /// librdkafka properties with the commands that print their values.
    PropertyCommands,
    /// A program and its arguments.
    Command,
    /// Table patterns with [`TABLE_KEYS`].
    Tables,
}

/// The rule a text has to pass.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    Name,
    Brokers,
    Slot,
    Publication,
    Template,
    Topic,
    /// `schema.table`, no glob.
    Table,
    LogLevel,
    Condition,
    /// A text, or `hex:` and bytes.
    Unavailable,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Its section; empty at the top level.
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

impl Key {
    /// The key with its section, as it is written in messages.
    pub(super) fn dotted(&self) -> String {
        match self.section {
            "" => self.name.to_owned(),
            section => format!("{section}.{}", self.name),
        }
    }

    /// The variable that sets it.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.dotted().replace('.', "__").to_uppercase())
    }
}

/// Prefix of our variables.
pub(super) const PREFIX: &str = "ROWCAST_";

const fn key(section: &'static str, name: &'static str, kind: Kind) -> Key {
    Key { section, name, kind }
}

const fn duration(min_ms: u64, max_s: u64) -> Kind {
    Kind::Duration { min: Duration::from_millis(min_ms), max: Duration::from_secs(max_s) }
}

/// More asterisks are only a cost.
const MASK_MAX: i64 = 10_000;
const PARTITIONS: Kind = Kind::Integer { min: 1, max: i32::MAX as i64, or: None };
// Kafka's protocol has 16 bits for it.
const REPLICAS: Kind = Kind::Integer { min: 1, max: i16::MAX as i64, or: Some(-1) };

// A WAL segment is 16 MB, and the slot always holds one.
const SLOT_WAL: Kind = Kind::Size { min: Size::from_mb(32), max: Size::from_mb(1 << 30) };
// With less than a batch, each batch would be a transaction; librdkafka's queue bounds what is
// useful.
const TRANSACTION_BYTES: Kind = Kind::Integer { min: 1 << 16, max: 1 << 34, or: None };

const SNAPSHOT_MODES: &[&str] = &["initial", "always", "never", "only", "when-needed"];

const TIME_PRECISION_MODES: &[&str] = &[
    "adaptive",
    "adaptive_time_microseconds",
    "connect",
    "microseconds",
    "nanoseconds",
    "isostring",
];
const BINARY_MODES: &[&str] = &["bytes", "base64", "base64-url-safe", "hex"];

/// Every key except those of single tables, in the order of the manual.
pub(super) const KEYS: &[Key] = &[
    key("", "name", Kind::Text(Rule::Name)),
    key("", "delivery", Kind::OneOf(&["at-least-once", "exactly-once"])),
    key("", "memory", Kind::Size { min: Memory::MIN, max: Memory::MAX }),
    key("postgres", "url", Kind::Secret),
    key("postgres", "password_file", Kind::Path),
    key("postgres", "password_command", Kind::Command),
    key("postgres", "tables", Kind::Patterns { empty: false }),
    key("postgres", "exclude_tables", Kind::Patterns { empty: true }),
    key("postgres", "skipped_operations", Kind::Operations),
    key("postgres", "discover_interval", duration(100, 86_400)),
    key("postgres", "slot", Kind::Text(Rule::Slot)),
    key("postgres", "publication", Kind::Text(Rule::Publication)),
    key("postgres", "manage", Kind::Boolean),
    key("postgres", "publish_via_partition_root", Kind::Boolean),
    key("postgres", "column_lists", Kind::OneOf(&["publication", "none"])),
    key("postgres", "failover", Kind::Boolean),
    key("postgres", "slot_wal_limit", SLOT_WAL),
    key("postgres", "on_gap", Kind::OneOf(&["stop", "accept", "snapshot"])),
    key("postgres", "signal_table", Kind::Text(Rule::Table)),
    key("postgres", "signal_token_file", Kind::Path),
    key("postgres", "signal_conditions", Kind::Boolean),
    key("postgres", "snapshot_role", Kind::Text(Rule::Publication)),
    key("postgres", "status_interval", duration(100, 600)),
    key("postgres", "connect_timeout", duration(100, 600)),
    key("kafka", "brokers", Kind::Text(Rule::Brokers)),
    key("kafka", "properties", Kind::Properties),
    key("kafka", "property_files", Kind::PropertyFiles),
    key("kafka", "property_commands", Kind::PropertyCommands),
    key("kafka", "drain_timeout", duration(0, 3600)),
    key("kafka", "commit_interval", duration(0, 10)),
    key("kafka", "max_transaction_bytes", TRANSACTION_BYTES),
    key("topics", "template", Kind::Text(Rule::Template)),
    key("topics", "escape", Kind::OneOf(&["underscore", "unicode"])),
    key("topics", "prefix", Kind::Text(Rule::Name)),
    key("topics", "create", Kind::Boolean),
    key("topics", "describe", Kind::Boolean),
    key("topics", "partitions", PARTITIONS),
    key("topics", "replication_factor", REPLICAS),
    key("topics", "settings", Kind::Texts),
    key("topics", "checkpoints", Kind::Text(Rule::Topic)),
    key("format", "value", Kind::OneOf(&["debezium", "debezium-schema", "cloudevents", "flat"])),
    key("format", "types", Kind::OneOf(&["readable", "debezium"])),
    key("format", "decimal_handling_mode", Kind::OneOf(&["precise", "double", "string"])),
    key("format", "time_precision_mode", Kind::OneOf(TIME_PRECISION_MODES)),
    key("format", "interval_handling_mode", Kind::OneOf(&["numeric", "string"])),
    key("format", "hstore_handling_mode", Kind::OneOf(&["json", "map"])),
    key("format", "binary_handling_mode", Kind::OneOf(BINARY_MODES)),
    key("format", "unavailable_value_placeholder", Kind::Text(Rule::Unavailable)),
    key("format", "include_unknown_datatypes", Kind::Boolean),
    key("format", "key", Kind::OneOf(&["json", "value"])),
    key("format", "tombstones", Kind::Boolean),
    key("format", "flat_metadata", Kind::Boolean),
    key("format", "hash_salt", Kind::Secret),
    key("format", "hash_salt_file", Kind::Path),
    key("format", "position_headers", Kind::Boolean),
    key("format", "transaction_metadata", Kind::Boolean),
    key("format", "context_headers", Kind::Boolean),
    key("format", "unchanged_toast", Kind::OneOf(&["omit", "placeholder", "reselect", "fail"])),
    key("errors", "on_error", Kind::OneOf(&["fail", "skip-with-dead-letter"])),
    key("errors", "on_oversize", Kind::OneOf(&["fail", "dead-letter"])),
    key("errors", "dead_letter_topic", Kind::Text(Rule::Topic)),
    key("", "tables", Kind::Tables),
    key("snapshot", "mode", Kind::OneOf(SNAPSHOT_MODES)),
    key("snapshot", "connections", Kind::Integer { min: 1, max: 64, or: None }),
    key("snapshot", "condition_timeout", duration(100, 86_400)),
    key("watchdog", "source_stalled_after", duration(100, 86_400)),
    key("watchdog", "kafka_stalled_after", duration(100, 86_400)),
    key("watchdog", "server_silent_after", duration(100, 86_400)),
    key("admin", "enabled", Kind::Boolean),
    key("admin", "listen", Kind::Address),
    key("admin", "hosts", Kind::Hosts),
    key("admin", "token_file", Kind::Path),
    key("log", "level", Kind::Text(Rule::LogLevel)),
    key("log", "format", Kind::OneOf(&["text", "json"])),
];

/// The keys of `[tables."schema.table"]`.
pub(super) const TABLE_KEYS: &[Key] = &[
    key("tables", "topic", Kind::Text(Rule::Topic)),
    key("tables", "key", Kind::Columns),
    key("tables", "columns", Kind::ColumnPatterns { empty: false }),
    key("tables", "exclude_columns", Kind::ColumnPatterns { empty: true }),
    key("tables", "where", Kind::Text(Rule::Condition)),
    key("tables", "snapshot_where", Kind::Text(Rule::Condition)),
    key("tables", "mask", Kind::Counts { max: MASK_MAX }),
    key("tables", "hash", Kind::ColumnPatterns { empty: true }),
    key("tables", "truncate", Kind::Counts { max: u32::MAX as i64 }),
    key("tables", "truncate_oversize", Kind::ColumnPatterns { empty: true }),
    key("tables", "renamed_from", Kind::Names),
    key("tables", "partitions", PARTITIONS),
    key("tables", "replication_factor", REPLICAS),
    key("tables", "settings", Kind::Texts),
];

/// The key of this section and name.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// Whether the name is that of a section.
pub(super) fn is_section(name: &str) -> bool {
    !name.is_empty() && KEYS.iter().any(|key| key.section == name)
}

/// The known word that is most similar to `word`.
pub(crate) fn nearest(word: &str, known: impl Iterator<Item = String>) -> Option<String> {
    // Below this similarity, suggestions are misleading (`name` for `nodes`).
    const ALIKE: f64 = 0.75;
    known
        .map(|candidate| (strsim::normalized_damerau_levenshtein(word, &candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::{Config, Table};

    #[test]
    fn the_table_and_the_structs_have_the_same_keys() {
        let config = serde_json::to_value(Config::default()).unwrap();
        let mut in_structs = BTreeSet::new();
        for (section, value) in config.as_object().unwrap() {
            match value.as_object() {
                Some(fields) if section != "tables" => {
                    in_structs.extend(fields.keys().map(|field| format!("{section}.{field}")));
                }
                _ => drop(in_structs.insert(section.clone())),
            }
        }
        let in_table: BTreeSet<String> = KEYS.iter().map(Key::dotted).collect();
        assert_eq!(in_table, in_structs);

        let table = serde_json::to_value(Table::default()).unwrap();
        let in_struct: BTreeSet<&str> =
            table.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(TABLE_KEYS.iter().map(|key| key.name).collect::<BTreeSet<_>>(), in_struct);
    }

    #[test]
    fn a_slip_of_the_pen_finds_the_key_that_was_meant() {
        let known = || KEYS.iter().map(Key::dotted);
        assert_eq!(nearest("postgres.slto", known()), Some("postgres.slot".to_owned()));
        assert_eq!(nearest("nothing.alike", known()), None);
    }
}
