//! Tables that are added on a server that forgets them: one of before May 2025, on which a transaction
//! that ran meanwhile makes the walsender leave out all that is written to the table later.

use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, consume};
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{Binaries, PostgresServer};
use crate::support::{PATIENCE, eventually, report_skipped, unique};

const TABLES: &str = "CREATE TABLE rides (id int PRIMARY KEY, fare int);
    CREATE TABLE zones (id int PRIMARY KEY, fare int);
    CREATE TABLE days (id int, fare int, PRIMARY KEY (id, fare)) PARTITION BY RANGE (id);
    CREATE TABLE days_low PARTITION OF days FOR VALUES FROM (1) TO (1000);";

/// Adds two tables while a transaction has written to both, and wants every row that is written then.
async fn all_is_published_of_added_tables(kafka: &str, binaries: &Binaries, via_root: bool) {
    let server = PostgresServer::start(binaries, &[]);
    let database = server.database().await;
    let client = database.client().await;
    client.batch_execute(TABLES).await.expect("make tables");
    let name = unique("forgets");
    let config = |tables: &str| {
        format!(
            "[postgres]\ntables = [{tables}]\ndiscover_interval = \"200ms\"\n\
             publish_via_partition_root = {via_root}\n"
        )
    };
    let only_rides = config("\"public.rides\"");
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, kafka, &only_rides, PATIENCE);

    let writer = database.client().await;
    let write =
        |id: i32| format!("INSERT INTO zones VALUES ({id}, 1); INSERT INTO days VALUES ({id}, 1)");
    writer.batch_execute(&format!("BEGIN; {}", write(1))).await.expect("write");
    bridge.configure(&config("\"public.*\""));
    bridge.hang_up();
    eventually(PATIENCE, "both tables to be waited for", async || {
        let (_, list) = bridge.get("/snapshots")?;
        (list.matches("for a transaction that began before").count() == 2).then_some(())
    })
    .await;
    writer.batch_execute(&format!("{}; COMMIT", write(2))).await.expect("commit");
    client.batch_execute(&write(3)).await.expect("write");
    let days = if via_root { "days" } else { "days_low" };
    for table in ["zones", days] {
        let topic = format!("{name}.public.{table}");
        // Row 3 is told by the stream, or read, or both.
        let rows = async |wanted: std::ops::RangeInclusive<i64>| {
            let id = |record: &OwnedRecord| record.json()?["after"]["id"].as_i64();
            let all = move |records: &[OwnedRecord]| {
                let ids: Vec<i64> = records.iter().filter_map(id).collect();
                wanted.clone().all(|id| ids.contains(&id))
            };
            consume(kafka, &[&topic], all, PATIENCE).await
        };
        rows(1..=3).await;
        let insert = format!("INSERT INTO {table} VALUES (4, 1)");
        client.batch_execute(&insert).await.expect("write");
        rows(1..=4).await;
    }
    assert!(bridge.terminate(PATIENCE).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_added_while_a_transaction_writes_to_it_is_not_forgotten() {
    let kafka = kafka_or_skip!().brokers();
    let old = match Binaries::old_minor("17.4") {
        Ok(old) => old,
        Err(reason) => return report_skipped(module_path!(), &reason),
    };
    for binaries in [&old, Binaries::newest()] {
        for via_root in [true, false] {
            all_is_published_of_added_tables(&kafka, binaries, via_root).await;
        }
    }
}
