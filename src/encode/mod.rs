//! Records from changes: keys, values and headers, written straight into reused buffers.
//!
//! [`Encoder::encode`] takes one [`Change`] and leaves its records in a [`Records`]; once both are
//! warm, it allocates nothing. What a record holds:
//!
//! | change | records under `debezium` | under `flat` |
//! |---|---|---|
//! | insert | `c` | the row |
//! | update | `u` | the row |
//! | update of the key | `d` of the old key, tombstone, `c` of the new | delete of the old key, the row |
//! | delete | `d`, tombstone | with metadata: the old row, tombstone; without: tombstone |
//! | truncate | `t`, no key | with metadata: an object of the metadata alone |
//! | logical message | `m` | the same |
//!
//! - Tombstones after an event can be switched off. In `flat` without metadata the tombstone is the
//!   delete itself, and is always written. A table without a key has no tombstones.
//! - `before`, and a flat delete, hold only the columns that the server sent.
//! - `flat` metadata has the names and forms of Debezium's ExtractNewRecordState: `__op`,
//!   `__ts_ms` (when the event was made), `__lsn` (the change's own), `__deleted` (`"true"` or
//!   `"false"`, as text).
//! - A TOAST value that did not change, and that no old row lends, is left out of the row, and the
//!   record carries the header `rowcast.unchanged`: a JSON array of the columns' names.
//! - The position headers are `rowcast.lsn` and `rowcast.ordinal` (the change's position, decimal)
//!   and `rowcast.xid`; all records of one change carry the same.
//!
//! Not here: topics, partitions, when to send. A change may give no record: that is for the caller
//! to count.

mod envelope;
mod flat;
mod key;
mod plan;
mod records;
mod rules;

pub use self::records::{RecordRef, Records};
pub use self::rules::{RuleError, ValueRules};

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::change::{Change, Data, OldRow, Relation, Row};
use crate::config::{Format, ValueFormat};
use crate::types::{Forms, ValueError, write_string};

use self::envelope::{SourceParts, write_number};
use self::plan::Plan;
use self::records::{Header, Record};

/// Header of the delete in a key change: the key that follows.
pub const HEADER_NEW_KEY: &str = "__debezium.newkey";
/// Header of the create in a key change: the key before.
pub const HEADER_OLD_KEY: &str = "__debezium.oldkey";
/// Header that names the columns left out because their TOAST value did not change.
pub const HEADER_UNCHANGED: &str = "rowcast.unchanged";
/// Header with the commit LSN, decimal.
pub const HEADER_LSN: &str = "rowcast.lsn";
/// Header with the transaction's ID.
pub const HEADER_XID: &str = "rowcast.xid";
/// Header with the change's count in its transaction.
pub const HEADER_ORDINAL: &str = "rowcast.ordinal";

/// What an encoder is told at start.
#[derive(Debug, Clone)]
pub struct EncodeOptions<'a> {
    /// What a record looks like.
    pub format: &'a Format,
    /// Who speaks.
    pub source: SourceIdentity,
}

/// What the source block says of the bridge and its database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceIdentity {
    /// The bridge's version.
    pub version: String,
    /// The topic prefix.
    pub name: String,
    /// The database.
    pub database: String,
}

/// A change that cannot be published. Names the table and column, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A value is not the text form of its type.
    #[error("encoding column {column:?} of table {table}")]
    Value {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
        /// What is wrong.
        source: ValueError,
    },
    /// A value came in binary form, which the bridge does not ask for.
    #[error(
        "encoding column {column:?} of table {table}: the server sent a binary value, which was not asked for"
    )]
    Binary {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// A key column is null.
    #[error("keying a row of table {table}: key column {column:?} is null")]
    KeyNull {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// A key column is a TOAST value that did not change and was not sent.
    #[error(
        "keying a row of table {table}: the server did not send the unchanged large value of key column {column:?}"
    )]
    KeyUnchanged {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// The settings of the table do not fit it.
    #[error(transparent)]
    Rules(RuleError),
    /// A deleted row came without a key column, for it is not part of the replica identity.
    #[error(
        "keying a deleted row of table {table}: key column {column:?} is not part of the replica identity"
    )]
    KeyOutsideIdentity {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
}

impl EncodeError {
    /// What an operator can do about it: SQL or a setting.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::KeyOutsideIdentity { table, .. } | Self::KeyUnchanged { table, .. } => {
                Some(format!(
                    "for changes to come: ALTER TABLE {table} REPLICA IDENTITY FULL; for those already written: leave out the key configured for {table}"
                ))
            }
            Self::KeyNull { table, .. } => {
                Some(format!("configure a key of NOT NULL columns for {table}"))
            }
            Self::Rules(error) => Some(error.fix()),
            Self::Value { .. } | Self::Binary { .. } => None,
        }
    }
}

/// Writes changes as records in the configured format.
#[derive(Debug)]
pub struct Encoder {
    format: Format,
    forms: Forms,
    source: SourceParts,
    rules: ValueRules,
    plans: HashMap<u32, Plan>,
    /// Places of the columns left out of the row that is being written.
    unchanged: Vec<usize>,
}

impl Encoder {
    /// An encoder that has seen no relation yet.
    #[must_use]
    pub fn new(options: &EncodeOptions<'_>) -> Self {
        Self {
            format: options.format.clone(),
            forms: Forms::of(options.format),
            source: SourceParts::new(&options.source),
            rules: ValueRules::default(),
            plans: HashMap::new(),
            unchanged: Vec::new(),
        }
    }

    /// The same with rules for the values of some tables.
    #[must_use]
    pub fn with_rules(mut self, rules: ValueRules) -> Self {
        self.rules = rules;
        self
    }

    /// Prepares for the changes of a relation. Need not be called, but tells before the first
    /// change whether the rules fit.
    ///
    /// # Errors
    ///
    /// [`RuleError`] when the settings of the table do not fit it.
    pub fn announce(&mut self, relation: &Arc<Relation>) -> Result<(), RuleError> {
        self.plan(relation)
    }

    /// Replaces what is in `out` by the records of `change`; `now_us` is the wall clock in
    /// microseconds since the Unix epoch. After an error, `out` is empty.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when a value or the key cannot be written.
    pub fn encode(
        &mut self,
        change: &Change<'_>,
        now_us: i64,
        out: &mut Records,
    ) -> Result<(), EncodeError> {
        out.clear();
        let result = self.encode_data(change, now_us, out);
        if result.is_err() {
            out.clear();
        }
        result
    }

    fn encode_data(
        &mut self,
        change: &Change<'_>,
        now_us: i64,
        out: &mut Records,
    ) -> Result<(), EncodeError> {
        if let Some(relation) = change.relation() {
            self.plan(relation).map_err(EncodeError::Rules)?;
        }
        self.unchanged.clear();
        let mut writer = Writer {
            format: &self.format,
            source: &self.source,
            unchanged: &mut self.unchanged,
            change,
            now_us,
            out,
        };
        let plan = |relation: &Arc<Relation>| self.plans.get(&relation.oid);
        match change.data {
            Data::Insert { relation, after } => plan(relation).map_or(Ok(()), |plan| {
                let key = writer.key(plan, &after)?;
                writer.row(plan, b'c', None, &after, key, None)
            }),
            Data::Update { relation, before, after } => {
                plan(relation).map_or(Ok(()), |plan| writer.update(plan, before.as_ref(), &after))
            }
            Data::Delete { relation, before } => plan(relation).map_or(Ok(()), |plan| {
                let key = writer.old_key(plan, &before)?;
                writer.delete(plan, &before, key, None)
            }),
            Data::Truncate { relation } => {
                if let Some(plan) = plan(relation) {
                    writer.truncate(plan);
                }
                Ok(())
            }
            Data::Message { prefix, content } => {
                writer.message(prefix, content);
                Ok(())
            }
        }
    }

    /// Makes the relation's plan, unless it is there and still holds.
    #[inline]
    fn plan(&mut self, relation: &Arc<Relation>) -> Result<(), RuleError> {
        let known = self.plans.get(&relation.oid);
        if !known.is_some_and(|plan| Arc::ptr_eq(&plan.relation, relation)) {
            let rules = self.rules.of(relation)?;
            self.plans.insert(relation.oid, Plan::new(relation, rules, &self.forms));
        }
        Ok(())
    }
}

/// Bytes in a [`Records`] that are a key; none for a table without one.
type Key = Option<Range<usize>>;

/// Writes the records of one change.
struct Writer<'a, 'c> {
    format: &'a Format,
    source: &'a SourceParts,
    unchanged: &'a mut Vec<usize>,
    change: &'a Change<'c>,
    now_us: i64,
    out: &'a mut Records,
}

impl Writer<'_, '_> {
    fn key(&mut self, plan: &Plan, row: &Row<'_>) -> Result<Key, EncodeError> {
        if !plan.has_key() {
            return Ok(None);
        }
        self.out.append(|out| plan.write_key(row, self.format.key, out)).map(Some)
    }

    fn old_key(&mut self, plan: &Plan, row: &OldRow<'_>) -> Result<Key, EncodeError> {
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
    fn update(
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
                let link = Header { name: HEADER_NEW_KEY, value: new };
                self.delete(plan, before, Some(old.clone()), Some(link))?;
                let link = Header { name: HEADER_OLD_KEY, value: old };
                return self.row(plan, b'c', None, after, key, Some(link));
            }
        }
        self.row(plan, b'u', before, after, key, None)
    }

    /// A row that exists after the change.
    fn row(
        &mut self,
        plan: &Plan,
        op: u8,
        before: Option<&OldRow<'_>>,
        after: &Row<'_>,
        key: Key,
        link: Option<Header>,
    ) -> Result<(), EncodeError> {
        let unchanged = &mut *self.unchanged;
        let (source, change, now_us) = (self.source, self.change, self.now_us);
        let value = match self.format.value {
            ValueFormat::Debezium => self.out.append(|out| {
                out.extend_from_slice(b"{\"before\":");
                match before {
                    Some(before) => plan.write_old_row(before, out)?,
                    None => out.extend_from_slice(b"null"),
                }
                out.extend_from_slice(b",\"after\":");
                plan.write_row(after, unchanged, out)?;
                out.push(b',');
                source.write(change, now_us, &plan.source_table, out);
                envelope::write_tail(op, now_us, out);
                Ok(())
            }),
            ValueFormat::Flat => {
                let metadata = self.format.flat_metadata;
                self.out.append(|out| {
                    plan.write_row(after, unchanged, out)?;
                    if metadata {
                        flat::append_metadata(change, op, now_us, out);
                    }
                    Ok(())
                })
            }
        }?;
        let headers = self.headers(link);
        let headers = self.unchanged_header(plan, headers);
        self.out.records.push(Record { key, value: Some(value), headers });
        Ok(())
    }

    /// The event of a delete as far as the format has one, then the tombstone.
    fn delete(
        &mut self,
        plan: &Plan,
        before: &OldRow<'_>,
        key: Key,
        link: Option<Header>,
    ) -> Result<(), EncodeError> {
        let (source, change, now_us) = (self.source, self.change, self.now_us);
        let value = match self.format.value {
            ValueFormat::Debezium => Some(self.out.append(|out| {
                out.extend_from_slice(b"{\"before\":");
                plan.write_old_row(before, out)?;
                out.extend_from_slice(b",\"after\":null,");
                source.write(change, now_us, &plan.source_table, out);
                envelope::write_tail(b'd', now_us, out);
                Ok(())
            })?),
            ValueFormat::Flat if self.format.flat_metadata => Some(self.out.append(|out| {
                plan.write_old_row(before, out)?;
                flat::append_metadata(change, b'd', now_us, out);
                Ok(())
            })?),
            ValueFormat::Flat => None,
        };
        let headers = self.headers(link);
        let tombstone = key.is_some() && (self.format.tombstones || value.is_none());
        if value.is_some() {
            let record = Record { key: key.clone(), value, headers: headers.clone() };
            self.out.records.push(record);
        }
        if tombstone {
            self.out.records.push(Record { key, value: None, headers });
        }
        Ok(())
    }

    fn truncate(&mut self, plan: &Plan) {
        let start = self.out.buffer.len();
        let out = &mut self.out.buffer;
        match self.format.value {
            ValueFormat::Debezium => {
                out.extend_from_slice(b"{\"before\":null,\"after\":null,");
                self.source.write(self.change, self.now_us, &plan.source_table, out);
                envelope::write_tail(b't', self.now_us, out);
            }
            ValueFormat::Flat if self.format.flat_metadata => {
                out.extend_from_slice(b"{}");
                flat::append_metadata(self.change, b't', self.now_us, out);
            }
            ValueFormat::Flat => return,
        }
        let value = Some(start..self.out.buffer.len());
        let headers = self.headers(None);
        self.out.records.push(Record { key: None, value, headers });
    }

    fn message(&mut self, prefix: &str, content: &[u8]) {
        let out = &mut self.out.buffer;
        out.extend_from_slice(b"{\"prefix\":");
        write_string(prefix, out);
        out.push(b'}');
        let end = out.len();
        envelope::write_message(self.source, self.change, self.now_us, (prefix, content), out);
        let value = Some(end..out.len());
        let headers = self.headers(None);
        self.out.records.push(Record { key: Some(0..end), value, headers });
    }

    /// The headers that do not depend on the row.
    fn headers(&mut self, link: Option<Header>) -> Range<usize> {
        let start = self.out.headers.len();
        self.out.headers.extend(link);
        if self.format.position_headers {
            let position = self.change.position;
            self.number_header(HEADER_LSN, position.commit_lsn.as_u64());
            if let Some(transaction) = self.change.transaction {
                self.number_header(HEADER_XID, transaction.xid);
            }
            self.number_header(HEADER_ORDINAL, position.ordinal);
        }
        start..self.out.headers.len()
    }

    fn number_header(&mut self, name: &'static str, number: impl itoa::Integer) {
        let start = self.out.buffer.len();
        write_number(number, &mut self.out.buffer);
        self.out.headers.push(Header { name, value: start..self.out.buffer.len() });
    }

    /// Adds the header that names the columns left out, if there are any.
    fn unchanged_header(&mut self, plan: &Plan, headers: Range<usize>) -> Range<usize> {
        if self.unchanged.is_empty() {
            return headers;
        }
        let out = &mut self.out.buffer;
        let start = out.len();
        for &at in self.unchanged.iter() {
            out.push(if out.len() == start { b'[' } else { b',' });
            let name = plan.relation.columns.get(at).map(|column| column.name.as_str());
            write_string(name.unwrap_or_default(), out);
        }
        out.push(b']');
        self.out.headers.push(Header { name: HEADER_UNCHANGED, value: start..out.len() });
        headers.start..self.out.headers.len()
    }
}
