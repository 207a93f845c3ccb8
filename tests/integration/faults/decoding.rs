//! What the server reports while it decodes: a file that is away for a while, a WAL segment that was
//! removed, a row that is too large to be sent. Each is judged by what it is, not by its code.

use tokio_postgres::Client;

use super::{all_arrive, create_table, ends_with, last_fix, readyz, start_again, stop, write};
use crate::support::bridge::{Bridge, EndedEarly};
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, confirmed, wal_end};
use crate::support::{PATIENCE, eventually, unique};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_away_while_the_server_decodes_heals_from_the_same_position() {
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("away"), kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;

    let snapshots = server.data_dir().join("pg_logical/snapshots");
    let away = snapshots.with_file_name("away");
    std::fs::rename(&snapshots, &away).expect("take the folder away");
    eventually(PATIENCE, "the server to miss its file", async || {
        // A walsender keeps its snapshot at each of these.
        let logged = client.batch_execute("SELECT pg_log_standby_snapshot()").await;
        logged.expect("write WAL");
        bridge.log().contains("could not open file").then_some(())
    })
    .await;
    write(&client, 101..=200).await;
    readyz(&bridge, 503, "pg_logical/snapshots").await;
    let held = confirmed(&client, &name).await;
    std::fs::rename(&away, &snapshots).expect("bring the folder back");

    assert_eq!(all_arrive(&brokers, &name, &client).await, 0);
    readyz(&bridge, 200, "streaming").await;
    assert!(confirmed(&client, &name).await >= held);
    let log = bridge.log();
    assert!(!log.contains("--accept-gap") && !log.contains("on_gap"), "log:\n{log}");
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wal_segment_that_is_removed_ends_with_the_gap_and_a_snapshot_fixes_it() {
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("segment"), kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
    let needed = "SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots";
    let needed: String = client.query_one(needed, &[]).await.expect("ask").get(0);
    write(&client, 101..=200).await;
    client.batch_execute("SELECT pg_switch_wal()").await.expect("begin a segment");
    client.batch_execute("CHECKPOINT").await.expect("leave the segment before");
    std::fs::remove_file(server.data_dir().join("pg_wal").join(needed)).expect("remove it");

    bridge.start_again();
    assert_eq!(bridge.wait(PATIENCE).code(), Some(65), "log:\n{}", bridge.log());
    let fix = last_fix(&bridge.log());
    let snapshot = fix.find("postgres.on_gap = \"snapshot\"").expect("it names the snapshot");
    assert!(fix.find("--accept-gap").is_some_and(|accept| accept > snapshot), "{fix}");
    let slot = "SELECT FROM pg_replication_slots";
    assert_eq!(client.query(slot, &[]).await.expect("ask").len(), 1, "it is left as it was");

    bridge.configure("[postgres]\non_gap = \"snapshot\"\n");
    start_again(&mut bridge);
    write(&client, 201..=300).await;
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_that_is_damaged_is_tried_for_half_a_minute_and_ends_with_its_position_and_the_ways_on()
{
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("damaged"), kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
    let from = "SELECT file_name, file_offset
                FROM pg_walfile_name_offset(pg_current_wal_insert_lsn())";
    let row = client.query_one(from, &[]).await.expect("ask");
    let (file, offset): (String, i32) = (row.get(0), row.get(1));
    write(&client, 101..=200).await;
    // Some records behind, whichever they are: a page may begin there.
    let file = server.data_dir().join("pg_wal").join(file);
    let file = std::fs::OpenOptions::new().write(true).open(file).expect("open the segment");
    let at = u64::try_from(offset).expect("positive") + 200;
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 64], at).expect("damage it");

    bridge.start_again();
    eventually(PATIENCE, "the third failure alike", async || {
        bridge
            .log()
            .contains("the server fails with the same error at the same position")
            .then_some(())
    })
    .await;
    let log = bridge.log();
    let told = log
        .lines()
        .find(|line| line.contains("the same error at the same position"))
        .expect("a line");
    for text in ["XX000", "can't decode what follows ", "minor release", "rowcast teardown"] {
        assert!(told.contains(text), "no {text:?} in: {told}");
    }
    let status = bridge.wait(3 * PATIENCE);
    let log = bridge.log();
    assert_eq!(status.code(), Some(69), "log:\n{log}");
    let (_, last) = log.rsplit_once("\nerror: ").expect("its last words");
    for text in
        ["can't decode what follows ", "it failed in the same way each time", "rowcast teardown"]
    {
        assert!(last.contains(text), "no {text:?} in: {last}");
    }
    assert!(!log.contains("--accept-gap"), "log:\n{log}");
    assert!(confirmed(&client, &name).await.is_some(), "the slot holds what it held");
}

/// Inserts a row whose `bytea` is more than a gigabyte as text.
async fn write_too_large(client: &Client) {
    let insert = "INSERT INTO files SELECT 2, convert_to(repeat('x', 540 * 1024 * 1024), 'UTF8')";
    client.batch_execute(insert).await.expect("insert");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_large_for_the_server_to_send_ends_with_its_position_and_the_way_on() {
    let kafka = kafka_or_skip!();
    let every = Binaries::every();
    for binaries in [every.first(), every.last()].into_iter().flatten() {
        // Its own, as a slot elsewhere on the server would wait for the insert.
        let server = PostgresServer::start(binaries, &[]);
        let database = server.database().await;
        let client = database.client().await;
        create_table(&client).await;
        let create = "CREATE TABLE files (id int PRIMARY KEY, content bytea)";
        client.batch_execute(create).await.expect("make a table");
        pass_over_a_row_that_is_too_large(&database, &client, &kafka.brokers()).await;
        read_without_what_is_too_large(&database, &kafka.brokers()).await;
    }
}

/// The stream ends at the row. As the fix says, nothing but its transaction is left out.
async fn pass_over_a_row_that_is_too_large(
    database: &TestDatabase,
    client: &Client,
    brokers: &str,
) {
    let name = unique("huge");
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, brokers, "", PATIENCE);
    write(client, 1..=100).await;
    write_too_large(client).await;
    let end = wal_end(client).await;
    write(client, 101..=200).await;
    ends_with(&mut bridge, "more than 1 GB", "pg_replication_slot_advance").await;
    let fix = last_fix(&bridge.log());
    assert!(fix.contains("exclude_columns"), "{fix}");
    let skip = fix.lines().find(|line| line.contains("pg_replication_slot_advance"));
    client.batch_execute(skip.expect("it was there")).await.expect("it runs as printed");
    let at = confirmed(client, &name).await.expect("a slot");
    assert!(at <= end, "{at} is beyond {end}");
    bridge.start_again_accepting_the_gap();
    bridge.wait_until_ready(PATIENCE).unwrap_or_else(|EndedEarly { status, log }| {
        panic!("it ended: {status}; log:\n{log}");
    });
    all_arrive(brokers, &name, client).await;
    stop(&mut bridge);
}

/// A first snapshot ends at the row, and is taken once the column is left out.
async fn read_without_what_is_too_large(database: &TestDatabase, brokers: &str) {
    let mut bridge = Bridge::start(&unique("unread"), &database.tcp_url, brokers, "");
    ends_with(&mut bridge, "more than 1 GB", "exclude_columns").await;
    bridge.configure("[tables.\"public.files\"]\nexclude_columns = [\"content\"]\n");
    start_again(&mut bridge);
    stop(&mut bridge);
}
