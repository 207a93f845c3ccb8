//! What PostgreSQL 19 does otherwise: `wal_level = replica` is enough, as the first logical slot switches
//! decoding on by itself and the last one off; and REPACK rewrites a table while it is written to, by a
//! slot of its own.

use tokio_postgres::Client;

use crate::faults::{all_arrive, create_table, readyz, start_again, stop, write};
use crate::support::bridge::Bridge;
use crate::support::consume::{at_least, consume, topics_of};
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{Binaries, PostgresServer};
use crate::support::{PATIENCE, eventually, report_skipped, unique};

/// A server of version 19 with these settings; else the test is skipped, and counted.
macro_rules! server_or_skip {
    ($settings:expr) => {
        match Binaries::nineteen() {
            Ok(binaries) => PostgresServer::start(binaries, $settings),
            Err(reason) => return report_skipped(module_path!(), &reason),
        }
    };
}

async fn effective(client: &Client) -> String {
    let show = "SELECT current_setting('effective_wal_level')";
    client.query_one(show, &[]).await.expect(show).get(0)
}

async fn until_effective(client: &Client, level: &str) {
    let what = format!("effective_wal_level to be {level}");
    eventually(PATIENCE, &what, async || (effective(client).await == level).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_level_replica_is_enough_and_nothing_of_a_slot_that_was_dropped_remains() {
    let kafka = kafka_or_skip!();
    let server = server_or_skip!(&[("wal_level", "replica")]);
    let database = server.database().await;
    let client = database.client().await;
    create_table(&client).await;
    assert_eq!(effective(&client).await, "replica", "no slot is there yet");
    write(&client, 1..=10).await;
    let (name, brokers) = (unique("nineteen"), kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
    assert_eq!(effective(&client).await, "logical");
    write(&client, 11..=100).await;
    assert_eq!(all_arrive(&brokers, &name, &client).await, 0, "each once");
    stop(&mut bridge);

    let drop = format!("SELECT pg_drop_replication_slot('rowcast_{name}')");
    client.query(&drop, &[]).await.expect("drop the slot");
    until_effective(&client, "replica").await;
    write(&client, 101..=110).await;
    // What was written meanwhile is not known, so it stops; then it has the rows read again.
    bridge.start_again();
    let status = eventually(PATIENCE, "the bridge to end", async || bridge.exited()).await;
    assert_eq!(status.code(), Some(65), "log:\n{}", bridge.log());
    bridge.configure("[postgres]\non_gap = \"snapshot\"\n");
    start_again(&mut bridge);
    assert_eq!(effective(&client).await, "logical");
    write(&client, 111..=200).await;
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_level_minimal_is_refused_with_what_is_enough() {
    let kafka = kafka_or_skip!();
    let server = server_or_skip!(&[("wal_level", "minimal"), ("max_wal_senders", "0")]);
    let database = server.database().await;
    create_table(&database.client().await).await;
    let mut bridge = Bridge::start(&unique("minimal"), &database.tcp_url, &kafka.brokers(), "");
    let status = eventually(PATIENCE, "the bridge to end", async || bridge.exited()).await;
    let log = bridge.log();
    assert_eq!(status.code(), Some(69), "log:\n{log}");
    assert!(log.contains("wal_level is minimal, and only replica contains"), "log:\n{log}");
    assert!(log.contains("ALTER SYSTEM SET wal_level = 'replica';"), "log:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_repacked_while_it_is_written_to_arrives_whole_and_once() {
    let kafka = kafka_or_skip!();
    // One slot of ours, and no place for another.
    let server = server_or_skip!(&[("max_replication_slots", "1")]);
    let database = server.database().await;
    let client = database.client().await;
    create_table(&client).await;
    let padding = "ALTER TABLE rides ADD pad text DEFAULT repeat('x', 500)";
    client.batch_execute(padding).await.expect("make the table wide");
    write(&client, 1..=20_000).await;
    let (name, brokers) = (unique("repack"), kafka.brokers());

    // REPACK waits for a writer, with its slot made: none of ours is taken by it. It locks its table
    // against being published meanwhile.
    let other = "CREATE TABLE other (id int PRIMARY KEY)";
    client.batch_execute(other).await.expect("make another table");
    let writer = database.client().await;
    writer.batch_execute("BEGIN; INSERT INTO other VALUES (1)").await.expect("write");
    let repacking = database.client().await;
    let repack = async move { repacking.batch_execute("REPACK (CONCURRENTLY) other").await };
    let repack = tokio::spawn(repack);
    eventually(PATIENCE, "the slot of REPACK", async || {
        let slots = "SELECT FROM pg_replication_slots WHERE plugin = 'pgrepack'";
        (!client.query(slots, &[]).await.expect(slots).is_empty()).then_some(())
    })
    .await;
    let config = "[postgres]\ntables = [\"public.rides\"]\n";
    let mut bridge = Bridge::start(&name, &database.tcp_url, &brokers, config);
    readyz(&bridge, 503, "preflight: creating the slot").await;
    writer.batch_execute("COMMIT").await.expect("commit");
    bridge.wait_until_ready(PATIENCE).unwrap_or_else(|ended| panic!("{ended:?}"));
    repack.await.expect("no panic").expect("the table is repacked");

    for round in 0..3 {
        let repacking = database.client().await;
        let repack =
            tokio::spawn(
                async move { repacking.batch_execute("REPACK (CONCURRENTLY) rides").await },
            );
        let mut updates = 0;
        while !repack.is_finished() || updates == 0 {
            let from = 20_001 + round * 10_000 + updates * 20;
            write(&client, from..=from + 9).await;
            let update = "UPDATE rides SET version = version + 1 WHERE id % 2000 = $1 AND id > 0";
            client.execute(update, &[&(updates % 2_000)]).await.expect("update");
            updates += 1;
        }
        println!("round {round}: {updates} updates of several rows while the table was repacked");
        repack.await.expect("no panic").expect("the table is repacked");
    }
    assert_eq!(all_arrive(&brokers, &name, &client).await, 0, "each once");
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_publication_for_all_tables_leaves_out_is_not_read_either() {
    let kafka = kafka_or_skip!();
    let server = server_or_skip!(&[("wal_level", "logical")]);
    let database = server.database().await;
    let client = database.client().await;
    let name = unique("except");
    client
        .batch_execute(&format!(
            "CREATE TABLE told (id int PRIMARY KEY); INSERT INTO told VALUES (1);
             CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept VALUES (1);
             CREATE TABLE days (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE days_1 PARTITION OF days DEFAULT; INSERT INTO days VALUES (1);
             CREATE TABLE keyless (n int); INSERT INTO keyless VALUES (1);
             CREATE PUBLICATION rowcast_{name} FOR ALL TABLES EXCEPT (TABLE kept, days, keyless)"
        ))
        .await
        .expect("make tables");
    let (url, brokers) = (&database.tcp_url, kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, url, &brokers, "", PATIENCE);
    client
        .batch_execute(
            "UPDATE keyless SET n = 2; INSERT INTO kept VALUES (2); INSERT INTO days VALUES (2); INSERT INTO told VALUES (2)",
        )
        .await
        .expect("write");
    let topic = format!("{name}.public.told");
    consume(&brokers, &[&topic], at_least(2), PATIENCE).await;
    assert_eq!(topics_of(&brokers, &name), [topic], "log:\n{}", bridge.log());
    // What it leaves out it does not harm.
    assert!(!bridge.log().contains("refuses to update"), "log:\n{}", bridge.log());
    stop(&mut bridge);
}
