//! The Connect schema of a column, as `JsonConverter` writes it.
//!
//! Keys are in the converter's order: the type with its parts, `optional`, `name`, `version`,
//! `doc`, `parameters`, `default`, `field`. Made once per relation, so it may allocate.

use super::hstore::HstoreForm;
use super::{Array, Codec, Hstore, TextKind, Ticks, money, write_string};
use crate::config::BinaryMode;

const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
const JSON: &str = "io.debezium.data.Json";
const MAP_OF_TEXTS: &str = "\"type\":\"map\",\
    \"keys\":{\"type\":\"string\",\"optional\":false},\
    \"values\":{\"type\":\"string\",\"optional\":true}";
const SPARSE_VECTOR: &str = "\"type\":\"struct\",\"fields\":[\
    {\"type\":\"int16\",\"optional\":false,\"field\":\"dimensions\"},\
    {\"type\":\"map\",\"keys\":{\"type\":\"int16\",\"optional\":false},\
    \"values\":{\"type\":\"double\",\"optional\":false},\"optional\":false,\"field\":\"vector\"}]";

/// What a schema contains besides the type.
#[derive(Debug, Clone, Copy, Default)]
pub struct SchemaOf<'a> {
    /// The name of the field, where the schema is one.
    pub field: Option<&'a str>,
    /// Whether there may be no value.
    pub optional: bool,
    /// The default value's JSON.
    pub default: Option<&'a [u8]>,
}

/// A schema without the facts of one field.
#[derive(Default)]
struct Schema {
    /// `"type"` and what belongs to it, without braces.
    kind: String,
    name: Option<&'static str>,
    doc: Option<&'static str>,
    /// Whether there may be no value, whatever the column says.
    optional: bool,
    parameters: Vec<(&'static str, String)>,
}

impl Codec {
    /// Appends the JSON of the column's schema.
    pub fn write_schema(&self, of: &SchemaOf<'_>, out: &mut Vec<u8>) {
        self.schema().write(of, out);
    }

    #[expect(clippy::too_many_lines, reason = "a table: the schema of each codec")]
    fn schema(&self) -> Schema {
        match self {
            Self::Bool | Self::Bit => plain("boolean"),
            Self::Int16 => plain("int16"),
            Self::Int32 => plain("int32"),
            Self::Int64 => plain("int64"),
            Self::Float32 | Self::JavaFloat32 => plain("float"),
            Self::Float64 | Self::JavaFloat64 | Self::NumericDouble | Self::MoneyDouble => {
                plain("double")
            }
            Self::Numeric
            | Self::NumericString { .. }
            | Self::MoneyString
            | Self::Date
            | Self::Time
            | Self::TimeTz
            | Self::Timestamp
            | Self::TimestampTz
            | Self::Interval => plain("string"),
            Self::Decimal { precision, scale, .. } => Schema {
                parameters: vec![
                    ("scale", scale.to_string()),
                    ("connect.decimal.precision", precision.to_string()),
                ],
                ..named("bytes", DECIMAL)
            },
            Self::Money(_) => Schema {
                parameters: vec![("scale", money::SCALE.to_string())],
                ..named("bytes", DECIMAL)
            },
            Self::VariableScaleDecimal(_) => Schema {
                name: Some("io.debezium.data.VariableScaleDecimal"),
                doc: Some("Variable scaled decimal"),
                ..structure(&[("scale", "int32", false), ("value", "bytes", false)])
            },
            Self::Days { connect: true } => named("int32", "org.apache.kafka.connect.data.Date"),
            Self::Days { connect: false } => named("int32", "io.debezium.time.Date"),
            Self::TimeOfDay(ticks) => match ticks {
                Ticks::ConnectMillis => named("int32", "org.apache.kafka.connect.data.Time"),
                Ticks::Millis => named("int32", "io.debezium.time.Time"),
                Ticks::Micros => named("int64", "io.debezium.time.MicroTime"),
                Ticks::Nanos => named("int64", "io.debezium.time.NanoTime"),
            },
            Self::EpochTimestamp(ticks) => match ticks {
                Ticks::ConnectMillis => named("int64", "org.apache.kafka.connect.data.Timestamp"),
                Ticks::Millis => named("int64", "io.debezium.time.Timestamp"),
                Ticks::Micros => named("int64", "io.debezium.time.MicroTimestamp"),
                Ticks::Nanos => named("int64", "io.debezium.time.NanoTimestamp"),
            },
            Self::IsoDate => named("string", "io.debezium.time.IsoDate"),
            Self::IsoTime => named("string", "io.debezium.time.IsoTime"),
            Self::IsoTimestamp => named("string", "io.debezium.time.IsoTimestamp"),
            Self::ZonedTime => named("string", "io.debezium.time.ZonedTime"),
            Self::ZonedTimestamp { .. } => named("string", "io.debezium.time.ZonedTimestamp"),
            Self::IntervalMicros => named("int64", "io.debezium.time.MicroDuration"),
            Self::IntervalIso => named("string", "io.debezium.time.Interval"),
            Self::Bits { length } => Schema {
                parameters: vec![("length", length.to_string())],
                ..named("bytes", "io.debezium.data.Bits")
            },
            Self::Bytea(BinaryMode::Bytes) | Self::TextBytes(BinaryMode::Bytes) => plain("bytes"),
            Self::Bytea(_) | Self::TextBytes(_) => plain("string"),
            Self::Json(_) => named("string", JSON),
            Self::Hstore(Hstore(hstore)) if hstore.form() == HstoreForm::JsonText => {
                named("string", JSON)
            }
            Self::Hstore(_) => Schema { kind: MAP_OF_TEXTS.to_owned(), ..Schema::default() },
            Self::Point => Schema {
                name: Some("io.debezium.data.geometry.Point"),
                doc: Some("Geometry (POINT)"),
                ..structure(&[
                    ("x", "double", false),
                    ("y", "double", false),
                    ("wkb", "bytes", true),
                    ("srid", "int32", true),
                ])
            },
            Self::Geometry { geography } => {
                let (name, doc) = if *geography {
                    ("io.debezium.data.geometry.Geography", "Geography")
                } else {
                    ("io.debezium.data.geometry.Geometry", "Geometry")
                };
                Schema {
                    name: Some(name),
                    doc: Some(doc),
                    // Debezium's builder of this one type says so.
                    optional: !geography,
                    ..structure(&[("wkb", "bytes", false), ("srid", "int32", true)])
                }
            }
            Self::Vector64 => {
                Schema { name: Some("io.debezium.data.DoubleVector"), ..array_of("double") }
            }
            Self::Vector32 => {
                Schema { name: Some("io.debezium.data.FloatVector"), ..array_of("float") }
            }
            Self::NumberArray => array_of("double"),
            Self::SparseVector(_) => Schema {
                kind: SPARSE_VECTOR.to_owned(),
                name: Some("io.debezium.data.SparseDoubleVector"),
                doc: Some("Sparse double vector"),
                ..Schema::default()
            },
            Self::IntList { wide: false } => array_of("int16"),
            Self::IntList { wide: true } => array_of("int64"),
            Self::Text(kind) => text(kind),
            Self::Array(Array(array)) => items(array.element()),
        }
    }
}

/// The schema of an array. Debezium's has no null elements where it takes the element's schema
/// as it is, which is for every type without a case of its own.
fn items(element: &Codec) -> Schema {
    let optional = !matches!(
        element,
        Codec::Text(TextKind::Enum { .. } | TextKind::TsVector) | Codec::IntList { .. }
    );
    let mut items = Vec::new();
    element.write_schema(&SchemaOf { optional, ..SchemaOf::default() }, &mut items);
    let items = String::from_utf8_lossy(&items);
    Schema { kind: format!("\"type\":\"array\",\"items\":{items}"), ..Schema::default() }
}

/// An array of numbers that are never null.
fn array_of(kind: &str) -> Schema {
    let kind = format!("\"type\":\"array\",\"items\":{{\"type\":\"{kind}\",\"optional\":false}}");
    Schema { kind, ..Schema::default() }
}

/// An object of fields, each with its type and whether it may be null.
fn structure(fields: &[(&str, &str, bool)]) -> Schema {
    let fields = fields.iter().map(|(field, kind, optional)| {
        format!("{{\"type\":\"{kind}\",\"optional\":{optional},\"field\":\"{field}\"}}")
    });
    let fields = fields.collect::<Vec<_>>().join(",");
    Schema { kind: format!("\"type\":\"struct\",\"fields\":[{fields}]"), ..Schema::default() }
}

fn plain(kind: &str) -> Schema {
    Schema { kind: format!("\"type\":\"{kind}\""), ..Schema::default() }
}

fn named(kind: &str, name: &'static str) -> Schema {
    Schema { name: Some(name), ..plain(kind) }
}

fn text(kind: &TextKind) -> Schema {
    match kind {
        TextKind::Plain => plain("string"),
        TextKind::Uuid => named("string", "io.debezium.data.Uuid"),
        TextKind::Xml => named("string", "io.debezium.data.Xml"),
        TextKind::Json => named("string", JSON),
        TextKind::TsVector => named("string", "io.debezium.data.Tsvector"),
        TextKind::Ltree => named("string", "io.debezium.data.Ltree"),
        TextKind::Enum { allowed } => Schema {
            parameters: vec![("allowed", allowed.clone())],
            ..named("string", "io.debezium.data.Enum")
        },
    }
}

impl Schema {
    fn write(&self, of: &SchemaOf<'_>, out: &mut Vec<u8>) {
        out.push(b'{');
        out.extend_from_slice(self.kind.as_bytes());
        out.extend_from_slice(b",\"optional\":");
        out.extend_from_slice(if of.optional || self.optional { b"true" } else { b"false" });
        if let Some(name) = self.name {
            out.extend_from_slice(b",\"name\":");
            write_string(name, out);
            out.extend_from_slice(b",\"version\":1");
        }
        if let Some(doc) = self.doc {
            out.extend_from_slice(b",\"doc\":");
            write_string(doc, out);
        }
        if !self.parameters.is_empty() {
            out.extend_from_slice(b",\"parameters\":");
            for (at, (name, value)) in self.parameters.iter().enumerate() {
                out.push(if at == 0 { b'{' } else { b',' });
                write_string(name, out);
                out.push(b':');
                write_string(value, out);
            }
            out.push(b'}');
        }
        if let Some(default) = of.default {
            out.extend_from_slice(b",\"default\":");
            out.extend_from_slice(default);
        }
        if let Some(field) = of.field {
            out.extend_from_slice(b",\"field\":");
            write_string(field, out);
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Scratch;
    use crate::types::array::ArrayCodec;

    fn schema(codec: &Codec, of: &SchemaOf<'_>) -> String {
        let mut out = Vec::new();
        codec.write_schema(of, &mut out);
        serde_json::from_slice::<serde_json::Value>(&out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn keys_stand_in_the_order_of_connects_converter() {
        let of = SchemaOf { field: Some("mood"), optional: true, default: Some(b"\"sad\"") };
        assert_eq!(
            schema(&Codec::Text(TextKind::Enum { allowed: "sad,ok".into() }), &of),
            "{\"type\":\"string\",\"optional\":true,\"name\":\"io.debezium.data.Enum\",\
             \"version\":1,\"parameters\":{\"allowed\":\"sad,ok\"},\"default\":\"sad\",\
             \"field\":\"mood\"}"
        );
        let of = SchemaOf { field: Some("id"), ..SchemaOf::default() };
        assert_eq!(
            schema(&Codec::Int64, &of),
            "{\"type\":\"int64\",\"optional\":false,\"field\":\"id\"}"
        );
    }

    /// Each as Debezium 3.6.3 published it.
    #[test]
    fn schemas_are_those_that_debezium_publishes() {
        let of = SchemaOf { field: Some("f"), optional: true, default: None };
        for (codec, expected) in [
            (Codec::Bit, r#"{"type":"boolean","optional":true,"field":"f"}"#),
            (Codec::Int16, r#"{"type":"int16","optional":true,"field":"f"}"#),
            (Codec::JavaFloat32, r#"{"type":"float","optional":true,"field":"f"}"#),
            (
                Codec::Decimal { precision: 10, scale: 2, scratch: Scratch::default() },
                r#"{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"2","connect.decimal.precision":"10"},"field":"f"}"#,
            ),
            (
                Codec::Money(Scratch::default()),
                r#"{"type":"bytes","optional":true,"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"2"},"field":"f"}"#,
            ),
            (
                Codec::VariableScaleDecimal(Scratch::default()),
                r#"{"type":"struct","fields":[{"type":"int32","optional":false,"field":"scale"},{"type":"bytes","optional":false,"field":"value"}],"optional":true,"name":"io.debezium.data.VariableScaleDecimal","version":1,"doc":"Variable scaled decimal","field":"f"}"#,
            ),
            (
                Codec::Bits { length: 33 },
                r#"{"type":"bytes","optional":true,"name":"io.debezium.data.Bits","version":1,"parameters":{"length":"33"},"field":"f"}"#,
            ),
            (
                Codec::Days { connect: false },
                r#"{"type":"int32","optional":true,"name":"io.debezium.time.Date","version":1,"field":"f"}"#,
            ),
            (
                Codec::EpochTimestamp(Ticks::Micros),
                r#"{"type":"int64","optional":true,"name":"io.debezium.time.MicroTimestamp","version":1,"field":"f"}"#,
            ),
            (
                Codec::IntervalMicros,
                r#"{"type":"int64","optional":true,"name":"io.debezium.time.MicroDuration","version":1,"field":"f"}"#,
            ),
            (
                Codec::Point,
                r#"{"type":"struct","fields":[{"type":"double","optional":false,"field":"x"},{"type":"double","optional":false,"field":"y"},{"type":"bytes","optional":true,"field":"wkb"},{"type":"int32","optional":true,"field":"srid"}],"optional":true,"name":"io.debezium.data.geometry.Point","version":1,"doc":"Geometry (POINT)","field":"f"}"#,
            ),
            (
                array(Codec::Text(TextKind::TsVector)),
                r#"{"type":"array","items":{"type":"string","optional":false,"name":"io.debezium.data.Tsvector","version":1},"optional":true,"field":"f"}"#,
            ),
            (
                array(Codec::Text(TextKind::Ltree)),
                r#"{"type":"array","items":{"type":"string","optional":true,"name":"io.debezium.data.Ltree","version":1},"optional":true,"field":"f"}"#,
            ),
            (
                Codec::IntList { wide: true },
                r#"{"type":"array","items":{"type":"int64","optional":false},"optional":true,"field":"f"}"#,
            ),
        ] {
            assert_eq!(schema(&codec, &of), expected);
        }
    }

    fn array(element: Codec) -> Codec {
        Codec::Array(Array(Box::new(ArrayCodec::new(element, b','))))
    }
}
