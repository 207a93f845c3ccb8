//! Schema and payload: that they are Debezium's, and that they agree.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use rowcast::change::{ColumnFacts, RelationFacts};
use rowcast::config::{Format, KeyFormat, TypeProfile, ValueFormat};
use serde_json::{Value as Json, json};

use crate::stream::{Seen, Stream};
use crate::wire::{Value, begin, commit, message, relation, row, text, truncate, tuple};

const TABLE: u32 = 16_400;

fn format() -> Format {
    Format { value: ValueFormat::DebeziumSchema, ..Format::default() }
}

/// A column: whether it is of the primary key, cannot be null, its name, type and default.
type Column = (bool, bool, &'static str, u32, Option<&'static str>);

fn open(format: &Format, table: &str, identity: u8, columns: &[Column]) -> Stream {
    let facts = RelationFacts {
        primary_key: columns.iter().filter(|c| c.0).map(|c| c.2.to_owned()).collect(),
        columns: columns
            .iter()
            .map(|&(_, not_null, name, type_oid, default)| ColumnFacts {
                name: name.to_owned(),
                type_oid,
                not_null,
                default: default.map(str::to_owned),
                ..ColumnFacts::default()
            })
            .collect(),
        ..RelationFacts::default()
    };
    let mut stream = Stream::new(format, facts, None);
    let wire: Vec<_> = columns.iter().map(|c| (c.0 || identity == b'f', c.2, c.3)).collect();
    stream.all(&[relation(TABLE, table, identity, &wire), begin(900, 0, 771)]);
    stream
}

fn texts(values: &[&str]) -> Vec<Value> {
    values.iter().map(|value| text(value)).collect()
}

/// Lines of what Debezium published for one SQL script, with schemas.
fn debezium() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debezium/golden/schema.jsonl");
    fs::read_to_string(file).unwrap()
}

/// The bytes of a record's schema.
fn schema_of(record: &[u8]) -> String {
    let text = std::str::from_utf8(record).unwrap();
    let (schema, _) = text.split_once(",\"payload\":").expect("a payload behind a schema");
    schema.replace("nyc.public", "taxi.public")
}

#[test]
fn schemas_are_debeziums_to_the_byte() {
    let tables: [(&str, &[Column], &[&str]); 4] = [
        (
            "serials",
            &[
                (false, true, "a", 21, Some("nextval('serials_a_seq'::regclass)")),
                (true, true, "b", 23, Some("nextval('serials_b_seq'::regclass)")),
                (false, true, "c", 20, Some("nextval('serials_c_seq'::regclass)")),
                (false, true, "d", 23, None),
                (false, true, "e", 20, None),
            ],
            &["1", "1", "1", "1", "1"],
        ),
        (
            "integers",
            &[
                (true, true, "id", 23, None),
                (false, false, "flag", 16, None),
                (false, false, "small", 21, None),
                (false, false, "mid", 23, None),
                (false, false, "big", 20, None),
                (false, false, "identifier", 26, None),
            ],
            &["1", "t", "1", "1", "1", "1"],
        ),
        (
            "uuids",
            &[(true, true, "id", 2950, None), (false, false, "other", 2950, None)],
            &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
        ),
        (
            "text_keys",
            &[
                (true, true, "a", 25, None),
                (true, true, "b", 1043, None),
                (true, true, "c", 1042, None),
            ],
            &["x", "y", "z"],
        ),
    ];
    let debezium = debezium();
    for (table, columns, values) in tables {
        let format = Format { types: TypeProfile::Debezium, ..format() };
        let mut stream = open(&format, table, b'd', columns);
        let insert = row(b'I', TABLE, &[tuple(b'N', &texts(values))]);
        let mut schemas = Vec::new();
        let sent = stream.send_at(&insert, 5.into(), |record| {
            schemas.extend([record.key, record.value].into_iter().flatten().map(schema_of));
        });
        sent.unwrap();
        assert_eq!(schemas.len(), 2);
        for schema in schemas {
            assert!(debezium.contains(&schema), "{table}: {schema}");
        }
    }
}

/// Fields of the golden table `fillers_defaults`, with their defaults as Postgres prints them.
const DEFAULTS: [(&str, u32, &str); 16] = [
    ("a", 23, "7"),
    ("b", 25, "'dflt'::text"),
    ("d", 1184, "now()"),
    ("e", 1184, "'2024-03-01 00:00:00+00'::timestamp with time zone"),
    ("f", 16, "true"),
    ("g", 3802, "'{}'::jsonb"),
    ("h", 2950, "gen_random_uuid()"),
    ("i", 1009, "'{}'::text[]"),
    ("j", 1082, "'2024-03-01'::date"),
    ("k", 1082, "CURRENT_DATE"),
    ("l", 1186, "'P1D'::interval"),
    ("m", 17, "'\\xff'::bytea"),
    ("n", 701, "1.5"),
    ("q", 1083, "'08:15:00'::time without time zone"),
    ("r", 1114, "'2024-03-01 00:00:00'::timestamp without time zone"),
    ("s", 23, "(1 + 1)"),
];

#[test]
fn defaults_in_schemas_are_debeziums() {
    let columns = DEFAULTS.map(|(name, oid, sql)| (false, true, name, oid, Some(sql)));
    let columns: Vec<Column> = [(true, true, "id", 23, None)].into_iter().chain(columns).collect();
    let format = Format { types: TypeProfile::Debezium, ..format() };
    let mut stream = open(&format, "fillers_defaults", b'd', &columns);
    let old = [vec![text("1")], vec![Value::Null; DEFAULTS.len()]].concat();
    let seen = stream.all(&[row(b'D', TABLE, &[tuple(b'K', &old)])]);
    let ours = seen[0].value.as_ref().unwrap();

    let lines = debezium();
    let lines = lines.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    let mut lines = lines.filter(|line| line["topic"] == "taxi.public.fillers_defaults");
    let described = lines.next().unwrap();
    let deleted = lines.find(|line| line["value"]["payload"]["op"] == "d").unwrap();
    let fields = described["value"]["schema"]["fields"][0]["fields"].as_array().unwrap();
    for (name, ..) in DEFAULTS {
        let of = |fields: &Json| {
            let mut fields = fields.as_array().unwrap().iter();
            fields.find(|field| field["field"] == name).unwrap().clone()
        };
        let own = of(&ours["schema"]["fields"][0]["fields"]);
        assert_eq!(own, of(&json!(fields)), "{name}");
        let before = |event: &Json| event["payload"]["before"][name].clone();
        assert_eq!(before(ours), before(&deleted["value"]), "{name}");
    }
}

#[test]
fn schemas_of_messages_are_debeziums_to_the_byte() {
    let mut stream = open(&format(), "t", b'd', &[(true, true, "id", 23, None)]);
    let debezium = debezium();
    let sent = stream.send_at(&message(true, 880, "taxi-batch", b"bin"), 5.into(), |record| {
        for part in [record.key, record.value] {
            let schema = schema_of(part.unwrap());
            assert!(debezium.contains(&schema), "{schema}");
        }
    });
    sent.unwrap();
}

#[test]
fn what_a_schema_wants_and_the_server_did_not_send_is_filled_in() {
    let columns: [Column; 6] = [
        (true, true, "id", 20, None),
        (false, true, "vendor", 25, None),
        (false, true, "seats", 23, Some("4")),
        (false, false, "note", 25, Some("'none'::text")),
        (false, true, "flag", 16, Some("true")),
        (false, false, "tags", 1009, None),
    ];
    let mut stream = open(&format(), "trips", b'd', &columns);
    let nulls = [vec![text("7")], vec![Value::Null; 5]].concat();
    let seen = stream.all(&[row(b'D', TABLE, &[tuple(b'K', &nulls)])]);
    let expected = json!({
        "id": 7, "vendor": "", "seats": 4, "note": null, "flag": true, "tags": null,
    });
    assert_eq!(payload(&seen[0])["before"], expected);
    assert_eq!(seen[1].value, None);

    let unchanged = [texts(&["7", "v", "1"]), vec![Value::Unchanged, text("t"), Value::Unchanged]];
    let seen = stream.all(&[row(b'U', TABLE, &[tuple(b'N', &unchanged.concat())])]);
    let after = &payload(&seen[0])["after"];
    assert_eq!(after["note"], "__debezium_unavailable_value");
    assert_eq!(after["tags"], json!(["__debezium_unavailable_value"]));
    let header = ("rowcast.unchanged".to_owned(), "[\"note\",\"tags\"]".to_owned());
    assert_eq!(seen[0].headers, [header]);

    let fields = &seen[0].value.as_ref().unwrap()["schema"]["fields"][1]["fields"];
    assert_eq!(fields[2]["default"], 4);
    assert_eq!(fields[3]["default"], "none");
    assert_eq!(fields[4]["default"], true);
    assert_eq!(fields[3]["optional"], true);
}

#[test]
fn a_key_change_links_by_the_payload_alone() {
    let columns: [Column; 1] = [(true, true, "id", 20, None)];
    let mut stream = open(&format(), "trips", b'd', &columns);
    let update = row(b'U', TABLE, &[tuple(b'K', &texts(&["1"])), tuple(b'N', &texts(&["2"]))]);
    let seen = stream.all(&[update]);
    let link = |name: &str, key: &str| vec![(name.to_owned(), key.to_owned())];
    assert_eq!(seen[0].headers, link("__debezium.newkey", "{\"id\":2}"));
    assert_eq!(seen[2].headers, link("__debezium.oldkey", "{\"id\":1}"));
    assert_eq!(seen[1].key.as_ref().unwrap()["payload"], json!({"id": 1}));
}

#[test]
fn a_bare_key_has_a_bare_schema() {
    let format = Format { key: KeyFormat::Value, ..format() };
    let mut stream = open(&format, "trips", b'd', &[(true, true, "code", 25, None)]);
    let seen = stream.all(&[row(b'I', TABLE, &[tuple(b'N', &texts(&["a \"b\""]))])]);
    let schema = json!({"type": "string", "optional": false});
    assert_eq!(seen[0].key, Some(json!({"schema": schema, "payload": "a \"b\""})));
}

#[test]
fn records_around_a_transaction_have_schemas_too() {
    let format = Format { transaction_metadata: true, ..format() };
    let mut stream = open(&format, "trips", b'd', &[(true, true, "id", 20, None)]);
    let frames = [
        row(b'I', TABLE, &[tuple(b'N', &texts(&["1"]))]),
        truncate(&[TABLE]),
        commit(900, 910, 0),
        begin(920, 0, 772),
    ];
    for seen in stream.all(&frames) {
        agree(&seen).unwrap();
    }
}

fn payload(seen: &Seen) -> &Json {
    &seen.value.as_ref().expect("a value")["payload"]
}

/// Whether key and value are what their schemas say.
fn agree(seen: &Seen) -> Result<(), String> {
    for part in [&seen.key, &seen.value].into_iter().flatten() {
        let parts = part.as_object().ok_or("no object")?;
        if parts.keys().collect::<Vec<_>>() != ["payload", "schema"] {
            return Err(format!("not a schema with a payload: {part}"));
        }
        walk(&part["schema"], &part["payload"])?;
    }
    Ok(())
}

/// Walks a payload by its schema, as Connect's JsonConverter would read it.
fn walk(schema: &Json, value: &Json) -> Result<(), String> {
    let wrong = || Err(format!("{value} is not of {schema}"));
    if value.is_null() {
        return if schema["optional"] == true { Ok(()) } else { wrong() };
    }
    let within = |min: i64, max: i64| value.as_i64().is_some_and(|v| (min..=max).contains(&v));
    let fits = match schema["type"].as_str().ok_or("a schema without a type")? {
        "boolean" => value.is_boolean(),
        "int16" => within(i16::MIN.into(), i16::MAX.into()),
        "int32" => within(i32::MIN.into(), i32::MAX.into()),
        "int64" => within(i64::MIN, i64::MAX),
        // Jackson writes what JSON has no number for as a text.
        "float" | "double" => {
            value.is_number() || matches!(value.as_str(), Some("NaN" | "Infinity" | "-Infinity"))
        }
        "string" => value.is_string(),
        "bytes" => {
            use base64::Engine as _;
            let engine = base64::engine::general_purpose::STANDARD;
            value.as_str().is_some_and(|text| engine.decode(text).is_ok())
        }
        "array" => {
            let Some(items) = value.as_array() else { return wrong() };
            return items.iter().try_for_each(|item| walk(&schema["items"], item));
        }
        "struct" => {
            let (Some(object), Some(fields)) = (value.as_object(), schema["fields"].as_array())
            else {
                return wrong();
            };
            if object.len() != fields.len() {
                return Err(format!("{} fields for {}: {value}", object.len(), fields.len()));
            }
            return fields.iter().try_for_each(|field| {
                let name = field["field"].as_str().ok_or("a field without a name")?;
                walk(field, object.get(name).ok_or(format!("{name} is missing"))?)
            });
        }
        other => return Err(format!("an unknown type {other}")),
    };
    if fits { Ok(()) } else { wrong() }
}

/// Types with a value of each.
const TYPES: [(u32, &str); 16] = [
    (16, "t"),
    (21, "-32768"),
    (23, "2147483647"),
    (20, "-9223372036854775808"),
    (701, "NaN"),
    (700, "1.5"),
    (1700, "16.50"),
    (25, "a \"b\" \\ é"),
    (17, "\\x00ff10"),
    (3802, "{\"a\": [1, null]}"),
    (2950, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    (1082, "2024-03-01"),
    (1184, "2024-03-01 08:15:30.5+00"),
    (1186, "P1DT2H"),
    (1009, "{a,NULL,\"b c\"}"),
    (1016, "{1,-2}"),
];

#[derive(Debug, Clone, Copy)]
struct Cell {
    of: usize,
    not_null: bool,
    sent: u8,
}

fn cells() -> impl Strategy<Value = Vec<Cell>> {
    let cell = (0..TYPES.len(), any::<bool>(), 0..4_u8);
    let cell = cell.prop_map(|(of, not_null, sent)| Cell { of, not_null, sent });
    prop::collection::vec(cell, 0..12)
}

proptest! {
    #[test]
    fn every_payload_is_what_its_schema_says(cells in cells(), full: bool, letter in 0..4_usize) {
        const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
        let own = cells.iter().zip(NAMES);
        let own = own.map(|(cell, name)| (false, cell.not_null, name, TYPES[cell.of].0, None));
        let key: Column = (true, true, "id", 20, None);
        let columns: Vec<Column> = [key].into_iter().chain(own).collect();
        let values = |id: &str, old: bool| {
            let cell = |cell: &Cell| match cell.sent {
                0 => Value::Null,
                1 if !old => Value::Unchanged,
                _ => text(TYPES[cell.of].1),
            };
            [text(id)].into_iter().chain(cells.iter().map(cell)).collect::<Vec<_>>()
        };
        let old_key = [text("1")].into_iter().chain(cells.iter().map(|_| Value::Null)).collect();
        let old = if full { tuple(b'O', &values("1", true)) } else {
            let old: Vec<Value> = old_key;
            tuple(b'K', &old)
        };
        let frame = match letter {
            0 => row(b'I', TABLE, &[tuple(b'N', &values("1", true))]),
            1 => row(b'U', TABLE, &[tuple(b'N', &values("1", false))]),
            2 => row(b'U', TABLE, &[old, tuple(b'N', &values("2", false))]),
            _ => row(b'D', TABLE, &[old]),
        };
        for transaction_metadata in [false, true] {
            let format = Format { transaction_metadata, ..format() };
            let identity = if full { b'f' } else { b'd' };
            let mut stream = open(&format, "trips", identity, &columns);
            for seen in stream.all(std::slice::from_ref(&frame)) {
                if let Err(reason) = agree(&seen) {
                    prop_assert!(false, "{}", reason);
                }
                // What was written as a null stays one, whatever the catalog says.
                let after = seen.value.as_ref().map(|value| &value["payload"]["after"]);
                for (cell, name) in cells.iter().zip(NAMES) {
                    if let (0, Some(Json::Object(after))) = (cell.sent, after) {
                        prop_assert!(after[name].is_null(), "{}", name);
                    }
                }
            }
        }
    }
}
