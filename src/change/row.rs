//! Rows as the encoder reads them: one datum a column, with what an old row can lend filled in.

use crate::pgoutput::{Datum, OldTuple, Tuple};

use super::relation::Relation;

/// A row as it is after a change.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    tuple: Tuple<'a>,
    old: Option<OldTuple<'a>>,
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
        Self { tuple, old }
    }

    /// The values as they were sent, in column order.
    #[must_use]
    pub const fn tuple(&self) -> Tuple<'a> {
        self.tuple
    }

    /// What stands in for an unchanged TOAST value: the old row's value where it has one, else
    /// [`Datum::Unchanged`].
    #[must_use]
    pub fn unchanged(&self, relation: &Relation, column: usize) -> Datum<'a> {
        let known = match self.old {
            Some(OldTuple::Full(old)) => old.datum(column),
            Some(OldTuple::Key(old)) if relation.is_in_identity(column) => old.datum(column),
            Some(OldTuple::Key(_)) | None => None,
        };
        known.unwrap_or(Datum::Unchanged)
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
