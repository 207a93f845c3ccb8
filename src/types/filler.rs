//! What Debezium writes for a NOT NULL column that an old row does not carry: something like zero.
//!
//! Consumers mistake these for data, so they are written only where Debezium's events are to be
//! matched; when that is, is not decided here. A column's default in SQL, which Debezium prefers to
//! a filler, is not known here either.

use super::hstore::HstoreForm;
use super::{Codec, Hstore, geometric};

impl Codec {
    /// Appends the JSON of something like zero: `0`, `""`, `false`, the epoch, an empty array.
    pub fn write_filler(&self, out: &mut Vec<u8>) {
        let filler: &[u8] = match self {
            Self::NumericString { scale } => return write_zero(*scale, out),
            Self::Point => return geometric::write_coordinates(0.0, 0.0, out),
            Self::Geometry { .. } => {
                // Cannot fail: the bytes are those of an empty shape.
                let _ = geometric::write_geometry(geometric::EMPTY_GEOMETRY, out);
                return;
            }
            Self::Hstore(Hstore(hstore)) if hstore.form() == HstoreForm::JsonText => b"\"{}\"",
            Self::Hstore(_) => b"{}",
            Self::Bool | Self::Bit => b"false",
            Self::Int16
            | Self::Int32
            | Self::Int64
            | Self::Float32
            | Self::Float64
            | Self::Days { .. }
            | Self::TimeOfDay(_)
            | Self::EpochTimestamp(_)
            | Self::IntervalMicros => b"0",
            Self::JavaFloat32 | Self::JavaFloat64 | Self::NumericDouble | Self::MoneyDouble => {
                b"0.0"
            }
            Self::Numeric => b"\"0\"",
            Self::Decimal { .. } | Self::Money(_) => b"\"AA==\"",
            Self::VariableScaleDecimal(_) => b"{\"scale\":0,\"value\":\"AA==\"}",
            Self::MoneyString => b"\"0.00\"",
            Self::Date => b"\"1970-01-01\"",
            Self::IsoDate => b"\"1970-01-01Z\"",
            Self::Time => b"\"00:00:00\"",
            Self::TimeTz | Self::ZonedTime | Self::IsoTime => b"\"00:00:00Z\"",
            Self::Timestamp => b"\"1970-01-01T00:00:00\"",
            Self::TimestampTz | Self::ZonedTimestamp { .. } | Self::IsoTimestamp => {
                b"\"1970-01-01T00:00:00Z\""
            }
            Self::Interval => b"\"PT0S\"",
            Self::IntervalIso => b"\"P0Y0M0DT0H0M0S\"",
            Self::Json(_) => b"null",
            Self::Bytea(_) | Self::Bits { .. } | Self::Text(_) | Self::TextBytes(_) => b"\"\"",
            Self::SparseVector(_) => b"{\"dimensions\":0,\"vector\":[]}",
            Self::IntList { .. }
            | Self::NumberArray
            | Self::Vector64
            | Self::Vector32
            | Self::Array(_) => b"[]",
        };
        out.extend_from_slice(filler);
    }
}

/// A zero with the digits that the column has after its point.
fn write_zero(scale: i32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"0");
    if let Some(digits) = usize::try_from(scale).ok().filter(|&digits| digits > 0) {
        out.push(b'.');
        out.extend(std::iter::repeat_n(b'0', digits));
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TextKind;

    #[test]
    fn a_filler_is_json_of_the_columns_form() {
        for (codec, filler) in [
            (Codec::Bool, "false"),
            (Codec::Int64, "0"),
            (Codec::Text(TextKind::Uuid), "\"\""),
            (Codec::TimestampTz, "\"1970-01-01T00:00:00Z\""),
            (Codec::NumericString { scale: 2 }, "\"0.00\""),
            (Codec::NumericString { scale: 0 }, "\"0\""),
            (Codec::Geometry { geography: false }, "{\"wkb\":\"AQcAAAAAAAAA\",\"srid\":null}"),
            (
                Codec::Point,
                "{\"x\":0.0,\"y\":0.0,\"wkb\":\"AQEAAAAAAAAAAAAAAAAAAAAAAAAA\",\"srid\":null}",
            ),
        ] {
            let mut out = Vec::new();
            codec.write_filler(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), filler);
        }
    }
}
