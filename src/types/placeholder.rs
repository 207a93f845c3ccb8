//! What stands in for a value that the server did not send: the placeholder of an unchanged TOAST
//! value, in the shape that it has in Debezium for each type.
//!
//! | column | placeholder |
//! |---|---|
//! | published as text, or as bytes in hexadecimal | the text |
//! | published as bytes | its bytes, in base64 |
//! | hstore | a pair of the text and itself |
//! | `uuid[]` | one UUID, made of the bytes (version 3) |
//! | `int[]`, `bigint[]`, `date[]` as days, other arrays of numbers | its bytes, a number each |
//! | other arrays | one element in the shape of its type |
//! | all others | the text: it is not of the column's type, but differs from every value |
//!
//! For the last row, and for arrays but those of text, json, bytea, int, bigint, date and uuid,
//! Debezium fails to convert its own placeholder and publishes a null, which could be a value.
//! When a placeholder is written at all is not decided here.

use std::fmt::Write as _;

use md5::{Digest, Md5};

use super::hstore::HstoreForm;
use super::{Array, Codec, Hstore, TextKind, write_string};
use crate::config::BinaryMode;

/// What is written for a value that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    bytes: Vec<u8>,
    /// The bytes as text; what is not UTF-8 in them is replaced.
    text: String,
}

impl Default for Placeholder {
    fn default() -> Self {
        Self::of(b"__debezium_unavailable_value".into())
    }
}

impl Placeholder {
    /// Reads the setting: a text, or `hex:` and the bytes in hexadecimal. None when what follows
    /// `hex:` is not hexadecimal.
    #[must_use]
    pub fn parse(setting: &str) -> Option<Self> {
        let Some(digits) = setting.strip_prefix("hex:") else {
            return Some(Self::of(setting.into()));
        };
        let (pairs, odd) = digits.as_bytes().as_chunks::<2>();
        let byte = |&[high, low]: &[u8; 2]| {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            u8::try_from(digit(high)? << 4 | digit(low)?).ok()
        };
        let bytes = pairs.iter().map(byte).collect::<Option<Vec<u8>>>()?;
        odd.is_empty().then(|| Self::of(bytes))
    }

    fn of(bytes: Vec<u8>) -> Self {
        Self { text: String::from_utf8_lossy(&bytes).into_owned(), bytes }
    }

    fn write_text(&self, out: &mut Vec<u8>) {
        write_string(&self.text, out);
    }

    /// Java reads bytes with a sign.
    fn write_numbers(&self, fraction: &str, out: &mut Vec<u8>) {
        for (at, byte) in self.bytes.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(byte.cast_signed().to_string().as_bytes());
            out.extend_from_slice(fraction.as_bytes());
        }
    }

    fn write_pair(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_text(out);
        out.push(b':');
        self.write_text(out);
        out.push(b'}');
    }

    /// The UUID that Java makes of bytes (`UUID.nameUUIDFromBytes`): version 3 without a namespace.
    fn uuid(&self) -> String {
        let mut digest: [u8; 16] = Md5::digest(&self.bytes).into();
        digest[6] = digest[6] & 0x0F | 0x30;
        digest[8] = digest[8] & 0x3F | 0x80;
        let mut uuid = String::with_capacity(36);
        for (at, byte) in digest.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                uuid.push('-');
            }
            // Cannot fail: a `String` takes everything.
            let _ = write!(uuid, "{byte:02x}");
        }
        uuid
    }
}

impl Codec {
    /// Appends the JSON that stands for a value of this column that is not known.
    pub fn write_placeholder(&self, placeholder: &Placeholder, out: &mut Vec<u8>) {
        match self {
            Self::Bytea(BinaryMode::Hex) => placeholder.write_text(out),
            Self::Bytea(mode) | Self::TextBytes(mode) => {
                super::write_bytes(&placeholder.bytes, *mode, out);
            }
            Self::Hstore(Hstore(hstore)) if hstore.form() == HstoreForm::JsonText => {
                let mut pair = Vec::new();
                placeholder.write_pair(&mut pair);
                write_string(&String::from_utf8_lossy(&pair), out);
            }
            Self::Hstore(_) => placeholder.write_pair(out),
            Self::Array(Array(array)) => {
                out.push(b'[');
                match array.element() {
                    Self::Text(TextKind::Uuid) => write_string(&placeholder.uuid(), out),
                    Self::Int16 | Self::Int32 | Self::Int64 | Self::Days { .. } => {
                        placeholder.write_numbers("", out);
                    }
                    Self::Float32 | Self::Float64 | Self::JavaFloat32 | Self::JavaFloat64 => {
                        placeholder.write_numbers(".0", out);
                    }
                    element => element.write_placeholder(placeholder, out),
                }
                out.push(b']');
            }
            _ => placeholder.write_text(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::array::ArrayCodec;
    use crate::types::hstore::HstoreCodec;

    fn placeholder(codec: &Codec) -> String {
        let mut out = Vec::new();
        codec.write_placeholder(&Placeholder::parse("hex:5f5f").unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn array_of(element: Codec) -> Codec {
        Codec::Array(Array(Box::new(ArrayCodec::new(element, b','))))
    }

    fn hstore(form: HstoreForm) -> Codec {
        Codec::Hstore(Hstore(Box::new(HstoreCodec::new(form))))
    }

    #[test]
    fn a_placeholder_has_debeziums_shape_of_the_type() {
        assert_eq!(placeholder(&Codec::Text(TextKind::Json)), "\"__\"");
        assert_eq!(placeholder(&Codec::Bytea(BinaryMode::Bytes)), "\"X18=\"");
        assert_eq!(placeholder(&Codec::Bytea(BinaryMode::Hex)), "\"__\"");
        assert_eq!(placeholder(&hstore(HstoreForm::Map)), "{\"__\":\"__\"}");
        assert_eq!(placeholder(&hstore(HstoreForm::JsonText)), "\"{\\\"__\\\":\\\"__\\\"}\"");
        assert_eq!(placeholder(&array_of(Codec::Int32)), "[95,95]");
        assert_eq!(placeholder(&array_of(Codec::Text(TextKind::Plain))), "[\"__\"]");
    }

    #[test]
    fn an_array_of_uuids_has_the_uuid_java_makes_of_the_bytes() {
        let mut out = Vec::new();
        let codec = array_of(Codec::Text(TextKind::Uuid));
        codec.write_placeholder(&Placeholder::default(), &mut out);
        // java.util.UUID.nameUUIDFromBytes("__debezium_unavailable_value".getBytes())
        assert_eq!(String::from_utf8(out).unwrap(), "[\"b68a35a7-17ad-35b3-af2a-ae46edb4545a\"]");
    }

    #[test]
    fn a_setting_is_text_or_bytes_in_hexadecimal() {
        assert_eq!(Placeholder::parse("hex:5F5f"), Placeholder::parse("__"));
        for setting in ["hex:5", "hex:5g", "hex:é"] {
            assert_eq!(Placeholder::parse(setting), None, "{setting}");
        }
        let default = crate::config::Format::default().unavailable_value_placeholder;
        assert_eq!(Placeholder::parse(&default), Some(Placeholder::default()));
    }
}
