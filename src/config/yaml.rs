//! YAML into the tree of settings, each node with its line.
//!
//! Built from the parser's events instead of a loaded document, because a loader keeps no line
//! numbers and silently lets a repeated key win. Plain scalars follow YAML 1.2's core schema
//! (<https://yaml.org/spec/1.2.2/#103-core-schema>), so `no` and `on` are texts.
//!
//! Not here, on purpose: anchors, aliases and tags. A configuration of this size has no use for
//! them, and an alias can make a small file huge.

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::tree::{Data, Entry, Node, SyntaxFault};

/// Deeper than any of our keys, and shallow enough for the stack.
const MAX_DEPTH: usize = 32;

const NO_ANCHORS: &str = "anchors and tags are not supported";

/// Parses a whole file. An empty one is an empty table.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxFault> {
    let mut stack: Vec<Open> = Vec::new();
    let mut root: Option<Node> = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| SyntaxFault {
            line: error.marker().line(),
            reason: error.info().to_owned(),
        })?;
        let line = span.start.line();
        let finished = match event {
            Event::MappingStart(anchor, tag) => {
                refuse_if(anchor != 0 || tag.is_some(), line, NO_ANCHORS)?;
                stack.push(Open { line, content: Content::Map(Vec::new(), None) });
                None
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_if(anchor != 0 || tag.is_some(), line, NO_ANCHORS)?;
                stack.push(Open { line, content: Content::List(Vec::new()) });
                None
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_if(anchor != 0 || tag.is_some(), line, NO_ANCHORS)?;
                let data = if style == ScalarStyle::Plain {
                    plain_scalar(&text)
                } else {
                    Data::Text(text.into_owned())
                };
                Some(Node { line, data })
            }
            Event::Alias(_) => return Err(fault(line, "aliases are not supported")),
            Event::MappingEnd | Event::SequenceEnd => stack.pop().map(Open::close),
            Event::DocumentStart(_) => {
                refuse_if(root.is_some(), line, "expected a single document")?;
                None
            }
            _ => None,
        };
        refuse_if(stack.len() > MAX_DEPTH, line, "nested too deep")?;
        if let Some(node) = finished {
            match stack.last_mut() {
                Some(open) => open.take(node)?,
                None => root = Some(node),
            }
        }
    }
    match root {
        None | Some(Node { data: Data::Null, .. }) => {
            Ok(Node { line: 1, data: Data::Map(Vec::new()) })
        }
        Some(node @ Node { data: Data::Map(_), .. }) => Ok(node),
        Some(node) => Err(fault(node.line, "expected keys and values")),
    }
}

/// A mapping or sequence that is still open.
struct Open {
    line: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    /// Complete entries, and the key (with its line) that waits for its value.
    Map(Vec<Entry>, Option<(String, usize)>),
}

impl Open {
    fn take(&mut self, node: Node) -> Result<(), SyntaxFault> {
        match &mut self.content {
            Content::List(items) => items.push(node),
            Content::Map(entries, pending) => match pending.take() {
                Some((key, line)) => entries.push(Entry { key, line, value: node }),
                None => {
                    let line = node.line;
                    let key = node.scalar_text();
                    let key = key.ok_or_else(|| fault(line, "expected a text as the key"))?;
                    let repeated = entries.iter().any(|entry| entry.key == key);
                    refuse_if(repeated, line, "duplicate key")?;
                    *pending = Some((key, line));
                }
            },
        }
        Ok(())
    }

    fn close(self) -> Node {
        let data = match self.content {
            Content::List(items) => Data::List(items),
            Content::Map(entries, _) => Data::Map(entries),
        };
        Node { line: self.line, data }
    }
}

fn plain_scalar(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Boolean(true),
        "false" | "False" | "FALSE" => return Data::Boolean(false),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return Data::Integer(number);
    }
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
    match text.parse::<f64>() {
        Ok(number) if numeric => Data::Float(number),
        _ => Data::Text(text.to_owned()),
    }
}

fn refuse_if(wrong: bool, line: usize, reason: &str) -> Result<(), SyntaxFault> {
    if wrong { Err(fault(line, reason)) } else { Ok(()) }
}

fn fault(line: usize, reason: &str) -> SyntaxFault {
    SyntaxFault { line, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> (usize, String) {
        let fault = parse(text).unwrap_err();
        (fault.line, fault.reason)
    }

    #[test]
    fn keys_carry_the_line_they_stand_on() {
        let tree = parse("# why\nname: a\npostgres:\n  manage: false\n  tables: [a.b]\n").unwrap();
        let Data::Map(entries) = tree.data else { panic!("expected a table") };
        let Data::Map(inner) = &entries[1].value.data else { panic!("expected a table") };
        assert_eq!((entries[0].line, entries[1].line, inner[0].line), (2, 3, 4));
        assert_eq!(inner[0].value.data, Data::Boolean(false));
        assert_eq!(inner[1].value.form(), "a list");
    }

    #[test]
    fn what_is_not_taken_is_refused_with_its_line() {
        assert_eq!(refusal("a: 1\na: 2\n"), (2, "duplicate key".to_owned()));
        assert_eq!(refusal("a: &x 1\n"), (1, "anchors and tags are not supported".to_owned()));
        assert_eq!(refusal("- a\n"), (1, "expected keys and values".to_owned()));
        assert_eq!(refusal(&"[".repeat(100)).1, "nested too deep");
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        assert_eq!(parse("# nothing yet\n").unwrap().data, Data::Map(Vec::new()));
    }
}
