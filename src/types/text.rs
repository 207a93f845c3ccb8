//! Text as a JSON string: one check that it is UTF-8, one pass that copies runs.

use super::ValueError;
use super::bytea::write_bytes;
use crate::config::BinaryMode;

/// What a byte becomes inside a JSON string: 0 for itself, `u` for `\u00XX`, else the letter that
/// follows the backslash.
const ESCAPES: [u8; 256] = escapes();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, below 256")]
const fn escapes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = b'u';
        control += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0A] = b'n';
    table[0x0C] = b'f';
    table[0x0D] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
}

/// Any type's text as a string.
#[inline]
pub(super) fn write_text(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    write_string(utf8("text", wire)?, out);
    Ok(())
}

/// Any type's text as the bytes that it is made of.
pub(super) fn write_as_bytes(
    wire: &[u8],
    mode: BinaryMode,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    write_bytes(utf8("text", wire)?.as_bytes(), mode, out);
    Ok(())
}

/// The bytes as text.
pub(crate) fn utf8<'a>(type_name: &'static str, bytes: &'a [u8]) -> Result<&'a str, ValueError> {
    std::str::from_utf8(bytes).map_err(|error| ValueError {
        type_name,
        offset: error.valid_up_to(),
        expected: "UTF-8 (is the database's encoding SQL_ASCII?)",
    })
}

/// Appends a JSON string.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| ESCAPES[usize::from(byte)] != 0) {
        let (run, tail) = rest.split_at(at);
        out.extend_from_slice(run);
        if let Some((&byte, tail)) = tail.split_first() {
            match ESCAPES[usize::from(byte)] {
                b'u' => {
                    let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&digits);
                }
                letter => out.extend_from_slice(&[b'\\', letter]),
            }
            rest = tail;
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_reads_back_as_itself(text: String) {
            let mut out = Vec::new();
            write_string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn control_characters_quotes_and_backslashes_are_escaped() {
        let mut out = Vec::new();
        write_string("a\"b\\c\n\t\u{1f}\u{7f}é", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\\"b\\\\c\\n\\t\\u001F\u{7f}é\"");
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_by_place() {
        let error = write_text(b"ab\xFF", &mut Vec::new()).unwrap_err();
        assert_eq!((error.type_name, error.offset), ("text", 2));
    }
}
