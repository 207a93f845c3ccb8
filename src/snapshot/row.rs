//! Parses a line of COPY's text format into the tuple that a message would contain.
//!
//! The server writes one line per row: values separated by tabs, `\N` for null, a backslash before
//! special characters, a newline at the end. Most values have no backslash and are copied
//! unchanged. Nothing is accepted that the server would not write: a line that ends too early, has
//! more or fewer values than the table has columns, or an escape that no server uses, is an error,
//! because it would be published as another row than it was.
//!
//! Not here: what a value means. Errors name the table and the column, never a value.
//!
//! Format: <https://www.postgresql.org/docs/current/sql-copy.html>, "Text Format"; what is escaped:
//! `CopyAttributeOutText` in `src/backend/commands/copyto.c`.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use memchr::{memchr, memchr2};

use crate::change::{Relation, Row};
use crate::pgoutput::{TupleBuffer, TupleFull};

/// Reads lines, one at a time, into a buffer that is reused.
#[derive(Debug, Default)]
pub struct RowReader {
    tuple: TupleBuffer,
    /// A value without its escapes.
    unescaped: Vec<u8>,
}

/// A line that is not a row of its table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The line has no end.
    #[error("reading a row of {table} from COPY: the line is cut off")]
    CutOff {
        /// `schema.table`.
        table: String,
    },
    /// More or fewer values than columns.
    #[error(
        "reading a row of {table} from COPY: the line has {found} values, the table {expected} \
         columns"
    )]
    Columns {
        /// `schema.table`.
        table: String,
        /// Published columns of the table.
        expected: usize,
        /// Values in the line.
        found: usize,
    },
    /// A backslash before something that needs none.
    #[error(
        "reading a row of {table} from COPY: column {column:?} has a backslash before something \
         that no server escapes"
    )]
    Escape {
        /// `schema.table`.
        table: String,
        /// The column's name.
        column: String,
    },
    /// More or longer values than a row can have.
    #[error("reading a row of {table} from COPY: {source}")]
    Full {
        /// `schema.table`.
        table: String,
        /// The limit.
        source: TupleFull,
    },
}

impl RowReader {
    /// Reads one line, including its newline, as a row of `relation`, whose columns were selected
    /// in this order.
    ///
    /// # Errors
    /// When it is not a row; the error names the table and, if one is at fault, the column.
    #[inline]
    pub fn read<'a>(&'a mut self, line: &[u8], relation: &Relation) -> Result<Row<'a>, RowError> {
        match self.values(line, relation.columns.len()) {
            Ok(()) => Ok(Row::whole(self.tuple.tuple())),
            Err(fault) => Err(fault.of(line, relation, self.tuple.tuple().len())),
        }
    }

    #[inline]
    fn values(&mut self, line: &[u8], expected: usize) -> Result<(), Fault> {
        self.tuple.clear();
        let (end, mut rest) = line.split_last().ok_or(Fault::CutOff)?;
        if *end != b'\n' {
            return Err(Fault::CutOff);
        }
        // A table without columns has empty lines; so has one whose only column is empty.
        if expected == 0 {
            return if rest.is_empty() { Ok(()) } else { Err(Fault::Columns) };
        }
        loop {
            let found = memchr2(b'\t', b'\\', rest);
            let (value, after) = found.map_or((rest, None), |at| split(rest, at));
            let next = match after {
                None => {
                    self.tuple.push_text(value)?;
                    None
                }
                Some((b'\t', after)) => {
                    self.tuple.push_text(value)?;
                    Some(after)
                }
                Some(_) => self.escaped(rest, value.len())?,
            };
            match next {
                Some(next) => rest = next,
                None if self.tuple.tuple().len() == expected => return Ok(()),
                None => return Err(Fault::Columns),
            }
        }
    }

    /// Takes a value with a backslash at `first`; returns what follows its tab, if any.
    fn escaped<'l>(&mut self, line: &'l [u8], first: usize) -> Result<Option<&'l [u8]>, Fault> {
        let (value, next) = match memchr(b'\t', line) {
            Some(at) => {
                let (value, after) = split(line, at);
                (value, after.map(|(_, next)| next))
            }
            None => (line, None),
        };
        if value == b"\\N" {
            self.tuple.push_null()?;
            return Ok(next);
        }
        let (plain, mut rest) = value.split_at_checked(first).unwrap_or((value, &[]));
        self.unescaped.clear();
        self.unescaped.extend_from_slice(plain);
        while let [_, escape, after @ ..] = rest {
            self.unescaped.push(unescape(*escape).ok_or(Fault::Escape)?);
            let plain = memchr(b'\\', after).unwrap_or(after.len());
            let (plain, after) = after.split_at_checked(plain).unwrap_or((after, &[]));
            self.unescaped.extend_from_slice(plain);
            rest = after;
        }
        // A lone backslash at the end escapes nothing.
        if !rest.is_empty() {
            return Err(Fault::Escape);
        }
        self.tuple.push_text(&self.unescaped)?;
        Ok(next)
    }
}

/// Splits into the bytes before `at`, the byte there, and the rest.
#[inline]
fn split(bytes: &[u8], at: usize) -> (&[u8], Option<(u8, &[u8])>) {
    let (before, rest) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
    (before, rest.split_first().map(|(byte, after)| (*byte, after)))
}

/// The byte that a backslash and this letter encode.
const fn unescape(letter: u8) -> Option<u8> {
    Some(match letter {
        b'\\' => b'\\',
        b'b' => 8,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 11,
        b'f' => 12,
        b'r' => b'\r',
        _ => return None,
    })
}

/// What is wrong, without the column.
#[derive(Debug, Clone, Copy)]
enum Fault {
    CutOff,
    Columns,
    Escape,
    Full(TupleFull),
}

impl From<TupleFull> for Fault {
    fn from(source: TupleFull) -> Self {
        Self::Full(source)
    }
}

impl Fault {
    #[cold]
    fn of(self, line: &[u8], relation: &Relation, read: usize) -> RowError {
        let table = relation.full_name.clone();
        let expected = relation.columns.len();
        match self {
            Self::CutOff => RowError::CutOff { table },
            Self::Columns => {
                // A tab in a value is escaped, so each tab here separates two values.
                let found = memchr::memchr_iter(b'\t', line).count() + 1;
                RowError::Columns { table, expected, found }
            }
            Self::Escape => {
                let column = relation.columns.get(read).map(|column| column.name.clone());
                RowError::Escape { table, column: column.unwrap_or_default() }
            }
            Self::Full(source) => RowError::Full { table, source },
        }
    }
}
