//! Debezium's records, kept: one file a configuration, one line a record.
//!
//! So the comparison also runs where Debezium cannot be had. Lines are by topic, then in order;
//! what differs between two runs is taken out ([`Record::forget_run`]), and what is long or said
//! again is shortened in a way that still tells a difference. `UPDATE_GOLDEN=1` writes the files
//! again from a live Debezium.

use std::fs;
use std::path::{Path, PathBuf};

use crate::record::Record;

/// The records as a golden file holds them.
pub(crate) fn normalized(records: &[Record]) -> Vec<Record> {
    let mut normalized = Vec::new();
    let mut last: Option<Record> = None;
    for record in records {
        let mut record = record.clone();
        record.forget_run();
        let mut short = record.clone();
        if let Some(last) = last {
            short.shorten_schemas(&last);
        }
        short.shorten_values();
        normalized.push(short);
        last = Some(record);
    }
    normalized
}

fn file(configuration: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debezium/golden");
    folder.join(format!("{configuration}.jsonl"))
}

/// Whether the files are to be written again.
pub(crate) fn is_update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// Writes the file of a configuration.
pub(crate) fn write(configuration: &str, records: &[Record]) {
    let mut text = String::new();
    for record in normalized(records) {
        text.push_str(&format!("{}\n", record.to_json()));
    }
    fs::write(file(configuration), text).expect("write a golden file");
}

/// The records of a configuration's file.
pub(crate) fn read(configuration: &str) -> Vec<Record> {
    let file = file(configuration);
    let text =
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().map(Record::from_line).collect()
}
