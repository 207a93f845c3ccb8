//! The servers, the bridge, its kills, and the reader that sees all that is published.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::block_in_place;
use tokio_postgres::Client;

use crate::replay::{Delivery, Replayed, Truth};
use crate::support::bridge::Bridge;
use crate::support::consume::RecordReader;
use crate::support::kafka::KafkaNode;
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase};
use crate::support::witness::Witness;
use crate::support::{PATIENCE, eventually, unique};
use crate::tables::{self, CONFIG, TABLES};

/// Longest time until all is published, on a busy machine.
const SETTLED: Duration = Duration::from_secs(120);

/// Nothing has come for so long: look whether that was all.
const QUIET: Duration = Duration::from_millis(500);

/// A variable of the environment, as a number.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// How often the bridge is killed.
pub(crate) fn kills() -> usize {
    usize::try_from(number("SNAPSHOT_KILLS").unwrap_or(3)).expect("a count")
}

fn seed() -> u64 {
    number("CHAOS_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()))
}

/// Everything.
pub(crate) struct World {
    pub(crate) seed: u64,
    delivery: Delivery,
    config: String,
    name: String,
    kafka: &'static KafkaNode,
    // The database goes before its server.
    pub(crate) database: TestDatabase,
    _postgres: PostgresServer,
    bridge: Option<Bridge>,
    reader: Option<RecordReader>,
}

impl World {
    /// Servers, tables with rows, topics; no bridge yet.
    pub(crate) async fn start(delivery: Delivery, mode: &str) -> Result<Self, &'static str> {
        let kafka = block_in_place(KafkaNode::shared)?;
        let seed = seed();
        println!("snapshot.mode = {mode:?}, {}, CHAOS_SEED={seed}", delivery.word());
        // New slots wait for what runs in any database of the server.
        let postgres = block_in_place(|| PostgresServer::start(Binaries::newest(), &[]));
        let database = postgres.database().await;
        let client = database.client().await;
        client.batch_execute(&tables::schema()).await.expect("make the tables");
        client.batch_execute("ANALYZE").await.expect("analyze");
        let name = unique("snapshots");
        for table in &TABLES {
            let partitions = if table.key.is_empty() { 1 } else { 3 };
            let topic = format!("{name}.public.{}", table.name);
            kafka.create_topic(&topic, partitions, &[]).await;
        }
        let config = format!(
            "delivery = \"{}\"\n{CONFIG}\n[snapshot]\nmode = \"{mode}\"\n\
             [format]\nposition_headers = true\n[topics]\npartitions = 3\n",
            delivery.word()
        );
        Ok(Self {
            seed,
            delivery,
            config,
            name,
            kafka,
            database,
            _postgres: postgres,
            bridge: None,
            reader: None,
        })
    }

    /// Starts the bridge for the first time.
    pub(crate) fn run(&mut self) {
        let (url, brokers) = (&self.database.unix_url, self.kafka.brokers());
        self.bridge = Some(Bridge::start(&self.name, url, &brokers, &self.config));
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

    fn assert_runs(&mut self) {
        if let Some(status) = self.bridge().exited() {
            panic!("the bridge ended by itself: {status}; log:\n{}", self.bridge().log());
        }
    }

    /// Whether it has ended by itself, without a failure.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.bridge().exited().is_some_and(|status| status.success())
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
            return self.start_again();
        }
        self.assert_runs();
        let said = self.bridge().get("/readyz").map(|(_, said)| said.trim().to_owned());
        block_in_place(|| self.bridge().kill());
        println!(
            "killed {moment} ms {}, {said:?}",
            if reading { "later" } else { "after its start" }
        );
        self.start_again();
    }

    /// Waits until what is committed now is published.
    pub(crate) async fn rows_flow(&mut self) {
        let client = self.client().await;
        let end = "SELECT pg_current_wal_insert_lsn()::text";
        let end: String = client.query_one(end, &[]).await.expect("ask").get(0);
        // Beside it there may be one that is read through.
        let query = "SELECT confirmed_flush_lsn >= $2::text::pg_lsn FROM pg_replication_slots
                     WHERE slot_name = $1";
        let slot = format!("rowcast_{}", self.name);
        let message = "SELECT pg_logical_emit_message(true, 'rowcast.test', '')";
        eventually(SETTLED, "everything to be confirmed", async || {
            self.assert_runs();
            client.query(message, &[]).await.expect("write a message");
            let row = client.query_opt(query, &[&slot, &end]).await.expect("ask");
            let is_confirmed = row.and_then(|row| row.get::<_, Option<bool>>(0)).unwrap_or(false);
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

    /// All that is published by now.
    fn replayed(&mut self) -> Replayed {
        block_in_place(|| {
            let topics = TABLES.map(|table| format!("{}.public.{}", self.name, table.name));
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let brokers = self.kafka.brokers();
            let reader = self.reader.get_or_insert_with(|| {
                let mut reader = RecordReader::open(&brokers, &topics, PATIENCE);
                reader.witness =
                    self.bridge.as_ref().map(|bridge| Witness::of(bridge, &self.database));
                reader
            });
            Replayed::of(self.delivery, reader.until_quiet(QUIET))
        })
    }

    /// Waits, once the load has stopped, until the topics tell what the tables are, ends the bridge,
    /// and looks again. With `lenient`, rows that are gone may stay.
    pub(crate) async fn settle(&mut self, lenient: bool) -> (Replayed, Truth) {
        let truth = Truth::read(&self.client().await).await;
        let begun = Instant::now();
        loop {
            let replayed = self.replayed();
            self.assert_sound(&replayed);
            let Some(differences) = replayed.differences(&truth, lenient) else { break };
            let waited = begun.elapsed();
            if waited >= SETTLED {
                panic!("after {waited:?}: {differences}\nlog:\n{}", self.bridge().log());
            }
            self.assert_runs();
        }
        println!("settled after {:?}", begun.elapsed());
        let status = block_in_place(|| self.bridge().terminate(PATIENCE));
        assert!(status.success(), "{status}; log:\n{}", self.bridge().log());
        (self.judged(&truth, lenient), truth)
    }

    /// As [`World::settle`], for a bridge that has ended.
    pub(crate) async fn settle_ended(&mut self) -> (Replayed, Truth) {
        let truth = Truth::read(&self.client().await).await;
        (self.judged(&truth, false), truth)
    }

    /// What is published once everything is confirmed, whatever that is.
    pub(crate) async fn published(&mut self) -> (Replayed, Truth) {
        self.rows_flow().await;
        let truth = Truth::read(&self.client().await).await;
        (self.replayed(), truth)
    }

    fn judged(&mut self, truth: &Truth, lenient: bool) -> Replayed {
        let replayed = self.replayed();
        self.assert_sound(&replayed);
        if let Some(differences) = replayed.differences(truth, lenient) {
            panic!("at the end: {differences}\nlog:\n{}", self.bridge().log());
        }
        replayed
    }

    fn assert_sound(&mut self, replayed: &Replayed) {
        if let Some(problems) = replayed.problems() {
            let log = self.bridge().log();
            panic!("CHAOS_SEED={}: {problems}\nlog:\n{log}", self.seed);
        }
    }

    /// Waits until the bridge has done all it was to do.
    pub(crate) async fn ends_by_itself(&mut self) {
        let status = block_in_place(|| self.bridge().wait(SETTLED));
        assert!(status.success(), "{status}; log:\n{}", self.bridge().log());
    }

    /// Where moments are drawn from.
    pub(crate) fn moments(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }
}
