//! What the slot holds back is told; above its limit the slot goes, so that the database lives on.

use serde_json::Value;
use tokio_postgres::Client;

use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, at_least, consume};
use crate::support::kafka::{Brokers, private_kafka_or_skip};
use crate::support::postgres::{Binaries, PostgresServer, for_each_postgres};
use crate::support::{PATIENCE, eventually, report_skipped, unique};

/// A little beside a minute: the guard looks every ten seconds, and a session may take its time.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(90);

async fn retained(client: &Client) -> Option<i64> {
    let query = "SELECT (pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots
                 WHERE database = current_database()";
    client.query_opt(query, &[]).await.expect("ask").map(|row| row.get(0))
}

fn status(bridge: &Bridge) -> Option<Value> {
    let (_, page) = bridge.get("/status")?;
    serde_json::from_str(&page).ok()
}

/// Writes so many megabytes of WAL that no slot of ours decodes.
async fn write_wal(client: &Client, megabytes: u32) {
    let write = "SELECT pg_logical_emit_message(false, 'filler', repeat('x', 1024 * 1024))";
    for _ in 0..megabytes {
        client.query_one(write, &[]).await.expect("write");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_slot_holds_is_told_with_the_room_that_is_left() {
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let name = unique("held");
        let bootstrap = brokers.bootstrap();
        let config = "[postgres]\nslot_wal_limit = \"4GB\"\n";
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &bootstrap, config, PATIENCE);
        let wal = eventually(PATIENCE, "the first look after the slot was made", async || {
            let status = status(&bridge)?;
            status["slot_wal"].is_object().then(|| status["slot_wal"].clone())
        })
        .await;
        assert_eq!(wal["status"], "reserved");
        let held = wal["retained_bytes"].as_u64().expect("a number");
        let rooms = wal["room"].as_array().expect("a list");
        let limit = rooms.iter().find(|room| room["bound"] == "slot_wal_limit").expect("it is set");
        assert_eq!(limit["bytes"].as_u64(), Some((4 << 30) - held));
        // `max_slot_wal_keep_size` is not set. Whoever started the server may read its folder.
        assert!(rooms.iter().all(|room| room["bound"] != "max_slot_wal_keep_size"), "{wal}");
        assert!(rooms.iter().any(|room| room["bound"] == "disk"), "{wal}");
        let (_, metrics) = bridge.get("/metrics").expect("metrics");
        for name in
            ["rowcast_slot_retained_bytes ", "rowcast_slot_room_bytes{bound=\"slot_wal_limit\"} "]
        {
            assert!(metrics.contains(name), "{metrics}");
        }
        assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_above_its_limit_is_dropped_while_kafka_stands_still_and_the_database_lives_on() {
    let kafka = private_kafka_or_skip!();
    let server = PostgresServer::start(
        Binaries::newest(),
        &[("max_slot_wal_keep_size", "1GB"), ("min_wal_size", "32MB"), ("max_wal_size", "64MB")],
    );
    let database = server.database().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE rides (id int PRIMARY KEY)").await.expect("make a table");
    let name = unique("dropped");
    let config = "memory = \"8MB\"\n[postgres]\nslot_wal_limit = \"64MB\"\n\
                  [kafka]\ndrain_timeout = \"1s\"\n";
    let brokers = kafka.brokers();
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, config, PATIENCE);
    client.batch_execute("INSERT INTO rides VALUES (1)").await.expect("write");
    consume(&brokers, &[&format!("{name}.public.rides")], at_least(1), PATIENCE).await;
    kafka.freeze();
    client.batch_execute("INSERT INTO rides VALUES (2)").await.expect("write");
    write_wal(&client, 100).await;
    assert_eq!(bridge.wait(LIMIT).code(), Some(65), "log:\n{}", bridge.log());

    let log = bridge.log();
    let line = log.lines().find(|line| line.contains("ERROR")).expect("it says so loudly");
    for text in ["slot_wal_limit", "was dropped", "64MB", "not published"] {
        assert!(line.contains(text), "{text} in: {line}");
    }
    assert_eq!(retained(&client).await, None, "the slot is gone");
    client.batch_execute("CHECKPOINT; INSERT INTO rides VALUES (3)").await.expect("it lives on");
    kafka.thaw();

    // Nobody can overlook it: the next start says what is missing, as often as it is tried.
    bridge.start_again();
    assert_eq!(bridge.wait(PATIENCE).code(), Some(65), "log:\n{}", bridge.log());
    let log = bridge.log();
    for text in ["were never published and can't be read any more", "rowcast run --accept-gap"] {
        assert!(log.contains(text), "no {text:?}; log:\n{log}");
    }
    assert_eq!(retained(&client).await, None, "no slot is made in its place");
    bridge.start_again_accepting_the_gap();
    bridge.wait_until_ready(PATIENCE).expect("it streams");
    client.batch_execute("INSERT INTO rides VALUES (4)").await.expect("write");
    let is_last = |records: &[OwnedRecord]| {
        records.iter().any(|record| record.key_text().is_some_and(|key| key.contains('4')))
    };
    consume(&brokers, &[&format!("{name}.public.rides")], is_last, PATIENCE).await;
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_above_its_limit_is_dropped_while_no_broker_answers() {
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    let name = unique("unreached");
    let slot = format!("rowcast_{name}");
    let make = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')::text";
    client.query_one(make, &[&slot]).await.expect("make a slot");
    let config = "[postgres]\nslot_wal_limit = \"32MB\"\n";
    let mut bridge = Bridge::start(&name, &database.unix_url, "127.0.0.1:1", config);
    eventually(PATIENCE, "the first look", async || {
        status(&bridge).filter(|status| status["slot_wal"].is_object())
    })
    .await;
    write_wal(&client, 50).await;
    assert_eq!(bridge.wait(LIMIT).code(), Some(65), "log:\n{}", bridge.log());
    assert_eq!(retained(&client).await, None, "the slot is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_limit_the_slot_stays_and_what_bounds_it_is_warned_of() {
    let server = PostgresServer::start(
        Binaries::newest(),
        &[("max_slot_wal_keep_size", "128MB"), ("min_wal_size", "32MB")],
    );
    let database = server.database().await;
    let client = database.client().await;
    let name = unique("warned");
    let slot = format!("rowcast_{name}");
    let make = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')::text";
    client.query_one(make, &[&slot]).await.expect("make a slot");
    write_wal(&client, 90).await;
    let mut bridge = Bridge::start(&name, &database.unix_url, "127.0.0.1:1", "");
    let warning = eventually(PATIENCE, "a warning", async || {
        let log = bridge.log();
        log.lines().find(|line| line.contains("holds back much WAL")).map(str::to_owned)
    })
    .await;
    assert!(warning.contains("WARN") && warning.contains("max_slot_wal_keep_size"), "{warning}");
    assert!(retained(&client).await.is_some(), "it is the server's to give up");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_is_warned_of_before_the_server_stops_for_want_of_it() {
    const MEGABYTES: u64 = 48;
    let settings = [("min_wal_size", "2MB"), ("max_wal_size", "4MB")];
    let disk = u32::try_from(MEGABYTES).expect("small");
    let server = PostgresServer::start_with_wal_on_small_disk(Binaries::newest(), &settings, disk);
    let Some(server) = server else {
        return report_skipped(module_path!(), "a disk can't be mounted by this user");
    };
    let database = server.database().await;
    let client = database.client().await;
    let name = unique("disk");
    let slot = format!("rowcast_{name}");
    let make = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')::text";
    client.query_one(make, &[&slot]).await.expect("make a slot");
    let mut bridge = Bridge::start(&name, &database.unix_url, "127.0.0.1:1", "");
    let room = async |at_most: u64| {
        eventually(PATIENCE, "the room on the disk to be told", async || {
            let status = status(&bridge)?;
            let rooms = status["slot_wal"]["room"].as_array()?.clone();
            let disk = rooms.iter().find(|room| room["bound"] == "disk").expect("it is near");
            disk["bytes"].as_u64().filter(|&bytes| bytes <= at_most << 20)
        })
        .await
    };
    let whole = room(MEGABYTES).await;
    assert!(whole > (MEGABYTES / 2) << 20, "{whole} bytes");
    assert!(!bridge.log().contains("WAL back"), "log:\n{}", bridge.log());
    write_wal(&client, 40).await;
    room(MEGABYTES / 5).await;
    let warning = eventually(PATIENCE, "a warning", async || {
        let log = bridge.log();
        let text = "the slot is about to exceed its WAL bound";
        log.lines().find(|line| line.contains(text)).map(str::to_owned)
    })
    .await;
    for part in ["WARN", "room_of=\"disk\"", "the server stops when the disk is full"] {
        assert!(warning.contains(part), "no {part} in: {warning}");
    }
    client.batch_execute("CREATE TABLE lives (id int)").await.expect("the server lives");
    assert!(retained(&client).await.is_some(), "the slot is the operator's to give up");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_above_its_limit_is_dropped_in_a_first_snapshot_and_while_it_is_made() {
    const SLOW: &str =
        "[tables.\"public.rides\"]\nsnapshot_where = \"pg_sleep(600) IS NOT NULL\"\n";
    let brokers = Brokers::any().bootstrap();
    let server = PostgresServer::start(
        Binaries::newest(),
        &[("max_slot_wal_keep_size", "1GB"), ("min_wal_size", "32MB"), ("max_wal_size", "64MB")],
    );
    let (held, waiting) = (server.database().await, server.database().await);
    let config = "[postgres]\nslot_wal_limit = \"64MB\"\n[kafka]\ndrain_timeout = \"1s\"\n";
    let mut bridges = Vec::new();
    let client = held.client().await;
    let long = waiting.client().await;
    for (database, more, state) in
        [(&held, SLOW, "snapshot"), (&waiting, "", "preflight: creating the slot")]
    {
        let sql = "CREATE TABLE rides (id int PRIMARY KEY); INSERT INTO rides VALUES (1)";
        database.client().await.batch_execute(sql).await.expect("make a table");
        if more.is_empty() {
            long.batch_execute("BEGIN; INSERT INTO rides VALUES (2)").await.expect("write");
        }
        let config = format!("{config}{more}");
        let name = unique("held");
        let bridge = Bridge::start(&name, &database.tcp_url, &brokers, &config);
        eventually(PATIENCE, "the state", async || {
            bridge.get("/readyz").filter(|(_, body)| body.starts_with(state))
        })
        .await;
        bridges.push(bridge);
    }
    write_wal(&client, 100).await;
    for mut bridge in bridges {
        assert_eq!(bridge.wait(LIMIT).code(), Some(65), "log:\n{}", bridge.log());
        assert!(bridge.log().contains("slot_wal_limit"), "log:\n{}", bridge.log());
    }
    eventually(PATIENCE, "the slots to be gone", async || {
        let count = "SELECT count(*) FROM pg_replication_slots";
        (client.query_one(count, &[]).await.expect("ask").get::<_, i64>(0) == 0).then_some(())
    })
    .await;
}
