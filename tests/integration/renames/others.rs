//! The same rules where the publication is a DBA's or is for all tables, and where an excluded table
//! becomes a partition of a published one.

use std::process::Command;

use serde_json::{Value, json};

use super::{LOOKS, consume, no_secret, until_left_out};
use crate::faults::{start_again, stop};
use crate::support::bridge::{Bridge, TRUSTING};
use crate::support::consume::{OwnedRecord, at_least};
use crate::support::kafka::Brokers;
use crate::support::postgres::{TestDatabase, for_oldest_and_newest};
use crate::support::{PATIENCE, eventually, unique};

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
async fn rules_follow_tables_in_a_publication_that_is_not_rowcasts_to_alter() {
    let brokers = Brokers::any();
    for_oldest_and_newest(async |server| {
        for publication in ["FOR TABLE marks, excluded, masked, a", "FOR ALL TABLES"] {
            let database = server.database().await;
            let client = database.client().await;
            let name = unique("follow");
            client
                .batch_execute(&format!(
                    "CREATE TABLE marks (id int PRIMARY KEY);
                     CREATE TABLE excluded (id int PRIMARY KEY, word text);
                     CREATE TABLE masked (id int PRIMARY KEY, word text);
                     CREATE TABLE a (id int PRIMARY KEY, word text); CREATE TABLE secret_b (id int PRIMARY KEY, word text);
                     INSERT INTO excluded VALUES (1, 'xx-secret'); INSERT INTO masked VALUES (1, 'xx-secret');
                     INSERT INTO a VALUES (1, 'open'); INSERT INTO secret_b VALUES (1, 'secret');
                     CREATE PUBLICATION rowcast_{name} {publication}"
                ))
                .await
                .expect("make tables");
            let bootstrap = brokers.bootstrap();
            let config = format!(
                "{LOOKS}manage = false\nexclude_tables = [\"public.secret_*\"]\n\
                 [tables.\"public.excluded\"]\nexclude_columns = [\"word\"]\n\
                 [tables.\"public.masked\"]\nmask = {{ word = 3 }}\n"
            );
            let slot = format!("SELECT pg_create_logical_replication_slot('rowcast_{name}', 'pgoutput')");
            client.batch_execute(&slot).await.expect("make the slot");
            let mut bridge =
                Bridge::start_ready(&name, &database.unix_url, &bootstrap, &config, PATIENCE);
            client
                .batch_execute(
                    "BEGIN; ALTER TABLE excluded RENAME TO e; INSERT INTO e VALUES (2, 'xx-secret'); COMMIT;
                     BEGIN; ALTER TABLE masked RENAME word TO verb; INSERT INTO masked VALUES (2, 'xx-secret'); COMMIT;
                     BEGIN; ALTER TABLE a RENAME TO secret_a; INSERT INTO secret_a VALUES (2, 'secret'); COMMIT;
                     BEGIN; ALTER TABLE secret_b RENAME TO b; INSERT INTO b VALUES (2, 'secret'); COMMIT",
                )
                .await
                .expect("rename");
            let held = ["public.b", "public.e", "public.masked"];
            until_left_out(&bridge, &held).await;
            no_secret(&client, &bootstrap, &name).await;
            bridge.kill();
            client
                .batch_execute("INSERT INTO e VALUES (3, 'xx-secret'); INSERT INTO masked VALUES (3, 'xx-secret')")
                .await
                .expect("write");
            start_again(&mut bridge);
            until_left_out(&bridge, &held).await;
            no_secret(&client, &bootstrap, &name).await;
            // As before: published as before.
            client
                .batch_execute(
                    "ALTER TABLE e RENAME TO excluded; ALTER TABLE masked RENAME verb TO word;
                     ALTER TABLE b RENAME TO secret_b",
                )
                .await
                .expect("rename back");
            until_left_out(&bridge, &[]).await;
            for table in ["excluded", "masked"] {
                let topic = format!("{name}.public.{table}");
                consume(&bootstrap, &[&topic], at_least(3), PATIENCE).await;
            }
            no_secret(&client, &bootstrap, &name).await;
            stop(&mut bridge);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_excluded_table_that_is_attached_holds_its_root_back_until_it_is_detached() {
    let brokers = Brokers::any();
    for_oldest_and_newest(async |server| {
        for mode in ["initial", "never"] {
            let database = server.database().await;
            let client = database.client().await;
            client
                .batch_execute(
                    "CREATE TABLE marks (id int PRIMARY KEY);
                     CREATE TABLE days (id int, day int, word text, PRIMARY KEY (day, id)) PARTITION BY LIST (day);
                     CREATE TABLE days_1 PARTITION OF days FOR VALUES IN (1);
                     CREATE TABLE secret_2 (id int, day int, word text, PRIMARY KEY (day, id));
                     INSERT INTO secret_2 VALUES (1, 2, 'secret')",
                )
                .await
                .expect("make tables");
            let name = unique("attach");
            let bootstrap = brokers.bootstrap();
            let config = format!(
                "{LOOKS}exclude_tables = [\"public.secret_*\"]\n[snapshot]\nmode = \"{mode}\"\n"
            );
            let mut bridge =
                Bridge::start_ready(&name, &database.unix_url, &bootstrap, &config, PATIENCE);
            client
                .batch_execute(
                    "INSERT INTO days VALUES (1, 1, 'open');
                     BEGIN; ALTER TABLE days ATTACH PARTITION secret_2 FOR VALUES IN (2);
                     INSERT INTO days VALUES (2, 2, 'secret'); COMMIT",
                )
                .await
                .expect("attach");
            let fixes = until_left_out(&bridge, &["public.days"]).await;
            assert!(fixes[0].1.starts_with("detach the partition, or add \"public.days\""), "{fixes:?}");
            let told = "public.secret_2 is a partition of public.days now";
            assert!(bridge.log().contains(told), "{}", bridge.log());
            no_secret(&client, &bootstrap, &name).await;
            // The row comes before anybody can look.
            client
                .batch_execute(
                    "BEGIN; ALTER TABLE days DETACH PARTITION secret_2; INSERT INTO days VALUES (2, 1, 'open'); COMMIT",
                )
                .await
                .expect("detach");
            until_left_out(&bridge, &[]).await;
            let topic = format!("{name}.public.days");
            if mode == "never" {
                eventually(PATIENCE, "a word on what is missing", async || {
                    bridge.log().contains("rows of these tables are missing").then_some(())
                })
                .await;
            }
            client.batch_execute("INSERT INTO days VALUES (3, 1, 'open')").await.expect("insert");
            let is_there = |records: &[OwnedRecord]| {
                records.iter().filter_map(OwnedRecord::json).any(|value| value["after"]["id"] == 3)
            };
            consume(&bootstrap, &[&topic], is_there, PATIENCE).await;
            no_secret(&client, &bootstrap, &name).await;
            stop(&mut bridge);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_of_tables_goes_with_a_teardown() {
    let brokers = Brokers::any();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let sql = "CREATE TABLE cards (id int PRIMARY KEY, pan text); CREATE TABLE marks (id int PRIMARY KEY)";
    client.batch_execute(sql).await.expect("make tables");
    let name = unique("forget");
    let (url, bootstrap) = (&database.unix_url, brokers.bootstrap());
    let config = "[tables.\"public.cards\"]\nexclude_columns = [\"pan\"]\n";
    let mut bridge = Bridge::start_ready(&name, url, &bootstrap, config, PATIENCE);
    stop(&mut bridge);
    client.batch_execute("DROP TABLE cards").await.expect("drop it");
    // A table that was there is no typo.
    start_again(&mut bridge);
    stop(&mut bridge);
    let output = Command::new(env!("CARGO_BIN_EXE_rowcast"))
        .args(["teardown", "--yes", "--name", &name])
        .envs([("DATABASE_URL", url), ("KAFKA_BROKERS", &bootstrap)])
        .output()
        .expect("run rowcast");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Nobody knows of it any more.
    bridge.start_again();
    let ended = bridge.wait_until_ready(PATIENCE).expect_err("it is refused");
    assert_eq!(ended.status.code(), Some(69), "{}", ended.log);
    assert!(ended.log.contains("match nothing yet"), "{}", ended.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_column_that_was_renamed_and_then_dropped_stays_hidden_in_the_rows_of_before() {
    let brokers = Brokers::any();
    for_oldest_and_newest(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute(
                "CREATE TABLE marks (id int PRIMARY KEY);
                 CREATE TABLE masked (id int PRIMARY KEY, word text); CREATE TABLE excluded (id int PRIMARY KEY, word text);
                 INSERT INTO masked VALUES (1, 'xx-secret'); INSERT INTO excluded VALUES (1, 'xx-secret')",
            )
            .await
            .expect("make tables");
        let name = unique("dropped");
        let bootstrap = brokers.bootstrap();
        let config = format!(
            "{LOOKS}column_lists = \"none\"\n[tables.\"public.masked\"]\nmask = {{ word = 3 }}\n\
             [tables.\"public.excluded\"]\nexclude_columns = [\"word\"]\n"
        );
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &bootstrap, &config, PATIENCE);
        // The catalog of now knows neither name when the stream comes to these rows.
        stop(&mut bridge);
        for table in ["masked", "excluded"] {
            client
                .batch_execute(&format!(
                    "ALTER TABLE {table} RENAME word TO verb; INSERT INTO {table} VALUES (2, 'xx-secret');
                     ALTER TABLE {table} ADD noun text; ALTER TABLE {table} DROP verb;
                     INSERT INTO {table} VALUES (3, 'open')"
                ))
                .await
                .expect("write");
        }
        start_again(&mut bridge);
        no_secret(&client, &bootstrap, &name).await;
        // What was left out for it is read.
        for table in ["masked", "excluded"] {
            let are_there = |records: &[OwnedRecord]| {
                let values: Vec<_> = records.iter().filter_map(OwnedRecord::json).collect();
                [2, 3].iter().all(|id| values.iter().any(|value| value["after"]["id"] == *id))
            };
            consume(&bootstrap, &[&format!("{name}.public.{table}")], are_there, PATIENCE).await;
        }
        until_left_out(&bridge, &[]).await;
        no_secret(&client, &bootstrap, &name).await;
        stop(&mut bridge);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_out_while_a_snapshot_runs_is_read_once_more() {
    let brokers = Brokers::any();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let create = "CREATE TABLE rides (id int PRIMARY KEY, fare int, ssn text)";
    client.batch_execute(create).await.expect("make a table");
    let (name, bootstrap) = (unique("again"), brokers.bootstrap());
    // Rows that are inserted come by snapshots alone.
    let config = format!(
        "{TRUSTING}{LOOKS}column_lists = \"none\"\nskipped_operations = [\"insert\", \"truncate\"]\n\
         [tables.\"public.rides\"]\nexclude_columns = [\"ssn\"]\n"
    );
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, &config, PATIENCE);
    let fill = "INSERT INTO rides SELECT n, 0, 'secret' FROM generate_series(1, 150000) n";
    client.batch_execute(fill).await.expect("write");
    let ask = |method: &str, path: &str, body: &Value| {
        bridge.ask(method, path, "", body).expect("an answer in JSON")
    };
    let (_, accepted) = ask("POST", "/snapshots", &json!({"tables": ["public.rides"]}));
    let id = accepted["id"].as_str().expect("an ID").to_owned();
    assert_eq!(ask("POST", &format!("/snapshots/{id}/pause"), &json!({})).0, 202);
    eventually(PATIENCE, "it to be paused", async || {
        let (_, list) = ask("GET", "/snapshots", &Value::Null);
        let listed = list["snapshots"].as_array()?.iter().find(|of| of["id"] == *id)?.clone();
        (listed["state"] == "paused").then_some(())
    })
    .await;
    let rename = "ALTER TABLE rides RENAME ssn TO tax; UPDATE rides SET fare = 7 WHERE id = 1";
    client.batch_execute(rename).await.expect("rename");
    until_left_out(&bridge, &["public.rides"]).await;
    client.batch_execute("ALTER TABLE rides RENAME tax TO ssn").await.expect("rename");
    // The paused one may have read the row before.
    let is_there = |records: &[OwnedRecord]| {
        let mut values = records.iter().filter_map(OwnedRecord::json);
        values.any(|value| value["after"] == json!({"id": 1, "fare": 7}))
    };
    consume(&bootstrap, &[&format!("{name}.public.rides")], is_there, PATIENCE).await;
    stop(&mut bridge);
}
