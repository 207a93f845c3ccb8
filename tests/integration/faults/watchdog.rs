//! A line that stands still is told of: by `/readyz`, by a metric, by one warning.

use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::Client;

use super::{all_arrive, create_table, metric, readyz, stop, walsender, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::{KafkaNode, RelayedPort, kafka_or_skip};
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, confirmed, wal_end};
use crate::support::process::free_port;
use crate::support::relay::{Line, Relay};
use crate::support::{PATIENCE, eventually, report_skipped, unique};

fn stalls_logged(bridge: &Bridge) -> usize {
    bridge.log().matches(" stalled: ").count()
}

/// Holds each gauge against the truth, while the brokers stand still and two hundred records wait.
async fn gauges_say_what_is_so(bridge: &Bridge, client: &Client, name: &str) {
    let waiting = 200;
    eventually(PATIENCE, "records in flight", async || {
        (metric(bridge, "rowcast_records_in_flight") == waiting).then_some(())
    })
    .await;
    let [sent, acked] = ["rowcast_records_sent_total", "rowcast_records_acked_total"]
        .map(|name| metric(bridge, name));
    assert_eq!(sent - acked, waiting);
    let (_, status) = bridge.get("/status").expect("it answers");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["records_in_flight"], waiting);
    let confirmed_lsn = confirmed(client, name).await.expect("a slot").as_u64();
    assert_eq!(metric(bridge, "rowcast_confirmed_lsn"), confirmed_lsn);
    let end = wal_end(client).await.as_u64();
    let received = metric(bridge, "rowcast_received_lsn");
    assert!(confirmed_lsn < received && received <= end, "{confirmed_lsn} {received} {end}");
    for (gauge, is) in [("rowcast_streaming", 1), ("rowcast_standby", 0)] {
        assert_eq!(metric(bridge, gauge), is, "{gauge}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_takes_nothing_while_records_wait_is_told_of_until_it_does() {
    // One that has lost its session is without a leader for a moment, and a producer that hears of
    // that may stall again (librdkafka#5430).
    let kafka = match KafkaNode::start_unhurried() {
        Ok(kafka) => kafka,
        Err(reason) => return report_skipped(module_path!(), reason),
    };
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("unacked"), kafka.brokers());
    let config = "[watchdog]\nkafka_stalled_after = \"5s\"\n";
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, config, PATIENCE);
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;
    // A node that was started just now may have taken its time for the first records.
    readyz(&bridge, 200, "streaming").await;
    assert_eq!(metric(&bridge, "rowcast_stalled{stage=\"kafka\"}"), 0);
    let before = stalls_logged(&bridge);

    kafka.freeze();
    write(&client, 101..=200).await;
    gauges_say_what_is_so(&bridge, &client, &name).await;
    readyz(&bridge, 503, "streaming: stalled, kafka has acknowledged none of ").await;
    assert_eq!(metric(&bridge, "rowcast_stalled{stage=\"kafka\"}"), 1);
    assert_eq!(bridge.get("/livez").map(|(code, _)| code), Some(200));
    kafka.thaw();
    readyz(&bridge, 200, "streaming").await;
    assert_eq!(metric(&bridge, "rowcast_stalled{stage=\"kafka\"}"), 0);
    all_arrive(&brokers, &name, &client).await;
    assert_eq!(stalls_logged(&bridge), before + 1, "log:\n{}", bridge.log());
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_whose_connections_are_dead_is_replaced_once_others_are_answered() {
    let port = free_port();
    let relay = Relay::to(port).await;
    let kafka = match KafkaNode::start_behind(RelayedPort { port, advertised: relay.port() }) {
        Ok(node) => node,
        Err(reason) => return report_skipped(module_path!(), reason),
    };
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("swallowed"), format!("127.0.0.1:{}", relay.port()));
    // Without the watchdog, the client holds on to its connections for a minute.
    let config = "[watchdog]\nkafka_stalled_after = \"2s\"\n[kafka]\ndrain_timeout = \"1s\"\n\
                  [kafka.properties]\n\"socket.timeout.ms\" = \"60000\"\n";
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, config, PATIENCE);
    write(&client, 1..=100).await;
    all_arrive(&kafka.brokers(), &name, &client).await;

    relay.set(Line::BlackHole);
    write(&client, 101..=200).await;
    readyz(&bridge, 503, "streaming: stalled, kafka has acknowledged none of ").await;
    assert!(!bridge.log().contains("the producer is stuck"), "nobody is answered");
    relay.set(Line::Open);
    eventually(PATIENCE, "a new producer", async || {
        bridge.log().contains("the producer is stuck").then_some(())
    })
    .await;
    readyz(&bridge, 200, "streaming").await;
    all_arrive(&kafka.brokers(), &name, &client).await;
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stands_still_while_the_server_writes_is_told_of_until_it_moves() {
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("stuck"), kafka.brokers());
    let config = "[watchdog]\nsource_stalled_after = \"1s\"\n";
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, config, PATIENCE);
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;

    let pid = walsender(&client, &name).await.and_then(Pid::from_raw).expect("it streams");
    kill_process(pid, Signal::STOP).expect("a process of our server");
    write(&client, 101..=1_000).await;
    readyz(&bridge, 503, "streaming: stalled, the server's WAL reaches ").await;
    assert_eq!(metric(&bridge, "rowcast_stalled{stage=\"source\"}"), 1);
    kill_process(pid, Signal::CONT).expect("a process of our server");
    readyz(&bridge, 200, "streaming").await;
    assert_eq!(metric(&bridge, "rowcast_stalled{stage=\"source\"}"), 0);
    all_arrive(&brokers, &name, &client).await;
    assert_eq!(stalls_logged(&bridge), 1, "log:\n{}", bridge.log());
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_not_done_is_told_of_and_ended_though_no_record_waits() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("uncommitted"), kafka.brokers());
    let checkpoints = format!("{name}.checkpoints");
    let config = format!(
        "delivery = \"exactly-once\"\n[topics]\ncheckpoints = \"{checkpoints}\"\n\
         [watchdog]\nkafka_stalled_after = \"3s\"\n[kafka]\ndrain_timeout = \"1s\"\n"
    );
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, &config, PATIENCE);
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;

    kafka.delete_topic(&checkpoints).await;
    write(&client, 101..=200).await;
    // What was not committed comes with the next session, which makes the topic again.
    assert_eq!(all_arrive(&brokers, &name, &client).await, 0, "log:\n{}", bridge.log());
    readyz(&bridge, 200, "streaming").await;
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_commit_that_the_server_holds_back_is_told_of_with_the_standby_it_waits_for() {
    let kafka = kafka_or_skip!();
    if Binaries::newest().major < 17 {
        return report_skipped(module_path!(), "no server here waits for standbys");
    }
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("held"), kafka.brokers());
    let config = "[postgres]\nfailover = true\n[watchdog]\nsource_stalled_after = \"2s\"\n";
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, config, PATIENCE);
    write(&client, 1..=10).await;
    all_arrive(&brokers, &name, &client).await;

    let reload = "SELECT pg_reload_conf()";
    let hold = "ALTER SYSTEM SET synchronized_standby_slots = 'gone'";
    client.batch_execute(hold).await.expect("set it");
    client.batch_execute(reload).await.expect("reload");
    eventually(PATIENCE, "the setting to hold", async || {
        let row = client.query_one("SHOW synchronized_standby_slots", &[]).await.expect("ask");
        (row.get::<_, &str>(0) == "gone").then_some(())
    })
    .await;
    write(&client, 11..=11).await;
    readyz(&bridge, 503, "streaming: stalled, the server's WAL reaches ").await;
    readyz(&bridge, 503, "(gone): start them, or take them out of synchronized_standby_slots")
        .await;
    let release = "ALTER SYSTEM RESET synchronized_standby_slots";
    client.batch_execute(release).await.expect("reset it");
    client.batch_execute(reload).await.expect("reload");
    readyz(&bridge, 200, "streaming").await;
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
}
