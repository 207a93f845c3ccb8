//! The broker of the demo: one in this process, one of Apache Kafka, or one that runs already.
//!
//! The embedded one is librdkafka's mock: there in milliseconds, with nothing to install. It knows
//! no way to make a topic from outside, so the demo's topic is made here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::error::DemoError;
use super::process::{Guarded, LOOK, free_port};
use super::programs::Places;

/// The topic of the rides.
pub(super) const TOPIC: &str = "rides";
/// Its partitions.
const PARTITIONS: i32 = 2;
/// The topic of the checkpoints, as the bridge names it by default.
const CHECKPOINTS: &str = "rowcast.checkpoints";

/// Longest wait for Kafka; a JVM and its broker take some seconds.
const START: Duration = Duration::from_secs(90);
/// How many times ports are chosen.
const PORTS: usize = 3;

const LOGGING: &str = "
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1} %m%n
";

/// A broker that takes records.
pub(super) enum RunningBroker {
    /// In this process. Boxed, as it is far larger than the others.
    Embedded(Box<MockCluster<'static, DefaultProducerContext>>),
    /// A node of Apache Kafka.
    Kafka(Kafka),
    /// One that is not ours, by its bootstrap address.
    Existing(String),
}

impl RunningBroker {
    /// Starts the embedded broker, which takes milliseconds and cannot move between threads.
    pub(super) fn embedded() -> Result<Self, DemoError> {
        let failed = |doing| move |source| DemoError::Broker { doing, source };
        let cluster = MockCluster::new(1).map_err(failed("start the embedded broker"))?;
        cluster
            .create_topic(TOPIC, PARTITIONS, 1)
            .map_err(failed("make topic rides in the embedded broker"))?;
        cluster
            .create_topic(CHECKPOINTS, 1, 1)
            .map_err(failed("make the topic of checkpoints in the embedded broker"))?;
        Ok(Self::Embedded(Box::new(cluster)))
    }

    /// Bootstrap brokers.
    pub(super) fn brokers(&self) -> String {
        match self {
            Self::Embedded(cluster) => cluster.bootstrap_servers(),
            Self::Kafka(node) => node.brokers(),
            Self::Existing(brokers) => brokers.clone(),
        }
    }

    /// Whether the bridge is to make its topics.
    pub(super) fn makes_topics(&self) -> bool {
        !matches!(self, Self::Embedded(_))
    }

    /// That the broker ended, once it did; one that is not ours is the bridge's to judge.
    pub(super) fn ended(&mut self) -> Option<DemoError> {
        match self {
            Self::Kafka(node) => node.process.ended(),
            Self::Embedded(_) | Self::Existing(_) => None,
        }
    }
}

/// A node of Apache Kafka, broker and controller in one.
#[derive(Debug)]
pub(super) struct Kafka {
    process: Guarded,
    port: u16,
    java: PathBuf,
    jars: PathBuf,
}

impl Kafka {
    /// Prepares the storage and starts the node.
    pub(super) async fn start(places: &Places) -> Result<Self, DemoError> {
        let (jars, java) = (places.kafka()?, places.java());
        java_runs(&java)?;
        for attempt in 1.. {
            // Its data is thrown away, so there is nothing to wait for at the end.
            let process = Guarded::new("kafka", "KILL")?;
            let port = free_port()?;
            let mut node = Self { process, port, java: java.clone(), jars: jars.clone() };
            match node.launch().await {
                Err(DemoError::Ended { log, .. })
                    if attempt < PORTS && log.contains("Address already in use") => {}
                other => return other.map(|()| node),
            }
        }
        unreachable!("the loop ends by its last attempt")
    }

    async fn launch(&mut self) -> Result<(), DemoError> {
        let dir = self.process.dir().display().to_string();
        let (settings, logging) =
            (format!("{dir}/server.properties"), format!("{dir}/log.properties"));
        self.process.write("server.properties", &node_settings(&dir, self.port, free_port()?))?;
        self.process.write("log.properties", LOGGING)?;
        let class_path = format!("{}/*", self.jars.display());
        let logging = format!("-Dlog4j2.configurationFile={logging}");
        // A JVM that is killed leaves its performance data and unpacked libraries where it put them.
        let scratch = format!("-Djava.io.tmpdir={dir}");
        let small = ["-XX:-UsePerfData", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
        let jvm = [&small[..], &[&scratch, &logging]].concat();
        let program = ["-cp", &class_path];
        let format = ["kafka.tools.StorageTool", "format", "-t", "QMjxTo9TTvGnsYQe10JV7A", "-c"];
        let format = [&jvm[..], &["-Xmx128m"], &program, &format, &[&settings]].concat();
        self.process.complete(&self.java, &format).await?;
        let run = [&jvm[..], &["-Xms256m", "-Xmx256m"], &program, &["kafka.Kafka", &settings]];
        self.process.spawn(&self.java, &run.concat())?;
        self.wait_until_ready().await
    }

    /// Ready is who answers for its cluster, not who has opened its port.
    async fn wait_until_ready(&mut self) -> Result<(), DemoError> {
        let brokers = self.brokers();
        let mut ready = tokio::task::spawn_blocking(move || answers(&brokers, START));
        loop {
            if let Some(error) = self.process.ended() {
                return Err(error);
            }
            tokio::select! {
                found = &mut ready => {
                    return match found {
                        Ok(Ok(true)) => Ok(()),
                        Ok(Ok(false)) => Err(DemoError::NotReady {
                            program: "Apache Kafka",
                            waited: START,
                            log: self.process.last_words(),
                        }),
                        Ok(Err(error)) => Err(error),
                        Err(source) => Err(DemoError::Task { task: "the wait for Kafka", source }),
                    };
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Java and its jars, for the console tools.
    pub(super) fn console(&self) -> String {
        format!("{} -cp '{}/*'", self.java.display(), self.jars.display())
    }
}

/// Whether brokers answer for their cluster before `patience` is over.
fn answers(brokers: &str, patience: Duration) -> Result<bool, DemoError> {
    let began = Instant::now();
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // The default lets a client wait ten seconds after some refusals.
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100")
        // Refusals are what is waited through.
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg)
        .create()
        .map_err(|source| DemoError::Broker { doing: "set up a Kafka client", source })?;
    while began.elapsed() < patience {
        match client.fetch_metadata(None, Duration::from_millis(250)) {
            Ok(metadata) if !metadata.brokers().is_empty() => return Ok(true),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(false)
}

fn java_runs(java: &Path) -> Result<(), DemoError> {
    let mut command = Command::new(java);
    command.args(["-XX:-UsePerfData", "-version"]).stdin(Stdio::null());
    let ran = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.map(drop).map_err(|source| DemoError::NoJava { program: java.to_owned(), source })
}

fn node_settings(dir: &str, port: u16, controller_port: u16) -> String {
    format!(
        "\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={dir}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"
    )
}
