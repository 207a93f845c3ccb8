//! Windows in the stream: which rows of a chunk are published, and from where on the state holds.

use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::checkpoint::{SnapshotReason, Snapshots, TableProgress, TableSnapshot};
use crate::snapshot::{self, Closed, Control, Edit, Exchange, Order, Outcome, Spoiled, Visibility};

pub(super) const COLUMNS: [wire::Column<'_>; 2] = [(true, "id", 23), (false, "note", 25)];

pub(super) struct Windowed {
    pub(super) worker: Worker<Held, Willing>,
    pub(super) sink: Arc<Held>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) exchange: Arc<Exchange>,
    outcomes: UnboundedReceiver<Outcome>,
    control: Arc<Control>,
    /// Where the next transaction commits.
    at: u64,
}

fn asked(is_paused: bool) -> TableSnapshot {
    TableSnapshot {
        partition: None,
        id: "1".to_owned(),
        schema: "public".to_owned(),
        table: "rides".to_owned(),
        reason: SnapshotReason::Asked,
        condition: None,
        is_paused,
        progress: TableProgress::Waiting,
    }
}

pub(super) fn insert(id: &str) -> Vec<u8> {
    wire::row(b'I', 7, &[wire::tuple(b'N', &[wire::text(id), wire::text("new")])])
}

impl Windowed {
    pub(super) fn new() -> Self {
        Self::in_mode(Mode::AtLeastOnce)
    }

    pub(super) fn in_mode(mode: Mode) -> Self {
        let ledger = Arc::new(Ledger::new(Progress::at(Lsn::from(100))));
        let (worker, sink) = worker_in(mode, Willing, Format::default(), &ledger);
        let (exchange, outcomes) = Exchange::new("slot".to_owned());
        let (exchange, control) = (Arc::new(exchange), Arc::<Control>::default());
        let worker = worker.with_snapshots(
            Arc::clone(&exchange),
            Arc::clone(&control),
            snapshot::Signals {
                token: Some(crate::config::Secret::from("s3cret".to_owned())),
                ..snapshot::Signals::default()
            },
        );
        Self { worker, sink, ledger, exchange, outcomes, control, at: 200 }
    }

    pub(super) fn transaction(&mut self, xid: u32, messages: &[Vec<u8>]) {
        carry(&mut self.worker, &[wire::begin(self.at, 0, xid)]);
        carry(&mut self.worker, messages);
        carry(&mut self.worker, &[wire::commit(self.at, self.at + 10, 0)]);
        self.at += 10;
    }

    pub(super) fn order(&mut self, xid: u32, order: Order) -> Outcome {
        let watermark = self.exchange.place(order);
        let content = watermark.content();
        let message = wire::message(true, self.at, "rowcast.watermark", content.as_bytes());
        self.transaction(xid, &[message]);
        let outcome = self.outcomes.try_recv().expect("an outcome");
        assert_eq!((outcome.number, outcome.end_lsn), (watermark.number, Lsn::from(self.at)));
        outcome
    }

    fn open(&mut self) {
        let order = Order::Open { oid: 7, key: vec!["id".to_owned()], limit_bytes: 1 << 20 };
        assert_eq!(self.order(500, order).result, Ok(Closed::default()));
    }

    fn close(&mut self, seen: &str, lines: &[&str]) -> Result<Closed, Spoiled> {
        let relation = self.relation();
        let visibility = Visibility::parse(seen).expect("a snapshot");
        let mut chunk = snapshot::Chunk::new(relation, visibility, 0);
        for line in lines {
            chunk.push(line.as_bytes());
        }
        let (chunk, edits) = (Box::new(chunk), vec![Edit::Put(asked(true))]);
        self.order(501, Order::Close { oid: 7, chunk, edits }).result
    }

    /// The table as the catalog has it.
    pub(super) fn relation(&self) -> Arc<Relation> {
        Self::table(7, "rides")
    }

    fn table(oid: u32, name: &str) -> Arc<Relation> {
        let described = wire::relation(oid, name, b'd', &COLUMNS);
        let Ok(Message::Relation(body)) = pgoutput::decode(&described) else { panic!("one") };
        let mut relations = crate::change::Relations::default();
        relations.insert(&body, RelationFacts::default(), &KeyChoice::default()).expect("fits")
    }

    pub(super) fn sent(&self) -> Vec<(String, Ticket)> {
        std::mem::take(&mut *self.sink.0.lock().unwrap())
    }

    pub(super) fn stands(&self) -> Snapshots {
        let delivered = self.ledger.standing().delivered;
        self.worker.out.checkpoints.snapshots_at(delivered).as_ref().clone()
    }
}

#[test]
fn a_chunk_is_published_at_its_high_watermark_but_for_what_the_stream_told_of() {
    let mut windowed = Windowed::new();
    windowed.order(499, Order::Note(vec![Edit::Put(asked(false))]));
    assert_eq!(windowed.stands().tables, [asked(false)]);
    windowed.open();
    let described = wire::relation(7, "rides", b'd', &COLUMNS);
    windowed.transaction(510, &[described, insert("2")]);
    assert_eq!(windowed.sent().len(), 1);
    let closed = windowed.close("520:520:", &["1\ta\n", "2\tb\n", "3\tc\n"]);
    assert_eq!(closed, Ok(Closed { published: 2, left_out: 1 }));
    let sent = windowed.sent();
    assert!(sent.iter().all(|(topic, _)| topic == "nyc.public.rides"));
    assert_eq!(sent.len(), 2);
    // What the stream sent before is not acknowledged, so nothing of it holds yet.
    assert_eq!(windowed.stands().tables, [asked(false)]);
    for ticket in 0..3 {
        assert_eq!(windowed.stands().tables, [asked(false)]);
        windowed.ledger.ack_all(&[Ticket::from(ticket)]);
    }
    assert_eq!(windowed.stands().tables, [asked(true)]);
}

#[test]
fn a_table_that_the_stream_has_not_described_is_published_all_the_same() {
    let mut windowed = Windowed::new();
    windowed.open();
    let closed = windowed.close("520:520:", &["1\ta\n"]);
    assert_eq!(closed, Ok(Closed { published: 1, left_out: 0 }));
    assert_eq!(windowed.sent().len(), 1);
    // And what follows in the stream, as the stream describes it.
    let columns = [COLUMNS[0], (false, "note", 25), (false, "more", 25)];
    let row = [wire::text("2"), wire::text("a"), wire::text("b")];
    let insert = wire::row(b'I', 7, &[wire::tuple(b'N', &row)]);
    windowed.transaction(530, &[wire::relation(7, "rides", b'd', &columns), insert.clone()]);
    windowed.open();
    assert_eq!(windowed.close("540:540:", &["3\tc\n"]).map(|closed| closed.published), Ok(1));
    windowed.transaction(541, &[insert]);
    assert_eq!(windowed.sent().len(), 3);
}

#[test]
fn a_chunk_that_does_not_fit_its_window_changes_nothing() {
    let mut windowed = Windowed::new();
    let columns = [COLUMNS[0], (false, "renamed", 25)];
    windowed.open();
    windowed.transaction(510, &[wire::relation(7, "rides", b'd', &columns), insert("2")]);
    assert_eq!(windowed.close("520:520:", &["1\ta\n"]), Err(Spoiled::Altered));
    // Its commit came before the window, and the reader did not see it.
    windowed.open();
    assert_eq!(windowed.close("510:520:510", &["1\ta\n"]), Err(Spoiled::Unseen { xid: 510 }));
    assert_eq!(windowed.sent().len(), 1, "the insert");
    assert!(windowed.stands().tables.is_empty());
    // Closed, it is closed.
    assert_eq!(windowed.close("520:520:", &["1\ta\n"]), Err(Spoiled::Altered));
}

#[test]
fn messages_of_our_own_are_published_by_nobody_and_those_of_others_obeyed_by_nobody() {
    let mut windowed = Windowed::new();
    let theirs = snapshot::Watermark { slot: "other".to_owned(), run: String::new(), number: 1 };
    for (prefix, content) in [
        ("rowcast.watermark", theirs.content()),
        ("rowcast.watermark", String::new()),
        ("rowcast.anything", String::new()),
    ] {
        let message = wire::message(true, 200, prefix, content.as_bytes());
        windowed.transaction(510, &[message]);
    }
    assert!(windowed.sent().is_empty());
    assert!(windowed.outcomes.try_recv().is_err());
    windowed.transaction(511, &[wire::message(true, 200, "app", b"x")]);
    assert_eq!(windowed.sent().len(), 1);
}

#[tokio::test]
async fn a_signal_is_noted_where_it_stands_and_left_for_whoever_takes_snapshots() {
    let mut windowed = Windowed::new();
    let stranger = br#"{"type":"snapshot","id":"6","tables":["public.rides"]}"#;
    windowed.transaction(509, &[wire::message(true, 200, "rowcast.signal", stranger)]);
    let content = br#"{"type":"snapshot","id":"7","token":"s3cret",
        "tables":["public.rides","public.z*"]}"#;
    windowed.transaction(510, &[wire::message(true, 200, "rowcast.signal", content)]);
    let broken = wire::message(true, 210, "rowcast.signal", b"take one");
    windowed.transaction(511, &[broken]);
    assert!(windowed.sent().is_empty());
    let snapshot::Command::Take(request) = windowed.control.next().await else { panic!("one") };
    assert_eq!((request.id.as_str(), request.tables.len()), ("7", 2));
    assert_eq!(windowed.stands().requests, std::slice::from_ref(&request));
    // Once it is known what it means, that stands in its place.
    let edits = vec![Edit::Put(asked(false)), Edit::Answer(request)];
    windowed.order(512, Order::Note(edits));
    let answered = Snapshots { tables: vec![asked(false)], ..Snapshots::default() };
    assert_eq!(windowed.stands(), answered);
}

#[test]
fn tables_that_only_snapshots_described_are_forgotten_once_they_are_dropped() {
    let mut windowed = Windowed::new();
    let mut most = 0;
    for oid in 1_000..2_500 {
        windowed.at = u64::from(oid) * 20;
        let order = Order::Open { oid, key: vec!["id".to_owned()], limit_bytes: 1 << 20 };
        assert_eq!(windowed.order(500, order).result, Ok(Closed::default()));
        let visibility = Visibility::parse("520:520:").expect("a snapshot");
        let table = Windowed::table(oid, &format!("t{oid}"));
        let mut chunk = snapshot::Chunk::new(table, visibility, 0);
        chunk.push(b"1\ta\n");
        let order = Order::Close { oid, chunk: Box::new(chunk), edits: Vec::new() };
        assert_eq!(windowed.order(501, order).result.map(|closed| closed.published), Ok(1));
        most = most.max(windowed.worker.publisher.known());
    }
    assert!((500..=512).contains(&most), "{most} tables were known at a time");
}
