//! The records of one change, in the configured format.
//!
//! One pass over the change: key, value, headers, each appended to the buffer of the [`Records`].
//! The parent module lists the records of each change.

use std::convert::Infallible;
use std::ops::Range;

use super::cloudevents::CloudEventParts;
use super::envelope::{self, LogicalMessage, SourceBlock, SourceParts};
use super::error::EncodeError;
use super::flat;
use super::headers::{
    self, ContextHeaders, HEADER_NEW_KEY, HEADER_OLD_KEY, HEADER_RESELECTED, HEADER_UNCHANGED,
    Headers,
};
use super::plan::Plan;
use super::records::{Header, Record, Records};
use super::schema::Heads;
use super::transaction::{Counts, MESSAGES_AT, TransactionBlock};
use crate::change::{Change, OldRow, Row};
use crate::config::{BinaryMode, Format, ValueFormat};
use crate::types::write_string;

/// Bytes in a [`Records`] that are a key; none for a table without one.
type Key = Option<Range<usize>>;

/// Writes the records of one change.
pub(super) struct Writer<'a, 'c> {
    pub(super) format: &'a Format,
    pub(super) source: &'a SourceParts,
    pub(super) heads: &'a Heads,
    pub(super) cloud: &'a CloudEventParts,
    pub(super) context: Option<&'a ContextHeaders>,
    /// Only where transaction metadata is wanted.
    pub(super) counts: Option<&'a mut Counts>,
    pub(super) unchanged: &'a mut Vec<usize>,
    pub(super) change: &'a Change<'c>,
    pub(super) now_us: i64,
    pub(super) out: &'a mut Records,
}

/// The payload of a key: Debezium's headers have no schema.
const fn payload(plan: &Plan, key: &Range<usize>) -> Range<usize> {
    let (before, behind) = plan.key_head.lengths();
    key.start + before..key.end - behind
}

/// The row before and the row after an event, if any.
type Rows<'r, 'c> = (Option<&'r OldRow<'c>>, Option<&'r Row<'c>>);

impl<'a, 'c> Writer<'a, 'c> {
    pub(super) fn key(&mut self, plan: &Plan, row: &Row<'_>) -> Result<Key, EncodeError> {
        if !plan.has_key() {
            return Ok(None);
        }
        self.out.append(|out| plan.write_key(row, self.format.key, out)).map(Some)
    }

    pub(super) fn old_key(&mut self, plan: &Plan, row: &OldRow<'_>) -> Result<Key, EncodeError> {
        if !plan.has_key() {
            return Ok(None);
        }
        self.out.append(|out| plan.write_old_key(row, self.format.key, out)).map(Some)
    }

    /// | old row | key | records |
    /// |---|---|---|
    /// | none, or without the key | | `u` |
    /// | with the key | the same | `u` |
    /// | with the key | another | `d`, tombstone, `c` |
    pub(super) fn update(
        &mut self,
        plan: &Plan,
        before: Option<&OldRow<'_>>,
        after: &Row<'_>,
    ) -> Result<(), EncodeError> {
        let key = self.key(plan, after)?;
        let keyed = before.filter(|before| key.is_some() && plan.knows_key(before));
        if let (Some(before), Some(new)) = (keyed, key.clone()) {
            let old_key = self.old_key(plan, before)?;
            let changed =
                old_key.filter(|old| self.out.part(old.clone()) != self.out.part(new.clone()));
            if let Some(old) = changed {
                let link = Header { name: HEADER_NEW_KEY, value: payload(plan, &new) };
                self.delete(plan, before, Some(old.clone()), Some(link))?;
                let link = Header { name: HEADER_OLD_KEY, value: payload(plan, &old) };
                return self.row(plan, b'c', None, after, key, Some(link));
            }
        }
        self.row(plan, b'u', before, after, key, None)
    }

    /// A row that exists after the change.
    pub(super) fn row(
        &mut self,
        plan: &Plan,
        op: u8,
        before: Option<&OldRow<'_>>,
        after: &Row<'_>,
        key: Key,
        link: Option<Header>,
    ) -> Result<(), EncodeError> {
        let value = self.value(plan, op, (before, Some(after)))?;
        let headers = self.event_headers(link);
        let (unchanged, relation) = (self.unchanged.iter().copied(), &plan.relation);
        let headers =
            headers::with_columns(headers, HEADER_UNCHANGED, unchanged, relation, self.out);
        let reselected = after.reselected();
        let headers =
            headers::with_columns(headers, HEADER_RESELECTED, reselected, relation, self.out);
        self.out.unchanged = self.unchanged.len();
        self.out.reselected = after.reselected().count();
        self.out.records.push(Record { key, value, headers });
        Ok(())
    }

    /// The event of a delete as far as the format has one, then the tombstone.
    pub(super) fn delete(
        &mut self,
        plan: &Plan,
        before: &OldRow<'_>,
        key: Key,
        link: Option<Header>,
    ) -> Result<(), EncodeError> {
        let value = self.value(plan, b'd', (Some(before), None))?;
        let tombstone = key.is_some() && (self.format.tombstones || value.is_none());
        let shared = self.headers().shared(link, self.out);
        if value.is_some() {
            let headers = self.headers().with_content_type(shared.clone(), self.out);
            self.out.records.push(Record { key: key.clone(), value, headers });
        }
        if tombstone {
            self.out.records.push(Record { key, value: None, headers: shared });
        }
        Ok(())
    }

    pub(super) fn truncate(&mut self, plan: &Plan) -> Result<(), EncodeError> {
        let value = self.value(plan, b't', (None, None))?;
        if value.is_some() {
            let headers = self.event_headers(None);
            self.out.records.push(Record { key: None, value, headers });
        }
        Ok(())
    }

    pub(super) fn message(&mut self, prefix: &str, content: &[u8]) {
        let transaction = self.count(MESSAGES_AT);
        let source = SourceBlock::of(self.change, self.now_us);
        let (heads, now_us) = (self.heads, self.now_us);
        let out = &mut self.out.buffer;
        let Ok(()) = heads.message_key.around(out, |out| {
            out.extend_from_slice(b"{\"prefix\":");
            write_string(prefix, out);
            out.push(b'}');
            Ok::<(), Infallible>(())
        });
        let end = out.len();
        let binary = self.format.binary_handling_mode.unwrap_or(BinaryMode::Bytes);
        let message = LogicalMessage { prefix, content, binary };
        if self.format.value == ValueFormat::CloudEvents {
            self.cloud.write_message(&source, transaction.as_ref(), &message, out);
        } else {
            let Ok(()) = heads.message_value.around(out, |out| {
                let (parts, block) = (self.source, transaction.as_ref());
                envelope::write_message(parts, &source, now_us, block, &message, out);
                Ok::<(), Infallible>(())
            });
        }
        let value = Some(end..out.len());
        let headers = self.headers().of_message(self.out);
        self.out.records.push(Record { key: Some(0..end), value, headers });
    }

    /// The value of an event; none where the format has nothing to say of it.
    fn value(
        &mut self,
        plan: &Plan,
        op: u8,
        (before, after): Rows<'_, '_>,
    ) -> Result<Option<Range<usize>>, EncodeError> {
        let transaction = self.count(plan.collection);
        let transaction = transaction.as_ref();
        let now_us = self.now_us;
        let unchanged = &mut *self.unchanged;
        let value = match self.format.value {
            ValueFormat::Debezium | ValueFormat::DebeziumSchema => self.out.append(|out| {
                plan.value_head.around(out, |out| {
                    plan.write_rows(before, after, unchanged, out)?;
                    out.push(b',');
                    let source = SourceBlock::of(self.change, now_us);
                    self.source.write(&source, &plan.source_table, out);
                    envelope::write_tail(op, now_us, transaction, out);
                    Ok(())
                })
            }),
            ValueFormat::CloudEvents => self.out.append(|out| {
                let source = SourceBlock::of(self.change, now_us);
                self.cloud.write(&source, op, &plan.source_table, transaction, out);
                plan.write_rows(before, after, unchanged, out)?;
                out.extend_from_slice(b"}}");
                Ok(())
            }),
            ValueFormat::Flat if after.is_none() && !self.format.flat_metadata => return Ok(None),
            ValueFormat::Flat => {
                let metadata = self.format.flat_metadata;
                let change = self.change;
                self.out.append(|out| {
                    match (before, after) {
                        (_, Some(after)) => plan.write_row(after, unchanged, out)?,
                        (Some(before), None) => plan.write_old_row(before, out)?,
                        (None, None) => out.extend_from_slice(b"{}"),
                    }
                    if metadata {
                        flat::append_metadata(change, op, now_us, out);
                    }
                    Ok(())
                })
            }
        };
        value.map(Some)
    }

    /// The headers of an event that do not depend on the row.
    fn event_headers(&mut self, link: Option<Header>) -> Range<usize> {
        let headers = self.headers().shared(link, self.out);
        self.headers().with_content_type(headers, self.out)
    }

    const fn headers(&self) -> Headers<'a, 'c> {
        Headers { format: self.format, context: self.context, change: self.change }
    }

    /// Counts an event of the transaction that is open, where that is wanted.
    fn count(&mut self, collection: usize) -> Option<TransactionBlock> {
        let transaction = self.change.transaction?;
        let counts = self.counts.as_deref_mut()?;
        Some(counts.event(&transaction, self.change.lsn, collection))
    }
}
