//! A slot whose making waits for transactions that run: named while it waits, given up together with
//! the bridge, and begun again when the line is dead.

use std::time::Duration;

use tokio_postgres::Client;

use super::{all_arrive, create_table, last, metric, readyz, stop, walsender, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::{Brokers, kafka_or_skip};
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase};
use crate::support::relay::{Line, Relay};
use crate::support::{PATIENCE, eventually, unique};

/// A server of its own, with a database and a table, and two who use it.
async fn scene() -> (PostgresServer, TestDatabase, Client, Client) {
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let (client, long) = (database.client().await, database.client().await);
    create_table(&client).await;
    (server, database, client, long)
}

/// Begins a transaction that has written, so that a new slot waits for it. Returns its process.
async fn begin(client: &Client) -> i32 {
    client.batch_execute("BEGIN; INSERT INTO rides VALUES (-4242, 1)").await.expect("write");
    client.query_one("SELECT pg_backend_pid()", &[]).await.expect("ask").get(0)
}

/// Slots that there are, and processes that make or read one.
async fn slots(client: &Client) -> (i64, i64) {
    let query = "SELECT (SELECT count(*) FROM pg_replication_slots),
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender')";
    let row = client.query_one(query, &[]).await.expect("ask");
    (row.get(0), row.get(1))
}

async fn names_what_it_waits_for(binaries: &'static Binaries, brokers: &str) {
    println!("{binaries}");
    let server = PostgresServer::start(binaries, &[("max_prepared_transactions", "2")]);
    let (database, other) = (server.database().await, server.database().await);
    let (client, long) = (database.client().await, database.client().await);
    create_table(&client).await;
    let pid = begin(&long).await;
    // A slot waits for the transactions of other databases as well.
    let half = "CREATE TABLE t (); BEGIN; INSERT INTO t DEFAULT VALUES; \
                PREPARE TRANSACTION 'half'";
    other.client().await.batch_execute(half).await.expect("prepare a transaction");
    let name = unique("waits");
    let mut bridge = Bridge::start(&name, &database.tcp_url, brokers, "");
    let by_process = format!("the transaction of server process {pid}, user \"postgres\"");
    let by_gid = "the prepared transaction \"half\", user \"postgres\"".to_owned();
    let mut left = vec![&by_process, &by_gid];
    while !left.is_empty() {
        // They are waited for one after the other, in an order that is the server's.
        let found = eventually(PATIENCE, "one of the two to be named", async || {
            let (code, body) = bridge.get("/readyz")?;
            assert_eq!(code, 503, "{body}");
            body.strip_prefix("preflight: creating the slot ")?;
            left.iter().position(|text| body.contains(*text))
        })
        .await;
        assert_eq!(metric(&bridge, "rowcast_slot_creation_waiting"), 1);
        let ended = if left.remove(found) == &by_process {
            long.batch_execute("COMMIT").await
        } else {
            other.client().await.batch_execute("COMMIT PREPARED 'half'").await
        };
        ended.expect("end the transaction");
    }
    bridge.wait_until_ready(PATIENCE).unwrap_or_else(|ended| panic!("{ended:?}"));
    let log = bridge.log();
    let told = log.lines().find(|line| line.contains("once every transaction")).expect("a line");
    for text in ["state", "begun", "s ago", "fix"] {
        assert!(told.contains(text), "no {text:?} in: {told}");
    }
    assert!(!log.contains("4242"), "a statement's values are nobody's business; log:\n{log}");
    assert_eq!(metric(&bridge, "rowcast_slot_creation_waits_total"), 1);
    assert_eq!(metric(&bridge, "rowcast_slot_creation_waiting"), 0);
    readyz(&bridge, 200, "streaming").await;
    assert_eq!(metric(&bridge, "rowcast_retries_total"), 0, "log:\n{log}");
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_a_new_slot_waits_for_is_named_while_it_does() {
    let brokers = Brokers::any().bootstrap();
    let (newest, oldest) = (Binaries::newest(), Binaries::every().last().expect("one at least"));
    names_what_it_waits_for(newest, &brokers).await;
    if oldest.major != newest.major {
        names_what_it_waits_for(oldest, &brokers).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_while_a_new_slot_waits_leaves_neither_slot_nor_walsender() {
    let brokers = Brokers::any().bootstrap();
    let (_server, database, client, long) = scene().await;
    begin(&long).await;
    let mut bridge = Bridge::start(&unique("left"), &database.tcp_url, &brokers, "");
    readyz(&bridge, 503, "waits for the transaction").await;
    assert_eq!(slots(&client).await, (1, 1));
    stop(&mut bridge);
    eventually(PATIENCE, "slot and walsender to go", async || {
        (slots(&client).await == (0, 0)).then_some(())
    })
    .await;
    long.batch_execute("COMMIT").await.expect("commit");
    assert_eq!(slots(&client).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_while_a_new_slot_waits_the_next_start_ends_what_was_left_and_waits_itself() {
    let brokers = Brokers::any().bootstrap();
    let (_server, database, client, long) = scene().await;
    begin(&long).await;
    let name = unique("killed");
    let mut bridge = Bridge::start(&name, &database.tcp_url, &brokers, "");
    readyz(&bridge, 503, "waits for the transaction").await;
    let left = walsender(&client, &name).await.expect("it makes the slot");
    bridge.kill();
    bridge.start_again();
    // The server does not look whether anyone is there while it waits.
    eventually(PATIENCE, "another walsender to make the slot", async || {
        walsender(&client, &name).await.filter(|pid| *pid != left)
    })
    .await;
    readyz(&bridge, 503, "waits for the transaction").await;
    assert_eq!(slots(&client).await, (1, 1));
    let log = bridge.log();
    assert!(
        log.contains("for a copy that is gone") && !log.contains("standby: another"),
        "log:\n{log}"
    );
    long.batch_execute("COMMIT").await.expect("commit");
    bridge.wait_until_ready(PATIENCE).unwrap_or_else(|ended| panic!("{ended:?}"));
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_waits_for_its_new_slot_is_waited_for_by_the_next() {
    let brokers = Brokers::any().bootstrap();
    let (_server, database, client, long) = scene().await;
    begin(&long).await;
    let name = unique("both");
    let mut first = Bridge::start(&name, &database.tcp_url, &brokers, "");
    readyz(&first, 503, "waits for the transaction").await;
    let maker = walsender(&client, &name).await.expect("it makes the slot");
    let mut second = Bridge::start(&name, &database.tcp_url, &brokers, "");
    let told =
        format!("is being created by server process {maker}, application \"rowcast {name}\"");
    readyz(&second, 503, &told).await;
    // Several looks of the second, and of the first.
    last(Duration::from_secs(2)).await;
    assert_eq!(walsender(&client, &name).await, Some(maker));
    long.batch_execute("COMMIT").await.expect("commit");
    readyz(&first, 200, "streaming").await;
    assert_eq!(metric(&first, "rowcast_retries_total"), 0, "log:\n{}", first.log());
    readyz(&second, 503, "is read by").await;
    stop(&mut second);
    stop(&mut first);
}

/// Starts a bridge behind a relay whose slot waits for a transaction.
async fn waiting(
    server: &PostgresServer,
    database: &TestDatabase,
    brokers: &str,
    long: &Client,
) -> (Relay, String, Bridge) {
    begin(long).await;
    let relay = Relay::to(server.port()).await;
    let url = relay.url(&database.tcp_url);
    let name = unique("dead");
    let bridge = Bridge::start(&name, &url, brokers, "[postgres]\nconnect_timeout = \"2s\"\n");
    readyz(&bridge, 503, "waits for the transaction").await;
    (relay, name, bridge)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_swallowed_while_a_new_slot_waits_is_noticed_and_the_slot_made_anew() {
    let kafka = kafka_or_skip!();
    let (server, database, client, long) = scene().await;
    let brokers = kafka.brokers();
    let (relay, name, mut bridge) = waiting(&server, &database, &brokers, &long).await;
    relay.set(Line::BlackHole);
    readyz(&bridge, 503, "backoff: ").await;
    relay.set(Line::Open);
    // The walsender that was left behind waits still, and is ended by its own.
    readyz(&bridge, 503, "waits for the transaction").await;
    eventually(PATIENCE, "the walsender that was left to go", async || {
        (slots(&client).await == (1, 1)).then_some(())
    })
    .await;
    long.batch_execute("ROLLBACK").await.expect("roll back");
    bridge.wait_until_ready(PATIENCE).unwrap_or_else(|ended| panic!("{ended:?}"));
    write(&client, 1..=100).await;
    assert_eq!(all_arrive(&brokers, &name, &client).await, 0);
    assert_eq!(slots(&client).await, (1, 1));
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_swallowed_once_a_new_slot_is_made_is_noticed() {
    let kafka = kafka_or_skip!();
    let (server, database, client, long) = scene().await;
    let brokers = kafka.brokers();
    let (relay, name, mut bridge) = waiting(&server, &database, &brokers, &long).await;
    let before = relay.swallowed();
    relay.set(Line::BlackHole);
    long.batch_execute("ROLLBACK").await.expect("roll back");
    eventually(PATIENCE, "the answer to be lost", async || {
        let query = "SELECT count(*) FROM pg_stat_activity
                     WHERE backend_type = 'walsender' AND state LIKE 'idle%'";
        let has_answered: i64 = client.query_one(query, &[]).await.expect("ask").get(0);
        (relay.swallowed() > before && has_answered == 1).then_some(())
    })
    .await;
    // Another connection is answered, so it is known that nobody works on this one.
    relay.set(Line::Open);
    bridge.wait_until_ready(PATIENCE).unwrap_or_else(|ended| panic!("{ended:?}"));
    assert_eq!(metric(&bridge, "rowcast_retries_total"), 1, "log:\n{}", bridge.log());
    write(&client, 1..=100).await;
    assert_eq!(all_arrive(&brokers, &name, &client).await, 0);
    stop(&mut bridge);
}
