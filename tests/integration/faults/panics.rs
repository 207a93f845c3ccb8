//! A panic, which is a bug of ours, in any thread or task: it ends the process at once and says so,
//! instead of a pipeline that waits for ever for who is gone.
//!
//! States are entered with each of the threads and tasks that live in them, and each of them panics
//! there. The bridges of one state have one database, and end together.

use std::net::TcpListener;
use std::time::Instant;

use tempfile::NamedTempFile;
use tokio_postgres::Client;

use super::ending::{Fault, documented, once};
use super::{ask_for_status, create_table, metric, readyz, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::{KafkaNode, kafka_or_skip, private_kafka_or_skip};
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase};
use crate::support::{PATIENCE, eventually, unique};

/// In every state.
const ALWAYS: [&str; 6] = ["bridge", "log", "admin", "status", "progress", "reload"];

/// Where it streams, to brokers that take everything.
const STREAMING: [&str; 6] =
    ["coordinator", "partitions", "reader", "worker", "kafka-poll", "kafka-send"];

/// While a first snapshot reads.
const SNAPSHOT: [&str; 5] = ["snapshot", "snapshot-0", "reader", "kafka-poll", "kafka-send"];

/// While it drains, and the brokers take nothing.
const DRAINING: [&str; 6] =
    ["coordinator", "partitions", "reader", "kafka-poll", "worker-end", "flush"];

/// Where only a bridge comes that drains, and once.
const ONCE: [&str; 2] = ["worker-end", "flush"];

/// A table of which a first snapshot reads a few rows a second, for a minute.
const SLOW: &str = "[tables.\"public.slow\"]\nsnapshot_where = \"pg_sleep(0.06) IS NOT NULL\"\n";
const FILL_SLOW: &str = "CREATE TABLE slow (id int PRIMARY KEY, note text);
                         INSERT INTO slow SELECT n, repeat('n', 1000) FROM generate_series(1, 1000) n";

/// A bridge that has a thread panic once its file names the thread.
struct Armed {
    place: &'static str,
    bridge: Bridge,
    file: NamedTempFile,
}

impl Armed {
    fn arm(&self) {
        std::fs::write(self.file.path(), self.place).expect("name the place");
    }
}

/// The bridges of one state.
struct Scene<'a> {
    state: &'static str,
    brokers: &'a str,
    config: &'a str,
    database: TestDatabase,
    client: Client,
    armed: Vec<Armed>,
}

impl<'a> Scene<'a> {
    async fn new(
        server: &PostgresServer,
        state: &'static str,
        (brokers, config): (&'a str, &'a str),
    ) -> Self {
        let database = server.database().await;
        let client = database.client().await;
        create_table(&client).await;
        Self { state, brokers, config, database, client, armed: Vec::new() }
    }

    /// Starts a bridge of this name that is to panic there.
    fn start(&mut self, name: &str, place: &'static str) {
        let file = NamedTempFile::new().expect("make a file");
        let asked = format!("@{}", file.path().display());
        let env = [("TEST_ROWCAST_PANIC_IN", asked.as_str()), ("RUST_BACKTRACE", "0")];
        let (url, told) = (&self.database.tcp_url, (None, env.as_slice()));
        let bridge = Bridge::start_telling(name, url, self.brokers, self.config, told);
        self.armed.push(Armed { place, bridge, file });
    }

    /// Starts a bridge for each of those that live in every state, and for each of these.
    fn start_all(&mut self, places: &[&'static str]) {
        let name = unique("panics");
        for (n, place) in ALWAYS.iter().chain(places).enumerate() {
            self.start(&format!("{name}_{n}"), place);
        }
    }

    async fn all_say(&self, code: u16, text: &str) {
        for Armed { bridge, .. } in &self.armed {
            readyz(bridge, code, text).await;
        }
    }

    /// What all of them stream, so that their topics are there.
    async fn all_stream(&self) {
        self.all_say(200, "streaming").await;
        write(&self.client, 1..=100).await;
        for Armed { bridge, .. } in &self.armed {
            eventually(PATIENCE, "the first records", async || {
                (metric(bridge, "rowcast_records_acked_total") >= 200).then_some(())
            })
            .await;
        }
    }

    /// Has each panic where it is to, and judges how it ends.
    async fn all_panic(self) {
        self.armed.iter().for_each(Armed::arm);
        // There is something to do for each: rows, a request, a line of the log.
        if self.state.starts_with("streaming") {
            write(&self.client, 101..=200).await;
        }
        let mut unanswered = Vec::new();
        for Armed { place, bridge, .. } in &self.armed {
            match *place {
                "status" => unanswered.push(ask_for_status(bridge)),
                "log" => bridge.hang_up(),
                _ => {}
            }
        }
        self.all_end().await;
    }

    async fn all_end(mut self) {
        let (armed, ending) = (Instant::now(), documented()[&(self.state, Fault::Panic)]);
        for Armed { place, bridge, .. } in &mut self.armed {
            let status = bridge.wait(ending.within.saturating_sub(armed.elapsed()));
            let (state, log) = (self.state, bridge.log());
            println!("{state}: {place} has ended it after {:?}", armed.elapsed());
            assert_eq!(status.code(), Some(ending.code), "{state}: {place}; log:\n{log}");
            let text = format!("a test requested it in {place}");
            assert!(log.contains("error: the thread ") && log.contains(&text), "log:\n{log}");
            assert!(log.contains("fix: please report this"), "log:\n{log}");
        }
    }
}

/// Before there is a producer: nobody but the bridge's own tasks and the log.
async fn without_brokers(server: &PostgresServer) {
    let mute = TcpListener::bind("127.0.0.1:0").expect("bind");
    let mute = mute.local_addr().map(|at| (mute, at.to_string())).expect("an address");
    let mut preflight = Scene::new(server, "preflight", (&mute.1, "")).await;
    preflight.start_all(&[]);
    let mut backoff = Scene::new(server, "backoff", ("127.0.0.1:1", "")).await;
    backoff.start_all(&[]);
    preflight.all_say(503, "preflight").await;
    preflight.all_panic().await;
    backoff.all_say(503, "backoff").await;
    backoff.all_panic().await;
}

async fn streaming(server: &PostgresServer, brokers: &str) {
    let mut scene = Scene::new(server, "streaming", (brokers, "")).await;
    scene.start_all(&STREAMING);
    scene.all_stream().await;
    // Second copies of the first of them, before that ends.
    let name = scene.armed[0].bridge.name().to_owned();
    let first: Vec<Armed> = scene.armed.drain(..).collect();
    for place in ALWAYS {
        scene.start(&name, place);
    }
    scene.all_say(503, "standby").await;
    let standby: Vec<Armed> = std::mem::replace(&mut scene.armed, first);
    let Scene { database, client, armed, .. } = scene;
    let state = "standby";
    let other = server.database().await;
    let scene = Scene { state, brokers, config: "", database: other, client, armed: standby };
    scene.all_panic().await;
    let client = database.client().await;
    Scene { state: "streaming", brokers, config: "", database, client, armed }.all_panic().await;

    let once = once();
    let mut scene = Scene::new(server, "streaming, exactly-once", (brokers, &once)).await;
    scene.start_all(&["worker", "kafka-poll"]);
    scene.all_stream().await;
    scene.all_panic().await;
}

async fn slot_creation(server: &PostgresServer, brokers: &str) {
    let mut scene = Scene::new(server, "slot creation", (brokers, "")).await;
    let waits = "BEGIN; INSERT INTO rides VALUES (-1, 1)";
    scene.client.batch_execute(waits).await.expect("write");
    scene.start_all(&[]);
    scene.all_say(503, "preflight: creating the slot").await;
    scene.all_panic().await;
}

async fn first_snapshot(server: &PostgresServer, brokers: &str) {
    let mut scene = Scene::new(server, "first snapshot", (brokers, SLOW)).await;
    scene.client.batch_execute(FILL_SLOW).await.expect("fill a table");
    scene.start_all(&SNAPSHOT);
    scene.all_say(503, "snapshot").await;
    for Armed { bridge, .. } in &scene.armed {
        eventually(PATIENCE, "rows to be read", async || {
            (metric(bridge, "rowcast_snapshot_rows_total") > 0).then_some(())
        })
        .await;
    }
    scene.all_panic().await;
}

async fn draining(server: &PostgresServer, kafka: &KafkaNode) {
    let (brokers, config) = (kafka.brokers(), "[kafka]\ndrain_timeout = \"16s\"\n");
    let mut scene = Scene::new(server, "draining", (&brokers, config)).await;
    scene.start_all(&DRAINING);
    scene.all_stream().await;
    kafka.freeze();
    write(&scene.client, 101..=200).await;
    for Armed { bridge, .. } in &scene.armed {
        eventually(PATIENCE, "records that wait", async || {
            (metric(bridge, "rowcast_records_in_flight") > 0).then_some(())
        })
        .await;
    }
    scene.armed.iter().filter(|armed| ONCE.contains(&armed.place)).for_each(Armed::arm);
    scene.armed.iter().for_each(|armed| armed.bridge.ask_to_end());
    for Armed { bridge, .. } in scene.armed.iter().filter(|armed| !ONCE.contains(&armed.place)) {
        readyz(bridge, 503, "draining").await;
    }
    scene.all_panic().await;
    kafka.thaw();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_any_thread_ends_the_process_with_70_and_its_text() {
    let kafka = kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let brokers = kafka.brokers();
    Box::pin(without_brokers(&server)).await;
    Box::pin(streaming(&server, &brokers)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_any_thread_at_the_begin_and_the_end_ends_the_process_with_70_and_its_text() {
    let kafka = private_kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let brokers = kafka.brokers();
    Box::pin(slot_creation(&server, &brokers)).await;
    Box::pin(first_snapshot(&server, &brokers)).await;
    Box::pin(draining(&server, &kafka)).await;
}

/// Those that panic as soon as they begin, or at their first work, and whether that is in a first
/// snapshot.
const PLACES: [(&str, bool); 6] = [
    ("snapshot", true),
    ("snapshot-0", true),
    ("kafka-metadata", false),
    ("watchdog", false),
    ("guard", false),
    ("kafka-delivery", false),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_who_has_just_begun_ends_the_process_with_70_and_its_text() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("panics"), kafka.brokers());
    for (n, (place, is_first)) in (0..).zip(PLACES) {
        // What reads a first snapshot is there once a pipeline.
        let name = if is_first { format!("{name}_{n}") } else { name.clone() };
        // There is something to do for each.
        write(&client, 100 * n + 1..=100 * n + 100).await;
        let env = [("TEST_ROWCAST_PANIC_IN", place), ("RUST_BACKTRACE", "0")];
        let url = &database.tcp_url;
        let mut bridge = Bridge::start_telling(&name, url, &brokers, "", (None, &env));
        let status = bridge.wait(PATIENCE);
        let log = bridge.log();
        assert_eq!(status.code(), Some(70), "{place}; log:\n{log}");
        assert!(log.contains(&format!("a test requested it in {place}")), "log:\n{log}");
    }
}
