//! The worker against a sink that does what the test commands: nothing is confirmed that was not
//! acknowledged, a record that is lost stops the line, and the worker ends where it is told to.
//!
//! The stream is made up: transactions of some rows, messages beside them, keepalives. The worker
//! runs on a thread of its own, as in the bridge; the test is the broker, and acknowledges in any
//! order, makes room, loses records. After each step the confirmed LSN is held against what the
//! broker knows by the *content* of records, so that a ticket given to the wrong record shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Willing, checkpointing, wire};
use crate::checkpoint::{Ledger, Progress, Ticket};
use crate::config::{Config, Format};
use crate::encode::{EncodeOptions, Encoder, SourceIdentity};
use crate::kafka::{self, Outgoing, SendError};
use crate::pipeline::{Mode, Policy, Stop};
use crate::postgres::frame::{put_keepalive, put_xlog_data};
use crate::postgres::{ChunkSender, chunk_channel};
use crate::route::Router;
use crate::worker::*;

/// Longer than anything here takes on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(30);

const START: u64 = 100;

/// What the server sends, one after the other.
#[derive(Debug, Clone)]
enum Sent {
    /// This many rows, and whether a message of the transaction is among them.
    Transaction {
        rows: usize,
        message: bool,
    },
    /// A message that belongs to no transaction.
    Message,
    Keepalive,
}

/// What the broker does, and when more of the stream comes.
#[derive(Debug, Clone)]
enum Step {
    /// The next part of the stream, of this many frames.
    Feed(usize),
    /// Acknowledge the record that is so far along those in flight, modulo their number.
    Ack(usize),
    /// As `Ack`, but the record is lost for good.
    Reject(usize),
    /// Room for so many more records.
    Room(usize),
}

/// A record's place in the stream: which of what was sent, and which record of it.
type Place = (usize, usize);

/// One thing of the stream and what becomes of it.
struct Item {
    frames: Vec<Bytes>,
    /// Where it ends: confirmed when all up to it is acknowledged.
    end: u64,
    records: usize,
    is_transaction: bool,
}

fn frame(lsn: u64, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_xlog_data(Lsn::from(lsn), Lsn::from(lsn), 0, body, &mut out);
    out.freeze()
}

/// The stream; every record has its place in its key or, a message, in its prefix.
fn stream(sent: &[Sent]) -> Vec<Item> {
    let item = |(at, sent): (usize, &Sent)| {
        let lsn = START + 10 * (at as u64 + 1);
        let end = lsn + 5;
        let message = |transactional, record: usize| {
            frame(lsn, &wire::message(transactional, lsn, &format!("{at}/{record}"), b"content"))
        };
        match *sent {
            Sent::Transaction { rows, message: with_message } => {
                let mut frames = vec![frame(lsn, &wire::begin(lsn, 0, 7))];
                frames.push(frame(lsn, &wire::relation(1, "t", b'd', &[(true, "place", 25)])));
                frames.extend((0..rows).map(|record| {
                    let row = wire::tuple(b'N', &[wire::text(&format!("{at}/{record}"))]);
                    frame(lsn, &wire::row(b'I', 1, &[row]))
                }));
                frames.extend(with_message.then(|| message(true, rows)));
                frames.push(frame(lsn, &wire::commit(lsn, end, 0)));
                let records = rows + usize::from(with_message);
                Item { frames, end, records, is_transaction: true }
            }
            // Of its own it moves nothing: the transaction or the keepalive after it does.
            Sent::Message => {
                Item { frames: vec![message(false, 0)], end: 0, records: 1, is_transaction: false }
            }
            Sent::Keepalive => {
                let mut out = BytesMut::new();
                put_keepalive(Lsn::from(end), 0, false, &mut out);
                Item { frames: vec![out.freeze()], end, records: 0, is_transaction: false }
            }
        }
    };
    sent.iter().enumerate().map(item).collect()
}

#[derive(Default)]
struct Broker {
    /// In the order in which they came.
    received: Vec<(Place, Ticket)>,
    acked: BTreeSet<usize>,
    rejected: BTreeSet<usize>,
    room: usize,
    rooms_made: u64,
    /// The ticket that waits for room; it must be the next that comes.
    waiting: Option<Ticket>,
    refuses: bool,
}

#[derive(Default)]
struct Commanded {
    broker: Mutex<Broker>,
    changed: Condvar,
}

impl Commanded {
    fn lock(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap()
    }

    fn make_room(&self, records: usize) {
        let mut broker = self.lock();
        broker.room = broker.room.saturating_add(records);
        broker.rooms_made += 1;
        self.changed.notify_all();
    }
}

impl Sink for Commanded {
    fn send_queued(&self) {}

    fn checkpoint(&self, _: &Outgoing<'_>) -> Result<(), SendError> {
        Ok(())
    }

    fn begin(&self) -> Result<(), kafka::Error> {
        Ok(())
    }

    fn commit(&self, _: Duration) -> Result<bool, kafka::Error> {
        Ok(true)
    }

    fn send(&self, record: &Outgoing<'_>, ticket: Ticket) -> Result<(), SendError> {
        let mut broker = self.lock();
        assert!(broker.waiting.is_none_or(|waiting| waiting == ticket), "the same record again");
        assert_eq!(ticket.as_u64(), broker.received.len() as u64, "tickets count the records");
        if broker.refuses {
            let (topic, bytes) = (record.topic.to_owned(), record.bytes());
            return Err(SendError::Refused(kafka::Error::TooLarge { topic, bytes }));
        }
        if broker.room == 0 {
            broker.waiting = Some(ticket);
            self.changed.notify_all();
            return Err(SendError::Full { rooms_made: broker.rooms_made });
        }
        broker.room -= 1;
        broker.waiting = None;
        // {"place":"3/1"} or {"prefix":"3/1"}
        let key: BTreeMap<String, String> = serde_json::from_slice(record.key.unwrap()).unwrap();
        let (item, of_item) = key.values().next().unwrap().split_once('/').unwrap();
        let place = (item.parse().unwrap(), of_item.parse().unwrap());
        broker.received.push((place, ticket));
        self.changed.notify_all();
        Ok(())
    }

    fn wait_for_room(&self, rooms_made: u64, limit: Duration) {
        let seen = |broker: &mut Broker| broker.rooms_made == rooms_made;
        // A thousand cases that each wait in vain would be long.
        let limit = limit.min(Duration::from_millis(1));
        drop(self.changed.wait_timeout_while(self.lock(), limit, seen).unwrap());
    }
}

/// A worker at its work.
struct Line {
    sink: Arc<Commanded>,
    ledger: Arc<Ledger>,
    stop: Arc<Stop>,
    chunks: Option<ChunkSender>,
    worker: JoinHandle<Result<Ended, Error>>,
    items: Vec<Item>,
    /// Frames of the stream that were sent already, and records that are in them.
    fed: usize,
    fed_records: usize,
}

impl Line {
    fn start(sent: &[Sent]) -> Self {
        let mut config = Config::default();
        config.kafka.brokers = Some("none:9092".to_owned());
        let settings = config.resolve("taxi").unwrap();
        let format = Format::default();
        let source = SourceIdentity::default();
        let (sink, stop) = (Arc::<Commanded>::default(), Arc::<Stop>::default());
        let ledger = Arc::new(Ledger::new(Progress::at(Lsn::from(START))));
        let (chunks, mut received) = chunk_channel(1 << 20);
        let encoder = Encoder::new(&EncodeOptions { format: &format, source });
        let router = Router::new(&settings, "taxi");
        let publisher = Publisher::new(Willing, router, encoder, Policy::default());
        let checkpointing = checkpointing(Progress::at(Lsn::from(START)), Mode::AtLeastOnce);
        let (own, told) = (Arc::clone(&ledger), Arc::clone(&stop));
        let out = Out::new(Arc::clone(&sink), own, Arc::default(), told, checkpointing);
        let worker = Worker::new(publisher, out, Some(Lsn::from(START)));
        let worker = std::thread::spawn(move || worker.run(&mut received));
        let items = stream(sent);
        Self { sink, ledger, stop, chunks: Some(chunks), worker, items, fed: 0, fed_records: 0 }
    }

    /// Sends the next `count` frames in one chunk; whether there were any.
    fn feed(&mut self, count: usize) -> bool {
        let frames = self.items.iter().flat_map(|item| &item.frames);
        let part: Vec<Bytes> = frames.skip(self.fed).take(count).cloned().collect();
        let Some(chunks) = &self.chunks else { return false };
        if part.is_empty() {
            return false;
        }
        self.fed += part.len();
        let is_record = |frame: &&Bytes| {
            // After the header of CopyData and of XLogData.
            matches!(frame.get(5..), Some([b'w', rest @ ..]) if matches!(rest[24], b'I' | b'M'))
        };
        self.fed_records += part.iter().filter(is_record).count();
        let bytes = Bytes::from(part.concat());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let room = runtime.block_on(chunks.room_for(bytes.len()));
        // A worker that was asked to stop takes no more.
        room.is_ok_and(|room| chunks.send(bytes, true, room).is_ok())
    }

    /// Waits until the worker can do no more with what it was given.
    fn settle(&self) {
        let busy = |broker: &mut Broker| {
            broker.received.len() < self.fed_records
                && broker.waiting.is_none()
                && !self.worker.is_finished()
        };
        let deadline = Instant::now() + PATIENCE;
        let mut broker = self.sink.lock();
        while busy(&mut broker) {
            assert!(Instant::now() < deadline, "the worker stands still");
            let wait = Duration::from_millis(5);
            broker = self.sink.changed.wait_timeout_while(broker, wait, busy).unwrap().0;
        }
    }

    /// The broker's part of a step.
    fn act(&mut self, step: &Step) {
        let chosen = |broker: &Broker, nth: usize| {
            let done = |at: &usize| broker.acked.contains(at) || broker.rejected.contains(at);
            let in_flight: Vec<usize> = (0..broker.received.len()).filter(|at| !done(at)).collect();
            let nth = nth.checked_rem(in_flight.len())?;
            Some((in_flight[nth], broker.received[in_flight[nth]].1))
        };
        match *step {
            Step::Feed(count) => drop(self.feed(count)),
            Step::Room(records) => self.sink.make_room(records),
            Step::Ack(nth) => {
                let mut broker = self.sink.lock();
                let Some((at, ticket)) = chosen(&broker, nth) else { return };
                broker.acked.insert(at);
                drop(broker);
                self.ledger.ack_all(&[ticket]);
            }
            Step::Reject(nth) => {
                let mut broker = self.sink.lock();
                let Some((at, ticket)) = chosen(&broker, nth) else { return };
                broker.rejected.insert(at);
                drop(broker);
                self.ledger.reject(ticket);
            }
        }
    }

    /// Up to where everything is acknowledged, by what the broker has.
    fn acknowledged(&self) -> u64 {
        let broker = self.sink.lock();
        let acked: BTreeSet<Place> = broker.acked.iter().map(|at| broker.received[*at].0).collect();
        let mut end = START;
        for (at, item) in self.items.iter().enumerate() {
            if (0..item.records).any(|record| !acked.contains(&(at, record))) {
                break;
            }
            end = end.max(item.end);
        }
        end
    }

    fn confirmed(&self) -> u64 {
        self.ledger.standing().delivered.through_lsn.as_u64()
    }

    /// The records must come in the order of the stream, none left out.
    fn assert_in_order(&self) {
        let places = |(at, item): (usize, &Item)| -> Vec<Place> {
            (0..item.records).map(|record| (at, record)).collect()
        };
        let expected = self.items.iter().enumerate().flat_map(places);
        let broker = self.sink.lock();
        let received = broker.received.iter().map(|(place, _)| *place);
        assert!(received.zip(expected).all(|(is, should)| is == should));
    }

    /// Waits for the worker's end.
    fn join(self) -> (Result<Ended, Error>, Arc<Commanded>) {
        let deadline = Instant::now() + PATIENCE;
        while !self.worker.is_finished() {
            assert!(Instant::now() < deadline, "the worker does not end");
            std::thread::yield_now();
        }
        (self.worker.join().unwrap(), self.sink)
    }
}

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    let item = prop_oneof![
        4 => (0_usize..6, any::<bool>())
            .prop_map(|(rows, message)| Sent::Transaction { rows, message }),
        1 => Just(Sent::Message),
        1 => Just(Sent::Keepalive),
    ];
    vec(item, 1..10)
}

fn steps(with_rejects: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1_usize..9).prop_map(Step::Feed),
        8 => (0_usize..9).prop_map(Step::Ack),
        8 => (1_usize..6).prop_map(Step::Room),
        with_rejects => (0_usize..9).prop_map(Step::Reject),
    ];
    vec(step, 0..60)
}

proptest! {
    #[test]
    fn nothing_is_confirmed_before_it_is_acknowledged_and_all_is_in_the_end(
        sent in sent(), steps in steps(0),
    ) {
        let mut line = Line::start(&sent);
        for step in &steps {
            line.act(step);
            line.settle();
            // What is acknowledged only changes here, so that the order of the looks is of no matter.
            let (confirmed, acknowledged) = (line.confirmed(), line.acknowledged());
            prop_assert!(confirmed <= acknowledged, "{} of {}", confirmed, acknowledged);
        }
        while line.feed(usize::MAX) {}
        line.sink.make_room(usize::MAX);
        line.settle();
        line.assert_in_order();
        while line.sink.lock().acked.len() < line.fed_records {
            line.act(&Step::Ack(usize::MAX));
            prop_assert!(line.confirmed() <= line.acknowledged());
        }
        line.chunks = None;
        let ledger = Arc::clone(&line.ledger);
        let all = line.items.iter().filter(|item| item.is_transaction).map(|item| item.end).max();
        let (ended, sink) = line.join();
        prop_assert_eq!(ended.unwrap(), Ended::SourceClosed);
        prop_assert!(ledger.standing().delivered.through_lsn.as_u64() >= all.unwrap_or(START));
        prop_assert_eq!(ledger.standing().in_flight, 0);
        prop_assert!(sink.lock().waiting.is_none());
    }

    #[test]
    fn a_lost_record_stops_the_line_for_good(sent in sent(), steps in steps(2)) {
        let mut line = Line::start(&sent);
        let mut after_loss = None;
        for step in &steps {
            line.act(step);
            line.settle();
            prop_assert!(line.confirmed() <= line.acknowledged());
            let broker = line.sink.lock();
            if let Some(lost) = broker.rejected.first() {
                let (item, _) = broker.received[*lost].0;
                after_loss = Some(line.items[item..].iter().map(|item| item.end).collect::<Vec<_>>());
            }
        }
        // Acknowledging all the rest, and the lost record too, moves nothing over it.
        while line.feed(usize::MAX) {}
        line.sink.make_room(usize::MAX);
        line.settle();
        let tickets: Vec<Ticket> =
            line.sink.lock().received.iter().map(|(_, ticket)| *ticket).collect();
        line.ledger.ack_all(&tickets);
        line.chunks = None;
        let ledger = Arc::clone(&line.ledger);
        line.join().0.unwrap();
        let confirmed = ledger.standing().delivered.through_lsn.as_u64();
        if let Some(ends) = after_loss {
            prop_assert!(!ends.contains(&confirmed), "{} is after the lost record", confirmed);
        }
    }

    #[test]
    fn told_to_stop_at_a_commit_it_ends_between_transactions(
        sent in sent(), steps in steps(0),
    ) {
        let mut line = Line::start(&sent);
        for step in &steps {
            line.act(step);
            line.settle();
        }
        line.stop.at_commit();
        while line.feed(3) {}
        line.sink.make_room(usize::MAX);
        line.chunks = None;
        let counts: Vec<usize> = line.items.iter().map(|item| item.records).collect();
        let ledger = Arc::clone(&line.ledger);
        let (ended, sink) = line.join();
        ended.unwrap();
        prop_assert!(!ledger.in_transaction());
        // A whole number of the things of the stream.
        let mut received = sink.lock().received.len();
        for count in counts {
            if received == 0 {
                break;
            }
            prop_assert!(received >= count, "a transaction is cut");
            received -= count;
        }
    }

    #[test]
    fn told_to_stop_now_it_ends_though_there_is_no_room(sent in sent(), feed in 1_usize..40) {
        let mut line = Line::start(&sent);
        line.feed(feed);
        line.settle();
        line.stop.now();
        let waits = line.sink.lock().waiting.is_some();
        line.chunks = None;
        let (ended, sink) = line.join();
        let ended = ended.unwrap();
        prop_assert!(!waits || ended == Ended::Stopped);
        prop_assert_eq!(sink.lock().received.len(), 0, "there never was room");
    }

    #[test]
    fn a_record_that_is_refused_ends_it_and_nothing_follows(
        sent in sent(), room in 0_usize..9,
    ) {
        let mut line = Line::start(&sent);
        line.sink.make_room(room);
        line.feed(usize::MAX);
        line.settle();
        let waits = line.sink.lock().waiting.is_some();
        line.sink.lock().refuses = true;
        line.sink.make_room(usize::MAX);
        line.chunks = None;
        let (ended, sink) = line.join();
        let too_large = matches!(&ended, Err(Error::Kafka(kafka::Error::TooLarge { .. })));
        let carried = matches!(&ended, Ok(Ended::SourceClosed));
        prop_assert!(too_large || carried && !waits, "{:?}", ended);
        prop_assert!(sink.lock().received.len() <= room);
    }
}
