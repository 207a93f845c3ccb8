//! The contestants that are this program itself: readers that let their rows go, a producer that only
//! sends, and a client that sends batches which are made already.
//!
//! They use what rowcast uses, so that the difference is the rest of it: the same statements over the
//! same kind of session; librdkafka with the same properties, and records that rowcast published; the
//! very batches that the broker had of it.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message as _, Offset, TopicPartitionList};
use rowcast::config::{TableFilter, TableSettings};
use rowcast::postgres::copy::CopyChunk;
use rowcast::postgres::{self, ConnInfo, ConnectOptions, CopySession};
use rowcast::snapshot::pages::{self, RANGE_BYTES};
use rowcast::snapshot::plan::{self, Scope};

use crate::replay;
use crate::support::kafka::client_config;
use crate::trips::PUBLICATION;

/// By this first argument the program knows that it is a contestant.
pub(crate) const FLAG: &str = "--contestant";

/// Records that are kept for the producer to send again and again.
const KEPT: usize = 20_000;

/// Pages of the server are of this size, unless it was built otherwise.
const PAGE_BYTES: u32 = 8192;

/// Runs a contestant by its arguments.
pub(crate) fn run(arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["copy", url, connections] => {
            copy(url, number(connections), |chunk| {
                std::hint::black_box(chunk);
            });
        }
        ["both", brokers, topic, sample, url, connections] => {
            both(brokers, topic, Path::new(sample), url, number(connections));
        }
        ["produce", brokers, topic, sample, rows, threads] => {
            produce(brokers, topic, Path::new(sample), number(rows), number(threads));
        }
        ["replay", brokers, topic, batches] => replay::run(brokers, topic, Path::new(batches)),
        _ => panic!("no contestant is called by {arguments:?}"),
    }
}

fn number<N: std::str::FromStr>(text: &str) -> N {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a number"))
}

/// Reads the published tables by ranges of their pages, and hands on what comes. Returns how many rows
/// that were.
fn copy(url: &str, connections: usize, take: impl Fn(CopyChunk) + Sync) -> u64 {
    let info = ConnInfo::parse(url, &|_| None).expect("a URL");
    let statements = Mutex::new(block_on(statements(&info)));
    let rows = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                block_on(async {
                    let options = ConnectOptions::default();
                    let mut session = CopySession::connect(&info, &options).await.expect("connect");
                    while let Some(sql) = next(&statements) {
                        let mut copy = session.copy_out(&sql).await.expect("COPY");
                        while let Some(chunk) = copy.next().await.expect("rows") {
                            take(chunk);
                        }
                        rows.fetch_add(copy.rows(), Ordering::Relaxed);
                    }
                });
            });
        }
    });
    let rows = rows.into_inner();
    assert!(rows > 0, "the table is not empty");
    rows
}

/// Reads as [`copy`] does and sends as [`produce`] does, with nothing in between: for each row that it
/// reads, whatever that says, it sends a record that was made before.
fn both(brokers: &str, topic: &str, sample: &Path, url: &str, connections: usize) {
    let bytes = fs::read(sample).expect("read the records");
    let records = kept(&bytes);
    let producer = producer(brokers);
    let rows = copy(url, connections, |chunk| {
        for (_, (key, value)) in chunk.rows().zip(records.iter().cycle()) {
            send(&producer, topic, key, value);
        }
    });
    finish(&producer, rows);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

fn next(statements: &Mutex<VecDeque<String>>) -> Option<String> {
    statements.lock().expect("nobody panics").pop_front()
}

async fn statements(info: &ConnInfo) -> VecDeque<String> {
    let client = postgres::client::connect(info, &ConnectOptions::default()).await;
    let client = client.expect("connect");
    let version = postgres::client::server_version(&client).await.expect("a version");
    let captured = TableFilter::parse(&["*.*".to_owned()], &[]).expect("a pattern");
    let settings = TableSettings::default();
    let scope = Scope {
        publications: [PUBLICATION, ""],
        server_version: version,
        captured: &captured,
        is_limited: false,
        signals: None,
        settings: &settings,
    };
    let plan = plan::plan(&client, &scope).await.expect("a plan");
    let mut statements = VecDeque::new();
    for table in &plan.tables {
        for leaf in &table.leaves {
            let ranges = pages::ranges(leaf.pages, RANGE_BYTES / PAGE_BYTES);
            statements.extend(ranges.map(|range| table.copy(leaf, range, None)));
        }
    }
    statements
}

/// Keeps records of a topic in a file: of each the lengths of key and value, then both.
pub(crate) fn keep(brokers: &str, topic: &str, file: &Path) {
    let consumer: BaseConsumer =
        client_config(brokers).set("group.id", "bench").create().expect("a consumer");
    let mut from_start = TopicPartitionList::new();
    from_start.add_partition_offset(topic, 0, Offset::Beginning).expect("an offset");
    consumer.assign(&from_start).expect("assign the partition");
    let mut kept = Vec::new();
    let mut count = 0;
    while count < KEPT {
        let Some(message) = consumer.poll(Duration::from_secs(10)) else { break };
        let message = message.expect("a record");
        for part in [message.key(), message.payload()] {
            let part = part.unwrap_or_default();
            kept.extend(u32::try_from(part.len()).expect("short").to_be_bytes());
            kept.extend(part);
        }
        count += 1;
    }
    assert!(count > 0, "{topic} has records");
    fs::write(file, kept).expect("write the records");
}

/// What was kept: key and value of each record.
fn kept(mut bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut part = || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).expect("it fits");
        let (part, rest) = rest.split_at(length);
        bytes = rest;
        Some(part)
    };
    std::iter::from_fn(|| Some((part()?, part()?))).collect()
}

/// Counts what was delivered.
#[derive(Default)]
struct Deliveries(AtomicU64);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        result.as_ref().unwrap_or_else(|(error, _)| panic!("not delivered: {error}"));
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends as many records as there are rows, by so many threads.
fn produce(brokers: &str, topic: &str, sample: &Path, rows: u64, threads: u64) {
    let bytes = fs::read(sample).expect("read the records");
    let records = kept(&bytes);
    let producer = producer(brokers);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (producer, records) = (&producer, &records);
            scope.spawn(move || {
                let own = (thread..rows).step_by(usize::try_from(threads).expect("few"));
                for ((key, value), _) in records.iter().cycle().zip(own) {
                    send(producer, topic, key, value);
                }
            });
        }
    });
    finish(&producer, rows);
}

fn producer(brokers: &str) -> ThreadedProducer<Deliveries> {
    client_config(brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("compression.type", "lz4")
        .set("socket.nagle.disable", "true")
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", "65536")
        .create_with_context(Deliveries::default())
        .expect("a producer")
}

fn finish(producer: &ThreadedProducer<Deliveries>, rows: u64) {
    producer.flush(Duration::from_secs(120)).expect("all is delivered");
    assert_eq!(producer.context().0.load(Ordering::Relaxed), rows);
}

fn send(producer: &ThreadedProducer<Deliveries>, topic: &str, key: &[u8], value: &[u8]) {
    let mut record = BaseRecord::to(topic).key(key).payload(value);
    while let Err((error, refused)) = producer.send(record) {
        let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
        assert_eq!(error, full, "send a record");
        std::thread::sleep(Duration::from_millis(1));
        record = refused;
    }
}
