//! Records that are larger than Kafka takes: how large they are, and how they are cut to fit.
//!
//! Only the columns that `truncate_oversize` names are cut, all to one length in characters, the
//! largest at which every record of the change fits. So short values remain complete, and the
//! header `rowcast.truncated` names those that were cut. A key is never cut: it is written from the
//! values as they are.
//!
//! May allocate, and writes the change again some twenty times: a row this large is rare.

use std::sync::Arc;

use super::error::EncodeError;
use super::plan::Plan;
use super::records::{Header, Records};
use super::rules::Rule;
use super::{Encoder, HEADER_TRUNCATED, PlanId};
use crate::change::{Change, Data, Relation};
use crate::pgoutput::Datum;
use crate::types::write_string;

/// What a record takes on the wire in addition to keys, values and headers: its own fields and those of the
/// batch that it is alone in. <https://kafka.apache.org/documentation/#recordbatch>
const RECORD_BYTES: usize = 36 + 61;

/// The same for a header: its two lengths.
const HEADER_BYTES: usize = 10;

/// More than the names of a record's headers and all that its fields take.
const MARGIN_BYTES: usize = 1024;

impl Records {
    /// The size on the wire of the largest record, before compression, where that is above `limit`.
    #[must_use]
    #[inline]
    pub fn above(&self, limit: usize) -> Option<usize> {
        // All bytes of all records are in one buffer: checking each is rarely needed.
        if self.buffer.len() + MARGIN_BYTES <= limit {
            return None;
        }
        self.largest().filter(|&bytes| bytes > limit)
    }

    #[cold]
    fn largest(&self) -> Option<usize> {
        let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        let sizes = self.iter().map(|record| {
            let header =
                |(name, value): (&str, Option<&[u8]>)| HEADER_BYTES + name.len() + bytes(value);
            let headers: usize = record.headers().map(header).sum();
            RECORD_BYTES + bytes(record.key) + bytes(record.value) + headers
        });
        sizes.max()
    }

    /// Adds a header to each record that has a value.
    fn mark(&mut self, name: &'static str, value: &[u8]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(value);
        let header = Header { name, value: start..self.buffer.len() };
        for record in self.records.iter_mut().filter(|record| record.value.is_some()) {
            let first = self.headers.len();
            self.headers.extend_from_within(record.headers.clone());
            self.headers.push(header.clone());
            record.headers = first..self.headers.len();
        }
    }
}

impl Encoder {
    /// Whether some columns of the table may be cut.
    #[must_use]
    pub fn may_cut(&self, plan: PlanId) -> bool {
        self.plans.get(plan).is_some_and(|plan| !plan.cuttable.is_empty())
    }

    /// Replaces what is in `out`, the records of `change` that were just written and are too large,
    /// by ones that fit, with values cut. Returns whether that could be done; where not, `out` is
    /// empty.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn cut(
        &mut self,
        change: &Change<'_>,
        now_us: i64,
        limit: usize,
        out: &mut Records,
    ) -> Result<bool, EncodeError> {
        let id = change.relation().and_then(|relation| self.plans.id(relation.oid));
        self.take_back(id);
        out.clear();
        let Some(id) = id else { return Ok(false) };
        let Some(plan) = self.plans.get(id) else { return Ok(false) };
        let relation = Arc::clone(&plan.relation);
        let places = plan.cuttable.clone();
        let lengths: Vec<usize> = places.iter().map(|&at| length(change, &relation, at)).collect();
        let mut fitting = None;
        let (mut low, mut high) = (0, lengths.iter().copied().max().unwrap_or(0));
        while low < high {
            let middle = low + (high - low) / 2;
            self.encode_cut((change, id, now_us), &places, middle, out)?;
            self.take_back(Some(id));
            if out.above(limit.saturating_sub(MARGIN_BYTES)).is_none() {
                fitting = Some(middle);
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(count) = fitting else {
            out.clear();
            return Ok(false);
        };
        self.encode_cut((change, id, now_us), &places, count, out)?;
        let is_cut = |&(_, length): &(&usize, &usize)| *length > count;
        let cut = places.iter().zip(&lengths).filter(is_cut).map(|(at, _)| *at);
        out.mark(HEADER_TRUNCATED, &names(&relation, cut));
        Ok(true)
    }

    /// Writes a change with these columns cut to so many characters.
    fn encode_cut(
        &mut self,
        (change, id, now_us): (&Change<'_>, PlanId, i64),
        places: &[usize],
        count: usize,
        out: &mut Records,
    ) -> Result<(), EncodeError> {
        let mut before = Vec::with_capacity(places.len());
        for_columns(self.plans.get_mut(id), places, |rule| {
            let cut = match *rule {
                Rule::Truncate(own) => own.min(count),
                _ => count,
            };
            before.push(std::mem::replace(rule, Rule::Truncate(cut)));
        });
        let result = self.encode_as(change, Some(id), now_us, out);
        let mut before = before.into_iter();
        for_columns(self.plans.get_mut(id), places, |rule| {
            if let Some(own) = before.next() {
                *rule = own;
            }
        });
        result
    }
}

fn for_columns(plan: Option<&mut Plan>, places: &[usize], mut visit: impl FnMut(&mut Rule)) {
    let Some(plan) = plan else { return };
    for &at in places {
        if let Some(column) = plan.columns.get_mut(at) {
            visit(&mut column.rule);
        }
    }
}

/// Characters of the longest value that a change has for a column, before or after.
fn length(change: &Change<'_>, relation: &Relation, at: usize) -> usize {
    let before = change.tuples().0.and_then(|tuple| tuple.datum(at));
    let after = match change.data {
        // One that was read back is written too.
        Data::Insert { after: row, .. }
        | Data::Update { after: row, .. }
        | Data::Read { row, .. } => Some(row.datum(relation, at)),
        Data::Delete { .. } | Data::Truncate { .. } | Data::Message { .. } => None,
    };
    let characters = |datum: Option<Datum<'_>>| match datum {
        Some(Datum::Text(text)) => text.iter().filter(|&&byte| byte & 0xC0 != 0x80).count(),
        _ => 0,
    };
    characters(before).max(characters(after))
}

/// A JSON array of columns' names.
fn names(relation: &Relation, places: impl Iterator<Item = usize>) -> Vec<u8> {
    let mut out = vec![b'['];
    for at in places {
        if out.len() > 1 {
            out.push(b',');
        }
        write_string(relation.columns.get(at).map_or("", |column| &column.name), &mut out);
    }
    out.push(b']');
    out
}
