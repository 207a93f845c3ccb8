//! The servers, the lines between them, the bridge, and what can be done to each.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rowcast::lsn::Lsn;
use tokio::task::block_in_place;
use tokio_postgres::{Client, NoTls};

use crate::check::Mode;
use crate::schedule::{Fault, Step};
use crate::support::bridge::Bridge;
use crate::support::kafka::{KafkaNode, RelayedPort};
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, wal_end};
use crate::support::process::free_port;
use crate::support::relay::{Line, Relay};
use crate::support::witness::Witness;
use crate::support::{PATIENCE, eventually, unique};
use crate::watch::Watcher;
use crate::{evidence, load, truth};

/// Longest time until rows flow again after a fault. The broker's recovery, on a busy machine, and
/// the bridge's longest wait between two tries are in it.
const RECOVERY: Duration = Duration::from_secs(90);

/// How long a bridge takes to end when it is told to: it drains before.
const END: Duration = Duration::from_secs(45);

/// Exit code of a bridge that another copy has taken over from.
const FENCED: i32 = 77;

/// Timeouts, so that what stands still is noticed in seconds instead of minutes.
const CONFIG: &str = "
[format]
position_headers = true
[postgres]
connect_timeout = \"2s\"
[watchdog]
kafka_stalled_after = \"10s\"
[kafka.properties]
\"socket.timeout.ms\" = \"3000\"
";

/// Partitions of each topic.
const PARTITIONS: i32 = 3;

pub(crate) struct World {
    /// Names the run in what is printed and kept.
    run: String,
    started: Instant,
    name: String,
    config: String,
    pub(crate) database: TestDatabase,
    postgres: PostgresServer,
    pub(crate) kafka: KafkaNode,
    to_postgres: Relay,
    to_kafka: Relay,
    bridge: Bridge,
    /// Logs of copies that have ended.
    ended: Vec<String>,
}

impl World {
    /// Starts all of it, and waits until the bridge streams.
    ///
    /// # Errors
    ///
    /// Why there can be no Kafka here.
    pub(crate) async fn start(mode: Mode, run: &str) -> Result<Self, &'static str> {
        let port = free_port();
        let to_kafka = Relay::to(port).await;
        let relayed = RelayedPort { port, advertised: to_kafka.port() };
        let kafka = block_in_place(|| KafkaNode::start_behind(relayed))?;
        let settings = [("wal_sender_timeout", "2s"), ("deadlock_timeout", "100ms")];
        let postgres = block_in_place(|| PostgresServer::start(Binaries::newest(), &settings));
        let database = postgres.database().await;
        let client = database.client().await;
        client.batch_execute(load::SCHEMA).await.expect("make the tables");
        truth::begin(&client).await;
        let name = unique("chaos");
        for table in &load::TABLES {
            kafka.create_topic(&topic(&name, table.name), PARTITIONS, &[]).await;
        }
        let to_postgres = Relay::to(postgres.port()).await;
        let config = match mode {
            Mode::AtLeastOnce => CONFIG.to_owned(),
            Mode::ExactlyOnce => format!("delivery = \"exactly-once\"\n{CONFIG}"),
        };
        let bridge = start_bridge(&name, &config, &database, &postgres, &to_postgres, &to_kafka);
        let mut world = Self {
            run: run.to_owned(),
            started: Instant::now(),
            name,
            config,
            database,
            postgres,
            kafka,
            to_postgres,
            to_kafka,
            bridge,
            ended: Vec::new(),
        };
        block_in_place(|| world.bridge.wait_until_ready(PATIENCE)).expect("the bridge starts");
        Ok(world)
    }

    /// The topics of the load's tables.
    pub(crate) fn topics(&self) -> Vec<String> {
        load::TABLES.iter().map(|table| topic(&self.name, table.name)).collect()
    }

    /// Prints what happens, and when.
    pub(crate) fn tell(&self, what: &str) {
        println!("[{} {:7.2} s] {what}", self.run, self.started.elapsed().as_secs_f64());
    }

    /// Does what the step says, and fixes it.
    pub(crate) async fn suffer(&mut self, number: usize, step: &Step) {
        tokio::time::sleep(step.pause).await;
        self.tell(&format!("{number}: {step}"));
        let lasts = step.lasts;
        match step.fault {
            Fault::KillBridge => {
                block_in_place(|| self.bridge.kill());
                tokio::time::sleep(lasts).await;
                self.bridge.start_again();
            }
            Fault::StopBridge => {
                let status = block_in_place(|| self.bridge.terminate(END));
                self.tell(&format!("it ended: {status}"));
                tokio::time::sleep(lasts).await;
                self.bridge.start_again();
            }
            Fault::FreezeBridge => {
                self.bridge.freeze();
                tokio::time::sleep(lasts).await;
                self.bridge.thaw();
            }
            Fault::CutPostgres => self.break_line(Side::Postgres, Line::Cut, step).await,
            Fault::SwallowPostgres => self.break_line(Side::Postgres, Line::BlackHole, step).await,
            Fault::SlowPostgres => self.break_line(Side::Postgres, SLOW, step).await,
            Fault::CutKafka => self.break_line(Side::Kafka, Line::Cut, step).await,
            Fault::SwallowKafka => self.break_line(Side::Kafka, Line::BlackHole, step).await,
            Fault::SlowKafka => self.break_line(Side::Kafka, SLOW, step).await,
            Fault::EndWalsender => {
                self.end_walsender().await;
                self.last(step).await;
            }
            Fault::RestartPostgres => {
                block_in_place(|| self.postgres.stop());
                self.last(step).await;
                block_in_place(|| self.postgres.start_again());
            }
            Fault::CrashPostgres => {
                block_in_place(|| self.postgres.crash());
                self.last(step).await;
                block_in_place(|| self.postgres.start_again());
            }
            Fault::FreezeKafka => {
                self.kafka.freeze();
                self.last(step).await;
                self.kafka.thaw();
            }
            Fault::RestartKafka => {
                block_in_place(|| self.kafka.stop());
                self.last(step).await;
                block_in_place(|| self.kafka.start_again());
            }
            Fault::KillKafka => {
                block_in_place(|| self.kafka.kill());
                self.last(step).await;
                block_in_place(|| self.kafka.start_again());
            }
            Fault::Twin => self.twin(step).await,
        }
        self.assert_bridge_runs();
    }

    async fn break_line(&mut self, side: Side, line: Line, step: &Step) {
        self.line(side).set(line);
        self.last(step).await;
        self.line(side).set(Line::Open);
    }

    fn line(&self, side: Side) -> &Relay {
        match side {
            Side::Postgres => &self.to_postgres,
            Side::Kafka => &self.to_kafka,
        }
    }

    /// Lets the fault last, and kills the bridge in the middle of it if the step says so.
    async fn last(&mut self, step: &Step) {
        tokio::time::sleep(step.lasts / 2).await;
        if step.with_kill {
            self.tell("the bridge is killed");
            block_in_place(|| self.bridge.kill());
            self.bridge.start_again();
        }
        tokio::time::sleep(step.lasts / 2).await;
    }

    async fn end_walsender(&self) {
        let end = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
            WHERE slot_name = $1 AND active_pid IS NOT NULL";
        let slot = format!("rowcast_{}", self.name);
        let client = self.client().await;
        client.execute(end, &[&slot]).await.expect("ask for its end");
    }

    /// A second copy runs for a while; then SIGKILL ends one of the two, unless it has ended.
    async fn twin(&mut self, step: &Step) {
        let Self { name, config, database, postgres, to_postgres, to_kafka, .. } = &*self;
        let mut twin = start_bridge(name, config, database, postgres, to_postgres, to_kafka);
        tokio::time::sleep(step.lasts).await;
        let twins_end = twin.exited();
        let first_end = self.bridge.exited();
        if twins_end.is_some() || first_end.is_some() {
            self.tell(&format!("the first: {first_end:?}, the second: {twins_end:?}"));
        }
        let keeps_second = twins_end.is_none() && (step.coin || first_end.is_some());
        if keeps_second {
            std::mem::swap(&mut self.bridge, &mut twin);
        }
        if twin.exited().is_none() && twin.pid().is_some() {
            block_in_place(|| twin.kill());
        }
        self.ended.push(twin.log());
        self.tell(if keeps_second { "the second goes on" } else { "the first goes on" });
    }

    fn assert_bridge_runs(&mut self) {
        if let Some(status) = self.bridge.exited() {
            // A copy that was ended may have been the one that had taken over; whoever supervises
            // the other starts it again.
            if status.code() == Some(FENCED) {
                self.tell("the bridge was fenced by its twin, and starts again");
                return self.bridge.start_again();
            }
            panic!("the bridge ended by itself: {status}; log:\n{}", self.bridge.log());
        }
    }

    /// A connection to the database, by a line that nobody breaks.
    pub(crate) async fn client(&self) -> Client {
        let url = &self.database.unix_url;
        eventually(PATIENCE, "a connection to the database", async || {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
            tokio::spawn(connection);
            Some(client)
        })
        .await
    }

    /// Waits until what is committed now was seen by the watcher. While a load runs, something
    /// always comes after it.
    pub(crate) async fn recover(&mut self, watcher: &Watcher) {
        let client = self.client().await;
        self.catch_up(watcher, wal_end(&client).await).await;
    }

    /// Waits until the watcher saw a commit after `end`.
    pub(crate) async fn catch_up(&mut self, watcher: &Watcher, end: Lsn) {
        let begun = Instant::now();
        while watcher.newest() < end {
            self.assert_bridge_runs();
            let waited = begun.elapsed();
            assert!(
                waited < RECOVERY,
                "nothing of what was committed after {end} after {waited:?}, but {}\n{}\nlog:\n{}",
                watcher.newest(),
                block_in_place(|| Witness::of(&self.bridge, &self.database).statement()),
                self.bridge.log_tail(),
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.tell(&format!("recovered in {:.2} s", begun.elapsed().as_secs_f64()));
    }

    /// Ends the bridge: it publishes and confirms all that it has.
    pub(crate) fn end(&mut self) {
        let status = block_in_place(|| self.bridge.terminate(END));
        assert!(status.success(), "{status}; log:\n{}", self.bridge.log());
    }

    /// Says how things stand, and keeps all there is.
    pub(crate) fn keep_evidence(&self) -> PathBuf {
        let folder = evidence::folder(&self.run);
        evidence::keep(&folder, "bridge.log", &self.bridge.log());
        for (number, log) in self.ended.iter().enumerate() {
            evidence::keep(&folder, &format!("bridge.ended.{number}.log"), log);
        }
        evidence::keep(&folder, "postgres.log", &self.postgres.log());
        let statement = Witness::of(&self.bridge, &self.database).statement();
        evidence::keep(&folder, "statement", &statement);
        evidence::copy(self.kafka.dir(), &folder.join("kafka"));
        println!("{statement}\nkept: {}", folder.display());
        folder
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_evidence();
        }
    }
}

/// A line that is slow, and not so slow that a timeout ends it.
const SLOW: Line = Line::Slow(Duration::from_millis(80));

#[derive(Debug, Clone, Copy)]
enum Side {
    Postgres,
    Kafka,
}

fn topic(name: &str, table: &str) -> String {
    format!("{name}.public.{table}")
}

fn start_bridge(
    name: &str,
    config: &str,
    database: &TestDatabase,
    postgres: &PostgresServer,
    to_postgres: &Relay,
    to_kafka: &Relay,
) -> Bridge {
    let (direct, relayed) = (postgres.port().to_string(), to_postgres.port().to_string());
    let url = database.tcp_url.replace(&direct, &relayed);
    Bridge::start(name, &url, &format!("127.0.0.1:{}", to_kafka.port()), config)
}
