//! Arrays: from `{1,NULL,"a b"}` to JSON, each element by its own codec.
//!
//! Dimensions nest. Lower bounds, where Postgres prints them (`[0:1]={..}`), are left out: JSON has
//! no place for them next to the values. Format:
//! <https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>

use std::cell::Cell;
use std::fmt;

use memchr::memchr;

use super::{Codec, ValueError};

/// Dimensions an array can have in Postgres (`MAXDIM`).
const MAX_DIMENSIONS: usize = 6;

pub(super) struct ArrayCodec {
    element: Codec,
    delimiter: u8,
    /// Space for an element without its backslashes, kept for the next one that has some.
    unescaped: Cell<Vec<u8>>,
}

impl fmt::Debug for ArrayCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The space holds a row's value: not to be shown.
        f.debug_tuple("ArrayCodec").field(&self.element).finish_non_exhaustive()
    }
}

/// What may come next.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Value,
    /// A value, or the end of an array that just opened.
    ValueOrEnd,
    DelimiterOrEnd,
}

impl ArrayCodec {
    pub(super) const fn new(element: Codec, delimiter: u8) -> Self {
        Self { element, delimiter, unescaped: Cell::new(Vec::new()) }
    }

    pub(super) const fn element(&self) -> &Codec {
        &self.element
    }

    pub(super) fn write(&self, wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let fault = |rest: &[u8], expected| ValueError {
            type_name: "array",
            offset: wire.len() - rest.len(),
            expected,
        };
        let mut rest = after_bounds(wire).ok_or_else(|| fault(wire, "an = after the bounds"))?;
        let mut depth = 0_usize;
        let mut next = Next::Value;
        while let Some((&byte, tail)) = rest.split_first() {
            (rest, next) = match (next, byte) {
                (Next::DelimiterOrEnd, _) if depth == 0 => {
                    return Err(fault(rest, "the end of the value"));
                }
                (Next::DelimiterOrEnd | Next::ValueOrEnd, b'}') if depth > 0 => {
                    out.push(b']');
                    depth -= 1;
                    (tail, Next::DelimiterOrEnd)
                }
                (Next::DelimiterOrEnd, byte) if byte == self.delimiter => {
                    out.push(b',');
                    (tail, Next::Value)
                }
                (Next::DelimiterOrEnd, _) => return Err(fault(rest, "a delimiter or }")),
                (_, b'{') if depth < MAX_DIMENSIONS => {
                    out.push(b'[');
                    depth += 1;
                    (tail, Next::ValueOrEnd)
                }
                (_, b'{') => return Err(fault(rest, "no more than six dimensions")),
                _ if depth == 0 => return Err(fault(rest, "{")),
                (_, b'"') => {
                    let after = self
                        .write_quoted(tail, out)?
                        .ok_or_else(|| fault(&[], "a closing quote"))?;
                    (after, Next::DelimiterOrEnd)
                }
                _ => {
                    let after =
                        self.write_plain(rest, out)?.ok_or_else(|| fault(rest, "an element"))?;
                    (after, Next::DelimiterOrEnd)
                }
            };
        }
        if depth == 0 && next == Next::DelimiterOrEnd {
            return Ok(());
        }
        Err(fault(&[], "the rest of the array"))
    }

    /// An element without quotes, up to a delimiter or bracket; returns what follows.
    fn write_plain<'a>(
        &self,
        text: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, ValueError> {
        let ends = |&byte: &u8| byte == self.delimiter || byte == b'}';
        let end = text.iter().position(ends).unwrap_or(text.len());
        let (element, rest) = text.split_at(end);
        match element {
            // An empty element is always quoted.
            b"" => return Ok(None),
            b"NULL" => out.extend_from_slice(b"null"),
            element => self.element.write_json(element, out)?,
        }
        Ok(Some(rest))
    }

    /// An element whose opening quote was taken; returns what follows its closing quote.
    fn write_quoted<'a>(
        &self,
        text: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, ValueError> {
        let Some(end) = memchr(b'"', text) else { return Ok(None) };
        let (element, rest) = text.split_at(end);
        if memchr(b'\\', element).is_none() {
            self.element.write_json(element, out)?;
            return Ok(rest.strip_prefix(b"\""));
        }
        let mut unescaped = self.unescaped.take();
        let rest = unescape(text, &mut unescaped);
        let written = match rest {
            Some(_) => self.element.write_json(&unescaped, out),
            None => Ok(()),
        };
        self.unescaped.set(unescaped);
        written.map(|()| rest)
    }
}

/// Puts the element up to its closing quote into `element`, without backslashes; returns what
/// follows the quote.
fn unescape<'a>(text: &'a [u8], element: &mut Vec<u8>) -> Option<&'a [u8]> {
    element.clear();
    let mut rest = text;
    loop {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        match byte {
            b'"' => return Some(rest),
            b'\\' => {
                let (&escaped, tail) = rest.split_first()?;
                element.push(escaped);
                rest = tail;
            }
            byte => element.push(byte),
        }
    }
}

/// Leaves out `[1:2][0:3]=`.
fn after_bounds(wire: &[u8]) -> Option<&[u8]> {
    if wire.first() != Some(&b'[') {
        return Some(wire);
    }
    let end = wire.iter().position(|byte| !b"[]:-0123456789".contains(byte))?;
    wire.split_at(end).1.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::BinaryMode;
    use crate::types::TextKind;

    const TEXT: Codec = Codec::Text(TextKind::Plain);

    fn read(element: Codec, delimiter: u8, wire: &str) -> Result<serde_json::Value, usize> {
        let mut out = Vec::new();
        let array = ArrayCodec::new(element, delimiter);
        array.write(wire.as_bytes(), &mut out).map_err(|error| error.offset)?;
        Ok(serde_json::from_slice(&out).unwrap())
    }

    #[test]
    fn elements_take_their_own_form() {
        assert_eq!(read(Codec::Int32, b',', "{1,NULL,-3}"), Ok(json!([1, null, -3])));
        assert_eq!(read(Codec::Bool, b',', "{t,f}"), Ok(json!([true, false])));
        assert_eq!(
            read(Codec::Timestamp, b',', r#"{"2024-03-01 08:15:30"}"#),
            Ok(json!(["2024-03-01T08:15:30"]))
        );
        assert_eq!(
            read(Codec::Json(Default::default()), b',', r#"{"{\"a\": [1, \"\\\"\"]}",2}"#),
            Ok(json!([{"a": [1, "\""]}, 2]))
        );
        assert_eq!(
            read(Codec::Bytea(BinaryMode::Bytes), b',', r#"{"\\x00ff"}"#),
            Ok(json!(["AP8="]))
        );
    }

    #[test]
    fn quotes_escapes_and_nulls_are_told_apart() {
        assert_eq!(
            read(TEXT, b',', r#"{a,"b c","NULL",NULL,"","q\"\\,}",é}"#),
            Ok(json!(["a", "b c", "NULL", null, "", "q\"\\,}", "é"]))
        );
    }

    #[test]
    fn dimensions_nest_and_bounds_are_left_out() {
        assert_eq!(read(Codec::Int32, b',', "{{1,2},{3,4}}"), Ok(json!([[1, 2], [3, 4]])));
        assert_eq!(read(Codec::Int32, b',', "[0:1][-2:-2]={{1},{2}}"), Ok(json!([[1], [2]])));
        assert_eq!(read(Codec::Int32, b',', "{}"), Ok(json!([])));
        assert_eq!(
            read(TEXT, b';', "{(1,1),(0,0);(2,2),(1,1)}"),
            Ok(json!(["(1,1),(0,0)", "(2,2),(1,1)"]))
        );
    }

    #[test]
    fn malformed_arrays_are_refused_by_place() {
        for (wire, offset) in [
            ("", 0),
            ("1", 0),
            ("{", 1),
            ("{1", 2),
            ("{1,", 3),
            ("{}x", 2),
            ("{1}}", 3),
            ("{{1}1}", 4),
            ("[0:1", 0),
            ("{\"a", 3),
            ("{\"a\\", 4),
            ("{{{{{{{1}}}}}}}", 6),
        ] {
            assert_eq!(read(TEXT, b',', wire), Err(offset), "{wire}");
        }
        assert!(read(Codec::Int32, b',', "{1,}").is_err());
        assert!(read(Codec::Int32, b',', "{,1}").is_err());
        assert!(read(TEXT, b',', "{\"a\"b}").is_err());
        assert_eq!(read(TEXT, b',', "{,a}"), Err(1));
    }
}
