//! The script on every server, and what each reader publishes of it.
//!
//! One Kafka, one Kafka Connect worker, a server a version; a reader is a connector of the worker
//! or a rowcast of its own. All read the same transactions of the same server, so that even their
//! places in the WAL can be compared. Each has a topic prefix by which its topics are its own.

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::MetadataTopic;
use tokio_postgres::Client;

use crate::configurations::Configuration;
use crate::connect::{self, Connect};
use crate::reader::{self, Reader, Reads};
use crate::record::Record;
use crate::script::{self, Part, Step};
use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, RecordReader};
use crate::support::eventually;
use crate::support::kafka::{Brokers, admin, client_config};
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase};
use crate::support::process::pause;

/// Longest time until all readers stream, or have published what came before a `-- wait`.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// The table that tells how far a reader is.
pub(crate) const BARRIER: &str = "barrier";

/// The table that tells whether a reader streams.
pub(crate) const HELLO: &str = "hello";

/// Made before the readers start.
pub(crate) const PREPARE: &str = "
CREATE TABLE hello (n serial PRIMARY KEY);
CREATE TABLE barrier (n int PRIMARY KEY);
CREATE PUBLICATION leaves FOR ALL TABLES;
CREATE PUBLICATION roots FOR ALL TABLES WITH (publish_via_partition_root = true);
";

/// Who publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Publisher {
    Debezium,
    Rowcast,
}

/// What a reader of a server of this version published.
pub(crate) struct Published {
    pub(crate) major: u32,
    pub(crate) publisher: Publisher,
    pub(crate) configuration: &'static Configuration,
    pub(crate) records: Vec<Record>,
}

/// All that was published.
pub(crate) struct Run {
    published: Vec<Published>,
    /// Why Debezium did not take part.
    pub(crate) without_debezium: Option<String>,
}

impl Run {
    /// What one of them published: version of the server, configuration, records.
    pub(crate) fn of(
        &self,
        publisher: Publisher,
    ) -> impl DoubleEndedIterator<Item = (u32, &'static Configuration, &[Record])> {
        of(&self.published, publisher)
    }
}

/// What one of them published: version of the server, configuration, records.
pub(crate) fn of(
    published: &[Published],
    publisher: Publisher,
) -> impl DoubleEndedIterator<Item = (u32, &'static Configuration, &[Record])> {
    let own = published.iter().filter(move |published| published.publisher == publisher);
    own.map(|own| (own.major, own.configuration, own.records.as_slice()))
}

/// Held while a worker runs: it is large.
pub(crate) static ONE_WORKER: Mutex<()> = Mutex::new(());

/// The run that all tests of changes look at.
pub(crate) fn run() -> &'static Run {
    static RUN: OnceLock<Result<Run, String>> = OnceLock::new();
    let run = RUN.get_or_init(|| {
        // Servers end with their thread, by runtimes of their own: not those of the tests.
        let whole = std::thread::spawn(run_all);
        whole.join().map_err(|_| "the run failed; its panic is printed above".to_owned())
    });
    run.as_ref().unwrap_or_else(|reason| panic!("{reason}"))
}

fn run_all() -> Run {
    let _alone = ONE_WORKER.lock().unwrap_or_else(PoisonError::into_inner);
    let brokers = Brokers::any();
    let jars = match &brokers {
        Brokers::Real(_) => connect::jars(),
        Brokers::Embedded(_) => Err("there is no Kafka to connect to".to_owned()),
    };
    let bootstrap = brokers.bootstrap();
    // A server each, and a thread each: most of their time they wait for each other's readers.
    let servers: Vec<Server> = std::thread::scope(|scope| {
        let starts = Binaries::every().iter().map(|binaries| {
            let with_debezium = jars.is_ok();
            scope.spawn(move || block_on(Server::start(binaries, with_debezium)))
        });
        join_all(starts)
    });
    let topics = servers.iter().flat_map(Server::topics).map(|name| (name, 1));
    let topics: Vec<_> = topics.collect();
    match &brokers {
        Brokers::Real(_) => block_on(create_topics(&bootstrap, &topics)),
        Brokers::Embedded(_) => {
            for (name, partitions) in &topics {
                block_on(brokers.create_topic(name, *partitions));
            }
        }
    }
    let connectors = servers.iter().flat_map(|server| {
        reader::connectors(&server.readers, server.server.port(), &server.database, |_| Vec::new())
    });
    let connectors: Vec<_> = connectors.collect();
    let connect = jars.as_ref().ok().map(|jars| Connect::start(jars, &bootstrap, &connectors));
    let connect = connect.map(Mutex::new);
    let published = std::thread::scope(|scope| {
        // A server outlives its run: the worker would see its end as a failure.
        let runs = servers.iter().map(|server| {
            let (bootstrap, connect) = (&bootstrap, connect.as_ref());
            scope.spawn(move || block_on(server.run(bootstrap, connect)))
        });
        join_all(runs)
    });
    let mut published: Vec<Published> = published.into_iter().flatten().collect();
    published.sort_by_key(|published| published.major);
    Run { published, without_debezium: jars.err() }
}

/// Makes topics at a broker, with so many partitions: each reader would make its own one by one.
pub(crate) async fn create_topics(bootstrap: &str, topics: &[(String, i32)]) {
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1)))
        .collect();
    let made = admin(bootstrap).create_topics(&new, &AdminOptions::new()).await;
    let made = made.expect("ask for topics");
    for result in made {
        result.unwrap_or_else(|(topic, code)| panic!("create topic {topic}: {code}"));
    }
    let names: Vec<&str> = topics.iter().map(|(name, _)| name.as_str()).collect();
    wait_for_topics(bootstrap, &names);
}

/// Waits until the broker serves the topics: that they are made is said long before, and who writes
/// to one meanwhile hears that there is none.
fn wait_for_topics(bootstrap: &str, names: &[&str]) {
    let client: BaseConsumer = client_config(bootstrap).create().expect("a client");
    let started = Instant::now();
    loop {
        let metadata = client.fetch_metadata(None, LIMIT).expect("metadata");
        let served: HashSet<&str> = metadata
            .topics()
            .iter()
            .filter(|topic| topic.partitions().iter().all(|partition| partition.leader() >= 0))
            .map(|topic| topic.name())
            .collect();
        let missing = names.iter().filter(|name| !served.contains(*name)).count();
        if missing == 0 {
            return;
        }
        assert!(started.elapsed() < LIMIT, "{missing} topics are not served after {LIMIT:?}");
        // Each answer is of thousands of topics, from the broker that is to make them.
        std::thread::sleep(Duration::from_millis(200));
    }
}

pub(crate) fn join_all<'scope, T>(
    threads: impl Iterator<Item = ScopedJoinHandle<'scope, T>>,
) -> Vec<T> {
    // All are started before the first is waited for.
    let threads: Vec<_> = threads.collect();
    threads
        .into_iter()
        .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        .collect()
}

pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// A server, its database, and those that read it.
struct Server {
    server: PostgresServer,
    database: TestDatabase,
    readers: Vec<Reader>,
    setup: Part,
    parts: Vec<Part>,
}

impl Server {
    /// Starts it and prepares what readers need before they start.
    async fn start(binaries: &Binaries, with_debezium: bool) -> Self {
        let server = PostgresServer::start(binaries, &[]);
        let database = server.database().await;
        let major = server.major();
        let readers = reader::all(Reads::Changes, binaries, with_debezium);
        let mut parts = script::parts(major);
        let setup = parts.remove(0);
        Self { server, database, readers, setup, parts }
    }

    /// The topics of all readers.
    fn topics(&self) -> Vec<String> {
        let mut tables = script::tables(&self.parts);
        tables.extend([BARRIER, HELLO].map(|table| format!("public.{table}")));
        // Those that are of no table.
        tables.extend(["message", "transaction"].map(str::to_owned));
        let of_reader = |reader: &Reader| {
            tables.iter().map(|table| format!("{}.{table}", reader.prefix)).collect::<Vec<_>>()
        };
        self.readers.iter().flat_map(of_reader).collect()
    }

    /// Starts the readers, runs the script, and gives what they published.
    async fn run(&self, bootstrap: &str, connect: Option<&Mutex<Connect>>) -> Vec<Published> {
        let client = self.database.client().await;
        let mut runner = Runner::new(&client, bootstrap, &self.readers, connect);
        client.batch_execute(PREPARE).await.expect("prepare");
        runner.run_part(&self.setup).await;
        let make_slot = "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')";
        for reader in self.readers.iter().filter(|reader| reader.publisher == Publisher::Rowcast) {
            client.query_one(make_slot, &[&reader.prefix]).await.expect("make a slot");
        }
        let of_rowcast =
            self.readers.iter().filter(|reader| reader.publisher == Publisher::Rowcast);
        runner.bridges = of_rowcast
            .map(|reader| (reader, reader.start_bridge(&self.database, bootstrap, &[])))
            .collect();
        runner.wait_for_all_to_stream().await;
        runner.wait().await;
        for part in &self.parts {
            let refuses = |reader: &Reader| {
                reader.publisher == Publisher::Rowcast
                    && reader.configuration.refused == Some(part.name.as_str())
            };
            runner.readers.retain(|reader| !refuses(reader));
            let refusing = runner.bridges.extract_if(.., |(reader, _)| refuses(reader));
            let refusing: Vec<_> = refusing.collect();
            runner.run_part(part).await;
            for (reader, mut bridge) in refusing {
                bridge.wait(LIMIT);
                let (log, part) = (bridge.log(), &part.name);
                assert!(log.contains("encoding column"), "{} refuses {part}: {log}", reader.prefix);
            }
            runner.wait().await;
        }
        let major = self.server.major();
        let published = self.readers.iter().map(|reader| {
            let published = runner.published(reader, major);
            let records = from_the_first_barrier(published.records);
            Published { records, ..published }
        });
        published.collect()
    }
}

/// Leaves out what tells of transactions before the first barrier: not all see the same of these.
fn from_the_first_barrier(records: Vec<Record>) -> Vec<Record> {
    let is_end_of_barrier = |record: &Record| {
        let collections = record.value.as_ref().and_then(|value| value.field("data_collections"));
        let name = format!("public.{BARRIER}");
        collections.is_some_and(|all| all.find("data_collection", &name).is_some())
    };
    let Some(end) = records.iter().position(is_end_of_barrier) else { return records };
    let topic = records[end].topic.clone();
    let numbered = records.into_iter().enumerate();
    let kept = numbered.filter(|(place, record)| *place > end || record.topic != topic);
    kept.map(|(_, record)| record).collect()
}

/// Runs steps, and waits for the readers.
pub(crate) struct Runner<'a> {
    client: &'a Client,
    bootstrap: &'a str,
    /// Those that still read.
    readers: Vec<&'a Reader>,
    connect: Option<&'a Mutex<Connect>>,
    pub(crate) bridges: Vec<(&'a Reader, Bridge)>,
    consumer: BaseConsumer,
    barrier: i64,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(
        client: &'a Client,
        bootstrap: &'a str,
        readers: &'a [Reader],
        connect: Option<&'a Mutex<Connect>>,
    ) -> Self {
        let consumer = client_config(bootstrap).create().expect("a consumer");
        let readers = readers.iter().collect();
        Self { client, bootstrap, readers, connect, bridges: Vec::new(), consumer, barrier: 0 }
    }

    async fn run_part(&mut self, part: &Part) {
        for step in &part.steps {
            match step {
                Step::Wait => self.wait().await,
                Step::Run(sql) => {
                    let done = self.client.batch_execute(sql).await;
                    done.unwrap_or_else(|error| panic!("{}: {error:?}: {sql}", part.name));
                }
            }
        }
    }

    /// Waits until every reader publishes what is written. That a slot is active does not tell: it
    /// also is while it is made, and Debezium streams from a later place.
    async fn wait_for_all_to_stream(&mut self) {
        let insert = format!("INSERT INTO {HELLO} DEFAULT VALUES");
        let topics: Vec<String> =
            self.readers.iter().map(|reader| format!("{}.public.{HELLO}", reader.prefix)).collect();
        eventually(LIMIT, "all readers to stream", async || {
            self.assert_healthy();
            self.client.batch_execute(&insert).await.expect("say hello");
            topics.iter().all(|topic| self.length(topic) > 0).then_some(())
        })
        .await;
    }

    /// Waits until every reader has published all that was committed by now.
    pub(crate) async fn wait(&mut self) {
        self.barrier += 1;
        let insert = format!("INSERT INTO {BARRIER} VALUES ({})", self.barrier);
        self.client.batch_execute(&insert).await.expect("set the barrier");
        let started = Instant::now();
        for reader in self.readers.clone() {
            let topic = format!("{}.public.{BARRIER}", reader.prefix);
            while self.length(&topic) < self.barrier {
                self.assert_healthy();
                let waits = started.elapsed() < LIMIT;
                assert!(
                    waits,
                    "{} is not at barrier {} after {LIMIT:?}",
                    reader.prefix, self.barrier
                );
                pause();
            }
        }
    }

    pub(crate) fn assert_healthy(&mut self) {
        for (reader, bridge) in &mut self.bridges {
            if let Some(status) = bridge.exited() {
                panic!("{} ended: {status}; log:\n{}", reader.prefix, bridge.log());
            }
        }
        if let Some(connect) = self.connect {
            // Poisoned by another server's thread, which has said so.
            connect.lock().unwrap_or_else(PoisonError::into_inner).assert_healthy();
        }
    }

    /// Records in the one partition of a topic; none while there is no topic.
    fn length(&self, topic: &str) -> i64 {
        self.end(topic, 0)
    }

    fn end(&self, topic: &str, partition: i32) -> i64 {
        let timeout = Duration::from_secs(5);
        self.consumer.fetch_watermarks(topic, partition, timeout).map_or(0, |(_, end)| end)
    }

    /// All that a reader has published.
    pub(crate) fn published(&self, reader: &Reader, major: u32) -> Published {
        let records = self.records(&reader.prefix);
        let records = records.iter().map(|record| Record::new(record, &reader.prefix)).collect();
        let (publisher, configuration) = (reader.publisher, reader.configuration);
        Published { major, publisher, configuration, records }
    }

    /// All that the reader with this prefix has published: by topic, then in order.
    fn records(&self, prefix: &str) -> Vec<OwnedRecord> {
        let metadata = self.consumer.fetch_metadata(None, LIMIT).expect("metadata");
        let own = format!("{prefix}.");
        let aside = [BARRIER, HELLO].map(|table| format!("{prefix}.public.{table}"));
        let is_own = |topic: &&MetadataTopic| {
            topic.name().starts_with(&own) && !aside.iter().any(|aside| aside == topic.name())
        };
        let topics: Vec<&MetadataTopic> = metadata.topics().iter().filter(is_own).collect();
        let partitions = |topic: &&MetadataTopic| {
            let partitions = topic.partitions().iter();
            partitions.map(|own| self.end(topic.name(), own.id())).sum::<i64>()
        };
        let all: i64 = topics.iter().map(partitions).sum();
        let all = usize::try_from(all).expect("a count");
        let topics: Vec<&str> = topics.iter().map(|topic| topic.name()).collect();
        let mut reader = RecordReader::open(self.bootstrap, &topics, LIMIT);
        let mut records = reader.until(|records| records.len() >= all, LIMIT).to_vec();
        let place = |record: &OwnedRecord| (record.topic.clone(), record.partition, record.offset);
        records.sort_by_cached_key(place);
        records
    }
}
