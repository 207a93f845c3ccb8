//! Holds `docs/formats.md` to the code: its examples are what the encoder writes.

use std::collections::BTreeMap;

use rowcast::change::{ColumnFacts, RelationFacts};
use rowcast::config::{Format, ValueFormat};

use crate::stream::Stream;
use crate::wire::{Value, begin, commit, relation, row, text, tuple};

const MANUAL: &str = include_str!("../../docs/formats.md");
/// 2024-03-01 08:35:01.500123 UTC, from the Postgres epoch.
const COMMIT_US: i64 = 762_597_301_500_123;
const LSN: u64 = 24_023_128;

/// The examples: what stands in the comment above a block, and the block.
fn examples() -> BTreeMap<&'static str, &'static str> {
    let example = |part: &'static str| {
        let (name, rest) = part.split_once(" -->\n```json\n")?;
        let (block, _) = rest.split_once("\n```")?;
        Some((name, block))
    };
    MANUAL.split("<!-- ").skip(1).filter_map(example).collect()
}

/// Keys and values of the manual's transaction.
fn records(format: &Format) -> Vec<(Option<String>, Option<String>)> {
    let column = |name: &str, type_oid, not_null| ColumnFacts {
        name: name.to_owned(),
        type_oid,
        not_null,
        ..ColumnFacts::default()
    };
    let facts = RelationFacts {
        primary_key: vec!["id".to_owned()],
        columns: vec![
            column("id", 20, true),
            column("vendor", 25, true),
            column("note", 25, false),
        ],
        ..RelationFacts::default()
    };
    let mut stream = Stream::new(format, facts, None);
    let columns = [(true, "id", 20), (false, "vendor", 25), (false, "note", 25)];
    let values = [text("7001"), text("VTS"), Value::Null];
    let frames = [
        begin(24_022_900, COMMIT_US, 770),
        commit(24_022_900, 24_023_000, COMMIT_US),
        relation(7, "trips", b'd', &columns),
        begin(24_023_200, COMMIT_US, 771),
        row(b'I', 7, &[tuple(b'N', &values)]),
        commit(24_023_200, 24_023_300, COMMIT_US),
    ];
    let mut records = Vec::new();
    for frame in frames {
        let part = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8(b.to_vec()).unwrap());
        let sent = stream.send_at(&frame, LSN.into(), |record| {
            records.push((part(record.key), part(record.value)));
        });
        sent.unwrap();
    }
    records
}

#[test]
fn every_format_has_an_example_that_the_encoder_writes() {
    let examples = examples();
    let mut held = 0;
    for (name, value) in [
        ("debezium", ValueFormat::Debezium),
        ("debezium-schema", ValueFormat::DebeziumSchema),
        ("cloudevents", ValueFormat::CloudEvents),
        ("flat", ValueFormat::Flat),
    ] {
        let records = records(&Format { value, ..Format::default() });
        let [(Some(key), Some(value))] = records.as_slice() else { panic!("{records:?}") };
        assert_eq!(value, examples[format!("value {name}").as_str()]);
        held += 1;
        if let Some(example) = examples.get(format!("key {name}").as_str()) {
            assert_eq!(key, example);
            held += 1;
        }
    }
    let format = Format { value: ValueFormat::Flat, flat_metadata: true, ..Format::default() };
    assert_eq!(records(&format)[0].1.as_deref(), Some(examples["value flat with metadata"]));
    assert_eq!(examples.len(), held + 3, "all examples are held to the code");
}

#[test]
fn the_example_of_a_transaction_is_what_the_encoder_writes() {
    let examples = examples();
    let format = Format { transaction_metadata: true, ..Format::default() };
    let records = records(&format);
    let values: Vec<&str> = records.iter().filter_map(|(_, value)| value.as_deref()).collect();
    let [_, _, begin, insert, end] = values.as_slice() else { panic!("{values:?}") };
    assert_eq!(format!("{begin}\n{end}"), examples["transaction records"]);
    assert!(insert.contains(&format!("\"transaction\":{}", examples["transaction block"])));
}
