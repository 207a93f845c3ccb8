//! The table of `postgres.signal_table` itself: what it must be, and what becomes of it later.

use super::signal_rows::{CONFIG, TABLE};
use super::signals::scene_with;
use crate::support::bridge::Bridge;
use crate::support::kafka::Brokers;
use crate::support::postgres::{PostgresServer, for_oldest_and_newest};
use crate::support::{PATIENCE, eventually, unique};

/// What is wrong with the table, and how it is told.
const UNFIT: &[(&str, &str)] = &[
    ("", "the table public.debezium_signal, which postgres.signal_table names, does not exist"),
    ("CREATE VIEW debezium_signal AS SELECT 1 AS id, 2 AS type, 3 AS data;", "is not a table"),
    (
        "CREATE TABLE debezium_signal (id text, type text, data text) PARTITION BY LIST (type);",
        "is partitioned",
    ),
    (
        "CREATE TABLE whole (id text, type text, data text) PARTITION BY LIST (type);
         CREATE TABLE debezium_signal PARTITION OF whole DEFAULT;",
        "is a partition",
    ),
    (
        "CREATE TABLE debezium_signal (id text PRIMARY KEY, type text, data text);
         CREATE TABLE child () INHERITS (debezium_signal);",
        "inherits from another table, or another from it",
    ),
    ("CREATE UNLOGGED TABLE debezium_signal (id text, type text, data text);", "is unlogged"),
    (
        "CREATE TABLE debezium_signal (id text PRIMARY KEY, type text, payload text, at text);",
        "has the columns id, type, payload, at, not id, type, data",
    ),
    (
        "CREATE TABLE debezium_signal (id int PRIMARY KEY, type text, data text);",
        "has a column id that is not text",
    ),
];

/// What an end proposes, to be pasted.
fn fix(log: &str) -> &str {
    log.rsplit_once("\nfix:").expect("a fix").1.trim()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_can_not_have_signals_is_refused_with_a_fix_that_works() {
    for_oldest_and_newest(async |server| {
        let brokers = Brokers::any();
        for (table, cause) in UNFIT {
            let database = server.database().await;
            let client = database.client().await;
            client
                .batch_execute(&format!("CREATE TABLE a (id int PRIMARY KEY); {table}"))
                .await
                .expect("make tables");
            let (name, bootstrap) = (unique("unfit"), brokers.bootstrap());
            let mut bridge = Bridge::start(&name, &database.unix_url, &bootstrap, CONFIG);
            let ended = bridge.wait_until_ready(PATIENCE).expect_err(cause);
            assert_eq!(ended.status.code(), Some(69), "{cause}: {}", ended.log);
            assert!(ended.log.contains(cause), "{cause}: {}", ended.log);
            if cause.contains("not a table") {
                continue;
            }
            let fix = fix(&ended.log);
            client.batch_execute(fix).await.unwrap_or_else(|error| panic!("{fix}: {error}"));
            if fix.contains("rowcast_signals") {
                bridge.configure(&CONFIG.replace("debezium_signal", "rowcast_signals"));
            }
            bridge.start_again();
            bridge.wait_until_ready(PATIENCE).expect("with the fix it starts");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_of_a_dba_must_have_the_signal_table() {
    let database = PostgresServer::shared().database().await;
    let client = database.client().await;
    let name = unique("dba");
    let setup = format!(
        "CREATE TABLE a (id int PRIMARY KEY); {TABLE}
         CREATE PUBLICATION rowcast_{name} FOR TABLE a WITH (publish_via_partition_root);"
    );
    client.batch_execute(&setup).await.expect("make tables");
    let slot = format!("SELECT pg_create_logical_replication_slot('rowcast_{name}', 'pgoutput')");
    client.batch_execute(&slot).await.expect("make a slot");
    let brokers = Brokers::any();
    let config = CONFIG.replace("[snapshot]", "manage = false\n[snapshot]");
    let mut bridge = Bridge::start(&name, &database.unix_url, &brokers.bootstrap(), &config);
    let ended = bridge.wait_until_ready(PATIENCE).expect_err("it is not published");
    assert!(ended.log.contains("does not have the signal table"), "{}", ended.log);
    let fix = fix(&ended.log);
    client.batch_execute(fix).await.unwrap_or_else(|error| panic!("{fix}: {error}"));
    bridge.start_again();
    bridge.wait_until_ready(PATIENCE).expect("with the fix it starts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_everybody_may_write_to_or_that_is_renamed_is_reported_and_ends_nothing() {
    let open = format!("{TABLE} GRANT INSERT (data) ON debezium_signal TO PUBLIC;");
    let config = CONFIG.replace("[snapshot]", "discover_interval = \"200ms\"\n[snapshot]");
    let scene = scene_with(PostgresServer::shared(), &open, &config).await;
    let logged = async |text: &str| {
        eventually(PATIENCE, text, async || scene.bridge.log().contains(text).then_some(())).await;
    };
    logged("every role may write to the signal table").await;
    let put_in = async |times: usize| {
        let text = "signal table added to the publication";
        let count = || scene.bridge.log().matches(text).count();
        eventually(PATIENCE, text, async || (count() == times).then_some(())).await;
    };
    scene
        .client
        .batch_execute("ALTER TABLE debezium_signal RENAME TO other")
        .await
        .expect("rename");
    logged("the table public.debezium_signal, which postgres.signal_table names, does not exist")
        .await;
    // Its rows are signals still, and are in no topic.
    logged("set postgres.signal_table = ").await;
    let insert = |table: &str, id: &str| {
        format!(
            "INSERT INTO {table} VALUES ('{id}', 'snapshot', '{{\"tables\": [\"public.rides\"]}}')"
        )
    };
    scene.client.batch_execute(&insert("other", "lost")).await.expect("insert");
    scene.seen().await;
    let back = "ALTER TABLE other RENAME TO debezium_signal";
    scene.client.batch_execute(back).await.expect("rename");
    put_in(1).await;
    scene.client.batch_execute(&insert("debezium_signal", "back")).await.expect("insert");
    assert_eq!(scene.ended("back").await["state"], "done");
    assert_eq!(scene.listed().as_array().map(Vec::len), Some(1), "{}", scene.listed());
    // One that is dropped and created again comes in without a restart.
    scene
        .client
        .batch_execute(&format!("DROP TABLE debezium_signal; {TABLE}"))
        .await
        .expect("anew");
    put_in(2).await;
    scene.client.batch_execute(&insert("debezium_signal", "new")).await.expect("insert");
    assert_eq!(scene.ended("new").await["state"], "done");
    let lines = scene
        .bridge
        .log()
        .matches(
            "the table public.debezium_signal, which postgres.signal_table names, does not exist",
        )
        .count();
    assert_eq!(lines, 1, "{}", scene.bridge.log());
}
