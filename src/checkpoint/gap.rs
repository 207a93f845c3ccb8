//! Why a stream can't continue without missing changes, and how to continue nevertheless.
//!
//! Each fix names the way that loses nothing first, and the one that loses changes last.

use super::record::Source;
use crate::lsn::Lsn;

/// Why the stream can't go on without something missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// Somebody else confirmed the slot.
    #[error(
        "changes from {published} to {confirmed} were never published: the slot {slot:?} was \
         confirmed up to {confirmed} by somebody else, and the checkpoint ends at {published}"
    )]
    SlotAhead {
        /// The slot.
        slot: String,
        /// Up to where it is confirmed.
        confirmed: Lsn,
        /// Up to where everything is published.
        published: Lsn,
    },
    /// The slot is gone.
    #[error(
        "changes since {published} were never published and can't be read any more: the slot \
         {slot:?} does not exist; the server's WAL ends at {wal_end} now"
    )]
    SlotAbsent {
        /// The slot.
        slot: String,
        /// Up to where everything is published.
        published: Lsn,
        /// How far the server has written.
        wal_end: Lsn,
    },
    /// The slot is there, and can't be read from any more.
    #[error(
        "changes since {} were never published and can't be read any more: {} the slot {slot:?}; the \
         server's WAL ends at {wal_end} now",
        published.map_or_else(|| "the slot's last position".to_owned(), |lsn| lsn.to_string()),
        lost(reason.as_deref())
    )]
    SlotLost {
        /// The slot.
        slot: String,
        /// Up to where everything is published; none without a checkpoint.
        published: Option<Lsn>,
        /// How far the server has written.
        wal_end: Lsn,
        /// The server's word for the reason, where it has one.
        reason: Option<String>,
    },
    /// The slot was read from, and this Kafka knows nothing of it.
    #[error(
        "the slot {slot:?} was read up to {confirmed}, and this Kafka has neither a checkpoint nor a \
         topic of this pipeline: what was published before went to another cluster, or was deleted"
    )]
    NoTopics {
        /// The slot.
        slot: String,
        /// Up to where it is confirmed.
        confirmed: Lsn,
    },
    /// The checkpoint is of another source.
    #[error(
        "the checkpoint is of database {:?} of the cluster {}, and this is database {:?} of the \
         cluster {}: a restored copy, an upgraded server, or another pipeline of the same name",
        checkpoint.database, checkpoint.system_identifier, server.database, server.system_identifier
    )]
    OtherSource {
        /// What the checkpoint is of.
        checkpoint: Box<Source>,
        /// What is there.
        server: Box<Source>,
    },
    /// The checkpoint is of a slot that another reads at this moment.
    #[error(
        "the checkpoint is of the slot {theirs:?}, which another reads at this moment, and the slot \
         here is {ours:?}: there are two pipelines of this name"
    )]
    OtherPipeline {
        /// The checkpoint's slot.
        theirs: String,
        /// The configured one.
        ours: String,
    },
    /// The server's history does not hold what was published.
    #[error(
        "changes up to {published} of timeline {timeline} were published, and this server, on \
         timeline {server_timeline}, {}: it does not have all that was published, and what it \
         wrote since may be missing",
        left_at.map_or_else(|| "never was on it".to_owned(), |lsn| format!("left it at {lsn}"))
    )]
    OtherTimeline {
        /// The checkpoint's timeline.
        timeline: u32,
        /// The server's.
        server_timeline: u32,
        /// Where the server's history left the checkpoint's timeline; none if it never was on it.
        left_at: Option<Lsn>,
        /// The last change published.
        published: Lsn,
    },
    /// The server was set back.
    #[error(
        "changes up to {published} were published, and the server's WAL ends at {wal_end}: it was \
         set back, as by restoring an older copy, and what it wrote since may be missing"
    )]
    ServerBehind {
        /// Up to where everything is published.
        published: Lsn,
        /// How far the server has written.
        wal_end: Lsn,
    },
}

/// What became of a slot, by the server's word for it.
fn lost(reason: Option<&str>) -> &'static str {
    match reason {
        Some("idle_timeout") => {
            "it had no reader for longer than idle_replication_slot_timeout, and the server has \
             invalidated"
        }
        Some("wal_level_insufficient") => "wal_level was lowered, and the server has invalidated",
        Some("segment_missing") => {
            "a segment of the server's WAL is missing that is still needed by"
        }
        Some("rows_removed") => "rows that it needed are vacuumed, and the server has invalidated",
        _ => "the server has removed WAL that was still needed by",
    }
}

impl Gap {
    /// How to go on.
    #[must_use]
    pub fn fix(&self) -> String {
        let again = "set postgres.on_gap = \"snapshot\": all rows are read again, and none that \
                     is still there is missing. Only if the rest may be lost: rowcast run \
                     --accept-gap continues without it, from ";
        let second = "for a second pipeline, set `name` to a name of its own. Else ";
        let rest = match self {
            Self::OtherPipeline { .. } => {
                return "for a second pipeline, set `name` to a name of its own; for the same one, set \
                        postgres.slot back, or stop the other"
                    .to_owned();
            }
            // Here accepting loses nothing that the slot holds, and a new slot would.
            Self::OtherSource { .. } => {
                return format!(
                    "{second}for the same one, after an upgrade or a restore: rowcast run \
                     --accept-gap keeps the slot here, if there is one, with all that it holds, \
                     and continues from its confirmed position; then rowcast snapshot reads the \
                     rows again. In one step, but with a new slot, and without the changes that \
                     the present one holds: postgres.on_gap = \"snapshot\""
                );
            }
            Self::NoTopics { .. } => {
                return "set postgres.on_gap = \"snapshot\": all rows are read into this Kafka. \
                        Or move what was published: set kafka.brokers back, or copy the topics \
                        here, with the one that topics.checkpoints names. Only where what was \
                        published before is not needed here: rowcast run --accept-gap continues \
                        from the slot's confirmed position"
                    .to_owned();
            }
            Self::SlotAhead { .. } => "the slot's confirmed position",
            Self::SlotAbsent { .. } => "a new slot",
            Self::SlotLost { reason, .. } => match reason.as_deref() {
                Some("idle_timeout") => {
                    "a new slot in place of this one; raise idle_replication_slot_timeout, or set it to \
                     0, to keep it next time"
                }
                Some("wal_level_insufficient") => {
                    "a new slot in place of this one; leave wal_level at logical to keep it next time"
                }
                Some("segment_missing") => {
                    "a new slot in place of this one. A copy of the segment, put back into pg_wal from \
                     an archive, loses nothing at all"
                }
                Some("rows_removed") => {
                    "a new slot in place of this one; set hot_standby_feedback = on on the standby to \
                     keep it next time"
                }
                _ => {
                    "a new slot in place of this one; raise max_slot_wal_keep_size to keep it next time"
                }
            },
            Self::OtherTimeline { .. } | Self::ServerBehind { .. } => {
                "the slot here; compare the tables with what their topics say"
            }
        };
        format!("{again}{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_that_loses_nothing_comes_before_the_one_that_may() {
        let (slot, published, wal_end) = ("s".to_owned(), Lsn::from(5), Lsn::from(9));
        let source = || Box::new(Source::default());
        let mut gaps = vec![
            Gap::SlotAhead { slot: slot.clone(), confirmed: wal_end, published },
            Gap::SlotAbsent { slot: slot.clone(), published, wal_end },
            Gap::NoTopics { slot: slot.clone(), confirmed: wal_end },
            Gap::OtherTimeline { timeline: 1, server_timeline: 2, left_at: None, published },
            Gap::ServerBehind { published, wal_end },
        ];
        let reasons = [
            None,
            Some("idle_timeout"),
            Some("wal_level_insufficient"),
            Some("segment_missing"),
            Some("rows_removed"),
            Some("wal_removed"),
        ];
        gaps.extend(reasons.map(|reason| Gap::SlotLost {
            slot: slot.clone(),
            published: Some(published),
            wal_end,
            reason: reason.map(str::to_owned),
        }));
        for gap in &gaps {
            let fix = gap.fix();
            let safe = fix.find("postgres.on_gap = \"snapshot\"").expect("the safe way");
            assert!(safe < fix.find("--accept-gap").expect("the other one"), "{gap:?}: {fix}");
        }
        // The present slot has all that is missing: what would lose that comes last.
        let fix = Gap::OtherSource { checkpoint: source(), server: source() }.fix();
        let (keeps, drops) = (fix.find("--accept-gap"), fix.find("on_gap = \"snapshot\""));
        assert!(keeps.is_some() && keeps < drops, "{fix}");
        let two = Gap::OtherPipeline { theirs: slot.clone(), ours: slot };
        assert!(!two.fix().contains("--accept-gap"), "{}", two.fix());
    }
}
