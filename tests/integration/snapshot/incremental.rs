//! Snapshots while the stream runs under load: exact in both delivery modes, across `kill -9`.
//!
//! What the topics hold, replayed in their order, is held against the tables. Each row carries a
//! number of its own and one that grows with each write, so no text form has to be known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use rowcast::checkpoint::Snapshots;
use serde_json::Value;
use tokio_postgres::Client;

use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, checkpoint, read_whole};
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{TestDatabase, connect, until_confirmed, wal_end};
use crate::support::{PATIENCE, eventually, unique};

pub(super) const LONG: Duration = Duration::from_secs(120);

/// Rows with keys of several types, gaps between them, and a value that is stored apart.
const ITEMS: &str = "
    CREATE COLLATION backwards (provider = icu, locale = 'en-u-kf-upper');
    CREATE TABLE items (
        region text COLLATE backwards, id uuid, at timestamptz, amount numeric(12, 3),
        uid bigint NOT NULL, v bigint NOT NULL, large text,
        PRIMARY KEY (region, at, id, amount));
    ALTER TABLE items ALTER large SET STORAGE EXTERNAL;
    CREATE SEQUENCE writes START 1000000;
    INSERT INTO items
    SELECT (ARRAY['a', 'A', 'ä', 'b''', 'B\\', 'é', '', 'z z'])[1 + n % 8],
           gen_random_uuid(), '2024-01-01'::timestamptz + n * interval '7.5 hours', n * 1.37,
           n, n, CASE WHEN n % 9 = 0 THEN repeat('x', 3000) END
    FROM generate_series(1, 6000) n";

/// What one writer does, again and again.
const WRITES: [&str; 6] = [
    "INSERT INTO items SELECT chr(97 + (random() * 25)::int), gen_random_uuid(), now(), random() * 1000,
        nextval('writes'), nextval('writes'), repeat('y', (random() * 4000)::int)",
    "UPDATE items SET v = nextval('writes') WHERE uid IN
        (SELECT uid FROM items TABLESAMPLE SYSTEM (1) LIMIT 5)",
    "UPDATE items SET v = nextval('writes'), large = repeat('z', 3500) WHERE uid IN
        (SELECT uid FROM items TABLESAMPLE SYSTEM (1) LIMIT 3)",
    "DELETE FROM items WHERE uid IN (SELECT uid FROM items TABLESAMPLE SYSTEM (1) LIMIT 2)",
    "UPDATE items SET v = nextval('writes'), region = chr(97 + (random() * 25)::int), large = 'moved'
        WHERE uid IN (SELECT uid FROM items TABLESAMPLE SYSTEM (1) LIMIT 2)",
    "UPDATE items SET v = nextval('writes'), amount = amount + 1, large = NULL
        WHERE uid IN (SELECT uid FROM items TABLESAMPLE SYSTEM (1) LIMIT 2)",
];

fn config(tables: &str, delivery: &str) -> String {
    format!(
        "delivery = \"{delivery}\"\nmemory = \"8MB\"\n[postgres]\ntables = [{tables}]\n\
         [topics]\npartitions = 2\n[snapshot]\nmode = \"initial\"\n"
    )
}

/// Writes until it is asked to stop.
fn write(database: &TestDatabase, told: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (url, told) = (database.unix_url.clone(), Arc::clone(told));
    tokio::spawn(async move {
        let client = connect(&url).await;
        let mut transactions = 0;
        while !told.load(Ordering::Acquire) {
            let count = rand::rng().random_range(1..4);
            let writes: Vec<&str> =
                (0..count).map(|_| WRITES[rand::rng().random_range(0..WRITES.len())]).collect();
            client.batch_execute(&writes.join("; ")).await.expect("write");
            transactions += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        transactions
    })
}

/// How snapshots stand by the checkpoint in the topic.
async fn snapshots(brokers: &str, name: &str) -> Arc<Snapshots> {
    let (brokers, name) = (brokers.to_owned(), name.to_owned());
    let read = move || checkpoint(&brokers, &name).map(|found| found.snapshots);
    tokio::task::spawn_blocking(read).await.expect("reading does not panic").unwrap_or_default()
}

/// Waits until no snapshot is left, and all that was written is confirmed.
async fn settled(client: &Client, bridge: &Bridge, brokers: &str, name: &str) {
    eventually(LONG, "the snapshot to end", async || {
        let is_done = bridge.log().contains("snapshot done");
        (is_done && snapshots(brokers, name).await.tables.is_empty()).then_some(())
    })
    .await;
    confirmed(client, name).await;
}

/// Waits until all that was written is confirmed.
pub(super) async fn confirmed(client: &Client, name: &str) {
    until_confirmed(client, name, wal_end(client).await, LONG).await;
}

/// A row of the topic: its own number, its last write, and its large value's length.
type Row = (i64, i64, Option<usize>);

/// Stands for a large value that nobody has told of.
const UNKNOWN: Option<usize> = Some(usize::MAX);

/// The rows as the records tell them, by key.
fn replayed(records: &[OwnedRecord]) -> BTreeMap<Vec<u8>, Row> {
    let mut rows: BTreeMap<Vec<u8>, Row> = BTreeMap::new();
    for record in records {
        let key = record.key.clone().expect("a key");
        let Some(value) = record.json() else { continue };
        let after = &value["after"];
        if after.is_null() {
            rows.remove(&key);
            continue;
        }
        let large = match after.get("large") {
            // Left out, for it did not change; the chunk that has the row tells it.
            None => rows.get(&key).map_or(UNKNOWN, |before| before.2),
            Some(large) => large.as_str().map(str::len),
        };
        let number = |name: &str| after[name].as_i64().expect("a number");
        rows.insert(key, (number("uid"), number("v"), large));
    }
    rows
}

async fn stored(client: &Client) -> Vec<Row> {
    let rows = client.query("SELECT uid, v, length(large) FROM items", &[]).await.expect("read");
    let length = |row: &tokio_postgres::Row| {
        row.get::<_, Option<i32>>(2).map(|length| usize::try_from(length).expect("a length"))
    };
    let mut rows: Vec<Row> = rows.iter().map(|row| (row.get(0), row.get(1), length(row))).collect();
    rows.sort_unstable();
    rows
}

pub(super) async fn records(brokers: &str, topic: String) -> Vec<OwnedRecord> {
    let brokers = brokers.to_owned();
    let read = move || read_whole(&brokers, &topic, LONG);
    tokio::task::spawn_blocking(read).await.expect("reading does not panic")
}

async fn assert_replay_is_the_table(
    client: &Client,
    brokers: &str,
    name: &str,
) -> Vec<OwnedRecord> {
    let records = records(brokers, format!("{name}.public.items")).await;
    let mut rows: Vec<Row> = replayed(&records).into_values().collect();
    rows.sort_unstable();
    assert_eq!(rows, stored(client).await);
    records
}

pub(super) fn op(value: &Value) -> &str {
    value["op"].as_str().expect("a letter")
}

/// Panics unless, per key, no event is older than one before it, and none is there twice.
fn assert_once_and_in_order(records: &[OwnedRecord]) {
    let mut last: BTreeMap<&[u8], (i64, String)> = BTreeMap::new();
    for record in records {
        let (Some(key), Some(value)) = (record.key.as_deref(), record.json()) else { continue };
        let Some(v) = value["after"]["v"].as_i64() else { continue };
        let event = (v, op(&value).to_owned());
        if let Some(before) = last.insert(key, event.clone()) {
            assert!(before.0 <= v && before != event, "{event:?} after {before:?}");
        }
    }
}

async fn a_table_that_is_added_under_load(delivery: &str) {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE seeds (id int PRIMARY KEY)").await.expect("make a table");
    client.batch_execute(ITEMS).await.expect("make a table");
    let (name, brokers) = (unique("added"), kafka.brokers());
    let before = config("\"public.seeds\"", delivery);
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, &before, PATIENCE);
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());

    bridge.configure(&config("\"public.seeds\", \"public.items\"", delivery));
    let told = Arc::new(AtomicBool::new(false));
    let writers = [write(&database, &told), write(&database, &told)];
    bridge.start_again();
    let mut kills = 0;
    for round in 0..4_u64 {
        // Somewhere in the snapshot: after some of its chunks, or before the first.
        eventually(LONG, "the snapshot to go on", async || {
            let stands = snapshots(&brokers, &name).await;
            let is_over = bridge.log().contains("snapshot done");
            (is_over || stands.tables.first().is_some_and(|_| true)).then_some(())
        })
        .await;
        let pause = rand::rng().random_range(0..600 + 200 * round);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if bridge.log().contains("snapshot done") {
            break;
        }
        bridge.kill();
        kills += 1;
        bridge.start_again();
    }
    println!("killed {kills} times");
    settled(&client, &bridge, &brokers, &name).await;
    told.store(true, Ordering::Release);
    for writer in writers {
        println!("{} transactions", writer.await.expect("writing does not panic"));
    }
    settled(&client, &bridge, &brokers, &name).await;
    let records = assert_replay_is_the_table(&client, &brokers, &name).await;
    let reads = records.iter().filter_map(OwnedRecord::json).filter(|v| op(v) == "r").count();
    println!("{} records, {reads} of them read", records.len());
    assert!(reads > 1_000, "{reads}");
    if delivery == "exactly-once" {
        assert_once_and_in_order(&records);
    }
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_added_under_load_is_exact_across_kills_at_least_once() {
    a_table_that_is_added_under_load("at-least-once").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_added_under_load_is_exact_across_kills_exactly_once() {
    a_table_that_is_added_under_load("exactly-once").await;
}
