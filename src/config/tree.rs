//! The tree of settings from one source, before it is checked.
//!
//! TOML, YAML, a variable and a flag all become this one tree, each node with its line number, so
//! that every check is written once and every error can name the line.
//!
//! Not here: what the keys mean (`keys`) and which values they accept (`check`).

/// A value and its line number (from 1; 0 if the source has no lines).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) data: Data,
}

/// The forms that a value has in the sources.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    /// Text of a variable or a flag; the key decides its form.
    Raw(String),
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// A TOML date or time; no key accepts one.
    Moment,
    Null,
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Node,
}

impl Node {
    pub(super) fn raw(text: impl Into<String>) -> Self {
        Self { line: 0, data: Data::Raw(text.into()) }
    }

    /// The tree with `value` at `path`.
    pub(super) fn at(path: &[String], value: Self) -> Self {
        path.iter().rev().fold(value, |value, key| Self {
            line: 0,
            data: Data::Map(vec![Entry { key: key.clone(), line: 0, value }]),
        })
    }

    /// What the value is, never its content: it may be a secret.
    pub(super) fn form(&self) -> &'static str {
        match self.data {
            Data::Raw(_) | Data::Text(_) => "text",
            Data::Integer(_) => "an integer",
            Data::Float(_) => "a fraction",
            Data::Boolean(_) => "a boolean",
            Data::Moment => "a date or time",
            Data::Null => "nothing",
            Data::List(_) => "a list",
            Data::Map(_) => "a table of keys",
        }
    }

    /// A scalar as text, for keys that pass on any scalar as text.
    pub(super) fn scalar_text(&self) -> Option<String> {
        match &self.data {
            Data::Raw(text) | Data::Text(text) => Some(text.clone()),
            Data::Integer(number) => Some(number.to_string()),
            Data::Float(number) => Some(number.to_string()),
            Data::Boolean(truth) => Some(truth.to_string()),
            Data::Moment | Data::Null | Data::List(_) | Data::Map(_) => None,
        }
    }
}

/// A text that is not TOML or YAML at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxFault {
    pub(super) line: usize,
    /// The parser's error, without the surrounding text, which may hold a secret.
    pub(super) reason: String,
}
