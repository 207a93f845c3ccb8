//! What a topic is called: the template, and what becomes of characters that Kafka does not allow.
//!
//! Kafka allows ASCII letters, digits, `.`, `_` and `-` in a topic; Postgres allows anything in a
//! table. There are two ways from one to the other:
//!
//! | `topics.escape` | a character that Kafka does not allow becomes | different tables |
//! |---|---|---|
//! | `underscore` | `_`, as Debezium does it | may have one topic |
//! | `unicode` | `_u` and four hex digits for each UTF-16 unit | have different topics |
//!
//! With `unicode`, two more characters of a schema's or a table's name are escaped, or the name
//! could not be read back: a dot, which separates the two, and a `_` before what looks like an
//! escape (`u` and four lowercase hex digits). All other names stay as they are, underscores too.
//!
//! Kafka also refuses two topics whose names differ only in `.` and `_`, since their metrics have
//! one name; see [`metric_name`].

use crate::config::TopicEscape;

/// Kafka's own limit on a topic's name.
const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Topics that belong to the brokers.
const BROKERS_OWN: [&str; 4] =
    ["__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata"];

/// How topics are named.
#[derive(Debug, Clone)]
pub(super) struct Naming {
    pub(super) template: String,
    pub(super) prefix: String,
    pub(super) database: String,
    pub(super) escape: TopicEscape,
}

impl Naming {
    /// The topic's name for a table, by the template.
    pub(super) fn derived(&self, schema: &str, table: &str) -> String {
        self.derived_by(self.escape, schema, table)
    }

    /// The same, with the characters escaped in a given way.
    pub(super) fn derived_by(&self, escape: TopicEscape, schema: &str, table: &str) -> String {
        // Placeholders are filled in one pass, so a table named `{schema}` stays what it is.
        let mut name = String::new();
        let mut rest = self.template.as_str();
        while let Some(open) = rest.find('{') {
            let (before, from_open) = rest.split_at(open);
            name.push_str(&literal(escape, before));
            let Some(close) = from_open.find('}') else {
                rest = from_open;
                break;
            };
            let (placeholder, after) = from_open.split_at(close + 1);
            name.push_str(&match placeholder {
                "{prefix}" => literal(escape, &self.prefix),
                "{database}" => part(escape, &self.database),
                "{schema}" => part(escape, schema),
                "{table}" => part(escape, table),
                other => literal(escape, other),
            });
            rest = after;
        }
        name.push_str(&literal(escape, rest));
        name
    }

    /// What the names of all tables begin with, and whether that is all of them.
    pub(super) fn beginning(&self) -> (String, bool) {
        let ends = ["{schema}", "{table}"].into_iter().filter_map(|of| self.template.find(of));
        let end = ends.min();
        let settled = end.and_then(|end| self.template.get(..end)).unwrap_or(&self.template);
        let naming = Self { template: settled.to_owned(), ..self.clone() };
        (naming.derived("", ""), end.is_none())
    }

    /// The name of a topic of rowcast's own. It is the same for both ways.
    pub(super) fn own(&self, kind: &str) -> String {
        literal(TopicEscape::Underscore, &format!("{}.{kind}", self.prefix))
    }
}

/// The name under which the brokers count a topic's metrics: topics with the same are refused.
pub(super) fn metric_name(topic: &str) -> String {
    topic.replace('.', "_")
}

/// What Kafka has against a topic's name.
pub(super) fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("it is empty")
    } else if name == "." || name == ".." {
        Err("the names . and .. are reserved")
    } else if name.len() > TOPIC_NAME_BYTES_MAX {
        Err("it is longer than 249 bytes")
    } else if !name.chars().all(is_allowed) {
        Err("only ASCII letters, digits, '.', '_' and '-' are allowed")
    } else if BROKERS_OWN.contains(&name) {
        Err("it is a topic of the brokers' own")
    } else {
        Ok(())
    }
}

/// Text of the template and the prefix: its dots separate.
fn literal(escape: TopicEscape, text: &str) -> String {
    match escape {
        TopicEscape::Underscore => underscored(text),
        TopicEscape::Unicode => escaped(text, is_allowed),
    }
}

/// A name that Postgres has.
fn part(escape: TopicEscape, text: &str) -> String {
    match escape {
        TopicEscape::Underscore => underscored(text),
        TopicEscape::Unicode => escaped(text, |char| char != '.' && is_allowed(char)),
    }
}

fn underscored(text: &str) -> String {
    text.chars().map(|char| if is_allowed(char) { char } else { '_' }).collect()
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut name = String::with_capacity(text.len());
    for (at, char) in text.char_indices() {
        let looks_escaped = || text.get(at..).is_some_and(is_escape);
        if stays(char) && !(char == '_' && looks_escaped()) {
            name.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            name.push_str(&format!("_u{unit:04x}"));
        }
    }
    name
}

/// Whether the text begins as an escape does.
fn is_escape(text: &str) -> bool {
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match text.as_bytes() {
        [b'_', b'u', rest @ ..] => rest.iter().take_while(|byte| is_hex(byte)).take(4).count() == 4,
        _ => false,
    }
}

fn is_allowed(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naming(template: &str, escape: TopicEscape) -> Naming {
        Naming {
            template: template.to_owned(),
            prefix: "nyc".to_owned(),
            database: "taxi".to_owned(),
            escape,
        }
    }

    const DEBEZIUM: &str = "{prefix}.{schema}.{table}";

    #[test]
    fn a_topic_is_named_as_debezium_names_it() {
        let of = |schema: &str, table: &str| {
            naming(DEBEZIUM, TopicEscape::Underscore).derived(schema, table)
        };
        assert_eq!(of("public", "rides"), "nyc.public.rides");
        assert_eq!(of("public", "fahrten für heute"), "nyc.public.fahrten_f_r_heute");
        // One underscore for a character, however many bytes or units it has.
        assert_eq!(of("public", "данные"), "nyc.public.______");
        assert_eq!(of("public", "a😀b"), "nyc.public.a_b");
        assert_eq!(of("public", "{prefix}"), "nyc.public._prefix_");
        assert_eq!(of("a.b", "c"), "nyc.a.b.c");
    }

    #[test]
    fn each_character_that_kafka_refuses_can_become_an_escape_of_its_own() {
        let of = |schema: &str, table: &str| {
            naming(DEBEZIUM, TopicEscape::Unicode).derived(schema, table)
        };
        // Plain names stay, underscores and all.
        assert_eq!(of("public", "order_items_2-x"), "nyc.public.order_items_2-x");
        assert_eq!(of("public", "user_updates"), "nyc.public.user_updates");
        assert_eq!(of("public", "x y"), "nyc.public.x_u0020y");
        assert_eq!(of("public", "für"), "nyc.public.f_u00fcr");
        // Beyond the BMP: the two units that UTF-16 has for it.
        assert_eq!(of("public", "😀"), "nyc.public._ud83d_ude00");
        assert_eq!(of("a.b", "c"), "nyc.a_u002eb.c");
        // What looks like an escape is escaped itself.
        assert_eq!(of("public", "x_u0020y"), "nyc.public.x_u005fu0020y");
        assert_eq!(of("public", "x_U0020y"), "nyc.public.x_U0020y");
        // The template's own text is not a table's.
        assert_eq!(
            naming("{prefix}.x {table}", TopicEscape::Unicode).derived("", "t"),
            "nyc.x_u0020t"
        );
    }

    #[test]
    fn all_names_begin_alike_as_far_as_no_table_is_named() {
        for (template, escape, begins) in [
            (DEBEZIUM, TopicEscape::Underscore, ("my_nyc.", false)),
            (DEBEZIUM, TopicEscape::Unicode, ("my_u0020nyc.", false)),
            ("{database}-{table}", TopicEscape::Underscore, ("ta_i.x-", false)),
            ("{database}-{table}", TopicEscape::Unicode, ("ta_u0020i_u002ex-", false)),
            ("{table}.{schema}", TopicEscape::Underscore, ("", false)),
            ("all {database}", TopicEscape::Underscore, ("all_ta_i.x", true)),
        ] {
            let prefix = "my nyc".to_owned();
            let database = "ta i.x".to_owned();
            let naming = Naming { prefix, database, ..naming(template, escape) };
            assert_eq!(naming.beginning(), (begins.0.to_owned(), begins.1), "{template}");
            assert!(naming.derived("a b", "c.d").starts_with(begins.0), "{template}");
        }
    }

    #[test]
    fn a_name_that_kafka_refuses_is_found() {
        for (name, why) in [
            ("", "empty"),
            (".", "reserved"),
            ("..", "reserved"),
            ("a b", "only ASCII"),
            ("ü", "only ASCII"),
            (&"x".repeat(250), "longer"),
            ("__consumer_offsets", "brokers"),
            ("__transaction_state", "brokers"),
        ] {
            assert!(check(name).unwrap_err().contains(why), "{name}");
        }
        for name in ["...", "a", "__x", &"x".repeat(249)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    /// The names from which a topic was made, by reading its escapes.
    fn read_back(topic: &str) -> Option<(String, String)> {
        let (schema, table) = topic.strip_prefix("nyc.")?.split_once('.')?;
        let unescaped = |text: &str| {
            let mut units: Vec<u16> = Vec::new();
            let mut rest = text;
            while let Some(char) = rest.chars().next() {
                let taken = if is_escape(rest) {
                    units.push(u16::from_str_radix(&rest[2..6], 16).ok()?);
                    6
                } else {
                    units.extend_from_slice(char.encode_utf16(&mut [0; 2]));
                    char.len_utf8()
                };
                rest = &rest[taken..];
            }
            String::from_utf16(&units).ok()
        };
        Some((unescaped(schema)?, unescaped(table)?))
    }

    /// Names that lie near each other: pieces of escapes, separators, what is escaped.
    fn a_name() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("_".to_owned()),
            Just("u".to_owned()),
            Just("_u".to_owned()),
            Just(".".to_owned()),
            Just(" ".to_owned()),
            Just("-".to_owned()),
            Just("_u0020".to_owned()),
            Just("005f".to_owned()),
            Just("é".to_owned()),
            Just("😀".to_owned()),
            "[a-fA-Z0-9]{1,2}",
            any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_topic_in_unicode_is_read_back_as_the_names_that_it_was_made_from(
            schema in a_name(), table in a_name(),
        ) {
            let topic = naming(DEBEZIUM, TopicEscape::Unicode).derived(&schema, &table);
            prop_assert!(topic.chars().all(is_allowed), "{}", topic);
            prop_assert_eq!(read_back(&topic), Some((schema, table)));
        }

        #[test]
        fn a_topic_in_underscores_has_one_for_each_character_that_kafka_refuses(
            schema in a_name(), table in a_name(),
        ) {
            let topic = naming(DEBEZIUM, TopicEscape::Underscore).derived(&schema, &table);
            let expected = format!("nyc.{schema}.{table}");
            prop_assert_eq!(topic.chars().count(), expected.chars().count());
            for (is, was) in topic.chars().zip(expected.chars()) {
                prop_assert_eq!(is, if is_allowed(was) { was } else { '_' });
            }
        }
    }
}
