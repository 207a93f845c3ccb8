//! CloudEvents 1.0 in structured JSON, as Debezium's CloudEventsConverter shapes them: the
//! envelope's fields as attributes, `before` and `after` as the data.
//!
//! 64-bit numbers are texts, for CloudEvents has no such integers. Names are Debezium's, also where
//! they differ by case alone: `iodebeziumtxId` is the source's `txId`, `iodebeziumtxid` the
//! transaction block's `id`. The `id` is Debezium's too: the two halves of a key change share it.
//!
//! Debezium's converter makes nothing of a logical message. Here it is an event like the others,
//! with the message as its data.
//! Attributes: <https://debezium.io/documentation/reference/stable/integrations/cloudevents.html>

use std::io::Write as _;

use super::SourceIdentity;
use super::digits::{write_micros_and_nanos, write_number};
use super::envelope::{LogicalMessage, SourceBlock, write_message_block};
use super::transaction::TransactionBlock;
use crate::types::write_string;

/// The content type that marks a record as a CloudEvent in structured mode.
/// Binding: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>
pub(super) const CONTENT_TYPE: &[u8] = b"application/cloudevents+json; charset=UTF-8";

/// The parts of an event that are the same for every change.
#[derive(Debug)]
pub(super) struct CloudEventParts {
    /// `{"id":"name:nyc;lsn:`.
    id: Vec<u8>,
    /// From the end of the ID to the value of `time`.
    kind: Vec<u8>,
    /// From the end of `iodebeziumop` to the value of `iodebeziumtsms`.
    name: Vec<u8>,
    /// From the end of `iodebeziumsnapshot` to the value of `iodebeziumsequence`.
    database: Vec<u8>,
}

impl CloudEventParts {
    pub(super) fn new(identity: &SourceIdentity) -> Self {
        let mut id = b"{\"id\":".to_vec();
        write_string(&format!("name:{};lsn:", identity.name), &mut id);
        id.pop();
        let mut kind = b"\",\"source\":".to_vec();
        write_string(&format!("/debezium/postgresql/{}", identity.name), &mut kind);
        kind.extend_from_slice(
            b",\"specversion\":\"1.0\",\"type\":\"io.debezium.connector.postgresql.DataChangeEvent\",\"time\":\"",
        );
        let mut name = b"\",\"iodebeziumversion\":".to_vec();
        write_string(&identity.version, &mut name);
        name.extend_from_slice(b",\"iodebeziumconnector\":\"postgresql\",\"iodebeziumname\":");
        write_string(&identity.name, &mut name);
        name.extend_from_slice(b",\"iodebeziumtsms\":\"");
        let mut database = b"\",\"iodebeziumdb\":".to_vec();
        write_string(&identity.database, &mut database);
        database.extend_from_slice(b",\"iodebeziumsequence\":\"");
        Self { id, kind, name, database }
    }

    /// The event up to the value of `data`, which the caller appends with the last brace. `table`
    /// is what [`table_attributes`] made.
    pub(super) fn write(
        &self,
        source: &SourceBlock<'_>,
        op: u8,
        table: &[u8],
        transaction: Option<&TransactionBlock>,
        out: &mut Vec<u8>,
    ) {
        self.write_context(source, out);
        out.extend_from_slice(b"\",\"datacontenttype\":\"application/json\",\"iodebeziumop\":\"");
        out.push(op);
        out.extend_from_slice(&self.name);
        write_number(source.time_us.div_euclid(1_000), out);
        out.extend_from_slice(b"\",\"iodebeziumsnapshot\":\"");
        out.extend_from_slice(source.snapshot.as_bytes());
        out.extend_from_slice(&self.database);
        source.write_sequence(out);
        out.extend_from_slice(b"\",\"iodebeziumtsus\":\"");
        write_micros_and_nanos(source.time_us, b"\",\"iodebeziumtsns\":\"", out);
        out.push(b'"');
        out.extend_from_slice(table);
        write_optional(b",\"iodebeziumtxId\":", source.xid, out);
        write_optional(b",\"iodebeziumlsn\":", source.lsn.map(|lsn| lsn.as_u64()), out);
        out.extend_from_slice(b",\"iodebeziumxmin\":null,\"iodebeziumorigin\":");
        match source.origin {
            Some(origin) => write_string(origin.name, out),
            None => out.extend_from_slice(b"null"),
        }
        let origin_lsn = source.origin.map(|origin| origin.commit_lsn.as_u64());
        write_optional(b",\"iodebeziumoriginlsn\":", origin_lsn, out);
        match transaction {
            Some(block) => block.write_attributes(out),
            None => out.extend_from_slice(
                b",\"iodebeziumtxid\":null,\"iodebeziumtxtotalorder\":null,\"iodebeziumtxdatacollectionorder\":null",
            ),
        }
        out.extend_from_slice(b",\"data\":");
    }

    /// The event of a logical message, which is its data.
    pub(super) fn write_message(
        &self,
        source: &SourceBlock<'_>,
        transaction: Option<&TransactionBlock>,
        message: &LogicalMessage<'_>,
        out: &mut Vec<u8>,
    ) {
        let table = b",\"iodebeziumschema\":\"\",\"iodebeziumtable\":\"\"";
        self.write(source, b'm', table, transaction, out);
        let start = out.len();
        write_message_block(message, out);
        // The block is the only field of the data: its comma becomes the brace that opens it.
        if let Some(comma) = out.get_mut(start) {
            *comma = b'{';
        }
        out.extend_from_slice(b"}}");
    }

    /// The required attributes and the time, whose closing quote is left out.
    fn write_context(&self, source: &SourceBlock<'_>, out: &mut Vec<u8>) {
        let write_or_null = |number: Option<u64>, out: &mut Vec<u8>| match number {
            Some(number) => write_number(number, out),
            None => out.extend_from_slice(b"null"),
        };
        out.extend_from_slice(&self.id);
        write_or_null(source.lsn.map(|lsn| lsn.as_u64()), out);
        out.extend_from_slice(b";txId:");
        write_or_null(source.xid, out);
        out.extend_from_slice(b";sequence:");
        source.write_sequence(out);
        out.extend_from_slice(&self.kind);
        write_time(source.time_us.div_euclid(1_000), out);
    }
}

/// The attributes that name the table.
pub(super) fn table_attributes(schema: &str, table: &str) -> Vec<u8> {
    let mut part = b",\"iodebeziumschema\":".to_vec();
    write_string(schema, &mut part);
    part.extend_from_slice(b",\"iodebeziumtable\":");
    write_string(table, &mut part);
    part
}

fn write_optional(name: &[u8], number: Option<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    match number {
        Some(number) => {
            out.push(b'"');
            write_number(number, out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// RFC 3339 in UTC, always with milliseconds.
fn write_time(time_ms: i64, out: &mut Vec<u8>) {
    // Postgres commits no transaction at a time that is out of range here.
    let time = jiff::Timestamp::from_millisecond(time_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    // Writing into a Vec does not fail.
    let _ = write!(out, "{time:.3}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        for (time_ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_709_282_101_500, "2024-03-01T08:35:01.500Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            let mut out = Vec::new();
            write_time(time_ms, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
