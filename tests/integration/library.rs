//! The bridge as a library: who drops its future has nothing left of it.

use std::collections::BTreeSet;
use std::time::Duration;

use rowcast::bridge::Bridge;
use rowcast::config::{Config, Kafka, Postgres};
use tokio::sync::watch;

use crate::support::kafka::private_kafka_or_skip;
use crate::support::postgres::TestDatabase;
use crate::support::{PATIENCE, eventually, unique};

/// Threads of a bridge. All other bridges of these tests are processes of their own.
const THREADS: [&str; 4] = ["reader", "worker", "kafka-delivery", "kafka-send"];

fn threads() -> BTreeSet<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("list the threads");
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    let names = tasks.filter_map(|task| name(task.ok()?)).map(|name| name.trim().to_owned());
    names.filter(|name| THREADS.contains(&name.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_whose_future_is_dropped_leaves_no_thread_though_kafka_takes_nothing() {
    let kafka = private_kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let setup = "CREATE TABLE rides (id int PRIMARY KEY, note text)";
    client.batch_execute(setup).await.expect("make a table");
    let config = Config {
        name: Some(unique("library")),
        memory: serde_json::from_value("8MB".into()).expect("a size"),
        postgres: Postgres { url: Some(database.tcp_url.clone().into()), ..Postgres::default() },
        kafka: Kafka {
            brokers: Some(kafka.brokers()),
            drain_timeout: Duration::from_secs(4),
            ..Kafka::default()
        },
        ..Config::default()
    };
    let bridge = Bridge::new(&config).expect("it can be run with");
    let (_stop, told) = watch::channel(false);
    let running = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.run(told).await }
    });
    eventually(PATIENCE, "all threads", async || (threads().len() == THREADS.len()).then_some(()))
        .await;
    kafka.freeze();
    // More than there is room for, so that the worker waits for some.
    let fill = "INSERT INTO rides SELECT n, repeat('x', 1000) FROM generate_series(1, 50000) n";
    client.batch_execute(fill).await.expect("write");
    eventually(PATIENCE, "a queue without room", async || {
        let (_, metrics) = bridge
            .observe()
            .metrics
            .render()
            .split_once("rowcast_queue_full_total ")
            .map(|(_, rest)| ((), rest.lines().next().unwrap_or_default().to_owned()))?;
        (metrics != "0").then_some(())
    })
    .await;
    running.abort();
    assert!(running.await.is_err_and(|ended| ended.is_cancelled()));
    eventually(PATIENCE, "the threads to end", async || threads().is_empty().then_some(())).await;
    kafka.thaw();
}
