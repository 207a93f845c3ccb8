//! What rowcast publishes beside what Debezium does, for the same SQL, record by record.
//!
//! Debezium 3.6 runs in a Kafka Connect worker of its own (`scripts/fetch-debezium`), one connector
//! a configuration, and reads what the [`script`] does to each PostgreSQL server; so does rowcast.
//! Debezium's records are kept as [`golden`] files, with which rowcast is compared also where
//! Debezium cannot be had. Of what differs, [`differences`] lets pass what the documentation lists.
//!
//! The rows that were there when they begin are compared too ([`snapshot`]).
//!
//! Not here: what either does after a failure.

mod compare;
mod configurations;
mod connect;
mod differences;
mod golden;
mod json;
mod reader;
mod record;
mod run;
mod script;
mod snapshot;

use rowcast_test_support as support;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::configurations::{ALL, Configuration};
use crate::record::Record;
use crate::run::{Publisher, run};

/// Why a test is left, with the line that says it was skipped.
macro_rules! debezium_or_skip {
    () => {
        if let Some(reason) = &run().without_debezium {
            support::report_skipped(module_path!(), reason);
            return;
        }
    };
}

/// What was read, or leave the test with the line that says it was skipped.
macro_rules! rows_or_skip {
    () => {
        match snapshot::read() {
            Ok(read) => read,
            Err(reason) => {
                support::report_skipped(module_path!(), reason);
                return;
            }
        }
    };
}

#[test]
fn golden_files_are_what_debezium_publishes() {
    debezium_or_skip!();
    let published = || run().of(Publisher::Debezium);
    if golden::is_update() {
        for configuration in ALL {
            let newest = published().rfind(|(_, of, _)| of.name == configuration.name);
            let (_, _, records) = newest.expect("the newest server has all");
            golden::write(configuration.name, records);
        }
    }
    let mut wrong = String::new();
    for (major, configuration, records) in published() {
        let mut expected = golden::read(configuration.name);
        let tables = script::tables(&script::parts(major));
        expected.retain(|record| is_of(record, &tables));
        let found = golden::normalized(records);
        if let Some(differences) = compare::differences(&expected, &found, |_, _| {}) {
            write!(wrong, "{} on PostgreSQL {major}: {differences}", configuration.name)
                .expect("write to a text");
        }
    }
    assert!(wrong.is_empty(), "Debezium publishes something else than the golden files: {wrong}");
}

#[test]
fn rowcast_publishes_what_the_golden_files_hold() {
    let mut wrong = String::new();
    for (major, configuration, records) in run().of(Publisher::Rowcast) {
        let expected = golden::read(configuration.name);
        let found = golden::normalized(records);
        wrong += &compare_with_rowcast(major, configuration, expected, found);
    }
    assert!(wrong.is_empty(), "rowcast publishes something else than Debezium: {wrong}");
}

#[test]
fn rowcast_and_debezium_agree_on_places_and_times() {
    debezium_or_skip!();
    let mut wrong = String::new();
    for (major, configuration, records) in run().of(Publisher::Rowcast) {
        let mut debeziums = run().of(Publisher::Debezium);
        let Some((_, _, expected)) = debeziums.find(is_like(major, configuration)) else {
            // Held to the golden file, and its twin with schemas to this server's Debezium.
            assert!(configuration.is_rowcasts_everywhere(), "{} is compared", configuration.name);
            continue;
        };
        let normalized = |records: &[Record]| {
            let mut records = records.to_vec();
            records.iter_mut().for_each(Record::forget_publisher);
            records
        };
        let (expected, found) = (normalized(expected), normalized(records));
        wrong += &compare_with_rowcast(major, configuration, expected, found);
    }
    assert!(wrong.is_empty(), "rowcast publishes something else than Debezium: {wrong}");
}

#[test]
fn rowcast_and_debezium_read_the_same_rows() {
    let read = rows_or_skip!();
    let mut wrong = String::new();
    for (major, configuration, records) in run::of(read, Publisher::Rowcast) {
        let mut debeziums = run::of(read, Publisher::Debezium);
        let (_, _, expected) = debeziums.find(is_like(major, configuration)).expect("both read");
        let publication = configuration.publication;
        let (expected, found) = (
            snapshot::comparable(expected, publication),
            snapshot::comparable(records, publication),
        );
        wrong += &compare(major, configuration, expected, found, differences::settle_read);
    }
    assert!(wrong.is_empty(), "rowcast reads something else than Debezium: {wrong}");
}

#[test]
fn rows_that_are_read_land_where_debezium_puts_them() {
    let read = rows_or_skip!();
    let places = |records: &[Record]| -> BTreeMap<String, i32> {
        let spread = format!("taxi.public.{}", snapshot::SPREAD);
        let spread = records.iter().filter(|record| record.topic == spread);
        let place =
            |record: &Record| (record.key.as_ref().expect("a key").to_string(), record.partition);
        spread.map(place).collect()
    };
    // With schemas, the keys of the two have other bytes: the topic's prefix stands in them.
    let without_schemas =
        run::of(read, Publisher::Rowcast).filter(|(_, configuration, _)| !configuration.schemas);
    for (major, configuration, records) in without_schemas {
        let mut debeziums = run::of(read, Publisher::Debezium);
        let (_, _, expected) = debeziums.find(is_like(major, configuration)).expect("both read");
        let (expected, found) = (places(expected), places(records));
        let partitions: BTreeSet<i32> = expected.values().copied().collect();
        assert!(partitions.len() > 1, "they are in {partitions:?}");
        assert_eq!(found, expected, "{} on PostgreSQL {major}", configuration.name);
    }
}

#[test]
fn the_documentation_lists_the_differences_that_are_allowed() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/debezium.md");
    let text = fs::read_to_string(file).expect("the documentation");
    let (_, section) = text.split_once("\n## Differences\n").expect("a section on differences");
    let section = section.split("\n## ").next().expect("a first part");
    let entries = section.lines().filter_map(|line| line.strip_prefix("- **")?.split_once("**"));
    let names: Vec<&str> = entries.map(|(name, _)| name).collect();
    assert_eq!(names, differences::NAMES);

    // Every constant that lets something pass has its line there.
    let source = include_str!("differences.rs");
    let constants = source.lines().filter_map(|line| {
        let line = line.strip_prefix("pub(crate) ").unwrap_or(line).strip_prefix("const ")?;
        line.split(':').next()
    });
    let mut masks: Vec<&str> =
        constants.filter(|name| !["NAMES", "MASKS"].contains(name)).collect();
    let mut listed: Vec<&str> = differences::MASKS.iter().map(|(mask, _)| *mask).collect();
    masks.sort_unstable();
    listed.sort_unstable();
    assert_eq!(listed, masks);
    for (mask, name) in differences::MASKS {
        assert!(names.contains(name), "{mask} lets pass what has no line: {name}");
    }
}

fn is_like(
    major: u32,
    configuration: &Configuration,
) -> impl Fn(&(u32, &Configuration, &[Record])) -> bool {
    move |(of, other, _)| (*of, other.name) == (major, configuration.name)
}

fn compare_with_rowcast(
    major: u32,
    configuration: &Configuration,
    expected: Vec<Record>,
    found: Vec<Record>,
) -> String {
    compare(major, configuration, expected, found, differences::settle)
}

fn compare(
    major: u32,
    configuration: &Configuration,
    mut expected: Vec<Record>,
    mut found: Vec<Record>,
    settle: fn(&mut Record, &mut Record),
) -> String {
    let tables = compared_tables(major, configuration);
    expected.retain(|record| is_of(record, &tables) && !differences::is_only_debeziums(record));
    found.retain(|record| is_of(record, &tables) && !differences::is_only_rowcasts(record));
    match compare::differences(&expected, &found, settle) {
        Some(differences) => {
            format!("\n{} on PostgreSQL {major}: {differences}", configuration.name)
        }
        None => String::new(),
    }
}

/// The tables whose events both publish.
fn compared_tables(major: u32, configuration: &Configuration) -> Vec<String> {
    let mut parts = script::parts(major);
    parts.truncate(parts.len() - configuration.refused_parts(&parts).len());
    parts.push(script::rows(&parts, major));
    let mut tables = script::tables(&parts);
    tables.retain(|table| !configuration.unread.contains(&table.as_str()));
    tables
}

/// Whether the record is of one of these tables, or of none at all.
fn is_of(record: &Record, tables: &[String]) -> bool {
    let topic = record.topic.strip_prefix("taxi.").expect("the prefix");
    ["message", "transaction"].contains(&topic) || tables.iter().any(|table| table == topic)
}
