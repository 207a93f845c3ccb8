//! The servers, the bridge, its kills, and the reader that sees all that is published.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rowcast::admin::List;
use rowcast::snapshot::{SnapshotState, SnapshotStatus};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio_postgres::Client;

use crate::load::{self, Written};
use crate::replay::{Delivery, Replayed, Truth};
use crate::support::bridge::{Bridge, TRUSTING};
use crate::support::consume::RecordReader;
use crate::support::kafka::KafkaNode;
use crate::support::load::Load;
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, confirmed, wal_end};
use crate::support::witness::Witness;
use crate::support::{PATIENCE, eventually, number, unique};
use crate::tables::{self, TABLES, Table};

/// Longest time until all is published, on a busy machine.
const SETTLED: Duration = Duration::from_secs(120);

/// Nothing has come for so long: look whether that was all.
const QUIET: Duration = Duration::from_millis(500);

/// How often the bridge is killed.
pub(crate) fn kills() -> usize {
    usize::try_from(number("SNAPSHOT_KILLS").unwrap_or(3)).expect("a count")
}

/// Spreads kills over steps, behind the first two, so that there is something to be cut off; one is
/// the last.
pub(crate) fn with_kills<S: Copy>(steps: &mut Vec<S>, kill: S, random: &mut StdRng) {
    for number in 0..kills() {
        let last = steps.len();
        let at = if number == 0 { last } else { random.random_range(last.min(2)..last) };
        steps.insert(at, kill);
    }
}

/// What there is at the start.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) delivery: Delivery,
    /// `snapshot.mode`.
    pub(crate) mode: &'static str,
    /// Tables that there are before the bridge.
    pub(crate) tables: Vec<&'static Table>,
    /// `postgres.tables`.
    pub(crate) patterns: Vec<String>,
    /// `memory`: with little, a table is read in many chunks.
    pub(crate) memory: &'static str,
}

impl Setup {
    /// All tables, each by its name, since one has no identity.
    pub(crate) fn all(delivery: Delivery, mode: &'static str) -> Self {
        let patterns = TABLES.iter().map(Table::full_name).collect();
        Self { delivery, mode, tables: TABLES.iter().collect(), patterns, memory: "64MB" }
    }

    fn toml(&self) -> String {
        let Self { delivery, mode, memory, .. } = self;
        format!(
            "{TRUSTING}delivery = \"{}\"\nmemory = \"{memory}\"\n{}\n[snapshot]\nmode = \"{mode}\"\n\
             [format]\nposition_headers = true\n[topics]\npartitions = 3\n",
            delivery.word(),
            tables::config(&self.patterns),
        )
    }
}

/// Everything.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    /// The tables that the load writes to.
    pub(crate) written: Written,
    name: String,
    kafka: &'static KafkaNode,
    // The database goes before its server.
    pub(crate) database: TestDatabase,
    _postgres: PostgresServer,
    bridge: Option<Bridge>,
    reader: Option<RecordReader>,
    /// What the topics told so far.
    pub(crate) replayed: Replayed,
}

impl World {
    /// Servers, tables with rows, topics; no bridge yet.
    pub(crate) async fn start(seed: u64, setup: Setup) -> Result<Self, &'static str> {
        let kafka = block_in_place(KafkaNode::shared)?;
        println!("snapshot.mode = {:?}, {}, CHAOS_SEED={seed}", setup.mode, setup.delivery.word());
        // New slots wait for what runs in any database of the server.
        let postgres = block_in_place(|| PostgresServer::start(Binaries::newest(), &[]));
        let database = postgres.database().await;
        let client = database.client().await;
        let script: String = setup.tables.iter().map(|table| table.script()).collect();
        client.batch_execute(&script).await.expect("make the tables");
        client.batch_execute("ANALYZE").await.expect("analyze");
        let name = unique("snapshots");
        for (table, topic) in TABLES.iter().zip(topics(&name)) {
            let partitions = if table.key.is_empty() { 1 } else { 3 };
            kafka.create_topic(&topic, partitions, &[]).await;
        }
        Ok(Self {
            seed,
            written: Written::of(setup.tables.iter().copied()),
            replayed: Replayed::new(setup.delivery),
            setup,
            name,
            kafka,
            database,
            _postgres: postgres,
            bridge: None,
            reader: None,
        })
    }

    /// Writers to the tables that there are, and to those that come.
    pub(crate) fn load(&self, seed: u64) -> Load {
        load::start(&self.database.unix_url, seed, &self.written)
    }

    /// Starts the bridge for the first time.
    pub(crate) fn run(&mut self) {
        let (url, brokers) = (&self.database.unix_url, self.kafka.brokers());
        self.bridge = Some(Bridge::start(&self.name, url, &brokers, &self.setup.toml()));
    }

    /// Starts it again, once it has ended.
    pub(crate) fn start_again(&mut self) {
        self.bridge().start_again();
    }

    pub(crate) async fn client(&self) -> Client {
        self.database.client().await
    }

    fn bridge(&mut self) -> &mut Bridge {
        self.bridge.as_mut().expect("it was started")
    }

    /// Fails the test when the bridge has ended.
    pub(crate) fn assert_runs(&mut self) {
        if let Some(status) = self.bridge().exited() {
            panic!("the bridge ended by itself: {status}; {}", self.told());
        }
    }

    /// Whether it has ended by itself, without a failure.
    fn has_ended(&mut self) -> bool {
        self.bridge().exited().is_some_and(|status| status.success())
    }

    /// All that the bridge has logged.
    pub(crate) fn log(&mut self) -> String {
        self.bridge().log()
    }

    /// Kills the bridge, and starts it again: some time after its start, or after it has begun to
    /// read rows.
    pub(crate) async fn kill_at_a_moment(&mut self, random: &mut StdRng) {
        let reading = random.random_bool(0.6);
        if reading {
            eventually(SETTLED, "rows to be read", async || {
                let ended = self.has_ended();
                let (_, said) = self.bridge().get("/readyz").unwrap_or_default();
                (ended || said.starts_with("snapshot") || said.starts_with("streaming"))
                    .then_some(())
            })
            .await;
        }
        let moment = random.random_range(0..if reading { 700 } else { 3_000 });
        tokio::time::sleep(Duration::from_millis(moment)).await;
        if self.has_ended() {
            return;
        }
        let said = self.bridge().get("/readyz").map(|(_, said)| said.trim().to_owned());
        self.kill();
        println!(
            "killed {moment} ms {}, {said:?}",
            if reading { "later" } else { "after its start" }
        );
        self.start_again();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.assert_runs();
        block_in_place(|| self.bridge().kill());
    }

    /// Configures one more pattern, for the next time that the configuration is read.
    pub(crate) fn configure(&mut self, pattern: String) {
        self.setup.patterns.push(pattern);
        let toml = self.setup.toml();
        self.bridge().configure(&toml);
    }

    /// SIGHUP.
    pub(crate) async fn hang_up(&mut self) {
        self.hears_signals().await;
        self.bridge().hang_up();
    }

    /// Whoever is told anything before is killed by that.
    async fn hears_signals(&mut self) {
        eventually(SETTLED, "the bridge to hear signals", async || {
            self.assert_runs();
            self.bridge().get("/livez")
        })
        .await;
    }

    /// SIGTERM, and another start once it has ended.
    pub(crate) async fn end_and_start_again(&mut self) {
        self.hears_signals().await;
        let status = block_in_place(|| self.bridge().terminate(PATIENCE));
        assert!(status.success(), "{status}; {}", self.told());
        self.start_again();
    }

    /// The bridge's answer to a request.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        self.assert_runs();
        block_in_place(|| self.bridge().ask(method, path, "", body))
    }

    /// The file of the token that it asks for.
    pub(crate) fn token_file(&mut self) -> String {
        self.bridge().token_file().expect("it has one").to_owned()
    }

    /// Where the bridge is asked.
    pub(crate) fn admin_address(&mut self) -> String {
        format!("127.0.0.1:{}", self.bridge().admin_port())
    }

    /// How far snapshots are that are read while the stream runs; `None` while nobody answers.
    pub(crate) fn snapshots(&mut self) -> Option<Vec<SnapshotStatus>> {
        let (_, list) = self.ask("GET", "/snapshots", &Value::Null)?;
        let list: List = serde_json::from_value(list).expect("a list of snapshots");
        Some(list.snapshots.into_iter().map(|listed| listed.status).collect())
    }

    /// Kills the bridge, and starts it again: while a snapshot reads rows, or soon after,
    /// or at any moment of its start.
    pub(crate) async fn kill_beside_the_stream(&mut self, random: &mut StdRng) {
        let patience = Duration::from_secs(if random.random_bool(0.8) { 5 } else { 0 });
        let moment = random.random_range(0..if patience.is_zero() { 2_000 } else { 300 });
        let begun = Instant::now();
        let is_running = |status: &SnapshotStatus| status.state == SnapshotState::Running;
        while begun.elapsed() < patience
            && !self.snapshots().is_some_and(|snapshots| snapshots.iter().any(is_running))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(moment)).await;
        let snapshots = self.snapshots().unwrap_or_default();
        self.kill();
        let open = snapshots.iter().filter(|status| !status.state.is_end());
        let open = open.map(|SnapshotStatus { table, state, rows, .. }| {
            format!("{table} {} {rows}", state.word())
        });
        println!("killed {moment} ms later: {}", open.collect::<Vec<_>>().join(", "));
        self.start_again();
    }

    /// Waits until all tables are published and all snapshots have ended.
    pub(crate) async fn all_read(&mut self) {
        let client = self.client().await;
        let query = "SELECT count(DISTINCT tablename) FROM pg_publication_tables
                     WHERE pubname::text IN ($1, $1 || '_inserts')";
        let publication = format!("rowcast_{}", self.name);
        eventually(SETTLED, "all tables to be published", async || {
            self.assert_runs();
            let row = client.query_one(query, &[&publication]).await.expect("ask");
            (usize::try_from(row.get::<_, i64>(0)) == Ok(TABLES.len())).then_some(())
        })
        .await;
        // So what is asked for in the stream has been heard.
        self.rows_flow().await;
        eventually(SETTLED, "all snapshots to end", async || {
            self.assert_runs();
            let snapshots = self.snapshots()?;
            snapshots.iter().all(|status| status.state.is_end()).then_some(())
        })
        .await;
        let log = self.log();
        for refused in ["snapshot failed", "snapshot refused"] {
            assert!(!log.contains(refused), "{refused}; {}", self.told());
        }
    }

    /// Waits until the first snapshot, if there is one, is over and the stream goes on.
    pub(crate) async fn streams(&mut self) {
        eventually(SETTLED, "the stream to begin", async || {
            self.assert_runs();
            self.bridge().get("/readyz").filter(|(status, _)| *status == 200)
        })
        .await;
    }

    /// Waits until what is committed now is published; by a slot that there is already.
    pub(crate) async fn rows_flow(&mut self) {
        let client = self.client().await;
        let end = wal_end(&client).await;
        let message = "SELECT pg_logical_emit_message(true, 'rowcast.test', '')";
        eventually(SETTLED, "everything to be confirmed", async || {
            self.assert_runs();
            client.query(message, &[]).await.expect("write a message");
            let is_confirmed = confirmed(&client, &self.name).await.is_some_and(|at| at >= end);
            if !is_confirmed {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            is_confirmed.then_some(())
        })
        .await;
    }

    /// Lets the load write for a while.
    pub(crate) async fn last_for_a_while(&self) {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    /// Replays what is published by now.
    fn replay(&mut self) {
        block_in_place(|| {
            let topics = topics(&self.name);
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let brokers = self.kafka.brokers();
            let reader = self.reader.get_or_insert_with(|| {
                let mut reader = RecordReader::open(&brokers, &topics, PATIENCE);
                reader.witness =
                    self.bridge.as_ref().map(|bridge| Witness::of(bridge, &self.database));
                reader
            });
            reader.until_quiet(QUIET);
            self.replayed.replay(&std::mem::take(&mut reader.records));
        });
    }

    /// Waits, once the load has stopped, until the topics tell what the tables are, ends the bridge,
    /// and looks again. With `lenient`, rows that are gone may stay.
    pub(crate) async fn settle(&mut self, lenient: bool) -> Truth {
        let truth = Truth::read(&self.client().await).await;
        let begun = Instant::now();
        while let Some(differences) = self.differences(&truth, lenient) {
            let waited = begun.elapsed();
            assert!(waited < SETTLED, "after {waited:?}: {differences}\n{}", self.told());
            self.assert_runs();
        }
        println!("settled after {:?}", begun.elapsed());
        let status = block_in_place(|| self.bridge().terminate(PATIENCE));
        assert!(status.success(), "{status}; {}", self.told());
        self.judge(&truth, lenient);
        truth
    }

    /// As [`World::settle`], for a bridge that has ended.
    pub(crate) async fn settle_ended(&mut self) -> Truth {
        let truth = Truth::read(&self.client().await).await;
        self.judge(&truth, false);
        truth
    }

    /// Waits until everything is published, whatever that is.
    pub(crate) async fn publish(&mut self) -> Truth {
        self.rows_flow().await;
        self.replay();
        Truth::read(&self.client().await).await
    }

    fn judge(&mut self, truth: &Truth, lenient: bool) {
        if let Some(differences) = self.differences(truth, lenient) {
            panic!("at the end: {differences}\n{}", self.told());
        }
    }

    /// Where the tables are other than the topics tell by now; what they tell must be sound in any
    /// case.
    fn differences(&mut self, truth: &Truth, lenient: bool) -> Option<String> {
        self.replay();
        if let Some(problems) = self.replayed.problems() {
            panic!("{problems}\n{}", self.told());
        }
        self.replayed.differences(truth, lenient)
    }

    /// For whoever looks into a failure.
    pub(crate) fn told(&mut self) -> String {
        let log = self.log();
        format!("CHAOS_SEED={}; log:\n{log}", self.seed)
    }

    /// Waits until the bridge has done all it was to do.
    pub(crate) async fn ends_by_itself(&mut self) {
        let status = block_in_place(|| self.bridge().wait(SETTLED));
        assert!(status.success(), "{status}; {}", self.told());
    }

    /// Where moments are drawn from.
    pub(crate) fn moments(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }
}

impl Drop for World {
    /// All rounds share the brokers, whose memory the topics of a hundred would fill.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.bridge = None;
        self.reader = None;
        let topics = topics(&self.name);
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        block_in_place(|| Handle::current().block_on(self.kafka.discard_topics(&topics)));
    }
}

/// A topic for each table, in their order.
fn topics(name: &str) -> Vec<String> {
    TABLES.iter().map(|table| format!("{name}.public.{}", table.name)).collect()
}
