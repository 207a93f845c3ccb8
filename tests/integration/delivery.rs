//! What was promised of delivery, on a real Kafka: nothing lost, order per key, and repeats only
//! of what no checkpoint tells of.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;
use rowcast::change::Position;
use rowcast::checkpoint::Progress;
use rowcast::lsn::Lsn;

use crate::load::{self, LOAD_LIMIT, TABLES};
use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, RecordReader, checkpoint};
use crate::support::kafka::{kafka_or_skip, private_kafka_or_skip};
use crate::support::postgres::{
    Binaries, PostgresServer, TestDatabase, confirmed, for_each_postgres, until_confirmed, wal_end,
};
use crate::support::witness::Witness;
use crate::support::{PATIENCE, eventually, unique};

pub(crate) const CONFIG: &str = "[format]\nposition_headers = true\n[topics]\npartitions = 3\n";

pub(crate) fn topics(name: &str) -> Vec<String> {
    TABLES.iter().map(|table| format!("{name}.public.{table}")).collect()
}

/// Opens the topics once the bridge has made them; blocks.
pub(crate) fn open(brokers: &str, topics: &[String], witness: Witness) -> RecordReader {
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let mut reader = RecordReader::open(brokers, &topics, LOAD_LIMIT);
    reader.witness = Some(witness);
    reader
}

/// The same for a test that goes on meanwhile.
pub(crate) async fn opened(brokers: &str, topics: &[String], witness: Witness) -> RecordReader {
    let (brokers, topics) = (brokers.to_owned(), topics.to_owned());
    let opening = move || open(&brokers, &topics, witness);
    tokio::task::spawn_blocking(opening).await.expect("opening does not panic")
}

/// Runs a reader's blocking part.
pub(crate) async fn reading(
    mut reader: RecordReader,
    read: impl FnOnce(&mut RecordReader) + Send + 'static,
) -> RecordReader {
    let read = move || {
        read(&mut reader);
        reader
    };
    tokio::task::spawn_blocking(read).await.expect("reading does not panic")
}

/// The rows of each table as the events tell them, partition by partition.
pub(crate) fn replayed(records: &[OwnedRecord], topic: &str) -> load::Rows {
    let partitions: std::collections::BTreeSet<i32> =
        records.iter().filter(|record| record.topic == topic).map(|r| r.partition).collect();
    let mut rows = load::Rows::new();
    for partition in partitions {
        let of_partition =
            records.iter().filter(|record| record.topic == topic && record.partition == partition);
        for (id, row) in load::replay(of_partition) {
            assert_eq!(rows.insert(id, row), None, "key {id} is in one partition only");
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_mixed_changes_arrive_once_and_in_commit_order() {
    let kafka = kafka_or_skip!();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        load::create_tables(&client).await;
        let name = unique("mixed");
        let brokers = kafka.brokers();
        let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, CONFIG, PATIENCE);
        let written = load::write(&database, 10_000, rand::random()).await;

        let topics = topics(&name);
        let reader = opened(&brokers, &topics, Witness::of(&bridge, &database)).await;
        let reader = reading(reader, move |reader| {
            reader.until_count(written.records(), LOAD_LIMIT);
            reader.until_quiet(Duration::from_millis(300));
        })
        .await;
        let records = reader.records;

        assert_eq!(records.len(), written.records(), "{written:?}");
        for (table, topic) in TABLES.iter().zip(&topics) {
            assert_eq!(replayed(&records, topic), load::rows_of(&client, table).await, "{table}");
        }
        let status = bridge.terminate(PATIENCE);
        assert!(status.success(), "{status}; log:\n{}", bridge.log());
    })
    .await;
}

/// A change's place in the stream, from the headers.
pub(crate) fn position(record: &OwnedRecord) -> (Lsn, u64) {
    let header = |name: &str| -> u64 {
        let found = record.headers.iter().find(|(header, _)| header == name);
        let (_, value) = found.unwrap_or_else(|| panic!("no header {name} in {record:?}"));
        let text = std::str::from_utf8(value.as_deref().expect("a value")).expect("digits");
        text.parse().expect("digits")
    };
    (Lsn::from(header("rowcast.lsn")), header("rowcast.ordinal"))
}

/// How things stood when the bridge was killed.
struct Kill {
    /// The last offset of each topic's partitions.
    ends: BTreeMap<(String, i32), i64>,
    /// What was confirmed by then.
    confirmed: Lsn,
    /// What the checkpoint in the topic said.
    published: Progress,
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
async fn after_kill_9_nothing_is_lost_and_only_what_is_in_no_checkpoint_comes_again() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let name = unique("killed");
    let brokers = kafka.brokers();
    let topics = topics(&name);
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, CONFIG, PATIENCE);
    let witness = Witness::of(&bridge, &database);
    let writing = tokio::spawn(async move {
        let written = load::write(&database, 10_000, rand::random()).await;
        (database, written)
    });

    let mut kills: Vec<Kill> = Vec::new();
    let mut reader = opened(&brokers, &topics, witness).await;
    for round in 1..=4 {
        let enough = round * rand::rng().random_range(1_200..1_600);
        reader = reading(reader, move |reader| {
            reader.until_count(enough, LOAD_LIMIT);
        })
        .await;
        bridge.kill();
        reader = reading(reader, |reader| {
            // What was on its way when the process died is in the topic now or never.
            reader.until_quiet(Duration::from_millis(500));
        })
        .await;
        let mut ends = BTreeMap::new();
        for record in &reader.records {
            ends.insert((record.topic.clone(), record.partition), record.offset);
        }
        let published = tokio::task::spawn_blocking({
            let (brokers, name) = (brokers.clone(), name.clone());
            move || checkpoint(&brokers, &name).expect("a start writes one").progress
        })
        .await
        .expect("reading does not panic");
        let confirmed = confirmed(&client, &name).await.expect("a slot");
        kills.push(Kill { ends, confirmed, published });
        bridge.start_again();
    }
    let (_database, written) = writing.await.expect("writing does not panic");
    let end = wal_end(&client).await;
    until_confirmed(&client, &name, end, LOAD_LIMIT).await;
    let reader = reading(reader, |reader| {
        reader.until_quiet(Duration::from_millis(500));
    })
    .await;
    let records = reader.records;

    // The same position always says the same.
    let mut changes: BTreeMap<(Lsn, u64, bool), &OwnedRecord> = BTreeMap::new();
    let mut repeats = 0;
    for record in &records {
        let (lsn, ordinal) = position(record);
        let place = (lsn, ordinal, record.value.is_none());
        if let Some(first) = changes.insert(place, record) {
            repeats += 1;
            assert_eq!((&first.key, &first.topic), (&record.key, &record.topic), "{place:?}");
            let event = |record: &OwnedRecord| record.json().map(|event| event["after"].clone());
            assert_eq!(event(first), event(record), "{place:?}");
        }
    }
    let at_kills: Vec<&Progress> = kills.iter().map(|kill| &kill.published).collect();
    println!("{} records, {repeats} of them repeats; {at_kills:?}", records.len());
    assert_eq!(changes.len(), written.records(), "nothing is lost, nothing is invented");

    // What came after a kill was neither confirmed nor in the checkpoint at the kill.
    for Kill { ends, confirmed, published } in &kills {
        assert!(*confirmed <= published.through_lsn, "{confirmed} is confirmed, of {published:?}");
        for record in &records {
            let end = ends.get(&(record.topic.clone(), record.partition)).copied().unwrap_or(-1);
            let (commit_lsn, ordinal) = position(record);
            assert!(
                record.offset <= end || !published.covers(Position { commit_lsn, ordinal }),
                "{commit_lsn}, {ordinal} came again although {published:?} was published"
            );
        }
    }

    // In the order of positions the changes tell the tables.
    for (table, topic) in TABLES.iter().zip(&topics) {
        let in_order = changes.values().copied().filter(|record| record.topic == *topic);
        assert_eq!(load::replay(in_order), load::rows_of(&client, table).await, "{table}");
    }
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_confirms_so_that_a_restart_repeats_nothing() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let name = unique("drained");
    let brokers = kafka.brokers();
    let topics = topics(&name);
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, CONFIG, PATIENCE);
    let witness = Witness::of(&bridge, &database);
    let writing = tokio::spawn(async move {
        let written = load::write(&database, 6_000, rand::random()).await;
        (database, written)
    });
    let mut reader = opened(&brokers, &topics, witness).await;
    for enough in [800, 2_000, 3_500] {
        reader = reading(reader, move |reader| {
            reader.until_count(enough, LOAD_LIMIT);
        })
        .await;
        let status = bridge.terminate(PATIENCE);
        assert!(status.success(), "{status}; log:\n{}", bridge.log());
        bridge.start_again();
        // Before it listens for signals, one ends it without a drain.
        bridge.wait_until_ready(PATIENCE).expect("it streams");
    }
    let (_database, written) = writing.await.expect("writing does not panic");
    let reader = reading(reader, move |reader| {
        reader.until_count(written.records(), LOAD_LIMIT);
        reader.until_quiet(Duration::from_millis(300));
    })
    .await;
    let records = reader.records;
    assert_eq!(records.len(), written.records(), "{written:?}");
    for (table, topic) in TABLES.iter().zip(&topics) {
        assert_eq!(replayed(&records, topic), load::rows_of(&client, table).await, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_captured_table_does_not_pin_wal() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    client.batch_execute("CREATE TABLE elsewhere (n int)").await.expect("make a table");
    let name = unique("idle");
    let config = "[postgres]\ntables = [\"public.rides\"]\nstatus_interval = \"1s\"\n";
    let _bridge =
        Bridge::start_ready(&name, &database.unix_url, &kafka.brokers(), config, PATIENCE);
    client
        .batch_execute("INSERT INTO elsewhere SELECT generate_series(1, 10000)")
        .await
        .expect("write elsewhere");
    let end = wal_end(&client).await;
    until_confirmed(&client, &name, end, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_keeps_the_line_while_kafka_is_away_and_rows_flow_when_it_is_back() {
    let mut kafka = private_kafka_or_skip!();
    // Without status updates in time, the server would cut the line after two seconds.
    let server = PostgresServer::start(Binaries::newest(), &[("wal_sender_timeout", "2s")]);
    let database = server.database().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let name = unique("away");
    let brokers = kafka.brokers();
    let topics = topics(&name);
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, CONFIG, PATIENCE);
    let insert = "INSERT INTO rides SELECT n, 1, 'x' FROM generate_series($1::int, $2::int) n";
    client.execute(insert, &[&1, &100]).await.expect("insert");
    let reader = opened(&brokers, &topics[..1], Witness::of(&bridge, &database)).await;
    let reader = reading(reader, |reader| {
        reader.until_count(100, LOAD_LIMIT);
    })
    .await;

    kafka.kill();
    let pid = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1";
    let slot = format!("rowcast_{name}");
    let walsender: Option<i32> = client.query_one(pid, &[&slot]).await.expect("ask").get(0);
    client.execute(insert, &[&101, &2_000]).await.expect("insert");
    let away = std::time::Instant::now();
    // Three times the server's patience.
    eventually(PATIENCE, "six seconds to pass", async || {
        (away.elapsed() > Duration::from_secs(6)).then_some(())
    })
    .await;
    let same: Option<i32> = client.query_one(pid, &[&slot]).await.expect("ask").get(0);
    assert_eq!((walsender.is_some(), walsender), (true, same), "log:\n{}", bridge.log());

    kafka.start_again();
    let reader = reading(reader, |reader| {
        reader.until_count(2_000, LOAD_LIMIT);
        reader.until_quiet(Duration::from_millis(300));
    })
    .await;
    assert_eq!(reader.records.len(), 2_000, "nothing was lost and nothing repeated");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}
