//! TOML into the tree of settings, each node with its line.
//!
//! `toml_edit` keeps the byte range of every key; the line is counted from it. Its own error text
//! quotes the line at fault, which may hold a password, so only its message and position are kept.

use toml_edit::{Document, Item, TableLike, Value};

use super::tree::{Data, Entry, Node, SyntaxFault};

/// Parses a whole file.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxFault> {
    let lines = Lines::of(text);
    let document = Document::parse(text).map_err(|error| SyntaxFault {
        line: error.span().map_or(1, |span| lines.line_of(span.start)),
        reason: error.message().replace('\n', ", "),
    })?;
    Ok(table(document.as_table(), 1, &lines))
}

/// Parses one value of a variable or a flag: `["a", "b"]`, `{ a = "b" }`.
pub(super) fn parse_value(text: &str) -> Result<Node, SyntaxFault> {
    // Parsed as a document of one key, because only a whole document keeps what the tree needs.
    let node = parse(&format!("value = {text}"))?;
    match node.data {
        Data::Map(mut entries) if entries.len() == 1 => Ok(entries.remove(0).value),
        _ => Err(SyntaxFault { line: 1, reason: "expected a single value".to_owned() }),
    }
}

/// The parts of a dotted key, which may be quoted.
pub(super) fn parse_key(text: &str) -> Option<Vec<String>> {
    let keys = toml_edit::Key::parse(text).ok()?;
    Some(keys.iter().map(|key| key.get().to_owned()).collect())
}

fn table(table: &dyn TableLike, line: usize, lines: &Lines) -> Node {
    let mut entries = Vec::new();
    for (key, item) in table.iter() {
        let span = table.key(key).and_then(toml_edit::Key::span);
        let line = span.map_or(line, |span| lines.line_of(span.start));
        entries.push(Entry { key: key.to_owned(), line, value: node(item, line, lines) });
    }
    Node { line, data: Data::Map(entries) }
}

fn node(item: &Item, line: usize, lines: &Lines) -> Node {
    match item {
        Item::None => Node { line, data: Data::Null },
        Item::Value(item) => value(item, line, lines),
        Item::Table(item) => table(item, line, lines),
        Item::ArrayOfTables(items) => {
            let items = items.iter().map(|item| table(item, line, lines)).collect();
            Node { line, data: Data::List(items) }
        }
    }
}

fn value(value: &Value, line: usize, lines: &Lines) -> Node {
    let line = value.span().map_or(line, |span| lines.line_of(span.start));
    let data = match value {
        Value::String(text) => Data::Text(text.value().clone()),
        Value::Integer(number) => Data::Integer(*number.value()),
        Value::Float(number) => Data::Float(*number.value()),
        Value::Boolean(truth) => Data::Boolean(*truth.value()),
        Value::Datetime(_) => Data::Moment,
        Value::Array(items) => {
            Data::List(items.iter().map(|item| self::value(item, line, lines)).collect())
        }
        Value::InlineTable(entries) => return table(entries, line, lines),
    };
    Node { line, data }
}

/// Where each line starts, to turn a byte position into a line number.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Self {
        let after_newlines = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Self { starts: std::iter::once(0).chain(after_newlines.map(|(at, _)| at + 1)).collect() }
    }

    fn line_of(&self, position: usize) -> usize {
        self.starts.partition_point(|start| *start <= position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_carry_the_line_they_stand_on() {
        let tree = parse("name = \"a\"\n\n[postgres]\nslot = \"s\"\n").unwrap();
        let Data::Map(entries) = tree.data else { panic!("expected a table") };
        assert_eq!(entries[0].line, 1);
        assert_eq!(entries[1].line, 3);
        let Data::Map(inner) = &entries[1].value.data else { panic!("expected a table") };
        assert_eq!((inner[0].key.as_str(), inner[0].line), ("slot", 4));
    }

    #[test]
    fn a_syntax_error_names_the_line_and_quotes_nothing() {
        let fault = parse("name = \"a\"\n[kafka.properties]\n\"sasl.password\" = hunter2\n");
        let fault = fault.unwrap_err();
        assert_eq!(fault.line, 3);
        assert!(!fault.reason.contains("hunter2"), "{}", fault.reason);
    }
}
