//! Debezium in a Kafka Connect worker: one JVM for all connectors.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::process::{Guarded, free_port};
use crate::support::{java, run_script};

/// As the node of the tests is run: little memory, no optimising compiler.
const MEMORY: &[&str] = &["-Xms256m", "-Xmx640m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// The running worker.
#[derive(Debug)]
pub(crate) struct Connect {
    process: Guarded,
}

/// The folder of the jars.
///
/// # Errors
///
/// Why there are none here.
pub(crate) fn jars() -> Result<PathBuf, String> {
    run_script("fetch-debezium", &[])?
        .pop()
        .ok_or_else(|| "scripts/fetch-debezium printed no folder".to_owned())
}

impl Connect {
    /// Starts the worker with these connectors: name and properties of each.
    pub(crate) fn start(
        jars: &Path,
        brokers: &str,
        connectors: &[(String, Vec<(String, String)>)],
    ) -> Self {
        let mut process = Guarded::new("debezium", None, "KILL");
        let mut args = java::args(MEMORY, process.dir(), "warn", &jars.join("worker"));
        let dir = process.dir().display().to_string();
        args.push("org.apache.kafka.connect.cli.ConnectStandalone".to_owned());
        args.push(format!("{dir}/worker.properties"));
        let worker = worker(brokers, &dir, &jars.join("plugins"));
        fs::write(format!("{dir}/worker.properties"), worker).expect("write the settings");
        for (name, properties) in connectors {
            let mut text = format!("name={name}\n");
            for (key, value) in properties {
                writeln!(text, "{key}={value}").expect("write to a text");
            }
            let file = format!("{dir}/{name}.properties");
            fs::write(&file, text).expect("write a connector's settings");
            args.push(file);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        process.spawn(Path::new("java"), &args, |_| {});
        Self { process }
    }

    /// # Panics
    ///
    /// When a connector has failed, or the worker.
    pub(crate) fn assert_healthy(&mut self) {
        if let Some(status) = self.process.exited() {
            panic!("Kafka Connect ended: {status}; log:\n{}", self.process.log());
        }
        let log = self.process.log();
        for sign in
            ["unrecoverable exception", "Failed to create connector", "Stopping due to error"]
        {
            assert!(!log.contains(sign), "a connector failed; log:\n{log}");
        }
    }
}

fn worker(brokers: &str, dir: &str, plugins: &Path) -> String {
    let (port, plugins) = (free_port(), plugins.display());
    format!(
        "\
bootstrap.servers={brokers}
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
offset.storage.file.filename={dir}/offsets
plugin.path={plugins}
plugin.discovery=service_load
listeners=http://127.0.0.1:{port}
"
    )
}
