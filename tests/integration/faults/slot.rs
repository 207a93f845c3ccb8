//! What the bridge needs in the database is taken from it while it streams: it ends with the fix, because what was written meanwhile can't be read any more, or it may not read it.

use super::{all_arrive, create_table, ends_with, start_again, stop, walsender, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, for_each_postgres};
use crate::support::{PATIENCE, eventually, report_skipped, unique};

/// Ends the walsender while the bridge stands still, so that something can be done to its slot.
async fn cut(bridge: &Bridge, client: &tokio_postgres::Client, name: &str) {
    bridge.freeze();
    let pid = walsender(client, name).await.expect("it streams");
    client.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.expect("end it");
    eventually(PATIENCE, "the slot to be free", async || {
        walsender(client, name).await.is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_dropped_while_it_is_read_ends_the_bridge_instead_of_a_silent_gap() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("dropped"), kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;
    cut(&bridge, &client, &name).await;
    let drop = format!("SELECT pg_drop_replication_slot('rowcast_{name}')");
    client.batch_execute(&drop).await.expect("drop the slot");
    write(&client, 101..=200).await;
    bridge.thaw();
    ends_with(&mut bridge, "is gone", "rowcast run --accept-gap").await;
    let left =
        client.query("SELECT FROM pg_replication_slots WHERE database = current_database()", &[]);
    assert_eq!(left.await.expect("ask").len(), 0, "no slot was made in its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_the_server_invalidates_while_it_is_read_ends_the_bridge_with_the_fix() {
    let kafka = kafka_or_skip!();
    let settings =
        [("max_slot_wal_keep_size", "1MB"), ("min_wal_size", "32MB"), ("max_wal_size", "48MB")];
    let server = PostgresServer::start(Binaries::newest(), &settings);
    let database = server.database().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("lost"), kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;
    bridge.freeze();
    let lost = "SELECT wal_status FROM pg_replication_slots";
    eventually(PATIENCE, "the server to give up on the slot", async || {
        let switch = "INSERT INTO rides SELECT max(id) + 1, 1 FROM rides; SELECT pg_switch_wal(); CHECKPOINT";
        for statement in switch.split("; ") {
            client.batch_execute(statement).await.expect("write WAL");
        }
        let status: String = client.query_one(lost, &[]).await.expect("ask").get(0);
        (status == "lost").then_some(())
    })
    .await;
    bridge.thaw();
    // What is missing is told by the checkpoint, with the exit code of its own.
    let status = bridge.wait(PATIENCE);
    let log = bridge.log();
    assert_eq!(status.code(), Some(65), "log:\n{log}");
    for text in ["were never published", "raise max_slot_wal_keep_size"] {
        assert!(log.contains(text), "no {text:?}; log:\n{log}");
    }
    let (_, fix) = log.rsplit_once("fix: ").expect("a fix");
    let ways = ["postgres.on_gap = \"snapshot\"", "rowcast run --accept-gap"];
    assert!(ways.map(|way| fix.find(way).expect(way)).is_sorted(), "the safe way first: {fix}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_dropped_while_it_streams_ends_the_bridge_on_every_version() {
    let kafka = kafka_or_skip!();
    // From 18 on the server only warns, and leaves the rows out.
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        create_table(&client).await;
        let (name, brokers) = (unique("unpublished"), kafka.brokers());
        let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
        write(&client, 1..=100).await;
        all_arrive(&brokers, &name, &client).await;
        let drop = format!("DROP PUBLICATION rowcast_{name}");
        client.batch_execute(&drop).await.expect("drop the publication");
        write(&client, 101..=200).await;
        ends_with(&mut bridge, "a publication does not exist", "rowcast teardown").await;
        // Made again by the next start, it still does not hold for what was written without it.
        bridge.start_again();
        ends_with(&mut bridge, "a publication does not exist", "rowcast teardown").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_revoked_while_it_streams_ends_the_bridge_until_it_is_given_back() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("revoked"), kafka.brokers());
    let role = unique("reader");
    let run = async |sql: &str| client.batch_execute(sql).await.expect(sql);
    run(&format!("CREATE ROLE {role} LOGIN REPLICATION")).await;
    run(&format!(
        "GRANT CREATE ON DATABASE {} TO {role}; ALTER TABLE rides OWNER TO {role}",
        database.name
    ))
    .await;
    let url = database.unix_url.replace("postgres@", &format!("{role}@"));
    let mut bridge = Bridge::start_ready(&name, &url, &brokers, "", PATIENCE);
    write(&client, 1..=100).await;
    for (revoke, grant, error, fix) in [
        ("NOREPLICATION", "REPLICATION", "may not replicate", "ALTER ROLE"),
        ("NOLOGIN", "LOGIN", "28000", "check user and password"),
    ] {
        cut(&bridge, &client, &name).await;
        run(&format!("ALTER ROLE {role} {revoke}")).await;
        bridge.thaw();
        ends_with(&mut bridge, error, fix).await;
        run(&format!("ALTER ROLE {role} {grant}")).await;
        start_again(&mut bridge);
    }
    write(&client, 101..=200).await;
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
    run(&format!("SELECT pg_drop_replication_slot('rowcast_{name}')")).await;
    run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_invalidated_for_being_idle_is_told_as_that() {
    let kafka = kafka_or_skip!();
    if Binaries::newest().major < 18 {
        return report_skipped(module_path!(), "no server here gives up on idle slots");
    }
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("idle"), kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
    stop(&mut bridge);
    let limit = "ALTER SYSTEM SET idle_replication_slot_timeout = '1s'";
    client.batch_execute(limit).await.expect("set it");
    client.batch_execute("SELECT pg_reload_conf()").await.expect("reload");
    eventually(PATIENCE, "the slot to be invalidated", async || {
        client.batch_execute("CHECKPOINT").await.expect("checkpoint");
        let query = "SELECT invalidation_reason FROM pg_replication_slots";
        let row = client.query_one(query, &[]).await.expect("ask");
        row.get::<_, Option<String>>(0)
    })
    .await;
    bridge.start_again();
    assert_eq!(bridge.wait(PATIENCE).code(), Some(65), "log:\n{}", bridge.log());
    let log = bridge.log();
    assert!(log.contains("raise idle_replication_slot_timeout"), "log:\n{log}");
    assert!(!log.contains("max_slot_wal_keep_size"), "log:\n{log}");
}
