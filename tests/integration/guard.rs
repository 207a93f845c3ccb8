//! Tables whose identity is lost leave the publication within seconds, in every state of the bridge and
//! whatever else the application does: the promise that no statement of it fails does not rest while a
//! slot is created, a snapshot is read or brokers are away.

use tokio_postgres::Client;

use crate::insert_only::{held, limits, until_insert_only};
use crate::scenario::Scenario;
use crate::support::bridge::Bridge;
use crate::support::kafka::private_kafka_or_skip;
use crate::support::postgres::{Binaries, PostgresServer, for_oldest_and_newest};
use crate::support::{PATIENCE, eventually, unique};

/// Waits until `/readyz` says this.
async fn until_it_says(bridge: &Bridge, words: &str) {
    eventually(PATIENCE, &format!("{words:?} in /readyz"), async || {
        bridge.get("/readyz").is_some_and(|(_, body)| body.contains(words)).then_some(())
    })
    .await;
}

/// Takes a table's primary key away, and waits until the application can update it again.
async fn until_updated_without_key(client: &Client, table: &str) {
    let drop = format!("ALTER TABLE {table} DROP CONSTRAINT {table}_pkey");
    client.batch_execute(&drop).await.expect("drop the key");
    until_updated(client, table).await;
}

async fn until_updated(client: &Client, table: &str) {
    eventually(PATIENCE, &format!("{table} to be updated"), async || {
        client.batch_execute(&format!("UPDATE {table} SET n = n + 1")).await.ok()
    })
    .await;
}

/// Servers of the newest and the oldest version: each slot of a server waits for transactions that are
/// open, so those that stay open for long are no company for other tests.
fn private_servers() -> impl Iterator<Item = PostgresServer> {
    let all = Binaries::every();
    let versions = all.iter().take(1).chain(all.iter().skip(1).last());
    versions.map(|binaries| PostgresServer::start(binaries, &[]))
}

/// The operations that came of a table.
async fn operations(scenario: &Scenario, table: &str) -> Vec<String> {
    let events = scenario.events(table).await;
    let values = events.iter().filter_map(|event| event.value.as_ref());
    values.filter_map(|value| value["op"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_lost_before_rows_are_streamed_is_noticed() {
    for server in private_servers() {
        let server = &server;
        // The snapshot waits for whoever holds this lock.
        let config = "[tables.\"public.rides\"]\nsnapshot_where = \"pg_advisory_lock_shared(7) IS NOT NULL\"\n";
        let setup = "CREATE TABLE rides (id int PRIMARY KEY); INSERT INTO rides VALUES (1);
             CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a VALUES (1, 0);
             CREATE TABLE days (id int, day int, n int) PARTITION BY LIST (day);
             CREATE TABLE days_1 PARTITION OF days FOR VALUES IN (1);
             ALTER TABLE days_1 REPLICA IDENTITY FULL; ALTER TABLE days REPLICA IDENTITY FULL;
             CREATE TABLE days_2 (LIKE days); INSERT INTO days_2 VALUES (1, 2, 0)";
        let topics = ["public.rides", "public.a", "public.days", "public.days_2"];
        let config = format!("[postgres]\nexclude_tables = [\"public.days_2\"]\n\n{config}");
        let mut scenario = Scenario::prepare(server, &config, setup, &topics).await;
        let holder = scenario.connect().await;
        holder.batch_execute("SELECT pg_advisory_lock(7)").await.expect("lock");
        let writer = scenario.connect().await;
        writer.batch_execute("BEGIN; INSERT INTO rides VALUES (2)").await.expect("write");
        scenario.launch();
        let bridge = scenario.bridge.as_ref().expect("a bridge");
        until_it_says(bridge, "waits for the transaction").await;
        until_updated_without_key(&scenario.client, "a").await;
        writer.batch_execute("COMMIT").await.expect("commit");
        until_it_says(bridge, "snapshot").await;
        // Tables that were read are locked until the snapshot ends, but partitions may come.
        scenario.sql("ALTER TABLE days ATTACH PARTITION days_2 FOR VALUES IN (2)").await;
        until_updated(&scenario.client, "days_2").await;
        until_insert_only(&scenario, &["a", "days"]).await;
        holder.batch_execute("SELECT pg_advisory_unlock(7)").await.expect("unlock");
        scenario.until_ready();
        scenario.sql("INSERT INTO a VALUES (2, 0); INSERT INTO days VALUES (2, 1, 0)").await;
        for table in ["public.a", "public.days"] {
            let all = operations(&scenario, table).await;
            let last = all.last().map(String::as_str);
            assert_eq!(last, Some("c"), "{table}: {all:?}\nlog:\n{}", scenario.log());
        }
        assert_eq!(held(&scenario, "").await, ["rides"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_lost_while_no_broker_answers_is_noticed() {
    let mut kafka = private_kafka_or_skip!();
    let server = PostgresServer::shared();
    let database = server.database().await;
    let client = database.client().await;
    let setup = "CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a VALUES (1, 0)";
    client.batch_execute(setup).await.expect("set up");
    let name = unique("away");
    let config = "[kafka]\ndrain_timeout = \"1s\"\n";
    let bridge = Bridge::start_ready(&name, &database.unix_url, &kafka.brokers(), config, PATIENCE);
    kafka.stop();
    let end =
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1";
    client.query(end, &[&format!("rowcast_{name}")]).await.expect("end its stream");
    until_it_says(&bridge, "backoff").await;
    until_updated_without_key(&client, "a").await;
    let (_, body) = bridge.get("/readyz").expect("it answers");
    assert!(!body.contains("streaming"), "{body}");
    drop(bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_locked_for_long_hold_up_nothing_of_others() {
    for server in private_servers() {
        let has_filters = server.major() >= 15;
        let filter =
            if has_filters { "[tables.\"public.rides\"]\nwhere = \"id > 5\"\n" } else { "" };
        let config = format!("[postgres]\ndiscover_interval = \"300ms\"\n{filter}");
        let setup = "CREATE TABLE rides (id int PRIMARY KEY, n int DEFAULT 7);
             CREATE TABLE days (id int, day int, n int) PARTITION BY LIST (day);
             ALTER TABLE days REPLICA IDENTITY FULL;
             CREATE TABLE days_1 PARTITION OF days FOR VALUES IN (1);
             ALTER TABLE days_1 REPLICA IDENTITY FULL;
             CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a VALUES (1, 0);
             CREATE TABLE known (id int PRIMARY KEY, n int);
             CREATE TABLE fresh (id int PRIMARY KEY, n int DEFAULT 7,
                 twice int GENERATED ALWAYS AS (n * 2) STORED);
             CREATE TABLE weeks (id int, week int, n int) PARTITION BY LIST (week);
             ALTER TABLE weeks REPLICA IDENTITY FULL;
             CREATE TABLE weeks_1 PARTITION OF weeks FOR VALUES IN (1);
             ALTER TABLE weeks_1 REPLICA IDENTITY FULL";
        let topics = ["rides", "days", "a", "known", "fresh", "weeks"];
        let topics = topics.map(|table| format!("public.{table}"));
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let scenario = Scenario::start(&server, &config, setup, &topics).await;
        scenario.sql("INSERT INTO known VALUES (1, 0)").await;
        assert_eq!(operations(&scenario, "public.known").await, ["c"]);

        let mut other = scenario.connect().await;
        let holder = other.transaction().await.expect("begin");
        let lock = "LOCK TABLE rides, days IN ACCESS EXCLUSIVE MODE";
        holder.batch_execute(lock).await.expect("lock");
        until_updated_without_key(&scenario.client, "a").await;
        until_insert_only(&scenario, &["a"]).await;
        scenario
            .sql(
                "INSERT INTO known VALUES (2, 0); INSERT INTO fresh VALUES (1);
                 INSERT INTO weeks VALUES (1, 1, 0); UPDATE weeks SET n = 1;
                 INSERT INTO a VALUES (2, 0)",
            )
            .await;
        scenario.sql("ALTER TABLE known ADD COLUMN more int DEFAULT 3").await;
        scenario.sql("UPDATE known SET more = 4 WHERE id = 2").await;
        let log = || scenario.log();
        assert_eq!(operations(&scenario, "public.known").await, ["c", "c", "u"], "{}", log());
        assert_eq!(operations(&scenario, "public.fresh").await, ["c"], "{}", log());
        assert_eq!(operations(&scenario, "public.weeks").await, ["c", "u"], "{}", log());
        assert_eq!(operations(&scenario, "public.a").await.last().map(String::as_str), Some("c"));
        holder.rollback().await.expect("end");

        // What was locked is published as it was.
        assert_eq!(held(&scenario, "").await, ["days", "fresh", "known", "rides", "weeks"]);
        scenario.sql("INSERT INTO rides VALUES (1), (9); UPDATE days SET n = 1").await;
        let of_rides = if has_filters { 1 } else { 2 };
        assert_eq!(operations(&scenario, "public.rides").await.len(), of_rides, "{}", log());
        until_updated_without_key(&scenario.client, "rides").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_for_a_dba_is_enough_where_a_role_has_few_rights() {
    for_oldest_and_newest(async |server| {
        let role = unique("few");
        let config = "[postgres]\ndiscover_interval = \"300ms\"\n";
        let setup = format!(
            "CREATE ROLE {role} LOGIN REPLICATION;
             CREATE TABLE mine (id int PRIMARY KEY, n int); INSERT INTO mine VALUES (1, 0);
             CREATE TABLE theirs (id int PRIMARY KEY, n int); INSERT INTO theirs VALUES (1, 0);
             ALTER TABLE mine OWNER TO {role}; GRANT SELECT ON theirs TO {role}"
        );
        let topics = ["public.mine", "public.theirs", "public.late"];
        let mut scenario = Scenario::prepare(server, config, &setup, &topics).await;
        scenario.make_slot_and_publication("mine, theirs").await;
        // It may alter this one, and may not create another.
        let own = format!("ALTER PUBLICATION {} OWNER TO {role}", scenario.slot());
        scenario.sql(&own).await;
        scenario.run_as(&role);
        until_updated_without_key(&scenario.client, "mine").await;
        until_updated_without_key(&scenario.client, "theirs").await;
        assert_eq!(held(&scenario, "").await, Vec::<String>::new());
        for (table, all) in [("mine", &["mine"][..]), ("theirs", &["mine", "theirs"])] {
            let shown = limits(&scenario, "left_out");
            let shown = shown.iter().find(|of| of["table"] == format!("public.{table}"));
            let fix = shown.expect("it is shown")["fix"].as_str().expect("a text").to_owned();
            let sql = fix.split(" (then").next().expect("a text").trim_start_matches("as a DBA: ");
            assert!(scenario.log().contains("left out"), "log:\n{}", scenario.log());
            scenario.sql(sql).await;
            eventually(PATIENCE, &format!("{table} to be published after {sql}"), async || {
                (held(&scenario, "").await == all).then_some(())
            })
            .await;
            scenario.sql(&format!("UPDATE {table} SET n = 9")).await;
            // As an update, or as a row that is read.
            eventually(PATIENCE, "the change to come", async || {
                let events = scenario.events(&format!("public.{table}")).await;
                let mut values = events.iter().filter_map(|event| event.value.as_ref());
                values.any(|value| value["after"]["n"] == 9).then_some(())
            })
            .await;
        }

        // One that comes later is not left out in silence either.
        scenario.sql("CREATE TABLE late (id int PRIMARY KEY)").await;
        let fix = eventually(PATIENCE, "it to be named", async || {
            let log = scenario.log();
            let line = log.lines().find(|line| line.contains("only its owner may publish it"))?;
            let (_, fix) = line.split_once("as a DBA: ")?;
            Some(fix.split_once("COMMIT;")?.0.replace("\\\"", "\"") + "COMMIT;")
        })
        .await;
        scenario.sql(&fix).await;
        assert_eq!(held(&scenario, "").await, ["late", "mine", "theirs"]);
        // Of many, the first are named, and how many more there are.
        let create = (0..14).map(|n| format!("CREATE TABLE more_{n} (id int PRIMARY KEY);"));
        scenario.sql(&create.collect::<String>()).await;
        let log = eventually(PATIENCE, "them to be counted", async || {
            Some(scenario.log()).filter(|log| log.contains("more=4"))
        })
        .await;
        assert_eq!(log.matches("only its owner may publish it").count(), 12, "log:\n{log}");
    })
    .await;
}
