//! `delivery = "exactly-once"`, on a real Kafka: a reader of what is committed sees every change
//! once and in order, and transactions of the source whole, whatever becomes of the bridge.
//!
//! The reader's client reads what is committed, as librdkafka does by default.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _};
use tokio_postgres::Client;

use crate::delivery::{opened, position, reading, replayed, topics};
use crate::load::{self, LOAD_LIMIT, TABLES};
use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, RecordReader};
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, confirmed};
use crate::support::relay::{Line, Relay};
use crate::support::witness::Witness;
use crate::support::{PATIENCE, eventually, unique};

const CONFIG: &str = "delivery = \"exactly-once\"\n[format]\nposition_headers = true\n\
                      [topics]\npartitions = 3\n";

/// Reads on until there are so many records.
async fn counted(reader: RecordReader, count: usize) -> RecordReader {
    reading(reader, move |reader| {
        reader.until_count(count, PATIENCE);
    })
    .await
}

/// Has the server end the process that serves the slot.
async fn end_walsender(client: &Client, name: &str) {
    let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
               WHERE slot_name = $1 AND active_pid IS NOT NULL";
    client.query(end, &[&format!("rowcast_{name}")]).await.expect("end the walsender");
}

/// A place in the stream; of a delete and its tombstone each its own.
type Place = (rowcast::lsn::Lsn, u64, bool);

fn place(record: &OwnedRecord) -> Place {
    let (lsn, ordinal) = position(record);
    (lsn, ordinal, record.value.is_none())
}

/// Panics unless every change is there once, and the changes of each partition in order.
fn assert_once_and_in_order(records: &[OwnedRecord]) {
    let mut last: BTreeMap<(&str, i32), Place> = BTreeMap::new();
    for record in records {
        let at = place(record);
        if let Some(before) = last.insert((&record.topic, record.partition), at) {
            assert!(before < at, "{at:?} comes after {before:?} in {}", record.topic);
        }
    }
}

/// Panics unless the records so far are whole transactions: of each, as many changes as `all` has.
fn assert_whole(so_far: &[OwnedRecord], all: &[OwnedRecord]) {
    let count = |records: &[OwnedRecord]| {
        let mut counts: BTreeMap<rowcast::lsn::Lsn, usize> = BTreeMap::new();
        for record in records {
            *counts.entry(position(record).0).or_default() += 1;
        }
        counts
    };
    let all = count(all);
    for (commit_lsn, changes) in count(so_far) {
        assert_eq!(changes, all[&commit_lsn], "the transaction that commits at {commit_lsn}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_every_change_is_committed_once_in_order_and_whole() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let name = unique("once");
    let brokers = kafka.brokers();
    let topics = topics(&name);
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, CONFIG, PATIENCE);
    let witness = Witness::of(&bridge, &database);
    let writing = tokio::spawn(async move {
        let written = load::write(&database, 10_000, rand::random()).await;
        (database, written)
    });
    let mut reader = opened(&brokers, &topics, witness).await;
    let mut seen_at_kills = Vec::new();
    for round in 1..=5 {
        let enough = round * rand::rng().random_range(1_000..1_400);
        reader = reading(reader, move |reader| {
            reader.until_count(enough, LOAD_LIMIT);
        })
        .await;
        bridge.kill();
        // Nothing more is committed by it, and what is open is aborted by the next.
        reader = reading(reader, |reader| {
            reader.until_quiet(Duration::from_millis(500));
        })
        .await;
        seen_at_kills.push(reader.records.len());
        bridge.start_again();
    }
    let (_database, written) = writing.await.expect("writing does not panic");
    reader = reading(reader, move |reader| {
        reader.until_count(written.records(), LOAD_LIMIT);
        reader.until_quiet(Duration::from_millis(500));
    })
    .await;
    let records = reader.records;
    assert_eq!(records.len(), written.records(), "{written:?}");
    assert_once_and_in_order(&records);
    for seen in seen_at_kills {
        assert_whole(&records[..seen], &records);
    }
    for (table, topic) in TABLES.iter().zip(&topics) {
        assert_eq!(replayed(&records, topic), load::rows_of(&client, table).await, "{table}");
    }
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_a_commit_to_kafka_and_its_confirm_nothing_is_committed_twice() {
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let relay = Relay::to(server.port()).await;
    let url = relay.url(&database.tcp_url);
    let (name, brokers) = (unique("between"), kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, &url, &brokers, CONFIG, PATIENCE);
    insert(&client, 1, 100).await;
    let topic = vec![topics(&name)[0].clone()];
    let mut reader = opened(&brokers, &topic, Witness::of(&bridge, &database)).await;
    reader = counted(reader, 100).await;

    // Rows come, and what the bridge confirms is lost on its way.
    relay.set(Line::Unheard);
    insert(&client, 101, 200).await;
    reader = counted(reader, 200).await;
    let committed = reader.records.iter().map(|record| position(record).0).max().expect("some");
    bridge.kill();
    let confirmed = confirmed(&client, &name).await.expect("a slot");
    assert!(confirmed < committed, "{confirmed} is confirmed, and {committed} in Kafka");
    // The server has not noticed that nobody reads from the slot any more.
    end_walsender(&client, &name).await;

    relay.set(Line::Open);
    bridge.start_again();
    insert(&client, 201, 300).await;
    reader = reading(reader, |reader| {
        reader.until_count(300, PATIENCE);
        reader.until_quiet(Duration::from_secs(1));
    })
    .await;
    assert_eq!(reader.records.len(), 300);
    assert_once_and_in_order(&reader.records);
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

async fn insert(client: &Client, from: i32, to: i32) {
    let insert = "INSERT INTO rides SELECT n, 1, 'x' FROM generate_series($1::int, $2::int) n";
    client.execute(insert, &[&from, &to]).await.expect("insert");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_change_is_committed_soon_and_an_idle_stream_holds_nothing_open() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let name = unique("lone");
    let brokers = kafka.brokers();
    let bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, CONFIG, PATIENCE);
    insert(&client, 1, 1).await;
    let topic = vec![topics(&name)[0].clone()];
    let mut reader = opened(&brokers, &topic, Witness::of(&bridge, &database)).await;
    reader = counted(reader, 1).await;
    let mut slowest = Duration::ZERO;
    for n in 2..12_usize {
        let started = Instant::now();
        let id = i32::try_from(n).expect("few");
        insert(&client, id, id).await;
        reader = counted(reader, n).await;
        slowest = slowest.max(started.elapsed());
    }
    println!("the slowest of ten took {slowest:?}");
    // The interval is 100 ms; the rest is for a busy machine.
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_above_the_limit_is_cut_and_says_so_and_is_resumed_where_it_was_cut() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let name = unique("cut");
    let brokers = kafka.brokers();
    let config = format!("{CONFIG}[kafka]\nmax_transaction_bytes = 65536\n");
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, &config, PATIENCE);
    insert(&client, 1, 3_000).await;
    let topic = vec![topics(&name)[0].clone()];
    let mut reader = opened(&brokers, &topic, Witness::of(&bridge, &database)).await;
    // Killed within the transaction, it goes on behind the last cut.
    reader = counted(reader, 300).await;
    bridge.kill();
    bridge.start_again();
    insert(&client, 3_001, 3_001).await;
    reader = reading(reader, |reader| {
        reader.until_count(3_001, LOAD_LIMIT);
        reader.until_quiet(Duration::from_millis(500));
    })
    .await;
    let mut records = reader.records;
    assert_eq!(records.len(), 3_001);
    assert_once_and_in_order(&records);
    records.sort_by_key(place);
    let split = |record: &OwnedRecord| {
        let found = record.headers.iter().find(|(name, _)| name == "rowcast.split");
        found.and_then(|(_, value)| value.clone()).map(|v| String::from_utf8(v).expect("text"))
    };
    let splits: Vec<Option<String>> = records.iter().map(split).collect();
    let first_cut = splits.iter().position(Option::is_some).expect("it was cut");
    assert_eq!(splits[first_cut].as_deref(), Some("continues"));
    assert!(splits[..first_cut].iter().all(Option::is_none));
    assert!(splits[first_cut + 1..3_000].iter().all(Option::is_some), "all that follow say so");
    assert_eq!(splits[3_000], None, "the next transaction is whole");
    let cuts = splits.iter().filter(|split| split.as_deref() == Some("continues")).count();
    println!("{cuts} cuts, the first after {first_cut}");
    assert!(cuts > 5, "{cuts} cuts");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_that_takes_over_fences_the_one_before_and_nothing_is_published_twice() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let name = unique("twin");
    let brokers = kafka.brokers();
    let first = Bridge::start_ready(&name, &database.unix_url, &brokers, CONFIG, PATIENCE);
    insert(&client, 1, 100).await;
    let topic = vec![topics(&name)[0].clone()];
    let mut reader = opened(&brokers, &topic, Witness::of(&first, &database)).await;
    reader = counted(reader, 100).await;

    // The first stands still, and the server ends its connection: as after a partition.
    first.freeze();
    end_walsender(&client, &name).await;
    let mut second = Bridge::start_ready(&name, &database.unix_url, &brokers, CONFIG, PATIENCE);
    insert(&client, 101, 200).await;
    reader = counted(reader, 200).await;

    first.thaw();
    insert(&client, 201, 300).await;
    reader = reading(reader, |reader| {
        reader.until_count(300, PATIENCE);
        reader.until_quiet(Duration::from_secs(1));
    })
    .await;
    assert_eq!(reader.records.len(), 300);
    assert_once_and_in_order(&reader.records);
    assert!(second.exited().is_none(), "log:\n{}", second.log());
    assert!(second.terminate(PATIENCE).success(), "log:\n{}", second.log());
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_was_fenced_ends_with_its_own_exit_code() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let name = unique("fenced");
    let brokers = kafka.brokers();
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, CONFIG, PATIENCE);
    let brokers_of_twin = brokers.clone();
    // Another pipeline's copy compares first and leaves it alone; this stands for one that does not.
    let id = format!("rowcast.{name}");
    let taken = tokio::task::spawn_blocking(move || {
        let mut properties = ClientConfig::new();
        properties.set("bootstrap.servers", brokers_of_twin).set("transactional.id", id);
        let twin: BaseProducer = properties.create().expect("a producer");
        twin.init_transactions(PATIENCE).expect("take the transactional id over");
    });
    taken.await.expect("the twin");

    insert(&client, 1, 1).await;
    let status = bridge.wait(PATIENCE);
    assert_eq!(status.code(), Some(77), "log:\n{}", bridge.log());
    assert!(bridge.log().contains("another copy"), "log:\n{}", bridge.log());

    // Started again, it goes on with nothing lost.
    bridge.start_again();
    bridge.wait_until_ready(PATIENCE).expect("it streams");
    let topic = vec![topics(&name)[0].clone()];
    let reader = opened(&brokers, &topic, Witness::of(&bridge, &database)).await;
    let reader = reading(reader, |reader| {
        reader.until_count(1, PATIENCE);
        reader.until_quiet(Duration::from_millis(500));
    })
    .await;
    assert_eq!(reader.records.len(), 1);
    eventually(PATIENCE, "the change to be confirmed", async || {
        let query = "SELECT count(*) FROM pg_replication_slots
                     WHERE slot_name = $1 AND confirmed_flush_lsn >= pg_current_wal_lsn()";
        let row = client.query_one(query, &[&format!("rowcast_{name}")]).await.expect("ask");
        (row.get::<_, i64>(0) == 1).then_some(())
    })
    .await;
}

/// The client of a session goes on asking for the transactional id after the session was ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_ended_while_it_takes_the_id_over_does_not_fence_the_next() {
    const ROUNDS: usize = 6;
    const ASKING: &str = "Failed to acquire transactional PID";
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let (client, asking) = (database.client().await, database.client().await);
    load::create_tables(&client).await;
    let name = unique("reloaded");
    let mut bridge =
        Bridge::start_ready(&name, &database.unix_url, &kafka.brokers(), CONFIG, PATIENCE);
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writer = tokio::spawn(async move {
        for id in 1.. {
            if stopped.try_recv().is_ok() {
                return;
            }
            insert(&client, id, id).await;
        }
    });
    let mut ended_while_asking = 0;
    for round in 0..ROUNDS {
        // What it leaves open is aborted first, so the id is asked for more than once.
        bridge.kill();
        bridge.start_again();
        let before = bridge.log().matches(ASKING).count();
        let streams = |log: &str| log.matches("streaming slot=").count();
        let streams_before = streams(&bridge.log());
        eventually(PATIENCE, "the id to be asked for again, or a stream", async || {
            let log = bridge.log();
            (log.matches(ASKING).count() > before || streams(&log) > streams_before).then_some(())
        })
        .await;
        let sessions = streams(&bridge.log());
        ended_while_asking += usize::from(sessions == streams_before);
        bridge
            .configure(&format!("{CONFIG}[watchdog]\nkafka_stalled_after = \"{}s\"\n", 61 + round));
        bridge.hang_up();
        eventually(PATIENCE, "the next session to stream", async || {
            assert!(bridge.exited().is_none(), "log:\n{}", bridge.log());
            (streams(&bridge.log()) > sessions).then_some(())
        })
        .await;
        let confirmed_before = confirmed(&asking, &name).await;
        eventually(PATIENCE, "changes to be confirmed", async || {
            assert!(bridge.exited().is_none(), "log:\n{}", bridge.log());
            let now = confirmed(&asking, &name).await;
            (now > confirmed_before).then_some(())
        })
        .await;
    }
    stop.send(()).expect("it writes");
    writer.await.expect("it wrote");
    assert!(ended_while_asking > 0, "no session was ended while it took the id over");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_is_cut_before_the_brokers_give_up_on_it() {
    const ROWS: usize = 20_000;
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let relay = Relay::to(server.port()).await;
    let (url, name) = (relay.url(&database.tcp_url), unique("long"));
    let brokers = kafka.brokers();
    let config = format!(
        "memory = \"8MB\"\n{CONFIG}[kafka.properties]\n\"transaction.timeout.ms\" = \"3000\"\n"
    );
    let mut bridge = Bridge::start_ready(&name, &url, &brokers, &config, PATIENCE);
    let topic = vec![topics(&name)[0].clone()];
    insert(&client, 1, 1).await;
    let mut reader = opened(&brokers, &topic, Witness::of(&bridge, &database)).await;
    // It takes several times as long as a Kafka transaction may.
    relay.set(Line::Slow(Duration::from_millis(150)));
    let insert = format!(
        "INSERT INTO rides SELECT n, 1, repeat('x', 250) FROM generate_series(2, {ROWS}) n"
    );
    client.batch_execute(&insert).await.expect("insert");
    reader = reading(reader, |reader| {
        reader.until_count(ROWS, LOAD_LIMIT);
        reader.until_quiet(Duration::from_millis(500));
    })
    .await;
    let log = bridge.log();
    assert_eq!(reader.records.len(), ROWS);
    assert_once_and_in_order(&reader.records);
    assert!(!log.contains("trying again"), "log:\n{log}");
    let split =
        |record: &&OwnedRecord| record.headers.iter().any(|(name, _)| name == "rowcast.split");
    assert!(reader.records.iter().filter(split).count() > 0, "it was not long; log:\n{log}");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{log}");
}
