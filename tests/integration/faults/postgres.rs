//! A server that goes away and comes back, and one that has no room.

use std::time::Duration;

use super::{all_arrive, create_table, last, metric, readyz, stop, walsender, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, connect};
use crate::support::{PATIENCE, eventually, unique};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_restarted_crashes_or_is_killed_costs_nothing() {
    let kafka = kafka_or_skip!();
    let mut server = PostgresServer::start(Binaries::newest(), &[]);
    let url = server.tcp_url("postgres");
    let client = connect(&url).await;
    create_table(&client).await;
    let (name, brokers) = (unique("restart"), kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, &url, &brokers, "", PATIENCE);
    let mut id = 0;
    for (what, end) in [
        ("a restart", PostgresServer::stop as fn(&mut PostgresServer)),
        // The slot goes back to what was on disk of it.
        ("a crash", PostgresServer::crash),
        ("a kill", PostgresServer::kill),
    ] {
        let client = connect(&url).await;
        write(&client, id + 1..=id + 1_000).await;
        id += 1_000;
        let before = metric(&bridge, "rowcast_retries_total");
        end(&mut server);
        eventually(PATIENCE, "the bridge to notice", async || {
            (metric(&bridge, "rowcast_retries_total") > before).then_some(())
        })
        .await;
        server.start_again();
        let client = connect(&url).await;
        write(&client, id + 1..=id + 100).await;
        id += 100;
        let repeats = all_arrive(&brokers, &name, &client).await;
        println!("{repeats} repeats so far, after {what}");
    }
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_was_too_slow_for_the_walsender_comes_back() {
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[("wal_sender_timeout", "1s")]);
    let database = server.database().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("slow"), kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;
    bridge.freeze();
    write(&client, 101..=200).await;
    eventually(PATIENCE, "the server to give up", async || {
        walsender(&client, &name).await.is_none().then_some(())
    })
    .await;
    bridge.thaw();
    all_arrive(&brokers, &name, &client).await;
    // All of it may have stood in the connection's buffers, before its end.
    eventually(PATIENCE, "the bridge to notice", async || {
        (metric(&bridge, "rowcast_retries_total") >= 1).then_some(())
    })
    .await;
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_free_connection_is_asked_again_and_sigterm_ends_the_waiting() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("full"), kafka.brokers());
    // The shared server's database, not the server, is full.
    let limit = |count: i32| format!("ALTER DATABASE {} CONNECTION LIMIT {count}", database.name);
    let role = unique("guest");
    client
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN REPLICATION; ALTER DATABASE {} OWNER TO {role};
             ALTER TABLE rides OWNER TO {role}",
            database.name
        ))
        .await
        .expect("make a role");
    client.batch_execute(&limit(0)).await.expect("set the limit");
    let url = database.unix_url.replace("postgres@", &format!("{role}@"));
    let mut bridge = Bridge::start(&name, &url, &brokers, "");
    readyz(&bridge, 503, "backoff: ").await;
    assert!(bridge.log().contains("53300"), "log:\n{}", bridge.log());
    // It may be between two tries or in one.
    last(Duration::from_millis(100)).await;
    stop(&mut bridge);

    bridge.start_again();
    readyz(&bridge, 503, "backoff: ").await;
    client.batch_execute(&limit(-1)).await.expect("lift the limit");
    readyz(&bridge, 200, "streaming").await;
    write(&client, 1..=10).await;
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
    let drop = format!(
        "ALTER DATABASE {} OWNER TO postgres; DROP OWNED BY {role}; DROP ROLE {role}",
        database.name
    );
    let slot = format!("SELECT pg_drop_replication_slot('rowcast_{name}')");
    client.batch_execute(&slot).await.expect("drop the slot");
    client.batch_execute(&drop).await.expect("drop the role");
}
