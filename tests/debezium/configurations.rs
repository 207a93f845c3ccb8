//! The configurations that are compared, each as Debezium's properties.
//!
//! Switches that do not touch each other share a configuration.

/// One configuration.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// Its name, and its golden file's.
    pub(crate) name: &'static str,
    /// Whether JsonConverter writes schemas.
    pub(crate) schemas: bool,
    /// Whether partitioned tables are published as one.
    pub(crate) by_root: bool,
    /// Debezium's properties beside those that all have.
    pub(crate) connector: &'static [(&'static str, &'static str)],
}

/// All of them.
pub(crate) const ALL: &[Configuration] = &[
    Configuration { name: "plain", schemas: false, by_root: false, connector: &[] },
    Configuration { name: "schema", schemas: true, by_root: false, connector: &[] },
    Configuration {
        name: "texts",
        schemas: false,
        by_root: true,
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
    },
    Configuration {
        name: "connect",
        schemas: false,
        by_root: false,
        connector: &[
            ("decimal.handling.mode", "double"),
            ("time.precision.mode", "connect"),
            ("binary.handling.mode", "base64"),
            ("include.unknown.datatypes", "true"),
            ("extended.headers.enabled", "false"),
        ],
    },
    Configuration {
        name: "microseconds",
        schemas: false,
        by_root: false,
        connector: &[
            ("time.precision.mode", "adaptive_time_microseconds"),
            ("binary.handling.mode", "base64-url-safe"),
            ("unavailable.value.placeholder", "hex:cafe"),
        ],
    },
    Configuration {
        name: "nanoseconds",
        schemas: true,
        by_root: false,
        connector: &[
            ("time.precision.mode", "nanoseconds"),
            ("decimal.handling.mode", "string"),
            ("interval.handling.mode", "string"),
            ("hstore.handling.mode", "map"),
            // A key-only old row without a NOT NULL timestamp ends the connector in this mode.
            ("table.exclude.list", "public\\\\.fillers.*"),
        ],
    },
];
