//! SIGTERM ends the bridge in every state, within `kafka.drain_timeout` and a few seconds, whether
//! Kafka and Postgres answer or not.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::{create_table, metric, readyz, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::{KafkaNode, private_kafka_or_skip};
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase};
use crate::support::relay::{Line, Relay};
use crate::support::{PATIENCE, eventually, unique};

/// `kafka.drain_timeout` is two seconds here; a server that does not answer has five to end the stream,
/// and this machine may be busy.
const ENDS_WITHIN: Duration = Duration::from_secs(2 + 5 + 5);

const CONFIG: &str = "[kafka]\ndrain_timeout = \"2s\"\n";

/// One that is read for a minute.
const SLOW: &str = "[tables.\"public.slow\"]\nsnapshot_where = \"pg_sleep(60) IS NOT NULL\"\n";

/// What makes no progress when the bridge is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Kafka,
    Postgres,
}

/// A database behind a line that can be cut off, and brokers.
struct Scene {
    server: PostgresServer,
    relay: Relay,
    brokers: String,
    /// Takes connections and answers none.
    mute: TcpListener,
}

/// A bridge in a state, with what keeps it there.
struct Held {
    state: &'static str,
    bridge: Bridge,
    database: TestDatabase,
    client: Client,
}

impl Held {
    fn streams(&self) -> bool {
        self.state.starts_with("streaming")
    }
}

impl Scene {
    /// Starts a bridge on a database of its own, and waits until `/readyz` says `state`.
    async fn hold(
        &self,
        (state, says): (&'static str, &str),
        brokers: &str,
        (config, sql): (&str, &str),
    ) -> Held {
        let database = self.server.database().await;
        let client = database.client().await;
        create_table(&client).await;
        client.batch_execute(sql).await.expect("set the scene");
        let url = self.relay.url(&database.tcp_url);
        // Keys of the top come before any section.
        let config = format!("{config}{CONFIG}");
        let bridge = Bridge::start(&unique("ends"), &url, brokers, &config);
        readyz(&bridge, if says == "streaming" { 200 } else { 503 }, says).await;
        let held = Held { state, bridge, database, client };
        if held.streams() {
            // Its topic is there from now on.
            write(&held.client, 1..=100).await;
            eventually(PATIENCE, "the first records", async || {
                (metric(&held.bridge, "rowcast_records_acked_total") >= 200).then_some(())
            })
            .await;
        }
        held
    }

    /// Bridges in all states; the last one waits for a transaction, as any new slot would from then on.
    async fn hold_all(&self) -> Vec<Held> {
        let kafka = self.brokers.as_str();
        let mute = self.mute.local_addr().expect("an address").to_string();
        let streaming = ("streaming", "streaming");
        let once = "delivery = \"exactly-once\"\n";
        let slow = "CREATE TABLE slow (id int PRIMARY KEY); INSERT INTO slow VALUES (1)";
        let (streaming, once, preflight, backoff, snapshot) = tokio::join!(
            self.hold(streaming, kafka, ("", "")),
            self.hold(("streaming, exactly once", "streaming"), kafka, (once, "")),
            self.hold(("preflight", "preflight"), &mute, ("", "")),
            self.hold(("backoff", "backoff"), "127.0.0.1:1", ("", "")),
            self.hold(("snapshot", "snapshot"), kafka, (SLOW, slow)),
        );
        let mut held = vec![streaming, once, preflight, backoff, snapshot];
        held.push(self.standby(&held[0]).await);
        let waits = "BEGIN; INSERT INTO rides VALUES (-1, 1)";
        let creation = ("slot creation", "preflight: making the slot");
        held.push(self.hold(creation, kafka, ("", waits)).await);
        held
    }

    /// A second copy of one that streams.
    async fn standby(&self, first: &Held) -> Held {
        let name = first.bridge.name().to_owned();
        let (database, client) = (self.server.database().await, first.database.client().await);
        let url = self.relay.url(&first.database.tcp_url);
        let bridge = Bridge::start(&name, &url, &self.brokers, CONFIG);
        readyz(&bridge, 503, "standby").await;
        Held { state: "standby", bridge, database, client }
    }
}

async fn all_end(kafka: &KafkaNode, fault: Fault) {
    let server = PostgresServer::start(Binaries::newest(), &[("max_wal_senders", "20")]);
    let relay = Relay::to(server.port()).await;
    let mute = TcpListener::bind("127.0.0.1:0").expect("bind");
    let scene = Scene { server, relay, brokers: kafka.brokers(), mute };
    let mut held = Box::pin(scene.hold_all()).await;
    match fault {
        Fault::None => {}
        Fault::Kafka => {
            kafka.freeze();
            for Held { client, .. } in held.iter().filter(|held| held.streams()) {
                write(client, 101..=200).await;
            }
            // The one with transactions may be committing, and sends nothing meanwhile.
            eventually(PATIENCE, "records that wait", async || {
                (metric(&held[0].bridge, "rowcast_records_in_flight") > 0).then_some(())
            })
            .await;
        }
        Fault::Postgres => scene.relay.set(Line::BlackHole),
    }
    let told = Instant::now();
    for Held { bridge, .. } in &held {
        bridge.ask_to_end();
    }
    for Held { state, bridge, .. } in &mut held {
        let status = bridge.wait(ENDS_WITHIN.saturating_sub(told.elapsed()));
        println!("{fault:?}: {state} has ended after {:?}", told.elapsed());
        assert_eq!(status.code(), Some(0), "{state}, {fault:?}; log:\n{}", bridge.log());
    }
    if fault == Fault::Kafka {
        kafka.thaw();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_every_state_in_time_whatever_stands_still() {
    let kafka = private_kafka_or_skip!();
    for fault in [Fault::None, Fault::Postgres, Fault::Kafka] {
        Box::pin(all_end(&kafka, fault)).await;
    }
}
