//! A change whose records are too large is cut to fit, and to no less than that.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rowcast::change::{Assembler, KeyChoice, RelationFacts, Step};
use rowcast::config::{Config, Format, Kafka, Table};
use rowcast::encode::{
    EncodeOptions, Encoder, HEADER_TRUNCATED, Records, SourceIdentity, ValueRules,
};
use rowcast::lsn::Lsn;
use rowcast::pgoutput::{Message, decode};
use serde_json::Value as Json;

use crate::wire::{Column, begin, relation, row, text, tuple};

const COLUMNS: [Column<'_>; 3] = [(true, "id", 20), (false, "zone", 25), (false, "note", 25)];

/// More than the cut may leave unused.
const SLACK: usize = 2100;

/// What is written of a row: whether it fits, its value, and the names of columns that were cut.
struct Written {
    fits: bool,
    value: Option<Json>,
    cut: Vec<String>,
    bytes: usize,
    events: u64,
}

fn write(zone: &str, note: &str, limit: usize, named: &[&str]) -> Written {
    let named = named.iter().map(|&column| column.to_owned()).collect();
    let table = Table { truncate_oversize: Some(named), ..Table::default() };
    let kafka = Kafka { brokers: Some("b:9092".to_owned()), ..Kafka::default() };
    let tables = BTreeMap::from([("public.rides".to_owned(), table)]);
    let format = Format { transaction_metadata: true, ..Format::default() };
    let settings = Config { kafka, tables, format, ..Config::default() }.resolve("taxi").unwrap();
    let source = SourceIdentity::default();
    let options = EncodeOptions { format: &settings.format, source };
    let mut encoder = Encoder::new(&options).with_rules(ValueRules::new(&settings));
    let mut assembler = Assembler::new(None);
    let described = relation(7, "rides", b'd', &COLUMNS);
    let Message::Relation(body) = decode(&described).unwrap() else { panic!("no relation") };
    let facts = RelationFacts { primary_key: vec!["id".to_owned()], ..RelationFacts::default() };
    assembler.relations.insert(&body, facts, &KeyChoice::default()).unwrap();
    let mut records = Records::default();
    let begins = begin(900, 0, 771);
    let Step::Begin(transaction) = assembler.apply(decode(&begins).unwrap(), Lsn::ZERO).unwrap()
    else {
        panic!("no begin")
    };
    encoder.begin(&transaction, Lsn::ZERO, &mut records);
    let insert = row(b'I', 7, &[tuple(b'N', &[text("1"), text(zone), text(note)])]);
    let step = assembler.apply(decode(&insert).unwrap(), Lsn::from(850)).unwrap();
    let Step::Change(change) = step else { panic!("no change") };
    encoder.encode(&change, 1, &mut records).unwrap();
    let fits = match records.above(limit) {
        Some(_) => encoder.cut(&change, 1, limit, &mut records).unwrap(),
        None => true,
    };
    assert_eq!(records.above(limit), None, "what is left fits");
    let record = records.iter().next();
    let json = |bytes: &[u8]| serde_json::from_slice::<Json>(bytes).expect("JSON");
    let value = record.and_then(|record| record.value).map(json);
    let bytes = record.and_then(|record| record.value).map_or(0, <[u8]>::len);
    let header = record.and_then(|record| {
        let mut headers = record.headers();
        headers.find(|(name, _)| *name == HEADER_TRUNCATED).and_then(|(_, names)| names)
    });
    let cut = header.map_or_else(Vec::new, |names| serde_json::from_slice(names).expect("names"));
    encoder.end(&transaction, Lsn::ZERO, &mut records);
    let end = json(records.iter().next().and_then(|record| record.value).expect("an end"));
    Written { fits, value, cut, bytes, events: end["event_count"].as_u64().expect("a count") }
}

#[test]
fn without_a_column_to_cut_nothing_is_left_and_nothing_counted() {
    let written = write("a", &"x".repeat(50_000), 10_000, &[]);
    assert!(!written.fits && written.value.is_none());
    assert_eq!(written.events, 0);
}

#[test]
fn where_the_rest_is_too_large_nothing_is_cut() {
    let written = write(&"z".repeat(50_000), &"x".repeat(50_000), 10_000, &["note"]);
    assert!(!written.fits && written.value.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_longest_texts_are_cut_to_one_length_at_which_the_record_fits(
        zone in "[a-zé\"\\\\日]{0,400}",
        note in "[a-zé\"\\\\日]{0,6000}",
        limit in 5_000_usize..20_000,
    ) {
        let written = write(&zone, &note, limit, &["zone", "note"]);
        prop_assert!(written.fits);
        prop_assert_eq!(written.events, 1, "counted once, however often it was written");
        let value = written.value.expect("a value");
        let texts = [("zone", &zone), ("note", &note)];
        let kept = texts.map(|(name, _)| value["after"][name].as_str().expect("a text"));
        let longest = kept.iter().map(|text| text.chars().count()).max().unwrap_or(0);
        for ((name, whole), kept) in texts.iter().zip(kept) {
            prop_assert!(whole.starts_with(kept));
            let is_cut = kept.len() < whole.len();
            prop_assert_eq!(is_cut, written.cut.contains(&(*name).to_owned()));
            prop_assert!(!is_cut || kept.chars().count() == longest);
        }
        prop_assert!(written.cut.is_empty() || written.bytes + SLACK > limit, "{}", written.bytes);
    }
}
