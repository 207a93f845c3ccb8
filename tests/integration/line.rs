//! A line that breaks as networks break: noticed in time, fixed by a new connection, and nothing
//! lost; and a line that is slow is left alone.

use std::time::{Duration, Instant};

use rowcast::lsn::Lsn;
use rowcast::postgres::{ConnInfo, ConnectOptions, Error, ReplicationClient, StreamOptions};
use tokio_postgres::Client;

use crate::delivery::{self, CONFIG};
use crate::load::{self, LOAD_LIMIT, TABLES};
use crate::support::bridge::Bridge;
use crate::support::consume::RecordReader;
use crate::support::kafka::{kafka_or_skip, private_kafka_or_skip};
use crate::support::postgres::{Binaries, PostgresServer};
use crate::support::relay::{Line, Relay};
use crate::support::witness::Witness;
use crate::support::{PATIENCE, eventually, unique};

/// The bridge gives up on a silent server after twice this.
const SENDER_TIMEOUT: Duration = Duration::from_secs(2);

async fn insert(client: &Client, rows: std::ops::RangeInclusive<i32>) {
    let insert = "INSERT INTO rides SELECT n, 1, 'x' FROM generate_series($1::int, $2::int) n";
    client.execute(insert, &[rows.start(), rows.end()]).await.expect("insert");
}

/// Waits until every row from 1 to `last` was seen at least once.
async fn until_row(mut reader: RecordReader, last: i64) -> RecordReader {
    let reading = tokio::task::spawn_blocking(move || {
        let mut seen = std::collections::BTreeSet::new();
        let (mut read, mut next) = (0, 1);
        reader.until(
            |records| {
                for record in &records[read..] {
                    let key: serde_json::Value =
                        serde_json::from_str(record.key_text().expect("a key")).expect("JSON");
                    seen.insert(key["id"].as_i64().expect("a number"));
                }
                read = records.len();
                while seen.contains(&next) {
                    next += 1;
                }
                next > last
            },
            LOAD_LIMIT,
        );
        reader
    });
    reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn retries(bridge: &Bridge) -> u64 {
    let (_, page) = bridge.get("/metrics").expect("the bridge answers");
    let line = page.lines().find(|line| line.starts_with("rowcast_retries_total "));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a number of retries")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_half_closed_or_swallowed_is_made_anew_and_nothing_is_lost() {
    let kafka = kafka_or_skip!();
    let seconds = format!("{}s", SENDER_TIMEOUT.as_secs());
    let server = PostgresServer::start(Binaries::newest(), &[("wal_sender_timeout", &seconds)]);
    let database = server.database().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let relay = Relay::to(server.port()).await;
    let url = relay.url(&database.tcp_url);
    let name = unique("line");
    let topics = delivery::topics(&name);
    let mut bridge = Bridge::start_ready(&name, &url, &kafka.brokers(), CONFIG, PATIENCE);
    let witness = Witness::of(&bridge, &database);
    insert(&client, 1..=100).await;
    let (brokers, topic) = (kafka.brokers(), vec![topics[0].clone()]);
    let reader = delivery::opened(&brokers, &topic, witness).await;
    let mut reader = until_row(reader, 100).await;

    let mut last = 100;
    for line in [Line::Cut, Line::HalfClosed, Line::BlackHole] {
        println!("{line:?}");
        let (before, connections) = (retries(&bridge), relay.accepted());
        let broken = Instant::now();
        relay.set(line);
        insert(&client, last + 1..=last + 100).await;
        last += 100;
        eventually(PATIENCE, "the bridge to notice", async || {
            (retries(&bridge) > before).then_some(())
        })
        .await;
        // Twice the server's patience, and what a busy machine adds.
        let noticed = broken.elapsed();
        println!("noticed after {noticed:?}");
        assert!(noticed < 2 * SENDER_TIMEOUT + Duration::from_secs(10), "{noticed:?}");
        if line == Line::BlackHole {
            assert!(noticed >= SENDER_TIMEOUT, "silence is not at once the end: {noticed:?}");
        }
        relay.set(Line::Open);
        reader = until_row(reader, last.into()).await;
        assert!(relay.accepted() > connections);
    }
    for (table, topic) in TABLES.iter().zip(&topics).take(1) {
        // Repeats are allowed, an order that is not the commits' is not.
        let rows = load::rows_of(&client, table).await;
        let mut first = std::collections::BTreeMap::new();
        for record in reader.records.iter().filter(|record| record.topic == *topic) {
            first.entry(record.key.clone()).or_insert(record);
        }
        assert_eq!(load::replay(first.into_values()), rows, "{table}");
    }
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_line_is_no_broken_one() {
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[("wal_sender_timeout", "4s")]);
    let database = server.database().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let relay = Relay::to(server.port()).await;
    let url = relay.url(&database.tcp_url);
    let name = unique("slow");
    let mut bridge = Bridge::start_ready(&name, &url, &kafka.brokers(), CONFIG, PATIENCE);
    let witness = Witness::of(&bridge, &database);
    relay.set(Line::Slow(Duration::from_millis(300)));
    insert(&client, 1..=5_000).await;
    let (brokers, topic) = (kafka.brokers(), vec![delivery::topics(&name)[0].clone()]);
    let reader = delivery::opened(&brokers, &topic, witness).await;
    let reader = until_row(reader, 5_000).await;
    assert_eq!(reader.records.len(), 5_000, "nothing came twice");
    assert_eq!(retries(&bridge), 0, "log:\n{}", bridge.log());
    relay.set(Line::Open);
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_answered_while_kafka_stands_still_for_longer_than_it_waits() {
    let kafka = private_kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[("wal_sender_timeout", "2s")]);
    let database = server.database().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let name = unique("still");
    let mut bridge =
        Bridge::start_ready(&name, &database.tcp_url, &kafka.brokers(), CONFIG, PATIENCE);
    let witness = Witness::of(&bridge, &database);
    insert(&client, 1..=100).await;
    let (brokers, topic) = (kafka.brokers(), vec![delivery::topics(&name)[0].clone()]);
    let reader = delivery::opened(&brokers, &topic, witness).await;
    let reader = until_row(reader, 100).await;

    kafka.freeze();
    insert(&client, 101..=20_000).await;
    let pid = "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()";
    let before: Option<i32> = client.query_one(pid, &[]).await.expect("ask").get(0);
    // Longest time since the bridge was heard, seen over four times the server's patience.
    let heard = "SELECT extract(epoch FROM clock_timestamp() - reply_time)::float8
        FROM pg_stat_replication";
    let mut silence: f64 = 0.0;
    let frozen = Instant::now();
    eventually(PATIENCE, "eight seconds to pass", async || {
        for row in client.query(heard, &[]).await.expect("ask") {
            silence = silence.max(row.get::<_, Option<f64>>(0).unwrap_or(0.0));
        }
        (frozen.elapsed() > 4 * SENDER_TIMEOUT).then_some(())
    })
    .await;
    println!("longest silence: {silence:.3} s");
    let after: Option<i32> = client.query_one(pid, &[]).await.expect("ask").get(0);
    assert_eq!((before.is_some(), before), (true, after), "log:\n{}", bridge.log());
    assert!(silence < SENDER_TIMEOUT.as_secs_f64(), "{silence} s");
    kafka.thaw();
    let reader = until_row(reader, 20_000).await;
    assert_eq!(reader.records.len(), 20_000, "nothing came twice");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_the_line_swallowed_is_given_up_and_one_that_takes_long_is_not() {
    let server = PostgresServer::shared();
    let database = server.database().await;
    let relay = Relay::to(server.port()).await;
    let open = async |url: &str| {
        let info = ConnInfo::parse(url, &|_| None).expect("a connection string");
        let options = ConnectOptions::default();
        rowcast::postgres::client::connect(&info, &options).await.expect("connect")
    };
    let url = relay.url(&database.tcp_url);
    let (swallowed, slow) = (open(&url).await, open(&database.tcp_url).await);
    relay.set(Line::BlackHole);
    let asked = tokio::spawn(async move { swallowed.query_one("SELECT 1", &[]).await });
    // The connection that stands stays lost; the server can be asked on another.
    eventually(PATIENCE, "the question to be on its way", async || {
        (relay.swallowed() > 0).then_some(())
    })
    .await;
    relay.set(Line::Open);
    let sleep = slow.query_one("SELECT 1 FROM pg_sleep(18)", &[]);
    let limit = tokio::time::timeout(PATIENCE, asked);
    let (sleep, lost) = tokio::join!(sleep, limit);
    let lost = lost.expect("it does not wait for ever").expect("no panic").map(drop);
    assert!(lost.is_err_and(|error| error.is_closed()), "the connection was closed");
    sleep.expect("the server worked on it all the time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_command_that_the_line_swallowed_is_given_up() {
    let server = PostgresServer::shared();
    let database = server.database().await;
    let relay = Relay::to(server.port()).await;
    let url = relay.url(&database.tcp_url);
    let info = ConnInfo::parse(&url, &|_| None).expect("a connection string");
    let limit = Duration::from_millis(500);
    let options = ConnectOptions { answer_timeout: limit, ..ConnectOptions::default() };
    let open = async || {
        relay.set(Line::Open);
        let mut client = ReplicationClient::connect(&info, &options).await.expect("connect");
        client.identify_system().await.expect("it is answered while the line is open");
        relay.set(Line::BlackHole);
        client
    };
    let given_up = |error: Error| {
        assert!(matches!(error, Error::Timeout { after, .. } if after == limit), "{error}");
        assert!(error.is_transient());
    };
    given_up(open().await.identify_system().await.expect_err("nobody answers"));
    given_up(open().await.timeline_history(1).await.expect_err("nobody answers"));
    given_up(open().await.walsender().await.expect_err("nobody answers"));
    let stream_options = StreamOptions::default();
    let stream = open().await.start_replication("s", Lsn::ZERO, &stream_options).await;
    given_up(stream.expect_err("nobody answers"));
}
