//! The checker objects to what it must object to: a proof that can't fail proves nothing.
//!
//! Each test takes a stream that is as it must be, does one thing to it, and names the problems
//! that must be found, and no others.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::check::{Checkpoint, Kind, Mode, check, check_state};
use crate::support::consume::OwnedRecord;
use crate::truth::{Event, Expected, Part, expected};

/// Three transactions over two tables, as `test_decoding` writes them.
const LINES: &str = "\
BEGIN 700
table public.rides: INSERT: id[integer]:1 version[integer]:1 note[text]:'it''s \\ \"a\"'
table public.rides: INSERT: id[integer]:2 version[integer]:1 note[text]:null
table public.drivers: INSERT: id[bigint]:9 version[integer]:1 body[text]:'long'
COMMIT 700
BEGIN 702
table public.rides: UPDATE: id[integer]:1 version[integer]:2 note[text]:'b'
table public.drivers: UPDATE: id[bigint]:9 version[integer]:2 body[text]:unchanged-toast-datum
table public.rides: DELETE: id[integer]:2
COMMIT 702
BEGIN 701
table public.rides: UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:3 version[integer]:3 note[text]:'b'
table public.archive: UPDATE: old-key: id[integer]:5 version[integer]:1 body[text]:'kept' new-tuple: id[integer]:5 version[integer]:2 body[text]:unchanged-toast-datum
COMMIT 701
";

fn truth() -> Vec<Expected> {
    expected(LINES.lines())
}

const COMMITS: [(u64, u64); 3] = [(700, 1_000), (702, 2_000), (701, 3_000)];

/// The end of the commit before this one, and a position of the change itself.
fn sequence_before(lsn: u64) -> String {
    let before = COMMITS.iter().map(|(_, commit)| commit + 8).rfind(|end| *end < lsn);
    json!([before.map(|end| end.to_string()), lsn.to_string()]).to_string()
}

/// The stream as it must be: a partition a topic, and a Kafka transaction for each of Postgres.
fn stream() -> Vec<OwnedRecord> {
    let mut records: Vec<OwnedRecord> = Vec::new();
    let mut ends: HashMap<String, (i64, u64)> = HashMap::new();
    for Expected { place, table, key, event } in truth() {
        let topic = format!("taxi.public.{table}");
        let (end, xid) = ends.entry(topic.clone()).or_insert((0, place.xid));
        // The end of a transaction takes an offset.
        *end += i64::from(*xid != place.xid);
        *xid = place.xid;
        let offset = *end;
        *end += 1;
        let (_, lsn) = COMMITS.iter().find(|(xid, _)| *xid == place.xid).expect("a commit");
        let header =
            |name: &str, number: u64| (name.to_owned(), Some(number.to_string().into_bytes()));
        let mut headers = vec![
            ("__debezium.context.runId".to_owned(), Some(b"first".to_vec())),
            header("rowcast.lsn", *lsn),
            header("rowcast.xid", place.xid),
            header("rowcast.ordinal", place.ordinal),
        ];
        let value = match event {
            Event::Write { op, after, unchanged } => {
                if !unchanged.is_empty() {
                    let named = serde_json::to_vec(&unchanged).expect("JSON");
                    headers.push(("rowcast.unchanged".to_owned(), Some(named)));
                }
                let source = json!({"sequence": sequence_before(*lsn)});
                Some(json!({"op": op, "after": after, "source": source, "ts_ms": offset}))
            }
            Event::Delete => Some(json!({"op": "d", "after": null, "ts_ms": offset})),
            Event::Tombstone => None,
        };
        records.push(OwnedRecord {
            topic,
            partition: 0,
            offset,
            key: Some(key.to_string().into_bytes()),
            value: value.map(|value| value.to_string().into_bytes()),
            headers,
            timestamp_ms: None,
        });
    }
    records
}

/// One for each transaction, as it is where each has a Kafka transaction of its own.
fn checkpoints() -> Vec<Checkpoint> {
    let last = |xid| truth().iter().filter(|e| e.place.xid == xid).map(|e| e.place.ordinal).max();
    let checkpoint =
        |&(xid, commit_lsn)| Checkpoint { commit_lsn, ordinal: last(xid).expect("changes") };
    COMMITS.iter().map(checkpoint).collect()
}

/// The kinds of problems that are found, each once.
fn kinds(mode: Mode, records: &[OwnedRecord]) -> Vec<Kind> {
    kinds_with(mode, records, &checkpoints())
}

fn kinds_with(mode: Mode, records: &[OwnedRecord], checkpoints: &[Checkpoint]) -> Vec<Kind> {
    let findings = check(mode, &truth(), records, checkpoints);
    let mut kinds: Vec<Kind> = findings.problems.iter().map(|problem| problem.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// What happened is appended to the topic, as a reader would find it.
fn append(records: &mut Vec<OwnedRecord>, mut record: OwnedRecord) {
    let of_topic = records.iter().filter(|other| other.topic == record.topic);
    record.offset = of_topic.map(|other| other.offset).max().expect("a topic") + 1;
    records.push(record);
}

fn both(records: &[OwnedRecord]) -> [Vec<Kind>; 2] {
    [kinds(Mode::AtLeastOnce, records), kinds(Mode::ExactlyOnce, records)]
}

fn header_mut<'a>(record: &'a mut OwnedRecord, name: &str) -> &'a mut Vec<u8> {
    let (_, value) = record.headers.iter_mut().find(|(header, _)| header == name).expect("it");
    value.as_mut().expect("a value")
}

#[test]
fn a_stream_as_it_must_be_passes() {
    assert_eq!(both(&stream()), [vec![], vec![]]);
    let findings = check(Mode::ExactlyOnce, &truth(), &stream(), &checkpoints());
    assert_eq!((findings.transactions, findings.repeats), (3, 0));
}

#[test]
fn the_truth_is_what_the_server_wrote() {
    let truth = truth();
    // Three inserts; update, update, delete with tombstone; delete, tombstone, create, update.
    assert_eq!(truth.len(), 3 + 4 + 4);
    let Event::Write { after, .. } = &truth[0].event else { panic!("{:?}", truth[0]) };
    assert_eq!(
        Value::Object(after.clone()),
        json!({"id": 1, "version": 1, "note": "it's \\ \"a\""})
    );
    let Event::Write { after, unchanged, .. } = &truth[4].event else { panic!("{:?}", truth[4]) };
    assert_eq!((after.get("body"), unchanged.as_slice()), (None, &["body".to_owned()][..]));
    let parts: Vec<Part> = truth[7..10].iter().map(|expected| expected.place.part).collect();
    assert_eq!(parts, [Part::Delete, Part::Tombstone, Part::Write]);
    let Event::Write { after, unchanged, .. } = &truth[10].event else { panic!("{:?}", truth[10]) };
    assert_eq!((&after["body"], unchanged.len()), (&json!("kept"), 0));
}

#[test]
fn any_record_that_is_lost_is_missed() {
    for lost in 0..stream().len() {
        let mut records = stream();
        records.remove(lost);
        for found in both(&records) {
            assert!(found.contains(&Kind::Lost), "number {lost}: {found:?}");
        }
    }
}

#[test]
fn a_repeat_breaks_one_promise_and_not_the_other() {
    for repeated in 0..stream().len() {
        let mut records = stream();
        let mut again = records[repeated].clone();
        // Another run, at another time.
        *header_mut(&mut again, "__debezium.context.runId") = b"second".to_vec();
        append(&mut records, again);
        let [at_least_once, exactly_once] = both(&records);
        assert_eq!(at_least_once, [], "number {repeated}");
        assert!(exactly_once.contains(&Kind::Repeated), "number {repeated}: {exactly_once:?}");
    }
}

#[test]
fn a_repeat_that_says_something_else_is_altered() {
    let mut records = stream();
    let mut again = records[0].clone();
    // It is still what the database says, and yet not what was said before.
    again.value = Some(
        br#"{"op":"c","after":{"id":1,"note":"it's \\ \"a\"","version":1},"source":1}"#.to_vec(),
    );
    append(&mut records, again);
    assert_eq!(kinds(Mode::AtLeastOnce, &records), [Kind::Altered]);
}

#[test]
fn two_records_that_changed_places_are_out_of_order() {
    let stream = stream();
    for first in 0..stream.len() {
        let second = (first + 1..stream.len()).find(|&at| stream[at].topic == stream[first].topic);
        let Some(second) = second else { continue };
        let mut records = stream.clone();
        let (a, b) = (records[first].offset, records[second].offset);
        (records[first].offset, records[second].offset) = (b, a);
        records.swap(first, second);
        for found in both(&records) {
            assert!(found.contains(&Kind::OutOfOrder), "{first} and {second}: {found:?}");
        }
    }
}

#[test]
fn a_record_that_comes_after_its_successors_is_out_of_order_though_nothing_is_missing() {
    let mut records = stream();
    let late = records.remove(0);
    append(&mut records, late);
    for found in both(&records) {
        assert!(found.contains(&Kind::OutOfOrder), "{found:?}");
    }
}

#[test]
fn a_sequence_that_goes_back_or_runs_ahead_is_seen() {
    for end in ["500", "9999"] {
        let mut records = stream();
        let is_last = |record: &&mut OwnedRecord| {
            record.json().is_some_and(|event| event["after"]["id"] == 3)
        };
        let last = records.iter_mut().find(is_last).expect("the row that was moved");
        let mut event = last.json().expect("a change");
        event["source"]["sequence"] = json!(json!([end, "3000"]).to_string());
        last.value = Some(event.to_string().into_bytes());
        for found in both(&records) {
            assert_eq!(found, [Kind::OutOfOrder], "{end}");
        }
    }
}

#[test]
fn an_altered_value_key_operation_or_list_of_unchanged_columns_is_seen() {
    let alter: [fn(&mut [OwnedRecord]); 5] = [
        |records| records[0].value = Some(br#"{"op":"c","after":{"id":1,"version":2}}"#.to_vec()),
        |records| records[0].key = Some(br#"{"id":4}"#.to_vec()),
        |records| {
            let value = String::from_utf8(records[3].value.clone().expect("a value"));
            records[3].value =
                Some(value.expect("text").replace("\"op\":\"u\"", "\"op\":\"c\"").into_bytes());
        },
        |records| *header_mut(&mut records[4], "rowcast.unchanged") = b"[]".to_vec(),
        // The value that was not sent is made up.
        |records| {
            records[4].value =
                Some(br#"{"op":"u","after":{"id":9,"version":2,"body":null}}"#.to_vec());
        },
    ];
    for (number, alter) in alter.iter().enumerate() {
        let mut records = stream();
        alter(&mut records);
        assert_eq!(both(&records), [vec![Kind::Altered], vec![Kind::Altered]], "number {number}");
    }
}

#[test]
fn a_record_that_nothing_stands_for_is_invented() {
    let mut records = stream();
    let mut invented = records[0].clone();
    *header_mut(&mut invented, "rowcast.xid") = b"999".to_vec();
    append(&mut records, invented);
    let mut placeless = records[0].clone();
    placeless.headers.clear();
    append(&mut records, placeless);
    assert_eq!(both(&records), [vec![Kind::Invented], vec![Kind::Invented]]);
}

#[test]
fn a_key_in_two_partitions_is_seen() {
    let mut records = stream();
    records[3].partition = 1;
    for found in both(&records) {
        assert_eq!(found, [Kind::Scattered]);
    }
}

#[test]
fn a_kafka_transaction_that_ends_within_one_of_postgres_splits_it() {
    // The topic's first transaction has two records: what follows the first moves on by the end of
    // a Kafka transaction.
    let mut records = stream();
    let topic = records[0].topic.clone();
    for record in records.iter_mut().filter(|record| record.topic == topic) {
        record.offset += i64::from(record.offset > 0);
    }
    assert_eq!(both(&records), [vec![], vec![Kind::Split]]);
}

#[test]
fn a_checkpoint_within_a_transaction_splits_it() {
    let mut checkpoints = checkpoints();
    checkpoints[1].ordinal -= 1;
    assert_eq!(kinds_with(Mode::ExactlyOnce, &stream(), &checkpoints), [Kind::Split]);
}

#[test]
fn a_checkpoint_without_the_end_of_a_kafka_transaction_is_seen() {
    let mut records = stream();
    let topic = records[0].topic.clone();
    for (offset, record) in (0..).zip(records.iter_mut().filter(|r| r.topic == topic)) {
        record.offset = offset;
    }
    assert_eq!(both(&records), [vec![], vec![Kind::Split]]);
    // One Kafka transaction may hold several of Postgres.
    let last = [checkpoints()[2]];
    assert_eq!(kinds_with(Mode::ExactlyOnce, &records, &last), []);
}

#[test]
fn the_last_records_tell_the_rows_and_nothing_else() {
    let rides = [(json!({"id": 3}), json!({"id": 3, "version": 3, "note": "b"}))];
    let found = |rows: &[(Value, Value)], records: &[OwnedRecord]| {
        check_state("rides", &truth(), records, rows).len()
    };
    assert_eq!(found(&rides, &stream()), 0);
    assert_eq!(found(&[], &stream()), 1, "a row that is gone");
    let more = (json!({"id": 8}), json!({"id": 8, "version": 1, "note": null}));
    assert_eq!(found(&[rides[0].clone(), more], &stream()), 1, "a row that no record tells of");
    let other = [(json!({"id": 3}), json!({"id": 3, "version": 4, "note": "b"}))];
    assert_eq!(found(&other, &stream()), 1, "another row");
    let mut records = stream();
    records.pop_if(|record| record.topic.ends_with("archive")).expect("the last");
    let ended_early = records.len() - 1;
    assert_eq!(found(&rides, &records[..ended_early]), 1, "its last record is missing");
    assert_eq!(check_state("places", &truth(), &stream(), &[]).len(), 1, "an idle table");
    // What the server did not send is known from before.
    let drivers = [(json!({"id": 9}), json!({"id": 9, "version": 2, "body": "long"}))];
    assert_eq!(check_state("drivers", &truth(), &stream(), &drivers).len(), 0);
}
