//! Checks one value against what its key accepts.
//!
//! Returns the value in the form that the section structs read, or its fault. A text from a
//! variable or a flag (`Data::Raw`) is read by the key's kind, so that `ROWCAST_NAME=1` is a name
//! and `ROWCAST_TOPICS__PARTITIONS=1` a number.

use std::net::SocketAddr;
use std::time::Duration;

use figment::value::Value;

use super::columns::ColumnPattern;
use super::fault::Fault;
use super::keys::{Kind, Rule, nearest};
use super::operations::Operation;
use super::pattern::TablePattern;
use super::size::Size;
use super::tree::{Data, Node};
use super::{rule, toml};

/// The value as the structs read it. `walk` handles kinds that contain further keys.
pub(super) fn accept(kind: Kind, node: &Node) -> Result<Value, Fault> {
    match kind {
        Kind::Text(rule) => {
            let text = text(node, "text")?;
            rule::check(rule, text)?;
            Ok(Value::from(text))
        }
        Kind::Secret | Kind::Path => match text(node, "text")? {
            text if text.trim().is_empty() => Err(Fault::Empty),
            text => Ok(Value::from(text)),
        },
        Kind::Boolean => boolean(node).map(Value::from),
        Kind::Integer { min, max, or } => {
            let number = integer(node)?;
            let fits = (min..=max).contains(&number) || or == Some(number);
            if fits { Ok(Value::from(number)) } else { Err(integer_range(number, min, max, or)) }
        }
        Kind::Duration { min, max } => duration(node, min, max),
        Kind::Size { min, max } => size(node, min, max),
        Kind::OneOf(allowed) => one_of(text(node, "text")?, allowed),
        Kind::Address => address(text(node, "text")?),
        Kind::Patterns { empty } => {
            let patterns = list(node, "a list of table patterns")?;
            if patterns.is_empty() && !empty {
                return Err(Fault::EmptyList { item: "table pattern" });
            }
            patterns.iter().try_for_each(|pattern| TablePattern::parse(pattern).map(drop))?;
            Ok(Value::from(patterns))
        }
        Kind::ColumnPatterns { empty } => {
            let patterns = list(node, "a list of column patterns")?;
            if patterns.is_empty() && !empty {
                return Err(Fault::EmptyList { item: "column pattern" });
            }
            patterns.iter().try_for_each(|pattern| ColumnPattern::parse(pattern).map(drop))?;
            Ok(Value::from(patterns))
        }
        Kind::Operations => {
            let words = list(node, "a list of operations")?;
            let words: Vec<String> =
                words.iter().map(|word| Operation::spelt_out(word).to_owned()).collect();
            distinct(&words)?;
            words.iter().try_for_each(|word| one_of(word, Operation::WORDS).map(drop))?;
            Ok(Value::from(words))
        }
        Kind::Columns => columns(list(node, "a list of column names")?),
        Kind::Command => command(node),
        Kind::Hosts => hosts(list(node, "a list of host names")?),
        Kind::Names => {
            let names = list(node, "a list of names")?;
            names.iter().try_for_each(|name| rule::check(Rule::Name, name))?;
            Ok(Value::from(names))
        }
        Kind::Counts { .. }
        | Kind::Texts
        | Kind::Properties
        | Kind::PropertyFiles
        | Kind::PropertyCommands
        | Kind::Tables => Err(Fault::Form { expected: "a table of keys", found: node.form() }),
    }
}

fn text<'a>(node: &'a Node, expected: &'static str) -> Result<&'a str, Fault> {
    match &node.data {
        Data::Raw(text) | Data::Text(text) => Ok(text),
        _ => Err(Fault::Form { expected, found: node.form() }),
    }
}

fn boolean(node: &Node) -> Result<bool, Fault> {
    match &node.data {
        Data::Boolean(truth) => Ok(*truth),
        Data::Raw(text) => text.parse().map_err(|_| Fault::Unreadable {
            value: text.clone(),
            expected: "a boolean; write true or false".to_owned(),
        }),
        _ => Err(Fault::Form { expected: "true or false", found: node.form() }),
    }
}

fn integer(node: &Node) -> Result<i64, Fault> {
    match &node.data {
        Data::Integer(number) => Ok(*number),
        Data::Raw(text) => text.replace('_', "").parse().map_err(|_| Fault::Unreadable {
            value: text.clone(),
            expected: "an integer".to_owned(),
        }),
        _ => Err(Fault::Form { expected: "an integer", found: node.form() }),
    }
}

fn integer_range(number: i64, min: i64, max: i64, or: Option<i64>) -> Fault {
    let or = or.map_or_else(String::new, |other| format!(", or {other}"));
    Fault::Range { value: number.to_string(), range: format!("{min} to {max}{or}") }
}

fn duration(node: &Node, min: Duration, max: Duration) -> Result<Value, Fault> {
    let expected = "a duration such as \"10s\"";
    let text = match &node.data {
        Data::Raw(text) | Data::Text(text) => text.trim(),
        Data::Integer(_) | Data::Float(_) => {
            return Err(Fault::NoUnit { value: node.scalar_text().unwrap_or_default() });
        }
        _ => return Err(Fault::Form { expected, found: node.form() }),
    };
    if text.parse::<f64>().is_ok() {
        return Err(Fault::NoUnit { value: text.to_owned() });
    }
    let duration = humantime::parse_duration(text).map_err(|_| Fault::Unreadable {
        value: text.to_owned(),
        expected: "a duration; write a number and a unit (ms, s, m, h) such as \"10s\"".to_owned(),
    })?;
    if duration < min || duration > max {
        let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
        return Err(Fault::Range { value: text.to_owned(), range: format!("{min} to {max}") });
    }
    Ok(Value::from(text))
}

fn size(node: &Node, min: Size, max: Size) -> Result<Value, Fault> {
    let expected = "a size such as \"64MB\"";
    let text = match &node.data {
        Data::Raw(text) | Data::Text(text) => text.trim(),
        Data::Integer(_) | Data::Float(_) => {
            return Err(Fault::NoSizeUnit { value: node.scalar_text().unwrap_or_default() });
        }
        _ => return Err(Fault::Form { expected, found: node.form() }),
    };
    if text.parse::<f64>().is_ok() {
        return Err(Fault::NoSizeUnit { value: text.to_owned() });
    }
    let size = Size::parse(text).ok_or_else(|| Fault::Unreadable {
        value: text.to_owned(),
        expected: "a size; write a whole number and a unit (kB, MB, GB, TB) such as \"64MB\""
            .to_owned(),
    })?;
    if size < min || size > max {
        return Err(Fault::Range { value: text.to_owned(), range: format!("{min} to {max}") });
    }
    Ok(Value::from(text))
}

fn one_of(text: &str, allowed: &'static [&'static str]) -> Result<Value, Fault> {
    if allowed.contains(&text) {
        return Ok(Value::from(text));
    }
    Err(Fault::NotOneOf {
        value: text.to_owned(),
        allowed: allowed.to_vec(),
        suggestion: nearest(text, allowed.iter().map(|&word| word.to_owned())),
    })
}

fn address(text: &str) -> Result<Value, Fault> {
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(Value::from(text));
    }
    let expected = "an IP address with a port such as 127.0.0.1:9464".to_owned();
    Err(Fault::Unreadable { value: text.to_owned(), expected })
}

/// A program and its arguments.
pub(super) fn command(node: &Node) -> Result<Value, Fault> {
    let words = list(node, "a list of a program and its arguments")?;
    match words.first() {
        None => Err(Fault::EmptyList { item: "program" }),
        Some(program) if program.trim().is_empty() => Err(Fault::Empty),
        Some(_) => Ok(Value::from(words)),
    }
}

fn hosts(hosts: Vec<String>) -> Result<Value, Fault> {
    let is_name = |host: &str| {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    if let Some(value) = hosts.iter().find(|host| !is_name(host)) {
        let expected = "the name of a host without a port, such as rowcast.example".to_owned();
        return Err(Fault::Unreadable { value: value.clone(), expected });
    }
    distinct(&hosts)?;
    Ok(Value::from(hosts))
}

fn columns(columns: Vec<String>) -> Result<Value, Fault> {
    if columns.is_empty() {
        return Err(Fault::EmptyList { item: "column" });
    }
    if columns.iter().any(String::is_empty) {
        return Err(Fault::Empty);
    }
    distinct(&columns)?;
    Ok(Value::from(columns))
}

fn distinct(items: &[String]) -> Result<(), Fault> {
    for (at, item) in items.iter().enumerate() {
        if items[..at].contains(item) {
            return Err(Fault::Repeated { item: item.clone() });
        }
    }
    Ok(())
}

/// A list of texts: a real list, or one text with commas.
fn list(node: &Node, expected: &'static str) -> Result<Vec<String>, Fault> {
    match &node.data {
        Data::List(items) => {
            items.iter().map(|item| text(item, "text").map(str::to_owned)).collect()
        }
        Data::Raw(raw) if raw.trim_start().starts_with('[') && raw.trim_end().ends_with(']') => {
            match toml::parse_value(raw) {
                Ok(node) if matches!(node.data, Data::List(_)) => list(&node, expected),
                // A glob may also begin with a bracket: `[ab].rides,c.[de]`.
                _ => Ok(split_at_commas(raw)),
            }
        }
        Data::Raw(raw) => Ok(split_at_commas(raw)),
        _ => Err(Fault::Form { expected, found: node.form() }),
    }
}

/// Splits at commas outside of a glob's braces and brackets.
fn split_at_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_u32;
    for character in text.chars() {
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    let trimmed = parts.iter().map(|part| part.trim().to_owned());
    // `a,` is `a` alone, and an empty variable is an empty list.
    trimmed.filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw_list(text: &str) -> Vec<String> {
        list(&Node::raw(text), "a list").unwrap()
    }

    #[test]
    fn a_list_in_one_text_is_split_at_its_own_commas() {
        assert_eq!(raw_list("a.b, c.d"), ["a.b", "c.d"]);
        assert_eq!(raw_list("{a,b}.c,d.[e,f]"), ["{a,b}.c", "d.[e,f]"]);
        assert_eq!(raw_list(r#"["a.b", "c.d"]"#), ["a.b", "c.d"]);
        assert_eq!(raw_list("[ab].rides,c.[de]"), ["[ab].rides", "c.[de]"]);
        assert!(raw_list("").is_empty());
    }

    #[test]
    fn numbers_and_truths_are_read_from_text_only_where_text_is_all_there_is() {
        let count = Kind::Integer { min: 1, max: 9, or: None };
        assert_eq!(accept(count, &Node::raw("3")).unwrap(), Value::from(3_i64));
        let quoted = Node { line: 1, data: Data::Text("3".to_owned()) };
        assert_eq!(
            accept(count, &quoted).unwrap_err().to_string(),
            "expected an integer, found text"
        );
        assert_eq!(
            accept(Kind::Boolean, &Node::raw("yes")).unwrap_err().to_string(),
            "\"yes\" is not a boolean; write true or false"
        );
    }
}
