//! Follows the transactions of the stream and assigns each change its position.
//!
//! ```text
//!            Begin                         Origin, Type, Insert, Update, Delete, Truncate, Message
//!   Idle ------------> InTransaction ----+
//!    ^ |                 |      ^        |
//!    | | Message,        |      +--------+
//!    | | Type            |
//!    +-+   Commit        |
//!    ^-------------------+
//! ```
//!
//! The server sends a transaction only after it committed, and Begin already carries its commit LSN
//! and time: so a row can be published at once, and nothing is kept per row. Any other order of
//! messages is an error; after one the assembler must not be used further.
//!
//! Not here: filters. The ordinal counts what the server sends, so that it is the same on every
//! replay whatever the bridge leaves out.

use std::sync::Arc;

use super::relation::Relation;
use super::relations::Relations;
use super::row::{OldRow, Row};
use super::{Change, ChangeOrigin, Data, Position, Transaction};
use crate::lsn::Lsn;
use crate::pgoutput::{
    Begin, Commit, LogicalMessage, Message, OldTuple, Origin, ReplicaIdentity, TruncatedRelations,
    Tuple,
};

/// Where in the stream we are.
#[derive(Debug, Clone, Copy)]
enum TransactionState {
    Idle,
    InTransaction { transaction: Transaction, changes: u64 },
}

/// Turns messages into changes.
#[derive(Debug)]
pub struct Assembler {
    /// The tables of the stream. Every Relation message must be inserted here, with its facts,
    /// before the next message is applied.
    pub relations: Relations,
    state: TransactionState,
    last_commit_lsn: Option<Lsn>,
    origin_name: String,
    origin_commit_lsn: Option<Lsn>,
}

/// The result of a message.
#[derive(Debug, Clone)]
pub enum Step<'a> {
    /// A transaction starts.
    Begin(Transaction),
    /// One change.
    Change(Change<'a>),
    /// One change for each table of a TRUNCATE.
    Truncated(Truncated<'a>),
    /// The transaction ends.
    Commit {
        /// The transaction, as announced by its begin.
        transaction: Transaction,
        /// Where it ends: the position to confirm once all before it is safe.
        end_lsn: Lsn,
        /// Its number of changes; the highest ordinal.
        changes: u64,
    },
    /// Nothing for later stages.
    Nothing,
}

/// Messages out of order, or rows that do not match their table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssembleError {
    /// A message outside of a transaction that must be inside of one.
    #[error("following the stream at {lsn}: {message} came outside of a transaction")]
    OutsideTransaction {
        /// The message's name.
        message: &'static str,
        /// Its position in the WAL.
        lsn: Lsn,
    },
    /// A transaction started before the one before it ended.
    #[error(
        "following the stream at {lsn}: transaction {xid} starts before transaction {open} ended"
    )]
    BeginInTransaction {
        /// The new transaction.
        xid: u32,
        /// The one that is open.
        open: u32,
        /// The message's position in the WAL.
        lsn: Lsn,
    },
    /// A commit that does not end the transaction that is open.
    #[error(
        "following the stream: the commit at {commit_lsn} ends transaction {xid}, which announced {announced}"
    )]
    CommitMismatch {
        /// The open transaction.
        xid: u32,
        /// What its Begin said.
        announced: Lsn,
        /// What the Commit says.
        commit_lsn: Lsn,
    },
    /// A row of a table that no Relation message described.
    #[error(
        "following the stream at {lsn}: no relation message described the table with OID {oid}"
    )]
    UnknownRelation {
        /// The table's OID.
        oid: u32,
        /// The row's position in the WAL.
        lsn: Lsn,
    },
    /// A row with more or fewer values than its table has columns.
    #[error(
        "following the stream at {lsn}: a row of {table} has {values} values for {columns} columns"
    )]
    ColumnCount {
        /// `schema.table`.
        table: String,
        /// Values in the row.
        values: usize,
        /// Columns in the relation message.
        columns: usize,
        /// The row's position in the WAL.
        lsn: Lsn,
    },
    /// A Relation message was applied instead of being inserted with its facts.
    #[error(
        "following the stream: the relation message of {table} was not compiled with its facts"
    )]
    RelationNotCompiled {
        /// `schema.table`.
        table: String,
    },
}

impl Assembler {
    /// An assembler for a stream before which a transaction ended at `last_commit_lsn`; `None` if
    /// there was none, or it is not known.
    #[must_use]
    pub fn new(last_commit_lsn: Option<Lsn>) -> Self {
        Self {
            relations: Relations::default(),
            state: TransactionState::Idle,
            last_commit_lsn,
            origin_name: String::new(),
            origin_commit_lsn: None,
        }
    }

    /// The open transaction; `None` between two transactions.
    #[must_use]
    pub const fn transaction(&self) -> Option<&Transaction> {
        match &self.state {
            TransactionState::InTransaction { transaction, .. } => Some(transaction),
            TransactionState::Idle => None,
        }
    }

    /// Where the open transaction commits; `None` between two transactions.
    #[must_use]
    pub const fn commit_lsn(&self) -> Option<Lsn> {
        match self.transaction() {
            Some(transaction) => Some(transaction.commit_lsn),
            None => None,
        }
    }

    /// Whether a transaction has begun and not yet ended.
    #[must_use]
    pub const fn is_in_transaction(&self) -> bool {
        matches!(self.state, TransactionState::InTransaction { .. })
    }

    /// Takes the next message of the stream. `wal_start` is the position its frame carries.
    ///
    /// # Errors
    ///
    /// [`AssembleError`] when the message cannot come here or a row does not fit its table.
    pub fn apply<'a>(
        &'a mut self,
        message: Message<'a>,
        wal_start: Lsn,
    ) -> Result<Step<'a>, AssembleError> {
        match message {
            Message::Insert { relation, new } => {
                let place = self.place("insert", wal_start, 1)?;
                let relation = self.relation(relation, wal_start)?;
                fits(relation, new, wal_start)?;
                let after = Row::new(new, None);
                Ok(Step::Change(self.change(place, Data::Insert { relation, after })))
            }
            Message::Update { relation, old, new } => {
                let place = self.place("update", wal_start, 1)?;
                let relation = self.relation(relation, wal_start)?;
                fits(relation, new, wal_start)?;
                let old = old.map(|old| reliable(relation, old));
                let before = old.map(|old| old_row(relation, old, wal_start)).transpose()?;
                let after = Row::new(new, old);
                Ok(Step::Change(self.change(place, Data::Update { relation, before, after })))
            }
            Message::Delete { relation, old } => {
                let place = self.place("delete", wal_start, 1)?;
                let relation = self.relation(relation, wal_start)?;
                let before = old_row(relation, reliable(relation, old), wal_start)?;
                Ok(Step::Change(self.change(place, Data::Delete { relation, before })))
            }
            Message::Truncate(truncate) => self.truncate(truncate.relations, wal_start),
            Message::Message(message) => self.message(message, wal_start),
            Message::Begin(begin) => self.begin(begin, wal_start),
            Message::Commit(commit) => self.commit(commit, wal_start),
            Message::Origin(origin) => self.origin(origin, wal_start),
            Message::Type(_) => Ok(Step::Nothing),
            Message::Relation(body) => Err(AssembleError::RelationNotCompiled {
                table: format!("{}.{}", body.schema, body.table),
            }),
        }
    }

    fn begin(&mut self, begin: Begin, lsn: Lsn) -> Result<Step<'_>, AssembleError> {
        if let TransactionState::InTransaction { transaction, .. } = self.state {
            let open = transaction.xid;
            return Err(AssembleError::BeginInTransaction { xid: begin.xid, open, lsn });
        }
        let transaction = Transaction {
            xid: begin.xid,
            commit_lsn: begin.final_lsn,
            commit_time_us: begin.commit_time_us,
        };
        self.state = TransactionState::InTransaction { transaction, changes: 0 };
        self.origin_commit_lsn = None;
        Ok(Step::Begin(transaction))
    }

    fn commit(&mut self, commit: Commit, lsn: Lsn) -> Result<Step<'_>, AssembleError> {
        let TransactionState::InTransaction { transaction, changes } = self.state else {
            return Err(AssembleError::OutsideTransaction { message: "commit", lsn });
        };
        if commit.commit_lsn != transaction.commit_lsn {
            return Err(AssembleError::CommitMismatch {
                xid: transaction.xid,
                announced: transaction.commit_lsn,
                commit_lsn: commit.commit_lsn,
            });
        }
        self.state = TransactionState::Idle;
        self.origin_commit_lsn = None;
        self.last_commit_lsn = Some(commit.end_lsn);
        Ok(Step::Commit { transaction, end_lsn: commit.end_lsn, changes })
    }

    fn origin(&mut self, origin: Origin<'_>, lsn: Lsn) -> Result<Step<'_>, AssembleError> {
        if !self.is_in_transaction() {
            return Err(AssembleError::OutsideTransaction { message: "origin", lsn });
        }
        self.origin_name.clear();
        self.origin_name.push_str(origin.name);
        self.origin_commit_lsn = Some(origin.commit_lsn);
        Ok(Step::Nothing)
    }

    fn truncate<'a>(
        &'a mut self,
        oids: TruncatedRelations<'a>,
        lsn: Lsn,
    ) -> Result<Step<'a>, AssembleError> {
        let tables = u64::try_from(oids.iter().count()).unwrap_or(u64::MAX);
        let place = self.place("truncate", lsn, tables)?;
        for oid in oids.iter() {
            self.relation(oid, lsn)?;
        }
        Ok(Step::Truncated(Truncated { assembler: self, place, oids, given: 0 }))
    }

    fn message<'a>(
        &'a mut self,
        message: LogicalMessage<'a>,
        lsn: Lsn,
    ) -> Result<Step<'a>, AssembleError> {
        let place = match self.state {
            TransactionState::Idle if message.transactional => {
                let message = "transactional logical message";
                return Err(AssembleError::OutsideTransaction { message, lsn });
            }
            TransactionState::Idle => Located {
                position: Position { commit_lsn: message.lsn, ordinal: 0 },
                lsn: message.lsn,
                transaction: None,
            },
            TransactionState::InTransaction { .. } => {
                let mut place = self.place("logical message", lsn, 1)?;
                if !message.transactional {
                    place.transaction = None;
                }
                place
            }
        };
        if !message.transactional {
            // No commit will follow it: Debezium takes the message itself for one.
            self.last_commit_lsn = Some(place.lsn);
        }
        let LogicalMessage { prefix, content, .. } = message;
        Ok(Step::Change(self.change(place, Data::Message { prefix, content })))
    }

    /// The position of the next change; takes `count` positions.
    #[inline]
    fn place(
        &mut self,
        message: &'static str,
        lsn: Lsn,
        count: u64,
    ) -> Result<Located, AssembleError> {
        let TransactionState::InTransaction { transaction, changes } = &mut self.state else {
            return Err(AssembleError::OutsideTransaction { message, lsn });
        };
        let position =
            Position { commit_lsn: transaction.commit_lsn, ordinal: changes.saturating_add(1) };
        *changes = changes.saturating_add(count);
        Ok(Located { position, lsn, transaction: Some(*transaction) })
    }

    #[inline]
    fn relation(&self, oid: u32, lsn: Lsn) -> Result<&Arc<Relation>, AssembleError> {
        self.relations.by_oid(oid).ok_or(AssembleError::UnknownRelation { oid, lsn })
    }

    #[inline]
    fn change<'a>(&'a self, place: Located, data: Data<'a>) -> Change<'a> {
        Change {
            position: place.position,
            lsn: place.lsn,
            transaction: place.transaction,
            last_commit_lsn: self.last_commit_lsn,
            origin: self
                .origin_commit_lsn
                .map(|commit_lsn| ChangeOrigin { name: &self.origin_name, commit_lsn }),
            data,
        }
    }
}

/// What a change takes from its transaction.
#[derive(Debug, Clone, Copy)]
struct Located {
    position: Position,
    lsn: Lsn,
    transaction: Option<Transaction>,
}

/// The changes of one TRUNCATE, a table at a time.
#[derive(Debug, Clone)]
pub struct Truncated<'a> {
    assembler: &'a Assembler,
    place: Located,
    oids: TruncatedRelations<'a>,
    given: usize,
}

impl<'a> Iterator for Truncated<'a> {
    type Item = Change<'a>;

    fn next(&mut self) -> Option<Change<'a>> {
        let oid = self.oids.iter().nth(self.given)?;
        let relation = self.assembler.relations.by_oid(oid)?;
        let change = self.assembler.change(self.place, Data::Truncate { relation });
        self.given += 1;
        self.place.position.ordinal += 1;
        Some(change)
    }
}

/// An old row is complete, whatever its tag, only if every partition sends complete old rows.
const fn reliable<'a>(relation: &Relation, old: OldTuple<'a>) -> OldTuple<'a> {
    match (relation.replica_identity, old) {
        (ReplicaIdentity::Full, old) => old,
        (_, OldTuple::Full(tuple) | OldTuple::Key(tuple)) => OldTuple::Key(tuple),
    }
}

fn old_row<'a>(
    relation: &Relation,
    old: OldTuple<'a>,
    lsn: Lsn,
) -> Result<OldRow<'a>, AssembleError> {
    fits(relation, old.tuple(), lsn)?;
    Ok(OldRow::new(old))
}

#[inline]
fn fits(relation: &Relation, tuple: Tuple<'_>, lsn: Lsn) -> Result<(), AssembleError> {
    if tuple.len() == relation.columns.len() {
        return Ok(());
    }
    Err(AssembleError::ColumnCount {
        table: relation.full_name.clone(),
        values: tuple.len(),
        columns: relation.columns.len(),
        lsn,
    })
}
