//! One `XLogData` body to one [`Message`].
//!
//! Each function reads one message or part in the order of the protocol's page and checks the whole
//! of it, so that everything handed on can be walked without failing. Not here: the order in which
//! messages may come, which `change` holds.
//!
//! Format: <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

use super::DecodeError;
use super::message::{
    Begin, Commit, LogicalMessage, Message, OldTuple, Origin, RelationBody, RelationColumn,
    RelationColumns, ReplicaIdentity, Truncate, TruncatedRelations, Tuple, TypeBody,
};
use super::reader::Reader;
use crate::clock::POSTGRES_EPOCH_US;
use crate::lsn::Lsn;

/// Bits of a Truncate message's options.
const TRUNCATE_CASCADE: u8 = 1;
const TRUNCATE_RESTART_IDENTITY: u8 = 2;

/// Reads one message. Allocates nothing; the result borrows from `body`.
///
/// # Errors
///
/// [`DecodeError`] when the bytes are not exactly one message of those the bridge asks for.
pub fn decode(body: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader::new(body);
    let reader = &mut reader;
    if body.is_empty() {
        return Err(DecodeError::Empty);
    }
    let message = match reader.u8("the message's letter")? {
        b'I' => insert(reader)?,
        b'U' => update(reader)?,
        b'D' => delete(reader)?,
        b'B' => begin(reader)?,
        b'C' => commit(reader)?,
        b'R' => relation(reader)?,
        b'Y' => type_name(reader)?,
        b'O' => origin(reader)?,
        b'T' => truncate(reader)?,
        b'M' => logical_message(reader)?,
        letter => return Err(refused(letter)),
    };
    reader.finish()?;
    Ok(message)
}

/// Says why a first byte is refused: an option that is off, or not a message at all.
fn refused(letter: u8) -> DecodeError {
    let name = match letter {
        b'S' => "Stream Start",
        b'E' => "Stream Stop",
        b'c' => "Stream Commit",
        b'A' => "Stream Abort",
        b'b' => "Begin Prepare",
        b'P' => "Prepare",
        b'K' => "Commit Prepared",
        b'r' => "Rollback Prepared",
        b'p' => "Stream Prepare",
        letter => return DecodeError::UnknownMessage { letter },
    };
    DecodeError::NotAskedFor { letter: char::from(letter), name }
}

fn begin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Begin(Begin {
        final_lsn: lsn(reader, "final LSN")?,
        commit_time_us: time_us(reader, "commit time")?,
        xid: reader.u32("transaction ID")?,
    }))
}

fn commit<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    // Flags; "currently unused".
    reader.u8("flags")?;
    Ok(Message::Commit(Commit {
        commit_lsn: lsn(reader, "commit LSN")?,
        end_lsn: lsn(reader, "end LSN")?,
        commit_time_us: time_us(reader, "commit time")?,
    }))
}

fn origin<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Origin(Origin {
        commit_lsn: lsn(reader, "commit LSN at the origin")?,
        name: reader.text("origin name")?,
    }))
}

fn relation<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let oid = reader.u32("relation OID")?;
    let schema = schema(reader)?;
    let table = reader.text("table name")?;
    let offset = reader.offset();
    let replica_identity = match reader.u8("replica identity")? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        tag => {
            return Err(DecodeError::UnknownTag { field: "replica identity", offset, tag });
        }
    };
    let count = reader.count16("number of columns")?;
    let bytes = checked(reader, |reader| {
        (0..count).try_for_each(|_| RelationColumn::read(reader).map(drop))
    })?;
    let columns = RelationColumns { count, bytes };
    Ok(Message::Relation(RelationBody { oid, schema, table, replica_identity, columns }))
}

fn type_name<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Type(TypeBody {
        oid: reader.u32("type OID")?,
        schema: schema(reader)?,
        name: reader.text("type name")?,
    }))
}

fn insert<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32("relation OID")?;
    let offset = reader.offset();
    match reader.u8("tuple kind")? {
        b'N' => Ok(Message::Insert { relation, new: tuple(reader)? }),
        tag => Err(DecodeError::UnknownTag { field: "tuple kind", offset, tag }),
    }
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32("relation OID")?;
    let mut offset = reader.offset();
    let mut tag = reader.u8("tuple kind")?;
    let old = old_tuple(reader, tag)?;
    if old.is_some() {
        offset = reader.offset();
        tag = reader.u8("new tuple kind")?;
    }
    match tag {
        b'N' => Ok(Message::Update { relation, old, new: tuple(reader)? }),
        tag => Err(DecodeError::UnknownTag { field: "tuple kind", offset, tag }),
    }
}

fn delete<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32("relation OID")?;
    let offset = reader.offset();
    let tag = reader.u8("tuple kind")?;
    let old = old_tuple(reader, tag)?;
    let old = old.ok_or(DecodeError::UnknownTag { field: "tuple kind", offset, tag })?;
    Ok(Message::Delete { relation, old })
}

fn old_tuple<'a>(reader: &mut Reader<'a>, kind: u8) -> Result<Option<OldTuple<'a>>, DecodeError> {
    match kind {
        b'K' => tuple(reader).map(OldTuple::Key).map(Some),
        b'O' => tuple(reader).map(OldTuple::Full).map(Some),
        _ => Ok(None),
    }
}

#[inline]
fn tuple<'a>(reader: &mut Reader<'a>) -> Result<Tuple<'a>, DecodeError> {
    let count = reader.count16("number of values")?;
    let bytes = checked(reader, |reader| {
        for _ in 0..count {
            let offset = reader.offset();
            match reader.u8("value kind")? {
                b'n' | b'u' => {}
                b't' | b'b' => {
                    let length = reader.count32("value length")?;
                    reader.bytes(length, "value")?;
                }
                tag => return Err(DecodeError::UnknownTag { field: "value kind", offset, tag }),
            }
        }
        Ok(())
    })?;
    Ok(Tuple { count, bytes })
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let offset = reader.offset();
    let count = reader.count32("number of relations")?;
    let options = reader.u8("truncate options")?;
    if options & !(TRUNCATE_CASCADE | TRUNCATE_RESTART_IDENTITY) != 0 {
        let offset = offset + size_of::<i32>();
        return Err(DecodeError::UnknownTag { field: "truncate options", offset, tag: options });
    }
    let bytes = reader.bytes(count.saturating_mul(size_of::<u32>()), "relation OIDs")?;
    Ok(Message::Truncate(Truncate {
        relations: TruncatedRelations { bytes },
        cascade: options & TRUNCATE_CASCADE != 0,
        restart_identity: options & TRUNCATE_RESTART_IDENTITY != 0,
    }))
}

fn logical_message<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let offset = reader.offset();
    let transactional = match reader.u8("message flags")? {
        0 => false,
        1 => true,
        tag => return Err(DecodeError::UnknownTag { field: "message flags", offset, tag }),
    };
    let lsn = lsn(reader, "message LSN")?;
    let prefix = reader.terminated("message prefix")?;
    let length = reader.count32("content length")?;
    let content = reader.bytes(length, "content")?;
    Ok(Message::Message(LogicalMessage { transactional, lsn, prefix, content }))
}

/// Runs `check` over the bytes and returns the part that it read.
#[inline]
fn checked<'a>(
    reader: &mut Reader<'a>,
    check: impl FnOnce(&mut Reader<'a>) -> Result<(), DecodeError>,
) -> Result<&'a [u8], DecodeError> {
    let mut ahead = *reader;
    check(&mut ahead)?;
    reader.bytes(ahead.offset() - reader.offset(), "checked part")
}

/// A schema's name, which the server leaves empty for `pg_catalog`.
fn schema<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let name = reader.text("schema name")?;
    Ok(if name.is_empty() { "pg_catalog" } else { name })
}

fn lsn(reader: &mut Reader<'_>, field: &'static str) -> Result<Lsn, DecodeError> {
    reader.u64(field).map(Lsn::from)
}

/// A time stamp, moved from the Postgres epoch to the Unix epoch.
fn time_us(reader: &mut Reader<'_>, field: &'static str) -> Result<i64, DecodeError> {
    let since_postgres_epoch = reader.i64(field)?;
    // Saturates only 292,000 years away from any time a server can mean.
    Ok(since_postgres_epoch.saturating_add(POSTGRES_EPOCH_US))
}
