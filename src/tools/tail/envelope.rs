//! What a record's value says, if it is one of ours: the change envelope, a flat row, or neither.
//!
//! Read leniently: whatever is not understood is still shown, as JSON or as bytes. Columns keep
//! their order. Envelope: <https://debezium.io/documentation/reference/stable/connectors/postgresql.html>

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Columns and their values, in the record's order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row(pub Vec<(String, Value)>);

impl Row {
    /// The value of a column.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(column, _)| column == name).map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;
        impl<'de> Visitor<'de> for Columns {
            type Value = Row;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut columns = Vec::new();
                while let Some(column) = map.next_entry()? {
                    columns.push(column);
                }
                Ok(Row(columns))
            }
        }
        deserializer.deserialize_map(Columns)
    }
}

/// A change event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Envelope {
    /// The row before, as far as the database sent it.
    #[serde(default)]
    pub before: Option<Row>,
    /// The row after.
    #[serde(default)]
    pub after: Option<Row>,
    /// `c`, `u`, `d`, `r`, `t` or `m`.
    pub op: String,
    /// Where it comes from.
    #[serde(default)]
    pub source: Option<SourceFields>,
    /// When the event was made, in milliseconds since 1970.
    #[serde(default)]
    pub ts_ms: Option<i64>,
}

/// Where a change comes from, as far as it is used here.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SourceFields {
    /// When it was committed, in milliseconds since 1970.
    #[serde(default)]
    pub ts_ms: Option<i64>,
    /// The same in microseconds.
    #[serde(default)]
    pub ts_us: Option<i64>,
}

impl Envelope {
    /// When the change was committed, in microseconds since 1970.
    #[must_use]
    pub fn committed_us(&self) -> Option<i64> {
        let source = self.source.as_ref()?;
        source.ts_us.or_else(|| source.ts_ms?.checked_mul(1000))
    }
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A change event.
    Change(Box<Envelope>),
    /// A JSON object of another kind: a flat row, most likely.
    Object(Row),
    /// Other JSON.
    Json(Value),
    /// Text that is no JSON.
    Text(String),
    /// Neither.
    Bytes(Vec<u8>),
}

/// Looks into a value.
#[must_use]
pub fn content(value: &[u8]) -> Content {
    #[derive(Deserialize)]
    struct WithSchema {
        #[serde(rename = "schema")]
        _schema: Option<serde::de::IgnoredAny>,
        payload: Envelope,
    }
    let is_object = value.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    if is_object {
        if let Ok(envelope) = serde_json::from_slice::<Envelope>(value) {
            return Content::Change(Box::new(envelope));
        }
        if let Ok(wrapped) = serde_json::from_slice::<WithSchema>(value) {
            return Content::Change(Box::new(wrapped.payload));
        }
        if let Ok(row) = serde_json::from_slice(value) {
            return Content::Object(row);
        }
    }
    if let Ok(json) = serde_json::from_slice(value) {
        return Content::Json(json);
    }
    match std::str::from_utf8(value) {
        Ok(text) => Content::Text(text.to_owned()),
        Err(_) => Content::Bytes(value.to_vec()),
    }
}
