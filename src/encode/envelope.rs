//! Debezium's envelope: `before, after, source, transaction, op, ts_ms, ts_us, ts_ns`, in this
//! order.
//!
//! `source.ts_*` is the commit time, the outer `ts_*` the time the event was made: their difference
//! is the lag. `lsn` is the change's own place in the WAL; `sequence` puts the end of the
//! transaction before this one in front of it, which makes the pair ordered across transactions.
//! Fields: <https://debezium.io/documentation/reference/stable/connectors/postgresql.html>

use crate::change::Change;
use crate::types::{write_bytes, write_string};

use super::SourceIdentity;

/// The parts of the source block that are the same for every change.
#[derive(Debug)]
pub(super) struct SourceParts {
    /// `"source":{"version":"..","connector":"postgresql","name":"..","ts_ms":`.
    head: Vec<u8>,
    /// `,"snapshot":"false","db":"..","sequence":"[`.
    middle: Vec<u8>,
}

impl SourceParts {
    pub(super) fn new(identity: &SourceIdentity) -> Self {
        let mut head = b"\"source\":{\"version\":".to_vec();
        write_string(&identity.version, &mut head);
        head.extend_from_slice(b",\"connector\":\"postgresql\",\"name\":");
        write_string(&identity.name, &mut head);
        head.extend_from_slice(b",\"ts_ms\":");
        let mut middle = b",\"snapshot\":\"false\",\"db\":".to_vec();
        write_string(&identity.database, &mut middle);
        middle.extend_from_slice(b",\"sequence\":\"[");
        Self { head, middle }
    }

    /// The source block. `table` is what `plan::source_table` made.
    #[inline]
    pub(super) fn write(&self, change: &Change<'_>, now_us: i64, table: &[u8], out: &mut Vec<u8>) {
        // A non-transactional message has no commit time: it was sent when it was written.
        let time_us = change.transaction.map_or(now_us, |transaction| transaction.commit_time_us);
        out.extend_from_slice(&self.head);
        write_number(time_us.div_euclid(1_000), out);
        out.extend_from_slice(&self.middle);
        match change.last_commit_lsn {
            Some(lsn) => {
                out.extend_from_slice(b"\\\"");
                write_number(lsn.as_u64(), out);
                out.extend_from_slice(b"\\\"");
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\\\"");
        write_number(change.lsn.as_u64(), out);
        out.extend_from_slice(b"\\\"]\",\"ts_us\":");
        write_micros_and_nanos(time_us, b",\"ts_ns\":", out);
        out.extend_from_slice(table);
        out.extend_from_slice(b",\"txId\":");
        match change.transaction {
            Some(transaction) => write_number(transaction.xid, out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"lsn\":");
        write_number(change.lsn.as_u64(), out);
        match change.origin {
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

/// From `,"transaction"` to the closing brace.
#[inline]
pub(super) fn write_tail(op: u8, now_us: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"transaction\":null,\"op\":\"");
    out.push(op);
    out.extend_from_slice(b"\",\"ts_ms\":");
    write_number(now_us.div_euclid(1_000), out);
    out.extend_from_slice(b",\"ts_us\":");
    write_micros_and_nanos(now_us, b",\"ts_ns\":", out);
    out.push(b'}');
}

/// The value of a logical message, whose fields and order differ from a row's.
pub(super) fn write_message(
    source: &SourceParts,
    change: &Change<'_>,
    now_us: i64,
    (prefix, content): (&str, &[u8]),
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"op\":\"m\",\"ts_ms\":");
    write_number(now_us.div_euclid(1_000), out);
    out.push(b',');
    source.write(change, now_us, b",\"schema\":\"\",\"table\":\"\"", out);
    out.extend_from_slice(b",\"transaction\":null,\"message\":{\"prefix\":");
    write_string(prefix, out);
    out.extend_from_slice(b",\"content\":");
    write_bytes(content, out);
    out.extend_from_slice(b"}}");
}

#[inline]
pub(super) fn write_number(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Microseconds, then `name`, then the same as nanoseconds: zeros behind the same digits.
#[inline]
fn write_micros_and_nanos(time_us: i64, name: &[u8], out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(time_us).as_bytes();
    out.extend_from_slice(digits);
    out.extend_from_slice(name);
    out.extend_from_slice(digits);
    if time_us != 0 {
        out.extend_from_slice(b"000");
    }
}
