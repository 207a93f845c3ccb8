//! What stands around a row: transactions, snapshots, headers, CloudEvents.

use rowcast::change::{RelationFacts, Snapshot, SnapshotMarker};
use rowcast::config::{Format, ValueFormat};
use serde_json::{Value as Json, json};

use crate::stream::{NOW_US, Seen, Stream};
use crate::wire::{Value, begin, commit, message, origin, relation, row, text, truncate, tuple};

const TRIPS: u32 = 16_400;
const ZONES: u32 = 16_401;
/// 2024-03-01 08:35:01.500123 UTC, from the Postgres epoch.
const COMMIT_US: i64 = 762_597_301_500_123;

fn open(format: &Format) -> Stream {
    let primary_key = vec!["id".to_owned()];
    let facts = RelationFacts { primary_key, ..RelationFacts::default() };
    let mut stream = Stream::new(format, facts, None);
    let columns = [(true, "id", 20)];
    stream
        .all(&[relation(TRIPS, "trips", b'd', &columns), relation(ZONES, "zones", b'd', &columns)]);
    stream
}

fn insert(table: u32, id: &str) -> Vec<u8> {
    row(b'I', table, &[tuple(b'N', &[text(id)])])
}

fn key_change(table: u32, old: &str, new: &str) -> Vec<u8> {
    row(b'U', table, &[tuple(b'K', &[text(old)]), tuple(b'N', &[text(new)])])
}

fn value(seen: &Seen) -> &Json {
    seen.value.as_ref().expect("a value")
}

fn names(seen: &Seen) -> Vec<&str> {
    seen.headers.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_transaction_is_announced_counted_and_closed() {
    let format = Format { transaction_metadata: true, ..Format::default() };
    let mut stream = open(&format);
    let seen = stream.all(&[begin(900, COMMIT_US, 771)]);
    let id = json!({"id": "771:24023128"});
    assert_eq!(seen[0].key, Some(id.clone()));
    let ts_ms = 1_709_282_101_500_i64;
    let expected = json!({
        "status": "BEGIN", "id": "771:24023128", "event_count": null, "data_collections": null,
        "ts_ms": ts_ms,
    });
    assert_eq!(value(&seen[0]), &expected);

    let seen = stream.all(&[
        insert(TRIPS, "1"),
        insert(ZONES, "1"),
        key_change(TRIPS, "1", "2"),
        message(true, 880, "p", b""),
        insert(TRIPS, "3"),
    ]);
    let blocks: Vec<Option<&Json>> =
        seen.iter().map(|seen| seen.value.as_ref().map(|value| &value["transaction"])).collect();
    let block = |total: u64, of_table: u64| json!({"id": "771:24023128", "total_order": total, "data_collection_order": of_table});
    let expected = [block(1, 1), block(2, 1), block(3, 2), block(4, 3), block(5, 1), block(6, 4)];
    let events: Vec<&Json> = blocks.iter().copied().flatten().collect();
    assert_eq!(events, expected.iter().collect::<Vec<_>>());
    // The tombstone is none.
    assert_eq!(blocks.iter().filter(|block| block.is_none()).count(), 1);

    let seen = stream.all(&[commit(900, 910, COMMIT_US)]);
    assert_eq!(seen[0].key, Some(id));
    let count = |name: &str, events: u64| json!({"data_collection": name, "event_count": events});
    let collections =
        [count("public.trips", 4), count("public.zones", 1), count("LOGICAL_DECODING_MESSAGE", 1)];
    let expected = json!({
        "status": "END", "id": "771:24023128", "event_count": 6, "data_collections": collections,
        "ts_ms": ts_ms,
    });
    assert_eq!(value(&seen[0]), &expected);
    assert_eq!(seen.len(), 1);
}

#[test]
fn a_transaction_without_events_is_announced_and_closed_too() {
    let format = Format { transaction_metadata: true, ..Format::default() };
    let mut stream = open(&format);
    stream.all(&[begin(900, COMMIT_US, 771), insert(TRIPS, "1"), commit(900, 910, COMMIT_US)]);
    let frames = [begin(920, COMMIT_US, 772), commit(920, 930, COMMIT_US)];
    let seen = stream.all(&frames);
    let statuses: Vec<&Json> = seen.iter().map(|seen| &value(seen)["status"]).collect();
    assert_eq!(statuses, ["BEGIN", "END"]);
    assert_eq!(value(&seen[1])["event_count"], 0);
    assert_eq!(value(&seen[1])["data_collections"], json!([]));
}

#[test]
fn a_table_described_anew_in_a_transaction_is_counted_on() {
    let format = Format { transaction_metadata: true, ..Format::default() };
    let mut stream = open(&format);
    stream.all(&[begin(900, COMMIT_US, 771), insert(TRIPS, "1")]);
    stream.all(&[relation(TRIPS, "trips", b'd', &[(true, "id", 20), (false, "note", 25)])]);
    let wider = row(b'I', TRIPS, &[tuple(b'N', &[text("2"), Value::Null])]);
    let seen = stream.all(&[wider]);
    assert_eq!(value(&seen[0])["transaction"]["data_collection_order"], 2);
}

#[test]
fn transactions_are_told_only_where_wanted() {
    let mut stream = open(&Format::default());
    let frames = [begin(900, COMMIT_US, 771), insert(TRIPS, "1"), commit(900, 910, COMMIT_US)];
    let seen = stream.all(&frames);
    assert_eq!(seen.len(), 1);
    assert_eq!(value(&seen[0])["transaction"], Json::Null);
}

#[test]
fn rows_of_a_snapshot_are_read_and_marked() {
    for (marker, word) in [
        (SnapshotMarker::First, "first"),
        (SnapshotMarker::FirstInTable, "first_in_data_collection"),
        (SnapshotMarker::Between, "true"),
        (SnapshotMarker::LastInTable, "last_in_data_collection"),
        (SnapshotMarker::Last, "last"),
        (SnapshotMarker::Incremental, "incremental"),
    ] {
        let format = Format { transaction_metadata: true, ..Format::default() };
        let mut stream = open(&format);
        stream.all(&[begin(900, COMMIT_US, 771)]);
        let snapshot =
            Snapshot { marker, time_us: 1_709_282_000_000_123, xid: Some(4_294_967_400) };
        let seen = stream.read(&insert(TRIPS, "7"), snapshot);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].key, Some(json!({"id": 7})));
        let value = value(&seen[0]);
        assert_eq!((&value["op"], &value["before"]), (&json!("r"), &Json::Null));
        assert_eq!((&value["after"], &value["transaction"]), (&json!({"id": 7}), &Json::Null));
        let source = &value["source"];
        assert_eq!(source["snapshot"], word);
        assert_eq!(source["ts_us"], 1_709_282_000_000_123_i64);
        assert_eq!(source["sequence"], "[null,\"24023128\"]");
        let (xid, lsn) = match marker {
            SnapshotMarker::Incremental => (Json::Null, Json::Null),
            _ => (json!(4_294_967_400_u64), json!(24_023_128)),
        };
        assert_eq!((&source["txId"], &source["lsn"]), (&xid, &lsn));
    }
}

#[test]
fn a_snapshots_row_is_a_row_in_every_format() {
    let snapshot = Snapshot { marker: SnapshotMarker::Last, time_us: 0, xid: None };
    let read = |value: ValueFormat| {
        let format = Format { value, flat_metadata: true, ..Format::default() };
        let mut stream = open(&format);
        stream.all(&[begin(900, COMMIT_US, 771)]);
        stream.read(&insert(TRIPS, "7"), snapshot)
    };
    let flat = read(ValueFormat::Flat);
    assert_eq!((&value(&flat[0])["id"], &value(&flat[0])["__op"]), (&json!(7), &json!("r")));
    let cloud = read(ValueFormat::CloudEvents);
    let cloud = value(&cloud[0]);
    assert_eq!(
        (&cloud["iodebeziumop"], &cloud["iodebeziumsnapshot"]),
        (&json!("r"), &json!("last"))
    );
    assert_eq!(cloud["time"], "1970-01-01T00:00:00.000Z");
}

#[test]
fn a_change_is_a_cloud_event_as_debezium_shapes_it() {
    let format = Format { value: ValueFormat::CloudEvents, ..Format::default() };
    let mut stream = open(&format);
    stream.all(&[begin(900, COMMIT_US, 771), origin(0x1234, "else\"where")]);
    let seen = stream.all(&[insert(TRIPS, "7001")]);
    let expected = json!({
        "id": "name:nyc;lsn:24023128;txId:771;sequence:[null,\"24023128\"]",
        "source": "/debezium/postgresql/nyc",
        "specversion": "1.0",
        "type": "io.debezium.connector.postgresql.DataChangeEvent",
        "time": "2024-03-01T08:35:01.500Z",
        "datacontenttype": "application/json",
        "iodebeziumop": "c",
        "iodebeziumversion": "0.1.0",
        "iodebeziumconnector": "postgresql",
        "iodebeziumname": "nyc",
        "iodebeziumtsms": "1709282101500",
        "iodebeziumsnapshot": "false",
        "iodebeziumdb": "taxi",
        "iodebeziumsequence": "[null,\"24023128\"]",
        "iodebeziumtsus": "1709282101500123",
        "iodebeziumtsns": "1709282101500123000",
        "iodebeziumschema": "public",
        "iodebeziumtable": "trips",
        "iodebeziumtxId": "771",
        "iodebeziumlsn": "24023128",
        "iodebeziumxmin": null,
        "iodebeziumorigin": "else\"where",
        "iodebeziumoriginlsn": "4660",
        "iodebeziumtxid": null,
        "iodebeziumtxtotalorder": null,
        "iodebeziumtxdatacollectionorder": null,
        "data": {"before": null, "after": {"id": 7001}},
    });
    assert_eq!(value(&seen[0]), &expected);
    assert_eq!(seen[0].key, Some(json!({"id": 7001})));
    let media = "application/cloudevents+json; charset=UTF-8".to_owned();
    assert_eq!(seen[0].headers, [("content-type".to_owned(), media)]);
}

#[test]
fn a_cloud_event_has_its_place_in_its_transaction() {
    let value_format = ValueFormat::CloudEvents;
    let format = Format { value: value_format, transaction_metadata: true, ..Format::default() };
    let mut stream = open(&format);
    let seen = stream.all(&[begin(900, COMMIT_US, 771), insert(TRIPS, "1")]);
    assert_eq!(seen[0].headers, [], "what stands around a transaction is plain JSON");
    let event = value(&seen[1]);
    assert_eq!(event["iodebeziumtxid"], "771:24023128");
    assert_eq!(event["iodebeziumtxtotalorder"], "1");
    assert_eq!(event["iodebeziumtxdatacollectionorder"], "1");
}

#[test]
fn every_kind_of_change_is_a_cloud_event_and_a_tombstone_is_none() {
    let value_format = ValueFormat::CloudEvents;
    let format = Format { value: value_format, ..Format::default() };
    let mut stream = open(&format);
    let seen = stream.all(&[
        begin(900, COMMIT_US, 771),
        key_change(TRIPS, "1", "2"),
        truncate(&[TRIPS]),
        message(true, 880, "taxi-batch", b"bin"),
    ]);
    let ops: Vec<Option<&str>> = seen
        .iter()
        .map(|seen| seen.value.as_ref().and_then(|value| value["iodebeziumop"].as_str()))
        .collect();
    assert_eq!(ops, [Some("d"), None, Some("c"), Some("t"), Some("m")]);
    assert_eq!(value(&seen[0])["data"], json!({"before": {"id": 1}, "after": null}));
    assert_eq!(names(&seen[0]), ["__debezium.newkey", "content-type"]);
    assert_eq!(names(&seen[1]), ["__debezium.newkey"]);
    assert_eq!(names(&seen[2]), ["__debezium.oldkey", "content-type"]);
    assert_eq!(value(&seen[3])["data"], json!({"before": null, "after": null}));
    assert_eq!(seen[3].key, None);
    let expected = json!({"message": {"prefix": "taxi-batch", "content": "Ymlu"}});
    assert_eq!(value(&seen[4])["data"], expected);
    assert_eq!(seen[4].key, Some(json!({"prefix": "taxi-batch"})));
}

#[test]
fn context_headers_are_on_every_record_of_a_table_and_on_no_other() {
    let format = Format {
        context_headers: Some(true),
        transaction_metadata: true,
        position_headers: true,
        ..Format::default()
    };
    let mut stream = open(&format);
    let around = stream.all(&[begin(900, COMMIT_US, 771)]);
    assert_eq!(names(&around[0]), ["rowcast.lsn", "rowcast.xid"]);
    let position = ["rowcast.lsn", "rowcast.xid", "rowcast.ordinal"];
    let context = [
        ("__debezium.context.connectorLogicalName", "nyc"),
        ("__debezium.context.taskId", "0"),
        ("__debezium.context.connectorName", "postgresql"),
        ("__debezium.context.runId", "5f2d"),
    ];
    let seen = stream.all(&[key_change(TRIPS, "1", "2")]);
    for (seen, link) in seen.iter().zip(["newkey", "newkey", "oldkey"]) {
        assert_eq!(names(seen)[0], format!("__debezium.{link}"));
        let of_context = context.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(seen.headers[1..5], of_context);
        assert_eq!(names(seen)[5..], position);
    }
    let seen = stream.all(&[message(true, 880, "p", b"")]);
    assert_eq!(names(&seen[0]), position);
}

#[test]
fn context_headers_follow_the_type_profile_unless_set() {
    assert!(!Format::default().has_context_headers());
    let asked = Format { context_headers: Some(true), ..Format::default() };
    assert!(asked.has_context_headers());
}

#[test]
fn a_value_is_made_at_the_wall_clock_and_its_source_at_the_commit() {
    let mut stream = open(&Format::default());
    let seen = stream.all(&[begin(900, COMMIT_US, 771), insert(TRIPS, "1")]);
    let value = value(&seen[0]);
    assert_eq!(value["ts_us"], NOW_US);
    assert_eq!(value["source"]["ts_us"], 1_709_282_101_500_123_i64);
}

#[test]
fn tombstones_follow_their_switch_and_truncates_have_no_key_in_every_format() {
    let frames = [
        begin(900, COMMIT_US, 771),
        row(b'D', TRIPS, &[tuple(b'K', &[text("1")])]),
        truncate(&[TRIPS]),
    ];
    // Records of the delete with and without tombstones, and of the truncate.
    for (value, flat_metadata, with, without, truncates) in [
        (ValueFormat::Debezium, false, 2, 1, 1),
        (ValueFormat::DebeziumSchema, false, 2, 1, 1),
        (ValueFormat::CloudEvents, false, 2, 1, 1),
        (ValueFormat::Flat, true, 2, 1, 1),
        // The tombstone is the delete itself, and a truncate says nothing.
        (ValueFormat::Flat, false, 1, 1, 0),
    ] {
        for (tombstones, deletes) in [(true, with), (false, without)] {
            let format = Format { value, flat_metadata, tombstones, ..Format::default() };
            let seen = open(&format).all(&frames);
            assert_eq!(seen.len(), deletes + truncates, "{value:?} {tombstones}");
            let (of_delete, of_truncate) = seen.split_at(deletes);
            assert!(of_delete.iter().all(|seen| seen.key.is_some()));
            let nulls = of_delete.iter().filter(|seen| seen.value.is_none()).count();
            let is_delete_itself = value == ValueFormat::Flat && !flat_metadata;
            assert_eq!(nulls, usize::from(tombstones || is_delete_itself), "{value:?}");
            assert!(of_truncate.iter().all(|seen| seen.key.is_none() && seen.value.is_some()));
        }
    }
}
