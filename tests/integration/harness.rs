//! The servers that the other tests stand on start, answer, survive what they must, and end.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::bridge::Bridge;
use crate::support::consume::{RecordReader, at_least, consume};
use crate::support::kafka::{Brokers, kafka_or_skip, private_kafka_or_skip, produce};
use crate::support::postgres::{
    Binaries, PostgresServer, TestDatabase, connect, for_each_postgres,
};
use crate::support::{PATIENCE, eventually, unique};

/// Set in the process that [`servers_die_with_a_killed_test_process`] starts and kills.
const HELPER: &str = "ROWCAST_HARNESS_HELPER";

async fn text(client: &tokio_postgres::Client, query: &str) -> String {
    client.query_one(query, &[]).await.expect(query).get(0)
}

#[tokio::test]
async fn postgres_answers_over_tcp_and_unix_socket() {
    for_each_postgres(async |server| {
        let database = server.database().await;
        let peer = "SELECT coalesce(host(inet_server_addr()), 'unix')";
        assert_eq!(text(&connect(&database.tcp_url).await, peer).await, "127.0.0.1");
        assert_eq!(text(&connect(&database.unix_url).await, peer).await, "unix");

        let client = database.client().await;
        assert_eq!(text(&client, "SHOW wal_level").await, "logical");
        let version = text(&client, "SHOW server_version").await;
        assert!(version.starts_with(&server.major().to_string()), "{version}");
    })
    .await;
}

#[tokio::test]
async fn a_dropped_test_database_takes_its_slots_along() {
    let server = PostgresServer::shared();
    let database = server.database().await;
    let (name, slot) = (database.name.clone(), unique("slot"));
    let make = "SELECT slot_name::text FROM pg_create_logical_replication_slot($1, 'pgoutput')";
    database.client().await.query(make, &[&slot]).await.expect("make a slot");
    drop(database);

    let admin = connect(&server.unix_url("postgres")).await;
    let left = "SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1)
                     + (SELECT count(*) FROM pg_database WHERE datname = $2)";
    let left: i64 = admin.query_one(left, &[&slot, &name]).await.expect("count").get(0);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_private_postgres_keeps_its_rows_when_stopped_crashed_and_killed() {
    let mut server = PostgresServer::start(Binaries::newest(), &[("work_mem", "5MB")]);
    let url = server.tcp_url("postgres");
    let client = connect(&url).await;
    assert_eq!(text(&client, "SHOW work_mem").await, "5MB");
    client.batch_execute("CREATE TABLE t (a text)").await.expect("make a table");

    for (name, end) in [
        ("stopped", PostgresServer::stop as fn(&mut PostgresServer)),
        ("crashed", PostgresServer::crash),
        ("killed", PostgresServer::kill),
    ] {
        let client = connect(&url).await;
        client.execute("INSERT INTO t VALUES ($1)", &[&name]).await.expect("insert");
        end(&mut server);
        server.start_again();
    }
    let rows = text(&connect(&url).await, "SELECT string_agg(a, ' ') FROM t").await;
    assert_eq!(rows, "stopped crashed killed");
}

#[tokio::test]
async fn a_record_produced_to_kafka_is_consumed_as_it_was() {
    let kafka = kafka_or_skip!();
    let topic = unique("harness");
    kafka.create_topic(&topic, 2, &[("retention.ms", "86400000")]).await;
    produce(&kafka.brokers(), &topic, &[("1", "one"), ("2", ""), ("3", "three")]).await;

    let mut records = consume(&kafka.brokers(), &[&topic], at_least(3), PATIENCE).await;
    records.sort_by(|a, b| a.key.cmp(&b.key));
    let values: Vec<_> = records.iter().map(|record| record.value.as_deref()).collect();
    assert_eq!(values, [Some(&b"one"[..]), Some(b""), Some(b"three")]);
    assert!(records.iter().all(|record| record.topic == topic && record.timestamp_ms.is_some()));
}

#[tokio::test]
async fn the_embedded_broker_serves_the_same_helpers() {
    let brokers = Brokers::embedded();
    let topic = unique("harness");
    brokers.create_topic(&topic, 1).await;
    produce(&brokers.bootstrap(), &topic, &[("k", "v")]).await;

    let records = consume(&brokers.bootstrap(), &[&topic], at_least(1), PATIENCE).await;
    assert_eq!(records[0].key_text(), Some("k"));
    assert_eq!((records[0].partition, records[0].offset), (0, 0));
}

#[tokio::test]
async fn a_reader_with_another_client_reads_on_where_it_was() {
    let brokers = Brokers::any();
    let topic = unique("harness");
    brokers.create_topic(&topic, 2).await;
    let produce = async |value: usize| {
        produce(&brokers.bootstrap(), &topic, &[("k", &*value.to_string())]).await;
    };
    let mut reader = RecordReader::open(&brokers.bootstrap(), &[&topic], PATIENCE);
    for count in 1..=3 {
        // At first nothing of either partition has been read, later of one.
        reader.read_on_anew();
        produce(count).await;
        reader.until(at_least(count), PATIENCE);
    }
    let records = reader.until_quiet(Duration::from_millis(300));
    let values: Vec<_> = records.iter().map(|record| record.value.as_deref()).collect();
    assert_eq!(values, [Some(&b"1"[..]), Some(b"2"), Some(b"3")]);
}

#[tokio::test]
async fn a_private_kafka_keeps_its_records_when_killed() {
    let mut kafka = private_kafka_or_skip!();
    let (brokers, topic) = (kafka.brokers(), unique("harness"));
    kafka.create_topic(&topic, 1, &[]).await;
    produce(&brokers, &topic, &[("1", "before")]).await;

    kafka.kill();
    kafka.start_again();
    produce(&brokers, &topic, &[("1", "after")]).await;

    let mut reader = RecordReader::open(&brokers, &[&topic], PATIENCE);
    reader.until(at_least(2), PATIENCE);
    let records = reader.until_quiet(Duration::from_millis(300));
    let values: Vec<_> = records.iter().map(|record| record.value.as_deref()).collect();
    assert_eq!(values, [Some(&b"before"[..]), Some(b"after")]);
}

#[tokio::test]
async fn a_bridge_that_ends_at_once_is_reported_not_waited_for() {
    let database = TestDatabase::create().await;
    let nobody = "127.0.0.1:1";
    let mut bridge = Bridge::start("early", &database.unix_url, nobody, "no_such_setting = 1\n");
    assert!(bridge.wait_until_ready(PATIENCE).is_err());
}

#[tokio::test]
async fn servers_die_with_a_killed_test_process() {
    if std::env::var_os(HELPER).is_some() {
        start_a_server_and_wait_for_the_end();
    }
    let mut helper = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "harness::servers_die_with_a_killed_test_process", "--nocapture"])
        .env(HELPER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the helper");
    let output = BufReader::new(helper.stdout.take().expect("piped"));
    let line = output
        .lines()
        .map(|line| line.expect("read the helper's output"))
        .find(|line| line.contains(HELPER))
        .expect("the helper tells what it started");
    let mut words = line.split_whitespace().skip_while(|word| *word != HELPER).skip(1);
    let (pid, dir) = (words.next().expect("pid"), words.next().expect("folder"));
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "the server runs");

    helper.kill().expect("kill the helper");
    helper.wait().expect("reap the helper");
    eventually(PATIENCE, "server and folder to be gone", async || {
        let gone = !Path::new(&format!("/proc/{pid}")).exists() && !Path::new(dir).exists();
        gone.then_some(())
    })
    .await;
}

/// What the helper does: its parent reads the line, and kills it.
fn start_a_server_and_wait_for_the_end() -> ! {
    let postgres = PostgresServer::shared();
    println!("{HELPER} {} {}", postgres.pid().expect("runs"), postgres.socket_dir().display());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("wait for the end");
    std::process::exit(1);
}
