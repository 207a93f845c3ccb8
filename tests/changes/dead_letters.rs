//! What is told of a change that can't be published, and that it leaves no trace elsewhere.

use rowcast::change::{Assembler, KeyChoice, RelationFacts, Step};
use rowcast::config::{Format, KeyFormat};
use rowcast::encode::{EncodeOptions, Encoder, Records, SourceIdentity};
use rowcast::lsn::Lsn;
use rowcast::pgoutput::{Message, decode};
use serde_json::{Value as Json, json};

use crate::stream::Stream;
use crate::wire::{Column, Value, begin, commit, relation, row, text, tuple};

const COLUMNS: [Column<'_>; 3] = [(true, "id", 20), (false, "fare", 1700), (false, "note", 25)];

fn insert(id: &str, note: Value) -> Vec<u8> {
    row(b'I', 7, &[tuple(b'N', &[text(id), text("2.50"), note])])
}

/// The dead letter of a change: its key and its value.
fn letter(message: &[u8]) -> (Option<Json>, Json) {
    let format = Format { key: KeyFormat::Json, ..Format::default() };
    let source = SourceIdentity::default();
    let mut encoder = Encoder::new(&EncodeOptions { format: &format, source });
    let mut assembler = Assembler::new(None);
    let described = relation(7, "rides", b'd', &COLUMNS);
    let Message::Relation(body) = decode(&described).unwrap() else { panic!("no relation") };
    let facts = RelationFacts { primary_key: vec!["id".to_owned()], ..RelationFacts::default() };
    assembler.relations.insert(&body, facts, &KeyChoice::default()).unwrap();
    assembler.apply(decode(&begin(900, 0, 771)).unwrap(), Lsn::ZERO).unwrap();
    let step = assembler.apply(decode(message).unwrap(), Lsn::from(850)).unwrap();
    let Step::Change(change) = step else { panic!("no change") };
    let mut records = Records::default();
    let error = encoder.encode(&change, 1, &mut records).unwrap_err();
    assert!(records.is_empty() && error.reason().is_some());
    encoder.dead_letter(&change, &error, usize::MAX, &mut records);
    let record = records.iter().next().expect("one record");
    let json = |bytes: &[u8]| serde_json::from_slice(bytes).expect("JSON");
    (record.key.map(json), json(record.value.expect("a value")))
}

#[test]
fn it_holds_the_position_the_reason_and_the_row_as_it_was_sent() {
    let (key, value) = letter(&insert("1", Value::Text(b"ab\xff".to_vec())));
    assert_eq!(key, Some(json!({"id": 1})));
    let expected = json!({
        "error": "encoding column \"note\" of table public.rides: it can't be published as text: at \
                  byte 2, expected UTF-8 (is the database's encoding SQL_ASCII?)",
        "schema": "public", "table": "rides", "op": "c",
        "lsn": 850, "commit_lsn": 900, "ordinal": 1, "txId": 771,
        "before": null, "after": {"id": "1", "fare": "2.50", "note": {"base64": "YWL/"}},
    });
    assert_eq!(value, expected);
}

#[test]
fn binary_values_and_bad_keys_are_told_too() {
    let (key, value) = letter(&insert("1", Value::Binary(vec![0, 255])));
    assert_eq!(
        (key, &value["after"]["note"]),
        (Some(json!({"id": 1})), &json!({"base64": "AP8="}))
    );
    let (key, value) = letter(&insert("one", text("a")));
    assert_eq!((key, &value["after"]["id"]), (None, &json!("one")));
    // A value that did not change was not sent, and is not made up.
    let update = row(b'U', 7, &[tuple(b'N', &[text("one"), text("1"), Value::Unchanged])]);
    assert_eq!(letter(&update).1["after"], json!({"id": "one", "fare": "1"}));
}

#[test]
fn events_that_were_not_written_are_not_counted() {
    let format = Format { transaction_metadata: true, ..Format::default() };
    let facts = RelationFacts { primary_key: vec!["id".to_owned()], ..RelationFacts::default() };
    let mut stream = Stream::new(&format, facts, None);
    stream.all(&[begin(900, 0, 771), relation(7, "rides", b'd', &COLUMNS)]);
    stream.send(&insert("1", Value::Text(vec![255]))).unwrap_err();
    let good = stream.all(&[insert("2", text("a"))]);
    stream.send(&insert("3", Value::Text(vec![255]))).unwrap_err();
    let order = &good[0].value.as_ref().unwrap()["transaction"];
    assert_eq!((&order["total_order"], &order["data_collection_order"]), (&json!(1), &json!(1)));
    let end = stream.all(&[commit(900, 910, 0)]);
    let value = end.last().unwrap().value.as_ref().unwrap();
    assert_eq!(value["event_count"], json!(1));
    assert_eq!(value["data_collections"].as_array().map(Vec::len), Some(1));
}
