//! Rows as the encoder reads them: one datum a column, with what an old row can lend filled in, or
//! what was read back from the table.

use std::fmt;

use super::relation::Relation;
use crate::pgoutput::{Datum, OldTuple, Tuple};

/// A row as it is after a change.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    tuple: Tuple<'a>,
    old: Option<OldTuple<'a>>,
    reselected: Option<&'a Reselected>,
}

/// Values of a row's columns that the stream does not have, as the table holds them now.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Reselected {
    /// Places of the columns, ascending, with the values' text; none for null.
    values: Vec<(usize, Option<Vec<u8>>)>,
}

/// A row as it was before a change.
#[derive(Debug, Clone, Copy)]
pub enum OldRow<'a> {
    /// Only the columns of the replica identity are known.
    Key(Tuple<'a>),
    /// Every column is known.
    Full(Tuple<'a>),
}

impl<'a> Row<'a> {
    pub(super) const fn new(tuple: Tuple<'a>, old: Option<OldTuple<'a>>) -> Self {
        Self { tuple, old, reselected: None }
    }

    /// A row that was read from its table, whole: it has a value for every column of its relation,
    /// or [`Change`](super::Change) does not hold what it promises.
    #[must_use]
    pub const fn whole(tuple: Tuple<'a>) -> Self {
        Self::new(tuple, None)
    }

    /// The values as they were sent, in column order.
    #[must_use]
    pub const fn tuple(&self) -> Tuple<'a> {
        self.tuple
    }

    /// The same row with values that were read back.
    #[must_use]
    pub const fn with(self, reselected: &'a Reselected) -> Self {
        Self { reselected: Some(reselected), ..self }
    }

    /// Places of the columns whose values were read back.
    pub fn reselected(&self) -> impl Iterator<Item = usize> + use<'a> {
        self.reselected.into_iter().flat_map(|read| read.values.iter().map(|(at, _)| *at))
    }

    /// Places of the columns whose values are not known.
    pub fn unknown(&self, relation: &Relation) -> impl Iterator<Item = usize> {
        let unchanged = self.tuple.into_iter().enumerate();
        unchanged.filter_map(|(at, datum)| {
            (datum == Datum::Unchanged && self.unchanged(relation, at) == Datum::Unchanged)
                .then_some(at)
        })
    }

    /// What replaces an unchanged TOAST value: the old row's value if it has one, or one that was
    /// read back, else [`Datum::Unchanged`].
    #[must_use]
    pub fn unchanged(&self, relation: &Relation, column: usize) -> Datum<'a> {
        let known = match self.old {
            Some(OldTuple::Full(old)) => old.datum(column),
            Some(OldTuple::Key(old)) if relation.is_in_identity(column) => old.datum(column),
            Some(OldTuple::Key(_)) | None => None,
        };
        match known {
            None | Some(Datum::Unchanged) => {
                self.reselected.map_or(Datum::Unchanged, |read| read.datum(column))
            }
            Some(known) => known,
        }
    }

    /// The value of one column. Walks the values before it.
    #[must_use]
    pub fn datum(&self, relation: &Relation, column: usize) -> Datum<'a> {
        match self.tuple.datum(column) {
            Some(Datum::Unchanged) | None => self.unchanged(relation, column),
            Some(datum) => datum,
        }
    }
}

impl Reselected {
    /// Values by the places of their columns, ascending.
    #[must_use]
    pub const fn new(values: Vec<(usize, Option<Vec<u8>>)>) -> Self {
        Self { values }
    }

    fn datum(&self, column: usize) -> Datum<'_> {
        match self.values.iter().find(|(at, _)| *at == column) {
            Some((_, Some(text))) => Datum::Text(text),
            Some((_, None)) => Datum::Null,
            None => Datum::Unchanged,
        }
    }
}

impl fmt::Debug for Reselected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rows' values are not to be shown.
        f.debug_struct("Reselected").field("columns", &self.values.len()).finish_non_exhaustive()
    }
}

impl<'a> OldRow<'a> {
    pub(super) const fn new(old: OldTuple<'a>) -> Self {
        match old {
            OldTuple::Key(tuple) => Self::Key(tuple),
            OldTuple::Full(tuple) => Self::Full(tuple),
        }
    }

    /// The values as they were sent, in column order.
    #[must_use]
    pub const fn tuple(&self) -> Tuple<'a> {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => *tuple,
        }
    }

    /// Whether the row has a value for the column (which may be null).
    #[must_use]
    pub fn has(&self, relation: &Relation, column: usize) -> bool {
        match self {
            Self::Key(_) => relation.is_in_identity(column),
            Self::Full(_) => true,
        }
    }
}
