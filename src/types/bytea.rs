//! bytea: from hexadecimal (`bytea_output=hex`) to base64, in pieces that need no buffer of their
//! own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::ValueError;

/// Bytes decoded at a time: a multiple of three, so that only the last piece is padded.
const PIECE_BYTES: usize = 768;

/// Appends a JSON string with the base64 of the bytes that the text stands for.
pub(super) fn write_base64(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let error = |offset, expected| ValueError { type_name: "bytea", offset, expected };
    let digits = wire
        .strip_prefix(b"\\x")
        .ok_or_else(|| error(0, "\\x (the session's bytea_output must be hex)"))?;
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(error(wire.len(), "an even number of hexadecimal digits"));
    }
    out.push(b'"');
    let mut piece = [0; PIECE_BYTES];
    for (number, pairs) in pairs.chunks(PIECE_BYTES).enumerate() {
        for (at, (byte, [high, low])) in piece.iter_mut().zip(pairs).enumerate() {
            let (Some(high), Some(low)) = (nibble(*high), nibble(*low)) else {
                let offset = 2 + 2 * (number * PIECE_BYTES + at);
                return Err(error(offset, "a hexadecimal digit"));
            };
            *byte = high << 4 | low;
        }
        append(piece.split_at(pairs.len()).0, out);
    }
    out.push(b'"');
    Ok(())
}

/// Appends the base64 of some bytes.
fn append(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let length = base64::encoded_len(bytes.len(), true).unwrap_or(usize::MAX);
    out.resize(start.saturating_add(length), 0);
    if let Some(space) = out.get_mut(start..) {
        // Cannot fail: the space is what `encoded_len` asked for.
        let written = STANDARD.encode_slice(bytes, space).unwrap_or(0);
        debug_assert_eq!(written, length);
    }
}

/// Appends a JSON string with the base64 of the bytes themselves.
pub(crate) fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    append(bytes, out);
    out.push(b'"');
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
        fn any_bytes_become_their_base64(
            bytes in proptest::collection::vec(any::<u8>(), 0..3 * PIECE_BYTES),
        ) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let mut out = Vec::new();
            write_base64(format!("\\x{hex}").as_bytes(), &mut out).unwrap();
            prop_assert_eq!(out, format!("\"{}\"", STANDARD.encode(&bytes)).into_bytes());
        }
    }

    #[test]
    fn text_that_is_not_hex_is_refused_by_place() {
        for (wire, offset) in [("", 0), ("abc", 0), ("\\x0", 3), ("\\x00g0", 4)] {
            let error = write_base64(wire.as_bytes(), &mut Vec::new()).unwrap_err();
            assert_eq!(error.offset, offset, "{wire}");
        }
    }
}
