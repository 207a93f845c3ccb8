//! The tracker by examples, and against a model that is too slow to be wrong.

use proptest::prelude::*;

use super::*;

fn lsn(value: u64) -> Lsn {
    Lsn::from(value)
}

fn tracker(start: u64) -> Tracker {
    Tracker::new(Progress::at(lsn(start)))
}

/// The first change of the transaction whose commit stands just before its end.
fn end(end_lsn: u64) -> (Lsn, Position) {
    (lsn(end_lsn), Position { commit_lsn: lsn(end_lsn - 1), ordinal: 1 })
}

fn commit(tracker: &mut Tracker, end_lsn: u64) {
    let (end_lsn, position) = end(end_lsn);
    tracker.commit(end_lsn, position);
}

fn delivered(tracker: &Tracker) -> Lsn {
    tracker.delivered().through_lsn
}

#[test]
fn a_commit_is_delivered_only_when_its_last_record_is_acknowledged() {
    let mut tracker = tracker(10);
    tracker.begin();
    let first = tracker.issue();
    let second = tracker.issue();
    tracker.ack(first);
    tracker.ack(second);
    assert_eq!(delivered(&tracker), lsn(10), "no commit was seen yet");
    commit(&mut tracker, 20);
    assert_eq!(delivered(&tracker), lsn(20));
}

#[test]
fn a_later_transaction_waits_for_an_earlier_one() {
    let mut tracker = tracker(10);
    tracker.begin();
    let early = tracker.issue();
    commit(&mut tracker, 20);
    tracker.begin();
    let late = tracker.issue();
    commit(&mut tracker, 30);
    tracker.ack(late);
    assert_eq!(delivered(&tracker), lsn(10));
    tracker.ack(early);
    assert_eq!(delivered(&tracker), lsn(30));
}

#[test]
fn a_keepalive_moves_nothing_while_a_record_is_in_flight_or_a_transaction_is_open() {
    let mut tracker = tracker(10);
    tracker.begin();
    tracker.keepalive(lsn(50));
    assert_eq!(delivered(&tracker), lsn(10));
    let ticket = tracker.issue();
    commit(&mut tracker, 20);
    tracker.keepalive(lsn(50));
    assert_eq!(delivered(&tracker), lsn(10));
    tracker.ack(ticket);
    assert_eq!(delivered(&tracker), lsn(50), "it was heard after the transaction");
}

#[test]
fn a_keepalive_from_the_past_moves_nothing_back() {
    let mut tracker = tracker(10);
    tracker.keepalive(lsn(5));
    assert_eq!(delivered(&tracker), lsn(10));
}

#[test]
fn a_rejected_record_stops_the_line_for_good() {
    let mut tracker = tracker(10);
    tracker.begin();
    let bad = tracker.issue();
    commit(&mut tracker, 20);
    tracker.begin();
    let good = tracker.issue();
    commit(&mut tracker, 30);
    tracker.reject(bad);
    tracker.ack(good);
    tracker.ack(bad);
    tracker.keepalive(lsn(90));
    assert_eq!(delivered(&tracker), lsn(10));
}

#[test]
fn a_transaction_without_records_is_delivered_at_once() {
    let mut tracker = tracker(10);
    tracker.begin();
    commit(&mut tracker, 20);
    assert_eq!(delivered(&tracker), lsn(20));
}

#[test]
fn a_million_tickets_acknowledged_in_order_keep_no_memory() {
    let mut tracker = tracker(0);
    for step in 0..1_000_000_u64 {
        tracker.begin();
        let ticket = tracker.issue();
        commit(&mut tracker, step + 2);
        tracker.ack(ticket);
    }
    assert_eq!(delivered(&tracker), lsn(1_000_001));
    assert!(tracker.words.len() <= 1 && tracker.markers.is_empty());
}

#[test]
fn a_part_of_a_transaction_is_delivered_but_not_its_end() {
    let mut tracker = tracker(10);
    tracker.begin();
    let first = tracker.issue();
    let part = Position { commit_lsn: lsn(19), ordinal: 1 };
    tracker.mark(part);
    let second = tracker.issue();
    tracker.mark(Position { ordinal: 2, ..part });
    assert_eq!(tracker.delivered(), Progress::at(lsn(10)));
    tracker.ack(first);
    assert_eq!(tracker.delivered(), Progress { through_lsn: lsn(10), position: part });
    assert_eq!(tracker.sent().position.ordinal, 2);
    tracker.ack(second);
    assert_eq!(tracker.delivered(), tracker.sent());
}

#[test]
fn only_a_durable_checkpoint_confirms() {
    let mut tracker = tracker(10);
    tracker.begin();
    commit(&mut tracker, 20);
    assert_eq!(tracker.confirmed(), lsn(10));
    tracker.confirm(tracker.delivered());
    assert_eq!(tracker.confirmed(), lsn(20));
    tracker.confirm(Progress::at(lsn(15)));
    assert_eq!(tracker.confirmed(), lsn(20), "it never goes back");
}

#[test]
fn a_replay_of_what_is_delivered_moves_nothing_back() {
    let part = Position { commit_lsn: lsn(39), ordinal: 5 };
    let start = Progress { through_lsn: lsn(30), position: part };
    let mut tracker = Tracker::new(start);
    tracker.begin();
    commit(&mut tracker, 20);
    assert_eq!((tracker.sent(), tracker.delivered()), (start, start));
    tracker.begin();
    tracker.mark(Position { ordinal: 2, ..part });
    assert_eq!(tracker.delivered(), start);
}

/// What the tracker must do, said as plainly as it can be.
#[derive(Default)]
struct Model {
    records: Vec<bool>,
    /// Of transactions and keepalives: (number of records before the end, end LSN)
    commits: Vec<(usize, u64)>,
    open: bool,
    rejected: Option<usize>,
    delivered: u64,
}

impl Model {
    fn settle(&mut self) {
        for &(end, lsn) in &self.commits {
            if self.records.iter().take(end).all(|acked| *acked) {
                self.delivered = self.delivered.max(lsn);
            } else {
                break;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Records of the next transaction, and how many of them come before a keepalive.
    Transaction {
        records: u8,
        commits: bool,
    },
    Ack {
        pick: prop::sample::Index,
    },
    Reject {
        pick: prop::sample::Index,
    },
    Keepalive,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_u8..100, prop::bool::weighted(0.9))
            .prop_map(|(records, commits)| Step::Transaction { records, commits }),
        60 => any::<prop::sample::Index>().prop_map(|pick| Step::Ack { pick }),
        1 => any::<prop::sample::Index>().prop_map(|pick| Step::Reject { pick }),
        4 => Just(Step::Keepalive),
    ];
    prop::collection::vec(step, 0..600)
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(steps in steps(), in_order: bool) {
        let mut tracker = tracker(0);
        let mut model = Model::default();
        let mut wal = 0_u64;
        let mut next_in_order = 0;
        for step in steps {
            wal += 1;
            let before = delivered(&tracker);
            match step {
                Step::Transaction { records, commits } => {
                    if !model.open {
                        tracker.begin();
                        model.open = true;
                    }
                    for _ in 0..records {
                        let ticket = tracker.issue();
                        prop_assert_eq!(ticket.as_u64(), model.records.len() as u64);
                        model.records.push(false);
                    }
                    if commits {
                        commit(&mut tracker, wal);
                        model.commits.push((model.records.len(), wal));
                        model.open = false;
                    }
                }
                Step::Ack { pick } if !model.records.is_empty() => {
                    let record = if in_order && next_in_order < model.records.len() {
                        next_in_order
                    } else {
                        pick.index(model.records.len())
                    };
                    next_in_order = record + 1;
                    tracker.ack(Ticket(record as u64));
                    if model.rejected != Some(record) {
                        model.records[record] = true;
                    }
                }
                Step::Reject { pick } if !model.records.is_empty() => {
                    // The broker rejects a record once and never acknowledges it too.
                    let record = pick.index(model.records.len());
                    if model.rejected.is_none() && !model.records[record] {
                        tracker.reject(Ticket(record as u64));
                        model.rejected = Some(record);
                    }
                }
                Step::Keepalive => {
                    tracker.keepalive(lsn(wal));
                    if !model.open {
                        model.commits.push((model.records.len(), wal));
                    }
                }
                Step::Ack { .. } | Step::Reject { .. } => {}
            }
            model.settle();
            prop_assert_eq!(delivered(&tracker), lsn(model.delivered));
            prop_assert!(delivered(&tracker) >= before, "what is delivered went back");
            let waiting = model.records.iter().filter(|acked| !**acked).count();
            prop_assert_eq!(tracker.in_flight(), waiting as u64);
            let run = model.records.iter().take_while(|acked| **acked).count();
            prop_assert_eq!(tracker.acknowledged(), run as u64);
        }
    }
}
