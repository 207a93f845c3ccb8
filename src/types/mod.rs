//! Column codecs: from a type's text form to JSON, without a stop in between.
//!
//! [`codec_for`] picks a codec once per column; [`Codec::write_json`] then takes each value as the
//! server sent it and appends JSON to a buffer that is reused. Holds at all times:
//! - what is appended is valid JSON and UTF-8, whatever came in; else it is an error;
//! - every Postgres type has a form: one without a codec of its own is its text in a string;
//! - an error names the type and the place, never the value.
//!
//! The text forms are those of a session with `DateStyle=ISO`, `IntervalStyle=iso_8601`,
//! `TimeZone=UTC`, `bytea_output=hex`, `extra_float_digits` of 1 or more, `client_encoding=UTF8`.
//!
//! | type | JSON under `readable` |
//! |---|---|
//! | bool | `true`, `false` |
//! | int2, int4, int8, oid | number |
//! | float4, float8 | number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | numeric | string with the column's digits; NaN and infinities as above |
//! | date | `"2024-03-01"`; years outside 0-9999 as ISO 8601 extends them: `"-0043-03-15"` is 44 BC, `"+10000-01-01"`; `"infinity"`, `"-infinity"` |
//! | time | `"08:15:30.123456"` |
//! | timetz | the same with its offset, `"+02:00"`; `"Z"` for zero |
//! | timestamp | date and time with a `T` between |
//! | timestamptz | the same in UTC, with `Z` |
//! | interval | ISO 8601, `"P1Y2M3DT4H5M6.78S"` |
//! | bytea | base64 |
//! | json, jsonb | nested as it is; a line break between tokens becomes a space, so that an event stays one line |
//! | arrays | arrays of the element's form, nested by dimension; lower bounds are left out |
//! | domains | as the type they stand for |
//! | all others | the text in a string |
//!
//! Adding a type is a row in [`codec_for`] and a variant with its writer.

mod array;
mod bytea;
mod facts;
mod filler;
mod forms;
mod json;
mod number;
mod placeholder;
mod schema;
mod text;
mod time;

use std::collections::BTreeMap;

use crate::config::TypeProfile;

use self::array::ArrayCodec;
pub(crate) use self::bytea::write_bytes;
pub use self::facts::{TypeFacts, TypeKind};
pub use self::forms::Forms;
pub use self::placeholder::{DEFAULT_PLACEHOLDER, Placeholder};
pub use self::schema::SchemaOf;
pub(crate) use self::text::{utf8, write_string};

/// How the values of one column are written.
#[derive(Debug)]
pub enum Codec {
    /// bool.
    Bool,
    /// int2.
    Int16,
    /// int4.
    Int32,
    /// int8, oid.
    Int64,
    /// float4.
    Float32,
    /// float8.
    Float64,
    /// numeric.
    Numeric,
    /// date.
    Date,
    /// time.
    Time,
    /// timetz.
    TimeTz,
    /// timestamp.
    Timestamp,
    /// timestamptz.
    TimestampTz,
    /// interval.
    Interval,
    /// bytea.
    Bytea,
    /// json, jsonb.
    Json,
    /// An array of another codec's values.
    Array(Array),
    /// Every other type.
    Text(TextKind),
}

/// What a text is the form of: values are written the same, schemas differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextKind {
    /// Text, or a type whose text has no name of its own.
    Plain,
    /// uuid.
    Uuid,
    /// xml.
    Xml,
    /// json and jsonb, not nested.
    Json,
    /// tsvector.
    TsVector,
    /// ltree.
    Ltree,
    /// An enum.
    Enum {
        /// Its labels in sort order, comma separated.
        allowed: String,
    },
}

/// An array of another codec's values.
#[derive(Debug)]
pub struct Array(Box<ArrayCodec>);

/// A value that is not the text form of its type. Says where, never what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {type_name} text is malformed at byte {offset}: expected {expected}")]
pub struct ValueError {
    /// The sort of type that was read.
    pub type_name: &'static str,
    /// Where in the value, in bytes.
    pub offset: usize,
    /// What should have stood there.
    pub expected: &'static str,
}

/// Domains over domains, or arrays of domains, deeper than any catalog holds.
const MAX_TYPE_DEPTH: u32 = 32;

/// The codec of a column. `types` is the catalog's word on types that are not built in.
#[must_use]
pub fn codec_for(
    type_oid: u32,
    typmod: i32,
    types: &BTreeMap<u32, TypeFacts>,
    forms: &Forms,
) -> Codec {
    match forms.profile {
        TypeProfile::Readable => readable(type_oid, typmod, types, forms, MAX_TYPE_DEPTH),
    }
}

/// OIDs: <https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat>
fn readable(
    oid: u32,
    typmod: i32,
    types: &BTreeMap<u32, TypeFacts>,
    forms: &Forms,
    depth: u32,
) -> Codec {
    match oid {
        16 => Codec::Bool,
        21 => Codec::Int16,
        23 => Codec::Int32,
        20 | 26 => Codec::Int64,
        700 => Codec::Float32,
        701 => Codec::Float64,
        1700 => Codec::Numeric,
        1082 => Codec::Date,
        1083 => Codec::Time,
        1266 => Codec::TimeTz,
        1114 => Codec::Timestamp,
        1184 => Codec::TimestampTz,
        1186 => Codec::Interval,
        17 => Codec::Bytea,
        114 | 3802 if forms.nests_json => Codec::Json,
        114 | 3802 => Codec::Text(TextKind::Json),
        142 => Codec::Text(TextKind::Xml),
        2950 => Codec::Text(TextKind::Uuid),
        3614 => Codec::Text(TextKind::TsVector),
        _ => match types.get(&oid).map(|facts| (&facts.kind, facts.name.as_str())) {
            _ if depth == 0 => Codec::Text(TextKind::Plain),
            Some((TypeKind::Domain { base, typmod }, _)) => {
                readable(*base, *typmod, types, forms, depth - 1)
            }
            Some((TypeKind::Array { element }, _)) => {
                array_of(*element, typmod, types, forms, depth)
            }
            Some((TypeKind::Enum { labels }, _)) => {
                Codec::Text(TextKind::Enum { allowed: labels.join(",") })
            }
            Some((TypeKind::Base, "ltree")) => Codec::Text(TextKind::Ltree),
            _ => match built_in_element(oid) {
                Some(element) => array_of(element, typmod, types, forms, depth),
                None => Codec::Text(TextKind::Plain),
            },
        },
    }
}

fn array_of(
    element: u32,
    typmod: i32,
    types: &BTreeMap<u32, TypeFacts>,
    forms: &Forms,
    depth: u32,
) -> Codec {
    // `box` is the one type of Postgres that does not separate array elements by a comma.
    const BOX: u32 = 603;
    let delimiter = if element == BOX { b';' } else { b',' };
    let element = readable(element, typmod, types, forms, depth - 1);
    Codec::Array(Array(Box::new(ArrayCodec::new(element, delimiter))))
}

/// The element type of a built-in array type, for where the catalog was silent.
const fn built_in_element(array: u32) -> Option<u32> {
    Some(match array {
        1000 => 16,   // bool
        1001 => 17,   // bytea
        1002 => 18,   // "char"
        1003 => 19,   // name
        1005 => 21,   // int2
        1007 => 23,   // int4
        1009 => 25,   // text
        1014 => 1042, // bpchar
        1015 => 1043, // varchar
        1016 => 20,   // int8
        1020 => 603,  // box
        1021 => 700,  // float4
        1022 => 701,  // float8
        1028 => 26,   // oid
        1041 => 869,  // inet
        651 => 650,   // cidr
        1040 => 829,  // macaddr
        775 => 774,   // macaddr8
        791 => 790,   // money
        1115 => 1114, // timestamp
        1182 => 1082, // date
        1183 => 1083, // time
        1185 => 1184, // timestamptz
        1187 => 1186, // interval
        1231 => 1700, // numeric
        1270 => 1266, // timetz
        1561 => 1560, // bit
        1563 => 1562, // varbit
        2951 => 2950, // uuid
        143 => 142,   // xml
        199 => 114,   // json
        3807 => 3802, // jsonb
        3905 => 3904, // int4range
        3907 => 3906, // numrange
        3909 => 3908, // tsrange
        3911 => 3910, // tstzrange
        3913 => 3912, // daterange
        3927 => 3926, // int8range
        _ => return None,
    })
}

impl Codec {
    /// Appends a value's JSON to `out`. Allocates only to grow `out`, or the first time an array
    /// holds an escaped element. On an error, what was appended is of no use.
    ///
    /// # Errors
    ///
    /// [`ValueError`] when the text is not of the codec's type.
    #[inline]
    pub fn write_json(&self, wire_text: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        match self {
            Self::Int16 | Self::Int32 | Self::Int64 => number::write_integer(wire_text, out),
            Self::Numeric => number::write_numeric(wire_text, out),
            Self::Text(_) => text::write_text(wire_text, out),
            Self::Timestamp => time::write_timestamp(wire_text, out),
            Self::TimestampTz => time::write_timestamptz(wire_text, out),
            Self::Float32 | Self::Float64 => number::write_float(wire_text, out),
            Self::Bool => number::write_bool(wire_text, out),
            Self::Date => time::write_date(wire_text, out),
            Self::Time => time::write_time(wire_text, out),
            Self::TimeTz => time::write_timetz(wire_text, out),
            Self::Interval => time::write_interval(wire_text, out),
            Self::Bytea => bytea::write_base64(wire_text, out),
            Self::Json => json::write_nested(wire_text, out),
            Self::Array(Array(array)) => array.write(wire_text, out),
        }
    }

    /// Appends a value without JSON's quotes: text as it is, other types as in
    /// [`write_json`](Self::write_json) with the quotes taken off.
    ///
    /// # Errors
    ///
    /// [`ValueError`] when the text is not of the codec's type.
    pub fn write_bare(&self, wire_text: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        if matches!(self, Self::Text(_)) {
            out.extend_from_slice(utf8("text", wire_text)?.as_bytes());
            return Ok(());
        }
        let start = out.len();
        self.write_json(wire_text, out)?;
        if out.get(start) == Some(&b'"') {
            out.remove(start);
            out.pop();
        }
        Ok(())
    }
}
