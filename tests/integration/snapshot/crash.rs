//! A snapshot that is cut off at any moment is brought to its end by the next start.

use std::collections::BTreeMap;

use rand::RngExt as _;
use tokio_postgres::Client;

use super::{all_published, records_of, witness};
use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, checkpoint};
use crate::support::kafka::{KafkaNode, kafka_or_skip};
use crate::support::postgres::TestDatabase;
use crate::support::{PATIENCE, eventually, unique};

const ROWS: i32 = 200_000;

/// Waits until the tables are listed, and then for a moment.
async fn wait_for_the_middle(brokers: &str, name: &str) {
    eventually(PATIENCE, "the snapshot to begin", async || {
        checkpoint(brokers, name).is_some_and(|found| !found.is_intent()).then_some(())
    })
    .await;
    let moment = rand::rng().random_range(0..500);
    tokio::time::sleep(std::time::Duration::from_millis(moment)).await;
}

/// The rows as the events of a topic leave them.
fn replayed(records: &[OwnedRecord]) -> BTreeMap<i64, String> {
    let mut rows = BTreeMap::new();
    for record in records {
        let key: serde_json::Value =
            serde_json::from_str(record.key_text().expect("a key")).expect("JSON");
        let id = key["id"].as_i64().expect("the key");
        match record.json() {
            Some(event) if event["op"] != "d" => {
                rows.insert(id, event["after"]["note"].as_str().expect("a note").to_owned());
            }
            _ => {
                rows.remove(&id);
            }
        }
    }
    rows
}

async fn rows_of(client: &Client) -> BTreeMap<i64, String> {
    let rows = client.query("SELECT id::bigint, note FROM rides", &[]).await.expect("read");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Kills it again and again until the snapshot is over, and gives all that a reader of what is
/// committed sees then.
async fn killed_again_and_again(kafka: &KafkaNode, delivery: &str) -> Vec<OwnedRecord> {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let fill = format!(
        "CREATE TABLE rides (id int PRIMARY KEY, note text);
         INSERT INTO rides SELECT n, repeat('n', 20 + n % 200) FROM generate_series(1, {ROWS}) n"
    );
    client.batch_execute(&fill).await.expect("fill the table");
    let (name, brokers) = (unique("cut_off"), kafka.brokers());
    let topic = format!("{name}.public.rides");
    let config = format!("delivery = \"{delivery}\"\n[snapshot]\nconnections = 2\n");
    let mut bridge = Bridge::start(&name, &database.unix_url, &brokers, &config);
    let mut kills = 0;
    for round in 1..=3 {
        wait_for_the_middle(&brokers, &name).await;
        bridge.kill();
        let cut = checkpoint(&brokers, &name).expect("there is one");
        kills += usize::from(!cut.snapshots.tables.is_empty());
        let change = format!(
            "UPDATE rides SET note = note || 'u' WHERE id % 1000 = {round};
             DELETE FROM rides WHERE id % 1000 = {round} + 500;
             INSERT INTO rides VALUES (1000000 + {round}, 'new')"
        );
        client.batch_execute(&change).await.expect("change rows");
        bridge.start_again();
    }
    assert!(kills > 0, "it was never cut off");
    bridge.wait_until_ready(PATIENCE * 2).expect("it streams");
    eventually(PATIENCE * 2, "the snapshot to be whole", async || {
        let found = checkpoint(&brokers, &name);
        found.is_some_and(|found| found.snapshots.tables.is_empty()).then_some(())
    })
    .await;
    all_published(&client, &name).await;
    let records = records_of(&brokers, &[topic], witness(&bridge, &database)).await;
    assert_eq!(replayed(&records), rows_of(&client).await);
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn at_least_once_a_snapshot_that_is_killed_comes_to_its_end_with_nothing_lost() {
    let kafka = kafka_or_skip!();
    killed_again_and_again(kafka, "at-least-once").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_a_snapshot_that_is_killed_comes_to_its_end_with_nothing_twice() {
    let kafka = kafka_or_skip!();
    let records = killed_again_and_again(kafka, "exactly-once").await;
    let mut read = BTreeMap::new();
    for record in &records {
        if let Some(event) = record.json().filter(|event| event["op"] == "r") {
            // A row that changed since is read as it is now.
            *read.entry(event["after"].to_string()).or_insert(0) += 1;
        }
    }
    let twice: Vec<_> = read.iter().filter(|(_, times)| **times > 1).take(5).collect();
    assert!(twice.is_empty(), "read more than once: {twice:?}");
}
