//! What Debezium writes for a NOT NULL column that an old row does not carry: something like zero.
//!
//! Consumers mistake these for data, so they are written only where Debezium's events are to be
//! matched; when that is, is not decided here. A column's default in SQL, which Debezium prefers to
//! a filler, is not known here either.

use super::Codec;

impl Codec {
    /// Appends the JSON of something like zero: `0`, `""`, `false`, the epoch, an empty array.
    pub fn write_filler(&self, out: &mut Vec<u8>) {
        let filler: &[u8] = match self {
            Self::Bool => b"false",
            Self::Int16 | Self::Int32 | Self::Int64 | Self::Float32 | Self::Float64 => b"0",
            Self::Numeric => b"\"0\"",
            Self::Date => b"\"1970-01-01\"",
            Self::Time => b"\"00:00:00\"",
            Self::TimeTz => b"\"00:00:00Z\"",
            Self::Timestamp => b"\"1970-01-01T00:00:00\"",
            Self::TimestampTz => b"\"1970-01-01T00:00:00Z\"",
            Self::Interval => b"\"PT0S\"",
            Self::Json => b"null",
            Self::Bytea | Self::Text(_) => b"\"\"",
            Self::Array(_) => b"[]",
        };
        out.extend_from_slice(filler);
    }
}

#[cfg(test)]
mod tests {
    use super::super::TextKind;
    use super::*;

    #[test]
    fn a_filler_is_json_of_the_columns_form() {
        for (codec, filler) in [
            (Codec::Bool, "false"),
            (Codec::Int64, "0"),
            (Codec::Text(TextKind::Uuid), "\"\""),
            (Codec::TimestampTz, "\"1970-01-01T00:00:00Z\""),
        ] {
            let mut out = Vec::new();
            codec.write_filler(&mut out);
            assert_eq!(out, filler.as_bytes());
        }
    }
}
