//! A bridge between a database and an embedded broker, for tests of what events hold: SQL goes in,
//! the events of its tables come out, in order.
//!
//! Topics have one partition, so their order is the stream's. What has not come when the slot is
//! confirmed beyond the SQL will not come: no test waits for silence.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, RecordReader};
use crate::support::kafka::Brokers;
use crate::support::postgres::{PostgresServer, TestDatabase, until_confirmed, wal_end};
use crate::support::{PATIENCE, unique};

/// The embedded broker makes no topics and tells no settings of those it has: each question would be
/// waited for in vain, for seconds.
const TOPICS: &str = "[topics]\ncreate = false\ndescribe = false\n";

/// A database, a broker, and a bridge that runs or is yet to be started.
pub(crate) struct Scenario {
    pub(crate) client: Client,
    pub(crate) bridge: Option<Bridge>,
    name: String,
    config: String,
    brokers: Brokers,
    topics: Vec<String>,
    database: TestDatabase,
}

/// One record, as far as tests of events look at it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) key: Option<Value>,
    /// None for a tombstone.
    pub(crate) value: Option<Value>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Scenario {
    /// Runs `setup` in a new database and makes topics for these tables (`schema.table`); starts no
    /// bridge. `config` is laid over the defaults.
    pub(crate) async fn prepare(
        server: &PostgresServer,
        config: &str,
        setup: &str,
        tables: &[&str],
    ) -> Self {
        Self::prepare_in(server, "", config, setup, tables).await
    }

    /// The same in a database made with these options of `CREATE DATABASE`.
    pub(crate) async fn prepare_in(
        server: &PostgresServer,
        options: &str,
        config: &str,
        setup: &str,
        tables: &[&str],
    ) -> Self {
        let database = server.database_with(options).await;
        let client = database.client().await;
        client.batch_execute(setup).await.unwrap_or_else(|error| panic!("{setup}: {error:?}"));
        let name = unique("events");
        let brokers = Brokers::embedded();
        let topics: Vec<String> = tables.iter().map(|table| format!("{name}.{table}")).collect();
        for topic in &topics {
            brokers.create_topic(topic, 1).await;
        }
        let config = format!("{config}\n{TOPICS}");
        Self { client, bridge: None, name, config, brokers, topics, database }
    }

    /// The same with a bridge that streams.
    pub(crate) async fn start(
        server: &PostgresServer,
        config: &str,
        setup: &str,
        tables: &[&str],
    ) -> Self {
        let mut scenario = Self::prepare(server, config, setup, tables).await;
        scenario.run();
        scenario
    }

    /// Starts the bridge, or starts it again.
    pub(crate) fn run(&mut self) {
        match &mut self.bridge {
            Some(bridge) => {
                bridge.start_again();
                bridge.wait_until_ready(PATIENCE).expect("it streams");
            }
            None => {
                let (url, brokers) = (&self.database.unix_url, self.brokers.bootstrap());
                let bridge = Bridge::start_ready(&self.name, url, &brokers, &self.config, PATIENCE);
                self.bridge = Some(bridge);
            }
        }
    }

    /// Starts the bridge, or starts it again, and does not wait until it streams.
    pub(crate) fn launch(&mut self) {
        match &mut self.bridge {
            Some(bridge) => bridge.start_again(),
            None => {
                let (url, brokers) = (&self.database.unix_url, self.brokers.bootstrap());
                self.bridge = Some(Bridge::start(&self.name, url, &brokers, &self.config));
            }
        }
    }

    /// Waits until the bridge streams.
    pub(crate) fn until_ready(&mut self) {
        self.bridge.as_mut().expect("a bridge").wait_until_ready(PATIENCE).expect("it streams");
    }

    /// Starts the bridge under another role, and does not wait until it streams.
    pub(crate) fn launch_as(&mut self, role: &str) {
        let url = self.database.unix_url.replace("postgres@", &format!("{role}@"));
        let brokers = self.brokers.bootstrap();
        self.bridge = Some(Bridge::start(&self.name, &url, &brokers, &self.config));
    }

    /// Another configuration, laid over the defaults, for the next start.
    pub(crate) fn configure(&mut self, config: &str) {
        self.config = format!("{config}\n{TOPICS}");
        self.bridge.as_ref().expect("a bridge").configure(&self.config);
    }

    /// The name of the replication slot.
    pub(crate) fn slot(&self) -> String {
        format!("rowcast_{}", self.name)
    }

    /// The database's name.
    pub(crate) fn database_name(&self) -> &str {
        &self.database.name
    }

    /// Stops the bridge; what is written from then on is read after the next [`run`](Self::run),
    /// when the catalog may have gone on.
    pub(crate) fn stop(&mut self) {
        let bridge = self.bridge.as_mut().expect("a bridge");
        let status = bridge.terminate(PATIENCE);
        assert!(status.success(), "{status}; log:\n{}", bridge.log());
    }

    /// Runs SQL. Several statements are one transaction unless they say otherwise.
    pub(crate) async fn sql(&self, sql: &str) {
        let done = self.client.batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// All that was logged.
    pub(crate) fn log(&self) -> String {
        self.bridge.as_ref().map(Bridge::log).unwrap_or_default()
    }

    /// Status of the bridge's metrics page.
    pub(crate) fn metrics(&self) -> String {
        let page = self.bridge.as_ref().and_then(|bridge| bridge.get("/metrics"));
        page.expect("the admin endpoint answers").1
    }

    /// Every record of a table's topic, once all that was written is published.
    pub(crate) async fn events(&self, table: &str) -> Vec<Event> {
        let records = self.records(table).await;
        records.iter().map(Event::of).collect()
    }

    /// The same as they stand in the topic.
    pub(crate) async fn records(&self, table: &str) -> Vec<OwnedRecord> {
        self.published().await;
        self.all_records(table).await
    }

    /// Every record of a table's topic, of a bridge that has ended.
    pub(crate) async fn all_events(&self, table: &str) -> Vec<Event> {
        self.all_records(table).await.iter().map(Event::of).collect()
    }

    async fn all_records(&self, table: &str) -> Vec<OwnedRecord> {
        let topic = format!("{}.{table}", self.name);
        assert!(self.topics.contains(&topic), "{topic} was made");
        let brokers = self.brokers.bootstrap();
        let read = move || {
            let mut reader = RecordReader::open(&brokers, &[&topic], PATIENCE);
            let count = reader.count(&topic);
            reader.until(|records| records.len() >= count, PATIENCE);
            reader.records
        };
        tokio::task::spawn_blocking(read).await.expect("reading does not panic")
    }

    /// Waits until the bridge ends by itself, and gives its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.bridge.as_mut().expect("a bridge").wait(Duration::from_secs(60)).code()
    }

    /// Another connection to the database.
    pub(crate) async fn connect(&self) -> Client {
        self.database.client().await
    }

    /// What a DBA makes for a bridge that may not.
    pub(crate) async fn make_slot_and_publication(&self, table: &str) {
        let name = &self.name;
        self.sql(&format!("CREATE PUBLICATION rowcast_{name} FOR TABLE {table}")).await;
        self.sql(&format!(
            "SELECT pg_create_logical_replication_slot('rowcast_{name}', 'pgoutput')"
        ))
        .await;
    }

    /// Starts the bridge under another role.
    pub(crate) fn run_as(&mut self, role: &str) {
        let url = self.database.unix_url.replace("postgres@", &format!("{role}@"));
        let brokers = self.brokers.bootstrap();
        let bridge = Bridge::start_ready(&self.name, &url, &brokers, &self.config, PATIENCE);
        self.bridge = Some(bridge);
    }

    /// Waits until the slot is confirmed beyond all that was written.
    async fn published(&self) {
        let end = wal_end(&self.client).await;
        until_confirmed(&self.client, &self.name, end, PATIENCE).await;
    }
}

impl Event {
    pub(crate) fn of(record: &OwnedRecord) -> Self {
        let text = |bytes: &Option<Vec<u8>>| {
            String::from_utf8(bytes.clone().unwrap_or_default()).expect("UTF-8")
        };
        let headers = record.headers.iter().map(|(name, value)| (name.clone(), text(value)));
        Self {
            key: record.key_text().map(|key| serde_json::from_str(key).expect("a key in JSON")),
            value: record.json(),
            headers: headers.collect(),
        }
    }

    /// `[key, op, before, after]`; of a tombstone `[key, null]`.
    pub(crate) fn short(&self) -> Value {
        match &self.value {
            Some(value) => json!([self.key, value["op"], value["before"], value["after"]]),
            None => json!([self.key, null]),
        }
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The events in short, as a JSON array: see [`Event::short`].
pub(crate) fn short(events: &[Event]) -> Value {
    events.iter().map(Event::short).collect()
}
