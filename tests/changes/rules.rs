//! What the rules of a table do to values, and to values alone.

use rowcast::change::RelationFacts;
use rowcast::config::{Config, Format, Table};
use rowcast::encode::ValueRules;
use serde_json::{Value as Json, json};

use crate::stream::{Seen, Stream};
use crate::wire::{Column, Value, begin, relation, row, text, tuple};

const RIDERS: u32 = 16_500;

const FULL: [Column<'_>; 6] = [
    (true, "id", 20),
    (true, "card", 25),
    (true, "email", 1043),
    (true, "notes", 25),
    (true, "ssn", 25),
    (true, "trips", 23),
];

fn rules(table: Table) -> ValueRules {
    let mut config = Config::default();
    config.kafka.brokers = Some("b:9092".to_owned());
    config.format.hash_salt = Some("pepper".to_owned().into());
    config.tables.insert("public.riders".to_owned(), table);
    ValueRules::new(&config.resolve("taxi").unwrap())
}

fn all_rules() -> Table {
    let list = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
    let counts = |name: &str, count| Some([(name.to_owned(), count)].into_iter().collect());
    Table {
        mask: counts("card", 6),
        hash: list(&["em*"]),
        truncate: counts("notes", 3),
        exclude_columns: list(&["ssn"]),
        ..Table::default()
    }
}

fn open(table: Table, identity: u8) -> Stream {
    let primary_key = vec!["id".to_owned()];
    let facts = RelationFacts { primary_key, ..RelationFacts::default() };
    let mut stream = Stream::new(&Format::default(), facts, None).with_rules(rules(table));
    let columns = FULL.map(|(_, name, oid)| (identity == b'f' || name == "id", name, oid));
    stream.all(&[begin(900, 0, 771), relation(RIDERS, "riders", identity, &columns)]);
    stream
}

fn values(id: &str, email: Value) -> [Value; 6] {
    let [card, notes, ssn] = ["4111-secret", "äöüß-secret", "123-secret"].map(text);
    [text(id), card, email, notes, ssn, text("7")]
}

fn published(seen: &Seen, side: &str) -> Json {
    let value = seen.value.as_ref().expect("no tombstone");
    assert!(!value.to_string().contains("secret"), "{value}");
    value[side].clone()
}

#[test]
fn values_are_masked_hashed_cut_and_left_out_in_before_and_after() {
    let mut stream = open(all_rules(), b'f');
    let old = tuple(b'O', &values("1", text("ada@example.com")));
    let new = tuple(b'N', &values("1", Value::Null));
    let seen = stream.all(&[row(b'U', RIDERS, &[old, new])]);
    let before = published(&seen[0], "before");
    let hash = before["email"].as_str().unwrap().to_owned();
    assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
    let expected = json!({"id": 1, "card": "******", "email": hash, "notes": "äöü", "trips": 7});
    assert_eq!(before, expected);
    // Null has no hash, as with Debezium, where only the mask stands for null too.
    let expected = json!({"id": 1, "card": "******", "email": null, "notes": "äöü", "trips": 7});
    assert_eq!(published(&seen[0], "after"), expected);
}

#[test]
fn keys_are_written_as_they_are() {
    let table = Table {
        truncate: Some([("*".to_owned(), 2)].into_iter().collect()),
        exclude_columns: Some(vec!["id".to_owned(), "trips".to_owned()]),
        ..Table::default()
    };
    let mut stream = open(table, b'd');
    let insert = row(b'I', RIDERS, &[tuple(b'N', &values("12345", Value::Null))]);
    let seen = stream.all(&[insert]);
    assert_eq!(seen[0].key, Some(json!({"id": 12345})));
    let expected = json!({"card": "41", "email": null, "notes": "äö", "ssn": "12"});
    assert_eq!(published(&seen[0], "after"), expected);
}

#[test]
fn an_unchanged_large_value_gives_nothing_away() {
    let mut stream = open(all_rules(), b'd');
    let mut new = values("1", Value::Unchanged);
    new[1] = Value::Unchanged;
    new[4] = Value::Unchanged;
    let seen = stream.all(&[row(b'U', RIDERS, &[tuple(b'N', &new)])]);
    assert_eq!(published(&seen[0], "after"), json!({"id": 1, "notes": "äöü", "trips": 7}));
    // The column that is left out is not even named.
    let named = ("rowcast.unchanged".to_owned(), r#"["card","email"]"#.to_owned());
    assert_eq!(seen[0].headers, [named]);
}

#[test]
fn a_rule_that_does_not_fit_is_refused_when_the_table_is_described() {
    let refused = |table: Table| {
        let facts =
            RelationFacts { primary_key: vec!["card".to_owned()], ..RelationFacts::default() };
        let mut stream = Stream::new(&Format::default(), facts, None).with_rules(rules(table));
        stream.all(&[begin(900, 0, 771)]);
        stream.send(&relation(RIDERS, "riders", b'f', &FULL)).unwrap_err()
    };
    let list = |name: &str| Some(vec![name.to_owned()]);
    let error = refused(Table { hash: list("trips"), ..Table::default() });
    assert_eq!(
        error,
        "publishing table public.riders: the rule `hash` is for text, and column \"trips\" is of \
         type with OID 23"
    );
    let error = refused(Table { hash: list("card"), ..Table::default() });
    assert!(error.contains("would not hide column \"card\", which is part of the key"), "{error}");
}

#[test]
fn no_error_tells_a_value_that_a_rule_hides() {
    let mut stream = open(all_rules(), b'd');
    let mut new = values("1", Value::Null);
    new[3] = Value::Text(b"\xff-secret".to_vec());
    let error = stream.send(&row(b'I', RIDERS, &[tuple(b'N', &new)])).unwrap_err();
    assert!(error.contains("\"notes\"") && !error.contains("secret"), "{error}");
}
