//! The record of a change that can't be published: all that is known of it, for somebody to fix.
//!
//! Its value is one JSON object, whatever the format of events is; its key is the change's, where
//! that can be written. It contains the values as the server sent them: as text, or in base64 if
//! not UTF-8. The rules of the table apply here too: what they hide is hidden.
//!
//! May allocate: a change that can't be published is rare, or somebody must act.

use std::error::Error as _;

use super::digits::write_number;
use super::error::EncodeError;
use super::headers::{HEADER_LSN, HEADER_ORDINAL, HEADER_XID, number_header};
use super::plan::{Plan, close_object};
use super::records::{Header, Record, Records};
use super::rules::Ruled;
use crate::change::{Change, Data, OldRow};
use crate::config::{BinaryMode, KeyFormat};
use crate::pgoutput::{Datum, Tuple};
use crate::types::{write_bytes, write_string};

/// Header with the reason in words.
pub const HEADER_ERROR: &str = "rowcast.error";
/// Header with the table, `schema.table`.
pub const HEADER_TABLE: &str = "rowcast.table";
/// Header with the kind of change, as Debezium's `op` names it.
pub const HEADER_OP: &str = "rowcast.op";

/// A longer key is left out: it is no identity that anyone would look for, and might not fit.
pub(super) const KEY_BYTES_MAX: usize = 16 * 1024;

/// Writes the record of a change that `error` kept from being published.
pub(super) fn write(
    plan: &Plan,
    change: &Change<'_>,
    error: &EncodeError,
    (format, with_values): (KeyFormat, bool),
    out: &mut Records,
) {
    // A key may be what is too large.
    let key = if plan.has_key() { key(plan, change, format, out) } else { None };
    let key = key.filter(|key| key.len() <= KEY_BYTES_MAX);
    let mut reason = error.to_string();
    if let Some(cause) = error.source() {
        reason = format!("{reason}: {cause}");
    }
    let start = out.buffer.len();
    value(plan, change, (error, &reason), with_values, &mut out.buffer);
    let value = Some(start..out.buffer.len());

    text_header(HEADER_ERROR, &reason, out);
    text_header(HEADER_TABLE, &plan.relation.full_name, out);
    place_headers(change, out);
    out.records.push(Record { key, value, headers: 0..out.headers.len() });
}

/// What a change is, and where it is in the WAL.
pub(super) fn place_headers(change: &Change<'_>, out: &mut Records) {
    let position = change.position;
    text_header(HEADER_OP, change.op().letter().encode_utf8(&mut [0; 4]), out);
    number_header(HEADER_LSN, position.commit_lsn.as_u64(), out);
    if let Some(transaction) = change.transaction {
        number_header(HEADER_XID, transaction.xid, out);
    }
    number_header(HEADER_ORDINAL, position.ordinal, out);
}

/// The key of the row after the change, else of the one before; none where it can't be written.
fn key(
    plan: &Plan,
    change: &Change<'_>,
    format: KeyFormat,
    out: &mut Records,
) -> Option<std::ops::Range<usize>> {
    let start = out.buffer.len();
    let written = match change.data {
        Data::Insert { after: row, .. }
        | Data::Update { after: row, .. }
        | Data::Read { row, .. } => out.append(|out| plan.write_key(&row, format, out)),
        Data::Delete { before, .. } => out.append(|out| plan.write_old_key(&before, format, out)),
        Data::Truncate { .. } | Data::Message { .. } => return None,
    };
    if written.is_err() {
        out.buffer.truncate(start);
    }
    written.ok()
}

fn value(
    plan: &Plan,
    change: &Change<'_>,
    (error, reason): (&EncodeError, &str),
    with_values: bool,
    out: &mut Vec<u8>,
) {
    let text = |name: &str, text: &str, out: &mut Vec<u8>| {
        out.extend_from_slice(name.as_bytes());
        write_string(text, out);
    };
    let number = |name: &str, number: u64, out: &mut Vec<u8>| {
        out.extend_from_slice(name.as_bytes());
        write_number(number, out);
    };
    text("{\"error\":", reason, out);
    text(",\"schema\":", &plan.relation.schema, out);
    text(",\"table\":", &plan.relation.table, out);
    place(change, out);
    if let EncodeError::TooLarge { bytes, limit, .. } = error {
        number(",\"bytes\":", *bytes as u64, out);
        number(",\"limit\":", *limit as u64, out);
    }
    if !with_values {
        return sizes(plan, change, out);
    }
    let (before, after) = match change.data {
        Data::Insert { after, .. } => (None, Some(after.tuple())),
        Data::Read { row, .. } => (None, Some(row.tuple())),
        Data::Update { before, after, .. } => (before, Some(after.tuple())),
        Data::Delete { before, .. } => (Some(before), None),
        Data::Truncate { .. } | Data::Message { .. } => (None, None),
    };
    out.extend_from_slice(b",\"before\":");
    match before {
        Some(row @ OldRow::Full(tuple)) => columns(plan, tuple, Some(&row), out),
        Some(row @ OldRow::Key(tuple)) => columns(plan, tuple, Some(&row), out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"after\":");
    match after {
        Some(tuple) => columns(plan, tuple, None, out),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

/// What a change is, and where it is in the WAL, as fields that follow others.
pub(super) fn place(change: &Change<'_>, out: &mut Vec<u8>) {
    let number = |name: &str, number: u64, out: &mut Vec<u8>| {
        out.extend_from_slice(name.as_bytes());
        write_number(number, out);
    };
    out.extend_from_slice(b",\"op\":");
    write_string(change.op().letter().encode_utf8(&mut [0; 4]), out);
    number(",\"lsn\":", change.lsn.as_u64(), out);
    number(",\"commit_lsn\":", change.position.commit_lsn.as_u64(), out);
    number(",\"ordinal\":", change.position.ordinal, out);
    match change.transaction {
        Some(transaction) => number(",\"txId\":", transaction.xid.into(), out),
        None => out.extend_from_slice(b",\"txId\":null"),
    }
}

/// The columns that were sent, as they were.
fn columns(plan: &Plan, tuple: Tuple<'_>, old: Option<&OldRow<'_>>, out: &mut Vec<u8>) {
    let start = out.len();
    for (at, (column, datum)) in plan.columns.iter().zip(tuple).enumerate() {
        let is_known = old.is_none_or(|row| row.has(&plan.relation, at));
        if !is_known || column.rule.leaves_out() {
            continue;
        }
        let Ruled::Publish(datum) = column.rule.apply(&column.name, datum, out) else { continue };
        out.extend_from_slice(&column.name);
        raw(datum, out);
    }
    close_object(start, out);
}

/// In place of values that are too large, how many bytes the server sent of each column.
fn sizes(plan: &Plan, change: &Change<'_>, out: &mut Vec<u8>) {
    let (before, after) = change.tuples();
    for (name, tuple) in [(",\"before_bytes\":", before), (",\"after_bytes\":", after)] {
        out.extend_from_slice(name.as_bytes());
        let Some(tuple) = tuple else {
            out.extend_from_slice(b"null");
            continue;
        };
        let start = out.len();
        for (column, datum) in plan.columns.iter().zip(tuple) {
            let (Datum::Text(bytes) | Datum::Binary(bytes)) = datum else { continue };
            if !column.rule.leaves_out() {
                out.extend_from_slice(&column.name);
                write_number(bytes.len(), out);
            }
        }
        close_object(start, out);
    }
    out.push(b'}');
}

fn raw(datum: Datum<'_>, out: &mut Vec<u8>) {
    let bytes = match datum {
        // One that was not sent is left out before.
        Datum::Null | Datum::Unchanged => return out.extend_from_slice(b"null"),
        Datum::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => return write_string(text, out),
            Err(_) => bytes,
        },
        Datum::Binary(bytes) => bytes,
    };
    out.extend_from_slice(b"{\"base64\":");
    write_bytes(bytes, BinaryMode::Base64, out);
    out.push(b'}');
}

pub(super) fn text_header(name: &'static str, text: &str, out: &mut Records) {
    let start = out.buffer.len();
    out.buffer.extend_from_slice(text.as_bytes());
    out.headers.push(Header { name, value: start..out.buffer.len() });
}
