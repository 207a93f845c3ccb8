//! A window: collects the changes of a table in the stream while a snapshot reads a chunk of it.
//!
//! ```text
//! stream   ... low ......... change of k ......... high ...
//! reader           [ reads a chunk, k among it ]
//! ```
//!
//! The chunk may contain `k` as it was before the change or after it, which can't be known. So `k`
//! is left out of the chunk, and only the change is published. All other rows did not change
//! between the two watermarks, so at the high one they are exactly as they were read, and are
//! published there.
//!
//! An update may omit large values that it did not change. Then the row is not left out: it is
//! published with the change's values, and the omitted ones as they were read. Those did not change
//! in the window, so they are the current ones at the high watermark, whichever version of the row
//! was read.
//!
//! A window is spoiled, and the chunk is read again, if the changes do not match what was read: the
//! table was altered, the changed keys exceed the memory limit, a changed row has no key, or a row
//! with omitted values moved to another key. Also if the reader did not see a transaction that was
//! streamed before the window (`visibility`).
//!
//! Keys are compared by the text of their columns, as stored: an update that changes the text but
//! not the order of a key (`1.0` to `1.00`) contains both.

use std::collections::HashMap;
use std::sync::Arc;

use super::chunk::Chunk;
use crate::change::{Change, Data, Relation, Row};
use crate::pgoutput::{Datum, TupleBuffer, TupleFull};
use crate::snapshot::row::{RowError, RowReader};
use crate::snapshot::visibility::{Mark, RecentXids};

/// Approximate overhead of a key in the map.
const ENTRY_BYTES: usize = 64;

/// The changes of one table since a low watermark.
#[derive(Debug)]
pub struct Window {
    key: Vec<String>,
    /// The positions of the key's columns in the stream's rows; `None` until the stream has
    /// described the table.
    places: Option<Vec<usize>>,
    mark: Mark,
    limit_bytes: usize,
    seen: HashMap<Box<[u8]>, Seen>,
    seen_bytes: usize,
    is_truncated: bool,
    /// As the stream described the table since the low watermark.
    described: Option<Arc<Relation>>,
    spoiled: Option<Spoiled>,
    scratch: Vec<u8>,
}

/// What the stream has of a row.
#[derive(Debug)]
enum Seen {
    /// All values: the row that was read is left out.
    Whole,
    /// Its values, except some that did not change.
    Part(Vec<Value>),
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Null,
    Text(Box<[u8]>),
    /// It did not change, and was not sent.
    Unchanged,
}

/// Why a chunk must be read again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Spoiled {
    /// The table was altered.
    #[error("the table was altered")]
    Altered,
    /// They do not all fit into memory.
    #[error("too many rows changed while it was read")]
    TooManyChanges,
    /// The replica identity does not have the key.
    #[error("a change does not contain the key of its row")]
    NoKey,
    /// Omitted values are known only under the old key.
    #[error("a row moved to another key and left large values out")]
    Moved,
    /// The reader ended before it had read everything.
    #[error("its reader has ended")]
    CutOff,
    /// Its commit is in the stream, and the reader did not see it.
    #[error("transaction {xid} has committed and is not visible yet")]
    Unseen {
        /// The transaction.
        xid: u32,
    },
}

/// A closed window: the outcome of the chunk's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Closed {
    /// Rows that were published.
    pub published: u64,
    /// Rows that the stream contains.
    pub left_out: u64,
}

impl Window {
    /// Opens at a low watermark. `relation` is the stream's description of the table so far, `key`
    /// names the columns that distinguish its rows, and at most about `limit_bytes` of changed keys
    /// are held.
    #[must_use]
    pub fn open(
        key: Vec<String>,
        relation: Option<&Relation>,
        mark: Mark,
        limit_bytes: usize,
    ) -> Self {
        let mut window = Self {
            key,
            places: None,
            mark,
            limit_bytes,
            seen: HashMap::new(),
            seen_bytes: 0,
            is_truncated: false,
            described: None,
            spoiled: None,
            scratch: Vec::new(),
        };
        window.places = relation.and_then(|relation| places(relation, &window.key));
        window
    }

    /// The stream describes the table.
    pub fn described(&mut self, relation: &Arc<Relation>) {
        self.places = places(relation, &self.key);
        if self.described.as_ref().is_some_and(|before| !is_same(before, relation)) {
            self.spoil(Spoiled::Altered);
        }
        self.described = Some(Arc::clone(relation));
    }

    /// Records a change of the table.
    pub fn saw(&mut self, change: &Change<'_>) {
        if self.spoiled.is_some() {
            return;
        }
        if let Data::Truncate { .. } = change.data {
            self.is_truncated = true;
            self.seen.clear();
            self.seen_bytes = 0;
        } else if let Err(spoiled) = self.see(change) {
            self.spoil(spoiled);
        }
    }

    fn see(&mut self, change: &Change<'_>) -> Result<(), Spoiled> {
        match change.data {
            Data::Insert { relation, after } => {
                let key = self.key_of(|at| Some(after.datum(relation, at)))?;
                self.set(key, Seen::Whole)
            }
            Data::Update { relation, before, after } => {
                let key = self.key_of(|at| Some(after.datum(relation, at)))?;
                let is_part = after.unknown(relation).next().is_some();
                if let Some(before) = before {
                    let old = self.key_of(|at| before.tuple().datum(at))?;
                    if old != key {
                        self.set(old, Seen::Whole)?;
                        if is_part {
                            return Err(Spoiled::Moved);
                        }
                    }
                }
                if is_part {
                    self.set_part(key, &after, relation)
                } else {
                    self.set(key, Seen::Whole)
                }
            }
            Data::Delete { before, .. } => {
                let key = self.key_of(|at| before.tuple().datum(at))?;
                self.set(key, Seen::Whole)
            }
            Data::Truncate { .. } | Data::Read { .. } | Data::Message { .. } => Ok(()),
        }
    }

    fn key_of<'d>(
        &mut self,
        datum: impl Fn(usize) -> Option<Datum<'d>>,
    ) -> Result<Box<[u8]>, Spoiled> {
        let places = self.places.as_ref().ok_or(Spoiled::NoKey)?;
        write_key(places, datum, &mut self.scratch).ok_or(Spoiled::NoKey)?;
        Ok(self.scratch.as_slice().into())
    }

    fn set(&mut self, key: Box<[u8]>, seen: Seen) -> Result<(), Spoiled> {
        self.seen_bytes += key.len() + ENTRY_BYTES;
        self.seen.insert(key, seen);
        if self.seen_bytes > self.limit_bytes { Err(Spoiled::TooManyChanges) } else { Ok(()) }
    }

    fn set_part(
        &mut self,
        key: Box<[u8]>,
        row: &Row<'_>,
        relation: &Relation,
    ) -> Result<(), Spoiled> {
        let mut values: Vec<Value> =
            (0..relation.columns.len()).map(|at| Value::of(row.datum(relation, at))).collect();
        match self.seen.get_mut(&key) {
            // Consumers already have the values that this omits.
            Some(Seen::Whole) => return Ok(()),
            Some(Seen::Part(before)) => {
                for (value, before) in values.iter_mut().zip(before) {
                    if *value == Value::Unchanged {
                        *value = std::mem::replace(before, Value::Unchanged);
                    }
                }
            }
            None => {}
        }
        self.seen_bytes += values.iter().map(Value::bytes).sum::<usize>();
        let is_whole = !values.contains(&Value::Unchanged);
        self.set(key, if is_whole { Seen::Whole } else { Seen::Part(values) })
    }

    fn spoil(&mut self, spoiled: Spoiled) {
        self.spoiled.get_or_insert(spoiled);
        self.seen = HashMap::new();
    }

    /// Checks that the chunk has its rows as they were at the high watermark, except those that
    /// changed.
    ///
    /// # Errors
    /// Why it must be read again.
    pub fn check(&self, chunk: &Chunk, recent: &RecentXids) -> Result<(), Spoiled> {
        if let Some(spoiled) = &self.spoiled {
            return Err(spoiled.clone());
        }
        if self.described.as_ref().is_some_and(|relation| !is_same(relation, &chunk.relation)) {
            return Err(Spoiled::Altered);
        }
        match recent.unseen_before(self.mark, &chunk.visibility, &chunk.suspects) {
            Some(xid) => Err(Spoiled::Unseen { xid }),
            None => Ok(()),
        }
    }

    /// Closes at the high watermark: passes on the rows to publish, in the chunk's order.
    ///
    /// # Errors
    /// When `publish` fails, or a line of the chunk is not a row.
    pub fn close<E: From<RowError>>(
        mut self,
        chunk: &Chunk,
        reader: &mut RowReader,
        mut publish: impl FnMut(Row<'_>) -> Result<(), E>,
    ) -> Result<Closed, E> {
        let mut closed = Closed::default();
        let relation = chunk.relation.as_ref();
        if self.is_truncated {
            // Later rows are in the stream.
            closed.left_out = chunk.rows();
            return Ok(closed);
        }
        let places = places(relation, &self.key).unwrap_or_default();
        let mut merged = TupleBuffer::default();
        for line in chunk.lines() {
            let row = reader.read(line, relation)?;
            let key = write_key(&places, |at| row.tuple().datum(at), &mut self.scratch);
            match key.and_then(|()| self.seen.get(self.scratch.as_slice())) {
                None => publish(row)?,
                Some(Seen::Part(values)) => {
                    let full =
                        |source| RowError::Full { table: relation.full_name.clone(), source };
                    merge(values, &row, &mut merged).map_err(full)?;
                    publish(Row::whole(merged.tuple()))?;
                }
                Some(Seen::Whole) => {
                    closed.left_out += 1;
                    continue;
                }
            }
            closed.published += 1;
        }
        Ok(closed)
    }
}

impl Value {
    fn of(datum: Datum<'_>) -> Self {
        match datum {
            Datum::Null => Self::Null,
            Datum::Unchanged => Self::Unchanged,
            Datum::Text(bytes) | Datum::Binary(bytes) => Self::Text(bytes.into()),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => size_of::<Self>() + text.len(),
            Self::Null | Self::Unchanged => size_of::<Self>(),
        }
    }
}

/// The row that was read, with the values of the change.
fn merge(values: &[Value], read: &Row<'_>, out: &mut TupleBuffer) -> Result<(), TupleFull> {
    out.clear();
    for (value, read) in values.iter().zip(read.tuple()) {
        match (value, read) {
            (Value::Null, _) | (Value::Unchanged, Datum::Null | Datum::Unchanged) => {
                out.push_null()?;
            }
            (Value::Text(text), _) => out.push_text(text)?,
            (Value::Unchanged, Datum::Text(text) | Datum::Binary(text)) => out.push_text(text)?,
        }
    }
    Ok(())
}

/// Writes the key into `out`: each column's length and text. `None` if a column has no text.
fn write_key<'d>(
    places: &[usize],
    datum: impl Fn(usize) -> Option<Datum<'d>>,
    out: &mut Vec<u8>,
) -> Option<()> {
    out.clear();
    for &at in places {
        let Datum::Text(text) = datum(at)? else { return None };
        out.extend_from_slice(&u32::try_from(text.len()).ok()?.to_be_bytes());
        out.extend_from_slice(text);
    }
    Some(())
}

fn places(relation: &Relation, key: &[String]) -> Option<Vec<usize>> {
    key.iter().map(|name| relation.place(name)).collect()
}

/// Whether two relations have the same rows and name.
#[must_use]
pub(crate) fn is_same(left: &Relation, right: &Relation) -> bool {
    let columns = |relation: &Relation| -> Vec<(String, u32, i32)> {
        let columns = relation.columns.iter();
        columns.map(|column| (column.name.clone(), column.type_oid, column.typmod)).collect()
    };
    left.full_name == right.full_name && columns(left) == columns(right)
}
