//! What the bridge makes in the database by itself, what it says where it may not, and how it is
//! removed again.

use std::process::Command;

use tokio_postgres::Client;

use crate::support::bridge::{Bridge, EndedEarly};
use crate::support::kafka::Brokers;
use crate::support::postgres::{
    Binaries, PostgresServer, TestDatabase, connect, for_each_postgres,
};
use crate::support::{PATIENCE, eventually, unique};

async fn published(client: &Client, name: &str) -> Vec<String> {
    let query = "SELECT schemaname || '.' || tablename FROM pg_publication_tables
                 WHERE pubname = $1 ORDER BY 1";
    let rows = client.query(query, &[&format!("rowcast_{name}")]).await.expect("ask");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn slots(client: &Client, name: &str) -> i64 {
    let query = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
    client.query_one(query, &[&format!("rowcast_{name}")]).await.expect("ask").get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn publication_and_slot_are_made_for_the_tables_that_match() {
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute(
                "CREATE SCHEMA audit; CREATE TABLE audit.log (n int);
                 CREATE TABLE rides (id int PRIMARY KEY); CREATE TABLE zones (id int PRIMARY KEY);
                 CREATE TABLE rides_old (id int PRIMARY KEY);
                 CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY);
                 CREATE VIEW seen AS SELECT * FROM rides;
                 CREATE TABLE keyless (n int);
                 CREATE TABLE days (d date PRIMARY KEY) PARTITION BY RANGE (d);
                 CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
            )
            .await
            .expect("make tables");
        let name = unique("globs");
        let config = "[postgres]\ntables = [\"public.*\"]\nexclude_tables = [\"*.*_old\"]\n";
        let bootstrap = brokers.bootstrap();
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &bootstrap, config, PATIENCE);
        assert_eq!(published(&client, &name).await, ["public.days", "public.rides", "public.zones"]);
        assert_eq!(slots(&client, &name).await, 1);
        // Published, it would take no UPDATE any more: the bridge must not break the application.
        client.batch_execute("INSERT INTO keyless VALUES (1); UPDATE keyless SET n = 2").await.expect("update");
        assert!(bridge.log().contains("public.keyless"), "log:\n{}", bridge.log());
        assert!(bridge.terminate(PATIENCE).success());

        // A table more and a table less, seen at the next start and logged.
        client
            .batch_execute("CREATE TABLE drivers (id int PRIMARY KEY); DROP TABLE zones")
            .await
            .expect("change the tables");
        bridge.start_again();
        bridge.wait_until_ready(PATIENCE).expect("it runs");
        eventually(PATIENCE, "the new table to be published", async || {
            (published(&client, &name).await == ["public.days", "public.drivers", "public.rides"])
                .then_some(())
        })
        .await;
        assert!(bridge.log().contains("public.drivers"), "log:\n{}", bridge.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_rights_it_ends_with_the_sql_for_a_dba_and_exit_code_69() {
    let brokers = Brokers::any();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let role = unique("weak");
    client
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; CREATE TABLE rides (id int PRIMARY KEY)"
        ))
        .await
        .expect("make a role");
    let url = database.unix_url.replace("postgres@", &format!("{role}@"));
    let name = unique("rights");
    let mut bridge = Bridge::start(&name, &url, &brokers.bootstrap(), "");
    let EndedEarly { status, log } = bridge.wait_until_ready(PATIENCE).expect_err("no rights");
    assert_eq!(status.code(), Some(69), "log:\n{log}");
    assert!(log.contains(&format!("ALTER ROLE {role} REPLICATION")), "log:\n{log}");
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.expect("drop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_logical_wal_is_refused_with_the_setting() {
    let brokers = Brokers::any();
    let server = PostgresServer::start(Binaries::newest(), &[("wal_level", "replica")]);
    let url = server.unix_url("postgres");
    let name = unique("level");
    let mut bridge = Bridge::start(&name, &url, &brokers.bootstrap(), "");
    let EndedEarly { status, log } = bridge.wait_until_ready(PATIENCE).expect_err("no WAL");
    assert_eq!(status.code(), Some(69), "log:\n{log}");
    assert!(log.contains("wal_level"), "log:\n{log}");
    drop(connect(&url).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_missing_is_one_block_that_is_pasted_once_and_gives_the_least_rights() {
    const TABLES: usize = 200;
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        let role = unique("poor");
        client
            .batch_execute(&format!(
                "CREATE ROLE {role} LOGIN; CREATE SCHEMA app;
                 DO $$ BEGIN FOR n IN 1..{TABLES} LOOP
                     EXECUTE format('CREATE TABLE app.t%s (id int PRIMARY KEY)', n);
                 END LOOP; END $$"
            ))
            .await
            .expect("make tables");
        let name = unique("pasted");
        let url = database.unix_url.replace("postgres@", &format!("{role}@"));
        let bootstrap = brokers.bootstrap();
        // Each table's topic would be made one by one: its rows are none, and no topic is.
        let mut bridge = Bridge::start(&name, &url, &bootstrap, "");
        let EndedEarly { status, log } = bridge.wait_until_ready(PATIENCE).expect_err("no rights");
        assert_eq!(status.code(), Some(69), "log:\n{log}");
        let (_, block) = log.rsplit_once("\nfix:\n").expect("a block");
        assert_eq!(block.matches("CREATE PUBLICATION").count(), 1, "{block}");
        assert_eq!(block.matches("\"app\".\"t7\"").count(), 2, "to publish and to read: {block}");
        assert!(!block.contains("GRANT \"postgres\"") && !block.contains("SUPERUSER"), "{block}");
        assert!(log.len() < 64 * 1024, "{} bytes", log.len());

        client.batch_execute(block).await.expect("it is SQL as it is");
        bridge.start_again();
        bridge.wait_until_ready(PATIENCE).expect("nothing else is missing");
        assert!(bridge.terminate(PATIENCE).success());
        let is_member = "SELECT count(*) FROM pg_auth_members WHERE member = $1::text::regrole";
        let memberships: i64 = client.query_one(is_member, &[&role]).await.expect("ask").get(0);
        assert_eq!(memberships, 0);
        let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
        client.batch_execute(&drop).await.expect("drop the role");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn teardown_asks_first_and_then_drops_slot_and_publication() {
    let brokers = Brokers::any();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE rides (id int PRIMARY KEY)").await.expect("make a table");
    let name = unique("gone");
    let bootstrap = brokers.bootstrap();
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, "", PATIENCE);
    assert!(bridge.terminate(PATIENCE).success());

    let teardown = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_rowcast"))
            .args(["teardown", "--name", &name])
            .args(more)
            .env("DATABASE_URL", &database.unix_url)
            .env("KAFKA_BROKERS", &bootstrap)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("run rowcast");
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    };
    let (done, text) = teardown(&[]);
    assert!(!done, "nobody said yes: {text}");
    assert_eq!(slots(&client, &name).await, 1);

    let made = "SELECT count(*) FROM pg_publication WHERE pubname::text IN ($1, $1 || '_inserts')";
    let made = async || -> i64 {
        client.query_one(made, &[&format!("rowcast_{name}")]).await.expect("ask").get(0)
    };
    assert_eq!(made().await, 2);
    let (done, text) = teardown(&["--yes"]);
    assert!(done, "{text}");
    assert_eq!(made().await, 0);
    assert_eq!(slots(&client, &name).await, 0);
    assert_eq!(published(&client, &name).await, Vec::<String>::new());

    let (done, text) = teardown(&["--yes"]);
    assert!(done, "what is gone already is no failure: {text}");
}
