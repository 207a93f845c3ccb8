//! Apache Kafka nodes (KRaft, one process each), and the embedded broker for when there is none.
//!
//! The jars come from `scripts/fetch-kafka`. Where they cannot be had, a test that needs the real
//! thing says so and returns ([`kafka_or_skip!`]); with `ROWCAST_REQUIRE_KAFKA=1` it fails. A test
//! that can do with librdkafka's mock takes [`Brokers`].
//!
//! The mock knows no admin API, no transactions' markers, and keeps 5 MB a partition.

mod cluster;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use rustix::process::Signal;

pub use self::cluster::{KafkaCluster, Roles};
pub use self::settings::RelayedPort;
use self::settings::Settings;
use super::process::Guarded;
use super::{PATIENCE, java, run_script};

/// A JVM and its broker take seconds on an idle machine, and tests compete for cores.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// The shared node, or leave the test with a line that says it was skipped.
#[macro_export]
macro_rules! kafka_or_skip {
    () => {
        match $crate::kafka::KafkaNode::shared() {
            Ok(node) => node,
            Err(reason) => {
                $crate::report_skipped(module_path!(), reason);
                return;
            }
        }
    };
}
pub use kafka_or_skip;

/// A private node that runs, or leave the test with a line that says it was skipped.
#[macro_export]
macro_rules! private_kafka_or_skip {
    () => {
        match $crate::kafka::KafkaNode::start() {
            Ok(node) => node,
            Err(reason) => {
                $crate::report_skipped(module_path!(), reason);
                return;
            }
        }
    };
}
pub use private_kafka_or_skip;

/// A running Apache Kafka node, broker and controller in one.
#[derive(Debug)]
pub struct KafkaNode {
    process: Guarded,
    jars: &'static Path,
    settings: Settings,
    memory: &'static [&'static str],
}

/// Enough for tests, and little beside several other servers.
const SMALL: &[&str] = &["-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// As a broker is run where speed matters.
const FAST: &[&str] = &["-Xms1g", "-Xmx1g", "-XX:+UseG1GC"];

impl KafkaNode {
    /// The node that all tests share.
    ///
    /// # Errors
    ///
    /// Why there can be no node here; never with `ROWCAST_REQUIRE_KAFKA=1`, which panics.
    pub fn shared() -> Result<&'static Self, &'static str> {
        static SHARED: OnceLock<Result<KafkaNode, &'static str>> = OnceLock::new();
        let start = || Self::start_with(SMALL, &Settings::unhurried);
        SHARED.get_or_init(start).as_ref().map_err(|reason| *reason)
    }

    /// A private node.
    ///
    /// # Errors
    ///
    /// As for [`KafkaNode::shared`].
    pub fn start() -> Result<Self, &'static str> {
        Self::start_with(SMALL, &Settings::lone)
    }

    /// A private node that may stand still for seconds and is not taken for dead: it leads its
    /// partitions as before when it goes on.
    ///
    /// # Errors
    ///
    /// As for [`KafkaNode::shared`].
    pub fn start_unhurried() -> Result<Self, &'static str> {
        Self::start_with(SMALL, &Settings::unhurried)
    }

    /// A private node for measurements.
    ///
    /// # Errors
    ///
    /// As for [`KafkaNode::shared`].
    pub fn start_for_speed() -> Result<Self, &'static str> {
        Self::start_with(FAST, &Settings::lone)
    }

    /// A private node that listens at one more port, for clients that come through a relay: it
    /// tells them the relay's port as its own.
    ///
    /// # Errors
    ///
    /// As for [`KafkaNode::shared`].
    pub fn start_behind(relay: RelayedPort) -> Result<Self, &'static str> {
        Self::start_with(SMALL, &|| Settings { relayed: Some(relay), ..Settings::lone() })
    }

    /// A private node that has a second port, for clients that log in as `bridge` with the password
    /// `secret` and may do what [`KafkaNode::allow`] gave them.
    ///
    /// # Errors
    ///
    /// As for [`KafkaNode::shared`].
    pub fn start_guarded() -> Result<Self, &'static str> {
        Self::start_with(SMALL, &|| Settings::guarded())
    }

    /// Where clients come that must log in.
    pub fn guarded_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.settings.guarded.expect("a guarded node"))
    }

    /// Gives `bridge` what these arguments of Kafka's own tool say, or with `--remove` takes it.
    pub fn allow(&self, args: &[&str]) {
        self.change_rights(&[&["--allow-principal", "User:bridge"], args].concat());
    }

    /// Runs Kafka's own tool for rights.
    pub fn change_rights(&self, args: &[&str]) {
        let output = self
            .process
            .command(Path::new("java"))
            .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(java::class_path(self.jars))
            .args(["org.apache.kafka.tools.AclCommand", "--bootstrap-server", &self.brokers()])
            .args(args)
            .output()
            .expect("run java");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "change rights: {said}");
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, name: &str) {
        let deleted = self.deleted(&[name]).await.expect("ask for it");
        for result in deleted {
            result.unwrap_or_else(|(topic, code)| panic!("delete topic {topic}: {code}"));
        }
    }

    /// Deletes topics that nobody needs any more, as far as that can be had.
    pub async fn discard_topics(&self, names: &[&str]) {
        // Those that stay do no harm but for the memory that they take.
        let _ = self.deleted(names).await;
    }

    async fn deleted(&self, names: &[&str]) -> KafkaResult<Vec<TopicResult>> {
        admin(&self.brokers()).delete_topics(names, &AdminOptions::new()).await
    }

    fn start_with(
        memory: &'static [&'static str],
        settings: &dyn Fn() -> Settings,
    ) -> Result<Self, &'static str> {
        let jars = jars()?;
        for _ in 0..3 {
            let mut node = Self::prepared(jars, memory, settings());
            node.launch();
            match node.wait_until_ready() {
                Ok(()) => return Ok(node),
                Err(reason) if reason.contains("Address already in use") => {}
                Err(reason) => panic!("start Kafka: {reason}"),
            }
        }
        panic!("start Kafka: three free ports were taken before the node had them");
    }

    /// A node that has its storage and was not started.
    fn prepared(jars: &'static Path, memory: &'static [&'static str], settings: Settings) -> Self {
        let node = Self { process: Guarded::new("kafka", None, "KILL"), jars, settings, memory };
        node.format();
        node
    }

    /// Writes the settings and prepares the storage.
    fn format(&self) {
        let dir = self.process.dir();
        let settings = self.settings.properties(&dir.join("data"));
        fs::write(dir.join("server.properties"), settings).expect("write the settings");
        let output = self
            .process
            .command(Path::new("java"))
            .args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(java::class_path(self.jars))
            .args(["kafka.tools.StorageTool", "format", "-t", "QMjxTo9TTvGnsYQe10JV7A", "-c"])
            .arg(dir.join("server.properties"))
            .output()
            .expect("run java");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "format Kafka's storage: {errors}");
    }

    fn launch(&mut self) {
        let dir = self.process.dir();
        let mut args = java::args(self.memory, dir, "info", self.jars);
        let settings = dir.join("server.properties").display().to_string();
        args.extend(["kafka.Kafka".to_owned(), settings]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.process.spawn(Path::new("java"), &args, |_| {});
    }

    /// Ready is who answers for its cluster, not who has opened its port.
    fn wait_until_ready(&mut self) -> Result<(), String> {
        let started = Instant::now();
        let client: BaseConsumer = client_config(&self.brokers()).create().expect("a client");
        loop {
            if let Some(status) = self.process.exited() {
                return Err(format!("{status}; log:\n{}", self.process.log_tail()));
            }
            match client.fetch_metadata(None, Duration::from_millis(500)) {
                Ok(metadata) if !metadata.brokers().is_empty() => return Ok(()),
                Ok(_) | Err(_) => {}
            }
            let log = self.process.log_tail();
            assert!(started.elapsed() < START_PATIENCE, "Kafka is not ready; log:\n{log}");
        }
    }

    /// Starts a node that was stopped or killed; ports and data are those from before.
    pub fn start_again(&mut self) {
        self.launch();
        self.wait_until_ready().unwrap_or_else(|reason| panic!("start Kafka again: {reason}"));
    }

    /// SIGTERM, and wait for the end.
    pub fn stop(&mut self) {
        self.process.signal(Signal::TERM);
        self.process.wait(PATIENCE);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(PATIENCE);
    }

    /// SIGSTOP: connections stay open and nothing is answered, until [`KafkaNode::thaw`].
    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Goes on after [`KafkaNode::freeze`].
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Bootstrap brokers.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.settings.port)
    }

    /// The folder of its settings, data and log.
    pub fn dir(&self) -> &Path {
        self.process.dir()
    }

    /// What the node logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Process id of the node.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Makes a topic with these settings.
    pub async fn create_topic(&self, name: &str, partitions: i32, set: &[(&str, &str)]) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = set.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        create_topic(&self.brokers(), &topic).await;
    }
}

/// Whoever makes, describes and deletes topics.
pub fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    client_config(brokers).create().expect("an admin client")
}

async fn create_topic(brokers: &str, topic: &NewTopic<'_>) {
    let made = admin(brokers).create_topics([topic], &AdminOptions::new()).await;
    let made = made.expect("ask for it");
    for result in made {
        result.unwrap_or_else(|(topic, code)| panic!("create topic {topic}: {code}"));
    }
}

/// Brokers for a test that can do with either.
pub enum Brokers {
    /// The shared node.
    Real(&'static KafkaNode),
    /// librdkafka's mock, in this process. Boxed, as it is far larger than a reference.
    Embedded(Box<MockCluster<'static, DefaultProducerContext>>),
}

impl Brokers {
    /// The shared node, or where it cannot be had a mock of its own.
    pub fn any() -> Self {
        KafkaNode::shared().map_or_else(|_| Self::embedded(), Self::Real)
    }

    /// A mock of its own, for tests that inject errors.
    pub fn embedded() -> Self {
        let mock = MockCluster::new(1).expect("start the embedded broker");
        // Nobody can make topics in it from outside, and every bridge needs this one.
        mock.create_topic("rowcast.checkpoints", 1, 1).expect("create a topic in the mock");
        Self::Embedded(Box::new(mock))
    }

    /// Bootstrap brokers.
    pub fn bootstrap(&self) -> String {
        match self {
            Self::Real(node) => node.brokers(),
            Self::Embedded(mock) => mock.bootstrap_servers(),
        }
    }

    /// Makes a topic.
    pub async fn create_topic(&self, name: &str, partitions: i32) {
        match self {
            Self::Real(node) => node.create_topic(name, partitions, &[]).await,
            Self::Embedded(mock) => {
                mock.create_topic(name, partitions, 1).expect("create a topic in the mock");
            }
        }
    }
}

/// Produces records, key and value, one after the other.
pub async fn produce(brokers: &str, topic: &str, records: &[(&str, &str)]) {
    let producer: FutureProducer = client_config(brokers).create().expect("a producer");
    for (key, value) in records {
        let record = FutureRecord::to(topic).key(*key).payload(*value);
        producer.send(record, PATIENCE).await.expect("produce");
    }
}

/// Settings that every client of the tests has.
pub fn client_config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    // Nodes are killed and started again; the default lets a client wait ten seconds.
    config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "250");
    config
}

/// The folder of the jars.
fn jars() -> Result<&'static Path, &'static str> {
    static JARS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let jars = JARS.get_or_init(|| match run_script("fetch-kafka", &[])?.pop() {
        Some(dir) => java_runs().map(|()| dir),
        None => Err("scripts/fetch-kafka printed no folder".to_owned()),
    });
    match jars {
        Ok(dir) => Ok(dir),
        Err(reason) => {
            let required = std::env::var("ROWCAST_REQUIRE_KAFKA").is_ok_and(|value| value == "1");
            assert!(!required, "ROWCAST_REQUIRE_KAFKA=1, and there is no Kafka: {reason}");
            Err(reason)
        }
    }
}

fn java_runs() -> Result<(), String> {
    let output = std::process::Command::new("java").arg("-version").output();
    output.map(drop).map_err(|error| format!("java does not run: {error}"))
}
