//! The first snapshot and the stream after it meet at one point: no change is lost and none comes
//! twice, whoever writes meanwhile.

use std::collections::BTreeMap;

use super::{all_published, reads, records_of, witness};
use crate::delivery::{replayed, topics};
use crate::load::{self, TABLES};
use crate::support::bridge::Bridge;
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::for_each_postgres;
use crate::support::{PATIENCE, unique};

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_there_and_changes_after_them_give_the_tables_as_they_are() {
    let kafka = kafka_or_skip!();
    for_each_postgres(async |server| {
        for delivery in ["at-least-once", "exactly-once"] {
            let database = server.database().await;
            let client = database.client().await;
            load::create_tables(&client).await;
            load::write(&database, 3_000, rand::random()).await;
            let name = unique("handover");
            let brokers = kafka.brokers();
            let config = format!("delivery = \"{delivery}\"\n[topics]\npartitions = 3\n");
            let mut bridge = Bridge::start(&name, &database.unix_url, &brokers, &config);
            // Transactions run across the consistent point.
            load::write(&database, 6_000, rand::random()).await;
            bridge.wait_until_ready(PATIENCE).expect("it streams");
            all_published(&client, &name).await;

            let topics = topics(&name);
            let records = records_of(&brokers, &topics, witness(&bridge, &database)).await;
            for (table, topic) in TABLES.iter().zip(&topics) {
                let rows = load::rows_of(&client, table).await;
                assert_eq!(replayed(&records, topic), rows, "{table}, {delivery}");
            }
            let mut read = BTreeMap::new();
            for event in reads(&records) {
                let place =
                    (event["source"]["table"].to_string(), event["after"]["id"].to_string());
                *read.entry(place).or_insert(0) += 1;
            }
            assert!(read.len() > 100, "{} rows were there", read.len());
            assert!(read.values().all(|times| *times == 1), "each row is read once");
            assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
        }
    })
    .await;
}
