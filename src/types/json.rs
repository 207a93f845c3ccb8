//! json and jsonb: checked, then nested as they are.
//!
//! Postgres checked the value already, but an event with one broken value in it would be broken as
//! a whole, so the grammar is checked again: without recursion, whatever the depth, and without
//! looking at what the tokens mean: repeated names and numbers of any size pass.
//!
//! One thing is not nested as it is. `json` (not `jsonb`) takes half of a surrogate pair, `\\ud800`,
//! which is no character: serde_json, jq and others then refuse the whole event. So U+FFFD takes its
//! place, as in every decoder of text, and it is counted.
//! Grammar: <https://www.rfc-editor.org/rfc/rfc8259>, on surrogates section 8.2.

use std::cell::Cell;

use memchr::{memchr, memchr2};

use super::number::number_prefix;
use super::{ValueError, utf8};

/// Appends the value as it is, line breaks as spaces: JSON allows them only between tokens, and
/// consumers that read lines must see one event a line. Counts in `replaced` the surrogates whose other
/// half is missing, in whose place U+FFFD is written.
pub(super) fn write_nested(
    wire: &[u8],
    replaced: &Cell<u64>,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    utf8("json", wire)?;
    check(wire).map_err(|(offset, expected)| ValueError { type_name: "json", offset, expected })?;
    let start = out.len();
    let mut rest = wire;
    while let Some(at) = memchr2(b'\n', b'\r', rest) {
        let (line, tail) = rest.split_at(at);
        out.extend_from_slice(line);
        out.push(b' ');
        rest = tail.split_at(1).1;
    }
    out.extend_from_slice(rest);
    // Without a backslash there is no escape.
    if memchr(b'\\', wire).is_some() {
        let count = replace_halves(out.get_mut(start..).unwrap_or_default());
        replaced.set(replaced.get().saturating_add(count));
    }
    Ok(())
}

/// Puts U+FFFD, whose escape is as long, in the place of each half of a surrogate pair without its
/// other half. Returns how many there were. `text` is JSON.
fn replace_halves(text: &mut [u8]) -> u64 {
    let (mut count, mut at) = (0, 0);
    while let Some(found) = memchr(b'\\', text.get(at..).unwrap_or_default()) {
        let escape = at + found;
        at = match (unit(text, escape), unit(text, escape + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => escape + 12,
            (Some(0xD800..=0xDFFF), _) => {
                if let Some(half) = text.get_mut(escape..escape + 6) {
                    half.copy_from_slice(br"\ufffd");
                }
                count += 1;
                escape + 6
            }
            (Some(_), _) => escape + 6,
            // An escape of one letter, of a backslash too.
            (None, _) => escape + 2,
        };
    }
    count
}

/// The UTF-16 unit that the escape there is, if it is `\\uXXXX`.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..)?.strip_prefix(br"\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

type Fault = (usize, &'static str);

/// The open arrays and objects, one bit each: set for an object. The innermost 64 live in a word,
/// so that only deeper values allocate.
#[derive(Default)]
struct Nesting {
    depth: usize,
    word: u64,
    outer: Vec<u64>,
}

impl Nesting {
    fn open(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.word);
        }
        self.word = self.word << 1 | u64::from(object);
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.word >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.word = self.outer.pop().unwrap_or(self.word);
        }
    }

    const fn in_object(&self) -> bool {
        self.word & 1 == 1
    }
}

/// What the grammar allows next.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Value,
    /// A value, or the end of an array that just opened.
    ValueOrEnd,
    Name,
    /// A name, or the end of an object that just opened.
    NameOrEnd,
    /// A comma, or the end of what is open.
    CommaOrEnd,
}

fn check(text: &[u8]) -> Result<(), Fault> {
    let mut nesting = Nesting::default();
    let mut next = Next::Value;
    let mut rest = blank(text);
    loop {
        let offset = text.len() - rest.len();
        let Some((&byte, tail)) = rest.split_first() else {
            let ended = next == Next::CommaOrEnd && nesting.depth == 0;
            return if ended { Ok(()) } else { Err((offset, "the rest of the value")) };
        };
        (rest, next) = match (next, byte) {
            (Next::CommaOrEnd, _) if nesting.depth == 0 => {
                return Err((offset, "the end of the value"));
            }
            (Next::CommaOrEnd, b',') if nesting.in_object() => (tail, Next::Name),
            (Next::CommaOrEnd, b',') => (tail, Next::Value),
            (Next::CommaOrEnd | Next::NameOrEnd, b'}') if nesting.in_object() => {
                nesting.close();
                (tail, Next::CommaOrEnd)
            }
            (Next::CommaOrEnd | Next::ValueOrEnd, b']') if !nesting.in_object() => {
                nesting.close();
                (tail, Next::CommaOrEnd)
            }
            (Next::Name | Next::NameOrEnd, b'"') => {
                (colon(text, string(text, tail)?)?, Next::Value)
            }
            (Next::Value | Next::ValueOrEnd, b'{') => {
                nesting.open(true);
                (tail, Next::NameOrEnd)
            }
            (Next::Value | Next::ValueOrEnd, b'[') => {
                nesting.open(false);
                (tail, Next::ValueOrEnd)
            }
            (Next::Value | Next::ValueOrEnd, _) => (scalar(text, rest)?, Next::CommaOrEnd),
            (Next::Name | Next::NameOrEnd, _) => return Err((offset, "a name in quotes")),
            (Next::CommaOrEnd, _) => return Err((offset, "a comma or a closing bracket")),
        };
        rest = blank(rest);
    }
}

fn blank(text: &[u8]) -> &[u8] {
    let count = text.iter().take_while(|byte| b" \t\n\r".contains(byte)).count();
    text.split_at(count).1
}

fn colon<'a>(text: &[u8], rest: &'a [u8]) -> Result<&'a [u8], Fault> {
    let rest = blank(rest);
    rest.strip_prefix(b":").ok_or((text.len() - rest.len(), "a colon"))
}

/// Takes a string, number or word off the front of `rest`, a tail of `text`.
fn scalar<'a>(text: &[u8], rest: &'a [u8]) -> Result<&'a [u8], Fault> {
    if let Some(rest) = rest.strip_prefix(b"\"") {
        return string(text, rest);
    }
    for word in [b"true".as_slice(), b"false", b"null"] {
        if let Some(rest) = rest.strip_prefix(word) {
            return Ok(rest);
        }
    }
    number_prefix(rest).map_err(|at| (text.len() - rest.len() + at, "a JSON value"))
}

/// Takes the rest of a string, whose opening quote was taken.
fn string<'a>(text: &[u8], mut rest: &'a [u8]) -> Result<&'a [u8], Fault> {
    loop {
        let plain = rest.iter().take_while(|&&byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
        rest = rest.split_at(plain.count()).1;
        let fault = |expected| (text.len() - rest.len(), expected);
        rest = match rest {
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'u', a, b, c, d, after @ ..]
                if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) =>
            {
                after
            }
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', after @ ..] => after,
            [b'\\', ..] => return Err(fault("an escape of JSON")),
            [] => return Err(fault("a closing quote")),
            _ => return Err(fault("no bare control character")),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn is_json(text: &[u8]) -> bool {
        serde_json::from_slice::<IgnoredAny>(text).is_ok()
    }

    proptest! {
        #[test]
        fn what_passes_is_what_a_json_parser_takes(
            text in r#"([\[\]{}:, \n]|"[a\\u0"]{0,4}"|-?[0-9.e+]{1,3}|true|null|x){0,12}"#,
        ) {
            prop_assert_eq!(check(text.as_bytes()).is_ok(), is_json(text.as_bytes()), "{}", text);
        }
    }

    #[test]
    fn any_depth_is_checked_without_recursion() {
        for depth in [1, 63, 64, 65, 128, 129, 100_000] {
            let open: String =
                (0..depth).map(|at| if at % 3 == 0 { "{\"a\":" } else { "[" }).collect();
            let close: String =
                (0..depth).rev().map(|at| if at % 3 == 0 { "}" } else { "]" }).collect();
            assert_eq!(check(format!("{open}1{close}").as_bytes()), Ok(()), "{depth}");
            assert!(check(format!("{open}1").as_bytes()).is_err(), "{depth}");
            let swapped = close.replace('}', "x").replace(']', "}").replace('x', "]");
            assert!(check(format!("{open}1{swapped}").as_bytes()).is_err(), "{depth}");
        }
    }

    proptest! {
        #[test]
        fn every_text_is_one_that_parsers_take_with_u_fffd_for_each_lone_half(
            text in r#"(\\ud[89abAB][0-9]{2}|\\u[dD][cf]a0|\\u00e9|\\u0000|\\\\|\\"|[aué]|ud800){0,9}"#,
        ) {
            let (wire, replaced) = (format!("{{\"{text}\":\"{text}\"}}"), Cell::default());
            let mut out = Vec::new();
            write_nested(wire.as_bytes(), &replaced, &mut out).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&out).expect("a parser takes it");
            // The same by units: what an escape says, or a character.
            let (mut units, mut rest) = (Vec::new(), text.as_str());
            while let Some(first) = rest.chars().next() {
                let take = match (first, rest.as_bytes().get(1)) {
                    ('\\', Some(b'u')) => {
                        units.push(u16::from_str_radix(&rest[2..6], 16).unwrap());
                        6
                    }
                    ('\\', Some(&letter)) => {
                        units.push(letter.into());
                        2
                    }
                    _ => {
                        units.extend(first.encode_utf16(&mut [0; 2]).iter());
                        first.len_utf8()
                    }
                };
                rest = &rest[take..];
            }
            let expected = String::from_utf16_lossy(&units);
            prop_assert_eq!(&value[&expected], &expected);
            let lone = char::decode_utf16(units).filter(Result::is_err).count() as u64;
            prop_assert_eq!(replaced.get(), 2 * lone);
        }
    }

    #[test]
    fn values_are_copied_and_stay_on_one_line() {
        let mut out = Vec::new();
        let value = b"{\"a\":\r\n [1.50,  \"x\\n\"]}";
        write_nested(value, &Cell::default(), &mut out).unwrap();
        assert_eq!(out, b"{\"a\":   [1.50,  \"x\\n\"]}");
    }

    #[test]
    fn faults_are_named_by_place() {
        for (text, offset) in [
            ("", 0),
            ("{", 1),
            ("[1,]", 3),
            ("{\"a\" 1}", 5),
            ("1 2", 2),
            ("\"\\x\"", 1),
            ("01", 1),
        ] {
            assert_eq!(check(text.as_bytes()).map_err(|fault| fault.0), Err(offset), "{text}");
        }
    }
}
