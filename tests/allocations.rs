//! The hot path allocates nothing per row once its buffers are warm.
//!
//! A binary of its own, for the counting allocator counts everything in the process.

#![expect(unsafe_code, reason = "a global allocator cannot be written without")]

#[path = "changes/wire.rs"]
#[allow(dead_code, reason = "this test needs a few of its messages")]
mod wire;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rowcast::change::{
    Assembler, Change, Data, KeyChoice, Position, RelationFacts, Relations, Snapshot,
    SnapshotMarker, Step,
};
use rowcast::config::{Config, Format, Table, TypeProfile, ValueFormat};
use rowcast::encode::{EncodeOptions, Encoder, Records, SourceIdentity, ValueRules};
use rowcast::lsn::Lsn;
use rowcast::pgoutput::{Datum, Message, decode};
use rowcast::snapshot::RowReader;
use rowcast::types::{Forms, TypeFacts, TypeKind, codec_for};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the count is a plain cell without a
// destructor, so that touching it cannot allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of `rows` messages sent through decode, assemble and encode, after some to warm up.
fn allocations(format: &Format, rules: &ValueRules, relation: &[u8], row: &[u8]) -> u64 {
    let source = SourceIdentity::default();
    let mut encoder = Encoder::new(&EncodeOptions { format, source }).with_rules(rules.clone());
    let mut assembler = Assembler::new(None);
    let Message::Relation(body) = decode(relation).unwrap() else { panic!("not a relation") };
    let facts = RelationFacts::default();
    assembler.relations.insert(&body, facts, &KeyChoice::default()).unwrap();
    let begin = wire::begin(500, 0, 771);
    assembler.apply(decode(&begin).unwrap(), Lsn::ZERO).unwrap();
    let mut records = Records::default();
    let mut before = 0;
    // Until a place in the transaction has the three digits that it keeps to the end.
    for number in 0..900 {
        if number == 200 {
            before = ALLOCATIONS.with(Cell::get);
        }
        let step = assembler.apply(decode(row).unwrap(), Lsn::from(400)).unwrap();
        let Step::Change(change) = step else { panic!("not a change") };
        encoder.encode(&change, 1, &mut records).unwrap();
        assert!(!records.is_empty());
    }
    ALLOCATIONS.with(Cell::get) - before
}

/// Every rule there is, for the columns that [`no_row_allocates_once_the_buffers_are_warm`] sends.
fn all_rules() -> ValueRules {
    let count = |name: &str| Some([(name.to_owned(), 3)].into_iter().collect());
    let table = Table {
        exclude_columns: Some(vec!["raw".to_owned()]),
        mask: count("name"),
        hash: Some(vec!["email".to_owned()]),
        truncate: count("note"),
        ..Table::default()
    };
    let mut config = Config::default();
    config.kafka.brokers = Some("b:9092".to_owned());
    config.format.hash_salt = Some("salt".to_owned().into());
    config.tables.insert("*.*".to_owned(), table);
    ValueRules::new(&config.resolve("taxi").expect("a configuration"))
}

#[test]
fn no_row_allocates_once_the_buffers_are_warm() {
    let before = ALLOCATIONS.with(Cell::get);
    drop(std::hint::black_box(vec![0_u8; 64]));
    assert!(ALLOCATIONS.with(Cell::get) > before, "the counter counts");

    let (taxi, insert) = wire::taxi(42);
    let columns = [(true, "id", 20), (true, "doc", 3802), (true, "tags", 1009), (true, "raw", 17)];
    let nested = wire::relation(7, "nested", b'f', &columns);
    let values = |id: &str| {
        let doc = wire::text("{\"a\": [1, {\"b\": \"\\n\"}]}");
        [wire::text(id), doc, wire::text("{a,\"b \\\"c\"}"), wire::text("\\x00ff")]
    };
    let update =
        wire::row(b'U', 7, &[wire::tuple(b'O', &values("1")), wire::tuple(b'N', &values("2"))]);
    let ruled = [(true, "id", 20), (true, "name", 25), (true, "email", 25), (true, "note", 25)];
    let ruled = wire::relation(8, "ruled", b'f', &ruled);
    let texts = ["1", "Ada", "ada@example.com", "äöüß"].map(wire::text);
    let ruled_insert = wire::row(b'I', 8, &[wire::tuple(b'N', &texts)]);
    let none = ValueRules::default();
    for value in [
        ValueFormat::Debezium,
        ValueFormat::DebeziumSchema,
        ValueFormat::CloudEvents,
        ValueFormat::Flat,
    ] {
        for types in [TypeProfile::Readable, TypeProfile::Debezium] {
            let format = Format {
                value,
                types,
                flat_metadata: true,
                position_headers: true,
                transaction_metadata: true,
                context_headers: Some(true),
                ..Format::default()
            };
            let how = format!("as {value:?} under {types:?}");
            assert_eq!(allocations(&format, &none, &taxi, &insert), 0, "inserts {how}");
            assert_eq!(allocations(&format, &none, &nested, &update), 0, "updates {how}");
            let with_rules = allocations(&format, &all_rules(), &ruled, &ruled_insert);
            assert_eq!(with_rules, 0, "with rules {how}");
        }
    }
}

#[test]
fn no_value_of_any_type_allocates_once_the_buffers_are_warm() {
    const EXTENSIONS: [(u32, &str); 4] =
        [(60_001, "hstore"), (60_002, "vector"), (60_003, "sparsevec"), (60_004, "geometry")];
    let long = format!("{}.{}", "9".repeat(300), "1".repeat(300));
    let values: &[(u32, i32, &str)] = &[
        (16, -1, "t"),
        (20, -1, "-9223372036854775808"),
        (30, -1, "1 2 3"),
        (701, -1, "1.7976931348623157e+308"),
        (1700, -1, "12345678901234567890.5"),
        (1700, -1, &long),
        (1700, 524_294, "16.50"),
        (790, -1, "-$1,234.56"),
        (1082, -1, "0044-03-15 BC"),
        (1083, -1, "08:15:30.123456"),
        (1266, -1, "08:15:30.5+05:30"),
        (1114, -1, "2024-03-01 08:15:30.123456"),
        (1184, -1, "2024-03-01 08:15:30.1+00"),
        (1186, -1, "P1Y2M3DT4H5M6.78S"),
        (1562, -1, "1010101010101"),
        (17, -1, "\\xdeadbeef"),
        (3802, -1, "{\"a\": [1, {\"b\": null}]}"),
        (600, -1, "(1,2.5)"),
        (1231, -1, "{16.50,NULL,-1}"),
        (1009, -1, "{a,\"b \\\"c\"}"),
        (60_001, -1, "\"k\"=>\"v \\\" w\", \"n\"=>NULL"),
        (60_002, -1, "[1,2.5,1e-05]"),
        (60_003, -1, "{1:1,5:2,3:2.5}/5"),
        (60_004, -1, "0101000020E6100000000000000000F03F0000000000000440"),
    ];
    let facts = |(oid, name): (u32, &str)| {
        let (schema, name, kind) = ("public".to_owned(), name.to_owned(), TypeKind::Base);
        (oid, TypeFacts { oid, schema, name, kind })
    };
    let types = EXTENSIONS.into_iter().map(facts).collect();
    for profile in [TypeProfile::Readable, TypeProfile::Debezium] {
        let forms = Forms::of(&Format { types: profile, ..Format::default() });
        let mut out = Vec::new();
        for (oid, typmod, wire) in values {
            let codec = codec_for(*oid, *typmod, &types, &forms);
            let mut before = 0;
            for number in 0..100 {
                if number == 2 {
                    before = ALLOCATIONS.with(Cell::get);
                }
                out.clear();
                codec.write_json(wire.as_bytes(), &mut out).unwrap();
            }
            let count = ALLOCATIONS.with(Cell::get) - before;
            assert_eq!(count, 0, "type {oid} under {profile:?}");
        }
    }
}

#[test]
fn no_row_of_a_snapshot_allocates_once_the_buffers_are_warm() {
    let (relation, _) = wire::taxi(42);
    let Message::Relation(body) = decode(&relation).unwrap() else { panic!("not a relation") };
    let facts = RelationFacts::default();
    let relation = Relations::default().insert(&body, facts, &KeyChoice::default()).unwrap();
    let line = wire::taxi_line(42).replace("\tN\t", "\tN\\t\\\\\t").replace("17.42", "\\N");
    let source = SourceIdentity::default();
    let format = Format::default();
    let mut encoder = Encoder::new(&EncodeOptions { format: &format, source });
    let (mut reader, mut records) = (RowReader::default(), Records::default());
    let snapshot = Snapshot { marker: SnapshotMarker::Between, time_us: 1, xid: Some(5) };
    let mut before = 0;
    for number in 0..300 {
        if number == 100 {
            before = ALLOCATIONS.with(Cell::get);
        }
        let row = reader.read(line.as_bytes(), &relation).unwrap();
        assert_eq!(row.datum(&relation, 5), Datum::Null);
        let change = Change {
            position: Position::default(),
            lsn: Lsn::from(400),
            transaction: None,
            last_commit_lsn: None,
            origin: None,
            data: Data::Read { relation: &relation, row, snapshot },
        };
        encoder.encode(&change, 1, &mut records).unwrap();
        assert_eq!(records.len(), 1);
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
}
