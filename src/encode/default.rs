//! Converts a column's default from SQL to the JSON of its schema.
//!
//! Only literals are converted, with a cast or without. Of computed defaults, a function call
//! becomes something like zero, as in Debezium; anything else has no default. Types are those that
//! Debezium reads defaults of. What a column makes of a literal (its digits) is settled before:
//! `postgres::catalog` asks the server.

use crate::types::{Codec, TypeFacts, TypeKind};

/// The default's JSON; `None` if a schema can't contain it.
pub(super) fn json(
    codec: &Codec,
    type_oid: u32,
    facts: Option<&TypeFacts>,
    expression: &str,
) -> Option<Vec<u8>> {
    let computed = match facts.map(|facts| &facts.kind) {
        Some(TypeKind::Enum { .. }) => None,
        Some(TypeKind::Domain { .. }) => return None,
        _ => Some(computed(type_oid)?),
    };
    let text = match read(expression.trim())? {
        Default::Literal(text) if type_oid == BOOL => text.get(..1)?.to_owned(),
        Default::Literal(text) => text,
        Default::Computed => computed?.to_owned(),
    };
    let mut json = Vec::new();
    codec.write_json(text.as_bytes(), &mut json).ok()?;
    // Connect can't hold a struct as a default (KAFKA-12694).
    (json.first() != Some(&b'{') && json != b"null").then_some(json)
}

const BOOL: u32 = 16;

/// What stands for a computed default, as the type's text; none for types without defaults.
const fn computed(type_oid: u32) -> Option<&'static str> {
    Some(match type_oid {
        BOOL => "f",
        20 | 21 | 23 => "0",
        700 | 701 | 1700 => "0.0",
        25 | 142 | 1042 | 1043 => "",
        114 | 3802 => "{}",
        2950 => "00000000-0000-0000-0000-000000000000",
        1082 => "1970-01-01",
        1083 => "00:00:00",
        1114 => "1970-01-01 00:00:00",
        1184 => "1970-01-01 00:00:00+00",
        1186 => "PT0S",
        1560 => "00",
        1562 => "0",
        _ => return None,
    })
}

#[derive(Debug, PartialEq)]
enum Default {
    Literal(String),
    Computed,
}

fn read(expression: &str) -> Option<Default> {
    let bits = expression.strip_prefix("B'").map(|_| &expression[1..]);
    let (text, rest) = match quoted(bits.unwrap_or(expression)) {
        Some((text, rest)) => (text, rest),
        None => {
            let end = expression.find("::").unwrap_or(expression.len());
            let (word, rest) = expression.split_at(end);
            return match word {
                word if is_number(word) || matches!(word, "true" | "false") => {
                    is_cast(rest).then(|| Default::Literal(word.to_owned()))
                }
                word if is_call(expression) || is_clock(word) => Some(Default::Computed),
                _ => None,
            };
        }
    };
    is_cast(rest).then_some(Default::Literal(text))
}

/// A quoted literal and what follows it.
fn quoted(expression: &str) -> Option<(String, &str)> {
    let mut rest = expression.strip_prefix('\'')?;
    let mut text = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        text.push_str(part);
        match after.strip_prefix('\'') {
            Some(after) => {
                text.push('\'');
                rest = after;
            }
            None => return Some((text, after)),
        }
    }
}

/// Nothing, or a cast to a type, without another expression behind it.
fn is_cast(rest: &str) -> bool {
    let of_type = |c: char| c.is_alphanumeric() || "_ \".(),".contains(c);
    rest.is_empty() || rest.strip_prefix("::").is_some_and(|name| name.chars().all(of_type))
}

fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
}

fn is_call(expression: &str) -> bool {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let rest = expression.trim_start_matches('(').trim_start_matches(in_name);
    rest.len() < expression.len() && rest.starts_with('(') && rest.contains(')')
}

fn is_clock(word: &str) -> bool {
    let clocks =
        ["CURRENT_TIMESTAMP", "CURRENT_TIME", "CURRENT_DATE", "LOCALTIME", "LOCALTIMESTAMP"];
    clocks.iter().any(|clock| word.eq_ignore_ascii_case(clock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read_and_calls_are_known_as_calls() {
        let literal = |text: &str| Some(Default::Literal(text.to_owned()));
        for (expression, expected) in [
            ("7", literal("7")),
            ("'-1'::integer", literal("-1")),
            ("1.5", literal("1.5")),
            ("true", literal("true")),
            ("'it''s'::text", literal("it's")),
            ("''::character varying(5)", literal("")),
            ("B'101'::\"bit\"", literal("101")),
            (
                "'2024-03-01 00:00:00+00'::timestamp with time zone",
                literal("2024-03-01 00:00:00+00"),
            ),
            ("now()", Some(Default::Computed)),
            ("nextval('t_id_seq'::regclass)", Some(Default::Computed)),
            ("(gen_random_uuid())::text", Some(Default::Computed)),
            ("CURRENT_DATE", Some(Default::Computed)),
            ("'a'::text || 'b'::text", None),
            ("(1 + 1)", None),
            ("NULL::bigint", None),
            ("ARRAY[1]", None),
            ("'cut", None),
        ] {
            assert_eq!(read(expression), expected, "{expression}");
        }
    }
}
