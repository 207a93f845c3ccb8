//! Parts of the line that stand still for seconds, as on a machine that is out of breath: no
//! connection breaks, nobody is told, and when the part goes on everything goes on.
//!
//! Longer than the broker's session, so that the cluster takes the broker for dead and finds it
//! alive again; shorter than what the server or a client would call the end of a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rowcast::lsn::Lsn;
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::Client;

use crate::delivery::{self, CONFIG};
use crate::load::{self, LOAD_LIMIT, TABLES};
use crate::support::bridge::Bridge;
use crate::support::consume::OwnedRecord;
use crate::support::kafka::{KafkaNode, private_kafka_or_skip};
use crate::support::postgres::{Binaries, PostgresServer};
use crate::support::witness::Witness;
use crate::support::{PATIENCE, unique};

/// Twice the session of the tests' brokers.
const STANDSTILL: Duration = Duration::from_secs(6);

/// What stands still.
#[derive(Debug, Clone, Copy)]
enum Part {
    Broker,
    Bridge,
    Walsender,
}

impl Part {
    /// Stops it, and lets it go on after [`STANDSTILL`].
    async fn stand_still(self, kafka: &KafkaNode, bridge: &Bridge, client: &Client) {
        let walsender = match self {
            Self::Walsender => Some(walsender(client).await),
            Self::Broker | Self::Bridge => None,
        };
        let signal = |signal| match (self, walsender) {
            (Self::Broker, _) if signal == Signal::STOP => kafka.freeze(),
            (Self::Broker, _) => kafka.thaw(),
            (Self::Bridge, _) if signal == Signal::STOP => bridge.freeze(),
            (Self::Bridge, _) => bridge.thaw(),
            (Self::Walsender, pid) => {
                kill_process(pid.expect("asked for"), signal).expect("a process of our server");
            }
        };
        signal(Signal::STOP);
        tokio::time::sleep(STANDSTILL).await;
        signal(Signal::CONT);
    }
}

async fn walsender(client: &Client) -> Pid {
    let query = "SELECT active_pid FROM pg_replication_slots WHERE database = current_database()";
    let pid: i32 = client.query_one(query, &[]).await.expect("ask").get(0);
    Pid::from_raw(pid).expect("not zero")
}

/// What a record stands for, once or repeated. A delete and its tombstone have one position.
fn place(record: &OwnedRecord) -> ((Lsn, u64), bool) {
    (delivery::position(record), record.value.is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_stands_still_for_seconds_costs_nothing() {
    let kafka = private_kafka_or_skip!();
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    load::create_tables(&client).await;
    let name = unique("frozen");
    let brokers = kafka.brokers();
    let topics = delivery::topics(&name);
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, CONFIG, PATIENCE);
    let witness = Witness::of(&bridge, &database);
    let mut written = 0;
    let mut reader = None;
    for part in [Part::Broker, Part::Bridge, Part::Walsender, Part::Broker] {
        println!("{part:?} stands still");
        let (changes, ()) = tokio::join!(
            load::write(&database, 3_000, rand::random()),
            part.stand_still(&kafka, &bridge, &client),
        );
        written += changes.records();
        reader = Some(
            tokio::task::spawn_blocking({
                let (topics, brokers) = (topics.clone(), brokers.clone());
                let witness = witness.clone();
                move || {
                    let mut reader =
                        reader.unwrap_or_else(|| delivery::open(&brokers, &topics, witness));
                    let mut places = BTreeSet::new();
                    let mut seen = 0;
                    let all_came = |records: &[OwnedRecord]| {
                        places.extend(records[seen..].iter().map(place));
                        seen = records.len();
                        places.len() >= written
                    };
                    reader.until(all_came, LOAD_LIMIT);
                    reader
                }
            })
            .await
            .expect("reading does not panic"),
        );
    }
    let records = tokio::task::spawn_blocking(move || {
        let mut reader = reader.expect("there were parts");
        reader.until_quiet(Duration::from_millis(300));
        reader.records
    })
    .await
    .expect("reading does not panic");
    // A broker that stands still when a topic was just made may refuse a batch and take the next.
    // The bridge then publishes again what it had not confirmed, at the same positions.
    let repeats = bridge.log().matches("trying again").count();
    let changes: BTreeMap<_, _> = records.iter().map(|record| (place(record), record)).collect();
    assert_eq!(changes.len(), written, "nothing is lost");
    assert!(repeats > 0 || records.len() == written, "nothing is repeated without a reason");
    for (table, topic) in TABLES.iter().zip(&topics) {
        let in_order = changes.values().copied().filter(|record| record.topic == *topic);
        assert_eq!(load::replay(in_order), load::rows_of(&client, table).await, "{table}");
    }
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}
