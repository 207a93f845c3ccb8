//! Rules for texts that go to Postgres, Kafka or the log.
//!
//! Only what these would always refuse is refused here; the server checks the rest.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::condition;
use super::fault::Fault;
use super::keys::{Rule, nearest};

/// Longest identifier of a stock Postgres, `NAMEDATALEN - 1`
/// (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html>).
pub(super) const MAX_IDENTIFIER_BYTES: usize = 63;

/// Longest topic name that Kafka accepts.
const MAX_TOPIC_BYTES: usize = 249;

pub(super) fn check(rule: Rule, text: &str) -> Result<(), Fault> {
    if text.trim().is_empty() {
        return Err(Fault::Empty);
    }
    // SQL may span several lines.
    let is_foreign = |c: char| c.is_control() && !(matches!(rule, Rule::Condition) && c == '\n');
    if text.chars().any(is_foreign) {
        return Err(Fault::ControlCharacter);
    }
    match rule {
        Rule::Name => Ok(()),
        Rule::Condition => condition::check(text).map_err(Fault::Condition),
        Rule::Brokers => brokers(text),
        Rule::Slot => slot(text),
        Rule::Publication => identifier(text),
        Rule::Template => template(text),
        Rule::Topic => topic(text),
        Rule::Table => table(text),
        Rule::LogLevel => log_level(text),
        Rule::Unavailable => unavailable(text),
    }
}

fn slot(text: &str) -> Result<(), Fault> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if text.len() <= MAX_IDENTIFIER_BYTES && text.bytes().all(plain) {
        Ok(())
    } else {
        Err(Fault::SlotName { value: text.to_owned() })
    }
}

fn identifier(text: &str) -> Result<(), Fault> {
    if text.len() <= MAX_IDENTIFIER_BYTES {
        Ok(())
    } else {
        Err(Fault::TooLong { value: text.to_owned(), bytes: text.len() })
    }
}

fn table(text: &str) -> Result<(), Fault> {
    match text.split_once('.') {
        Some((schema, name)) if !schema.is_empty() && !name.is_empty() => {
            identifier(schema)?;
            identifier(name)
        }
        _ => Err(Fault::Unreadable {
            value: text.to_owned(),
            expected: "the name of a table; write schema.table".to_owned(),
        }),
    }
}

/// Whether a topic's name may contain this byte.
fn is_topic_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')
}

fn topic(text: &str) -> Result<(), Fault> {
    let fits = text.len() <= MAX_TOPIC_BYTES && text.bytes().all(is_topic_byte);
    if fits && text != "." && text != ".." {
        Ok(())
    } else {
        Err(Fault::TopicName { value: text.to_owned() })
    }
}

fn template(text: &str) -> Result<(), Fault> {
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let from = &rest[at..];
        let end = from.find('}').filter(|_| from.starts_with('{')).ok_or(Fault::Brace)?;
        let name = &from[1..end];
        if name.contains('{') {
            return Err(Fault::Brace);
        }
        if !matches!(name, "prefix" | "database" | "schema" | "table") {
            return Err(Fault::Placeholder { name: name.to_owned() });
        }
        rest = &from[end + 1..];
    }
    Ok(())
}

fn brokers(text: &str) -> Result<(), Fault> {
    for broker in text.split(',').map(str::trim) {
        let address = broker.split_once("://").map_or(broker, |(_, address)| address);
        // The last colon, unless it belongs to a bare or bracketed IPv6 address.
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (address, None),
        };
        let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        if host.is_empty() || host.contains(char::is_whitespace) || !port_fits {
            return Err(Fault::Unreadable {
                value: broker.to_owned(),
                expected: "a broker; write host:port, several with commas".to_owned(),
            });
        }
    }
    Ok(())
}

fn unavailable(text: &str) -> Result<(), Fault> {
    let digits = text.strip_prefix("hex:").unwrap_or_default();
    if digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(Fault::Unreadable {
        value: text.to_owned(),
        expected: "a placeholder; write a text, or hex: and pairs of hexadecimal digits".to_owned(),
    })
}

fn log_level(text: &str) -> Result<(), Fault> {
    // `EnvFilter` reads a misspelt level as a target's name, and then logs nothing else.
    for directive in text.split(',').map(str::trim) {
        let bare = !directive.contains(['=', '[']);
        if bare && directive.parse::<LevelFilter>().is_err() {
            const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
            return Err(Fault::NotOneOf {
                value: directive.to_owned(),
                allowed: LEVELS.to_vec(),
                suggestion: nearest(directive, LEVELS.iter().map(|&level| level.to_owned()))
                    .or_else(|| Some(format!("{directive}=debug"))),
            });
        }
    }
    EnvFilter::builder().parse(text).map(drop).map_err(|error| Fault::Unreadable {
        value: text.to_owned(),
        expected: format!("a log filter such as info or rowcast=debug: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(rule: Rule, text: &str) -> String {
        check(rule, text).unwrap_err().to_string()
    }

    #[test]
    fn a_slot_name_is_what_postgres_takes() {
        check(Rule::Slot, "rowcast_taxi_1").unwrap();
        check(Rule::Slot, &"a".repeat(63)).unwrap();
        for name in ["Rides", "a-b", "é", &"a".repeat(64)] {
            let expected = format!(
                "Postgres refuses the slot name \"{name}\"; a slot name is 1 to 63 lower-case \
                 letters, digits and underscores"
            );
            assert_eq!(refused(Rule::Slot, name), expected);
        }
        assert_eq!(refused(Rule::Slot, ""), "is set but empty; leave it out to get the default");
    }

    #[test]
    fn a_placeholder_is_a_text_or_bytes() {
        for text in ["unavailable", "hex:", "hex:00fF", "0x1"] {
            check(Rule::Unavailable, text).unwrap();
        }
        for text in ["hex:0", "hex:0g"] {
            let expected = format!(
                "\"{text}\" is not a placeholder; write a text, or hex: and pairs of hexadecimal digits"
            );
            assert_eq!(refused(Rule::Unavailable, text), expected);
        }
    }

    #[test]
    fn a_template_has_known_placeholders_and_paired_braces() {
        check(Rule::Template, "{prefix}.{schema}.{table}").unwrap();
        check(Rule::Template, "everything").unwrap();
        assert_eq!(
            refused(Rule::Template, "{prefix}.{tabel}"),
            "unknown placeholder {tabel}; use {prefix}, {database}, {schema} or {table}"
        );
        for text in ["{table", "table}", "{{table}}", "}{"] {
            assert_eq!(refused(Rule::Template, text), "a brace has no partner", "{text}");
        }
    }

    #[test]
    fn brokers_have_a_host_and_a_port_that_exists() {
        for text in ["a:9092", "a:9092, b:9093", "a", "SSL://a:9093", "[::1]:9092", "[::1]"] {
            check(Rule::Brokers, text).unwrap();
        }
        for (text, broker) in [(":9092", ":9092"), ("a:9092,", ""), ("a:x", "a:x"), ("a:0", "a:0")]
        {
            assert_eq!(
                refused(Rule::Brokers, text),
                format!("\"{broker}\" is not a broker; write host:port, several with commas")
            );
        }
    }

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_target() {
        check(Rule::LogLevel, "info,rowcast::kafka=debug").unwrap();
        check(Rule::LogLevel, "WARN").unwrap();
        assert_eq!(
            refused(Rule::LogLevel, "debgu"),
            "\"debgu\" is not one of off, error, warn, info, debug, trace; did you mean debug?"
        );
        assert_eq!(
            refused(Rule::LogLevel, "rowcast"),
            "\"rowcast\" is not one of off, error, warn, info, debug, trace; did you mean \
             rowcast=debug?"
        );
    }

    #[test]
    fn a_table_has_a_schema_and_a_name() {
        for text in ["public.signals", "a.b.c", "Ops.my signals"] {
            check(Rule::Table, text).unwrap();
        }
        for text in ["signals", ".signals", "public."] {
            let expected = format!("\"{text}\" is not the name of a table; write schema.table");
            assert_eq!(refused(Rule::Table, text), expected);
        }
        let long = format!("public.{}", "a".repeat(64));
        assert!(check(Rule::Table, &long).is_err());
    }

    #[test]
    fn a_topic_name_is_what_kafka_takes() {
        check(Rule::Topic, "rides.v2_a-b").unwrap();
        for text in ["a b", "..", &"a".repeat(250)] {
            assert!(refused(Rule::Topic, text).starts_with("Kafka refuses the topic name"));
        }
    }
}
