//! Pages that are published while the stream waits: what holds with them, and what must not be published.

use tokio::sync::{mpsc, oneshot};

use super::windows::{COLUMNS, Windowed, insert};
use super::*;
use crate::checkpoint::{LeafProgress, PageProgress, SnapshotReason, TableProgress, TableSnapshot};
use crate::snapshot::incremental::orders::{Brought, Hold};
use crate::snapshot::{self, Closed, Edit, Order, Spoiled, Visibility};

/// The table, of which so many pages are published, by a snapshot of some point in the stream.
fn listed(point: u64, done: u32) -> TableSnapshot {
    let done = if done == 0 { Vec::new() } else { vec![(0, done)] };
    TableSnapshot {
        partition: None,
        id: "1".to_owned(),
        schema: "public".to_owned(),
        table: "rides".to_owned(),
        reason: SnapshotReason::Added,
        condition: None,
        is_paused: false,
        progress: TableProgress::Pages(PageProgress {
            lsn: Lsn::from(point),
            shows: "400:400:".to_owned(),
            leaves: vec![LeafProgress { oid: 7, filenode: 9, done }],
        }),
    }
}

fn rows(windowed: &Windowed, seen: &str, lines: &[&str]) -> Brought {
    let visibility = Visibility::parse(seen).expect("a snapshot");
    let mut chunk = snapshot::Chunk::new(windowed.relation(), visibility, 0);
    for line in lines {
        chunk.push(line.as_bytes());
    }
    Brought::Rows(Box::new(chunk))
}

const fn end(edits: Vec<Edit>) -> Brought {
    Brought::End { edits, is_durable: false }
}

/// An order to wait, with all that its reader brings.
fn hold(brings: Vec<Brought>) -> (Order, oneshot::Receiver<()>) {
    let (entered, has_entered) = oneshot::channel();
    let (bring, brought) = mpsc::channel(brings.len().max(1));
    for bring_this in brings {
        bring.try_send(bring_this).expect("there is room");
    }
    (Order::Hold(Hold { oid: 7, entered, brought }), has_entered)
}

#[test]
fn pages_and_the_note_of_them_hold_from_the_end_of_the_watermark_on() {
    let mut windowed = Windowed::new();
    let brings = vec![
        rows(&windowed, "520:520:", &["1\ta\n", "1\ta\n"]),
        rows(&windowed, "520:520:", &["2\tb\n"]),
        end(vec![Edit::Put(listed(100, 2))]),
    ];
    let (order, mut has_entered) = hold(brings);
    let outcome = windowed.order(500, order);
    assert_eq!(has_entered.try_recv(), Ok(()));
    assert_eq!(outcome.result, Ok(Closed { published: 3, left_out: 0 }));
    assert_eq!(windowed.sent().len(), 3);
    for ticket in 0..3 {
        assert_eq!(windowed.stands().tables, []);
        windowed.ledger.ack_all(&[Ticket::from(ticket)]);
    }
    assert_eq!(windowed.stands().tables, [listed(100, 2)]);
}

#[test]
fn rows_are_read_again_that_do_not_show_what_the_stream_brought_before_them() {
    let mut windowed = Windowed::new();
    let described = wire::relation(7, "rides", b'd', &COLUMNS);
    windowed.transaction(510, &[described, insert("2")]);
    assert_eq!(windowed.sent().len(), 1);
    let seen = |windowed: &Windowed, seen| {
        vec![rows(windowed, seen, &["1\ta\n"]), end(vec![Edit::Put(listed(100, 2))])]
    };
    let blind = seen(&windowed, "510:520:510");
    let outcome = windowed.order(511, hold(blind).0);
    assert_eq!(outcome.result, Err(Spoiled::Unseen { xid: 510 }));
    assert_eq!((windowed.sent().len(), windowed.stands().tables.len()), (0, 0));
    // That it sees nothing says nothing.
    let blind = vec![rows(&windowed, "510:520:510", &[]), end(vec![Edit::Put(listed(100, 2))])];
    let outcome = windowed.order(512, hold(blind).0);
    assert_eq!(outcome.result, Err(Spoiled::Unseen { xid: 510 }));
    assert_eq!(windowed.stands().tables.len(), 0);
    let clear = seen(&windowed, "520:520:");
    let outcome = windowed.order(513, hold(clear).0);
    assert_eq!(outcome.result, Ok(Closed { published: 1, left_out: 0 }));
}

#[test]
fn the_stream_goes_on_when_the_reader_has_gone_and_nothing_is_noted() {
    let mut windowed = Windowed::new();
    let part = vec![rows(&windowed, "520:520:", &["1\ta\n"])];
    for (brings, published) in [(Vec::new(), 0), (part, 1)] {
        let outcome = windowed.order(500, hold(brings).0);
        assert_eq!(outcome.result, Err(Spoiled::CutOff));
        let sent = windowed.sent();
        assert_eq!(sent.len(), published, "at least once: what was published comes again");
        for (_, ticket) in sent {
            windowed.ledger.ack_all(&[ticket]);
        }
        assert_eq!(windowed.stands().tables, []);
    }
}

#[test]
fn pages_that_are_cut_off_in_a_kafka_transaction_end_the_session_for_what_they_are() {
    let mut windowed = Windowed::in_mode(Mode::ExactlyOnce {
        commit_interval: Duration::from_secs(1),
        max_transaction_bytes: 1 << 20,
        timeout: Duration::from_secs(60),
    });
    let part = vec![rows(&windowed, "520:520:", &["1\ta\n"])];
    let watermark = windowed.exchange.place(hold(part).0);
    let content = watermark.content();
    let message = wire::message(true, 200, "rowcast.watermark", content.as_bytes());
    carry(&mut windowed.worker, &[wire::begin(200, 0, 500)]);
    let Err(Halt::Failed(error)) = windowed.worker.message(Lsn::from(850), &message) else {
        panic!("what was published of them must not be committed");
    };
    // Not as a connection that the server closed, which is a matter of the database.
    assert!(matches!(error, Error::PagesCutOff), "{error}");
    assert_eq!((error.severity(), error.fix()), (crate::error::Severity::Retry, None));
    assert!(error.told().starts_with("pages of a table were read in part"), "{error}");
}

#[test]
fn of_a_new_table_changes_come_from_the_point_of_its_snapshot_on_and_none_before() {
    let mut windowed = Windowed::new();
    windowed.order(499, Order::Note(vec![Edit::Put(listed(0, 0))]));
    let described = wire::relation(7, "rides", b'd', &COLUMNS);
    windowed.transaction(510, &[described, insert("1")]);
    // The watermark commits at 220, the next at 230, 240 and 250.
    let (order, _) = hold(vec![end(vec![Edit::Put(listed(240, 0))])]);
    windowed.order(511, order);
    windowed.transaction(512, &[insert("2")]);
    assert_eq!(windowed.sent().len(), 0);
    windowed.transaction(513, &[insert("3")]);
    windowed.transaction(514, &[insert("4")]);
    assert_eq!(windowed.sent().len(), 2);
}

#[test]
fn nothing_follows_what_must_be_durable_before_it_is() {
    let mut windowed = Windowed::new();
    let brings = vec![
        rows(&windowed, "520:520:", &["1\ta\n"]),
        Brought::End { edits: vec![Edit::Put(listed(240, 0))], is_durable: true },
    ];
    let (ledger, sink) = (Arc::clone(&windowed.ledger), Arc::clone(&windowed.sink));
    let brokers = std::thread::spawn(move || {
        let waits = |what: &str, is_so: &dyn Fn() -> bool| {
            let begun = std::time::Instant::now();
            while !is_so() {
                assert!(begun.elapsed() < Duration::from_secs(10), "no {what}");
                std::thread::yield_now();
            }
        };
        waits("record", &|| sink.0.lock().unwrap().len() == 1);
        assert!(!ledger.is_checkpoint_under_way(), "before its records are acknowledged");
        let ticket = sink.0.lock().unwrap()[0].1;
        ledger.ack_all(&[ticket]);
        waits("checkpoint", &|| ledger.is_checkpoint_under_way());
        assert_eq!(ledger.standing().confirmed, Lsn::from(100));
        ledger.checkpoint_acknowledged();
    });
    let outcome = windowed.order(500, hold(brings).0);
    brokers.join().expect("what is due comes");
    assert_eq!(windowed.ledger.standing().confirmed, outcome.end_lsn);
    assert_eq!(windowed.stands().tables, [listed(240, 0)]);
}
