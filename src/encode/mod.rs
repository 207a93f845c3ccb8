//! Records from changes: keys, values and headers, written straight into reused buffers.
//!
//! [`Encoder::encode`] takes one [`Change`] and leaves its records in a [`Records`]; once both are
//! warm, it allocates nothing. What a record holds:
//!
//! | change | records under `debezium`, `debezium-schema`, `cloudevents` | under `flat` |
//! |---|---|---|
//! | insert | `c` | the row |
//! | update | `u` | the row |
//! | update of the key | `d` of the old key, tombstone, `c` of the new | delete of the old key, the row |
//! | delete | `d`, tombstone | with metadata: the old row, tombstone; without: tombstone |
//! | row of a snapshot | `r` | the row |
//! | truncate | `t`, no key | with metadata: an object of the metadata alone |
//! | logical message | `m` | as under `debezium` |
//! | begin and end of a transaction, if switched on | a record each | the same |
//!
//! - Tombstones after an event can be switched off. In `flat` without metadata the tombstone is the
//!   delete itself, and is always written. A table without a key has no tombstones.
//! - `before`, and a flat delete, hold only the columns that the server sent; under the types of
//!   Debezium all columns, with null, the default or something like zero for those not sent.
//! - `flat` metadata has the names and forms of Debezium's ExtractNewRecordState: `__op`,
//!   `__ts_ms` (when the event was made), `__lsn` (the change's own), `__deleted` (`"true"` or
//!   `"false"`, as text).
//! - A TOAST value that did not change, and that no old row lends, is left out of the row or has
//!   Debezium's placeholder, as `format.unchanged_toast` says; the record carries the header
//!   `rowcast.unchanged`, a JSON array of the columns' names. One that was read back is named in
//!   the header `rowcast.reselected`.
//! - The position headers are `rowcast.lsn` and `rowcast.ordinal` (the change's position, decimal)
//!   and `rowcast.xid`; all records of one change carry the same.
//! - Debezium's context headers are on every record of a table, tombstones too, and on no other.
//! - The two records around a transaction are never CloudEvents, as Debezium's converter for those
//!   knows no other events than those of rows.
//! - Under `debezium-schema` a row has every column, as its schema says: what the server did not
//!   send is null or something like zero, an unchanged TOAST value Debezium's placeholder.
//!
//! Not here: topics, partitions, when to send. A change may have no record: the caller counts that.

mod cloudevents;
mod dead_letter;
mod dead_message;
mod default;
mod digits;
mod envelope;
mod error;
mod flat;
mod headers;
mod key;
mod nulls;
mod oversize;
mod plan;
mod plans;
mod records;
mod rules;
mod schema;
mod transaction;
mod writer;

use std::convert::Infallible;
use std::sync::Arc;

use self::cloudevents::CloudEventParts;
pub use self::dead_letter::{HEADER_ERROR, HEADER_OP, HEADER_TABLE};
use self::envelope::SourceParts;
pub use self::error::EncodeError;
use self::headers::{ContextHeaders, number_header};
pub use self::headers::{
    HEADER_CONTENT_TYPE, HEADER_CONTEXT_CONNECTOR, HEADER_CONTEXT_NAME, HEADER_CONTEXT_RUN,
    HEADER_CONTEXT_TASK, HEADER_LSN, HEADER_NEW_KEY, HEADER_OLD_KEY, HEADER_ORDINAL,
    HEADER_RESELECTED, HEADER_TRUNCATED, HEADER_UNCHANGED, HEADER_XID,
};
use self::plan::{Plan, Shape};
pub use self::plans::PlanId;
use self::plans::Plans;
use self::records::Record;
pub use self::records::{RecordRef, Records};
pub use self::rules::{RuleError, ValueRules};
use self::schema::Heads;
use self::transaction::{Counts, MESSAGES_AT};
use self::writer::Writer;
use crate::change::{Change, Data, Relation, Transaction};
use crate::config::{Format, UnchangedToast, ValueFormat};
use crate::lsn::Lsn;
use crate::types::Forms;

/// The settings of an encoder.
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
    /// The ID of this run, a UUID; for the context headers.
    pub run_id: String,
}

/// Writes changes as records in the configured format.
#[derive(Debug)]
pub struct Encoder {
    format: Format,
    forms: Forms,
    source: SourceParts,
    /// The topic prefix.
    prefix: String,
    heads: Heads,
    rules: ValueRules,
    cloud: CloudEventParts,
    context: Option<ContextHeaders>,
    /// Only where transaction metadata is wanted.
    counts: Option<Counts>,
    plans: Plans,
    /// Places of the columns left out of the row that is being written.
    unchanged: Vec<usize>,
    /// Events counted before the change that was written last.
    counted: u64,
}

impl Encoder {
    /// An encoder that has seen no relation yet.
    #[must_use]
    pub fn new(options: &EncodeOptions<'_>) -> Self {
        let EncodeOptions { format, source } = options;
        let forms = Forms::of(format);
        let forms = match format.value {
            ValueFormat::DebeziumSchema => forms.with_schema(),
            _ => forms,
        };
        Self {
            source: SourceParts::new(source),
            prefix: source.name.clone(),
            heads: Heads::new(format),
            rules: ValueRules::default(),
            cloud: CloudEventParts::new(source),
            context: format.has_context_headers().then(|| ContextHeaders::new(source)),
            counts: format.transaction_metadata.then(Counts::new),
            forms,
            format: (*format).clone(),
            plans: Plans::default(),
            unchanged: Vec::new(),
            counted: 0,
        }
    }

    /// The same with rules for the values of some tables.
    #[must_use]
    pub fn with_rules(mut self, rules: ValueRules) -> Self {
        self.rules = rules;
        self
    }

    /// What is to be done about large values that did not change.
    #[must_use]
    pub fn unchanged_toast(&self) -> UnchangedToast {
        self.format.unchanged_toast()
    }

    /// Prepares for the changes of a relation, which go to `topic`. Need not be called, but says
    /// before the first change whether the rules fit, and names the schema by the topic.
    ///
    /// # Errors
    ///
    /// [`RuleError`] when the settings of the table do not fit it.
    pub fn announce(&mut self, relation: &Arc<Relation>, topic: &str) -> Result<PlanId, RuleError> {
        self.plan(relation, Some(topic))
    }

    /// Nothing of these tables is written any more, unless they are described again. Not within a
    /// transaction.
    pub fn forget(&mut self, tables: &[u32]) {
        for oid in tables {
            self.plans.forget(*oid);
        }
        if let Some(counts) = &mut self.counts {
            counts.keep(self.plans.iter().map(|plan| plan.relation.full_name.as_str()));
        }
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
        let plan = change.relation().map(|relation| self.plan(relation, None)).transpose();
        self.encode_as(change, plan.map_err(EncodeError::Rules)?, now_us, out)
    }

    /// The same, given what [`announce`](Self::announce) returned for the relation of the change, if
    /// it has one.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_as(
        &mut self,
        change: &Change<'_>,
        plan: Option<PlanId>,
        now_us: i64,
        out: &mut Records,
    ) -> Result<(), EncodeError> {
        out.clear();
        self.counted = self.counts.as_ref().map_or(0, Counts::total);
        let result = self.encode_data(change, plan, now_us, out);
        if let Some(plan) = plan.and_then(|id| self.plans.get(id)) {
            count_replaced(plan, out);
        }
        if result.is_err() {
            out.clear();
            self.take_back(plan);
        }
        result
    }

    /// The change that was written last is not to be counted: it is not sent as it is.
    fn take_back(&mut self, plan: Option<PlanId>) {
        let collection = match plan {
            Some(id) => self.plans.get(id).map(|plan| plan.collection),
            None => Some(MESSAGES_AT),
        };
        if let (Some(counts), Some(collection)) = (&mut self.counts, collection) {
            counts.take_back(self.counted, collection);
        }
    }

    /// Replaces what is in `out` with the record of a change which [`encode`](Self::encode) refused
    /// with this error: a dead letter. It has the change's values unless they are what is too
    /// large, or would make the letter larger than `limit` bytes.
    pub fn dead_letter(
        &self,
        change: &Change<'_>,
        error: &EncodeError,
        limit: usize,
        out: &mut Records,
    ) {
        out.clear();
        if let Data::Message { prefix, content } = change.data {
            let is_small = !matches!(error, EncodeError::MessageTooLarge { .. });
            let head = &self.heads.message_key;
            let message = (prefix, content);
            dead_message::write(change, message, error, (head, is_small), out);
            if out.above(limit).is_some() {
                out.clear();
                dead_message::write(change, message, error, (head, false), out);
            }
            return;
        }
        let id = change.relation().and_then(|relation| self.plans.id(relation.oid));
        let Some(plan) = id.and_then(|id| self.plans.get(id)) else { return };
        let is_small = !matches!(error, EncodeError::TooLarge { .. });
        dead_letter::write(plan, change, error, (self.format.key, is_small), out);
        if out.above(limit).is_some() {
            out.clear();
            dead_letter::write(plan, change, error, (self.format.key, false), out);
        }
    }

    /// Whether the events of a transaction are counted.
    #[must_use]
    pub const fn counts_events(&self) -> bool {
        self.counts.is_some()
    }

    /// Replaces what is in `out` by the record that a transaction began, if transaction metadata
    /// is wanted. `lsn` is the position that the message's frame carries.
    pub fn begin(&mut self, transaction: &Transaction, lsn: Lsn, out: &mut Records) {
        out.clear();
        if let Some(counts) = &mut self.counts {
            counts.reset();
            self.around(transaction, lsn, out, |out| {
                transaction::write_begin(transaction, lsn, out);
            });
        }
    }

    /// Replaces what is in `out` by the record that a transaction ended, if transaction metadata
    /// is wanted: it counts the events written since its beginning. `lsn` is the position that the
    /// message's frame carries.
    pub fn end(&self, transaction: &Transaction, lsn: Lsn, out: &mut Records) {
        out.clear();
        if let Some(counts) = &self.counts {
            self.around(transaction, lsn, out, |out| counts.write_end(transaction, lsn, out));
        }
    }

    /// One of the two records around a transaction.
    fn around(
        &self,
        transaction: &Transaction,
        lsn: Lsn,
        out: &mut Records,
        value: impl FnOnce(&mut Vec<u8>),
    ) {
        let Ok(()) = self.heads.transaction_key.around(&mut out.buffer, |out| {
            transaction::write_key(transaction, lsn, out);
            Ok::<(), Infallible>(())
        });
        let end = out.buffer.len();
        let Ok(()) = self.heads.transaction_value.around(&mut out.buffer, |out| {
            value(out);
            Ok::<(), Infallible>(())
        });
        let value = Some(end..out.buffer.len());
        if self.format.position_headers {
            number_header(HEADER_LSN, transaction.commit_lsn.as_u64(), out);
            number_header(HEADER_XID, transaction.xid, out);
        }
        out.records.push(Record { key: Some(0..end), value, headers: 0..out.headers.len() });
    }

    fn encode_data(
        &mut self,
        change: &Change<'_>,
        plan: Option<PlanId>,
        now_us: i64,
        out: &mut Records,
    ) -> Result<(), EncodeError> {
        if let (Some(relation), Some(id)) = (change.relation(), plan) {
            self.renew(id, relation).map_err(EncodeError::Rules)?;
            self.heed_nulls(change, id).map_err(EncodeError::Rules)?;
        }
        self.unchanged.clear();
        let mut writer = Writer {
            format: &self.format,
            source: &self.source,
            heads: &self.heads,
            cloud: &self.cloud,
            context: self.context.as_ref(),
            counts: self.counts.as_mut(),
            unchanged: &mut self.unchanged,
            change,
            now_us,
            out,
        };
        if let Data::Message { prefix, content } = change.data {
            let prefix = std::str::from_utf8(prefix).map_err(|_| EncodeError::MessagePrefix)?;
            writer.message(prefix, content);
            return Ok(());
        }
        let Some(plan) = plan.and_then(|id| self.plans.get(id)) else {
            unreachable!("a change of a table comes with the table's plan");
        };
        match change.data {
            Data::Insert { after, .. } => {
                let key = writer.key(plan, &after)?;
                writer.row(plan, b'c', None, &after, key, None)
            }
            Data::Read { row, .. } => {
                let key = writer.key(plan, &row)?;
                writer.row(plan, b'r', None, &row, key, None)
            }
            Data::Update { before, after, .. } => writer.update(plan, before.as_ref(), &after),
            Data::Delete { before, .. } => {
                let key = writer.old_key(plan, &before)?;
                writer.delete(plan, &before, key, None)
            }
            Data::Truncate { .. } => writer.truncate(plan),
            Data::Message { .. } => Ok(()),
        }
    }

    /// The relation's plan; compiles it unless the one that is there still holds.
    fn plan(&mut self, relation: &Arc<Relation>, topic: Option<&str>) -> Result<PlanId, RuleError> {
        match self.plans.id(relation.oid) {
            Some(id) if self.plans.get(id).is_some_and(|plan| plan.is_of(relation)) => Ok(id),
            _ => self.make_plan(relation, topic, &[]),
        }
    }

    /// Compiles the plan again where the relation is another by now.
    #[inline]
    fn renew(&mut self, id: PlanId, relation: &Arc<Relation>) -> Result<(), RuleError> {
        match self.plans.get(id) {
            Some(plan) if plan.is_of(relation) => Ok(()),
            other => {
                let topic = other.and_then(|plan| plan.topic.clone());
                self.make_plan(relation, topic.as_deref(), &[]).map(drop)
            }
        }
    }

    /// Compiles the relation's plan. `nullable` are the places of columns in which nulls were met
    /// although the catalog rules them out.
    fn make_plan(
        &mut self,
        relation: &Arc<Relation>,
        topic: Option<&str>,
        nullable: &[usize],
    ) -> Result<PlanId, RuleError> {
        let rules = self.rules.of(relation)?;
        let counts = self.counts.as_mut();
        let collection = counts.map_or(0, |counts| counts.place(&relation.full_name));
        let (format, forms, prefix) = (&self.format, &self.forms, self.prefix.as_str());
        let shape = Shape { format, forms, prefix, topic, nullable };
        let mut plan = Plan::new(relation, rules, &shape, collection);
        plan.cuttable = self.rules.cuttable(relation)?;
        Ok(self.plans.put(plan))
    }
}

/// Notes which columns of the row have characters replaced.
#[inline]
fn count_replaced(plan: &Plan, out: &mut Records) {
    for &at in &plan.replaceable {
        let count = plan.columns.get(at).map_or(0, |column| column.codec.take_replaced());
        if count > 0 {
            out.replaced.push((at, count));
        }
    }
}
