//! Tables that come to a topic which another has, in the middle of the stream.

use super::windows::{COLUMNS, Windowed, insert};
use super::*;
use crate::checkpoint::{LeftOutTable, Snapshots};
use crate::snapshot::{Edit, Order};

fn described(oid: u32, name: &str) -> Vec<u8> {
    wire::relation(oid, name, b'd', &COLUMNS)
}

fn insert_into(oid: u32) -> Vec<u8> {
    wire::row(b'I', oid, &[wire::tuple(b'N', &[wire::text("1"), wire::text("new")])])
}

/// Runs a transaction after which the checkpoint must be durable, with brokers that take all.
fn durably(windowed: &mut Windowed, xid: u32, messages: &[Vec<u8>]) {
    let (ledger, sink) = (Arc::clone(&windowed.ledger), Arc::clone(&windowed.sink));
    let stop = Arc::new(Stop::default());
    let told = Arc::clone(&stop);
    let brokers = std::thread::spawn(move || {
        let mut acknowledged = 0;
        while !told.is_now() {
            let sent = sink.0.lock().unwrap().clone();
            let tickets: Vec<Ticket> = sent.iter().map(|(_, ticket)| *ticket).collect();
            ledger.ack_all(&tickets[acknowledged..]);
            acknowledged = tickets.len();
            if ledger.is_checkpoint_under_way() {
                ledger.checkpoint_acknowledged();
            }
            std::thread::yield_now();
        }
    });
    windowed.transaction(xid, messages);
    stop.now();
    brokers.join().expect("they end");
}

/// Where what was sent since goes, which is acknowledged with that.
fn topics(windowed: &Windowed) -> Vec<String> {
    let (topics, tickets): (Vec<String>, Vec<Ticket>) = windowed.sent().into_iter().unzip();
    windowed.ledger.ack_all(&tickets);
    topics
}

fn note(oid: u32, table: &str) -> LeftOutTable {
    LeftOutTable { oid, schema: "public".to_owned(), table: table.to_owned() }
}

#[test]
fn a_table_that_comes_to_anothers_topic_is_left_out_until_it_is_admitted() {
    let mut windowed = Windowed::new();
    let list = Arc::clone(&windowed.worker.publisher.policy.left_out);
    windowed.transaction(510, &[described(7, "x_y"), insert("1"), described(8, "z")]);
    windowed.transaction(511, &[insert_into(8)]);
    assert_eq!(topics(&windowed), ["nyc.public.x_y", "nyc.public.z"]);

    // ALTER TABLE z RENAME TO "x y": the other goes on, and a checkpoint says so at once.
    durably(&mut windowed, 512, &[insert("2"), described(8, "x y"), insert_into(8)]);
    let before: Vec<_> = windowed.sent().into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(before, ["nyc.public.x_y"]);
    windowed.transaction(513, &[insert_into(8), insert("3")]);
    assert_eq!(topics(&windowed), ["nyc.public.x_y"]);
    assert_eq!(windowed.stands().left_out, [note(8, "x y")]);
    let left_out = list.find("public", "x y").expect("it is on the list");
    assert!(left_out.error.contains("public.x_y") && left_out.fix.contains("topic = "));

    // It is left out under any name, as changes are missing, until its rows are to be read.
    windowed.transaction(514, &[described(8, "z"), insert_into(8)]);
    assert!(topics(&windowed).is_empty());
    windowed.order(515, Order::Note(vec![Edit::Admit { oid: 8 }]));
    windowed.transaction(516, &[insert_into(8)]);
    assert_eq!(topics(&windowed), ["nyc.public.z"]);
    assert_eq!(windowed.stands().left_out, []);
}

#[test]
fn what_a_checkpoint_says_is_left_out_stays_so_and_an_admitted_table_takes_a_free_topic() {
    let mut windowed = Windowed::new();
    windowed.worker.out.checkpoints.told.start.snapshots =
        Arc::new(Snapshots { left_out: vec![note(8, "x y")], ..Snapshots::default() });
    let (exchange, control) = (Arc::clone(&windowed.exchange), Arc::default());
    windowed.worker = windowed.worker.with_snapshots(exchange, control, Default::default());
    windowed.transaction(510, &[described(7, "x_y"), insert("1"), described(8, "x y")]);
    windowed.transaction(511, &[insert_into(8)]);
    assert_eq!(topics(&windowed), ["nyc.public.x_y"]);
    // The other was dropped: its OID is never heard of again.
    windowed.order(512, Order::Note(vec![Edit::Admit { oid: 8 }]));
    windowed.transaction(513, &[insert_into(8)]);
    assert_eq!(topics(&windowed), ["nyc.public.x_y"]);
}
