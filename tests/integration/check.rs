//! `rowcast check` names everything that keeps a start from working, in one run, and what it prints
//! fixes it when pasted.
//!
//! Each case breaks one thing. Then the check must name it, the blocks that it prints are run as they
//! are, and the next check must find nothing wrong.

mod brokers;
mod database;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_postgres::Client;

use crate::support::{rowcast, unique};

/// Longest that a check may take, whatever is broken.
const LIMIT: Duration = Duration::from_secs(15);

/// How a check is run.
struct Check {
    url: String,
    brokers: String,
    toml: String,
    name: String,
}

/// What it said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    report: Value,
    text: String,
}

impl Check {
    fn new(url: &str, brokers: &str, toml: &str) -> Self {
        let (url, brokers, toml) = (url.to_owned(), brokers.to_owned(), toml.to_owned());
        Self { url, brokers, toml, name: unique("checked") }
    }

    fn run(&self) -> Said {
        self.run_with(&[])
    }

    fn run_with(&self, more: &[&str]) -> Said {
        let config = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
        std::fs::write(config.path(), &self.toml).expect("write the configuration");
        let started = Instant::now();
        let output = Command::new(rowcast())
            .args(["check", "--json", "--name", &self.name, "--config"])
            .arg(config.path())
            .args(more)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("DATABASE_URL", &self.url)
            .env("KAFKA_BROKERS", &self.brokers)
            .output()
            .expect("run rowcast");
        let took = started.elapsed();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(took < LIMIT, "it took {took:?}:\n{out}{err}");
        let report = serde_json::from_str(&out).unwrap_or(Value::Null);
        Said { code: output.status.code(), report, text: out + &err }
    }

    /// The check finds nothing that keeps rowcast from running.
    fn passes(&self, what: &str) -> Said {
        let said = self.run();
        assert_eq!(said.code, Some(0), "{what}:\n{}", said.text);
        said
    }

    /// The check finds an error that says this.
    fn fails(&self, check: &str, words: &str) -> Said {
        let said = self.run();
        assert_eq!(said.code, Some(69), "{check}, {words}:\n{}", said.text);
        let found = said.of(check, "error");
        assert!(
            found.iter().any(|found| found.contains(words)),
            "{check}, {words}:\n{}",
            said.text
        );
        said
    }
}

impl Said {
    /// What was found of a check at a level.
    fn of(&self, check: &str, level: &str) -> Vec<String> {
        let findings = self.report["findings"].as_array().cloned().unwrap_or_default();
        findings
            .iter()
            .filter(|finding| finding["check"] == check && finding["level"] == level)
            .map(|finding| format!("{} {}", finding["found"], finding["fix"]))
            .collect()
    }

    /// Runs the block for the database as it is.
    async fn paste(&self, client: &Client) {
        let sql = self.report["sql"].as_str().unwrap_or_default();
        assert!(!sql.is_empty(), "there is SQL to paste:\n{}", self.text);
        for statement in sql.lines() {
            // ALTER SYSTEM runs in no transaction, and a block is one.
            client.batch_execute(statement).await.unwrap_or_else(|error| {
                panic!("{statement}: {error:?}\nof:\n{sql}");
            });
        }
    }
}
