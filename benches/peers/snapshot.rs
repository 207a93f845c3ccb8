//! A table of taxi rows, published by each contestant from the first row to the last.
//!
//! What bounds a snapshot is measured beside it: as many connections that read the same pages and
//! let them go; a bare librdkafka producer that sends records of the same sizes as fast as it can; both
//! in one, which reads each row and sends a record that was made before; and the broker alone, which
//! is sent the batches that rowcast made. `DEBEZIUM=1` (`make bench-debezium`)
//! adds Debezium at its best tuning.
//!
//! The time runs from the start of a process until a consumer of committed records could see as
//! many as there are rows; for the readers, until the process ends. "Steady" leaves out the start:
//! it is the rate from a fifth of the records to the last. Where all cores are at work, what counts is
//! how much of them a row costs, whom: the seconds of the contestant's own process, of the broker's
//! and of Postgres' are told for each.
//!
//! A JVM compiles what it runs often, for many seconds, and takes that time from whoever runs beside
//! it. So `WARM_UP` (4) runs that don't count come first, and the broker is as warm for the first as
//! for the last.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio_postgres::Client;

use crate::bounds;
use crate::debezium::{self, Connector};
use crate::sample::{Sampler, Usage, family_cpu_s, machine, median};
use crate::support::bridge::Bridge;
use crate::support::kafka::{KafkaNode, client_config};
use crate::support::postgres::{Binaries, PostgresServer, connect};
use crate::support::unique;
use crate::trips::{PUBLICATION, TABLE};

const SCHEMA: &str = include_str!("workload.sql");
const LIMIT: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contestant {
    Rowcast,
    RowcastExactlyOnce,
    Copy,
    Producer,
    Both,
    Broker,
    Debezium,
}

impl Contestant {
    const fn name(self) -> &'static str {
        match self {
            Self::Rowcast => "rowcast to Kafka, snapshot only",
            Self::RowcastExactlyOnce => "rowcast to Kafka, snapshot only, exactly once",
            Self::Copy => "COPY of the same ranges, let go",
            Self::Producer => "librdkafka alone, records of the same sizes",
            Self::Both => "COPY let go, a made record sent for each row",
            Self::Broker => "the broker alone, sent the same batches",
            Self::Debezium => "Debezium to Kafka, snapshot only, tuned",
        }
    }
}

struct Run {
    contestant: Contestant,
    rows_per_s: f64,
    steady_per_s: f64,
    /// How much of all cores was at work, whoever's, while it was steady.
    busy: f64,
    own: Usage,
    /// What the servers used meanwhile, in seconds.
    broker_cpu_s: f64,
    postgres_cpu_s: f64,
}

/// What all contestants share.
struct Stage<'a> {
    server: &'a PostgresServer,
    client: Client,
    kafka: &'a KafkaNode,
    rows: u64,
    connections: usize,
    /// Records as rowcast publishes them, for the bare producer.
    sample: PathBuf,
    /// All of them as the broker keeps them.
    batches: PathBuf,
}

/// Loads the table, lets everyone publish it, prints the figures.
pub(crate) async fn run(kafka: &KafkaNode, rows: u64, rounds: u64) {
    let server = PostgresServer::start(
        Binaries::newest(),
        &[
            ("synchronous_commit", "off"),
            ("autovacuum", "off"),
            ("shared_buffers", "1GB"),
            ("max_wal_size", "20GB"),
        ],
    );
    let directory = tempfile::tempdir().expect("a folder");
    let client = load(&server, rows).await;
    let connections = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
    let (sample, batches) = (directory.path().join("records"), directory.path().join("batches"));
    let stage = Stage { server: &server, client, kafka, rows, connections, sample, batches };
    let mut contestants = vec![
        Contestant::Rowcast,
        Contestant::RowcastExactlyOnce,
        Contestant::Copy,
        Contestant::Producer,
        Contestant::Both,
        Contestant::Broker,
    ];
    if std::env::var_os("DEBEZIUM").is_some() {
        contestants.push(Contestant::Debezium);
    }
    for number in 0..crate::setting("WARM_UP", 4) {
        let contestant = if number == 0 { Contestant::Rowcast } else { Contestant::Producer };
        let rate = stage.run(contestant).await.rows_per_s;
        println!("to warm the broker up: {}: {rate:.0} rows/s", contestant.name());
    }
    let mut runs = Vec::new();
    for round in 1..=rounds {
        for contestant in &contestants {
            let run = stage.run(*contestant).await;
            let (name, rate) = (contestant.name(), run.rows_per_s);
            println!("round {round} of {rounds}: {name}: {rate:.0} rows/s");
            runs.push(run);
        }
    }
    print(&contestants, &runs, rows, connections);
}

async fn load(server: &PostgresServer, rows: u64) -> Client {
    let started = Instant::now();
    let client = connect(&server.unix_url("postgres")).await;
    client.batch_execute(SCHEMA).await.expect("make the functions");
    client.batch_execute(&format!("SELECT mktable('{TABLE}')")).await.expect("make the table");
    client.batch_execute(&format!("SELECT ins('{TABLE}', 1, {rows})")).await.expect("load");
    client.batch_execute(&format!("VACUUM ANALYZE {TABLE}")).await.expect("vacuum");
    client.batch_execute("CHECKPOINT").await.expect("write it out");
    println!("loaded {rows} rows in {:.1} s", started.elapsed().as_secs_f64());
    client
}

impl Stage<'_> {
    async fn run(&self, contestant: Contestant) -> Run {
        let name = unique("only");
        let connector =
            Connector { port: self.server.port(), slot: &name, threads: self.connections };
        // Debezium has its own names for topics.
        let topic = connector.topic();
        self.kafka.create_topic(&topic, 1, &[]).await;
        let before = self.servers();
        let (seen, own) = match contestant {
            Contestant::Rowcast | Contestant::RowcastExactlyOnce => {
                self.rowcast(contestant, &name, &topic).await
            }
            Contestant::Copy => self.copy(),
            Contestant::Producer => {
                let sample = self.sample.display().to_string();
                let (rows, threads) = (self.rows.to_string(), self.connections.to_string());
                self.send("produce", &topic, &[&sample, &rows, &threads]).await
            }
            Contestant::Both => {
                let (sample, url) =
                    (self.sample.display().to_string(), self.server.tcp_url("postgres"));
                self.send("both", &topic, &[&sample, &url, &self.connections.to_string()]).await
            }
            Contestant::Broker => {
                let batches = self.batches.display().to_string();
                self.send("replay", &topic, &[&batches]).await
            }
            Contestant::Debezium => self.debezium(&connector, &topic).await,
        };
        let after = self.servers();
        if !self.batches.exists() {
            let log = format!("data/{topic}-0/00000000000000000000.log");
            std::fs::copy(self.kafka.dir().join(log), &self.batches).expect("keep the batches");
        }
        self.kafka.delete_topic(&topic).await;
        let rate = |rows: u64, time: Duration| {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rows = rows as f64;
            rows / time.as_secs_f64()
        };
        let steady = seen.whole.saturating_sub(seen.fifth);
        let (worked, all) =
            (seen.machine.1.0 - seen.machine.0.0, seen.machine.1.1 - seen.machine.0.1);
        Run {
            contestant,
            rows_per_s: rate(self.rows, seen.whole),
            steady_per_s: rate(self.rows - seen.rows_then, steady),
            busy: worked / all,
            own,
            broker_cpu_s: after.0 - before.0,
            postgres_cpu_s: after.1 - before.1,
        }
    }

    /// What the broker and Postgres have used since they were started, in seconds.
    fn servers(&self) -> (f64, f64) {
        let used = |pid: Option<u32>| family_cpu_s(pid.expect("it runs"));
        (used(self.kafka.pid()), used(self.server.pid()))
    }

    async fn rowcast(&self, contestant: Contestant, name: &str, topic: &str) -> (Seen, Usage) {
        let delivery = match contestant {
            Contestant::RowcastExactlyOnce => "exactly-once",
            _ => "at-least-once",
        };
        let config = format!(
            "delivery = \"{delivery}\"\n[postgres]\npublication = \"{PUBLICATION}\"\n\
             tables = [\"public.{TABLE}\"]\n[tables.\"public.{TABLE}\"]\ntopic = \"{topic}\"\n\
             [snapshot]\nmode = \"only\"\n"
        );
        let started = Instant::now();
        let url = self.server.tcp_url("postgres");
        let mut bridge = Bridge::start(name, &url, &self.kafka.brokers(), &config);
        let own = Sampler::watch(bridge.pid().expect("the bridge runs"));
        let seen = self.watch(topic, started, || bridge.log()).await;
        let status = bridge.wait(LIMIT);
        assert!(status.success(), "{status}; log:\n{}", bridge.log());
        if !self.sample.exists() {
            let (brokers, topic, file) =
                (self.kafka.brokers(), topic.to_owned(), self.sample.clone());
            let kept = move || bounds::keep(&brokers, &topic, &file);
            tokio::task::spawn_blocking(kept).await.expect("a sample");
        }
        (seen, own.finish())
    }

    /// Reads all pages as rowcast does, and lets the rows go.
    fn copy(&self) -> (Seen, Usage) {
        let url = self.server.tcp_url("postgres");
        let (started, before) = (Instant::now(), machine());
        let mut child = contestant(&["copy", &url, &self.connections.to_string()]);
        let own = Sampler::watch(child.id());
        let status = child.wait().expect("wait for a child of ours");
        let (whole, machine) = (started.elapsed(), (before, machine()));
        assert!(status.success(), "the readers: {status}");
        (Seen { rows_then: 0, fifth: Duration::ZERO, whole, machine }, own.finish())
    }

    /// Has records sent by this program, as fast as the broker takes them.
    async fn send(&self, what: &str, topic: &str, more: &[&str]) -> (Seen, Usage) {
        let started = Instant::now();
        let brokers = self.kafka.brokers();
        let mut child = contestant(&[&[what, &brokers, topic], more].concat());
        let own = Sampler::watch(child.id());
        let seen = self.watch(topic, started, String::new).await;
        let status = child.wait().expect("wait for a child of ours");
        assert!(status.success(), "{what}: {status}");
        (seen, own.finish())
    }

    async fn debezium(&self, connector: &Connector<'_>, topic: &str) -> (Seen, Usage) {
        let started = Instant::now();
        let worker = debezium::start(&self.kafka.brokers(), connector);
        let own = Sampler::watch(worker.pid().expect("the worker runs"));
        let seen = self.watch(topic, started, || worker.log_tail()).await;
        let own = own.finish();
        drop(worker);
        let started = Instant::now();
        let drop_slot = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
            WHERE slot_name = $1";
        while let Err(error) = self.client.execute(drop_slot, &[&connector.slot]).await {
            assert!(started.elapsed() < LIMIT, "drop the slot: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (seen, own)
    }

    /// Until a consumer could see as many records as there are rows.
    async fn watch(&self, topic: &str, started: Instant, log: impl Fn() -> String) -> Seen {
        let consumer: BaseConsumer = client_config(&self.kafka.brokers())
            .set("isolation.level", "read_committed")
            .create()
            .expect("a consumer");
        let mut fifth = None;
        loop {
            let (_, high) =
                consumer.fetch_watermarks(topic, 0, Duration::from_secs(5)).unwrap_or_default();
            let high = u64::try_from(high).unwrap_or_default();
            let now = started.elapsed();
            if high >= self.rows / 5 && fifth.is_none() {
                fifth = Some((high.min(self.rows), now, machine()));
            }
            if high >= self.rows {
                let (rows_then, fifth, before) = fifth.unwrap_or_default();
                return Seen { rows_then, fifth, whole: now, machine: (before, machine()) };
            }
            assert!(now < LIMIT, "{high} records so far; log:\n{}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// When records were there.
#[derive(Debug, Default)]
struct Seen {
    /// Records that were there when a fifth of them was.
    rows_then: u64,
    fifth: Duration,
    whole: Duration,
    /// What the machine had done at both.
    machine: ((f64, f64), (f64, f64)),
}

/// This program again, as one of the contestants: a process of its own, measured as all others are.
fn contestant(arguments: &[&str]) -> Child {
    let own = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(Path::new(&own));
    command.arg(bounds::FLAG).args(arguments).stdin(Stdio::null());
    command.spawn().expect("start this program again")
}

fn print(contestants: &[Contestant], runs: &[Run], rows: u64, connections: usize) {
    let of = |contestant: Contestant, what: fn(&Run) -> f64| {
        median(runs.iter().filter(|run| run.contestant == contestant).map(what).collect())
    };
    println!(
        "\nsnapshot of {rows} rows over {connections} connections; medians; CPU seconds in all\n"
    );
    println!(
        "{:<46} {:>9} {:>9} {:>6} {:>7} {:>7} {:>8} {:>9}",
        "", "rows/s", "steady", "busy", "own s", "broker", "Postgres", "peak MiB"
    );
    for contestant in contestants {
        println!(
            "{:<46} {:>9.0} {:>9.0} {:>4.0} % {:>7.2} {:>7.2} {:>8.2} {:>9.1}",
            contestant.name(),
            of(*contestant, |run| run.rows_per_s),
            of(*contestant, |run| run.steady_per_s),
            of(*contestant, |run| 100.0 * run.busy),
            of(*contestant, |run| run.own.cpu_s),
            of(*contestant, |run| run.broker_cpu_s),
            of(*contestant, |run| run.postgres_cpu_s),
            of(*contestant, |run| run.own.peak_mib),
        );
    }
    println!("\n{:<46} {:>10} {:>10}", "rowcast, compared with", "whole", "steady");
    for other in contestants.iter().filter(|other| **other != Contestant::Rowcast) {
        let ratio = |what: fn(&Run) -> f64| of(Contestant::Rowcast, what) / of(*other, what);
        println!(
            "{:<46} {:>10.2} {:>10.2}",
            other.name(),
            ratio(|run| run.rows_per_s),
            ratio(|run| run.steady_per_s),
        );
    }
}
