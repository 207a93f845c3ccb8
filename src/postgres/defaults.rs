//! Converts defaults to the values that their columns would store.
//!
//! The catalog has a default as it was written: `numeric(6,2) DEFAULT 12.345` is 12.345 there, and
//! every row that takes it holds 12.35. The same applies to the digits of a time, to a `real`, and
//! to an integer with a fraction. So the server converts the literal: only literals, and only with
//! casts between built-in types, so that no user function is called.
//!
//! Not here: which expressions become defaults in schemas (`encode`).

use postgres_protocol::escape::escape_literal;
use tokio_postgres::{Client, SimpleQueryMessage};

/// A default that its column may store differently from how it is written.
#[derive(Debug)]
pub(super) struct Written {
    /// The literal with its own type, in SQL.
    literal: String,
    /// The column's type, in SQL.
    column: String,
}

/// Types of literals, as the server writes them.
const SOURCES: [&str; 16] = [
    "smallint",
    "integer",
    "bigint",
    "numeric",
    "real",
    "double precision",
    "text",
    "bpchar",
    "character",
    "character varying",
    "date",
    "time without time zone",
    "time with time zone",
    "timestamp without time zone",
    "timestamp with time zone",
    "interval",
];

impl Written {
    /// The default of a column of this type, if the column may store it differently.
    pub(super) fn of(expression: &str, type_oid: u32, typmod: i32, column: &str) -> Option<Self> {
        let may_differ = match type_oid {
            // int2, int4, int8: of a number with a fraction, or another type's.
            20 | 21 | 23 => expression.contains(['.', '\'']),
            // float4, float8.
            700 | 701 => true,
            // date; time, timestamp, timestamptz, interval, timetz, numeric. Not bpchar: its blanks are
            // padding, which a default has not, as in Debezium.
            1082 => expression.contains("timestamp"),
            1083 | 1114 | 1184 | 1186 | 1266 | 1700 => typmod >= 0,
            _ => false,
        };
        let literal = may_differ.then(|| literal(expression)).flatten()?;
        Some(Self { literal, column: column.to_owned() })
    }

    fn cast(&self) -> String {
        format!("CAST({} AS {})", self.literal, self.column)
    }
}

/// An expression that is a literal, rewritten with its type; `None` if it is anything else.
fn literal(expression: &str) -> Option<String> {
    let Some(rest) = expression.strip_prefix('\'') else {
        let is_number = expression.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        return (is_number && !expression.is_empty())
            .then(|| format!("CAST({} AS numeric)", escape_literal(expression)));
    };
    // Nothing that needs an escape: such a literal has none of the types above.
    let (text, rest) = rest.split_once('\'')?;
    let name = rest.strip_prefix("::")?;
    let (base, modifier) = match name.split_once('(') {
        Some((base, modifier)) => (base, modifier.strip_suffix(')')?),
        None => (name, ""),
    };
    let is_modifier = modifier.bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
    let is_plain = SOURCES.contains(&base) && is_modifier && !text.contains('\\');
    is_plain.then(|| format!("CAST({} AS {name})", escape_literal(text)))
}

/// What each column would store, as the stream's text; `None` if the server refuses it: no row can
/// have such a default.
///
/// # Errors
/// When the connection fails.
pub(super) async fn held(
    client: &Client,
    written: &[Written],
) -> Result<Vec<Option<String>>, tokio_postgres::Error> {
    let casts: Vec<String> = written.iter().map(Written::cast).collect();
    match ask(client, &casts).await {
        Ok(held) => return Ok(held),
        Err(error) if error.as_db_error().is_none() => return Err(error),
        // Only this one fails; the others still have results.
        Err(_) => {}
    }
    let mut held = Vec::with_capacity(casts.len());
    for cast in &casts {
        match ask(client, std::slice::from_ref(cast)).await {
            Ok(mut one) => held.push(one.pop().flatten()),
            Err(error) if error.as_db_error().is_none() => return Err(error),
            Err(_) => held.push(None),
        }
    }
    Ok(held)
}

async fn ask(
    client: &Client,
    casts: &[String],
) -> Result<Vec<Option<String>>, tokio_postgres::Error> {
    // In results of simple queries, values have the same text as in the stream.
    let answers = client.simple_query(&format!("SELECT {}", casts.join(", "))).await?;
    let row = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let value = |at: usize| row.and_then(|row| row.get(at)).map(str::to_owned);
    Ok((0..casts.len()).map(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literals_of_the_servers_own_types_are_asked_of() {
        let cast = |expression: &str| literal(expression);
        assert_eq!(cast("12.345").as_deref(), Some("CAST('12.345' AS numeric)"));
        assert_eq!(
            cast("'2024-01-01 00:00:00.6'::timestamp(3) without time zone"),
            None,
            "no literal has a modifier in the middle"
        );
        assert_eq!(cast("'a'::character(5)").as_deref(), Some("CAST('a' AS character(5))"));
        for expression in [
            "",
            "now()",
            "f('1')",
            "'1'::evil.numeric",
            "'1'::numeric || pg_sleep(1)::text",
            "'1'::numeric) FROM pg_sleep(1) --",
            "'it''s'::text",
            "'\\x'::text",
            "E'a'::text",
            "1; DROP TABLE t",
            "1.5::numeric",
        ] {
            assert_eq!(cast(expression), None, "{expression}");
        }
    }
}
