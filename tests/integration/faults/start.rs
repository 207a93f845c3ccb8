//! What a start makes of slot and checkpoint, for the rows of the table in `docs/delivery.md` that
//! take more than a restart: a slot made by hand, and what somebody does while the bridge is stopped.
//!
//! Not here: restarts (`delivery`, `exactly_once`), other servers and failovers (`decide`'s own
//! tests), and slots whose WAL was removed (`slot`).

use std::path::Path;
use std::process::Command;

use rowcast::checkpoint::{Checkpoint, Source};
use rowcast::lsn::Lsn;
use tokio_postgres::Client;

use super::{all_arrive, create_table, ends_with, last_fix, start_again, stop, write};
use crate::support::bridge::{Bridge, EndedEarly};
use crate::support::consume::{OwnedRecord, checkpoint, consume};
use crate::support::kafka::{kafka_or_skip, private_kafka_or_skip, produce};
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, confirmed};
use crate::support::{PATIENCE, unique};

async fn checkpoint_of(brokers: &str, name: &str) -> Checkpoint {
    let (brokers, name) = (brokers.to_owned(), name.to_owned());
    let reading = tokio::task::spawn_blocking(move || checkpoint(&brokers, &name));
    reading.await.expect("reading does not panic").expect("a start writes one")
}

async fn lsn(client: &Client, query: &str) -> Lsn {
    let row = client.query_one(query, &[]).await.expect("ask");
    row.get::<_, String>(0).parse().expect("an LSN as Postgres prints it")
}

/// Starts the bridge, which must end with 65, these texts in its last words, and the way on.
fn stops_with_a_gap(bridge: &mut Bridge, texts: &[&str]) {
    let before = bridge.log().len();
    bridge.start_again();
    let status = bridge.wait(PATIENCE);
    let log = bridge.log().split_off(before);
    assert_eq!(status.code(), Some(65), "log:\n{log}");
    for text in texts.iter().chain(&["postgres.on_gap = \"snapshot\"", "rowcast run --accept-gap"])
    {
        assert!(log.contains(text), "no {text:?}; log:\n{log}");
    }
}

/// A bridge that published 100 rows and was stopped, and up to where that is published.
async fn stopped_after_100(
    name: &str,
    database: &TestDatabase,
    client: &Client,
    brokers: &str,
) -> (Bridge, Lsn) {
    create_table(client).await;
    let mut bridge = Bridge::start_ready(name, &database.tcp_url, brokers, "", PATIENCE);
    write(client, 1..=100).await;
    all_arrive(brokers, name, client).await;
    stop(&mut bridge);
    (bridge, checkpoint_of(brokers, name).await.progress.through_lsn)
}

/// The gap is accepted: what was written in it never comes, all that follows does.
async fn goes_on_without_the_second_100(
    bridge: &mut Bridge,
    name: &str,
    client: &Client,
    brokers: &str,
) {
    go_on(bridge);
    write(client, 201..=300).await;
    let wanted: Vec<i64> = (1..=100).chain(201..=300).collect();
    assert_eq!(ids_up_to(brokers, name, 300).await, wanted);
    stop(bridge);
    assert_eq!(checkpoint_of(brokers, name).await.generation, 2);
}

fn go_on(bridge: &mut Bridge) {
    bridge.start_again_accepting_the_gap();
    bridge.wait_until_ready(PATIENCE).unwrap_or_else(|EndedEarly { status, log }| {
        panic!("it ended: {status}; log:\n{log}");
    });
}

/// The ids in Kafka, each once, as soon as the second version of `last` is there.
async fn ids_up_to(brokers: &str, name: &str, last: i64) -> Vec<i64> {
    let id_of = |record: &OwnedRecord| {
        let after = &record.json().expect("nothing is deleted")["after"];
        (after["id"].as_i64().expect("a number"), after["version"].as_i64().expect("a number"))
    };
    let mut read = 0;
    let enough = move |records: &[OwnedRecord]| {
        let is_there = records[read..].iter().any(|record| id_of(record) == (last, 2));
        read = records.len();
        is_there
    };
    let records = consume(brokers, &[&format!("{name}.public.rides")], enough, PATIENCE).await;
    let mut ids: Vec<i64> = records.iter().map(|record| id_of(record).0).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_there_before_is_adopted_with_all_that_it_holds() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("adopted"), kafka.brokers());
    let publish = format!("CREATE PUBLICATION rowcast_{name} FOR TABLE rides");
    client.batch_execute(&publish).await.expect("make a publication");
    let make = format!("SELECT pg_create_logical_replication_slot('rowcast_{name}', 'pgoutput')");
    client.batch_execute(&make).await.expect("make a slot");
    let confirmed = confirmed(&client, &name).await.expect("a slot");
    write(&client, 1..=100).await;
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
    write(&client, 101..=200).await;
    assert_eq!(all_arrive(&brokers, &name, &client).await, 0);
    let log = bridge.log();
    let told = log.lines().find(|line| line.contains("slot adopted")).expect("it says so");
    assert!(told.contains(&confirmed.to_string()), "no {confirmed} in: {told}");
    stop(&mut bridge);
    let Checkpoint { generation, progress, .. } = checkpoint_of(&brokers, &name).await;
    assert_eq!(generation, 1);
    assert!(progress.position.commit_lsn > confirmed, "{progress:?}");
    // From now on it is the bridge's own.
    start_again(&mut bridge);
    write(&client, 201..=300).await;
    assert_eq!(all_arrive(&brokers, &name, &client).await, 0);
    assert_eq!(bridge.log().matches("slot adopted").count(), 1);
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_somebody_else_confirmed_stops_the_start_until_the_gap_is_accepted() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let (name, brokers) = (unique("ahead"), kafka.brokers());
    let (mut bridge, published) = stopped_after_100(&name, &database, &client, &brokers).await;
    write(&client, 101..=200).await;
    let advance = format!(
        "SELECT end_lsn::text FROM pg_replication_slot_advance('rowcast_{name}', \
         pg_current_wal_lsn())"
    );
    let confirmed = lsn(&client, &advance).await;
    let range = format!("changes from {published} to {confirmed} were never published");
    for _ in 0..2 {
        stops_with_a_gap(&mut bridge, &[&range, "by somebody else"]);
    }
    assert_eq!(checkpoint_of(&brokers, &name).await.generation, 1, "nothing is written before");

    goes_on_without_the_second_100(&mut bridge, &name, &client, &brokers).await;
    start_again(&mut bridge);
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_dropped_between_two_runs_stops_the_start_until_the_gap_is_accepted() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let (name, brokers) = (unique("absent"), kafka.brokers());
    let (mut bridge, published) = stopped_after_100(&name, &database, &client, &brokers).await;
    let drop = format!("SELECT pg_drop_replication_slot('rowcast_{name}')");
    client.batch_execute(&drop).await.expect("drop the slot");
    write(&client, 101..=200).await;
    let range = format!("changes since {published} were never published and can't be read any");
    for _ in 0..2 {
        // A slot that the first try made would let the second one pass.
        stops_with_a_gap(&mut bridge, &[&range, "does not exist", "from a new slot"]);
    }

    goes_on_without_the_second_100(&mut bridge, &name, &client, &brokers).await;
    start_again(&mut bridge);
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_without_a_topic_of_ours_stops_a_start_from_a_slot_that_was_read_before() {
    let (kafka, other) = (kafka_or_skip!(), private_kafka_or_skip!());
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let (name, brokers) = (unique("moved"), kafka.brokers());
    let (mut bridge, _) = stopped_after_100(&name, &database, &client, &brokers).await;
    let held = confirmed(&client, &name).await;
    let mut moved = Bridge::start(&name, &database.tcp_url, &other.brokers(), "");
    assert_eq!(moved.wait(PATIENCE).code(), Some(65), "log:\n{}", moved.log());
    let fix = last_fix(&moved.log());
    for way in ["postgres.on_gap = \"snapshot\"", "rowcast run --accept-gap", "topics.checkpoints"]
    {
        assert!(fix.contains(way), "no {way:?} in: {fix}");
    }
    assert_eq!(confirmed(&client, &name).await, held, "the slot is as it was");

    // Where there are topics of ours, as Debezium's, it is an adoption.
    bridge.configure(&format!("[topics]\ncheckpoints = \"{name}.other\"\n"));
    start_again(&mut bridge);
    assert!(bridge.log().contains("slot adopted"), "log:\n{}", bridge.log());
    write(&client, 101..=200).await;
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);

    moved.configure("[postgres]\non_gap = \"snapshot\"\n");
    start_again(&mut moved);
    all_arrive(&other.brokers(), &name, &client).await;
    stop(&mut moved);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_can_not_be_read_is_put_aside_and_the_slot_keeps_what_it_holds() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let (name, brokers) = (unique("garbage"), kafka.brokers());
    let (mut bridge, _) = stopped_after_100(&name, &database, &client, &brokers).await;
    produce(&brokers, "rowcast.checkpoints", &[(&name, "no checkpoint")]).await;
    write(&client, 101..=200).await;
    bridge.start_again();
    ends_with(&mut bridge, "can't be used", "rowcast run --accept-gap").await;
    assert!(!last_fix(&bridge.log()).contains("teardown"), "log:\n{}", bridge.log());

    go_on(&mut bridge);
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
    start_again(&mut bridge);
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_another_cluster_does_not_cost_the_slot_what_it_holds() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let (name, brokers) = (unique("upgraded"), kafka.brokers());
    let (mut bridge, _) = stopped_after_100(&name, &database, &client, &brokers).await;
    let other = Checkpoint {
        source: Source {
            system_identifier: "7".to_owned(),
            ..checkpoint_of(&brokers, &name).await.source
        },
        ..checkpoint_of(&brokers, &name).await
    };
    let mut written = Vec::new();
    other.write(&mut written);
    let written = String::from_utf8(written).expect("JSON");
    produce(&brokers, "rowcast.checkpoints", &[(&name, &written)]).await;
    write(&client, 101..=200).await;
    stops_with_a_gap(&mut bridge, &["another pipeline of the same name"]);
    let fix = last_fix(&bridge.log());
    let accept = fix.find("rowcast run --accept-gap").expect("it was there");
    assert!(fix.find("on_gap").is_some_and(|snapshot| accept < snapshot), "{fix}");

    go_on(&mut bridge);
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("run cp");
    assert!(copied.success(), "{copied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_set_back_stops_the_start_until_the_gap_is_accepted() {
    let kafka = kafka_or_skip!();
    let mut server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    create_table(&database.client().await).await;
    let (name, brokers) = (unique("back"), kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
    write(&database.client().await, 1..=100).await;
    all_arrive(&brokers, &name, &database.client().await).await;
    stop(&mut bridge);
    let (data, backup) = (server.data_dir(), server.data_dir().with_file_name("backup"));
    server.stop();
    copy(&data, &backup);
    server.start_again();
    start_again(&mut bridge);
    write(&database.client().await, 101..=500).await;
    all_arrive(&brokers, &name, &database.client().await).await;
    stop(&mut bridge);
    let published = checkpoint_of(&brokers, &name).await.progress.highest_lsn();

    server.stop();
    std::fs::remove_dir_all(&data).expect("remove the data directory");
    copy(&backup, &data);
    server.start_again();
    let range = format!("changes up to {published} were published, and the server's WAL ends at ");
    stops_with_a_gap(&mut bridge, &[&range, "set back", "compare the tables"]);
    go_on(&mut bridge);
    write(&database.client().await, 1_001..=1_100).await;
    let wanted: Vec<i64> = (1..=500).chain(1_001..=1_100).collect();
    assert_eq!(ids_up_to(&brokers, &name, 1_100).await, wanted);
    stop(&mut bridge);
    start_again(&mut bridge);
    stop(&mut bridge);
}
