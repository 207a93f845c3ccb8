//! The Connect schema of a column, as `JsonConverter` writes it.
//!
//! Keys stand in the converter's order: the type with its parts, `optional`, `name`, `version`,
//! `doc`, `parameters`, `default`, `field`. Made once per relation, so it may allocate.

use super::{Codec, TextKind, write_string};

/// What a schema says beside the type.
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
    parameters: Vec<(&'static str, String)>,
}

impl Codec {
    /// Appends the JSON of the column's schema.
    pub fn write_schema(&self, of: &SchemaOf<'_>, out: &mut Vec<u8>) {
        self.schema().write(of, out);
    }

    fn schema(&self) -> Schema {
        match self {
            Self::Bool => plain("boolean"),
            Self::Int16 => plain("int16"),
            Self::Int32 => plain("int32"),
            Self::Int64 => plain("int64"),
            Self::Float32 => plain("float"),
            Self::Float64 => plain("double"),
            Self::Json => named("string", "io.debezium.data.Json"),
            Self::Text(kind) => text(kind),
            Self::Bytea => plain("bytes"),
            Self::Numeric
            | Self::Date
            | Self::Time
            | Self::TimeTz
            | Self::Timestamp
            | Self::TimestampTz
            | Self::Interval => plain("string"),
            Self::Array(array) => {
                let element = array.0.element();
                let mut items = Vec::new();
                let optional = !matches!(element, Self::Text(TextKind::Enum { .. }));
                element.write_schema(&SchemaOf { optional, ..SchemaOf::default() }, &mut items);
                let items = String::from_utf8_lossy(&items);
                Schema {
                    kind: format!("\"type\":\"array\",\"items\":{items}"),
                    ..Schema::default()
                }
            }
        }
    }
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
        TextKind::Json => named("string", "io.debezium.data.Json"),
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
        out.extend_from_slice(if of.optional { b"true" } else { b"false" });
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
}
