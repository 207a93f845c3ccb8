//! Transaction metadata on real servers: each transaction is announced, counted and closed, and is
//! confirmed only with the records around it.

use rowcast::lsn::Lsn;
use serde_json::{Value, json};

use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, at_least, consume};
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{for_each_postgres, until_confirmed};
use crate::support::{PATIENCE, unique};

const CONFIG: &str = "[format]\ntransaction_metadata = true\n[topics]\npartitions = 3\n";

fn json(record: &OwnedRecord) -> Value {
    record.json().expect("a value")
}

/// The part of a transaction's ID that its records share.
fn xid(id: &Value) -> &str {
    id.as_str().and_then(|id| id.split(':').next()).expect("an ID with a colon")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_told_whole_and_confirmed_with_its_end() {
    let kafka = kafka_or_skip!();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        let tables = "CREATE TABLE rides (id int PRIMARY KEY, fare numeric);
                      CREATE TABLE zones (id int PRIMARY KEY)";
        client.batch_execute(tables).await.expect("make tables");
        let (name, brokers) = (unique("transactions"), kafka.brokers());
        let bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, CONFIG, PATIENCE);
        let rides = "BEGIN; INSERT INTO rides SELECT generate_series(1, 3);
                     INSERT INTO zones VALUES (1); UPDATE rides SET id = 9 WHERE id = 1; COMMIT";
        client.batch_execute(rides).await.expect("write");
        client.batch_execute("DELETE FROM zones").await.expect("delete");

        let around = format!("{name}.transaction");
        let around = consume(&brokers, &[&around], at_least(4), PATIENCE).await;
        let values: Vec<Value> = around.iter().map(json).collect();
        let statuses: Vec<&Value> = values.iter().map(|value| &value["status"]).collect();
        assert_eq!(statuses, ["BEGIN", "END", "BEGIN", "END"], "one partition keeps their order");
        for (record, value) in around.iter().zip(&values) {
            let key: Value = serde_json::from_slice(record.key.as_deref().unwrap()).unwrap();
            assert_eq!(key, json!({"id": value["id"]}));
        }
        assert_eq!(xid(&values[0]["id"]), xid(&values[1]["id"]));
        assert_eq!(values[1]["event_count"], 6);
        let count = |table: &str, n: u64| json!({"data_collection": table, "event_count": n});
        let collections = [count("public.rides", 5), count("public.zones", 1)];
        assert_eq!(values[1]["data_collections"], json!(collections));

        let topics = [format!("{name}.public.rides"), format!("{name}.public.zones")];
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        // Six events and a tombstone, then an event and a tombstone.
        let records = consume(&brokers, &topics, at_least(9), PATIENCE).await;
        let first = records.iter().filter_map(OwnedRecord::json).find(|value| {
            value["transaction"]["total_order"] == 1
                && xid(&value["transaction"]["id"]) == xid(&values[0]["id"])
        });
        let sequence = first.expect("a first event")["source"]["sequence"].clone();
        let sequence = sequence.as_str().expect("a text");
        assert!(sequence.starts_with("[null,"), "nothing was streamed before: {sequence}");
        let mut orders: Vec<u64> = records
            .iter()
            .filter_map(OwnedRecord::json)
            .map(|value| value["transaction"].clone())
            .filter(|block| xid(&block["id"]) == xid(&values[0]["id"]))
            .map(|block| block["total_order"].as_u64().expect("a number"))
            .collect();
        orders.sort_unstable();
        assert_eq!(orders, [1, 2, 3, 4, 5, 6]);

        let end: u64 =
            values[3]["id"].as_str().unwrap().split(':').nth(1).unwrap().parse().unwrap();
        until_confirmed(&client, &name, Lsn::from(end), PATIENCE).await;
        drop(bridge);
    })
    .await;
}
