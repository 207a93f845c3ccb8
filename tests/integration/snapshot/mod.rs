//! The rows that were there before the stream, on real servers: each is published, once and at the
//! point where the stream begins.

mod crash;
mod forgetful;
mod handover;
mod incremental;
mod incremental_cases;
mod incremental_keyless;
mod modes;
mod shown;
mod tables;
mod triggers;

use std::time::Duration;

use tokio_postgres::Client;

use crate::support::PATIENCE;
use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, RecordReader};
use crate::support::postgres::{TestDatabase, until_confirmed, wal_end};
use crate::support::witness::Witness;

/// Waits until all that was written by now is published and confirmed.
async fn all_published(client: &Client, name: &str) {
    let end = wal_end(client).await;
    // Something behind it, so that an idle slot gets there.
    let message = "SELECT pg_logical_emit_message(true, 'rowcast.test', '')";
    client.query(message, &[]).await.expect("write a message");
    until_confirmed(client, name, end, PATIENCE * 2).await;
}

/// All records of the topics, as a reader of what is committed sees them.
async fn records_of(brokers: &str, topics: &[String], witness: Witness) -> Vec<OwnedRecord> {
    let (brokers, topics) = (brokers.to_owned(), topics.to_owned());
    let read = move || {
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let mut reader = RecordReader::open(&brokers, &topics, PATIENCE);
        reader.witness = Some(witness);
        reader.until_quiet(Duration::from_secs(1));
        reader.records
    };
    tokio::task::spawn_blocking(read).await.expect("reading does not panic")
}

/// The events of snapshot rows.
fn reads(records: &[OwnedRecord]) -> Vec<serde_json::Value> {
    let events = records.iter().filter_map(OwnedRecord::json);
    events.filter(|event| event["op"] == "r").collect()
}

fn witness(bridge: &Bridge, database: &TestDatabase) -> Witness {
    Witness::of(bridge, database)
}
