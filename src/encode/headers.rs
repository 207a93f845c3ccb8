//! The headers of a record.
//!
//! All headers of a change are in one list, and a record has a range of it: an event and its
//! tombstone share what they have in common, and what only the event has comes after.

use std::ops::Range;

use super::digits::write_number;
use super::records::{Header, Records};
use super::{SourceIdentity, cloudevents};
use crate::change::{Change, Relation};
use crate::config::{Format, ValueFormat};
use crate::types::write_string;

/// Header of the delete in a key change: the key that follows.
pub const HEADER_NEW_KEY: &str = "__debezium.newkey";
/// Header of the create in a key change: the key before.
pub const HEADER_OLD_KEY: &str = "__debezium.oldkey";
/// Header that names the columns whose values were cut so that the record fits.
pub const HEADER_TRUNCATED: &str = "rowcast.truncated";
/// Header that names the columns whose TOAST value did not change and is not known: they are left
/// out, or replaced by a placeholder.
pub const HEADER_UNCHANGED: &str = "rowcast.unchanged";
/// Header that names the columns whose TOAST value did not change and was read from the table.
pub const HEADER_RESELECTED: &str = "rowcast.reselected";
/// Header with the commit LSN, decimal.
pub const HEADER_LSN: &str = "rowcast.lsn";
/// Header with the transaction's ID.
pub const HEADER_XID: &str = "rowcast.xid";
/// Header with the change's count in its transaction.
pub const HEADER_ORDINAL: &str = "rowcast.ordinal";
/// Header with the media type of the value, where it is a CloudEvent.
pub const HEADER_CONTENT_TYPE: &str = "content-type";
/// Header with the topic prefix.
pub const HEADER_CONTEXT_NAME: &str = "__debezium.context.connectorLogicalName";
/// Header with the task, of which there is one: `0`.
pub const HEADER_CONTEXT_TASK: &str = "__debezium.context.taskId";
/// Header with the kind of connector: `postgresql`.
pub const HEADER_CONTEXT_CONNECTOR: &str = "__debezium.context.connectorName";
/// Header with the ID of the run that made the record.
pub const HEADER_CONTEXT_RUN: &str = "__debezium.context.runId";

/// Debezium's context headers, the same for every record of a run. Their values are bare text, as
/// Connect's default header converter writes it.
#[derive(Debug)]
pub(super) struct ContextHeaders {
    /// All values, one after the other.
    values: Vec<u8>,
    /// Names, and the ends of their values.
    ends: [(&'static str, usize); 4],
}

impl ContextHeaders {
    pub(super) fn new(identity: &SourceIdentity) -> Self {
        let mut values = Vec::new();
        let ends = [
            (HEADER_CONTEXT_NAME, identity.name.as_str()),
            (HEADER_CONTEXT_TASK, "0"),
            (HEADER_CONTEXT_CONNECTOR, "postgresql"),
            (HEADER_CONTEXT_RUN, identity.run_id.as_str()),
        ]
        .map(|(name, value)| {
            values.extend_from_slice(value.as_bytes());
            (name, values.len())
        });
        Self { values, ends }
    }

    fn append(&self, out: &mut Records) {
        let base = out.buffer.len();
        out.buffer.extend_from_slice(&self.values);
        let mut start = base;
        for &(name, end) in &self.ends {
            let end = base + end;
            out.headers.push(Header { name, value: start..end });
            start = end;
        }
    }
}

/// Adds the headers of one change.
#[derive(Clone, Copy)]
pub(super) struct Headers<'a, 'c> {
    pub(super) format: &'a Format,
    pub(super) context: Option<&'a ContextHeaders>,
    pub(super) change: &'a Change<'c>,
}

impl Headers<'_, '_> {
    /// The headers that an event and its tombstone share.
    pub(super) fn shared(&self, link: Option<Header>, out: &mut Records) -> Range<usize> {
        let start = out.headers.len();
        out.headers.extend(link);
        if let Some(context) = self.context {
            context.append(out);
        }
        self.position(out);
        start..out.headers.len()
    }

    /// The headers of a logical message, which has no context headers in Debezium.
    pub(super) fn of_message(&self, out: &mut Records) -> Range<usize> {
        let start = out.headers.len();
        self.position(out);
        self.with_content_type(start..out.headers.len(), out)
    }

    fn position(&self, out: &mut Records) {
        if !self.format.position_headers {
            return;
        }
        let position = self.change.position;
        number_header(HEADER_LSN, position.commit_lsn.as_u64(), out);
        if let Some(transaction) = self.change.transaction {
            number_header(HEADER_XID, transaction.xid, out);
        }
        number_header(HEADER_ORDINAL, position.ordinal, out);
    }

    /// Adds the header that says what an event's value is, where it must be said.
    pub(super) fn with_content_type(
        &self,
        headers: Range<usize>,
        out: &mut Records,
    ) -> Range<usize> {
        if self.format.value != ValueFormat::CloudEvents {
            return headers;
        }
        let start = out.buffer.len();
        out.buffer.extend_from_slice(cloudevents::CONTENT_TYPE);
        let value = start..out.buffer.len();
        out.headers.push(Header { name: HEADER_CONTENT_TYPE, value });
        headers.start..out.headers.len()
    }
}

/// Adds a header that names columns, if there are any.
pub(super) fn with_columns(
    headers: Range<usize>,
    name: &'static str,
    columns: impl Iterator<Item = usize>,
    relation: &Relation,
    out: &mut Records,
) -> Range<usize> {
    let buffer = &mut out.buffer;
    let start = buffer.len();
    for at in columns {
        buffer.push(if buffer.len() == start { b'[' } else { b',' });
        let column = relation.columns.get(at).map(|column| column.name.as_str());
        write_string(column.unwrap_or_default(), buffer);
    }
    if buffer.len() == start {
        return headers;
    }
    buffer.push(b']');
    out.headers.push(Header { name, value: start..out.buffer.len() });
    headers.start..out.headers.len()
}

/// Adds a header whose value is a number.
pub(super) fn number_header(name: &'static str, number: impl itoa::Integer, out: &mut Records) {
    let start = out.buffer.len();
    write_number(number, &mut out.buffer);
    out.headers.push(Header { name, value: start..out.buffer.len() });
}
