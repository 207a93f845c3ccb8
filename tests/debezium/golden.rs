//! Debezium's records, kept: one file a configuration, one line a record.
//!
//! So the comparison also runs where Debezium cannot be had. Lines are by topic, then in order;
//! what differs between two runs is taken out ([`Record::forget_run`]), and what is long or said
//! again is shortened in a way that still tells a difference. `UPDATE_GOLDEN=1` writes the files
//! anew from a live Debezium.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::record::Record;

/// The lines of these records.
pub(crate) fn lines(records: &[Record]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut last: Option<&Record> = None;
    for record in records {
        let mut short = record.clone();
        short.forget_run();
        if let Some(last) = last {
            short.shorten_schemas(last);
        }
        short.shorten_values();
        lines.push(short.to_string());
        last = Some(record);
    }
    lines
}

fn file(configuration: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debezium/golden");
    folder.join(format!("{configuration}.jsonl"))
}

/// Whether the files are to be written anew.
pub(crate) fn is_update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// Writes the file of a configuration.
pub(crate) fn write(configuration: &str, lines: &[String]) {
    let mut text = lines.join("\n");
    text.push('\n');
    fs::write(file(configuration), text).expect("write a golden file");
}

/// The lines of a configuration's file.
pub(crate) fn read(configuration: &str) -> Vec<String> {
    let file = file(configuration);
    let text =
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().map(str::to_owned).collect()
}

/// How two lists of lines differ: the first differences, and how many there are.
pub(crate) fn differences(expected: &[String], found: &[String]) -> Option<String> {
    const SHOWN: usize = 10;
    let mut text = String::new();
    let mut count = 0;
    for place in 0..expected.len().max(found.len()) {
        let (expected, found) = (expected.get(place), found.get(place));
        if expected == found {
            continue;
        }
        count += 1;
        if count <= SHOWN {
            let or_none = |line: Option<&String>| line.map_or("nothing", String::as_str).to_owned();
            let (expected, found) = (or_none(expected), or_none(found));
            write!(text, "line {}:\n- {expected}\n+ {found}\n", place + 1)
                .expect("write to a text");
        }
    }
    (count > 0).then(|| format!("{count} lines differ\n{text}"))
}
