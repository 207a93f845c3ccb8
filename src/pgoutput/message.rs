//! What the messages say, in the server's terms and over the server's bytes.
//!
//! Null, unchanged and absent are three different things here, and a key-only old row is another
//! variant than a full one: what Postgres did not send must not look like something it did. Parts
//! of variable number (columns, values, relations) are checked by `decode` and kept as bytes, so
//! that walking them cannot fail and costs no allocation. `Debug` shows the kind and length of a
//! value, never its content, for it may end in a log.

use std::fmt;

use super::DecodeError;
use super::reader::Reader;
use crate::lsn::Lsn;

/// The bit of a column's flags that marks it as part of the replica identity.
const COLUMN_IN_IDENTITY: u8 = 1;

/// One message of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction starts. The server sends it only once it has committed.
    Begin(Begin),
    /// The transaction ends.
    Commit(Commit),
    /// The transaction came to this server by replication from another.
    Origin(Origin<'a>),
    /// What the rows of a table look like from here on.
    Relation(RelationBody<'a>),
    /// The name of a type that is not built in.
    Type(TypeBody<'a>),
    /// A new row.
    Insert {
        /// The table's OID.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A changed row.
    Update {
        /// The table's OID.
        relation: u32,
        /// The row as it was, as far as the replica identity has it.
        old: Option<OldTuple<'a>>,
        /// The row as it is.
        new: Tuple<'a>,
    },
    /// A deleted row.
    Delete {
        /// The table's OID.
        relation: u32,
        /// The row as it was, as far as the replica identity has it.
        old: OldTuple<'a>,
    },
    /// Emptied tables.
    Truncate(Truncate<'a>),
    /// A message of `pg_logical_emit_message`.
    Message(LogicalMessage<'a>),
}

/// The start of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// LSN of the commit record; the same as the commit's `commit_lsn`.
    pub final_lsn: Lsn,
    /// Commit time in microseconds since the Unix epoch.
    pub commit_time_us: i64,
    /// The transaction's 32-bit ID.
    pub xid: u32,
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Where the commit record starts.
    pub commit_lsn: Lsn,
    /// Where the transaction ends: the position to confirm.
    pub end_lsn: Lsn,
    /// Commit time in microseconds since the Unix epoch.
    pub commit_time_us: i64,
}

/// Where a replicated transaction came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// LSN of the commit on the server of origin.
    pub commit_lsn: Lsn,
    /// The origin's name on this server.
    pub name: &'a str,
}

/// A table as the stream describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationBody<'a> {
    /// The table's OID.
    pub oid: u32,
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub table: &'a str,
    /// What the server sends of an old row.
    pub replica_identity: ReplicaIdentity,
    /// The columns that are published, in the order of the values.
    pub columns: RelationColumns<'a>,
}

/// What the server sends of an old row (`pg_class.relreplident`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key's columns, if there is a primary key.
    Default,
    /// Nothing.
    Nothing,
    /// The whole row.
    Full,
    /// The columns of a chosen unique index.
    Index,
}

/// The columns of a [`RelationBody`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RelationColumns<'a> {
    pub(super) count: u16,
    pub(super) bytes: &'a [u8],
}

/// One column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Whether the column is part of the replica identity (under FULL, every column is).
    pub in_identity: bool,
    /// The column's name.
    pub name: &'a str,
    /// OID of its type.
    pub type_oid: u32,
    /// Its type modifier (`atttypmod`); -1 for none.
    pub typmod: i32,
}

/// The name of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeBody<'a> {
    /// The type's OID.
    pub oid: u32,
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// A row as it was before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// Only the columns of the replica identity carry values; all others read as null.
    Key(Tuple<'a>),
    /// Every column carries its value (REPLICA IDENTITY FULL).
    Full(Tuple<'a>),
}

impl<'a> OldTuple<'a> {
    /// The values, whichever they are.
    #[must_use]
    pub const fn tuple(self) -> Tuple<'a> {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }
}

/// The values of a row, in the order of its relation's columns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    pub(super) count: u16,
    pub(super) bytes: &'a [u8],
}

/// One value as it was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Datum<'a> {
    /// SQL NULL, or, in a key-only old row, a column outside the key.
    Null,
    /// A TOAST value the change did not touch, which the server does not send.
    Unchanged,
    /// The type's text form in the client encoding; not yet checked to be UTF-8.
    Text(&'a [u8]),
    /// The type's binary form, sent only when asked for.
    Binary(&'a [u8]),
}

/// Emptied tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncate<'a> {
    /// The tables' OIDs.
    pub relations: TruncatedRelations<'a>,
    /// TRUNCATE ... CASCADE.
    pub cascade: bool,
    /// TRUNCATE ... RESTART IDENTITY.
    pub restart_identity: bool,
}

/// The OIDs of a [`Truncate`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TruncatedRelations<'a> {
    pub(super) bytes: &'a [u8],
}

/// A message of `pg_logical_emit_message`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogicalMessage<'a> {
    /// Whether it is part of a transaction, or was sent at once.
    pub transactional: bool,
    /// Its position in the WAL.
    pub lsn: Lsn,
    /// Whom it is for. Its writer chose the bytes, and not every database holds them to an encoding.
    pub prefix: &'a [u8],
    /// Its content, any bytes.
    pub content: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether the row has no values (a table without columns has such rows).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values in column order.
    #[must_use]
    pub const fn iter(&self) -> TupleIter<'a> {
        TupleIter { bytes: self.bytes }
    }

    /// The value of one column. Walks the values before it.
    #[must_use]
    pub fn datum(&self, column: usize) -> Option<Datum<'a>> {
        self.iter().nth(column)
    }
}

impl<'a> IntoIterator for Tuple<'a> {
    type Item = Datum<'a>;
    type IntoIter = TupleIter<'a>;

    fn into_iter(self) -> TupleIter<'a> {
        self.iter()
    }
}

/// Walks the values of a [`Tuple`].
#[derive(Clone)]
pub struct TupleIter<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for TupleIter<'a> {
    type Item = Datum<'a>;

    #[inline]
    fn next(&mut self) -> Option<Datum<'a>> {
        let (&kind, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        match kind {
            b'n' => Some(Datum::Null),
            b'u' => Some(Datum::Unchanged),
            kind => {
                let (length, rest) = rest.split_first_chunk::<4>()?;
                let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
                let (value, rest) = rest.split_at_checked(length)?;
                self.bytes = rest;
                Some(if kind == b't' { Datum::Text(value) } else { Datum::Binary(value) })
            }
        }
    }
}

impl<'a> RelationColumn<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            in_identity: reader.u8("column flags")? & COLUMN_IN_IDENTITY != 0,
            name: reader.text("column name")?,
            type_oid: reader.u32("column type OID")?,
            typmod: reader.i32("column type modifier")?,
        })
    }
}

impl<'a> RelationColumns<'a> {
    /// Number of columns.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether the table has no published columns.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The columns in order.
    pub fn iter(&self) -> impl Iterator<Item = RelationColumn<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        // The same reading succeeded in `decode`, so the end of the bytes is all that ends this.
        std::iter::from_fn(move || RelationColumn::read(&mut reader).ok())
    }
}

impl<'a> TruncatedRelations<'a> {
    /// The OIDs in the server's order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        let (oids, _) = self.bytes.as_chunks::<4>();
        oids.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}

impl fmt::Debug for Datum<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Unchanged => f.write_str("unchanged"),
            Self::Text(value) => write!(f, "text of {} bytes", value.len()),
            Self::Binary(value) => write!(f, "binary of {} bytes", value.len()),
        }
    }
}

impl fmt::Debug for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for RelationColumns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for TruncatedRelations<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for LogicalMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicalMessage")
            .field("transactional", &self.transactional)
            .field("lsn", &self.lsn)
            .field("prefix", &self.prefix)
            .field("content_bytes", &self.content.len())
            .finish()
    }
}
