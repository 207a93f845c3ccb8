//! Every state of the bridge with everything that may happen to it: SIGTERM, a panic, a standard error that
//! is closed, a Kafka and a Postgres that stand still. Each cell of the table in `docs/faults.md` is held to
//! the code and the time that stand there.
//!
//! A bridge a cell; those of one fault, or of several that touch no server, are held in their states
//! together and end together.

use std::collections::BTreeMap;
use std::io::{PipeReader, pipe};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::ask_for_status;
use super::{create_table, metric, readyz, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::{KafkaNode, private_kafka_or_skip};
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase};
use crate::support::relay::{Line, Relay};
use crate::support::{PATIENCE, eventually, unique};

/// Those of the table, in its words.
const STATES: [&str; 8] = [
    "streaming",
    "streaming, exactly-once",
    "preflight",
    "slot creation",
    "first snapshot",
    "standby",
    "backoff",
    "draining",
];

/// `kafka.drain_timeout`, but of the bridges that are to be seen draining.
const DRAIN: u64 = 2;
const LONG_DRAIN: u64 = 8;

/// A table that is read for a minute.
const SLOW: &str = "[tables.\"public.slow\"]\nsnapshot_where = \"pg_sleep(60) IS NOT NULL\"\n";

/// What happens to a bridge. It is asked to end then, unless that is what ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    Sigterm,
    Panic,
    Stderr,
    Kafka,
    Postgres,
}

impl Fault {
    const ALL: [Self; 5] = [Self::Sigterm, Self::Panic, Self::Stderr, Self::Kafka, Self::Postgres];

    /// The head of its column.
    const fn column(self) -> &'static str {
        match self {
            Self::Sigterm => "SIGTERM",
            Self::Panic => "a panic",
            Self::Stderr => "stderr closed",
            Self::Kafka => "Kafka frozen",
            Self::Postgres => "Postgres frozen",
        }
    }
}

/// How a cell ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    pub(super) code: i32,
    pub(super) within: Duration,
}

/// A database behind a line that can be cut off, and brokers.
struct Scene {
    server: PostgresServer,
    relay: Relay,
    brokers: String,
    /// Those of the bridges that drain.
    drained: String,
    /// Takes connections and answers none.
    mute: TcpListener,
}

/// Exactly-once, with checkpoints of its own: who dies leaves a Kafka transaction open, and others whose
/// checkpoints are in that topic wait at their start until the brokers give up on it.
pub(super) fn once() -> String {
    let topic = unique("checkpoints");
    format!("delivery = \"exactly-once\"\n[topics]\ncheckpoints = \"{topic}\"\n")
}

/// A bridge in a state, with what keeps it there.
struct Held {
    state: &'static str,
    fault: Fault,
    bridge: Bridge,
    client: Client,
    database: TestDatabase,
    /// The other end of its standard error, where that is to be closed.
    stderr: Option<PipeReader>,
}

/// What the manual says of every cell.
pub(super) fn documented() -> BTreeMap<(&'static str, Fault), Ending> {
    let manual = include_str!("../../../docs/faults.md");
    let heads: Vec<&str> = Fault::ALL.iter().map(|fault| fault.column()).collect();
    let head = format!("| state | {} |", heads.join(" | "));
    let rows = manual.split_once(&head).expect("the table of the manual").1;
    let mut table = BTreeMap::new();
    for row in rows.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let named = cells.next().expect("a state");
        let state = STATES.iter().find(|state| **state == named);
        let state = state.unwrap_or_else(|| panic!("the manual has a state {named:?}"));
        for (fault, cell) in Fault::ALL.iter().zip(cells) {
            let (code, time) = cell.split_once(" in ").expect("code and time");
            let time = time.strip_suffix(" s").expect("seconds");
            let drain = if *state == "draining" { LONG_DRAIN } else { DRAIN };
            let (drain, time) = match time.strip_prefix("D + ") {
                Some(time) => (drain, time),
                None => (0, time),
            };
            let seconds: u64 = time.parse().expect("a number of seconds");
            let within = Duration::from_secs(drain + seconds);
            table.insert((*state, *fault), Ending { code: code.parse().expect("a code"), within });
        }
    }
    assert_eq!(table.len(), STATES.len() * Fault::ALL.len(), "every cell of the table");
    table
}

impl Scene {
    /// Starts a bridge on a database of its own, and waits until `/readyz` says so.
    async fn hold(
        &self,
        (state, fault, says): (&'static str, Fault, &str),
        brokers: &str,
        (config, sql): (&str, &str),
    ) -> Held {
        let database = self.server.database().await;
        let client = database.client().await;
        create_table(&client).await;
        client.batch_execute(sql).await.expect("set the scene");
        let name = unique("ends");
        let (bridge, stderr) = self.start(fault, (&name, &database), brokers, config);
        readyz(&bridge, if says == "streaming" { 200 } else { 503 }, says).await;
        let held = Held { state, fault, bridge, client, database, stderr };
        if says == "streaming" {
            // Its topic is there from now on.
            write(&held.client, 1..=100).await;
            eventually(PATIENCE, "the first records", async || {
                (metric(&held.bridge, "rowcast_records_acked_total") >= 200).then_some(())
            })
            .await;
        }
        held
    }

    fn start(
        &self,
        fault: Fault,
        (name, database): (&str, &TestDatabase),
        brokers: &str,
        config: &str,
    ) -> (Bridge, Option<PipeReader>) {
        let url = self.relay.url(&database.tcp_url);
        let drain = if brokers == self.drained { LONG_DRAIN } else { DRAIN };
        // Keys of the top come before any section.
        let config = format!("{config}[kafka]\ndrain_timeout = \"{drain}s\"\n");
        let (reader, writer) = match fault {
            Fault::Stderr => {
                let (reader, writer) = pipe().expect("make a pipe");
                (Some(reader), Some(Stdio::from(writer)))
            }
            _ => (None, None),
        };
        let panic = [("TEST_ROWCAST_PANIC_IN", "status")];
        let env = if fault == Fault::Panic { panic.as_slice() } else { &[] };
        (Bridge::start_telling(name, &url, brokers, &config, (writer, env)), reader)
    }

    /// Bridges in all states but the one that holds up others.
    async fn hold_all(&self, fault: Fault) -> Vec<Held> {
        let kafka = self.brokers.as_str();
        let mute = self.mute.local_addr().expect("an address").to_string();
        let once = once();
        let slow = "CREATE TABLE slow (id int PRIMARY KEY); INSERT INTO slow VALUES (1)";
        let (streaming, once, preflight, backoff, snapshot, draining) = tokio::join!(
            self.hold(("streaming", fault, "streaming"), kafka, ("", "")),
            self.hold(("streaming, exactly-once", fault, "streaming"), kafka, (&once, "")),
            self.hold(("preflight", fault, "preflight"), &mute, ("", "")),
            self.hold(("backoff", fault, "backoff"), "127.0.0.1:1", ("", "")),
            self.hold(("first snapshot", fault, "snapshot"), kafka, (SLOW, slow)),
            self.hold(("draining", fault, "streaming"), &self.drained, ("", "")),
        );
        let standby = self.standby(&streaming).await;
        vec![streaming, once, preflight, backoff, snapshot, draining, standby]
    }

    /// A second copy of one that streams.
    async fn standby(&self, first: &Held) -> Held {
        let Held { fault, database, .. } = first;
        let database = (first.bridge.name(), database);
        let (bridge, stderr) = self.start(*fault, database, &self.brokers, "");
        readyz(&bridge, 503, "standby").await;
        let (own, client) = (self.server.database().await, first.database.client().await);
        Held { state: "standby", fault: *fault, bridge, client, database: own, stderr }
    }

    /// One that waits for a transaction, as any new slot would from then on.
    async fn slot_creation(&self, fault: Fault) -> Held {
        let waits = "BEGIN; INSERT INTO rides VALUES (-1, 1)";
        let says = ("slot creation", fault, "preflight: creating the slot");
        self.hold(says, &self.brokers, ("", waits)).await
    }
}

/// Records wait, and are not taken.
async fn until_waiting(held: &Held) {
    write(&held.client, 101..=200).await;
    eventually(PATIENCE, "records that wait", async || {
        (metric(&held.bridge, "rowcast_records_in_flight") > 0).then_some(())
    })
    .await;
}

/// Holds bridges in all states, lets these faults happen to them, and judges how they end.
async fn all_end(
    (kafka, drained): (&KafkaNode, &KafkaNode),
    faults: &[Fault],
    documented: &BTreeMap<(&'static str, Fault), Ending>,
) {
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let relay = Relay::to(server.port()).await;
    let mute = TcpListener::bind("127.0.0.1:0").expect("bind");
    let (brokers, drained_brokers) = (kafka.brokers(), drained.brokers());
    let scene = Scene { server, relay, brokers, drained: drained_brokers, mute };
    let mut held = Vec::new();
    for fault in faults {
        held.extend(Box::pin(scene.hold_all(*fault)).await);
    }
    for fault in faults {
        held.push(Box::pin(scene.slot_creation(*fault)).await);
    }
    assert_eq!(held.len(), faults.len() * STATES.len());
    if faults.contains(&Fault::Kafka) {
        kafka.freeze();
        // The one with transactions may be committing, and sends nothing meanwhile.
        for held in &held {
            match held.state {
                "streaming" => until_waiting(held).await,
                "streaming, exactly-once" => write(&held.client, 101..=200).await,
                _ => {}
            }
        }
    }
    drained.freeze();
    for held in held.iter().filter(|held| held.state == "draining") {
        until_waiting(held).await;
        held.bridge.ask_to_end();
        readyz(&held.bridge, 503, "draining").await;
    }
    if faults.contains(&Fault::Postgres) {
        scene.relay.set(Line::BlackHole);
    }
    let told = Instant::now();
    let mut unanswered = Vec::new();
    for Held { state, fault, bridge, stderr, .. } in &mut held {
        drop(stderr.take());
        match (*fault, *state) {
            (Fault::Panic, _) => unanswered.push(ask_for_status(bridge)),
            // Told already.
            (Fault::Stderr | Fault::Kafka | Fault::Postgres, "draining") => {}
            _ => bridge.ask_to_end(),
        }
    }
    // Those first that are to end first, so that none is waited for beyond its time.
    held.sort_by_key(|held| documented[&(held.state, held.fault)].within);
    for Held { state, fault, bridge, .. } in &mut held {
        let Ending { code, within } = documented[&(*state, *fault)];
        let status = bridge.wait(within.saturating_sub(told.elapsed()));
        println!("{fault:?}: {state} has ended after {:?}", told.elapsed());
        assert_eq!(status.code(), Some(code), "{state}, {fault:?}; log:\n{}", bridge.log());
    }
    drained.thaw();
    if faults.contains(&Fault::Kafka) {
        kafka.thaw();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_ends_with_its_code_in_its_time_whatever_happens_to_it() {
    let documented = documented();
    let kafka = private_kafka_or_skip!();
    let drained = private_kafka_or_skip!();
    for faults in [
        [Fault::Sigterm, Fault::Panic, Fault::Stderr].as_slice(),
        &[Fault::Postgres],
        &[Fault::Kafka],
    ] {
        Box::pin(all_end((&kafka, &drained), faults, &documented)).await;
    }
}
