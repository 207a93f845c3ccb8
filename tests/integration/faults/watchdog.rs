//! A line that stands still is told of: by `/readyz`, by a metric, by one warning.

use std::collections::BTreeMap;

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

/// The gauges of the metrics page, by name and labels.
fn gauges(bridge: &Bridge) -> BTreeMap<String, f64> {
    let (_, page) = bridge.get("/metrics").expect("the bridge answers");
    let kinds =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge"));
    let names: Vec<&str> = kinds.collect();
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.filter_map(|line| line.rsplit_once(' '));
    let of_gauge = |sample: &str| names.contains(&sample.split('{').next().unwrap_or_default());
    let gauges = samples.filter(|(sample, _)| of_gauge(sample));
    gauges.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

/// Holds every gauge that there is against the truth, while the brokers stand still and so many records
/// wait.
async fn gauges_say_what_is_so(
    (bridge, waiting): (&Bridge, u32),
    (server, client): (&PostgresServer, &Client),
    name: &str,
) {
    eventually(PATIENCE, "records in flight", async || {
        (metric(bridge, "rowcast_records_in_flight") == u64::from(waiting)).then_some(())
    })
    .await;
    let [sent, acked] = ["rowcast_records_sent_total", "rowcast_records_acked_total"]
        .map(|name| metric(bridge, name));
    assert_eq!(sent - acked, u64::from(waiting));
    let (_, status) = bridge.get("/status").expect("it answers");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["records_in_flight"], waiting);
    // The guard looks each ten seconds, and the server writes WAL by itself.
    let held = "SELECT (pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots";
    let (mut is, held) = eventually(PATIENCE, "what the slot holds", async || {
        let held: i64 = client.query_one(held, &[]).await.expect("ask").get(0);
        let is = gauges(bridge);
        let held = f64::from(u32::try_from(held).expect("little"));
        (is["rowcast_slot_retained_bytes"] == held).then_some((is, held))
    })
    .await;
    let mut take = |gauge: &str| is.remove(gauge).unwrap_or_else(|| panic!("no {gauge}"));
    let position = |text: u64| format!("{text}").parse::<f64>().expect("a number");
    let confirmed_lsn = position(confirmed(client, name).await.expect("a slot").as_u64());
    let end = position(wal_end(client).await.as_u64());
    let received = take("rowcast_received_lsn");
    assert!(confirmed_lsn < received && received <= end, "{confirmed_lsn} {received} {end}");
    let room = take("rowcast_slot_room_bytes{bound=\"disk\"}");
    let disk = rustix::fs::statvfs(server.data_dir()).expect("ask the file system");
    let free = position(disk.f_bavail * disk.f_frsize);
    assert!((room - free).abs() < free / 10.0, "{room} of {free}");
    for (gauge, truth) in [
        ("rowcast_records_in_flight", f64::from(waiting)),
        ("rowcast_confirmed_lsn", confirmed_lsn),
        ("rowcast_slot_retained_bytes", held),
        ("rowcast_slot_room_bytes{bound=\"slot_wal_limit\"}", 4_294_967_296.0 - held),
        ("rowcast_streaming", 1.0),
        ("rowcast_standby", 0.0),
        // Of `rides`, as nothing was written to the others.
        ("rowcast_tables_described", 1.0),
        ("rowcast_tables_insert_only", 1.0),
        ("rowcast_tables_refused", 0.0),
        ("rowcast_slot_creation_waiting", 0.0),
        ("rowcast_snapshot_running", 0.0),
        ("rowcast_snapshot_tables_left", 0.0),
        ("rowcast_stalled{stage=\"source\"}", 0.0),
    ] {
        assert_eq!(take(gauge), truth, "{gauge}");
    }
    // Whether it makes no progress is held against the truth by whoever called this.
    take("rowcast_stalled{stage=\"kafka\"}");
    is.retain(|gauge, value| {
        // What has been written within the last minute; nothing is left out.
        let may_be_there = gauge.starts_with("rowcast_slot_room_seconds{") && *value > 0.0;
        let is_none = gauge.starts_with("rowcast_tables_left_out{") && *value == 0.0;
        !(may_be_there || is_none)
    });
    assert_eq!(is, BTreeMap::new(), "each gauge is held against the truth");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_takes_nothing_while_records_wait_is_told_of_until_it_does() {
    // One that has lost its session is without a leader for a moment, and a producer that hears of
    // that may stall again (librdkafka#5430).
    let kafka = match KafkaNode::start_unhurried() {
        Ok(kafka) => kafka,
        Err(reason) => return report_skipped(module_path!(), reason),
    };
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    create_table(&client).await;
    client.batch_execute("CREATE TABLE keyless (n int)").await.expect("make a table");
    let (name, brokers) = (unique("unacked"), kafka.brokers());
    let config = "[watchdog]\nkafka_stalled_after = \"5s\"\n[postgres]\nslot_wal_limit = \"4GB\"\n";
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, config, PATIENCE);
    write(&client, 1..=100).await;
    all_arrive(&brokers, &name, &client).await;
    // A node that was started just now may have taken its time for the first records.
    readyz(&bridge, 200, "streaming").await;
    assert_eq!(metric(&bridge, "rowcast_stalled{stage=\"kafka\"}"), 0);
    let before = stalls_logged(&bridge);

    kafka.freeze();
    write(&client, 101..=200).await;
    gauges_say_what_is_so((&bridge, 200), (&server, &client), &name).await;
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
    readyz(&bridge, 503, "(gone): start them, or remove them from synchronized_standby_slots")
        .await;
    let release = "ALTER SYSTEM RESET synchronized_standby_slots";
    client.batch_execute(release).await.expect("reset it");
    client.batch_execute(reload).await.expect("reload");
    readyz(&bridge, 200, "streaming").await;
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
}
