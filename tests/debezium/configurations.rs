//! The configurations that are compared: Debezium's properties, and rowcast's keys for the same.
//!
//! Switches that do not touch each other share a configuration. One more is an entry in [`ALL`] and
//! its golden file.

use crate::script::Part;

/// One configuration.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// Its name, and its golden file's.
    pub(crate) name: &'static str,
    /// Whether JsonConverter writes schemas.
    pub(crate) schemas: bool,
    /// The publication that is read.
    pub(crate) publication: &'static str,
    /// Debezium's properties beside those that all have.
    pub(crate) connector: &'static [(&'static str, &'static str)],
    /// The same for rowcast's `[format]`, beside what all have.
    pub(crate) format: &'static str,
    /// rowcast's `skipped_operations`.
    pub(crate) skipped_operations: &'static [&'static str],
    /// The part of the script that rowcast refuses, and ends at, where Debezium publishes null or
    /// another value.
    pub(crate) refused: Option<&'static str>,
    /// Tables that are left out of Debezium because they end it.
    pub(crate) unread: &'static [&'static str],
}

impl Configuration {
    /// The parts from the one on that rowcast refuses.
    pub(crate) fn refused_parts<'a>(&self, parts: &'a [Part]) -> &'a [Part] {
        let at = self.refused.map_or(parts.len(), |refused| {
            parts.iter().position(|part| part.name == refused).expect("a part")
        });
        &parts[at..]
    }

    /// Whether Debezium reads with it on every version of PostgreSQL, not on the newest alone. One
    /// does: with schemas it tells all that the same tells without.
    pub(crate) fn is_debeziums_everywhere(&self) -> bool {
        self.name == "schema"
    }

    /// The same of rowcast, which without schemas is compared with the golden file.
    pub(crate) fn is_rowcasts_everywhere(&self) -> bool {
        ["plain", "schema"].contains(&self.name)
    }
}

/// All of them.
pub(crate) const ALL: &[Configuration] = &[
    Configuration {
        name: "plain",
        schemas: false,
        publication: "leaves",
        connector: &[],
        format: "",
        skipped_operations: &["truncate"],
        refused: Some("91_not_numbers.sql"),
        unread: &[],
    },
    Configuration {
        name: "schema",
        schemas: true,
        publication: "leaves",
        connector: &[],
        format: "",
        skipped_operations: &["truncate"],
        refused: Some("91_not_numbers.sql"),
        unread: &[],
    },
    Configuration {
        name: "texts",
        schemas: false,
        publication: "roots",
        connector: &[
            ("decimal.handling.mode", "string"),
            ("time.precision.mode", "isostring"),
            ("interval.handling.mode", "string"),
            ("hstore.handling.mode", "map"),
            ("binary.handling.mode", "hex"),
            ("include.unknown.datatypes", "true"),
            ("provide.transaction.metadata", "true"),
            ("tombstones.on.delete", "false"),
            ("skipped.operations", "none"),
        ],
        format: "
decimal_handling_mode = \"string\"
time_precision_mode = \"isostring\"
interval_handling_mode = \"string\"
hstore_handling_mode = \"map\"
binary_handling_mode = \"hex\"
include_unknown_datatypes = true
transaction_metadata = true
tombstones = false
",
        skipped_operations: &[],
        refused: None,
        unread: &[],
    },
    Configuration {
        name: "connect",
        schemas: false,
        publication: "leaves",
        connector: &[
            ("decimal.handling.mode", "double"),
            ("time.precision.mode", "connect"),
            ("binary.handling.mode", "base64"),
            ("include.unknown.datatypes", "true"),
            ("extended.headers.enabled", "false"),
        ],
        format: "
decimal_handling_mode = \"double\"
time_precision_mode = \"connect\"
binary_handling_mode = \"base64\"
include_unknown_datatypes = true
context_headers = false
",
        skipped_operations: &["truncate"],
        refused: None,
        unread: &[],
    },
    Configuration {
        name: "microseconds",
        schemas: false,
        publication: "leaves",
        connector: &[
            ("time.precision.mode", "adaptive_time_microseconds"),
            ("binary.handling.mode", "base64-url-safe"),
            ("unavailable.value.placeholder", "not sent"),
        ],
        format: "
time_precision_mode = \"adaptive_time_microseconds\"
binary_handling_mode = \"base64-url-safe\"
unavailable_value_placeholder = \"not sent\"
",
        skipped_operations: &["truncate"],
        refused: Some("91_not_numbers.sql"),
        unread: &[],
    },
    Configuration {
        name: "nanoseconds",
        schemas: true,
        publication: "leaves",
        connector: &[
            ("time.precision.mode", "nanoseconds"),
            ("decimal.handling.mode", "string"),
            ("interval.handling.mode", "string"),
            ("hstore.handling.mode", "map"),
            // A key-only old row without a NOT NULL timestamp ends the connector in this mode.
            ("table.exclude.list", "public\\\\.fillers.*"),
        ],
        format: "
time_precision_mode = \"nanoseconds\"
decimal_handling_mode = \"string\"
interval_handling_mode = \"string\"
hstore_handling_mode = \"map\"
",
        skipped_operations: &["truncate"],
        refused: Some("90_far_times.sql"),
        unread: &["public.fillers", "public.fillers_defaults"],
    },
];
