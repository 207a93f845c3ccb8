//! What `rowcast check` found: every precondition, how it is, and what fixes it.
//!
//! ```text
//! Postgres, Kafka --asked by bridge::check--> findings --> text for people, JSON for programs
//! ```
//!
//! A fix is text as errors have it: lines of SQL end with a semicolon, commands for the brokers begin
//! with `kafka-`, anything else is words. All SQL is printed once more as one block, and so are the
//! commands, so that each block can be pasted whole.

mod text;

use serde::Serialize;

pub use self::text::text;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and may surprise later.
    Warning,
    /// rowcast can't run so.
    Error,
}

/// One precondition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which one: the system, a dot, and a name that stays.
    pub check: &'static str,
    /// How it is.
    pub level: Level,
    /// What was found, in one line.
    pub found: String,
    /// What changes it, the safe way first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// Something that is as it should be.
    #[must_use]
    pub const fn ok(check: &'static str, found: String) -> Self {
        Self { check, level: Level::Ok, found, fix: None }
    }

    /// Something that works, and may surprise later.
    #[must_use]
    pub const fn warning(check: &'static str, found: String, fix: Option<String>) -> Self {
        Self { check, level: Level::Warning, found, fix }
    }

    /// Something that rowcast can't run with.
    #[must_use]
    pub const fn error(check: &'static str, found: String, fix: Option<String>) -> Self {
        Self { check, level: Level::Error, found, fix }
    }
}

/// All of them, and the fixes in blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst level.
    pub level: Level,
    /// In the order in which they were asked for.
    pub findings: Vec<Finding>,
    /// What is to be run in the database, each statement once; empty where nothing is.
    pub sql: String,
    /// What is to be run against the brokers, likewise.
    pub kafka: String,
}

impl Report {
    /// Sums findings up.
    #[must_use]
    pub fn new(findings: Vec<Finding>) -> Self {
        let level = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        // A warning is no reason to change anything.
        let errors = || findings.iter().filter(|finding| finding.level == Level::Error);
        let lines = || errors().filter_map(|finding| finding.fix.as_deref()).flat_map(str::lines);
        let (sql, kafka) = (block(lines(), is_sql), block(lines(), is_for_brokers));
        Self { level, findings, sql, kafka }
    }

    /// Those that rowcast can't run with.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.level == Level::Error)
    }
}

fn is_sql(line: &str) -> bool {
    line.ends_with(';') || line.starts_with("--")
}

fn is_for_brokers(line: &str) -> bool {
    line.starts_with("kafka-")
}

fn block<'a>(lines: impl Iterator<Item = &'a str>, belongs: impl Fn(&str) -> bool) -> String {
    let mut block: Vec<&str> = Vec::new();
    for line in lines.filter(|line| belongs(line)) {
        if !block.contains(&line) {
            block.push(line);
        }
    }
    block.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(fix: &str) -> Finding {
        Finding::error("postgres.role", "it may not".to_owned(), Some(fix.to_owned()))
    }

    #[test]
    fn each_statement_and_each_command_is_in_its_block_once() {
        let report = Report::new(vec![
            error("ALTER ROLE r REPLICATION;\nGRANT SELECT ON a TO r;"),
            error("ALTER ROLE r REPLICATION;"),
            error("# the brokers refuse\nkafka-acls.sh --add --topic a\nset kafka.brokers"),
            Finding::warning("postgres.slot", "large".to_owned(), Some("DROP TABLE a;".to_owned())),
            Finding::ok("kafka.topics", "all there".to_owned()),
        ]);
        assert_eq!(report.level, Level::Error);
        assert_eq!(report.sql, "ALTER ROLE r REPLICATION;\nGRANT SELECT ON a TO r;");
        assert_eq!(report.kafka, "kafka-acls.sh --add --topic a");
    }

    #[test]
    fn the_manual_lists_every_check_and_no_other() {
        let manual = include_str!("../../docs/check.md");
        let sources = [
            include_str!("../bridge/check/mod.rs"),
            include_str!("../bridge/check/brokers.rs"),
            include_str!("../bridge/check/database.rs"),
            include_str!("../bridge/setup.rs"),
        ];
        let named = |text: &str, quote: char| -> std::collections::BTreeSet<String> {
            let is_check = |word: &&str| {
                let part = |rest: &str| rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                ["postgres.", "kafka."]
                    .iter()
                    .any(|system| word.strip_prefix(system).is_some_and(part))
            };
            text.split(quote).filter(is_check).map(str::to_owned).collect()
        };
        let used: std::collections::BTreeSet<String> =
            sources.iter().flat_map(|source| named(source, '"')).collect();
        let (_, table) = manual.split_once("## What is checked").expect("the table");
        let first = |line: &str| line.split('|').nth(1).unwrap_or_default().to_owned();
        let listed: String = table.lines().map(first).collect();
        assert_eq!(used, named(&listed, '`'));
    }

    #[test]
    fn without_errors_the_worst_is_a_warning_or_nothing() {
        let warning = Finding::warning("postgres.slot", "large".to_owned(), None);
        assert_eq!(Report::new(vec![warning]).level, Level::Warning);
        assert_eq!(Report::new(Vec::new()).level, Level::Ok);
    }
}
