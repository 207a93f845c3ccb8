//! The records of every kind of change, in both formats.

use rowcast::change::{ColumnFacts, Disagreement, Generated, KeySource, RelationFacts};
use rowcast::config::{Format, KeyFormat, ValueFormat};
use serde_json::{Value as Json, json};

use crate::stream::{NOW_US, Seen, Stream};
use crate::wire::{Column, Value, begin, commit, message, relation, row, text, truncate, tuple};

const TRIPS: u32 = 16_400;
const COLUMNS: [Column<'_>; 3] = [(true, "id", 20), (false, "fare", 1700), (false, "note", 25)];
const FULL: [Column<'_>; 3] = [(true, "id", 20), (true, "fare", 1700), (true, "note", 25)];
/// 2024-03-01 08:35:01.500123 UTC, from the Postgres epoch.
const COMMIT_US: i64 = 762_597_301_500_123;

fn open(format: &Format, identity: u8, columns: &[Column<'_>]) -> Stream {
    let primary_key = vec!["id".to_owned()];
    let facts = RelationFacts { primary_key, ..RelationFacts::default() };
    let mut stream = Stream::new(format, facts, None);
    stream.all(&[relation(TRIPS, "trips", identity, columns), begin(900, COMMIT_US, 771)]);
    stream
}

fn values(id: &str, fare: &str, note: Value) -> Vec<Value> {
    vec![text(id), text(fare), note]
}

fn new(id: &str, fare: &str, note: Value) -> Vec<u8> {
    tuple(b'N', &values(id, fare, note))
}

fn old_key(id: &str) -> Vec<u8> {
    tuple(b'K', &[text(id), Value::Null, Value::Null])
}

fn field<'a>(seen: &'a Seen, name: &str) -> &'a Json {
    &seen.value.as_ref().expect("a value")[name]
}

fn ops(seen: &[Seen]) -> Vec<Option<&str>> {
    seen.iter().map(|seen| seen.value.as_ref().and_then(|value| value["op"].as_str())).collect()
}

#[test]
fn an_insert_is_the_whole_envelope_in_debeziums_order() {
    let mut stream = open(&Format::default(), b'd', &COLUMNS);
    let insert = row(b'I', TRIPS, &[new("7001", "16.50", text("a \"b\""))]);
    let seen = stream.all(&[insert]);
    let source = json!({
        "version": "0.1.0", "connector": "postgresql", "name": "nyc", "ts_ms": 1709282101500_i64,
        "snapshot": "false", "db": "taxi", "sequence": "[null,\"24023128\"]",
        "ts_us": 1709282101500123_i64, "ts_ns": 1709282101500123000_i64, "schema": "public",
        "table": "trips", "txId": 771, "lsn": 24023128, "xmin": null, "origin": null,
        "origin_lsn": null,
    });
    let after = json!({"id": 7001, "fare": "16.50", "note": "a \"b\""});
    let value = json!({
        "before": null, "after": after, "source": source, "transaction": null, "op": "c",
        "ts_ms": NOW_US / 1000, "ts_us": NOW_US, "ts_ns": NOW_US * 1000,
    });
    assert_eq!(
        seen,
        [Seen { key: Some(json!({"id": 7001})), value: Some(value), headers: vec![] }]
    );
}

#[test]
fn an_update_has_the_old_row_the_server_sent() {
    let mut stream = open(&Format::default(), b'd', &COLUMNS);
    let seen = stream.all(&[row(b'U', TRIPS, &[new("1", "2.0", Value::Null)])]);
    assert_eq!(ops(&seen), [Some("u")]);
    assert_eq!(field(&seen[0], "before"), &Json::Null);
    assert_eq!(field(&seen[0], "after"), &json!({"id": 1, "fare": "2.0", "note": null}));

    let mut stream = open(&Format::default(), b'f', &FULL);
    let old = tuple(b'O', &values("1", "1.0", text("long")));
    let seen = stream.all(&[row(b'U', TRIPS, &[old, new("1", "2.0", Value::Unchanged)])]);
    assert_eq!(ops(&seen), [Some("u")]);
    assert_eq!(field(&seen[0], "before"), &json!({"id": 1, "fare": "1.0", "note": "long"}));
    assert_eq!(field(&seen[0], "after"), &json!({"id": 1, "fare": "2.0", "note": "long"}));
    assert_eq!(seen[0].headers, []);
}

#[test]
fn an_unchanged_large_value_is_left_out_and_named() {
    for value in [ValueFormat::Debezium, ValueFormat::Flat] {
        let format = Format { value, ..Format::default() };
        let mut stream = open(&format, b'd', &COLUMNS);
        let seen = stream.all(&[row(b'U', TRIPS, &[new("1", "2.0", Value::Unchanged)])]);
        let value = seen[0].value.clone().unwrap();
        let after = value.get("after").unwrap_or(&value);
        assert_eq!(after, &json!({"id": 1, "fare": "2.0"}));
        let header = ("rowcast.unchanged".to_owned(), "[\"note\"]".to_owned());
        assert_eq!(seen[0].headers, [header]);
        // The next row does not inherit it.
        let seen = stream.all(&[row(b'I', TRIPS, &[new("2", "2.0", Value::Null)])]);
        assert_eq!(seen[0].headers, []);
    }
}

#[test]
fn a_key_change_is_a_delete_a_tombstone_and_a_create() {
    let mut stream = open(&Format::default(), b'd', &COLUMNS);
    let seen = stream.all(&[row(b'U', TRIPS, &[old_key("1"), new("2", "2.0", Value::Null)])]);
    assert_eq!(ops(&seen), [Some("d"), None, Some("c")]);
    let (old, after) = (Some(json!({"id": 1})), Some(json!({"id": 2})));
    assert_eq!(seen.iter().map(|seen| &seen.key).collect::<Vec<_>>(), [&old, &old, &after]);
    assert_eq!(field(&seen[0], "before"), &json!({"id": 1}));
    assert_eq!(field(&seen[0], "after"), &Json::Null);
    assert_eq!(seen[1].value, None);
    let link = |name: &str, key: &str| vec![(name.to_owned(), key.to_owned())];
    assert_eq!(seen[0].headers, link("__debezium.newkey", "{\"id\":2}"));
    assert_eq!(seen[1].headers, link("__debezium.newkey", "{\"id\":2}"));
    assert_eq!(seen[2].headers, link("__debezium.oldkey", "{\"id\":1}"));
    // An old key that is the same is no key change.
    let seen = stream.all(&[row(b'U', TRIPS, &[old_key("1"), new("1", "2.0", Value::Null)])]);
    assert_eq!(ops(&seen), [Some("u")]);
    assert_eq!(field(&seen[0], "before"), &json!({"id": 1}));
}

#[test]
fn a_delete_holds_what_is_known_and_a_tombstone_follows() {
    let mut stream = open(&Format::default(), b'd', &COLUMNS);
    let delete = row(b'D', TRIPS, &[old_key("1")]);
    let seen = stream.all(std::slice::from_ref(&delete));
    assert_eq!(ops(&seen), [Some("d"), None]);
    assert_eq!(field(&seen[0], "before"), &json!({"id": 1}));
    assert_eq!(seen[0].key, seen[1].key);

    let format = Format { tombstones: false, ..Format::default() };
    assert_eq!(ops(&open(&format, b'd', &COLUMNS).all(&[delete])), [Some("d")]);
}

#[test]
fn flat_is_the_row_with_metadata_if_wanted() {
    let plain = Format { value: ValueFormat::Flat, ..Format::default() };
    let insert = row(b'I', TRIPS, &[new("1", "2.0", Value::Null)]);
    let delete = row(b'D', TRIPS, &[old_key("1")]);
    let mut stream = open(&plain, b'd', &COLUMNS);
    let seen = stream.all(&[insert.clone(), delete.clone()]);
    assert_eq!(seen[0].value, Some(json!({"id": 1, "fare": "2.0", "note": null})));
    assert_eq!((&seen[1].key, &seen[1].value), (&Some(json!({"id": 1})), &None));
    assert_eq!(seen.len(), 2);

    let format = Format { flat_metadata: true, ..plain };
    let seen = open(&format, b'd', &COLUMNS).all(&[insert, delete, truncate(&[TRIPS])]);
    let meta = |op: &str, deleted: &str, mut row: Json| {
        row["__op"] = json!(op);
        row["__ts_ms"] = json!(NOW_US / 1000);
        row["__lsn"] = json!(24_023_128);
        row["__deleted"] = json!(deleted);
        Some(row)
    };
    assert_eq!(seen[0].value, meta("c", "false", json!({"id": 1, "fare": "2.0", "note": null})));
    assert_eq!(seen[1].value, meta("d", "true", json!({"id": 1})));
    assert_eq!(seen[2].value, None);
    assert_eq!(seen[3].value, meta("t", "false", json!({})));
    assert_eq!(seen[3].key, None);
}

#[test]
fn a_truncate_is_one_keyless_event_a_table() {
    let frames = [relation(7, "zones", b'd', &COLUMNS), truncate(&[TRIPS, 7])];
    let format = Format { position_headers: true, ..Format::default() };
    let seen = open(&format, b'd', &COLUMNS).all(&frames);
    assert_eq!(ops(&seen), [Some("t"), Some("t")]);
    let table = |seen: &Seen| field(seen, "source")["table"].clone();
    assert_eq!([table(&seen[0]), table(&seen[1])], ["trips", "zones"]);
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let (lsn, xid) = (header("rowcast.lsn", "900"), header("rowcast.xid", "771"));
    assert_eq!(seen[1].headers, [lsn, xid, header("rowcast.ordinal", "2")]);
    assert!(seen.iter().all(|seen| seen.key.is_none()));
}

#[test]
fn a_logical_message_carries_its_content_as_base64() {
    let mut stream = open(&Format::default(), b'd', &COLUMNS);
    let seen = stream.all(&[message(true, 880, "taxi-batch", b"bin")]);
    assert_eq!(seen[0].key, Some(json!({"prefix": "taxi-batch"})));
    assert_eq!(field(&seen[0], "message"), &json!({"prefix": "taxi-batch", "content": "Ymlu"}));
    assert_eq!(
        (field(&seen[0], "op"), &field(&seen[0], "source")["txId"]),
        (&json!("m"), &json!(771))
    );
    stream.all(&[commit(900, 910, COMMIT_US)]);
    let seen = stream.all(&[message(false, 880, "p", b"")]);
    assert_eq!(field(&seen[0], "source")["txId"], Json::Null);
    // It has no commit, so it stands for its own: to itself, and to what follows.
    assert_eq!(field(&seen[0], "source")["sequence"], "[\"880\",\"880\"]");
    stream.all(&[begin(950, COMMIT_US, 772)]);
    let seen = stream.all(&[row(b'I', TRIPS, &[new("1", "2.0", Value::Null)])]);
    assert_eq!(field(&seen[0], "source")["sequence"], "[\"880\",\"24023128\"]");
}

#[test]
fn keys_are_objects_or_bare() {
    let format = Format { key: KeyFormat::Value, ..Format::default() };
    let insert = row(b'I', TRIPS, &[new("1", "2.50", text("x"))]);
    assert_eq!(
        open(&format, b'd', &COLUMNS).all(std::slice::from_ref(&insert))[0].key,
        Some(json!(1))
    );
    let two = vec!["fare".to_owned(), "id".to_owned()];
    let mut stream = Stream::new(&format, RelationFacts::default(), Some(two));
    let trips = relation(TRIPS, "trips", b'd', &COLUMNS);
    let seen = stream.all(&[trips, begin(900, 0, 1), insert]);
    assert_eq!(seen[0].key, Some(json!({"fare": "2.50", "id": 1})));
}

#[test]
fn a_key_without_a_value_is_an_error_that_names_the_column() {
    let configured = Some(vec!["note".to_owned()]);
    let mut stream = Stream::new(&Format::default(), RelationFacts::default(), configured);
    stream.all(&[relation(TRIPS, "trips", b'd', &COLUMNS), begin(900, 0, 1)]);
    for (frame, reason) in [
        (row(b'I', TRIPS, &[new("1", "2", Value::Null)]), "is null"),
        (row(b'U', TRIPS, &[new("1", "2", Value::Unchanged)]), "unchanged large value"),
        (row(b'D', TRIPS, &[old_key("1")]), "not part of the replica identity"),
        (row(b'I', TRIPS, &[new("1", "2", Value::Binary(vec![1]))]), "binary"),
        (row(b'I', TRIPS, &[new("x-secret", "2", text("k"))]), "at byte 0"),
    ] {
        let error = stream.send(&frame).unwrap_err();
        assert!(error.contains(reason), "{error}");
        assert!(error.contains("public.trips") && !error.contains("secret"), "{error}");
    }
}

#[test]
fn a_configured_key_column_that_does_not_exist_is_named() {
    let configured = Some(vec!["zone".to_owned()]);
    let mut stream = Stream::new(&Format::default(), RelationFacts::default(), configured);
    let error = stream.send(&relation(TRIPS, "trips", b'd', &COLUMNS)).unwrap_err();
    assert!(error.contains("public.trips") && error.contains("\"zone\""), "{error}");
}

#[test]
fn the_key_is_one_that_every_change_carries() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let key = |identity: u8, flags: [bool; 3], facts: RelationFacts| {
        let columns = [(flags[0], "id", 20), (flags[1], "fare", 1700), (flags[2], "note", 25)];
        let mut stream = Stream::new(&Format::default(), facts, None);
        stream.all(&[relation(TRIPS, "trips", identity, &columns)]);
        let relation = stream.assembler.relations.by_oid(TRIPS).unwrap();
        (relation.key.clone(), relation.key_source)
    };
    let facts = RelationFacts {
        primary_key: names(&["note", "id"]),
        unique_indexes: vec![names(&["note"]), names(&["fare"])],
        columns: vec![fact("id", 20, true), fact("fare", 1700, true), fact("note", 25, false)],
        ..RelationFacts::default()
    };
    let nullable = RelationFacts { columns: vec![fact("fare", 1700, false)], ..facts.clone() };
    let gone = RelationFacts { primary_key: names(&["gone"]), ..facts.clone() };
    // The catalog's order where it agrees with the message, the message where it does not.
    assert_eq!(key(b'd', [true, false, true], facts.clone()), (vec![2, 0], KeySource::PrimaryKey));
    assert_eq!(key(b'd', [true, false, false], facts.clone()), (vec![0], KeySource::PrimaryKey));
    assert_eq!(key(b'd', [false; 3], facts.clone()), (vec![1], KeySource::UniqueIndex));
    assert_eq!(key(b'i', [true; 3], facts.clone()), (vec![2, 0], KeySource::PrimaryKey));
    assert_eq!(
        key(b'i', [false, true, false], facts.clone()),
        (vec![1], KeySource::ReplicaIdentity)
    );
    assert_eq!(key(b'f', [true; 3], facts), (vec![2, 0], KeySource::PrimaryKey));
    assert_eq!(key(b'f', [true; 3], gone), (vec![1], KeySource::UniqueIndex));
    assert_eq!(key(b'd', [false; 3], nullable), (vec![], KeySource::None));
}

fn fact(name: &str, type_oid: u32, not_null: bool) -> ColumnFacts {
    ColumnFacts { name: name.to_owned(), type_oid, not_null, ..ColumnFacts::default() }
}

#[test]
fn what_the_catalog_says_of_a_column_holds_while_name_and_type_agree() {
    let with_default = |column: ColumnFacts, default: &str, generated: Generated| ColumnFacts {
        default: Some(default.to_owned()),
        generated,
        ..column
    };
    let facts = RelationFacts {
        columns: vec![
            with_default(fact("id", 20, true), "nextval('s')", Generated::No),
            with_default(fact("fare", 23, true), "0", Generated::Stored),
            fact("unpublished", 25, true),
        ],
        ..RelationFacts::default()
    };
    let mut stream = Stream::new(&Format::default(), facts, None);
    stream.all(&[relation(TRIPS, "trips", b'd', &COLUMNS)]);
    let trips = stream.assembler.relations.by_oid(TRIPS).unwrap();
    let hints = trips.columns.iter().map(|column| (column.not_null, column.default.as_deref()));
    let hints: Vec<_> = hints.collect();
    assert_eq!(hints, [(true, Some("nextval('s')")), (false, None), (false, None)]);
    assert_eq!(trips.columns[1].generated, Generated::No);
    let retyped = Disagreement::TypeChanged { column: "fare".to_owned(), then: 1700, now: 23 };
    let gone = Disagreement::ColumnGone { column: "note".to_owned() };
    let key = Disagreement::PrimaryKeyChanged { then: vec!["id".to_owned()], now: vec![] };
    assert_eq!(trips.disagreements, [retyped, gone, key]);

    let mut stream = Stream::new(&Format::default(), RelationFacts::default(), None);
    stream.all(&[relation(TRIPS, "trips", b'd', &COLUMNS), relation(7, "none", b'd', &[])]);
    let disagreements = |oid| &stream.assembler.relations.by_oid(oid).unwrap().disagreements;
    assert_eq!((disagreements(TRIPS), disagreements(7)), (&vec![Disagreement::TableGone], &vec![]));
}

#[test]
fn messages_out_of_order_are_refused() {
    let trips = relation(TRIPS, "trips", b'd', &COLUMNS);
    let insert = row(b'I', TRIPS, &[new("1", "2", Value::Null)]);
    let mut stream = Stream::new(&Format::default(), RelationFacts::default(), None);
    for frame in [&insert, &commit(900, 910, 0), &message(true, 1, "p", b""), &truncate(&[TRIPS])] {
        let error = stream.send(frame).unwrap_err();
        assert!(error.contains("outside of a transaction"), "{error}");
    }
    stream.all(&[begin(900, 0, 1)]);
    assert!(stream.send(&begin(901, 0, 2)).unwrap_err().contains("starts before"));
    assert!(stream.send(&insert).unwrap_err().contains("no relation message"));
    assert!(stream.send(&truncate(&[1])).unwrap_err().contains("no relation message"));
    stream.all(&[trips]);
    let short = row(b'I', TRIPS, &[tuple(b'N', &[Value::Null])]);
    assert!(stream.send(&short).unwrap_err().contains("1 values for 3 columns"));
    assert!(stream.send(&commit(899, 910, 0)).unwrap_err().contains("announced"));
}
