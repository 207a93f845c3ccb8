//! The flat value: the row's columns, with the metadata that Debezium's ExtractNewRecordState would
//! add under `add.fields=op,ts_ms,lsn`.

use super::digits::write_number;
use crate::change::Change;

/// Adds the metadata to the object that `out` ends with.
pub(super) fn append_metadata(change: &Change<'_>, op: u8, now_us: i64, out: &mut Vec<u8>) {
    out.pop();
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.extend_from_slice(b"\"__op\":\"");
    out.push(op);
    out.extend_from_slice(b"\",\"__ts_ms\":");
    write_number(now_us.div_euclid(1_000), out);
    out.extend_from_slice(b",\"__lsn\":");
    write_number(change.lsn.as_u64(), out);
    let deleted: &[u8] = if op == b'd' { b"true" } else { b"false" };
    out.extend_from_slice(b",\"__deleted\":\"");
    out.extend_from_slice(deleted);
    out.extend_from_slice(b"\"}");
}
