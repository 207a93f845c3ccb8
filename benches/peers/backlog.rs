//! A backlog of taxi rows, drained by each contestant from its own copy of one slot.
//!
//! The time runs from the start of the process to its last row: for `pg_recvlogical` its exit at
//! the end position, for rowcast the moment when a consumer of committed records could see as many
//! as there were rows.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use rowcast::lsn::Lsn;
use tokio_postgres::Client;

use crate::sample::{Sampler, Usage, median, usage};
use crate::support::bridge::Bridge;
use crate::support::kafka::{KafkaNode, client_config};
use crate::support::postgres::{Binaries, PostgresServer, connect, wal_end};
use crate::support::unique;

const SCHEMA: &str = include_str!("workload.sql");
const LIMIT: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contestant {
    RecvlogicalTcp,
    RecvlogicalUnix,
    RowcastTcp,
    RowcastUnix,
    RowcastExactlyOnce,
}

impl Contestant {
    const ALL: [Self; 5] = [
        Self::RecvlogicalTcp,
        Self::RowcastTcp,
        Self::RowcastExactlyOnce,
        Self::RecvlogicalUnix,
        Self::RowcastUnix,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::RecvlogicalTcp => "pg_recvlogical to /dev/null, TCP",
            Self::RecvlogicalUnix => "pg_recvlogical to /dev/null, Unix socket",
            Self::RowcastTcp => "rowcast to Kafka, TCP",
            Self::RowcastUnix => "rowcast to Kafka, Unix socket",
            Self::RowcastExactlyOnce => "rowcast to Kafka, TCP, exactly once",
        }
    }
}

struct Run {
    contestant: Contestant,
    rows_per_s: f64,
    own: Usage,
    walsender_cpu_s: f64,
}

struct Backlog<'a> {
    server: &'a PostgresServer,
    client: Client,
    kafka: &'a KafkaNode,
    rows: u64,
    end_lsn: Lsn,
}

/// Loads the backlog, lets everyone drain it, prints the table.
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
    let backlog = load(&server, kafka, rows).await;
    let mut runs = Vec::new();
    for round in 0..rounds {
        for contestant in Contestant::ALL {
            let run = backlog.drain(contestant).await;
            println!(
                "round {} of {rounds}: {}: {:.0} rows/s",
                round + 1,
                contestant.name(),
                run.rows_per_s
            );
            runs.push(run);
        }
    }
    print(&runs, rows);
}

async fn load<'a>(server: &'a PostgresServer, kafka: &'a KafkaNode, rows: u64) -> Backlog<'a> {
    let started = Instant::now();
    let client = connect(&server.unix_url("postgres")).await;
    client.batch_execute(SCHEMA).await.expect("make the functions");
    client.batch_execute("SELECT mktable('w1k')").await.expect("make the table");
    client
        .batch_execute("SELECT pg_create_logical_replication_slot('base', 'pgoutput')")
        .await
        .expect("make the slot");
    client.batch_execute(&format!("CALL load('w1k', {rows}, 1000)")).await.expect("load");
    let end_lsn = wal_end(&client).await;
    // Something after the end, so that whoever waits for the end position is told of it.
    client.batch_execute("CREATE TABLE after_the_end ()").await.expect("write a little more");
    println!("loaded {rows} rows in {:.1} s", started.elapsed().as_secs_f64());
    Backlog { server, client, kafka, rows, end_lsn }
}

impl Backlog<'_> {
    async fn drain(&self, contestant: Contestant) -> Run {
        let slot = unique("run");
        let copy = format!("SELECT pg_copy_logical_replication_slot('base', '{slot}')");
        self.client.batch_execute(&copy).await.expect("copy the slot");
        let run = match contestant {
            Contestant::RecvlogicalTcp | Contestant::RecvlogicalUnix => {
                self.recvlogical(contestant, &slot).await
            }
            Contestant::RowcastTcp | Contestant::RowcastUnix | Contestant::RowcastExactlyOnce => {
                self.rowcast(contestant, &slot).await
            }
        };
        self.drop_slot(&slot).await;
        run
    }

    async fn recvlogical(&self, contestant: Contestant, slot: &str) -> Run {
        let url = match contestant {
            Contestant::RecvlogicalUnix => self.server.unix_url("postgres"),
            _ => self.server.tcp_url("postgres"),
        };
        let started = Instant::now();
        let mut child = Command::new(recvlogical_program())
            .args(["--start", "--no-loop", "--file=/dev/null", "--plugin=pgoutput"])
            .args(["--option=proto_version=1", "--option=publication_names=pub_w1k"])
            .arg(format!("--dbname={url}"))
            .arg(format!("--slot={slot}"))
            .arg(format!("--endpos={}", self.end_lsn))
            .stdout(Stdio::null())
            .spawn()
            .expect("run pg_recvlogical");
        let own = Sampler::watch(child.id());
        let walsender = Sampler::watch(self.walsender(slot).await);
        let status = tokio::task::spawn_blocking(move || child.wait())
            .await
            .expect("no panic")
            .expect("wait for a child of ours");
        let elapsed = started.elapsed();
        assert!(status.success(), "pg_recvlogical: {status}");
        self.measured(contestant, elapsed, own.finish(), walsender.finish())
    }

    async fn rowcast(&self, contestant: Contestant, slot: &str) -> Run {
        let url = match contestant {
            Contestant::RowcastUnix => self.server.unix_url("postgres"),
            _ => self.server.tcp_url("postgres"),
        };
        let topic = unique("w1k");
        self.kafka.create_topic(&topic, 1, &[]).await;
        let delivery = match contestant {
            Contestant::RowcastExactlyOnce => "exactly-once",
            _ => "at-least-once",
        };
        let config = format!(
            "delivery = \"{delivery}\"\n[postgres]\nslot = \"{slot}\"\npublication = \"pub_w1k\"\nmanage = false\n\
             tables = [\"public.w1k\"]\n[tables.\"public.w1k\"]\ntopic = \"{topic}\"\n"
        );
        // What a consumer can see: a Kafka transaction counts when it is committed.
        let watermarks: BaseConsumer = client_config(&self.kafka.brokers())
            .set("isolation.level", "read_committed")
            .create()
            .expect("a consumer");
        let started = Instant::now();
        // A name of its own, or it would go on where the last one stopped.
        let mut bridge = Bridge::start(slot, &url, &self.kafka.brokers(), &config);
        let pid = bridge.pid().expect("the bridge runs");
        let walsender = Sampler::watch(self.walsender(slot).await);
        loop {
            let (_, high) =
                watermarks.fetch_watermarks(&topic, 0, Duration::from_secs(5)).unwrap_or_default();
            if high >= i64::try_from(self.rows).expect("fewer rows than 2^63") {
                break;
            }
            assert!(started.elapsed() < LIMIT, "{high} records so far; log:\n{}", bridge.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let elapsed = started.elapsed();
        let own = usage(pid).expect("the bridge runs");
        let walsender = walsender.finish();
        let status = bridge.terminate(Duration::from_secs(30));
        assert!(status.success(), "{status}; log:\n{}", bridge.log());
        let topic = topic.clone();
        let brokers = self.kafka.brokers();
        let counted = tokio::task::spawn_blocking(move || count(&brokers, &topic)).await;
        assert_eq!(counted.expect("no panic"), self.rows, "each row is there exactly once");
        self.measured(contestant, elapsed, own, walsender)
    }

    fn measured(
        &self,
        contestant: Contestant,
        elapsed: Duration,
        own: Usage,
        walsender: Usage,
    ) -> Run {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rows_per_s = self.rows as f64 / elapsed.as_secs_f64();
        Run { contestant, rows_per_s, own, walsender_cpu_s: walsender.cpu_s }
    }

    /// The process that serves the slot, once there is one.
    async fn walsender(&self, slot: &str) -> u32 {
        let query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1";
        let started = Instant::now();
        loop {
            let row = self.client.query_one(query, &[&slot]).await.expect("ask for the slot");
            if let Some(pid) = row.get::<_, Option<i32>>(0) {
                return u32::try_from(pid).expect("a process id");
            }
            assert!(started.elapsed() < LIMIT, "nobody reads slot {slot}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn drop_slot(&self, slot: &str) {
        let started = Instant::now();
        while let Err(error) =
            self.client.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await
        {
            assert!(started.elapsed() < LIMIT, "drop slot {slot}: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Records in the only partition of a topic, without the markers of transactions. Blocks.
fn count(brokers: &str, topic: &str) -> u64 {
    let consumer: BaseConsumer = client_config(brokers)
        .set("group.id", "bench")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut from_start = TopicPartitionList::new();
    from_start.add_partition_offset(topic, 0, Offset::Beginning).expect("an offset");
    consumer.assign(&from_start).expect("assign the partition");
    let started = Instant::now();
    let mut records = 0;
    loop {
        match consumer.poll(Duration::from_secs(1)) {
            Some(Ok(_)) => records += 1,
            Some(Err(KafkaError::PartitionEOF(_))) => return records,
            Some(Err(error)) => println!("counting: {error}"),
            None => {}
        }
        assert!(started.elapsed() < LIMIT, "{records} records counted so far");
    }
}

/// Only the machine's own PostgreSQL has the client programs; any version reads any server.
fn recvlogical_program() -> String {
    let found = std::fs::read_dir("/usr/lib/postgresql").ok().and_then(|versions| {
        let programs =
            versions.filter_map(|entry| Some(entry.ok()?.path().join("bin/pg_recvlogical")));
        programs.filter(|program| program.is_file()).max()
    });
    found.map_or_else(|| "pg_recvlogical".to_owned(), |path| path.display().to_string())
}

fn print(runs: &[Run], rows: u64) {
    let of = |contestant: Contestant, what: fn(&Run) -> f64| {
        median(runs.iter().filter(|run| run.contestant == contestant).map(what).collect())
    };
    println!("\nbacklog of {rows} rows in transactions of 1,000; medians\n");
    println!(
        "{:<42} {:>10} {:>10} {:>16} {:>10}",
        "", "rows/s", "CPU s", "walsender CPU s", "peak MiB"
    );
    for contestant in Contestant::ALL {
        println!(
            "{:<42} {:>10.0} {:>10.2} {:>16.2} {:>10.1}",
            contestant.name(),
            of(contestant, |run| run.rows_per_s),
            of(contestant, |run| run.own.cpu_s),
            of(contestant, |run| run.walsender_cpu_s),
            of(contestant, |run| run.own.peak_mib),
        );
    }
    let ratio = |a, b| of(a, |run| run.rows_per_s) / of(b, |run| run.rows_per_s);
    println!();
    for (a, b) in [
        (Contestant::RowcastTcp, Contestant::RecvlogicalTcp),
        (Contestant::RowcastUnix, Contestant::RecvlogicalUnix),
        (Contestant::RowcastUnix, Contestant::RowcastTcp),
        (Contestant::RowcastExactlyOnce, Contestant::RowcastTcp),
    ] {
        println!("{} / {}: {:.2}", a.name(), b.name(), ratio(a, b));
    }
}
