//! Rows whose record is larger than Kafka takes: found before they are sent, where that can be known.
//!
//! Known are the client's own bound and, where the brokers tell it, the topic's. The client judges
//! by the bytes before compression, a broker by the batch as it arrives. So what is above the
//! topic's bound and goes out compressed may still be taken: under `fail` the broker decides, and
//! its refusal stops the stream. A policy that does something about the row decides here, by the
//! bytes before compression; for after a refusal it would be too late, as what follows is under way.

use crate::change::Change;
use crate::config::OnOversize;
use crate::encode::{EncodeError, Encoder, Records};
use crate::metrics::Metrics;

/// What to do with records that are too large, and what the client knows of that.
#[derive(Debug, Clone, Copy)]
pub struct Oversize {
    /// What to do where nothing may be cut.
    pub action: OnOversize,
    /// The largest record that the client takes, in bytes.
    pub client_limit: usize,
    /// Whether batches are compressed.
    pub is_compressed: bool,
}

impl Default for Oversize {
    /// Nothing is too large.
    fn default() -> Self {
        Self { action: OnOversize::Fail, client_limit: usize::MAX, is_compressed: false }
    }
}

/// The largest record that may be sent to a topic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) bytes: usize,
    bound: &'static str,
}

impl Oversize {
    /// `topic` is the topic's own bound, where it is known; `may_cut` says whether a row of the
    /// table may be cut.
    pub(super) const fn limit(&self, topic: Option<usize>, may_cut: bool) -> Limit {
        let is_certain = !self.is_compressed;
        let acts = may_cut || matches!(self.action, OnOversize::DeadLetter);
        match topic {
            Some(bytes) if bytes < self.client_limit && (is_certain || acts) => {
                Limit { bytes, bound: "the topic's max.message.bytes" }
            }
            _ => Limit { bytes: self.client_limit, bound: "message.max.bytes of kafka.properties" },
        }
    }
}

/// Makes the records of a change fit, if its table allows that. Gives the reason why they can't be
/// sent where it does not.
#[cold]
pub(super) fn fit(
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
    let (table, key_columns) = change.relation().map_or_else(Default::default, |relation| {
        (relation.full_name.clone(), relation.key_names().map(str::to_owned).collect())
    });
    Err(EncodeError::TooLarge { table, key_columns, bytes, limit: limit.bytes, bound: limit.bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_decides_only_where_it_may_take_more_and_nothing_else_is_to_be_done() {
        let oversize =
            |action, is_compressed| Oversize { action, client_limit: 1000, is_compressed };
        let (fail, letter) = (OnOversize::Fail, OnOversize::DeadLetter);
        for (action, compressed, topic, may_cut, bytes) in [
            (fail, true, Some(500), false, 1000),
            (fail, false, Some(500), false, 500),
            (fail, true, Some(500), true, 500),
            (letter, true, Some(500), false, 500),
            (letter, true, None, false, 1000),
            (letter, true, Some(2000), false, 1000),
        ] {
            let limit = oversize(action, compressed).limit(topic, may_cut);
            assert_eq!(limit.bytes, bytes, "{action:?} {compressed} {topic:?} {may_cut}");
        }
    }
}
