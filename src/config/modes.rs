//! The values of Debezium's switches for column values, under Debezium's names.
//!
//! `docs/types.md` describes what each does to a type; these are only the names.

use serde::{Deserialize, Serialize};

/// Form of `numeric` and `money` (`decimal.handling.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DecimalMode {
    /// The bytes of the number without its point, in base64.
    Precise,
    /// A floating point number, which may lose digits.
    Double,
    /// The digits as text.
    String,
}

/// Form of `date`, `time` and `timestamp` (`time.precision.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimePrecisionMode {
    /// Days; milliseconds or microseconds, by the column's precision.
    Adaptive,
    /// The same, but `time` always in microseconds.
    AdaptiveTimeMicroseconds,
    /// Kafka Connect's own types: days and milliseconds.
    Connect,
    /// Days and microseconds.
    Microseconds,
    /// Days and nanoseconds.
    Nanoseconds,
    /// ISO 8601 text, taken for UTC.
    Isostring,
}

/// Form of `interval` (`interval.handling.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IntervalMode {
    /// Microseconds, with 30.4375 days a month.
    Numeric,
    /// ISO 8601 with all parts, `P1Y2M3DT4H5M6.78S`.
    String,
}

/// Form of `hstore` (`hstore.handling.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HstoreMode {
    /// JSON in a text.
    Json,
    /// A JSON object.
    Map,
}

/// Form of `bytea` (`binary.handling.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BinaryMode {
    /// Bytes, which JSON holds in base64.
    Bytes,
    /// Text of base64: the same in JSON, another schema.
    Base64,
    /// The same in the URL-safe alphabet.
    Base64UrlSafe,
    /// Hexadecimal digits.
    Hex,
}
