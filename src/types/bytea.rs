//! Bytes: from hexadecimal (`bytea_output=hex`) to base64 or hexadecimal, in pieces that need no
//! buffer of their own.

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, URL_SAFE};

use super::ValueError;
use crate::config::BinaryMode;

/// Bytes encoded at a time: a multiple of three, so that only the last piece is padded.
const PIECE_BYTES: usize = 768;

/// Appends a JSON string of the bytes that the text stands for.
pub(super) fn write_bytea(
    wire: &[u8],
    mode: BinaryMode,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let digits = wire.strip_prefix(b"\\x").ok_or(ValueError {
        type_name: "bytea",
        offset: 0,
        expected: "\\x (the session's bytea_output must be hex)",
    })?;
    write_hex_digits("bytea", 2, digits, mode, out)
}

/// Appends a JSON string of the bytes whose hexadecimal digits are given; they start at `offset`
/// of the value.
pub(super) fn write_hex_digits(
    type_name: &'static str,
    offset: usize,
    digits: &[u8],
    mode: BinaryMode,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let error = |offset, expected| ValueError { type_name, offset, expected };
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(error(offset + digits.len(), "an even number of hexadecimal digits"));
    }
    let mut fault = None;
    let bytes = pairs.iter().enumerate().map(|(at, pair)| {
        byte_of(*pair).unwrap_or_else(|| {
            fault.get_or_insert(at);
            0
        })
    });
    write_iter(bytes, mode, out);
    match fault {
        Some(at) => Err(error(offset + 2 * at, "a hexadecimal digit")),
        None => Ok(()),
    }
}

/// The byte that two hexadecimal digits stand for.
pub(super) const fn byte_of([high, low]: [u8; 2]) -> Option<u8> {
    match (nibble(high), nibble(low)) {
        (Some(high), Some(low)) => Some(high << 4 | low),
        _ => None,
    }
}

/// Appends a JSON string of bytes that are worked out one by one.
pub(super) fn write_iter(mut bytes: impl Iterator<Item = u8>, mode: BinaryMode, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let engine = match mode {
        BinaryMode::Hex => {
            out.extend(
                bytes.flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0x0F)]]),
            );
            out.push(b'"');
            return;
        }
        BinaryMode::Bytes | BinaryMode::Base64 => &STANDARD,
        BinaryMode::Base64UrlSafe => &URL_SAFE,
    };
    let mut piece = [0; PIECE_BYTES];
    loop {
        let mut length = 0;
        for (place, byte) in piece.iter_mut().zip(&mut bytes) {
            *place = byte;
            length += 1;
        }
        append(engine, piece.split_at(length).0, out);
        if length < PIECE_BYTES {
            break;
        }
    }
    out.push(b'"');
}

/// Appends the base64 of some bytes.
fn append(engine: &GeneralPurpose, bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let length = base64::encoded_len(bytes.len(), true).unwrap_or(usize::MAX);
    out.resize(start.saturating_add(length), 0);
    if let Some(space) = out.get_mut(start..) {
        // Cannot fail: the space is what `encoded_len` asked for.
        let written = engine.encode_slice(bytes, space).unwrap_or(0);
        debug_assert_eq!(written, length);
    }
}

/// Appends a JSON string of the bytes themselves.
pub(crate) fn write_bytes(bytes: &[u8], mode: BinaryMode, out: &mut Vec<u8>) {
    write_iter(bytes.iter().copied(), mode, out);
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_become_their_base64_or_their_digits(
            bytes in proptest::collection::vec(any::<u8>(), 0..3 * PIECE_BYTES),
        ) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let wire = format!("\\x{hex}");
            for (mode, text) in [
                (BinaryMode::Bytes, STANDARD.encode(&bytes)),
                (BinaryMode::Base64, STANDARD.encode(&bytes)),
                (BinaryMode::Base64UrlSafe, URL_SAFE.encode(&bytes)),
                (BinaryMode::Hex, hex),
            ] {
                let mut out = Vec::new();
                write_bytea(wire.as_bytes(), mode, &mut out).unwrap();
                prop_assert_eq!(out, format!("\"{text}\"").into_bytes());
            }
        }
    }

    #[test]
    fn text_that_is_not_hex_is_refused_by_place() {
        for (wire, offset) in [("", 0), ("abc", 0), ("\\x0", 3), ("\\x00g0", 4)] {
            let error =
                write_bytea(wire.as_bytes(), BinaryMode::Bytes, &mut Vec::new()).unwrap_err();
            assert_eq!(error.offset, offset, "{wire}");
        }
    }
}
