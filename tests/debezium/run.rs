//! One run of the script on a server, and what each reader publishes of it.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio_postgres::Client;

use crate::connect::{Connect, Patience};
use crate::record::Record;
use crate::script::{Part, Step};
use crate::support::consume::{OwnedRecord, RecordReader};
use crate::support::kafka::client_config;
use crate::support::process::pause;

/// Longest time until all connectors stream, or have published what came before a `-- wait`.
const LIMIT: Duration = Duration::from_secs(60);

/// The table that tells how far a reader is.
pub(crate) const BARRIER: &str = "barrier";

/// Made before the readers start.
pub(crate) const PREPARE: &str = "
CREATE TABLE barrier (n int PRIMARY KEY);
CREATE PUBLICATION leaves FOR ALL TABLES;
CREATE PUBLICATION roots FOR ALL TABLES WITH (publish_via_partition_root = true);
";

/// Runs the script's parts for the readers with these topic prefixes.
pub(crate) struct Runner<'a> {
    pub(crate) client: &'a Client,
    pub(crate) brokers: &'a str,
    pub(crate) prefixes: &'a [String],
    barrier: i32,
    consumer: BaseConsumer,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(client: &'a Client, brokers: &'a str, prefixes: &'a [String]) -> Self {
        let consumer = client_config(brokers).create().expect("a consumer");
        Self { client, brokers, prefixes, barrier: 0, consumer }
    }

    /// Runs them, and waits until all is published.
    pub(crate) async fn run(&mut self, parts: &[Part], connect: &mut Option<Connect>) {
        for part in parts {
            for step in &part.steps {
                match step {
                    Step::Wait => self.wait(connect).await,
                    Step::Run(sql) => self
                        .client
                        .batch_execute(sql)
                        .await
                        .unwrap_or_else(|error| panic!("{}: {error:?}: {sql}", part.name)),
                }
            }
            self.wait(connect).await;
        }
    }

    /// Waits until every reader has published all that was committed by now.
    pub(crate) async fn wait(&mut self, connect: &mut Option<Connect>) {
        self.barrier += 1;
        let insert = format!("INSERT INTO {BARRIER} VALUES ({})", self.barrier);
        self.client.batch_execute(&insert).await.expect("set the barrier");
        let patience = Patience::new(LIMIT);
        for prefix in self.prefixes {
            let topic = format!("{prefix}.public.{BARRIER}");
            while self.length(&topic) < i64::from(self.barrier) {
                if let Some(connect) = connect {
                    connect.assert_healthy();
                }
                if patience.is_over() {
                    let log = connect.as_ref().map(Connect::log);
                    panic!(
                        "{prefix} is not at barrier {}; {}",
                        self.barrier,
                        log.unwrap_or_default()
                    );
                }
                pause();
            }
        }
    }

    /// Records in the one partition of a topic; none while there is no topic.
    fn length(&self, topic: &str) -> i64 {
        let timeout = Duration::from_secs(5);
        self.consumer.fetch_watermarks(topic, 0, timeout).map_or(0, |(_, end)| end)
    }

    /// All that the reader with this prefix has published: by topic, then in order.
    pub(crate) fn records(&self, prefix: &str) -> Vec<OwnedRecord> {
        let metadata = self.consumer.fetch_metadata(None, LIMIT).expect("metadata");
        let own = format!("{prefix}.");
        let barrier = format!("{prefix}.public.{BARRIER}");
        let topics = metadata.topics().iter().map(|topic| topic.name());
        let mut topics: Vec<&str> =
            topics.filter(|topic| topic.starts_with(&own) && *topic != barrier).collect();
        topics.sort_unstable();
        let all: i64 = topics.iter().map(|topic| self.length(topic)).sum();
        let mut reader = RecordReader::open(self.brokers, &topics, LIMIT);
        let all = usize::try_from(all).expect("a count");
        let mut records = reader.until(|records| records.len() >= all, LIMIT).to_vec();
        records.sort_by(|a, b| (&a.topic, a.offset).cmp(&(&b.topic, b.offset)));
        records
    }
}

/// Parses a reader's records.
pub(crate) fn parse(records: &[OwnedRecord], prefix: &str) -> Vec<Record> {
    records.iter().map(|record| Record::new(record, prefix)).collect()
}

/// Makes the topics of these tables for all readers at once: each would make its own one by one.
pub(crate) async fn create_topics(brokers: &str, prefixes: &[String], tables: &[String]) {
    let admin: AdminClient<DefaultClientContext> =
        client_config(brokers).create().expect("an admin client");
    let names: Vec<String> = prefixes
        .iter()
        .flat_map(|prefix| tables.iter().map(move |table| format!("{prefix}.{table}")))
        .collect();
    let topics: Vec<NewTopic<'_>> =
        names.iter().map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1))).collect();
    let made = admin.create_topics(&topics, &AdminOptions::new()).await.expect("ask for topics");
    for result in made {
        result.unwrap_or_else(|(topic, code)| panic!("create topic {topic}: {code}"));
    }
}
