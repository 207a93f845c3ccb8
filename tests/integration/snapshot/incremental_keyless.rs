//! Tables whose rows nothing tells apart: read by pages while the stream waits, with nothing twice and
//! nothing missing between the rows and the changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use serde_json::Value;
use tokio_postgres::Client;

use super::incremental::{LONG, confirmed, op, records};
use crate::support::bridge::{Bridge, TRUSTING, signal};
use crate::support::consume::OwnedRecord;
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{TestDatabase, connect};
use crate::support::{PATIENCE, eventually, unique};

const SETUP: &str = "
    CREATE TABLE seeds (id int PRIMARY KEY);
    CREATE TABLE log (n bigint, v int, filler text DEFAULT repeat('x', 500)) WITH (fillfactor = 40);
    ALTER TABLE log REPLICA IDENTITY FULL;
    INSERT INTO log SELECT n / 2, 0 FROM generate_series(1, 8000) n";

fn config(tables: &str, delivery: &str) -> String {
    format!(
        "delivery = \"{delivery}\"\nmemory = \"8MB\"\n[postgres]\ntables = [{tables}]\n\
         [topics]\npartitions = 1\n"
    )
}

async fn write(url: String, told: Arc<AtomicBool>) {
    let client = connect(&url).await;
    for number in 1_i64.. {
        if told.load(Ordering::Acquire) {
            return;
        }
        let n = rand::rng().random_range(0..4_000_i64);
        let sql = match number % 4 {
            0 => format!("DELETE FROM log WHERE n = {n} AND v < 2"),
            1 => format!("UPDATE log SET v = v + 1 WHERE n = {n}"),
            _ => format!("INSERT INTO log VALUES ({n}, 0), (-{number}, 7)"),
        };
        client.batch_execute(&sql).await.expect("write");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// How often each row is there, as the events tell it. A row may be told of as gone before it was
/// read.
fn replayed(records: &[OwnedRecord]) -> BTreeMap<(i64, i64), i64> {
    let mut rows: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for value in records.iter().filter_map(OwnedRecord::json) {
        let row = |row: &Value| (row["n"].as_i64().expect("n"), row["v"].as_i64().expect("v"));
        let (before, after) = (&value["before"], &value["after"]);
        if !before.is_null() {
            let count = rows.entry(row(before)).or_default();
            *count = (*count - 1).max(0);
        }
        if !after.is_null() {
            *rows.entry(row(after)).or_default() += 1;
        }
    }
    rows.retain(|_, count| *count != 0);
    rows
}

async fn stored(client: &Client) -> BTreeMap<(i64, i64), i64> {
    let query = "SELECT n, v::bigint, count(*) FROM log GROUP BY 1, 2";
    let rows = client.query(query, &[]).await.expect("read");
    rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
}

async fn a_keyless_table_that_is_added_under_load(delivery: &str) {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute(SETUP).await.expect("make tables");
    let (name, brokers) = (unique("keyless"), kafka.brokers());
    let before = config("\"public.seeds\"", delivery);
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, &before, PATIENCE);
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
    bridge.configure(&config("\"public.seeds\", \"public.log\"", delivery));
    let told = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..2).map(|_| tokio::spawn(write(database.unix_url.clone(), Arc::clone(&told)))).collect();
    bridge.start_again();
    if delivery == "exactly-once" {
        eventually(LONG, "the table to be published", async || {
            bridge.log().contains("publication altered, for a snapshot").then_some(())
        })
        .await;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..600))).await;
            bridge.kill();
            bridge.start_again();
        }
    }
    eventually(LONG, "the snapshot to end", async || {
        bridge.log().contains("snapshot done").then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    told.store(true, Ordering::Release);
    for writer in writers {
        writer.await.expect("writing does not panic");
    }
    confirmed(&client, &name).await;
    let records = records(&brokers, format!("{name}.public.log")).await;
    let reads = records.iter().filter_map(OwnedRecord::json).filter(|v| op(v) == "r").count();
    println!("{} records, {reads} of them read", records.len());
    assert!(reads > 5_000, "{reads}");
    assert_eq!(replayed(&records), stored(&client).await);
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyless_table_added_under_load_is_exact_at_least_once() {
    a_keyless_table_that_is_added_under_load("at-least-once").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyless_table_added_under_load_is_exact_across_kills_exactly_once() {
    a_keyless_table_that_is_added_under_load("exactly-once").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyless_table_that_is_rewritten_in_the_midst_is_read_anew() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let setup = "
        CREATE TABLE log (n bigint, v int, filler text DEFAULT repeat('x', 3000))
            WITH (fillfactor = 10);
        ALTER TABLE log REPLICA IDENTITY FULL;
        INSERT INTO log SELECT n, 0 FROM generate_series(1, 6000) n";
    client.batch_execute(setup).await.expect("make a table");
    let (name, brokers) = (unique("rewritten"), kafka.brokers());
    let config = TRUSTING.to_owned()
        + &config("\"public.log\"", "exactly-once")
        + "[snapshot]\nmode = \"never\"\n";
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, &config, PATIENCE);
    let ask = signal(&serde_json::json!({"type": "snapshot", "tables": ["public.log"]}));
    let ask = format!("SELECT pg_logical_emit_message(true, 'rowcast.signal', '{ask}')");
    client.batch_execute(&ask).await.expect("ask for a snapshot");
    eventually(LONG, "some of its rows to be published", async || {
        let (_, page) = bridge.get("/snapshots")?;
        let page: Value = serde_json::from_str(&page).expect("JSON");
        let rows = page["snapshots"][0]["rows"].as_u64()?;
        assert!(rows < 6000, "it was too fast to be cut off");
        (rows > 0).then_some(())
    })
    .await;
    bridge.kill();
    let change = "DELETE FROM log WHERE n % 7 = 0; UPDATE log SET v = 1 WHERE n % 5 = 0";
    client.batch_execute(change).await.expect("change rows");
    client.batch_execute("VACUUM FULL log").await.expect("rewrite the table");
    bridge.start_again();
    eventually(LONG, "the snapshot to end", async || {
        bridge.log().contains("snapshot done").then_some(())
    })
    .await;
    assert!(bridge.log().contains("it was rewritten"), "log:\n{}", bridge.log());
    confirmed(&client, &name).await;
    let mut rows = BTreeMap::new();
    for value in records(&brokers, format!("{name}.public.log")).await.iter() {
        let value = value.json().expect("JSON");
        match op(&value) {
            "d" => drop(rows.remove(&(value["before"]["n"].as_i64().expect("n")))),
            _ => drop(rows.insert(
                value["after"]["n"].as_i64().expect("n"),
                value["after"]["v"].as_i64().expect("v"),
            )),
        }
    }
    let rows: BTreeMap<(i64, i64), i64> = rows.into_iter().map(|row| (row, 1)).collect();
    assert_eq!(rows, stored(&client).await);
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}
