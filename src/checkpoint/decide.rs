//! Decides what to do at a start, from the slot and the checkpoint. Pure.
//!
//! | slot | checkpoint | decision |
//! |---|---|---|
//! | absent | absent | first start |
//! | any | of a start that did not come to its first row | first start, with a new slot |
//! | present | absent | adopt: continue from the slot's confirmed position |
//! | present, was read before | absent, and no topic of ours | gap: what was published is elsewhere |
//! | present | same source, not behind the slot | continue, leaving out what the checkpoint covers |
//! | present | behind the slot | gap: somebody else confirmed what was never published |
//! | absent, lost | any (absent: only if lost) | gap: what came since can't be read any more |
//! | any | of another cluster or database | gap: nothing can be compared |
//! | any | of a timeline that this server left before the checkpoint, or never had | gap |
//! | any | ahead of the server's WAL | gap: the server was set back |
//!
//! A failover that kept all that was published is none of these: the same system identifier and a
//! later timeline that branched off after the last change published. Then the stream continues.
//!
//! Accepting a gap means starting as if there was no checkpoint: what is missing remains missing.

use super::gap::Gap;
use super::progress::Progress;
use super::record::{Checkpoint, Source};
use crate::lsn::Lsn;

/// The slot, as far as the decision goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotFound {
    /// There is none.
    Absent,
    /// It can be streamed from.
    Present {
        /// Where it would start.
        confirmed: Lsn,
    },
    /// It can be streamed from, others have read from it, and nothing of what they read is in this Kafka.
    Stranded {
        /// Where it would start.
        confirmed: Lsn,
    },
    /// The server has removed WAL that it needs.
    Lost,
}

/// The server that is streamed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFound {
    /// Which one it is, and the slot's name.
    pub source: Source,
    /// The timelines before its own, each with where it was left.
    pub history: Vec<(u32, Lsn)>,
    /// How far it has written.
    pub wal_end: Lsn,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Make the slot, in place of one that is there, and stream from its start.
    FirstStart,
    /// Stream from where the slot is confirmed; nothing says what was published before.
    Adopt {
        /// Where that is.
        confirmed: Lsn,
    },
    /// Stream on, leaving out what is published.
    Continue {
        /// What is published.
        progress: Progress,
        /// The timeline before, when the server is another one since.
        failover_from: Option<u32>,
    },
    /// Stop: changes are or may be missing.
    Gap(Gap),
}

/// The gap that a checkpoint of another cluster or database is, if it is one.
#[must_use]
pub fn other_source(checkpoint: &Source, server: &Source) -> Option<Gap> {
    (!is_same_database(checkpoint, server)).then(|| Gap::OtherSource {
        checkpoint: Box::new(checkpoint.clone()),
        server: Box::new(server.clone()),
    })
}

/// Decides by the table above.
#[must_use]
pub fn decide(slot: SlotFound, checkpoint: Option<&Checkpoint>, server: &ServerFound) -> Decision {
    let name = || server.source.slot.clone();
    let wal_end = server.wal_end;
    let Some(checkpoint) = checkpoint else {
        return match slot {
            SlotFound::Absent => Decision::FirstStart,
            SlotFound::Present { confirmed } => Decision::Adopt { confirmed },
            SlotFound::Stranded { confirmed } => {
                Decision::Gap(Gap::NoTopics { slot: name(), confirmed })
            }
            SlotFound::Lost => Decision::Gap(Gap::SlotLost {
                slot: name(),
                published: None,
                wal_end,
                reason: None,
            }),
        };
    };
    if checkpoint.is_intent() && is_same_database(&checkpoint.source, &server.source) {
        return Decision::FirstStart;
    }
    let (progress, failover_from) = match on_this_server(checkpoint, server) {
        Ok(found) => found,
        Err(gap) => return Decision::Gap(gap),
    };
    let published = progress.through_lsn;
    match slot {
        SlotFound::Present { confirmed } | SlotFound::Stranded { confirmed }
            if confirmed > published =>
        {
            Decision::Gap(Gap::SlotAhead { slot: name(), confirmed, published })
        }
        SlotFound::Present { .. } | SlotFound::Stranded { .. } => {
            Decision::Continue { progress, failover_from }
        }
        SlotFound::Absent => Decision::Gap(Gap::SlotAbsent { slot: name(), published, wal_end }),
        SlotFound::Lost => Decision::Gap(Gap::SlotLost {
            slot: name(),
            published: Some(published),
            wal_end,
            reason: None,
        }),
    }
}

/// What the checkpoint says of the server's own history, and the timeline before, where that is
/// another.
fn on_this_server(
    checkpoint: &Checkpoint,
    server: &ServerFound,
) -> Result<(Progress, Option<u32>), Gap> {
    let (source, here) = (&checkpoint.source, &server.source);
    if let Some(gap) = other_source(source, here) {
        return Err(gap);
    }
    let mut progress = checkpoint.progress;
    let mut failover_from = None;
    if source.timeline != here.timeline {
        let left = server.history.iter().find(|(timeline, _)| *timeline == source.timeline);
        let left_at = left.map(|(_, lsn)| *lsn);
        match left_at {
            // The last change published is in the WAL that both share. Beyond it, the old server
            // had nothing for us.
            Some(left_at) if progress.position.commit_lsn < left_at => {
                progress.through_lsn = progress.through_lsn.min(left_at);
                failover_from = Some(source.timeline);
            }
            _ => {
                return Err(Gap::OtherTimeline {
                    timeline: source.timeline,
                    server_timeline: here.timeline,
                    left_at,
                    published: progress.position.commit_lsn,
                });
            }
        }
    }
    let published = progress.highest_lsn();
    if published > server.wal_end {
        return Err(Gap::ServerBehind { published, wal_end: server.wal_end });
    }
    Ok((progress, failover_from))
}

fn is_same_database(one: &Source, other: &Source) -> bool {
    (&one.system_identifier, &one.database) == (&other.system_identifier, &other.database)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::change::Position;

    fn lsn(value: u64) -> Lsn {
        Lsn::from(value)
    }

    fn source() -> Source {
        Source {
            system_identifier: "7".to_owned(),
            timeline: 2,
            database: "taxi".to_owned(),
            slot: "rowcast_taxi".to_owned(),
        }
    }

    fn server() -> ServerFound {
        ServerFound { source: source(), history: vec![(1, lsn(500))], wal_end: lsn(2_000) }
    }

    /// All before 1000 is published; the last change of it commits at 990.
    fn checkpoint() -> Checkpoint {
        let position = Position { commit_lsn: lsn(990), ordinal: 3 };
        let progress = Progress { through_lsn: lsn(1_000), position };
        Checkpoint {
            source: source(),
            generation: 1,
            progress,
            snapshots: std::sync::Arc::default(),
        }
    }

    const BEFORE: SlotFound = SlotFound::Present { confirmed: Lsn::ZERO };

    fn gap(slot: SlotFound, checkpoint: &Checkpoint, server: &ServerFound) -> Gap {
        match decide(slot, Some(checkpoint), server) {
            Decision::Gap(gap) => gap,
            other => panic!("no gap, but {other:?}"),
        }
    }

    #[test]
    fn neither_slot_nor_checkpoint_is_a_first_start() {
        assert_eq!(decide(SlotFound::Absent, None, &server()), Decision::FirstStart);
    }

    #[test]
    fn a_start_that_did_not_come_to_its_first_row_is_a_first_start_again() {
        let intent = Checkpoint { progress: Progress::default(), ..checkpoint() };
        let present = SlotFound::Present { confirmed: lsn(900) };
        for slot in [SlotFound::Absent, present, SlotFound::Lost] {
            assert_eq!(decide(slot, Some(&intent), &server()), Decision::FirstStart);
        }
        let source = Source { system_identifier: "8".to_owned(), ..source() };
        let other = Checkpoint { source, ..intent };
        let decision = decide(SlotFound::Absent, Some(&other), &server());
        assert!(matches!(decision, Decision::Gap(Gap::OtherSource { .. })), "{decision:?}");
    }

    #[test]
    fn a_slot_without_a_checkpoint_is_adopted() {
        let confirmed = lsn(800);
        let decision = decide(SlotFound::Present { confirmed }, None, &server());
        assert_eq!(decision, Decision::Adopt { confirmed });
    }

    #[test]
    fn a_slot_that_was_read_is_no_adoption_where_nothing_of_that_is_here() {
        let confirmed = lsn(800);
        let slot = SlotFound::Stranded { confirmed };
        let decision = decide(slot, None, &server());
        let Decision::Gap(gap @ Gap::NoTopics { .. }) = decision else { panic!("{decision:?}") };
        let fix = gap.fix();
        let ways = ["on_gap = \"snapshot\"", "topics.checkpoints", "--accept-gap"];
        assert!(
            ways.map(|way| fix.find(way).expect(way)).is_sorted(),
            "the safe ones first: {fix}"
        );
        // A checkpoint says more than topics do.
        assert!(matches!(decide(slot, Some(&checkpoint()), &server()), Decision::Continue { .. }));
    }

    #[test]
    fn a_slot_that_is_not_beyond_the_checkpoint_goes_on_from_it() {
        let progress = checkpoint().progress;
        for confirmed in [0, 999, 1_000] {
            let slot = SlotFound::Present { confirmed: lsn(confirmed) };
            assert_eq!(
                decide(slot, Some(&checkpoint()), &server()),
                Decision::Continue { progress, failover_from: None }
            );
        }
    }

    #[test]
    fn a_slot_that_was_renamed_goes_on_where_it_holds_all_that_is_missing() {
        let mut other = checkpoint();
        "before".clone_into(&mut other.source.slot);
        assert!(matches!(decide(BEFORE, Some(&other), &server()), Decision::Continue { .. }));
    }

    #[test]
    fn a_slot_beyond_the_checkpoint_is_a_gap_with_its_range() {
        let slot = SlotFound::Present { confirmed: lsn(0x1001) };
        let gap = gap(slot, &checkpoint(), &server());
        assert_eq!(
            gap.to_string(),
            "changes from 0/3E8 to 0/1001 were never published: the slot \"rowcast_taxi\" was \
             confirmed up to 0/1001 by somebody else, and the checkpoint ends at 0/3E8"
        );
        assert!(gap.fix().contains("rowcast run --accept-gap"));
    }

    #[test]
    fn a_slot_that_is_gone_or_lost_is_a_gap_from_the_checkpoint_on() {
        let (published, wal_end) = (lsn(1_000), lsn(2_000));
        let slot = || "rowcast_taxi".to_owned();
        assert_eq!(
            gap(SlotFound::Absent, &checkpoint(), &server()),
            Gap::SlotAbsent { slot: slot(), published, wal_end }
        );
        let published = Some(published);
        assert_eq!(
            gap(SlotFound::Lost, &checkpoint(), &server()),
            Gap::SlotLost { slot: slot(), published, wal_end, reason: None }
        );
        let published = None;
        let expected =
            Decision::Gap(Gap::SlotLost { slot: slot(), published, wal_end, reason: None });
        assert_eq!(decide(SlotFound::Lost, None, &server()), expected);
    }

    #[test]
    fn another_cluster_or_database_is_never_compared() {
        let mut other = checkpoint();
        "8".clone_into(&mut other.source.system_identifier);
        assert!(matches!(gap(BEFORE, &other, &server()), Gap::OtherSource { .. }));
        let mut other = checkpoint();
        "water".clone_into(&mut other.source.database);
        assert!(matches!(gap(SlotFound::Absent, &other, &server()), Gap::OtherSource { .. }));
    }

    #[test]
    fn a_failover_that_kept_all_that_was_published_goes_on() {
        let mut server = server();
        server.source.timeline = 3;
        // The old server told of WAL up to 1000 that the new one never got, but published nothing
        // of it.
        server.history.push((2, lsn(995)));
        let progress = Progress { through_lsn: lsn(995), ..checkpoint().progress };
        assert_eq!(
            decide(BEFORE, Some(&checkpoint()), &server),
            Decision::Continue { progress, failover_from: Some(2) }
        );
        // A slot that was not kept in step would leave something out.
        let slot = SlotFound::Present { confirmed: lsn(996) };
        assert!(matches!(gap(slot, &checkpoint(), &server), Gap::SlotAhead { .. }));
        assert!(matches!(gap(SlotFound::Absent, &checkpoint(), &server), Gap::SlotAbsent { .. }));
    }

    #[test]
    fn a_timeline_without_what_was_published_is_a_gap() {
        let mut server = server();
        server.source.timeline = 3;
        server.history.push((2, lsn(990)));
        let left_at = Some(lsn(990));
        let found = gap(BEFORE, &checkpoint(), &server);
        assert!(matches!(found, Gap::OtherTimeline { left_at: at, .. } if at == left_at));
        server.history.pop();
        let found = gap(BEFORE, &checkpoint(), &server);
        assert!(matches!(found, Gap::OtherTimeline { left_at: None, .. }), "{found}");
        // The checkpoint's timeline lies in this server's future.
        server.source.timeline = 1;
        server.history.clear();
        assert!(matches!(gap(BEFORE, &checkpoint(), &server), Gap::OtherTimeline { .. }));
    }

    #[test]
    fn a_server_that_was_set_back_is_a_gap() {
        let server = ServerFound { wal_end: lsn(999), ..server() };
        let (published, wal_end) = (lsn(1_000), lsn(999));
        assert_eq!(gap(BEFORE, &checkpoint(), &server), Gap::ServerBehind { published, wal_end });
    }

    fn slots() -> impl Strategy<Value = SlotFound> {
        prop_oneof![
            Just(SlotFound::Absent),
            Just(SlotFound::Lost),
            (0_u64..50).prop_map(|confirmed| SlotFound::Present { confirmed: lsn(confirmed) }),
        ]
    }

    proptest! {
        /// Going on is safe exactly if the server's history has every change published, the slot
        /// has every change that is not, and no change to come is taken for a published one.
        #[test]
        fn it_goes_on_only_where_nothing_is_missing(
            slot in slots(),
            (timeline, here) in (1_u32..4, 1_u32..4),
            left in proptest::collection::vec(0_u64..50, 3),
            (through, commit, wal_end) in (0_u64..50, 0_u64..50, 0_u64..50),
            same_system: bool,
        ) {
            let mut server = server();
            server.source.timeline = here;
            server.wal_end = lsn(wal_end);
            let mut ends = left;
            ends.sort_unstable();
            server.history = (1..here).zip(ends).map(|(id, end)| (id, lsn(end))).collect();
            let mut checkpoint = checkpoint();
            checkpoint.source.timeline = timeline;
            if !same_system {
                "8".clone_into(&mut checkpoint.source.system_identifier);
            }
            let position = Position { commit_lsn: lsn(commit), ordinal: 1 };
            checkpoint.progress = Progress { through_lsn: lsn(through), position };

            let decision = decide(slot, Some(&checkpoint), &server);
            let Decision::Continue { progress, failover_from } = decision else { return Ok(()) };
            let SlotFound::Present { confirmed } = slot else { panic!("there is no slot") };
            prop_assert!(same_system);
            prop_assert!(confirmed <= progress.through_lsn, "the slot leaves nothing out");
            prop_assert!(progress.highest_lsn() <= server.wal_end);
            prop_assert_eq!(failover_from, (timeline != here).then_some(timeline));
            prop_assert_eq!(progress.position, checkpoint.progress.position);
            prop_assert!(progress.through_lsn <= checkpoint.progress.through_lsn);
            let branch = server.history.iter().find(|(id, _)| *id == timeline);
            if let Some(&(_, end)) = branch {
                // A change of the new timeline begins at or after the branch, and is not covered.
                let next = Position { commit_lsn: end, ordinal: 1 };
                prop_assert!(!progress.covers(next));
            } else {
                prop_assert_eq!(timeline, here);
            }
        }
    }
}
