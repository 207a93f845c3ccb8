//! Debezium's envelope: `before, after, source, transaction, op, ts_ms, ts_us, ts_ns`, in this
//! order.
//!
//! `source.ts_*` is the commit time, the outer `ts_*` the time the event was made: their difference
//! is the lag. `lsn` is the change's own place in the WAL; `sequence` puts the end of the
//! transaction before this one in front of it, which makes the pair ordered across transactions.
//! Fields: <https://debezium.io/documentation/reference/stable/connectors/postgresql.html>

use super::SourceIdentity;
use super::digits::{write_micros_and_nanos, write_number};
use super::transaction::TransactionBlock;
use crate::change::{Change, ChangeOrigin, Data, SnapshotMarker};
use crate::config::BinaryMode;
use crate::lsn::Lsn;
use crate::types::{write_bytes, write_string};

/// What the source block says of one change.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceBlock<'a> {
    pub(super) time_us: i64,
    pub(super) snapshot: &'static str,
    last_commit_lsn: Option<Lsn>,
    sequence_lsn: Lsn,
    pub(super) xid: Option<u64>,
    pub(super) lsn: Option<Lsn>,
    pub(super) origin: Option<ChangeOrigin<'a>>,
}

impl<'a> SourceBlock<'a> {
    pub(super) fn of(change: &Change<'a>, now_us: i64) -> Self {
        let snapshot = match change.data {
            Data::Read { snapshot, .. } => Some(snapshot),
            _ => None,
        };
        // A row of an incremental snapshot has no place in the WAL and no transaction of its own.
        let placed = snapshot.is_none_or(|snapshot| snapshot.marker != SnapshotMarker::Incremental);
        let xid = match snapshot {
            Some(snapshot) => snapshot.xid,
            None => change.transaction.map(|transaction| transaction.xid.into()),
        };
        Self {
            time_us: change.time_us(now_us),
            snapshot: snapshot.map_or("false", |snapshot| snapshot.marker.word()),
            last_commit_lsn: change.last_commit_lsn,
            sequence_lsn: change.lsn,
            xid: xid.filter(|_| placed),
            lsn: placed.then_some(change.lsn),
            origin: change.origin,
        }
    }

    /// The pair of LSNs, as a JSON array inside of a JSON text; without the text's quotes.
    pub(super) fn write_sequence(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        match self.last_commit_lsn {
            Some(lsn) => {
                out.extend_from_slice(b"\\\"");
                write_number(lsn.as_u64(), out);
                out.extend_from_slice(b"\\\"");
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\\\"");
        write_number(self.sequence_lsn.as_u64(), out);
        out.extend_from_slice(b"\\\"]");
    }
}

/// The parts of the source block that are the same for every change.
#[derive(Debug)]
pub(super) struct SourceParts {
    /// `"source":{"version":"..","connector":"postgresql","name":"..","ts_ms":`.
    head: Vec<u8>,
    /// `","db":"..","sequence":"`.
    database: Vec<u8>,
}

impl SourceParts {
    pub(super) fn new(identity: &SourceIdentity) -> Self {
        let mut head = b"\"source\":{\"version\":".to_vec();
        write_string(&identity.version, &mut head);
        head.extend_from_slice(b",\"connector\":\"postgresql\",\"name\":");
        write_string(&identity.name, &mut head);
        head.extend_from_slice(b",\"ts_ms\":");
        let mut database = b"\",\"db\":".to_vec();
        write_string(&identity.database, &mut database);
        database.extend_from_slice(b",\"sequence\":\"");
        Self { head, database }
    }

    /// The source block. `table` is what [`table_fields`] made.
    #[inline]
    pub(super) fn write(&self, source: &SourceBlock<'_>, table: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        write_number(source.time_us.div_euclid(1_000), out);
        out.extend_from_slice(b",\"snapshot\":\"");
        out.extend_from_slice(source.snapshot.as_bytes());
        out.extend_from_slice(&self.database);
        source.write_sequence(out);
        out.extend_from_slice(b"\",\"ts_us\":");
        write_micros_and_nanos(source.time_us, b",\"ts_ns\":", out);
        out.extend_from_slice(table);
        out.extend_from_slice(b",\"txId\":");
        write_optional(source.xid, out);
        out.extend_from_slice(b",\"lsn\":");
        write_optional(source.lsn.map(Lsn::as_u64), out);
        match source.origin {
            Some(origin) => {
                out.extend_from_slice(b",\"xmin\":null,\"origin\":");
                write_string(origin.name, out);
                out.extend_from_slice(b",\"origin_lsn\":");
                write_number(origin.commit_lsn.as_u64(), out);
                out.push(b'}');
            }
            None => out.extend_from_slice(b",\"xmin\":null,\"origin\":null,\"origin_lsn\":null}"),
        }
    }
}

/// The part of the source block that names the table.
pub(super) fn table_fields(schema: &str, table: &str) -> Vec<u8> {
    let mut part = b",\"schema\":".to_vec();
    write_string(schema, &mut part);
    part.extend_from_slice(b",\"table\":");
    write_string(table, &mut part);
    part
}

/// From `,"transaction"` to the closing brace.
#[inline]
pub(super) fn write_tail(
    op: u8,
    now_us: i64,
    transaction: Option<&TransactionBlock>,
    out: &mut Vec<u8>,
) {
    write_transaction(transaction, out);
    out.extend_from_slice(b",\"op\":\"");
    out.push(op);
    out.extend_from_slice(b"\",\"ts_ms\":");
    write_number(now_us.div_euclid(1_000), out);
    out.extend_from_slice(b",\"ts_us\":");
    write_micros_and_nanos(now_us, b",\"ts_ns\":", out);
    out.push(b'}');
}

/// A logical message and the form that its content takes.
pub(super) struct LogicalMessage<'a> {
    pub(super) prefix: &'a str,
    pub(super) content: &'a [u8],
    pub(super) binary: BinaryMode,
}

/// The value of a logical message, whose fields and order differ from a row's.
pub(super) fn write_message(
    parts: &SourceParts,
    source: &SourceBlock<'_>,
    now_us: i64,
    transaction: Option<&TransactionBlock>,
    message: &LogicalMessage<'_>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"op\":\"m\",\"ts_ms\":");
    write_number(now_us.div_euclid(1_000), out);
    out.push(b',');
    parts.write(source, b",\"schema\":\"\",\"table\":\"\"", out);
    write_transaction(transaction, out);
    write_message_block(message, out);
    out.push(b'}');
}

/// What a logical message says, as the last field of its value.
pub(super) fn write_message_block(message: &LogicalMessage<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"message\":{\"prefix\":");
    write_string(message.prefix, out);
    out.extend_from_slice(b",\"content\":");
    write_bytes(message.content, message.binary, out);
    out.push(b'}');
}

#[inline]
fn write_transaction(transaction: Option<&TransactionBlock>, out: &mut Vec<u8>) {
    match transaction {
        Some(block) => {
            out.extend_from_slice(b",\"transaction\":");
            block.write(out);
        }
        None => out.extend_from_slice(b",\"transaction\":null"),
    }
}

#[inline]
fn write_optional(number: Option<u64>, out: &mut Vec<u8>) {
    match number {
        Some(number) => write_number(number, out),
        None => out.extend_from_slice(b"null"),
    }
}
