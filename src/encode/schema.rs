//! The Connect schemas around a record, as `JsonConverter` writes them under `schemas.enable`.
//!
//! A schema is a text that is put in front of each payload, made once per relation; no row pays for
//! more than its copy. Columns have theirs from `types`, what is here is how they are put together:
//! Debezium's names, versions and order of fields.
//!
//! A schema promises that every field is there, and a value where it is not optional. So what the
//! server did not send of a row is written too: see [`Fill`].

use serde_json::Value;

use crate::config::{BinaryMode, Format, ValueFormat};
use crate::types::{Codec, Placeholder, SchemaOf, write_string};

const SOURCE: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"version"},"#,
    r#"{"type":"string","optional":false,"field":"connector"},"#,
    r#"{"type":"string","optional":false,"field":"name"},"#,
    r#"{"type":"int64","optional":false,"field":"ts_ms"},"#,
    r#"{"type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"#,
    r#""parameters":{"allowed":"true,first,first_in_data_collection,"#,
    r#"last_in_data_collection,last,false,incremental"},"default":"false","field":"snapshot"},"#,
    r#"{"type":"string","optional":false,"field":"db"},"#,
    r#"{"type":"string","optional":true,"field":"sequence"},"#,
    r#"{"type":"int64","optional":true,"field":"ts_us"},"#,
    r#"{"type":"int64","optional":true,"field":"ts_ns"},"#,
    r#"{"type":"string","optional":false,"field":"schema"},"#,
    r#"{"type":"string","optional":false,"field":"table"},"#,
    r#"{"type":"int64","optional":true,"field":"txId"},"#,
    r#"{"type":"int64","optional":true,"field":"lsn"},"#,
    r#"{"type":"int64","optional":true,"field":"xmin"},"#,
    r#"{"type":"string","optional":true,"field":"origin"},"#,
    r#"{"type":"int64","optional":true,"field":"origin_lsn"}],"optional":false,"#,
    r#""name":"io.debezium.connector.postgresql.Source","version":1,"field":"source"}"#,
);

const TRANSACTION: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"},"#,
    r#"{"type":"int64","optional":false,"field":"total_order"},"#,
    r#"{"type":"int64","optional":false,"field":"data_collection_order"}],"#,
    r#""optional":true,"name":"event.block","version":1,"field":"transaction"}"#,
);

const TRANSACTION_KEY: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"}],"#,
    r#""optional":false,"name":"io.debezium.connector.common.TransactionMetadataKey","version":1}"#,
);

const TRANSACTION_VALUE: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"status"},"#,
    r#"{"type":"string","optional":false,"field":"id"},"#,
    r#"{"type":"int64","optional":true,"field":"event_count"},"#,
    r#"{"type":"array","items":{"type":"struct","fields":["#,
    r#"{"type":"string","optional":false,"field":"data_collection"},"#,
    r#"{"type":"int64","optional":false,"field":"event_count"}],"#,
    r#""optional":true,"name":"event.collection","version":1},"#,
    r#""optional":true,"field":"data_collections"},"#,
    r#"{"type":"int64","optional":false,"field":"ts_ms"}],"optional":false,"#,
    r#""name":"io.debezium.connector.common.TransactionMetadataValue","version":1}"#,
);

const MESSAGE_KEY: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":true,"field":"prefix"}],"#,
    r#""optional":false,"name":"io.debezium.connector.postgresql.MessageKey","version":1}"#,
);

/// What goes in front of a payload: `{"schema":..,"payload":`; nothing where schemas are off.
#[derive(Debug, Clone, Default)]
pub(super) struct Head(Vec<u8>);

impl Head {
    /// In front of payloads of this schema.
    pub(super) fn of(schema: &[u8]) -> Self {
        Self([b"{\"schema\":".as_slice(), schema, b",\"payload\":"].concat())
    }

    /// Appends a payload with what goes around it.
    #[inline]
    pub(super) fn around<E>(
        &self,
        out: &mut Vec<u8>,
        payload: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        out.extend_from_slice(&self.0);
        payload(out)?;
        if !self.0.is_empty() {
            out.push(b'}');
        }
        Ok(())
    }

    /// Bytes in front of the payload, and behind it.
    pub(super) const fn lengths(&self) -> (usize, usize) {
        (self.0.len(), if self.0.is_empty() { 0 } else { 1 })
    }
}

/// What goes in front of the payloads that are not of a table.
#[derive(Debug, Default)]
pub(super) struct Heads {
    pub(super) transaction_key: Head,
    pub(super) transaction_value: Head,
    pub(super) message_key: Head,
    pub(super) message_value: Head,
}

impl Heads {
    pub(super) fn new(format: &Format) -> Self {
        if format.value != ValueFormat::DebeziumSchema {
            return Self::default();
        }
        Self {
            transaction_key: Head::of(TRANSACTION_KEY.as_bytes()),
            transaction_value: Head::of(TRANSACTION_VALUE.as_bytes()),
            message_key: Head::of(MESSAGE_KEY.as_bytes()),
            message_value: Head::of(&message_value(match format.binary_handling_mode {
                None | Some(BinaryMode::Bytes) => "bytes",
                Some(_) => "string",
            })),
        }
    }
}

/// The schema of a logical message. `content` is the type that its content has.
fn message_value(content: &str) -> Vec<u8> {
    [
        r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"op"},"#,
        r#"{"type":"int64","optional":true,"field":"ts_ms"},"#,
        SOURCE,
        ",",
        TRANSACTION,
        r#",{"type":"struct","fields":[{"type":"string","optional":true,"field":"prefix"},{"type":""#,
        content,
        r#"","optional":true,"field":"content"}],"optional":false,"#,
        r#""name":"io.debezium.connector.postgresql.Message","version":1,"field":"message"}],"#,
        r#""optional":false,"name":"io.debezium.connector.postgresql.MessageValue","version":1}"#,
    ]
    .concat()
    .into_bytes()
}

/// A struct of these fields, without its closing brace; `fields` are schemas with their names.
pub(super) fn structure(
    fields: &[impl AsRef<[u8]>],
    optional: bool,
    name: &str,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"type\":\"struct\",\"fields\":[");
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(field.as_ref());
    }
    out.extend_from_slice(b"],\"optional\":");
    out.extend_from_slice(if optional { b"true" } else { b"false" });
    out.extend_from_slice(b",\"name\":");
    write_string(name, out);
}

/// The schema of an envelope around rows of these columns. `rows` names the schema of the rows,
/// `envelope` its own.
pub(super) fn envelope(columns: &[impl AsRef<[u8]>], rows: &str, envelope: &str) -> Vec<u8> {
    let row = |field: &str| {
        let mut row = Vec::new();
        structure(columns, true, rows, &mut row);
        row.extend_from_slice(format!(",\"field\":\"{field}\"}}").as_bytes());
        row
    };
    let time = |name: &str| format!(r#"{{"type":"int64","optional":true,"field":"{name}"}}"#);
    let fields = [
        row("before"),
        row("after"),
        SOURCE.into(),
        TRANSACTION.into(),
        br#"{"type":"string","optional":false,"field":"op"}"#.to_vec(),
        time("ts_ms").into(),
        time("ts_us").into(),
        time("ts_ns").into(),
    ];
    let mut schema = Vec::new();
    structure(&fields, false, envelope, &mut schema);
    schema.extend_from_slice(b",\"version\":2}");
    schema
}

/// What is written if the server sent no value of a column and the schema requires one.
#[derive(Debug)]
pub(super) struct Fill {
    /// For a null, and for a column that an old row does not have: null where that is allowed, else
    /// the default, else something like zero, as in Debezium.
    pub(super) null: Vec<u8>,
    /// For a TOAST value that did not change: Debezium's placeholder, where the type can hold it.
    pub(super) unchanged: Vec<u8>,
}

impl Fill {
    pub(super) fn new(codec: &Codec, of: &SchemaOf<'_>, placeholder: &Placeholder) -> Self {
        let null = match of.default {
            _ if of.optional => b"null".to_vec(),
            Some(default) => default.to_vec(),
            None => {
                let mut filler = Vec::new();
                codec.write_filler(&mut filler);
                filler
            }
        };
        let (mut schema, mut unchanged) = (Vec::new(), Vec::new());
        codec.write_schema(of, &mut schema);
        codec.write_placeholder(placeholder, &mut unchanged);
        let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap_or_default();
        if !holds(&parse(&schema), &parse(&unchanged)) {
            unchanged.clone_from(&null);
        }
        Self { null, unchanged }
    }
}

/// Whether a value is one of its schema, as `JsonConverter` reads it. Made for placeholders: of
/// numbers it asks no more than that they are some.
fn holds(schema: &Value, value: &Value) -> bool {
    if value.is_null() {
        return schema["optional"] == true;
    }
    let each = |schema: &Value, mut values: Box<dyn Iterator<Item = &Value> + '_>| {
        values.all(|value| holds(schema, value))
    };
    match schema["type"].as_str() {
        Some("boolean") => value.is_boolean(),
        Some("int8" | "int16" | "int32" | "int64") => value.is_i64(),
        Some("float" | "double") => value.is_number(),
        Some("string") => value.is_string(),
        Some("bytes") => {
            use base64::Engine as _;
            let engine = base64::engine::general_purpose::STANDARD;
            value.as_str().is_some_and(|text| engine.decode(text).is_ok())
        }
        Some("array") => {
            value.as_array().is_some_and(|values| each(&schema["items"], Box::new(values.iter())))
        }
        Some("map") => {
            value.as_object().is_some_and(|pairs| each(&schema["values"], Box::new(pairs.values())))
        }
        Some("struct") => {
            value.is_object()
                && schema["fields"].as_array().is_some_and(|fields| {
                    fields.iter().all(|field| {
                        field["field"].as_str().is_some_and(|name| holds(field, &value[name]))
                    })
                })
        }
        _ => false,
    }
}
