//! When the watchdog calls a stage stalled, and when not.

use super::*;

const LIMIT: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn watch(now: Instant) -> Watch {
    let limits =
        Watchdog { kafka_stalled_after: LIMIT, source_stalled_after: LIMIT, ..Watchdog::default() };
    Watch::new(limits, now)
}

fn sight(received: u64) -> Sight {
    Sight { received: Lsn::from(received), ..Sight::default() }
}

#[test]
fn records_that_wait_are_a_stall_after_the_limit_and_not_before() {
    let start = Instant::now();
    let mut watch = watch(start);
    let waiting = Sight { in_flight: 3, ..Sight::default() };
    watch.look(start + LIMIT - SECOND, waiting);
    assert_eq!(watch.stalled(start + LIMIT - SECOND), None);
    let (stage, reason) = watch.stalled(start + LIMIT).expect("a stall");
    assert_eq!(stage, Stage::Kafka);
    assert_eq!(reason, "kafka has acknowledged none of 3 waiting records for 1m");
    watch.look(start + LIMIT + SECOND, Sight { acked: 1, ..waiting });
    assert_eq!(watch.stalled(start + LIMIT + SECOND), None, "one was acknowledged");
}

#[test]
fn a_checkpoint_that_does_not_become_durable_is_a_stall_though_no_record_waits() {
    let start = Instant::now();
    let mut watch = watch(start);
    let waiting = Sight { is_checkpoint_due: true, ..Sight::default() };
    watch.look(start + LIMIT, waiting);
    let (stage, reason) = watch.stalled(start + LIMIT).expect("a stall");
    assert_eq!(stage, Stage::Kafka);
    assert_eq!(reason, "kafka has not accepted the checkpoint for 1m");
    watch.look(start + LIMIT + SECOND, Sight { acked: 1, ..waiting });
    assert_eq!(watch.stalled(start + LIMIT + SECOND), None, "it became durable");
}

#[test]
fn a_producer_is_stuck_only_while_the_brokers_answer_and_take_nothing() {
    let start = Instant::now();
    let mut watch = watch(start);
    let waiting = Sight { in_flight: 3, ..Sight::default() };
    let half = start + LIMIT / 2;
    watch.look(half, waiting);
    assert!(!watch.wants_answer(half - SECOND) && watch.wants_answer(half));
    watch.answered_at = Some(half);
    assert!(!watch.wants_answer(start + LIMIT), "they have answered");
    assert!(!watch.is_producer_stuck(start + LIMIT - SECOND));
    assert!(watch.is_producer_stuck(start + LIMIT));
    watch.answered_at = None;
    let mut now = start + LIMIT * 10;
    watch.look(now, waiting);
    assert!(!watch.is_producer_stuck(now), "nobody answers");
    watch.answered_at = Some(now);
    assert!(!watch.is_producer_stuck(now), "they may have come back just now");
    now += LIMIT / 2;
    watch.look(now, waiting);
    assert!(!watch.is_producer_stuck(now - SECOND) && watch.is_producer_stuck(now));
    watch.look(now, Sight { acked: 1, ..waiting });
    assert!(!watch.is_producer_stuck(now), "one was acknowledged");
}

#[test]
fn a_line_with_nothing_to_do_is_never_stalled() {
    let start = Instant::now();
    let mut watch = watch(start);
    for second in 0..1000 {
        let now = start + SECOND * second;
        watch.look(now, sight(WAL_PAGE_BYTES));
        if watch.wants_wal_end(now) {
            // A page that is flushed before its last record is complete.
            let may_be_nothing = watch.set_wal_end(now, Lsn::from(2 * WAL_PAGE_BYTES));
            assert!(may_be_nothing, "only a commit tells");
        }
        assert_eq!(watch.stalled(now), None, "after {second} s");
    }
}

#[test]
fn a_commit_that_does_not_come_is_a_stall_however_small() {
    let start = Instant::now();
    let mut watch = watch(start);
    watch.look(start, sight(5));
    let half = start + LIMIT / 2;
    assert!(watch.set_wal_end(half, Lsn::from(9)));
    watch.probed(half, Lsn::from(90));
    watch.look(start + LIMIT - SECOND, sight(5));
    assert_eq!(watch.stalled(start + LIMIT - SECOND), None);
    assert_eq!(watch.stalled(start + LIMIT).map(|(stage, _)| stage), Some(Stage::Source));
    watch.look(start + LIMIT, sight(90));
    assert_eq!(watch.stalled(start + LIMIT), None, "it came");
    assert!(!watch.set_wal_end(start + LIMIT, Lsn::from(90)), "there is nothing more");
}

#[test]
fn records_that_wait_while_no_broker_can_be_reached_are_a_stall_at_once() {
    let start = Instant::now();
    let mut watch = watch(start);
    let waiting = Sight { in_flight: 3, is_cut_off: true, ..Sight::default() };
    watch.look(start, Sight { in_flight: 0, ..waiting });
    assert_eq!(watch.stalled(start + CUT_OFF - SECOND), None);
    watch.look(start + CUT_OFF, waiting);
    let (stage, reason) = watch.stalled(start + CUT_OFF).expect("a stall");
    assert_eq!(stage, Stage::Kafka);
    assert_eq!(reason, "no broker can be reached, and 3 records wait for one");
    watch.look(start + CUT_OFF, Sight { acked: 1, is_cut_off: false, ..waiting });
    assert_eq!(watch.stalled(start + CUT_OFF), None);
}

#[test]
fn wal_that_nobody_processes_is_a_stall_and_any_step_ends_it() {
    let start = Instant::now();
    let end = Lsn::from(1_000_000);
    for (step, what) in [
        (Sight { received: Lsn::from(6), ..Sight::default() }, "a position"),
        (Sight { changes: 1, ..sight(5) }, "a row of a long transaction"),
        (Sight { bytes: KEEPALIVES_BYTES + 1, ..sight(5) }, "rows that are left out"),
    ] {
        let mut watch = watch(start);
        watch.look(start, sight(5));
        let half = start + LIMIT / 2;
        assert!(!watch.wants_wal_end(half - SECOND), "a healthy server is not asked");
        assert!(watch.wants_wal_end(half));
        watch.set_wal_end(half, end);
        watch.look(start + LIMIT - SECOND, sight(5));
        assert_eq!(watch.stalled(start + LIMIT - SECOND), None);
        let (stage, _) = watch.stalled(start + LIMIT).expect("a stall");
        assert_eq!(stage, Stage::Source);
        watch.look(start + LIMIT + SECOND, step);
        assert_eq!(watch.stalled(start + LIMIT + SECOND), None, "{what}");
    }
}

#[test]
fn a_stream_that_waits_for_a_first_snapshot_is_not_stalled_and_its_brokers_may_be() {
    let start = Instant::now();
    let mut watch = watch(start);
    let waiting = Sight { is_snapshot: true, ..Sight::default() };
    for second in 0..1000 {
        let now = start + SECOND * second;
        watch.look(now, waiting);
        assert!(!watch.wants_wal_end(now), "after {second} s");
        assert_eq!(watch.stalled(now), None, "after {second} s");
    }
    let now = start + SECOND * 1000;
    watch.look(now, Sight { in_flight: 3, ..waiting });
    let (stage, _) = watch.stalled(now + LIMIT).expect("a stall");
    assert_eq!(stage, Stage::Kafka);
}

#[test]
fn keepalives_alone_are_no_progress() {
    let start = Instant::now();
    let mut watch = watch(start);
    watch.look(start, sight(5));
    watch.set_wal_end(start, Lsn::from(1_000_000));
    for second in 1..=60 {
        let bytes = u64::from(second) * 100;
        watch.look(start + SECOND * second, Sight { bytes, ..sight(5) });
    }
    let (stage, _) = watch.stalled(start + LIMIT).expect("a stall");
    assert_eq!(stage, Stage::Source);
}
