//! Handles rows and messages whose record is larger than Kafka accepts, before they are sent if the
//! limit is known.
//!
//! The client's own limit is known, and the topic's if the brokers report it. The client compares
//! the bytes before compression, a broker the batch as it arrives. So a compressed record above the
//! topic's limit may still be accepted: under `fail` the broker decides, and its refusal stops the
//! stream. A policy that handles the row decides here, by the bytes before compression, because
//! after a refusal the following records are already in flight.

use crate::change::{Change, Data, Op};
use crate::config::OnOversize;
use crate::encode::{EncodeError, Encoder, Records};
use crate::metrics::Metrics;

/// What to do with records that are too large, and the client's limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Oversize {
    /// What to do if nothing may be cut; if not configured, see `Oversize::acts_on`.
    pub action: Option<OnOversize>,
    /// The largest record that the client accepts, in bytes.
    pub client_limit: usize,
    /// Whether batches are compressed.
    pub is_compressed: bool,
}

impl Default for Oversize {
    /// Nothing is too large.
    fn default() -> Self {
        Self { action: None, client_limit: usize::MAX, is_compressed: false }
    }
}

/// The largest record that may be sent to a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) bytes: usize,
    bound: &'static str,
}

impl Oversize {
    /// Whether the stream continues without a change that is too large. By default it skips a
    /// logical message, which any role may write, and not a row.
    pub(crate) const fn acts_on(&self, op: Op) -> bool {
        match self.action {
            Some(action) => matches!(action, OnOversize::DeadLetter),
            None => matches!(op, Op::Message),
        }
    }

    /// `topic` is the topic's own limit, if known; `acts` says whether a change that is too large
    /// is handled.
    pub(crate) const fn limit(&self, topic: Option<usize>, acts: bool) -> Limit {
        let is_certain = !self.is_compressed;
        match topic {
            Some(bytes) if bytes < self.client_limit && (is_certain || acts) => {
                Limit { bytes, bound: "the topic's max.message.bytes" }
            }
            _ => Limit { bytes: self.client_limit, bound: "message.max.bytes of kafka.properties" },
        }
    }
}

/// Refuses a logical message that is too large in any form, before its record is written: any role
/// may write one of a gigabyte, and its record would take more than twice as much in addition.
#[inline]
pub(crate) fn refuse_unwritten(
    change: &Change<'_>,
    limit: Limit,
    metrics: &Metrics,
) -> Result<(), EncodeError> {
    let Data::Message { prefix, content } = change.data else { return Ok(()) };
    let (bytes, Limit { bytes: limit, bound }) = (prefix.len() + content.len(), limit);
    if bytes <= limit {
        return Ok(());
    }
    metrics.oversize.inc();
    Err(EncodeError::MessageTooLarge { bytes, limit, bound })
}

/// Makes the records of a change fit if its table allows that. Otherwise returns why they can't be
/// sent.
#[cold]
pub(crate) fn fit(
    (change, now_us): (&Change<'_>, i64),
    bytes: usize,
    limit: Limit,
    encoder: &mut Encoder,
    records: &mut Records,
    metrics: &Metrics,
) -> Result<(), EncodeError> {
    metrics.oversize.inc();
    if encoder.cut(change, now_us, limit.bytes, records)? {
        metrics.truncated.inc();
        return Ok(());
    }
    let Limit { bytes: limit, bound } = limit;
    Err(match change.relation() {
        Some(relation) => EncodeError::TooLarge {
            table: relation.full_name.clone(),
            key_columns: relation.key_names().map(str::to_owned).collect(),
            bytes,
            limit,
            bound,
        },
        None => EncodeError::MessageTooLarge { bytes, limit, bound },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_decides_only_where_it_may_take_more_and_nothing_else_is_to_be_done() {
        let oversize =
            |action, is_compressed| Oversize { action, client_limit: 1000, is_compressed };
        let (fail, letter) = (Some(OnOversize::Fail), Some(OnOversize::DeadLetter));
        for (action, compressed, topic, bytes, of_message) in [
            (fail, true, Some(500), 1000, 1000),
            (fail, false, Some(500), 500, 500),
            (letter, true, Some(500), 500, 500),
            (letter, true, None, 1000, 1000),
            (letter, true, Some(2000), 1000, 1000),
            (None, true, Some(500), 1000, 500),
            (None, false, Some(500), 500, 500),
        ] {
            let oversize = oversize(action, compressed);
            for (op, bytes) in [(Op::Create, bytes), (Op::Message, of_message)] {
                let limit = oversize.limit(topic, oversize.acts_on(op));
                assert_eq!(limit.bytes, bytes, "{action:?} {compressed} {topic:?} {op:?}");
            }
            assert_eq!(oversize.limit(Some(500), true).bytes, 500, "a row that may be cut");
        }
    }
}
