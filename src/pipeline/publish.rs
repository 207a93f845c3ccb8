//! Decides for one change whether it is published, to which topic, and as which records.
//!
//! Independent of the stream, so that rows of a snapshot are published by the same rules: the
//! caller passes a change to [`Publisher::prepare`] and sends the result. Nothing is allocated per
//! row: the buffers belong to the encoder and are reused, and the topic was found when the relation
//! was announced.
//!
//! Not here: tickets, Kafka transactions, what is published already (`send`, `commit`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::oversize::{Limit, fit, refuse_unwritten};
use super::report::{go_on_without, report, report_replaced};
use super::{Halt, Lookup, Oversize, Stop};
use crate::change::{Change, Data, Op, Relation, Reselected, Transaction};
use crate::checkpoint::LeftOutTable;
use crate::clock::now_us;
use crate::config::{OnError, Operation, SignalTable, TableFilter, UnchangedToast};
use crate::encode::{EncodeError, Encoder, PlanId, Records};
use crate::error::Error;
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::route::{Named, Refusal, Router, TopicPlan};
use crate::state::{LeftOut, LeftOutList, LeftOutReason};

/// What is left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    /// Operations to leave out even if the server sends them.
    pub skipped: Vec<Operation>,
    /// What to do with a change that can't be published; by default the stream skips a logical
    /// message, which any role may write, and not a row.
    pub on_error: Option<OnError>,
    /// What to do with a change that is larger than Kafka accepts.
    pub oversize: Oversize,
    /// The tables to publish, if the publication has others too: one for all tables, or for whole
    /// schemas.
    pub captured: Option<TableFilter>,
    /// The table whose rows are signals, published only if configured.
    pub signals: Option<SignalTable>,
    /// The list of tables that can't be given their topics.
    pub left_out: Arc<LeftOutList>,
}

impl Policy {
    fn skips(&self, op: Op) -> bool {
        operation(op).is_some_and(|operation| self.skipped.contains(&operation))
    }

    const fn goes_on_after(&self, error: &EncodeError, op: Op) -> bool {
        match (error, self.on_error) {
            (EncodeError::TooLarge { .. } | EncodeError::MessageTooLarge { .. }, _) => {
                self.oversize.acts_on(op)
            }
            (_, Some(on_error)) => matches!(on_error, OnError::SkipWithDeadLetter),
            (_, None) => matches!(op, Op::Message),
        }
    }
}

/// Turns changes into records, by the rules of their tables.
pub(crate) struct Publisher<L> {
    pub(crate) lookup: L,
    pub(crate) router: Router,
    encoder: Encoder,
    records: Records,
    pub(crate) policy: Policy,
    /// Kinds of errors that were logged, by table.
    told: HashSet<(u32, &'static str)>,
    tables: HashMap<u32, Destination>,
    /// Tables that are not published until they are admitted.
    left_out: HashSet<u32>,
    /// Those of them that are not noted yet.
    refused: Vec<LeftOutTable>,
    message_topic: Option<(Arc<str>, Limit)>,
    transaction_topic: Option<Arc<str>>,
    dead_letter_topic: Option<Arc<str>>,
}

/// All that a row of a table needs: where its records go, and how they are written.
struct Destination {
    topic: TopicPlan,
    encoded: PlanId,
    /// `None` until the first record ensures the topic: the server also describes partitions whose
    /// changes it sends as their root's.
    limit: Option<Limit>,
}

/// The outcome for a described table.
enum Placed<'a> {
    At(&'a TopicPlan),
    /// It was already left out.
    LeftOut,
    Refused(Box<Refusal>),
}

/// The records of one change, and their destination.
#[derive(Clone, Copy)]
pub(crate) struct Prepared<'a> {
    pub(crate) topic: &'a str,
    /// Milliseconds since the Unix epoch.
    pub(crate) at_ms: i64,
    /// A fixed partition, if the key does not decide it.
    pub(crate) partition: Option<i32>,
    pub(crate) records: &'a Records,
}

impl<L: Lookup> Publisher<L> {
    pub(crate) fn new(lookup: L, router: Router, encoder: Encoder, policy: Policy) -> Self {
        Self {
            lookup,
            router,
            encoder,
            records: Records::default(),
            policy,
            told: HashSet::new(),
            tables: HashMap::new(),
            left_out: HashSet::new(),
            refused: Vec::new(),
            message_topic: None,
            transaction_topic: None,
            dead_letter_topic: None,
        }
    }

    /// Finds the topic of a table that is described for the first time, or again after it changed.
    /// `before` is the former description.
    pub(crate) fn announce(
        &mut self,
        relation: &Arc<Relation>,
        before: Option<&Relation>,
    ) -> Result<(), Halt> {
        let skipped = &self.policy.skipped;
        let has_old_rows =
            [Operation::Update, Operation::Delete].iter().any(|old| !skipped.contains(old));
        match self.place(relation)? {
            Placed::At(plan) => report(before, relation, plan, has_old_rows),
            Placed::Refused(refusal) => self.leave_out(&refusal),
            Placed::LeftOut => {}
        }
        if let Some(other) = self.router.shares_with(relation.oid) {
            let table = relation.full_name.as_str();
            tracing::info!(table, %other, "two tables share one topic, as configured");
        }
        Ok(())
    }

    fn leave_out(&mut self, refusal: &Refusal) {
        let Named { oid, schema, name } = refusal.table.clone();
        self.policy.left_out.put(oid, left_out(refusal));
        self.left_out.insert(oid);
        self.refused.push(LeftOutTable { oid, schema, table: name });
    }

    /// Leaves these tables out until they are admitted.
    pub(crate) fn go_on_without(&mut self, tables: impl Iterator<Item = u32>) {
        self.left_out.extend(tables);
    }

    /// The tables that were refused since the last call.
    pub(crate) fn take_refused(&mut self) -> impl Iterator<Item = LeftOutTable> {
        self.refused.drain(..)
    }

    /// Forgets tables without further changes, unless they are described again.
    #[cold]
    pub(crate) fn forget(&mut self, tables: &[u32]) {
        let mut free = Vec::new();
        for oid in tables {
            self.tables.remove(oid);
            self.left_out.remove(oid);
            self.policy.left_out.remove(*oid);
            free.extend(self.router.release(*oid));
        }
        self.encoder.forget(tables);
        if !self.told.is_empty() {
            let tables: HashSet<&u32> = tables.iter().collect();
            self.told.retain(|(oid, _)| !tables.contains(oid));
        }
        self.lookup.forget(tables, &free);
    }

    /// The number of known tables.
    #[cfg(test)]
    pub(crate) fn known(&self) -> usize {
        self.tables.len()
    }

    /// Admits a table: no other table has its topic any more.
    pub(crate) fn admit(&mut self, oid: u32, relation: Option<&Arc<Relation>>) -> Result<(), Halt> {
        self.left_out.remove(&oid);
        if self.tables.contains_key(&oid) {
            return Ok(());
        }
        self.router.take_over(oid);
        match relation {
            Some(relation) => self.announce(relation, None),
            // It is announced when its first row arrives.
            None => Ok(()),
        }
    }

    /// The same for many tables, without logging; ensures the topics.
    pub(crate) fn settle<'a>(
        &mut self,
        relations: impl Iterator<Item = &'a Arc<Relation>> + Clone,
    ) -> Result<(), Halt> {
        let mut plans = Vec::new();
        for relation in relations.clone() {
            match self.place(relation)? {
                Placed::At(plan) => plans.push(plan.clone()),
                Placed::Refused(refusal) => return Err(Halt::Failed(Error::Route(refusal))),
                Placed::LeftOut => {}
            }
        }
        let Self { lookup, encoder, policy, tables, .. } = self;
        lookup.ensure_topics(&plans)?;
        for relation in relations {
            if let Some(table) = tables.get_mut(&relation.oid) {
                table.make_sure(lookup, encoder, policy)?;
            }
        }
        Ok(())
    }

    fn place(&mut self, relation: &Arc<Relation>) -> Result<Placed<'_>, Halt> {
        let Relation { oid, schema, table, full_name, .. } = relation.as_ref();
        if self.policy.signals.as_ref().is_some_and(|signals| signals.hides(schema, table)) {
            self.tables.remove(oid);
            return Ok(Placed::LeftOut);
        }
        let captured = self.policy.captured.as_ref();
        // A table without a topic is not published.
        if captured.is_some_and(|tables| !tables.matches(schema, table)) {
            self.tables.remove(oid);
            let table = full_name.as_str();
            tracing::info!(table, "left out: in the publication, but not in postgres.tables");
            return Ok(Placed::LeftOut);
        }
        if self.left_out.contains(oid) {
            self.tables.remove(oid);
            return Ok(Placed::LeftOut);
        }
        if let Some(withheld) = self.lookup.withheld(relation)? {
            self.tables.remove(&withheld);
            if withheld == *oid {
                return Ok(Placed::LeftOut);
            }
        }
        let plan = match self.router.topic(*oid, schema, table) {
            Ok(plan) => plan,
            Err(refusal) => {
                self.tables.remove(oid);
                return Ok(Placed::Refused(refusal));
            }
        };
        for former_oid in self.router.take_gone() {
            // It was dropped or renamed; otherwise its changes are missing from here on.
            if self.tables.remove(&former_oid).is_some() {
                let (table, topic) = (full_name.as_str(), &*plan.name);
                tracing::warn!(
                    table,
                    topic,
                    former_oid,
                    "it takes over the topic of another table"
                );
            }
        }
        let encoded = self.encoder.announce(relation, &plan.name)?;
        let table = Destination { topic: plan, encoded, limit: None };
        let place = self.tables.entry(*oid).insert_entry(table);
        Ok(Placed::At(&place.into_mut().topic))
    }

    /// Takes over what another publisher found out about a table.
    pub(crate) fn learn(&mut self, relation: &Arc<Relation>, from: &Self) -> Result<(), Halt> {
        if let Some(Destination { topic, limit, .. }) = from.tables.get(&relation.oid) {
            let encoded = self.encoder.announce(relation, &topic.name)?;
            let table = Destination { topic: topic.clone(), encoded, limit: *limit };
            self.tables.insert(relation.oid, table);
        }
        Ok(())
    }

    /// The records of a change at `lsn`; `None` if it must not be published. A change that can't be
    /// published is a dead letter or an error, depending on the policy.
    pub(crate) fn prepare(
        &mut self,
        change: &Change<'_>,
        lsn: Lsn,
        metrics: &Metrics,
        stop: &Stop,
    ) -> Result<Option<Prepared<'_>>, Halt> {
        if self.policy.skips(change.op()) {
            return Ok(None);
        }
        let Self { lookup, router, encoder, records, policy, tables, told, .. } = self;
        let (topic, limit, plan) = match change.relation() {
            Some(relation) => match tables.get_mut(&relation.oid) {
                Some(table) => {
                    let limit = match table.limit {
                        Some(limit) => limit,
                        None => table.make_sure(lookup, encoder, policy)?,
                    };
                    (&table.topic.name, limit, Some(table.encoded))
                }
                // The topic of a relation is found before the relation is known to the assembler.
                None => return Ok(None),
            },
            None => {
                let (topic, limit) = match &mut self.message_topic {
                    Some(known) => known,
                    unknown => unknown.insert(message_topic(router, lookup, policy)?),
                };
                (&*topic, *limit, None)
            }
        };
        let read = match encoder.unchanged_toast() {
            UnchangedToast::Reselect => reselect(change, lookup, stop)?,
            _ => None,
        };
        let change = &read.as_ref().map_or(*change, |read| change.with(read));
        let now_us = now_us();
        let at_ms = change.time_us(now_us) / 1000;
        let encoded = refuse_unwritten(change, limit, metrics);
        let encoded = encoded.and_then(|()| encoder.encode_as(change, plan, now_us, records));
        let encoded = encoded.and_then(|()| match records.above(limit.bytes) {
            Some(bytes) => fit((change, now_us), bytes, limit, encoder, records, metrics),
            None => Ok(()),
        });
        if let Err(source) = encoded {
            let goes_on = policy.goes_on_after(&source, change.op());
            go_on_without(change, lsn, &source, goes_on, told)?;
            encoder.dead_letter(change, &source, policy.oversize.client_limit, records);
            metrics.dead_letters.inc();
            let plan = || router.dead_letter_topic();
            let topic = topic_once(&mut self.dead_letter_topic, plan, lookup)?;
            return Ok(Some(Prepared { topic, at_ms, partition: None, records }));
        }
        count_unchanged(encoder.unchanged_toast(), records, metrics);
        if !records.replaced().is_empty() {
            report_replaced(change, records, metrics);
        }
        // A truncate has no key; it goes to partition 0.
        let partition = (change.op() == Op::Truncate).then_some(0);
        Ok(Some(Prepared { topic, at_ms, partition, records }))
    }

    /// Skips a change that is published already, but counts it in its transaction.
    pub(crate) fn pass_over(&mut self, change: &Change<'_>, metrics: &Metrics) {
        let plan = match change.relation() {
            Some(relation) => match self.tables.get(&relation.oid) {
                Some(table) => Some(table.encoded),
                None => return,
            },
            None => None,
        };
        if self.policy.skips(change.op()) {
            return;
        }
        metrics.covered.inc();
        if self.encoder.counts_events() {
            let _ = self.encoder.encode_as(change, plan, now_us(), &mut self.records);
        }
    }

    /// The record of a transaction's begin at `lsn`, if there is to be one.
    pub(crate) fn begin(
        &mut self,
        transaction: &Transaction,
        lsn: Lsn,
    ) -> Result<Option<Prepared<'_>>, Halt> {
        self.encoder.begin(transaction, lsn, &mut self.records);
        self.around(transaction)
    }

    /// The record of a transaction's end at `lsn`, if there is to be one.
    pub(crate) fn end(
        &mut self,
        transaction: &Transaction,
        lsn: Lsn,
    ) -> Result<Option<Prepared<'_>>, Halt> {
        self.encoder.end(transaction, lsn, &mut self.records);
        self.around(transaction)
    }

    fn around(&mut self, transaction: &Transaction) -> Result<Option<Prepared<'_>>, Halt> {
        if self.records.is_empty() {
            return Ok(None);
        }
        let plan = || self.router.transaction_topic();
        let topic = topic_once(&mut self.transaction_topic, plan, &mut self.lookup)?;
        let at_ms = transaction.commit_time_us / 1000;
        Ok(Some(Prepared { topic, at_ms, partition: None, records: &self.records }))
    }
}

/// The entry in the list of left-out tables for one that can't be given its topic.
#[must_use]
pub(crate) fn left_out(refusal: &Refusal) -> LeftOut {
    let Named { schema, name, .. } = refusal.table.clone();
    let (error, fix) = (refusal.to_string(), refusal.fix());
    LeftOut { schema, table: name, reason: LeftOutReason::Topic, error, fix }
}

impl Destination {
    /// Makes sure that the topic exists. Returns how large its records may be.
    fn make_sure(
        &mut self,
        lookup: &mut impl Lookup,
        encoder: &Encoder,
        policy: &Policy,
    ) -> Result<Limit, Halt> {
        let limit = lookup.ensure_topic(&self.topic)?.limit()?;
        let acts = encoder.may_cut(self.encoded) || policy.oversize.acts_on(Op::Create);
        Ok(*self.limit.insert(policy.oversize.limit(limit, acts)))
    }
}

/// The same for the topic of logical messages.
fn message_topic(
    router: &Router,
    lookup: &mut impl Lookup,
    policy: &Policy,
) -> Result<(Arc<str>, Limit), Halt> {
    let plan = router.message_topic();
    let limit = lookup.ensure_topic(&plan)?.limit()?;
    Ok((plan.name, policy.oversize.limit(limit, policy.oversize.acts_on(Op::Message))))
}

/// Rare enough to be added to the metrics at once.
fn count_unchanged(policy: UnchangedToast, records: &Records, metrics: &Metrics) {
    let (unchanged, reselected) = (records.unchanged(), records.reselected());
    if unchanged > 0 {
        let counter = match policy {
            UnchangedToast::Omit | UnchangedToast::Fail => &metrics.unchanged_omitted,
            UnchangedToast::Placeholder => &metrics.unchanged_placeholders,
            UnchangedToast::Reselect => &metrics.unchanged_not_found,
        };
        counter.inc_by(unchanged);
    }
    if reselected > 0 {
        metrics.unchanged_reselected.inc_by(reselected);
    }
}

/// Reads back the values of a row that the stream does not contain; `None` if it contains all, or
/// the row is not found. Blocks.
fn reselect(
    change: &Change<'_>,
    lookup: &mut impl Lookup,
    stop: &Stop,
) -> Result<Option<Reselected>, Halt> {
    let Data::Update { relation, after, .. } = change.data else { return Ok(None) };
    let unknown: Vec<usize> = after.unknown(relation).collect();
    if unknown.is_empty() {
        return Ok(None);
    }
    let read = lookup.reselect(relation, &after, &unknown)?;
    if stop.is_now() { Err(Halt::Stopped) } else { Ok(read) }
}

/// Ensures a topic that is not a table's, on its first record.
fn topic_once<'a>(
    known: &'a mut Option<Arc<str>>,
    plan: impl FnOnce() -> TopicPlan,
    lookup: &mut impl Lookup,
) -> Result<&'a Arc<str>, Halt> {
    match known {
        Some(topic) => Ok(topic),
        None => {
            let plan = plan();
            lookup.ensure_topic(&plan)?.limit()?;
            Ok(known.insert(plan.name))
        }
    }
}

/// The operation as the configuration names it, if it can be skipped.
const fn operation(op: Op) -> Option<Operation> {
    match op {
        Op::Create => Some(Operation::Insert),
        Op::Update => Some(Operation::Update),
        Op::Delete => Some(Operation::Delete),
        Op::Truncate => Some(Operation::Truncate),
        Op::Message => Some(Operation::Message),
        Op::Read => None,
    }
}
