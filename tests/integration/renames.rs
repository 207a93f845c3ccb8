//! Rules follow their table: whatever a table, a column or a schema is called, what was kept back is
//! kept back, or nothing of the table is published.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio_postgres::Client;

use crate::faults::{start_again, stop};
use crate::support::bridge::{Bridge, EndedEarly};
use crate::support::consume::{OwnedRecord, at_least, consume, read_whole, topics_of};
use crate::support::kafka::Brokers;
use crate::support::postgres::{PostgresServer, for_oldest_and_newest};
use crate::support::{PATIENCE, eventually, unique};

mod generated;
mod others;

/// Looks follow each other fast.
const LOOKS: &str = "[format]\nhash_salt = \"pepper\"\n[postgres]\ndiscover_interval = \"200ms\"\n";

/// The tables that `/status` names as left out because of a rename, each with its fix.
fn left_out(bridge: &Bridge) -> Vec<(String, String)> {
    let status =
        bridge.get("/status").and_then(|(_, page)| serde_json::from_str::<Value>(&page).ok());
    let status = status.unwrap_or_default();
    let all = status["left_out"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let renamed = all.iter().filter(|of| of["reason"] == "renamed");
    renamed
        .map(|of| (format!("{}.{}", text(&of["schema"]), text(&of["table"])), text(&of["fix"])))
        .collect()
}

async fn until_left_out(bridge: &Bridge, tables: &[&str]) -> Vec<(String, String)> {
    eventually(PATIENCE, &format!("{tables:?} to be left out"), async || {
        let now = left_out(bridge);
        let names: BTreeSet<&str> = now.iter().map(|(name, _)| name.as_str()).collect();
        (names == tables.iter().copied().collect()).then_some(now)
    })
    .await
}

async fn logged(bridge: &Bridge, times: usize, what: &str) {
    let seen = async || (bridge.log().matches(what).count() >= times).then_some(());
    eventually(PATIENCE, what, seen).await;
}

/// Every record of a pipeline, read through a mark that is written to `public.marks` behind all else.
/// None of them holds the word `secret`.
async fn no_secret(client: &Client, brokers: &str, name: &str) -> Vec<OwnedRecord> {
    let mark =
        "INSERT INTO public.marks SELECT coalesce(max(id), 0) + 1 FROM public.marks RETURNING id";
    let mark: i32 = client.query_one(mark, &[]).await.expect("write a mark").get(0);
    let is_mark = move |records: &[OwnedRecord]| {
        records.iter().filter_map(OwnedRecord::json).any(|value| value["after"]["id"] == mark)
    };
    consume(brokers, &[&format!("{name}.public.marks")], is_mark, PATIENCE).await;
    let mut all = Vec::new();
    for topic in topics_of(brokers, name) {
        for record in read_whole(brokers, &topic, PATIENCE) {
            for bytes in [&record.key, &record.value].into_iter().flatten() {
                let text = String::from_utf8_lossy(bytes);
                assert!(!text.contains("secret"), "{topic}: {text}");
            }
            all.push(record);
        }
    }
    all
}

fn of_topic(records: &[OwnedRecord], topic: &str) -> Vec<Value> {
    let of = records.iter().filter(|record| record.topic == topic);
    of.filter_map(OwnedRecord::json).collect()
}

/// Each way of keeping something back, as settings of a table (id, note, word), where `word` is
/// secret, or the row with an `id` above 100 is.
const RULES: &[(&str, &str)] = &[
    ("excluded", "exclude_columns = [\"word\"]"),
    ("listed", "columns = [\"id\", \"note\"]"),
    ("masked", "mask = { word = 3 }"),
    ("hashed", "hash = [\"word\"]"),
    ("cut", "truncate = { word = 2 }"),
    ("keyed", "key = [\"id\"]\nexclude_columns = [\"word\"]"),
    ("filtered", "where = \"id < 100\"\nexclude_columns = [\"word\"]"),
];

/// The rules that this server can have, as tables and their settings.
fn rules_of(server: &PostgresServer) -> impl Iterator<Item = (&'static str, &'static str)> {
    let has_filters = server.major() >= 15;
    RULES.iter().copied().filter(move |(rule, _)| has_filters || *rule != "filtered")
}

fn settings(server: &PostgresServer, prefix: &str) -> String {
    let of = |(rule, settings)| format!("[tables.\"public.{prefix}_{rule}\"]\n{settings}\n");
    rules_of(server).map(of).collect()
}

async fn make_tables(client: &Client, server: &PostgresServer, prefixes: &[&str]) {
    let mut sql = "CREATE SCHEMA moved; CREATE TABLE marks (id int PRIMARY KEY);".to_owned();
    for prefix in prefixes {
        for (rule, _) in rules_of(server) {
            sql += &format!(
                "CREATE TABLE {prefix}_{rule} (id int PRIMARY KEY, note text, word text);
                 ALTER TABLE {prefix}_{rule} REPLICA IDENTITY FULL;
                 INSERT INTO {prefix}_{rule} VALUES (1, 'before', 'xx-secret');"
            );
        }
    }
    client.batch_execute(&sql).await.expect("make tables");
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
async fn whatever_is_renamed_keeps_its_rule_or_is_left_out_while_it_streams_and_after_a_restart() {
    let brokers = Brokers::any();
    for_oldest_and_newest(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        let prefixes = ["named", "moved", "column", "stopped"];
        make_tables(&client, server, &prefixes).await;
        let name = unique("follow");
        let bootstrap = brokers.bootstrap();
        let rules: String = prefixes.iter().map(|prefix| settings(server, prefix)).collect();
        let config = format!("{LOOKS}{rules}");
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &bootstrap, &config, PATIENCE);
        // In one transaction each, so that the row is there before anybody can look.
        let mut held = Vec::new();
        for (rule, _) in rules_of(server) {
            for (rename, now, word) in [
                (format!("ALTER TABLE named_{rule} RENAME TO other_{rule}"), format!("public.other_{rule}"), "word"),
                (format!("ALTER TABLE moved_{rule} SET SCHEMA moved"), format!("moved.moved_{rule}"), "word"),
                (format!("ALTER TABLE column_{rule} RENAME word TO verb"), format!("public.column_{rule}"), "verb"),
            ] {
                let write = format!(
                    "BEGIN; {rename}; INSERT INTO {now} (id, note, {word}) VALUES (2, 'after', 'xx-secret');
                     UPDATE {now} SET note = 'later' WHERE id = 2; COMMIT;
                     INSERT INTO {now} (id, note, {word}) VALUES (200, '{}', 'xx-secret');",
                    if rule == "filtered" { "secret" } else { "open" }
                );
                client.batch_execute(&write).await.unwrap_or_else(|error| panic!("{write}: {error}"));
                // A list of columns keeps back whatever it does not name.
                if !(word == "verb" && rule == "listed") {
                    held.push(now);
                }
            }
        }
        let names: Vec<&str> = held.iter().map(String::as_str).collect();
        until_left_out(&bridge, &names).await;
        no_secret(&client, &bootstrap, &name).await;
        let log = bridge.log();
        for (rule, _) in rules_of(server) {
            let told = format!("public.named_{rule} is called public.other_{rule} now");
            assert!(log.contains(&told), "{told}:\n{log}");
        }
        let (_, metrics) = bridge.get("/metrics").expect("metrics");
        let gauge = format!("rowcast_tables_left_out{{reason=\"renamed\"}} {}", held.len());
        assert!(metrics.contains(&gauge), "{gauge}: {metrics}");
        stop(&mut bridge);

        // While it does not run, others are renamed.
        for (rule, _) in rules_of(server) {
            let rename = format!(
                "INSERT INTO stopped_{rule} VALUES (3, 'while', 'xx-secret');
                 ALTER TABLE stopped_{rule} RENAME TO started_{rule};
                 INSERT INTO started_{rule} VALUES (4, 'while', 'xx-secret')"
            );
            client.batch_execute(&rename).await.expect("rename");
            held.push(format!("public.started_{rule}"));
        }
        start_again(&mut bridge);
        let names: Vec<&str> = held.iter().map(String::as_str).collect();
        until_left_out(&bridge, &names).await;
        no_secret(&client, &bootstrap, &name).await;

        // Called as before, they are published as before, and what was left out is read.
        let mut wanted = Vec::new();
        for (rule, _) in rules_of(server) {
            let back = format!(
                "ALTER TABLE other_{rule} RENAME TO named_{rule}; ALTER TABLE moved.moved_{rule} SET SCHEMA public;
                 ALTER TABLE column_{rule} RENAME verb TO word; ALTER TABLE started_{rule} RENAME TO stopped_{rule};"
            );
            client.batch_execute(&back).await.expect("rename back");
            wanted.extend(prefixes.map(|prefix| (prefix, rule)));
        }
        until_left_out(&bridge, &[]).await;
        for (prefix, rule) in wanted {
            let id = if prefix == "stopped" { 4 } else { 2 };
            let topic = format!("{name}.public.{prefix}_{rule}");
            let is_read = move |records: &[OwnedRecord]| {
                let values = records.iter().filter_map(OwnedRecord::json);
                values.into_iter().any(|value| value["after"]["id"] == id)
            };
            consume(&bootstrap, &[&topic], is_read, PATIENCE).await;
        }
        no_secret(&client, &bootstrap, &name).await;
        stop(&mut bridge);
    })
    .await;
}

/// The lines of a fix, as a file has them.
fn lines_of(fix: &str) -> String {
    let (line, _) = fix.split_once("; or, if").expect("two ways");
    let (_, line) = line.split_once("write in ").expect("what to write");
    let (section, settings) = line.split_once(": ").expect("a section");
    format!("{section}\n{}\n", settings.replace("; ", "\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_that_the_error_names_brings_the_table_back_with_its_rows() {
    let brokers = Brokers::any();
    for_oldest_and_newest(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        make_tables(&client, server, &["old", "meant"]).await;
        for (rule, _) in rules_of(server) {
            let open = format!("UPDATE meant_{rule} SET word = 'yy-open'");
            client.batch_execute(&open).await.expect("open it");
        }
        let name = unique("back");
        let bootstrap = brokers.bootstrap();
        let config = format!("{LOOKS}{}{}", settings(server, "old"), settings(server, "meant"));
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &bootstrap, &config, PATIENCE);
        let (mut held, mut meant) = (Vec::new(), String::new());
        for (rule, _) in rules_of(server) {
            let write = format!(
                "ALTER TABLE old_{rule} RENAME TO new_{rule}; INSERT INTO new_{rule} VALUES (2, 'after', 'xx-secret');
                 ALTER TABLE meant_{rule} RENAME TO open_{rule};
                 INSERT INTO open_{rule} VALUES (2, 'after', 'yy-open')"
            );
            client.batch_execute(&write).await.expect("rename");
            held.extend([format!("public.new_{rule}"), format!("public.open_{rule}")]);
            meant += &format!(
                "[tables.\"public.open_{rule}\"]\nrenamed_from = [\"public.meant_{rule}\"]\n"
            );
        }
        let names: Vec<&str> = held.iter().map(String::as_str).collect();
        let fixes = until_left_out(&bridge, &names).await;
        let fixes = fixes.iter().filter(|(table, _)| table.starts_with("public.new_"));
        let written: String = fixes.map(|(_, fix)| lines_of(fix)).collect();
        // The names of before need not stay.
        bridge.configure(&format!("{LOOKS}{written}{meant}"));
        bridge.hang_up();
        until_left_out(&bridge, &[]).await;
        for (rule, _) in rules_of(server) {
            for (table, word) in [("new", "secret"), ("open", "yy-open")] {
                let topic = format!("{name}.public.{table}_{rule}");
                let both = |records: &[OwnedRecord]| {
                    let values = records.iter().filter_map(OwnedRecord::json);
                    let ids = values.filter(|value| value["op"] == "r").map(|v| v["after"]["id"].as_i64());
                    ids.collect::<BTreeSet<_>>().len() >= 2
                };
                let rows = consume(&bootstrap, &[&topic], both, PATIENCE).await;
                let seen = rows.iter().filter_map(|r| r.value.as_deref()).any(|value| {
                    String::from_utf8_lossy(value).contains(word)
                });
                assert_eq!(seen, table == "open", "{topic}");
            }
        }
        no_secret(&client, &bootstrap, &name).await;
        stop(&mut bridge);

        // What was settled once stays so.
        start_again(&mut bridge);
        assert_eq!(left_out(&bridge), []);
        stop(&mut bridge);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusion_follows_its_table_and_holds_at_once_for_one_that_is_renamed_into_it() {
    let brokers = Brokers::any();
    for_oldest_and_newest(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute(
                "CREATE SCHEMA vault; CREATE TABLE marks (id int PRIMARY KEY);
                 CREATE TABLE secret_a (id int PRIMARY KEY, v text); INSERT INTO secret_a VALUES (1, 'secret');
                 CREATE TABLE vault.b (id int PRIMARY KEY, v text); INSERT INTO vault.b VALUES (1, 'secret');
                 CREATE TABLE c (id int PRIMARY KEY, v text); CREATE TABLE d (id int PRIMARY KEY, v text)",
            )
            .await
            .expect("make tables");
        let name = unique("exclusion");
        let bootstrap = brokers.bootstrap();
        let config = format!("{LOOKS}exclude_tables = [\"*.secret_*\", \"vault.*\"]\n");
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &bootstrap, &config, PATIENCE);
        client
            .batch_execute(
                "INSERT INTO c VALUES (1, 'open'); INSERT INTO d VALUES (1, 'open');
                 BEGIN; ALTER TABLE c RENAME TO secret_c; INSERT INTO secret_c VALUES (2, 'secret'); COMMIT;
                 BEGIN; ALTER TABLE d SET SCHEMA vault; INSERT INTO vault.d VALUES (2, 'secret'); COMMIT;
                 INSERT INTO secret_c VALUES (3, 'secret'); INSERT INTO vault.d VALUES (3, 'secret');
                 BEGIN; ALTER TABLE secret_a RENAME TO a; INSERT INTO a VALUES (2, 'secret'); COMMIT;
                 BEGIN; ALTER TABLE vault.b SET SCHEMA public; INSERT INTO b VALUES (2, 'secret'); COMMIT",
            )
            .await
            .expect("rename");
        let fixes = until_left_out(&bridge, &["public.a", "public.b"]).await;
        assert!(fixes[0].1.starts_with("add \"public.a\" to postgres.exclude_tables"), "{fixes:?}");
        let records = no_secret(&client, &bootstrap, &name).await;
        for table in ["c", "d"] {
            assert_eq!(of_topic(&records, &format!("{name}.public.{table}")).len(), 1);
        }
        let published = "SELECT count(*) FROM pg_publication_tables WHERE tablename IN ('a', 'b', 'secret_c', 'd')";
        eventually(PATIENCE, "the publication to be without them", async || {
            let count: i64 = client.query_one(published, &[]).await.expect("ask").get(0);
            (count == 0).then_some(())
        })
        .await;
        stop(&mut bridge);
        start_again(&mut bridge);
        until_left_out(&bridge, &["public.a", "public.b"]).await;
        client.batch_execute("UPDATE a SET v = 'open'; UPDATE b SET v = 'open'").await.expect("open them");
        bridge.configure(&format!(
            "{config}[tables.\"public.a\"]\nrenamed_from = [\"public.secret_a\"]\n\
             [tables.\"public.b\"]\nrenamed_from = [\"vault.b\"]\n"
        ));
        bridge.hang_up();
        for table in ["a", "b"] {
            let topic = format!("{name}.public.{table}");
            let rows = consume(&bootstrap, &[&topic], at_least(2), PATIENCE).await;
            assert!(rows.iter().filter_map(OwnedRecord::json).all(|value| value["op"] == "r"));
        }
        no_secret(&client, &bootstrap, &name).await;
        stop(&mut bridge);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_table_has_is_refused_where_it_hides_and_warned_of_where_not() {
    let brokers = Brokers::any();
    for_oldest_and_newest(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute("CREATE TABLE rides (id int PRIMARY KEY, ssn text); CREATE VIEW seen AS SELECT 1 AS n")
            .await
            .expect("make tables");
        let bootstrap = brokers.bootstrap();
        for (config, told) in [
            ("[tables.\"public.ridez\"]\nexclude_columns = [\"ssn\"]", "public.rides"),
            ("[tables.\"public.ridez\"]\nmask = { ssn = 3 }", "public.rides"),
            ("[postgres]\nexclude_tables = [\"public.ride\"]", "public.rides"),
            ("[tables.\"publik.rides\"]\ncolumns = [\"id\"]", "public.rides"),
            ("[tables.\"public.rides\"]\nexclude_columns = [\"snn\"]", "correct the name: ssn"),
            ("[tables.\"public.rides\"]\nmask = { sns = 1 }", "correct the name: ssn"),
        ] {
            let name = unique("typo");
            let mut bridge = Bridge::start(&name, &database.unix_url, &bootstrap, config);
            let EndedEarly { status, log } =
                bridge.wait_until_ready(PATIENCE).expect_err("it is refused");
            assert_eq!(status.code(), Some(69), "{config}:\n{log}");
            assert!(log.contains(told) && log.contains("match nothing yet"), "{config}:\n{log}");
        }
        let query = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
        let slots: i64 = client.query_one(query, &[]).await.expect("ask").get(0);
        assert_eq!(slots, 0, "nothing is made before all is well");

        // What hides nothing is only a warning, and a table to come can be named.
        let config = "[postgres]\ntables = [\"public.ridez\", \"public.*\"]\nexclude_tables = [\"public.seen\"]\n\
                      discover_interval = \"200ms\"\n[tables.\"public.zone\"]\ntopic = \"zones\"\n\
                      [tables.\"public.late[r]\"]\nexclude_columns = [\"ssn\"]\n";
        let name = unique("later");
        let mut bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, config, PATIENCE);
        let log = bridge.log();
        assert!(log.contains("postgres.tables names \"public.ridez\" that does not exist"), "{log}");
        assert!(log.contains("tables.\"public.zone\" names a table that does not exist"), "{log}");
        client
            .batch_execute(
                "CREATE TABLE marks (id int PRIMARY KEY);
                 CREATE TABLE later (id int PRIMARY KEY, ssn text); INSERT INTO later VALUES (1, 'secret')",
            )
            .await
            .expect("make the table");
        consume(&bootstrap, &[&format!("{name}.public.later")], at_least(1), PATIENCE).await;
        no_secret(&client, &bootstrap, &name).await;
        stop(&mut bridge);

        // A table that was there is no slip of the pen.
        bridge.configure("[tables.\"public.rides\"]\nexclude_columns = [\"ssn\"]\n");
        start_again(&mut bridge);
        client.batch_execute("ALTER TABLE rides DROP COLUMN ssn").await.expect("drop it");
        // The first start still remembers the column.
        for _ in 0..2 {
            stop(&mut bridge);
            start_again(&mut bridge);
        }
        assert!(bridge.log().contains("which public.rides does not have"), "{}", bridge.log());
        client.batch_execute("DROP TABLE rides").await.expect("drop it");
        stop(&mut bridge);
        start_again(&mut bridge);
        stop(&mut bridge);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_table_under_a_name_is_told_of_and_its_rows_are_read() {
    let brokers = Brokers::any();
    for_oldest_and_newest(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute(
                "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'a');
                 CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b VALUES (2, 'b');
                 CREATE TABLE c (id int PRIMARY KEY, v text); INSERT INTO c VALUES (3, 'c')",
            )
            .await
            .expect("make tables");
        let name = unique("swapped");
        let bootstrap = brokers.bootstrap();
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &bootstrap, LOOKS, PATIENCE);
        client
            .batch_execute(
                "BEGIN; ALTER TABLE a RENAME TO tmp; ALTER TABLE b RENAME TO a; ALTER TABLE tmp RENAME TO b;
                 DROP TABLE c; CREATE TABLE c (id int PRIMARY KEY, v text); INSERT INTO c VALUES (4, 'c'); COMMIT",
            )
            .await
            .expect("swap them");
        for (table, id) in [("a", 2), ("b", 1), ("c", 4)] {
            logged(&bridge, 1, &format!("table=\"public.{table}\"")).await;
            let is_read = move |records: &[OwnedRecord]| {
                let mut values = records.iter().filter_map(OwnedRecord::json);
                values.any(|value| value["op"] == "r" && value["after"]["id"] == id)
            };
            consume(&bootstrap, &[&format!("{name}.public.{table}")], is_read, PATIENCE).await;
        }
        stop(&mut bridge);
        // The same while it does not run.
        client
            .batch_execute(
                "BEGIN; ALTER TABLE a RENAME TO tmp; ALTER TABLE b RENAME TO a; ALTER TABLE tmp RENAME TO b; COMMIT;
                 DROP TABLE c; CREATE TABLE c (id int PRIMARY KEY, v text); INSERT INTO c VALUES (5, 'c')",
            )
            .await
            .expect("swap them back");
        start_again(&mut bridge);
        for (table, id, times) in [("a", 1, 2), ("b", 2, 2), ("c", 5, 1)] {
            let is_read = move |records: &[OwnedRecord]| {
                let values = records.iter().filter_map(OwnedRecord::json);
                let read = |v: &Value| v["op"] == "r" && v["after"]["id"] == id;
                values.filter(read).count() >= times
            };
            consume(&bootstrap, &[&format!("{name}.public.{table}")], is_read, PATIENCE).await;
        }
        let log = bridge.log();
        assert!(log.matches("this is not the table that had this name").count() >= 6, "{log}");
        stop(&mut bridge);
    })
    .await;
}
