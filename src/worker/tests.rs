//! What the worker hands over before it says that a transaction ended.

mod holds;
mod promises;
mod topics;
mod windows;

use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::change::{Relation, RelationFacts, Reselected, Row};
use crate::checkpoint::{Checkpoint, Ledger, Progress, Source, Ticket};
use crate::config::{Config, Format, Kafka, OnError};
use crate::encode::{EncodeOptions, Encoder, SourceIdentity};
use crate::kafka::{self, Outgoing, SendError};
use crate::pipeline::{Checkpointing, Dropped, Ensured, Mode, Policy, Stop, write_checkpoint};
use crate::route::{Router, TopicPlan};

#[path = "../../tests/changes/wire.rs"]
#[allow(dead_code, reason = "this test needs a few of its messages")]
pub(crate) mod wire;

/// Takes everything and acknowledges nothing by itself.
#[derive(Default)]
struct Held(Mutex<Vec<(String, Ticket)>>);

impl Sink for Held {
    fn send(&self, record: &Outgoing<'_>, ticket: Ticket) -> Result<(), SendError> {
        self.0.lock().unwrap().push((record.topic.to_owned(), ticket));
        Ok(())
    }

    fn checkpoint(&self, _: &Outgoing<'_>) -> Result<(), SendError> {
        Ok(())
    }

    fn begin(&self) -> Result<(), kafka::Error> {
        Ok(())
    }

    fn commit(&self, _: Duration) -> Result<bool, kafka::Error> {
        Ok(true)
    }

    fn send_queued(&self) {}

    fn wait_for_room(&self, _: u64, _: Duration) {}
}

pub(crate) struct Willing;

impl Lookup for Willing {
    fn relation_facts(
        &mut self,
        _: u32,
        _: &[u32],
        _: Option<&Transaction>,
    ) -> Result<RelationFacts, Error> {
        Ok(RelationFacts::default())
    }

    fn reselect(
        &mut self,
        _: &Relation,
        _: &Row<'_>,
        _: &[usize],
    ) -> Result<Option<Reselected>, Error> {
        Ok(None)
    }

    fn withheld(&mut self, _: &Relation) -> Result<Option<u32>, Error> {
        Ok(None)
    }

    fn ensure_topic(&mut self, _: &TopicPlan) -> Result<Ensured, Error> {
        Ok(Ensured::Exists { limit: None })
    }

    /// None that it is asked for is left. Of each table in turn, the place is its OID times 20.
    fn dropped(&mut self, tables: &[u32]) -> Result<Dropped, Error> {
        let sees = crate::snapshot::Visibility::parse("9000:9000:").unwrap();
        let last = tables.iter().max().copied().unwrap_or_default();
        let through = Lsn::from((u64::from(last) + 1) * 20);
        Ok(Dropped { oids: tables.to_vec(), sees, through })
    }
}

fn checkpointing(progress: Progress, mode: Mode) -> Checkpointing {
    Checkpointing {
        topic: "checkpoints".into(),
        pipeline: "nyc".to_owned(),
        start: Checkpoint {
            source: Source::default(),
            generation: 1,
            progress,
            snapshots: Arc::default(),
        },
        is_new: false,
        mode,
        idle_limit: Duration::from_secs(10),
        drain_limit: Duration::from_secs(10),
    }
}

fn worker(format: Format, ledger: &Arc<Ledger>) -> (Worker<Held, Willing>, Arc<Held>) {
    worker_with(Willing, format, ledger)
}

fn worker_with<L: Lookup>(
    lookup: L,
    format: Format,
    ledger: &Arc<Ledger>,
) -> (Worker<Held, L>, Arc<Held>) {
    worker_in(Mode::AtLeastOnce, lookup, format, ledger)
}

fn worker_in<L: Lookup>(
    mode: Mode,
    lookup: L,
    format: Format,
    ledger: &Arc<Ledger>,
) -> (Worker<Held, L>, Arc<Held>) {
    let kafka = Kafka { brokers: Some("b:9092".to_owned()), ..Kafka::default() };
    let config = Config { name: Some("nyc".to_owned()), kafka, format, ..Config::default() };
    let settings = config.resolve("taxi").unwrap();
    let source = SourceIdentity { name: "nyc".to_owned(), ..SourceIdentity::default() };
    let sink = Arc::new(Held::default());
    let encoder = Encoder::new(&EncodeOptions { format: &settings.format, source });
    let router = Router::new(&settings, "taxi");
    let publisher = Publisher::new(lookup, router, encoder, Policy::default());
    let checkpointing = checkpointing(ledger.standing().delivered, mode);
    let (metrics, stop) = (Arc::default(), Arc::default());
    let out = Out::new(Arc::clone(&sink), Arc::clone(ledger), metrics, stop, checkpointing);
    (Worker::new(publisher, out, None), sink)
}

fn carry(worker: &mut Worker<Held, Willing>, frames: &[Vec<u8>]) {
    for frame in frames {
        assert!(worker.message(Lsn::from(850), frame).is_ok());
    }
}

#[test]
fn a_transaction_is_confirmed_with_the_records_around_it_and_not_before() {
    let (trips, insert) = wire::taxi(7);
    let frames = [wire::begin(900, 0, 771), trips, insert, wire::commit(900, 910, 0)];
    // Whichever of the three records is acknowledged last.
    for last in 0..3 {
        let ledger = Arc::new(Ledger::new(Progress::at(Lsn::from(800))));
        let format = Format { transaction_metadata: true, ..Format::default() };
        let (mut worker, sink) = worker(format, &ledger);
        carry(&mut worker, &frames);
        let mut sent = sink.0.lock().unwrap().clone();
        let topics: Vec<&str> = sent.iter().map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(topics, ["nyc.transaction", "nyc.public.rides", "nyc.transaction"]);
        let (_, last) = sent.remove(last);
        for (_, ticket) in sent {
            ledger.ack_all(&[ticket]);
        }
        assert_eq!(ledger.standing().delivered.through_lsn, Lsn::from(800));
        ledger.ack_all(&[last]);
        assert_eq!(ledger.standing().delivered.through_lsn, Lsn::from(910));
    }
}

#[test]
fn a_transaction_without_changes_is_held_by_the_records_around_it_too() {
    let ledger = Arc::new(Ledger::new(Progress::at(Lsn::from(800))));
    let format = Format { transaction_metadata: true, ..Format::default() };
    let (mut worker, sink) = worker(format, &ledger);
    carry(&mut worker, &[wire::begin(900, 0, 771), wire::commit(900, 910, 0)]);
    let sent: Vec<Ticket> = sink.0.lock().unwrap().iter().map(|(_, ticket)| *ticket).collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(ledger.standing().delivered.through_lsn, Lsn::from(800));
    ledger.ack_all(&sent);
    assert_eq!(ledger.standing().delivered.through_lsn, Lsn::from(910));
}

#[test]
fn without_transaction_metadata_nothing_but_changes_is_sent() {
    let ledger = Arc::new(Ledger::new(Progress::at(Lsn::from(800))));
    let (mut worker, sink) = worker(Format::default(), &ledger);
    carry(&mut worker, &[wire::begin(900, 0, 771), wire::commit(900, 910, 0)]);
    assert!(sink.0.lock().unwrap().is_empty());
    assert_eq!(ledger.standing().delivered.through_lsn, Lsn::from(910));
}

#[test]
fn a_dead_letter_holds_its_transaction_as_any_record_does() {
    let columns = [(true, "id", 20), (false, "note", 25)];
    let insert = |note: &[u8]| {
        let row = [wire::text("1"), wire::Value::Text(note.to_vec())];
        wire::row(b'I', 7, &[wire::tuple(b'N', &row)])
    };
    let described = wire::relation(7, "rides", b'd', &columns);
    let frames = [wire::begin(900, 0, 771), described, insert(b"a"), insert(b"\xff"), insert(b"b")];
    let ledger = Arc::new(Ledger::new(Progress::at(Lsn::from(800))));
    let (mut worker, sink) = worker(Format::default(), &ledger);
    worker.publisher.policy.on_error = Some(OnError::SkipWithDeadLetter);
    carry(&mut worker, &frames);
    carry(&mut worker, &[wire::commit(900, 910, 0)]);
    let sent = sink.0.lock().unwrap().clone();
    let topics: Vec<&str> = sent.iter().map(|(topic, _)| topic.as_str()).collect();
    assert_eq!(topics, ["nyc.public.rides", "nyc.dead-letter", "nyc.public.rides"]);
    ledger.ack_all(&[sent[0].1, sent[2].1]);
    assert_eq!(ledger.standing().delivered.through_lsn, Lsn::from(800));
    ledger.ack_all(&[sent[1].1]);
    assert_eq!(ledger.standing().delivered.through_lsn, Lsn::from(910));
    assert_eq!(worker.out.metrics.dead_letters.get(), 1);

    // Told nothing, it stops there.
    worker.publisher.policy.on_error = Some(OnError::Fail);
    carry(&mut worker, &[wire::begin(950, 0, 772)]);
    let halt = worker.message(Lsn::from(920), &insert(b"\xff"));
    let Err(Halt::Failed(Error::Encode { position, .. })) = halt else { panic!("it goes on") };
    assert_eq!((position.commit_lsn, position.ordinal), (Lsn::from(950), 1));
}

#[test]
fn commit_times_that_jump_change_neither_order_nor_what_is_confirmed() {
    const TEN_YEARS_US: i64 = 10 * 365 * 24 * 3600 * 1_000_000;
    let (trips, insert) = wire::taxi(7);
    let ledger = Arc::new(Ledger::new(Progress::at(Lsn::from(800))));
    let (mut worker, sink) = worker(Format::default(), &ledger);
    carry(&mut worker, &[trips]);
    for (lsn, time_us) in [(900, 0), (920, TEN_YEARS_US), (940, -TEN_YEARS_US), (960, 1)] {
        carry(&mut worker, &[wire::begin(lsn, time_us, 771), insert.clone()]);
        carry(&mut worker, &[wire::commit(lsn, lsn + 10, time_us)]);
        let (_, ticket) = sink.0.lock().unwrap().pop().expect("a record");
        ledger.ack_all(&[ticket]);
        assert_eq!(ledger.standing().delivered.through_lsn, Lsn::from(lsn + 10), "{time_us}");
    }
}

/// Is asked to stop while it waits for a topic.
struct Interrupted;

impl Lookup for Interrupted {
    fn relation_facts(
        &mut self,
        _: u32,
        _: &[u32],
        _: Option<&Transaction>,
    ) -> Result<RelationFacts, Error> {
        Ok(RelationFacts::default())
    }

    fn reselect(
        &mut self,
        _: &Relation,
        _: &Row<'_>,
        _: &[usize],
    ) -> Result<Option<Reselected>, Error> {
        Ok(None)
    }

    fn withheld(&mut self, _: &Relation) -> Result<Option<u32>, Error> {
        Ok(None)
    }

    fn ensure_topic(&mut self, _: &TopicPlan) -> Result<Ensured, Error> {
        Ok(Ensured::Stopped)
    }
}

#[test]
fn what_has_no_topic_when_told_to_stop_is_not_sent() {
    let (trips, insert) = wire::taxi(7);
    let bad = wire::row(b'I', 7, &[wire::tuple(b'N', &[wire::Value::Text(b"\xff".to_vec())])]);
    let described = wire::relation(7, "rides", b'd', &[(false, "note", 25)]);
    let transaction = Format { transaction_metadata: true, ..Format::default() };
    for (what, format, frames) in [
        ("a row", Format::default(), vec![wire::begin(900, 0, 771), trips, insert]),
        ("a dead letter", Format::default(), vec![wire::begin(900, 0, 771), described, bad]),
        ("a transaction's begin", transaction, vec![wire::begin(900, 0, 771)]),
    ] {
        let ledger = Arc::new(Ledger::new(Progress::at(Lsn::from(800))));
        let (mut worker, sink) = worker_with(Interrupted, format, &ledger);
        worker.publisher.policy.on_error = Some(OnError::SkipWithDeadLetter);
        let (last, before) = frames.split_last().expect("some");
        for frame in before {
            assert!(worker.message(Lsn::from(850), frame).is_ok(), "{what}");
        }
        let halt = worker.message(Lsn::from(850), last);
        assert!(matches!(halt, Err(Halt::Stopped)), "{what}");
        assert!(sink.0.lock().unwrap().is_empty(), "{what} is sent");
        assert_eq!(ledger.issued(), 0, "{what} is waited for");
    }
}

/// Keeps the last checkpoint, and acknowledges each at once.
struct Keeps(Arc<Ledger>, Mutex<Vec<u8>>);

impl Sink for Keeps {
    fn send(&self, _: &Outgoing<'_>, _: Ticket) -> Result<(), SendError> {
        Ok(())
    }

    fn checkpoint(&self, record: &Outgoing<'_>) -> Result<(), SendError> {
        *self.1.lock().unwrap() = record.value.unwrap_or_default().to_vec();
        Ok(())
    }

    fn begin(&self) -> Result<(), kafka::Error> {
        Ok(())
    }

    fn commit(&self, _: Duration) -> Result<bool, kafka::Error> {
        if self.0.is_checkpoint_under_way() {
            self.0.checkpoint_acknowledged();
        }
        Ok(true)
    }

    fn send_queued(&self) {}

    fn wait_for_room(&self, _: u64, _: Duration) {}
}

#[test]
fn an_intent_is_written_as_such_whatever_was_published_before() {
    let exactly_once = Mode::ExactlyOnce {
        commit_interval: Duration::ZERO,
        max_transaction_bytes: 1 << 20,
        timeout: Duration::from_secs(60),
    };
    for mode in [Mode::AtLeastOnce, exactly_once] {
        let ledger = Arc::new(Ledger::new(Progress::at(Lsn::from(800))));
        let sink = Arc::new(Keeps(Arc::clone(&ledger), Mutex::default()));
        let intent = checkpointing(Progress::default(), mode);
        let (metrics, stop) = (Arc::default(), Arc::default());
        let written =
            write_checkpoint(Arc::clone(&sink), Arc::clone(&ledger), metrics, stop, intent);
        assert!(written.unwrap());
        assert!(Checkpoint::read(&sink.1.lock().unwrap()).unwrap().is_intent());
        // Postgres may discard no less for it.
        assert_eq!(ledger.standing().confirmed, Lsn::from(800));
    }
}
