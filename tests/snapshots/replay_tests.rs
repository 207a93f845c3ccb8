//! The checker, held to its word: it accepts what is right, and names each thing that is not.

#![cfg(test)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::replay::{Delivery, Replayed};
use crate::support::consume::OwnedRecord;

/// A record of `rides`.
fn record(offset: i64, at: (u64, u64), value: Option<Value>) -> OwnedRecord {
    let header = |name: &str, value: u64| (name.to_owned(), Some(value.to_string().into_bytes()));
    OwnedRecord {
        topic: "t.public.rides".to_owned(),
        partition: 0,
        offset,
        key: None,
        value: value.map(|value| value.to_string().into_bytes()),
        headers: vec![header("rowcast.lsn", at.0), header("rowcast.ordinal", at.1)],
        timestamp_ms: None,
    }
}

fn row(id: u32, version: u32) -> Value {
    json!({"id": id, "version": version, "body": "b"})
}

fn event(op: &str, before: Value, after: Value) -> Option<Value> {
    Some(json!({"op": op, "before": before, "after": after}))
}

fn replayed(delivery: Delivery, records: &[OwnedRecord]) -> Replayed {
    let mut replayed = Replayed::new(delivery);
    replayed.replay(records);
    replayed
}

fn problems(delivery: Delivery, records: &[OwnedRecord]) -> String {
    replayed(delivery, records).problems().unwrap_or_default()
}

/// A row that is read, changed and deleted.
fn life() -> Vec<OwnedRecord> {
    vec![
        record(0, (5, 1), event("r", Value::Null, row(1, 0))),
        record(1, (6, 1), event("u", Value::Null, row(1, 1))),
        record(2, (7, 1), event("d", json!({"id": 1}), Value::Null)),
        record(3, (7, 1), None),
        record(4, (8, 1), event("c", Value::Null, row(1, 0))),
    ]
}

#[test]
fn a_row_that_lives_dies_and_lives_again_is_no_problem() {
    for delivery in [Delivery::AtLeastOnce, Delivery::ExactlyOnce] {
        assert_eq!(problems(delivery, &life()), "");
        assert_eq!(replayed(delivery, &life()).reads(), 1);
    }
}

#[test]
fn what_comes_twice_is_a_problem_where_nothing_may() {
    for (again, text) in [
        (life()[0].clone(), "1 is read twice"),
        (life()[1].clone(), "was published before"),
        (life()[2].clone(), "was published before"),
        (life()[3].clone(), "was published before"),
    ] {
        let records = [life(), vec![OwnedRecord { offset: 9, ..again }]].concat();
        let found = problems(Delivery::ExactlyOnce, &records);
        assert!(found.contains(text), "no {text:?} in {found:?}");
        assert_eq!(problems(Delivery::AtLeastOnce, &records), "");
    }
}

#[test]
fn a_version_that_goes_back_is_a_problem() {
    let late = record(2, (7, 1), event("r", Value::Null, row(1, 0)));
    let records = [life()[..2].to_vec(), vec![late]].concat();
    assert!(problems(Delivery::ExactlyOnce, &records).contains("goes back from 1 to 0"));
}

#[test]
fn a_column_that_is_left_out_needs_a_word() {
    let without = json!({"id": 1, "version": 2});
    let silent = record(2, (7, 1), event("u", Value::Null, without));
    let mut told = silent.clone();
    told.headers.push(("rowcast.unchanged".to_owned(), Some(b"[\"body\"]".to_vec())));
    let with = |last: OwnedRecord| [life()[..2].to_vec(), vec![last]].concat();
    let found = problems(Delivery::ExactlyOnce, &with(silent));
    assert!(found.contains("body is left out without a word"), "{found}");
    assert_eq!(problems(Delivery::ExactlyOnce, &with(told)), "");
}

#[test]
fn a_row_that_is_read_again_by_another_request_is_no_problem_and_is_counted() {
    let again = record(5, (9, 0), event("r", Value::Null, row(2, 0)));
    let first = record(0, (5, 0), event("r", Value::Null, row(2, 0)));
    for delivery in [Delivery::AtLeastOnce, Delivery::ExactlyOnce] {
        let replayed = replayed(delivery, &[first.clone(), again.clone()]);
        assert_eq!(replayed.problems(), None);
        assert_eq!((replayed.most_reads("rides"), replayed.most_reads("drivers")), (2, 0));
        let still = BTreeMap::from([("rides", vec!["2".to_owned()])]);
        assert_eq!(replayed.misread(&still, |_, _| delivery.times(2, 2)), None);
        let seldom = replayed.misread(&still, |_, _| delivery.times(3, 3)).unwrap_or_default();
        assert!(seldom.contains("rides: 2 was read 2 times"), "{seldom}");
        let often = replayed.misread(&still, |_, _| delivery.times(1, 1));
        assert_eq!(often.is_some(), delivery == Delivery::ExactlyOnce);
    }
}
