//! The SQL that both sides publish, one step a transaction.
//!
//! The conventions are told in `sql/00_setup.sql`.

use std::fs;
use std::path::Path;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Run this, in one transaction.
    Run(String),
    /// Wait until every reader has published all that came before.
    Wait,
}

/// A part of the script: its file's name and its steps.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

/// The parts for a server of this major version, in order.
pub(crate) fn parts(major: u32) -> Vec<Part> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debezium/sql");
    let entries = fs::read_dir(&folder).expect("the folder of the script");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files.filter(|file| file.is_file()).collect();
    files.sort();
    files.iter().map(|file| part(file, major)).collect()
}

/// What is there, beside what these parts leave, before a snapshot is taken.
pub(crate) fn rows(parts: &[Part], major: u32) -> Part {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debezium/sql/snapshot/rows.sql");
    let Part { name, steps: own } = part(&file, major);
    let text = fs::read_to_string(&file).expect("it was just read");
    let emptied = text.lines().filter_map(|line| line.strip_prefix("-- again "));
    let again = emptied.flat_map(|table| {
        let insert = format!("INSERT INTO {table} ");
        let all = parts.iter().flat_map(|part| &part.steps);
        let is_its = |step: &&Step| matches!(step, Step::Run(sql) if sql.starts_with(&insert));
        let found: Vec<Step> = all.filter(is_its).cloned().collect();
        assert!(!found.is_empty(), "nothing is inserted into {table}");
        found
    });
    Part { name, steps: again.chain(own).collect() }
}

fn part(file: &Path, major: u32) -> Part {
    Part {
        name: file.file_name().expect("a name").to_string_lossy().into_owned(),
        steps: steps(&fs::read_to_string(file).expect("a part of the script"), major),
    }
}

fn steps(text: &str, major: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut step = String::new();
    let mut since = 0;
    let mut in_transaction = false;
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("-- ") {
            assert!(step.is_empty(), "a comment inside of a step: {step}");
            if comment == "wait" {
                steps.push(Step::Wait);
            } else if let Some(version) = comment.strip_prefix("since ") {
                since = version.parse().expect("a version of PostgreSQL");
            }
            continue;
        }
        step.push_str(line);
        step.push('\n');
        in_transaction = (in_transaction || line == "BEGIN;") && line != "COMMIT;";
        if line.ends_with(';') && !in_transaction {
            let whole = std::mem::take(&mut step);
            if major >= std::mem::take(&mut since) {
                steps.push(Step::Run(whole));
            }
        }
    }
    assert!(step.trim().is_empty(), "the last step has no end: {step}");
    steps
}

/// The topics of the tables that the parts make, without their prefix: `schema.table`, with `_` for
/// what Kafka does not allow.
pub(crate) fn tables(parts: &[Part]) -> Vec<String> {
    let steps = parts.iter().flat_map(|part| &part.steps);
    let lines = steps.flat_map(|step| match step {
        Step::Run(sql) => sql.lines(),
        Step::Wait => "".lines(),
    });
    let mut topics: Vec<String> = lines
        .filter_map(|line| {
            let name = line.strip_prefix("CREATE TABLE ")?.split(" (").next()?;
            let name = name.split(" PARTITION OF").next()?;
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let topic = name.replace("\".\"", ".").replace('"', "");
            let schema = if name.contains("\".\"") { "" } else { "public." };
            let topic: String = topic.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
            Some(format!("{schema}{topic}"))
        })
        .collect();
    // A table may be made again under its old name.
    topics.sort();
    topics.dedup();
    topics
}
