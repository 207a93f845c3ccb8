//! What a DBA's publication publishes in effect is what a snapshot reads: no more, and no less.

use tokio_postgres::Client;

use crate::faults::stop;
use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, at_least, consume};
use crate::support::kafka::Brokers;
use crate::support::postgres::{TestDatabase, for_each_postgres};
use crate::support::{PATIENCE, eventually, unique};

fn ids(records: &[OwnedRecord]) -> Vec<i64> {
    let values = records.iter().filter_map(OwnedRecord::json);
    let mut ids: Vec<i64> = values.filter_map(|value| value["after"]["id"].as_i64()).collect();
    ids.sort_unstable();
    ids
}

/// On each server that has row filters.
async fn for_each_with_filters(test: impl AsyncFn(TestDatabase, Client)) {
    for_each_postgres(async |server| {
        if server.major() >= 15 {
            let database = server.database().await;
            let client = database.client().await;
            test(database, client).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_schema_that_is_published_whole_the_filter_of_a_table_counts_for_nobody() {
    let brokers = Brokers::any();
    for_each_with_filters(async |database, client| {
        let name = unique("whole");
        client
            .batch_execute(&format!(
                "CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY); INSERT INTO s.t VALUES (1), (20);
                 CREATE TABLE alone (id int PRIMARY KEY); INSERT INTO alone VALUES (1), (20);
                 CREATE PUBLICATION rowcast_{name} FOR TABLES IN SCHEMA s, TABLE s.t WHERE (id > 10), alone WHERE (id > 10)
                     WITH (publish_via_partition_root = true)"
            ))
            .await
            .expect("make tables");
        let (url, bootstrap) = (&database.unix_url, brokers.bootstrap());
        let config = "[postgres]\nmanage = false\n";
        let slot = format!("SELECT pg_create_logical_replication_slot('rowcast_{name}', 'pgoutput')");
        client.batch_execute(&slot).await.expect("make the slot");
        let mut bridge = Bridge::start_ready(&name, url, &bootstrap, config, PATIENCE);
        let body = serde_json::json!({"tables": ["s.t", "public.alone"]});
        let (code, answer) = bridge.ask("POST", "/snapshots", "", &body).expect("it answers");
        assert_eq!(code, 202, "{answer}");
        let [whole, alone] = ["s.t", "public.alone"].map(|table| format!("{name}.{table}"));
        let rows = consume(&bootstrap, &[&whole], at_least(2), PATIENCE).await;
        assert_eq!(ids(&rows), [1, 20], "log:\n{}", bridge.log());
        eventually(PATIENCE, "both snapshots to be done", async || {
            (bridge.log().matches("snapshot done").count() == 2).then_some(())
        })
        .await;
        let rows = consume(&bootstrap, &[&alone], at_least(1), PATIENCE).await;
        assert_eq!(ids(&rows), [20], "log:\n{}", bridge.log());
        stop(&mut bridge);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_row_filter_holds_from_the_start_however_long_the_table_is_locked() {
    let brokers = Brokers::any();
    for_each_with_filters(async |database, client| {
        let create = "CREATE TABLE t (id int PRIMARY KEY, other text); INSERT INTO t VALUES (1)";
        client.batch_execute(create).await.expect("make a table");
        let name = unique("locked");
        let (url, bootstrap) = (&database.unix_url, brokers.bootstrap());
        let mut bridge = Bridge::start_ready(&name, url, &bootstrap, "", PATIENCE);
        let topic = format!("{name}.public.t");
        consume(&bootstrap, &[&topic], at_least(1), PATIENCE).await;
        stop(&mut bridge);
        bridge.configure("[tables.\"public.t\"]\nwhere = \"id > 100\"\n");
        let lock = "BEGIN; ALTER TABLE t DROP COLUMN other; INSERT INTO t VALUES (2)";
        client.batch_execute(lock).await.expect("alter it");
        bridge.start_again();
        eventually(PATIENCE, "the bridge to say what it waits for", async || {
            bridge.log().contains("public.t is being altered or locked").then_some(())
        })
        .await;
        client.batch_execute("COMMIT").await.expect("commit");
        bridge.wait_until_ready(PATIENCE).unwrap_or_else(|ended| panic!("{}", ended.log));
        client.batch_execute("INSERT INTO t VALUES (3), (103)").await.expect("insert");
        let has_last = |records: &[OwnedRecord]| ids(records).contains(&103);
        let rows = consume(&bootstrap, &[&topic], has_last, PATIENCE).await;
        // What was committed before the publication was altered is published as it was then.
        assert!(!ids(&rows).contains(&3), "log:\n{}", bridge.log());
        stop(&mut bridge);
    })
    .await;
}
