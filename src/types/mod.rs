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
//! `docs/types.md` describes what each type becomes under each profile and switch; a test runs its
//! examples through the codecs. A codec also knows the Connect schema of its values
//! ([`Codec::write_schema`]), and what stands for a value that is not known
//! ([`Codec::write_placeholder`], [`Codec::write_filler`]).
//!
//! Adding a type is a row in `choose`, a variant with its writer, and its schema and filler.

mod array;
mod bits;
mod bytea;
mod calendar;
mod choose;
mod decimal;
mod epoch;
mod facts;
mod filler;
mod float;
mod forms;
mod geometric;
mod hstore;
mod interval;
mod java_map;
mod json;
mod money;
mod number;
mod placeholder;
mod scan;
mod schema;
mod text;
mod time;
mod vector;

#[cfg(test)]
mod manual;

use std::cell::Cell;

use self::array::ArrayCodec;
pub(crate) use self::bytea::write_bytes;
pub use self::choose::codec_for;
pub use self::epoch::Ticks;
pub use self::facts::{TypeFacts, TypeKind};
pub use self::forms::Forms;
use self::hstore::HstoreCodec;
pub use self::placeholder::Placeholder;
pub use self::schema::SchemaOf;
pub(crate) use self::text::{utf8, write_string};
use self::vector::SparseVectorCodec;
use crate::config::BinaryMode;

/// How the values of one column are written.
#[derive(Debug)]
#[non_exhaustive]
pub enum Codec {
    /// bool.
    Bool,
    /// int2.
    Int16,
    /// int4.
    Int32,
    /// int8, oid.
    Int64,
    /// int2vector and oidvector: numbers between spaces, as an array.
    IntList {
        /// Whether the numbers need 64 bits.
        wide: bool,
    },
    /// float4, with the server's digits.
    Float32,
    /// float8, with the server's digits.
    Float64,
    /// float4, as Java prints it.
    JavaFloat32,
    /// float8, as Java prints it.
    JavaFloat64,
    /// numeric, its digits in a string.
    Numeric,
    /// The same with Java's names for NaN and infinity.
    NumericString {
        /// Digits after the point that the column has.
        scale: i32,
    },
    /// numeric, as a double.
    NumericDouble,
    /// numeric with a scale, as the bytes of the number without its point.
    Decimal {
        /// Digits that the column has.
        precision: u16,
        /// Digits after the point.
        scale: i32,
        /// Space for long numbers.
        scratch: Scratch,
    },
    /// numeric without a scale: the same, with the scale of each value.
    VariableScaleDecimal(Scratch),
    /// money, as the bytes of its hundredths.
    Money(Scratch),
    /// money, as a double.
    MoneyDouble,
    /// money, its digits in a string.
    MoneyString,
    /// date, ISO 8601.
    Date,
    /// date, as days since the epoch.
    Days {
        /// Whether the schema is Connect's own.
        connect: bool,
    },
    /// date, ISO 8601 with a `Z`.
    IsoDate,
    /// time, ISO 8601.
    Time,
    /// time, since midnight.
    TimeOfDay(Ticks),
    /// time, ISO 8601 with a `Z`.
    IsoTime,
    /// timetz, with its offset.
    TimeTz,
    /// timetz, in UTC.
    ZonedTime,
    /// timestamp, ISO 8601.
    Timestamp,
    /// timestamp, since the epoch.
    EpochTimestamp(Ticks),
    /// timestamp, ISO 8601 with a `Z`.
    IsoTimestamp,
    /// timestamptz, with the digits of its value.
    TimestampTz,
    /// timestamptz, with the digits of its column.
    ZonedTimestamp {
        /// Digits of a second; 0 for as many as the value has.
        digits: usize,
    },
    /// interval, ISO 8601 as the server prints it.
    Interval,
    /// interval, in microseconds.
    IntervalMicros,
    /// interval, ISO 8601 with every part.
    IntervalIso,
    /// bit and varbit of one bit, as a boolean.
    Bit,
    /// bit and varbit, as bytes.
    Bits {
        /// Bits that the column has at most.
        length: i32,
    },
    /// bytea.
    Bytea(BinaryMode),
    /// json, jsonb, nested.
    Json(Replaced),
    /// hstore.
    Hstore(Hstore),
    /// point, as an object.
    Point,
    /// PostGIS' geometry or geography, as an object.
    Geometry {
        /// Whether it is a geography.
        geography: bool,
    },
    /// pgvector's vector or halfvec, with the server's digits.
    NumberArray,
    /// pgvector's vector, as doubles.
    Vector64,
    /// pgvector's halfvec, as floats.
    Vector32,
    /// pgvector's sparsevec, as an object.
    SparseVector(SparseVector),
    /// An array of another codec's values.
    Array(Array),
    /// Every other type.
    Text(TextKind),
    /// Every other type, as the bytes of its text.
    TextBytes(BinaryMode),
}

/// What a text is the form of: values are written the same, schemas differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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

/// How many characters that no reader takes were replaced since that was last asked.
#[derive(Debug, Default)]
pub struct Replaced(Cell<u64>);

/// An hstore's form, with the space it needs.
#[derive(Debug)]
pub struct Hstore(Box<HstoreCodec>);

/// The space that a sparse vector needs.
#[derive(Debug)]
pub struct SparseVector(Box<SparseVectorCodec>);

/// Space for numbers that are too long for a register, used again for the next.
#[derive(Debug, Default)]
pub struct Scratch(decimal::Limbs);

/// A value that is not the text form of its type. Says where, never what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it can't be published as {type_name}: at byte {offset}, expected {expected}")]
pub struct ValueError {
    /// The sort of type that was read.
    pub type_name: &'static str,
    /// Where in the value, in bytes.
    pub offset: usize,
    /// What should have stood there.
    pub expected: &'static str,
}

impl Codec {
    /// Appends a value's JSON to `out`. Allocates only to grow `out`, or the first time that a
    /// value needs space of its own: an escaped element, an hstore, a number of many digits. On an
    /// error, what was appended is of no use.
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
            Self::Json(Replaced(replaced)) => json::write_nested(wire_text, replaced, out),
            Self::Array(Array(array)) => array.write(wire_text, out),
            Self::Decimal { scale, scratch, .. } => {
                decimal::write_decimal(wire_text, *scale, &scratch.0, out)
            }
            Self::VariableScaleDecimal(scratch) => {
                decimal::write_variable_scale(wire_text, &scratch.0, out)
            }
            Self::NumericString { .. } => decimal::write_string(wire_text, out),
            Self::NumericDouble | Self::JavaFloat64 => float::write::<f64>(wire_text, out),
            Self::JavaFloat32 => float::write::<f32>(wire_text, out),
            Self::Money(scratch) => money::write_precise(wire_text, &scratch.0, out),
            Self::MoneyDouble => money::write_double(wire_text, out),
            Self::MoneyString => money::write_string(wire_text, out),
            Self::Days { .. } => epoch::write_days(wire_text, out),
            Self::TimeOfDay(ticks) => epoch::write_time(wire_text, *ticks, out),
            Self::EpochTimestamp(ticks) => epoch::write_timestamp(wire_text, *ticks, out),
            Self::ZonedTimestamp { digits } => {
                epoch::write_zoned_timestamp(wire_text, *digits, out)
            }
            Self::ZonedTime => epoch::write_zoned_time(wire_text, out),
            Self::IsoDate => epoch::write_iso_date(wire_text, out),
            Self::IsoTime => epoch::write_iso_time(wire_text, out),
            Self::IsoTimestamp => epoch::write_iso_timestamp(wire_text, out),
            Self::IntervalMicros => interval::write_micros(wire_text, out),
            Self::IntervalIso => interval::write_iso(wire_text, out),
            Self::Bytea(mode) => bytea::write_bytea(wire_text, *mode, out),
            Self::TextBytes(mode) => text::write_as_bytes(wire_text, *mode, out),
            Self::Bit => bits::write_boolean(wire_text, out),
            Self::Bits { .. } => bits::write_bytes(wire_text, out),
            Self::Hstore(Hstore(hstore)) => hstore.write(wire_text, out),
            Self::Point => geometric::write_point(wire_text, out),
            Self::Geometry { .. } => geometric::write_geometry(wire_text, out),
            Self::IntList { .. } => number::write_integer_list(wire_text, out),
            Self::NumberArray => vector::write_numbers(wire_text, out),
            Self::Vector64 => vector::write_vector::<f64>(wire_text, out),
            Self::Vector32 => vector::write_vector::<f32>(wire_text, out),
            Self::SparseVector(SparseVector(vector)) => vector.write(wire_text, out),
        }
    }

    /// Whether the values that are written may have characters replaced.
    #[must_use]
    pub fn may_replace(&self) -> bool {
        match self {
            Self::Json(_) => true,
            Self::Array(Array(array)) => array.element().may_replace(),
            _ => false,
        }
    }

    /// How many characters that no reader takes were replaced in values since this was last asked.
    #[must_use]
    pub fn take_replaced(&self) -> u64 {
        match self {
            Self::Json(Replaced(count)) => count.take(),
            Self::Array(Array(array)) => array.element().take_replaced(),
            _ => 0,
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
