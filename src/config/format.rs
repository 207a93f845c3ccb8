//! `[format]`: the form of records.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::modes::{BinaryMode, DecimalMode, HstoreMode, IntervalMode, TimePrecisionMode};
use super::secret::Secret;

/// The form of records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Format {
    /// Shape of the value: `debezium` (the envelope), `debezium-schema` (key and envelope each with
    /// its Connect schema), `cloudevents` (the envelope's fields as a CloudEvent) or `flat` (the
    /// row's columns).
    pub value: ValueFormat,
    /// Form of column values: `readable`, or `debezium` (Debezium's defaults, bit for bit). The
    /// switches below change one kind of value each, under either; unset, the profile decides.
    /// `docs/types.md` has the tables.
    pub types: TypeProfile,
    /// `numeric` and `money`: `precise` (bytes and scale), `double` or `string`.
    pub decimal_handling_mode: Option<DecimalMode>,
    /// `date`, `time` and `timestamp`: numbers since the epoch or midnight, or `isostring`.
    pub time_precision_mode: Option<TimePrecisionMode>,
    /// `interval`: `numeric` (microseconds) or `string` (ISO 8601, every part).
    pub interval_handling_mode: Option<IntervalMode>,
    /// `hstore`: `json` (in a text) or `map` (an object).
    pub hstore_handling_mode: Option<HstoreMode>,
    /// `bytea`, and the content of logical messages. Default: `bytes`, which is base64 in JSON.
    pub binary_handling_mode: Option<BinaryMode>,
    /// The placeholder for a large value that did not change and was not sent, if `unchanged_toast`
    /// writes one: a text, or `hex:` and bytes in hexadecimal. Its form follows the column's type.
    pub unavailable_value_placeholder: String,
    /// Publish types that Debezium does not know as it does under `include.unknown.datatypes`: the
    /// bytes of their text, in the form of `binary_handling_mode`. Otherwise they are text.
    pub include_unknown_datatypes: bool,
    /// Form of the key: `json` (an object) or `value` (the bare value of a single key column).
    pub key: KeyFormat,
    /// Follow each delete with a tombstone (same key, no value), which compacted topics need.
    pub tombstones: bool,
    /// With `value = "flat"`: add `__op`, `__ts_ms`, `__lsn` and `__deleted` to the row's columns.
    pub flat_metadata: bool,
    /// The salt that `hash` of a table puts before each value. Keep it secret: values can be
    /// guessed from their hashes with it.
    pub hash_salt: Option<Secret>,
    /// A file whose first line is the salt; takes precedence over `hash_salt`.
    pub hash_salt_file: Option<PathBuf>,
    /// Add the headers `rowcast.lsn`, `rowcast.xid` and `rowcast.ordinal`, by which a consumer can
    /// rebuild transactions and drop repeats without parsing the value.
    pub position_headers: bool,
    /// Publish the begin and the end of each transaction to the topic `<prefix>.transaction`, and
    /// add to each event its place in its transaction.
    pub transaction_metadata: bool,
    /// Add Debezium's headers `__debezium.context.*` to each record of a table. Default: as
    /// Debezium does under `types = "debezium"`, not otherwise.
    pub context_headers: Option<bool>,
    /// A large (TOAST) value that an update did not change, which the server does not send: `omit`
    /// the column, write Debezium's `placeholder`, `reselect` the column's current value, or
    /// `fail`. Default: `placeholder` under `types = "debezium"`, else `omit`. See
    /// `docs/keys-and-identity.md`.
    pub unchanged_toast: Option<UnchangedToast>,
}

impl Format {
    /// Whether records of tables carry Debezium's context headers.
    #[must_use]
    pub fn has_context_headers(&self) -> bool {
        self.context_headers.unwrap_or(self.types == TypeProfile::Debezium)
    }
}

impl Format {
    /// What to do about a large value that did not change.
    #[must_use]
    pub fn unchanged_toast(&self) -> UnchangedToast {
        self.unchanged_toast.unwrap_or(match self.types {
            TypeProfile::Readable => UnchangedToast::Omit,
            TypeProfile::Debezium => UnchangedToast::Placeholder,
        })
    }
}

impl Default for Format {
    fn default() -> Self {
        Self {
            value: ValueFormat::Debezium,
            types: TypeProfile::Readable,
            decimal_handling_mode: None,
            time_precision_mode: None,
            interval_handling_mode: None,
            hstore_handling_mode: None,
            binary_handling_mode: None,
            unavailable_value_placeholder: "__debezium_unavailable_value".to_owned(),
            include_unknown_datatypes: false,
            key: KeyFormat::Json,
            tombstones: true,
            flat_metadata: false,
            hash_salt: None,
            hash_salt_file: None,
            position_headers: false,
            transaction_metadata: false,
            context_headers: None,
            unchanged_toast: None,
        }
    }
}

/// Shape of a record's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ValueFormat {
    /// Debezium's envelope: `before`, `after`, `source`, `op`, timestamps.
    Debezium,
    /// The envelope behind its Connect schema, as `JsonConverter` writes it; the key likewise.
    DebeziumSchema,
    /// A CloudEvent in structured JSON, around the envelope's `before` and `after`.
    #[serde(rename = "cloudevents")]
    CloudEvents,
    /// The row's columns.
    Flat,
}

/// Form of column values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TypeProfile {
    /// For people: decimals and times as text, JSON nested.
    Readable,
    /// For consumers of Debezium: its defaults.
    Debezium,
}

/// What to do about a large value that an update did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UnchangedToast {
    /// The column is left out and named in a header.
    Omit,
    /// Debezium's placeholder replaces it.
    Placeholder,
    /// The column's current value is read from the table.
    Reselect,
    /// The stream stops.
    Fail,
}

/// Form of a record's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeyFormat {
    /// A JSON object of the key columns.
    Json,
    /// The bare value of a single key column; an object if there are several.
    Value,
}
