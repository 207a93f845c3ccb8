//! Debezium in a Kafka Connect worker, tuned for throughput.
//!
//! The tuning is the best that was found on such machines: a producer with large batches and lz4;
//! larger queues of the connector itself made it slower. A snapshot is read by as many threads as
//! rowcast has connections.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::support::process::{Guarded, free_port};
use crate::support::{java, run_script};
use crate::trips::{PUBLICATION, TABLE};

const MEMORY: &[&str] = &["-Xms256M", "-Xmx2G", "-XX:+UseG1GC"];

/// What is read, and where it goes.
pub(crate) struct Connector<'a> {
    /// The server's port on 127.0.0.1.
    pub(crate) port: u16,
    /// The slot that it makes, and the prefix of its topics.
    pub(crate) slot: &'a str,
    /// Threads that read.
    pub(crate) threads: usize,
}

impl Connector<'_> {
    /// The topic of the table.
    pub(crate) fn topic(&self) -> String {
        format!("{}.public.{TABLE}", self.slot)
    }
}

/// Starts a worker with the connector.
pub(crate) fn start(brokers: &str, connector: &Connector<'_>) -> Guarded {
    let jars = run_script("fetch-debezium", &[]).ok().and_then(|mut folders| folders.pop());
    let jars = jars.expect("the jars of Debezium (scripts/fetch-debezium)");
    let mut process = Guarded::new("debezium", None, "KILL");
    let mut args = java::args(MEMORY, process.dir(), "warn", &jars.join("worker"));
    let dir = process.dir().display().to_string();
    let write = |name: &str, text: &str| {
        fs::write(format!("{dir}/{name}"), text).expect("write the settings");
    };
    write("worker.properties", &worker(brokers, &dir, &jars.display().to_string()));
    write("connector.properties", &properties(connector));
    args.push("org.apache.kafka.connect.cli.ConnectStandalone".to_owned());
    args.push(format!("{dir}/worker.properties"));
    args.push(format!("{dir}/connector.properties"));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    process.spawn(Path::new("java"), &args, |_| {});
    process
}

fn worker(brokers: &str, dir: &str, jars: &str) -> String {
    let port = free_port();
    format!(
        "\
bootstrap.servers={brokers}
key.converter=org.apache.kafka.connect.json.JsonConverter
key.converter.schemas.enable=false
value.converter=org.apache.kafka.connect.json.JsonConverter
value.converter.schemas.enable=false
offset.storage.file.filename={dir}/offsets
plugin.path={jars}/plugins
plugin.discovery=service_load
listeners=http://127.0.0.1:{port}
producer.batch.size=524288
producer.linger.ms=20
producer.compression.type=lz4
producer.buffer.memory=134217728
"
    )
}

fn properties(connector: &Connector<'_>) -> String {
    let Connector { port, slot, threads } = connector;
    let (port, threads) = (port.to_string(), threads.to_string());
    let table = format!("public.{TABLE}");
    let properties = [
        ("name", *slot),
        ("connector.class", "io.debezium.connector.postgresql.PostgresConnector"),
        ("tasks.max", "1"),
        ("database.hostname", "127.0.0.1"),
        ("database.port", &port),
        ("database.user", "postgres"),
        ("database.dbname", "postgres"),
        ("topic.prefix", slot),
        ("plugin.name", "pgoutput"),
        ("slot.name", slot),
        ("publication.name", PUBLICATION),
        ("publication.autocreate.mode", "disabled"),
        ("table.include.list", &table),
        ("snapshot.mode", "initial_only"),
        ("snapshot.max.threads", &threads),
        ("snapshot.fetch.size", "20000"),
    ];
    let mut text = String::new();
    for (key, value) in properties {
        writeln!(text, "{key}={value}").expect("write to a text");
    }
    text
}
