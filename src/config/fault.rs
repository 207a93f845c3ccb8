//! What is wrong with a setting, and where it was set.
//!
//! A [`LoadError`] holds every problem that was found, not only the first, so that one start
//! reports all that must be fixed. No variant holds a value that may be a secret.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Origin {
    /// Nowhere: the default applies.
    Default,
    /// In the configuration file.
    File {
        /// The path as it was given.
        path: PathBuf,
        /// The line number, from 1.
        line: usize,
    },
    /// In the environment variable of this name.
    Variable(String),
    /// By the flag of this name.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// What is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// No such key.
    #[error("unknown key{}", suggested(suggestion))]
    UnknownKey {
        /// The most similar known key, if any.
        suggestion: Option<String>,
    },
    /// A variable with our prefix that sets nothing.
    #[error("unknown variable{}", suggested(suggestion))]
    UnknownVariable {
        /// The most similar known variable, if any.
        suggestion: Option<String>,
    },
    /// A table setting in a variable of its own.
    #[error(
        "table names do not survive in a variable's name; set ROWCAST_TABLES to an inline table: \
         {{ \"public.rides\" = {{ partitions = 2 }} }}"
    )]
    TableVariable,
    /// The value has the wrong form.
    #[error("expected {expected}, found {found}")]
    Form {
        /// What the key accepts.
        expected: &'static str,
        /// A description of what was found.
        found: &'static str,
    },
    /// A text that is not what the key accepts.
    #[error("\"{value}\" is not {expected}")]
    Unreadable {
        /// The text.
        value: String,
        /// What the key accepts.
        expected: String,
    },
    /// A duration without its unit.
    #[error("{value} has no unit; write \"{value}s\" for seconds (units: ms, s, m, h)")]
    NoUnit {
        /// The number.
        value: String,
    },
    /// A size without its unit.
    #[error("{value} has no unit; write \"{value}MB\" for megabytes (units: kB, MB, GB, TB)")]
    NoSizeUnit {
        /// The number.
        value: String,
    },
    /// Too small or too large.
    #[error("{value} is out of range: {range}")]
    Range {
        /// The value.
        value: String,
        /// What is allowed.
        range: String,
    },
    /// Not one of the words that the key accepts.
    #[error("\"{value}\" is not one of {}{}", allowed.join(", "), suggested(suggestion))]
    NotOneOf {
        /// The word.
        value: String,
        /// The words that the key accepts.
        allowed: Vec<&'static str>,
        /// The most similar of them.
        suggestion: Option<String>,
    },
    /// Set, but empty.
    #[error("is set but empty; leave it out to get the default")]
    Empty,
    /// A text that is not an SQL condition.
    #[error("{0}")]
    Condition(super::condition::ConditionError),
    /// A list that must not be empty.
    #[error("the list is empty; name at least one {item}, or leave the key out")]
    EmptyList {
        /// What the list contains.
        item: &'static str,
    },
    /// A list with the same entry twice.
    #[error("\"{item}\" is listed twice")]
    Repeated {
        /// The entry.
        item: String,
    },
    /// A table pattern without a schema.
    #[error("\"{pattern}\" names no schema; write \"public.{pattern}\" or \"*.{pattern}\"")]
    NoSchema {
        /// The pattern.
        pattern: String,
    },
    /// A pattern that is not a valid glob.
    #[error("\"{pattern}\" is not a valid glob: {reason}")]
    NoGlob {
        /// The pattern.
        pattern: String,
        /// The glob parser's error.
        reason: String,
    },
    /// A template with an unknown placeholder.
    #[error(
        "unknown placeholder {{{name}}}; use {{prefix}}, {{database}}, {{schema}} or {{table}}"
    )]
    Placeholder {
        /// The text between the braces.
        name: String,
    },
    /// A template with a brace that has no partner.
    #[error("a brace has no partner")]
    Brace,
    /// A name that Postgres refuses for a slot.
    #[error(
        "Postgres refuses the slot name \"{value}\"; a slot name is 1 to 63 lower-case letters, \
         digits and underscores"
    )]
    SlotName {
        /// The name.
        value: String,
    },
    /// A name that is too long for an identifier.
    #[error("\"{value}\" is too long for Postgres: {bytes} bytes, at most 63")]
    TooLong {
        /// The name.
        value: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// A name Kafka refuses for a topic.
    #[error(
        "Kafka refuses the topic name \"{value}\"; a topic name is 1 to 249 letters, digits, dots, \
         underscores and hyphens"
    )]
    TopicName {
        /// The name.
        value: String,
    },
    /// A text with control characters.
    #[error("contains a control character")]
    ControlCharacter,
    /// A property that rowcast sets.
    #[error("rowcast sets this property itself: {reason}")]
    Reserved {
        /// The reason, and what to do instead.
        reason: &'static str,
    },
    /// A property that is set in two ways.
    #[error("kafka.{way} sets this property too ({other}); keep one of the two")]
    Clash {
        /// The other way.
        way: &'static str,
        /// Where the other one is.
        other: Origin,
    },
    /// A file that can't be read.
    #[error("cannot read the file: {reason}")]
    File {
        /// The system's error.
        reason: String,
    },
    /// A file whose name ends neither in TOML's nor in YAML's extension.
    #[error("the file's name must end in .toml, .yaml or .yml")]
    Extension,
    /// Two default files exist.
    #[error("{other} exists too; remove one, or name the one to use with --config")]
    TwoFiles {
        /// The other file.
        other: String,
    },
    /// A syntax error.
    #[error("{reason}")]
    Syntax {
        /// The parser's error.
        reason: String,
    },
    /// A variable that is not valid UTF-8.
    #[error("is not valid UTF-8")]
    Encoding,
}

fn suggested(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the value was set.
    pub origin: Origin,
    /// The dotted key; empty if the whole source is at fault.
    pub key: String,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.origin, self.fault)
        } else {
            write!(f, "{}: {}: {}", self.origin, self.key, self.fault)
        }
    }
}

/// Every problem of a configuration, ordered by source and line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct LoadError {
    /// The problems; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [problem] => write!(f, "reading the configuration: {problem}"),
            problems => {
                write!(f, "reading the configuration: {} problems", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}
