//! The tables of `docs/keys-and-identity.md`: old rows by replica identity and type profile, and
//! large values that did not change by policy.

use std::collections::BTreeMap;

use rowcast::change::{ColumnFacts, RelationFacts};
use rowcast::config::{Format, TypeProfile, UnchangedToast, ValueFormat};
use serde_json::{Value as Json, json};

use crate::stream::{Seen, Stream};
use crate::wire::{Column, Value, begin, relation, row, text, tuple};

const OID: u32 = 16_400;

/// A table by its replica identity: id is the primary key, code a unique index.
fn open(format: &Format, identity: u8) -> Stream {
    let fact = |name: &str, type_oid, not_null, default: Option<&str>| ColumnFacts {
        name: name.to_owned(),
        type_oid,
        not_null,
        default: default.map(str::to_owned),
        ..ColumnFacts::default()
    };
    let facts = RelationFacts {
        primary_key: vec!["id".to_owned()],
        identity_index: vec!["code".to_owned()],
        columns: vec![
            fact("id", 20, true, None),
            fact("code", 25, true, None),
            fact("fare", 23, true, Some("7")),
            fact("seats", 23, true, None),
            fact("note", 25, false, Some("'none'::text")),
        ],
        ..RelationFacts::default()
    };
    let flags = match identity {
        b'd' => [true, false, false, false, false],
        b'i' => [false, true, false, false, false],
        b'f' => [true; 5],
        _ => [false; 5],
    };
    let columns: [Column<'_>; 5] = [
        (flags[0], "id", 20),
        (flags[1], "code", 25),
        (flags[2], "fare", 23),
        (flags[3], "seats", 23),
        (flags[4], "note", 25),
    ];
    let mut stream = Stream::new(format, facts, None);
    stream.all(&[relation(OID, "rides", identity, &columns), begin(900, 0, 771)]);
    stream
}

fn values(id: &str, code: &str, note: Value) -> Vec<Value> {
    vec![text(id), text(code), text("1"), text("2"), note]
}

/// The row before, as the server sends it under an identity.
fn old(identity: u8, id: &str, code: &str) -> Vec<u8> {
    let mut values = values(id, code, text("x"));
    if identity == b'f' {
        return tuple(b'O', &values);
    }
    let known = if identity == b'i' { 1 } else { 0 };
    for (at, value) in values.iter_mut().enumerate() {
        if at != known {
            *value = Value::Null;
        }
    }
    tuple(b'K', &values)
}

fn short(seen: &[Seen]) -> Json {
    let short = |seen: &Seen| match &seen.value {
        Some(value) => json!([seen.key, value["op"], value["before"]]),
        None => json!([seen.key, null]),
    };
    seen.iter().map(short).collect()
}

/// What the documents' table says of an identity under a profile: the update of another column,
/// the update of the key, the delete.
fn expected(identity: u8, types: TypeProfile) -> [Json; 3] {
    let debezium = types == TypeProfile::Debezium;
    let (one, two) = (json!({"id": 1}), json!({"id": 2}));
    let (a, b) = (json!({"code": "a"}), json!({"code": "b"}));
    let whole = json!({"id": 1, "code": "a", "fare": 1, "seats": 2, "note": "x"});
    match identity {
        b'd' => {
            let before = if debezium {
                json!({"id": 1, "code": "", "fare": 7, "seats": 0, "note": null})
            } else {
                one.clone()
            };
            [
                json!([[one, "u", null]]),
                json!([[one, "d", before], [one, null], [two, "c", null]]),
                json!([[one, "d", before], [one, null]]),
            ]
        }
        b'i' => {
            let before = if debezium {
                json!({"id": 0, "code": "a", "fare": 7, "seats": 0, "note": null})
            } else {
                a.clone()
            };
            [
                json!([[a, "u", null]]),
                json!([[a, "d", before], [a, null], [b, "c", null]]),
                json!([[a, "d", before], [a, null]]),
            ]
        }
        _ => [
            json!([[one, "u", whole]]),
            json!([[one, "d", whole], [one, null], [two, "c", null]]),
            json!([[one, "d", whole], [one, null]]),
        ],
    }
}

#[test]
fn old_rows_are_those_of_the_identity_and_the_profile() {
    for types in [TypeProfile::Readable, TypeProfile::Debezium] {
        let format = Format { types, context_headers: Some(false), ..Format::default() };
        for identity in *b"dif" {
            let mut stream = open(&format, identity);
            let new = |id: &str, code: &str| tuple(b'N', &values(id, code, text("x")));
            // Only under FULL does the server send an old row whose key is the same.
            let update = match identity {
                b'f' => row(b'U', OID, &[old(identity, "1", "a"), new("1", "a")]),
                _ => row(b'U', OID, &[new("1", "a")]),
            };
            let moved = if identity == b'i' { new("1", "b") } else { new("2", "a") };
            let moved = row(b'U', OID, &[old(identity, "1", "a"), moved]);
            let delete = row(b'D', OID, &[old(identity, "1", "a")]);
            let seen = [update, moved, delete].map(|frame| short(&stream.all(&[frame])));
            assert_eq!(seen, expected(identity, types), "{} {types:?}", char::from(identity));
        }
    }
}

#[test]
fn an_unchanged_large_value_is_what_the_policy_says() {
    let placeholder = json!("__debezium_unavailable_value");
    let profiles = [TypeProfile::Readable, TypeProfile::Debezium];
    let policies = [
        (None, None),
        (Some(UnchangedToast::Omit), Some(None)),
        (Some(UnchangedToast::Reselect), Some(None)),
        (Some(UnchangedToast::Placeholder), Some(Some(placeholder.clone()))),
    ];
    for types in profiles {
        for (policy, expected) in &policies {
            let by_profile = (types == TypeProfile::Debezium).then(|| placeholder.clone());
            let expected = expected.clone().unwrap_or(by_profile);
            let context_headers = Some(false);
            let format =
                Format { types, unchanged_toast: *policy, context_headers, ..Format::default() };
            let mut stream = open(&format, b'd');
            let new = tuple(b'N', &values("1", "a", Value::Unchanged));
            let seen = stream.all(&[row(b'U', OID, &[new])]);
            let after = &seen[0].value.as_ref().unwrap()["after"];
            assert_eq!(after.get("note"), expected.as_ref(), "{types:?} {policy:?}");
            let named = ("rowcast.unchanged".to_owned(), "[\"note\"]".to_owned());
            assert_eq!(seen[0].headers, [named]);
            // What an old row has needs no policy.
            let mut stream = open(&format, b'f');
            let new = tuple(b'N', &values("1", "a", Value::Unchanged));
            let seen = stream.all(&[row(b'U', OID, &[old(b'f', "1", "a"), new])]);
            assert_eq!(seen[0].value.as_ref().unwrap()["after"]["note"], "x");
            assert_eq!(seen[0].headers, []);
        }
    }
}

#[test]
fn the_placeholder_is_the_configured_one() {
    let unavailable_value_placeholder = "hex:6e6f7468657265".to_owned();
    let format = Format {
        unavailable_value_placeholder,
        unchanged_toast: Some(UnchangedToast::Placeholder),
        ..Format::default()
    };
    for types in [TypeProfile::Readable, TypeProfile::Debezium] {
        for value in [ValueFormat::Debezium, ValueFormat::DebeziumSchema, ValueFormat::Flat] {
            let mut stream = open(&Format { types, value, ..format.clone() }, b'd');
            let new = tuple(b'N', &values("1", "a", Value::Unchanged));
            let seen = stream.all(&[row(b'U', OID, &[new])]);
            let row = seen[0].value.as_ref().unwrap();
            let row = row.get("payload").unwrap_or(row);
            let row = row.get("after").unwrap_or(row);
            assert_eq!(row["note"], "nothere", "{value:?} under {types:?}");
        }
    }
}

#[test]
fn to_fail_is_an_error_that_names_the_column_unless_the_old_row_has_the_value() {
    let unchanged_toast = Some(UnchangedToast::Fail);
    for value in [ValueFormat::Debezium, ValueFormat::Flat] {
        let format = Format { value, unchanged_toast, ..Format::default() };
        let new = || tuple(b'N', &values("1", "a", Value::Unchanged));
        let error = open(&format, b'd').send(&row(b'U', OID, &[new()])).unwrap_err();
        assert!(error.contains("public.rides") && error.contains("\"note\""), "{error}");
        open(&format, b'f').all(&[row(b'U', OID, &[old(b'f', "1", "a"), new()])]);
    }
}

#[test]
fn a_part_of_a_key_that_generated_columns_complete_is_no_key() {
    use rowcast::change::{Disagreement, Generated};
    let fact = |name: &str, generated| ColumnFacts {
        name: name.to_owned(),
        type_oid: 20,
        not_null: true,
        generated,
        ..ColumnFacts::default()
    };
    let facts = RelationFacts {
        primary_key: vec!["id".to_owned(), "half".to_owned()],
        columns: vec![fact("id", Generated::No), fact("half", Generated::Stored)],
        types: BTreeMap::new(),
        ..RelationFacts::default()
    };
    let mut stream = Stream::new(&Format::default(), facts, None);
    stream.all(&[relation(OID, "t", b'd', &[(true, "id", 20)]), begin(900, 0, 1)]);
    let seen = stream.all(&[row(b'I', OID, &[tuple(b'N', &[text("1")])])]);
    assert_eq!(seen[0].key, None);
    let relation = stream.assembler.relations.by_oid(OID).unwrap();
    let columns = vec!["half".to_owned()];
    assert_eq!(relation.disagreements, [Disagreement::KeyUnpublished { columns }]);
}

#[test]
fn a_null_from_before_the_key_is_a_null_in_it() {
    let facts = RelationFacts {
        primary_key: vec!["id".to_owned()],
        columns: vec![ColumnFacts {
            name: "id".to_owned(),
            type_oid: 20,
            not_null: true,
            ..ColumnFacts::default()
        }],
        ..RelationFacts::default()
    };
    let mut stream = Stream::new(&Format::default(), facts, None);
    stream.all(&[relation(OID, "t", b'f', &[(true, "id", 20)]), begin(900, 0, 1)]);
    let seen = stream.all(&[row(b'I', OID, &[tuple(b'N', &[Value::Null])])]);
    assert_eq!(seen[0].key, Some(json!({"id": null})));
}

#[test]
fn a_null_in_a_key_that_the_stream_vouches_for_is_an_error() {
    let mut stream = Stream::new(&Format::default(), RelationFacts::default(), None);
    stream.all(&[relation(OID, "t", b'd', &[(true, "id", 20)]), begin(900, 0, 1)]);
    let error = stream.send(&row(b'D', OID, &[tuple(b'K', &[Value::Null])])).unwrap_err();
    assert!(error.contains("\"id\" is null"), "{error}");
}

#[test]
fn old_rows_of_partitions_count_for_no_more_than_they_hold() {
    let facts = RelationFacts {
        primary_key: vec!["id".to_owned()],
        has_partial_partitions: true,
        ..RelationFacts::default()
    };
    let columns = [(true, "id", 20), (true, "n", 23), (true, "note", 25)];
    let mut stream = Stream::new(&Format::default(), facts, None);
    stream.all(&[relation(OID, "rides", b'f', &columns), begin(900, 0, 1)]);
    let old = || tuple(b'O', &[text("1"), Value::Null, Value::Null]);
    let new = tuple(b'N', &[text("2"), text("7"), Value::Unchanged]);
    let seen = stream.all(&[row(b'U', OID, &[old(), new]), row(b'D', OID, &[old()])]);
    let one = json!({"id": 1});
    assert_eq!(seen[0].value.as_ref().unwrap()["before"], one);
    assert_eq!(seen[2].value.as_ref().unwrap()["after"], json!({"id": 2, "n": 7}));
    assert_eq!(seen[3].value.as_ref().unwrap()["before"], one);
}
