//! The cost of one taxi row on the worker's thread: decoded alone, and through to its record.

#[path = "../tests/changes/wire.rs"]
#[allow(dead_code, reason = "the bench needs a few of its messages")]
mod wire;

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use rowcast::change::{Assembler, KeyChoice, RelationFacts, Relations, Step};
use rowcast::config::{Format, ValueFormat};
use rowcast::encode::{EncodeOptions, Encoder, Records, SourceIdentity};
use rowcast::lsn::Lsn;
use rowcast::pgoutput::{Message, decode};
use rowcast::snapshot::RowReader;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("taxi row");
    let (relation, row) = wire::taxi(1_000_042);
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode", |bench| {
        bench.iter(|| black_box(decode(black_box(&row)).unwrap()));
    });
    let line = wire::taxi_line(1_000_042);
    let Message::Relation(body) = decode(&relation).unwrap() else { unreachable!() };
    let facts = RelationFacts::default();
    let table = Relations::default().insert(&body, facts, &KeyChoice::default()).unwrap();
    let mut reader = RowReader::default();
    group.bench_function("read from COPY", |bench| {
        bench.iter(|| {
            black_box(reader.read(black_box(line.as_bytes()), &table).unwrap()).tuple().len()
        });
    });
    for (name, value) in [
        ("debezium", ValueFormat::Debezium),
        ("debezium-schema", ValueFormat::DebeziumSchema),
        ("cloudevents", ValueFormat::CloudEvents),
        ("flat", ValueFormat::Flat),
    ] {
        let format = Format { value, ..Format::default() };
        let source = SourceIdentity {
            version: "0.1.0".to_owned(),
            name: "nyc".to_owned(),
            database: "taxi".to_owned(),
            run_id: "5f2d".to_owned(),
        };
        let mut encoder = Encoder::new(&EncodeOptions { format: &format, source });
        let mut assembler = Assembler::new(Some(Lsn::from(24_023_000)));
        let Message::Relation(body) = decode(&relation).unwrap() else { unreachable!() };
        let facts = RelationFacts::default();
        assembler.relations.insert(&body, facts, &KeyChoice::default()).unwrap();
        let begin = wire::begin(24_023_128, 762_000_000_000_000, 771);
        assembler.apply(decode(&begin).unwrap(), Lsn::ZERO).unwrap();
        let mut records = Records::default();
        group.bench_function(format!("decode, assemble, encode {name}"), |bench| {
            bench.iter(|| {
                let message = decode(black_box(&row)).unwrap();
                let step = assembler.apply(message, Lsn::from(24_023_100)).unwrap();
                let Step::Change(change) = step else { unreachable!() };
                encoder.encode(&change, 1_709_282_101_640_211, &mut records).unwrap();
                black_box(records.len())
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
