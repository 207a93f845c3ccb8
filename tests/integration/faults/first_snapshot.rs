//! A first snapshot that takes its time, whose broker stands still, or whose server is out of reach:
//! each is told for what it is, and all rows come.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::{metric, readyz, stop};
use crate::support::bridge::Bridge;
use crate::support::consume::{RecordReader, at_least, consume};
use crate::support::kafka::{KafkaNode, kafka_or_skip};
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, for_each_postgres};
use crate::support::relay::{Line, Relay};
use crate::support::{PATIENCE, eventually, report_skipped, unique};

/// Rows of the table, of which a page has one or two.
const ROWS: i64 = 4_000;

/// Ten seconds without an answer, and as long as the server may take to say whether it works on it
/// (`docs/faults.md`); twice that on a busy machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(2 * (10 + 2));

async fn fill(client: &Client) {
    let fill = format!(
        "CREATE TABLE rides (id int PRIMARY KEY, note text);
         ALTER TABLE rides ALTER note SET STORAGE PLAIN;
         CREATE TABLE busy (id int);
         INSERT INTO rides SELECT n, repeat('n', 4500) FROM generate_series(1, {ROWS}) n"
    );
    client.batch_execute(&fill).await.expect("fill the table");
}

/// Waits until some rows of the snapshot are read, and others are not.
async fn wait_for_the_middle(bridge: &Bridge) {
    eventually(PATIENCE, "the snapshot to be under way", async || {
        bridge.get("/metrics")?;
        let read = metric(bridge, "rowcast_snapshot_rows_total");
        assert!(read < 9 * ROWS.unsigned_abs() / 10, "it is over already: {read}");
        (read > 0).then_some(())
    })
    .await;
}

/// Waits until each row is in the topic.
async fn all_rows_come(brokers: &str, name: &str) {
    rows_come(brokers, &format!("{name}.public.rides"), ROWS).await;
}

/// Waits until so many keys are in the topic.
async fn rows_come(brokers: &str, topic: &str, rows: i64) {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let mut reader = RecordReader::open(&brokers, &[&topic], PATIENCE);
        let (mut seen, mut read) = (BTreeSet::new(), 0);
        reader.until(
            |records| {
                seen.extend(records[read..].iter().filter_map(|record| record.key.clone()));
                read = records.len();
                seen.len() >= usize::try_from(rows).expect("a count")
            },
            PATIENCE,
        );
    });
    reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_reads_for_longer_than_every_limit_is_no_stall() {
    const CONFIG: &str = "
        [watchdog]\nsource_stalled_after = \"500ms\"\nkafka_stalled_after = \"500ms\"\n
        server_silent_after = \"2s\"\n
        [tables.\"public.rides\"]\nsnapshot_where = \"id > 1 OR pg_sleep(5) IS NULL\"\n";
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[("wal_sender_timeout", "1s")]);
    let database = server.database().await;
    let client = database.client().await;
    let setup = "CREATE TABLE rides (id int PRIMARY KEY); CREATE TABLE busy (id int);
                 INSERT INTO rides VALUES (1)";
    client.batch_execute(setup).await.expect("make tables");
    let (name, brokers) = (unique("long"), kafka.brokers());
    let mut bridge = Bridge::start(&name, &database.tcp_url, &brokers, CONFIG);
    readyz(&bridge, 503, "snapshot").await;
    let started = Instant::now();
    // The WAL goes on all the while, as the stream does not.
    let write = "INSERT INTO busy SELECT generate_series(1, 1000)";
    eventually(PATIENCE, "the rows to be read", async || {
        client.batch_execute(write).await.expect("write");
        let (code, body) = bridge.get("/readyz")?;
        assert!(code == 200 || body.starts_with("snapshot"), "{code} {body:?}");
        (code == 200).then_some(())
    })
    .await;
    assert!(started.elapsed() > Duration::from_secs(3), "it took {:?}", started.elapsed());
    let log = bridge.log();
    assert!(!log.contains("stalled") && !log.contains("trying again"), "log:\n{log}");
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_takes_nothing_of_a_first_snapshot_is_told_of_until_it_does() {
    // One that has lost its session is without a leader for a moment, and a producer that hears of
    // that may have to be replaced (librdkafka#5430): then rows are read again.
    let kafka = match KafkaNode::start_unhurried() {
        Ok(kafka) => kafka,
        Err(reason) => return report_skipped(module_path!(), reason),
    };
    let database = TestDatabase::create().await;
    fill(&database.client().await).await;
    let (name, brokers) = (unique("refused"), kafka.brokers());
    let config = "memory = \"16MB\"\n[watchdog]\nkafka_stalled_after = \"5s\"\n";
    let relay = Relay::to(PostgresServer::shared().port()).await;
    let url = relay.url(&database.tcp_url);
    relay.set(Line::Slow(Duration::from_millis(2)));
    let mut bridge = Bridge::start(&name, &url, &brokers, config);
    wait_for_the_middle(&bridge).await;
    kafka.freeze();
    readyz(&bridge, 503, "snapshot: stalled, kafka has acknowledged none of ").await;
    assert_eq!(metric(&bridge, "rowcast_stalled{stage=\"kafka\"}"), 1);
    // What is read and not acknowledged is not published.
    let in_flight = metric(&bridge, "rowcast_records_in_flight");
    let [sent, acked] = ["rowcast_records_sent_total", "rowcast_records_acked_total"]
        .map(|name| metric(&bridge, name));
    // Each connection may have one more, for which there is no room.
    assert!((sent - acked..=sent - acked + 4).contains(&in_flight), "{in_flight}: {sent} {acked}");
    let read = metric(&bridge, "rowcast_snapshot_rows_total");
    assert_eq!(metric(&bridge, "rowcast_snapshot_table_rows{table=\"public.rides\"}"), read);
    assert!((1..ROWS.unsigned_abs()).contains(&read) && read <= sent + 4, "{read} of {sent}");
    assert_eq!(metric(&bridge, "rowcast_snapshot_running"), 1);
    assert_eq!(metric(&bridge, "rowcast_streaming"), 0);
    kafka.thaw();
    readyz(&bridge, 200, "streaming").await;
    assert_eq!(metric(&bridge, "rowcast_stalled{stage=\"kafka\"}"), 0);
    all_rows_come(&brokers, &name).await;
    assert_eq!(metric(&bridge, "rowcast_snapshot_rows_total"), ROWS.unsigned_abs());
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_swallowed_in_a_first_snapshot_is_noticed_and_the_rest_is_read() {
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    fill(&database.client().await).await;
    let relay = Relay::to(server.port()).await;
    let url = relay.url(&database.tcp_url);
    relay.set(Line::Slow(Duration::from_millis(2)));
    let (name, brokers) = (unique("swallowed"), kafka.brokers());
    let config = "[postgres]\nconnect_timeout = \"2s\"\n[snapshot]\nconnections = 2\n";
    let mut bridge = Bridge::start(&name, &url, &brokers, config);
    wait_for_the_middle(&bridge).await;
    relay.set(Line::BlackHole);
    let swallowed = Instant::now();
    eventually(NOTICED_WITHIN, "the line to be noticed", async || {
        (metric(&bridge, "rowcast_retries_total") > 0).then_some(())
    })
    .await;
    println!("noticed after {:?}", swallowed.elapsed());
    relay.set(Line::Open);
    readyz(&bridge, 200, "streaming").await;
    all_rows_come(&brokers, &name).await;
    let log = bridge.log();
    assert!(log.contains("the connection is dead"), "log:\n{log}");
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_rewritten_while_a_first_snapshot_reads_another_is_read_whole() {
    const LATER: i64 = 1_000;
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    fill(&client).await;
    // Smaller than the other, so that it is read after it; several ranges, for both connections.
    let later = format!(
        "CREATE TABLE later (id int PRIMARY KEY, note text);
         ALTER TABLE later ALTER note SET STORAGE PLAIN;
         INSERT INTO later SELECT n, repeat('n', 4500) FROM generate_series(1, {LATER}) n"
    );
    client.batch_execute(&later).await.expect("fill another table");
    let relay = Relay::to(server.port()).await;
    let url = relay.url(&database.tcp_url);
    relay.set(Line::Slow(Duration::from_millis(2)));
    let (name, brokers) = (unique("rewritten"), kafka.brokers());
    let config = "[snapshot]\nconnections = 2\n";
    let mut bridge = Bridge::start(&name, &url, &brokers, config);
    wait_for_the_middle(&bridge).await;
    let alters = database.client().await;
    let altering =
        async move { alters.batch_execute("ALTER TABLE later ALTER id TYPE bigint").await };
    let altering = tokio::spawn(altering);
    eventually(PATIENCE, "the ALTER to wait", async || {
        let waits = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'later'::regclass";
        (!client.query(waits, &[]).await.expect("ask").is_empty()).then_some(())
    })
    .await;
    relay.set(Line::Open);
    altering.await.expect("no panic").expect("it is altered in the end");
    readyz(&bridge, 200, "streaming").await;
    rows_come(&brokers, &format!("{name}.public.later"), LATER).await;
    all_rows_come(&brokers, &name).await;
    let log = bridge.log();
    // By who comes first: the one that waits for the lock, or the one that has it and has read all.
    let said = ["public.later is being altered or locked", "public.later was rewritten while"];
    assert!(said.iter().any(|said| log.contains(said)), "log:\n{log}");
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_locked_when_a_first_snapshot_begins_is_told_of_until_it_is_free() {
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    fill(&client).await;
    client.batch_execute("DROP TABLE busy").await.expect("leave one table");
    let relay = Relay::to(server.port()).await;
    relay.set(Line::Slow(Duration::from_millis(30)));
    let (name, brokers) = (unique("locked"), kafka.brokers());
    let config = "[snapshot]\nconnections = 1\n";
    let mut bridge = Bridge::start(&name, &relay.url(&database.tcp_url), &brokers, config);
    // Before, the slot would wait for whoever locks it.
    eventually(PATIENCE, "the slot to be made", async || {
        let made = "SELECT FROM pg_replication_slots WHERE confirmed_flush_lsn IS NOT NULL";
        (!client.query(made, &[]).await.expect("ask").is_empty()).then_some(())
    })
    .await;
    let lock = "BEGIN; LOCK TABLE rides IN ACCESS EXCLUSIVE MODE";
    client.batch_execute(lock).await.expect("lock the table");
    relay.set(Line::Open);
    eventually(PATIENCE, "it to say what it waits for", async || {
        bridge
            .log()
            .contains("public.rides is being altered or locked by another session")
            .then_some(())
    })
    .await;
    client.batch_execute("COMMIT").await.expect("free the table");
    readyz(&bridge, 200, "streaming").await;
    all_rows_come(&brokers, &name).await;
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_in_a_first_snapshot_is_published_and_the_snapshot_ends() {
    const CONFIG: &str = "[errors]\non_error = \"skip-with-dead-letter\"\n\
                          [format]\ntypes = \"debezium\"\n";
    let kafka = kafka_or_skip!();
    let brokers = kafka.brokers();
    for_each_postgres(async |server| {
        for delivery in ["at-least-once", "exactly-once"] {
            let database = server.database().await;
            let client = database.client().await;
            let setup = "CREATE TABLE rides (id int PRIMARY KEY, fare numeric);
                         INSERT INTO rides VALUES (1, 1), (2, 'NaN'), (3, 3)";
            client.batch_execute(setup).await.expect("make a table");
            let name = unique("letter");
            let config = format!("delivery = \"{delivery}\"\n{CONFIG}");
            let mut bridge =
                Bridge::start_ready(&name, &database.unix_url, &brokers, &config, PATIENCE);
            readyz(&bridge, 200, "streaming").await;
            let topics = [format!("{name}.public.rides"), format!("{name}.dead-letter")];
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let records = consume(&brokers, &topics, at_least(3), PATIENCE).await;
            let keys = |topic: &str| -> BTreeSet<String> {
                let of = records.iter().filter(|record| record.topic == topic);
                of.filter_map(|record| Some(record.key_text()?.to_owned())).collect()
            };
            let (rides, letters) = (keys(topics[0]), keys(topics[1]));
            assert_eq!((rides.len(), letters.len()), (2, 1), "{rides:?} {letters:?}");
            assert!(letters.iter().all(|key| key.contains('2')), "{letters:?}");
            stop(&mut bridge);
        }
    })
    .await;
}
