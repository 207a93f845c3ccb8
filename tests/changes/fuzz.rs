//! Bytes nobody asked for: never a panic, and what is taken becomes valid JSON.
//!
//! Runs for `ROWCAST_TEST_FUZZ_SECONDS` (5 by default) from `ROWCAST_TEST_FUZZ_SEED` (random by default).

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rowcast::change::{Assembler, KeyChoice, RelationFacts, Step};
use rowcast::config::{Format, ValueFormat};
use rowcast::encode::{EncodeOptions, Encoder, Records, SourceIdentity};
use rowcast::lsn::Lsn;
use rowcast::pgoutput::{Message, decode};
use serde::de::IgnoredAny;

use crate::golden;
use crate::wire::{self, Value, text};

/// One message of each kind, with every kind of tuple and many types.
fn corpus() -> Vec<Vec<u8>> {
    let kinds: [(u32, &str); 18] = [
        (20, "1"),
        (16, "t"),
        (701, "1.5e-05"),
        (1700, "16.50"),
        (1082, "2024-03-01"),
        (1083, "08:15:30.5"),
        (1266, "08:15:30+02"),
        (1114, "0044-03-15 12:00:00 BC"),
        (1184, "2024-03-01 08:15:30+00"),
        (1186, "P1Y2M3DT4H"),
        (17, "\\x00ff"),
        (3802, "{\"a\": [1, null, \"\\u00e9\"]}"),
        (1009, "{a,\"b \\\"c\",NULL}"),
        (1007, "[0:1]={1,2}"),
        (3807, "{\"{\\\"a\\\": 1}\"}"),
        (2950, "a0ee"),
        (25, "é\"\n"),
        (1185, "{\"2024-03-01 08:15:30+00\"}"),
    ];
    let names: Vec<String> = (0..kinds.len()).map(|at| format!("c{at}")).collect();
    let columns: Vec<wire::Column<'_>> =
        kinds.iter().zip(&names).map(|((oid, _), name)| (true, &**name, *oid)).collect();
    let values: Vec<Value> = kinds.iter().map(|(_, value)| text(value)).collect();
    let mut partial = values.clone();
    partial[2] = Value::Null;
    partial[16] = Value::Unchanged;
    partial[10] = Value::Binary(vec![0, 1]);
    let (taxi, taxi_row) = wire::taxi(1);
    vec![
        wire::relation(7, "kinds", b'f', &columns),
        taxi,
        wire::begin(900, 0, 771),
        wire::row(b'I', 7, &[wire::tuple(b'N', &values)]),
        wire::row(b'U', 7, &[wire::tuple(b'N', &partial)]),
        wire::row(b'U', 7, &[wire::tuple(b'K', &values), wire::tuple(b'N', &values)]),
        wire::row(b'U', 7, &[wire::tuple(b'O', &values), wire::tuple(b'N', &partial)]),
        wire::row(b'D', 7, &[wire::tuple(b'K', &values)]),
        wire::row(b'D', 7, &[wire::tuple(b'O', &values)]),
        taxi_row,
        wire::truncate(&[7, 16400]),
        wire::message(true, 5, "prefix", b"content"),
        [b"O".as_slice(), &[0; 8], b"origin\0"].concat(),
        [b"Y".as_slice(), &[0; 4], b"public\0mood\0"].concat(),
        wire::commit(900, 910, 0),
    ]
}

#[test]
fn every_message_decodes_and_none_of_its_truncations() {
    for frame in corpus() {
        decode(&frame).unwrap();
        for length in 0..frame.len() {
            assert!(decode(&frame[..length]).is_err(), "{} of {frame:?}", length);
        }
        let longer = [&*frame, &[0]].concat();
        assert!(decode(&longer).is_err(), "a byte more than {frame:?}");
    }
}

#[test]
fn stream_and_two_phase_messages_are_refused_by_name() {
    for letter in *b"SEcAbPKrp" {
        let error = decode(&[letter, 0]).unwrap_err().to_string();
        assert!(error.contains("not asked for"), "{error}");
    }
    assert!(decode(b"x").unwrap_err().to_string().contains("0x78"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
fn mutated_messages_never_panic_and_give_valid_json_or_an_error() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seconds = number("ROWCAST_TEST_FUZZ_SECONDS").unwrap_or(5);
    let seed = number("ROWCAST_TEST_FUZZ_SEED").unwrap_or_else(rand::random);
    println!("ROWCAST_TEST_FUZZ_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut corpus = corpus();
    corpus.extend(golden::frames().into_iter().map(|(_, frame)| frame));
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut runs, mut decoded, mut published) = (0_u64, 0_u64, 0_u64);
    while Instant::now() < end {
        let values = [
            ValueFormat::Debezium,
            ValueFormat::DebeziumSchema,
            ValueFormat::CloudEvents,
            ValueFormat::Flat,
        ];
        let value = values[random.random_range(0..values.len())];
        let format = Format {
            value,
            flat_metadata: random.random(),
            position_headers: random.random(),
            transaction_metadata: random.random(),
            context_headers: Some(random.random()),
            ..Format::default()
        };
        let source = SourceIdentity::default();
        let mut encoder = Encoder::new(&EncodeOptions { format: &format, source });
        let mut assembler = Assembler::new(None);
        let mut records = Records::default();
        let intact = corpus.iter().take(3).map(|frame| (frame.clone(), false));
        let broken = (0..200).map(|_| (corpus[random.random_range(0..corpus.len())].clone(), true));
        for (mut frame, mutate) in intact.chain(broken.collect::<Vec<_>>()) {
            if mutate {
                change_bytes(&mut frame, &mut random);
            }
            runs += 1;
            let Ok(message) = decode(&frame) else { continue };
            decoded += 1;
            if let Message::Relation(body) = &message {
                let facts = RelationFacts::default();
                drop(assembler.relations.insert(body, facts, &KeyChoice::default()));
                continue;
            }
            let changes = match assembler.apply(message, Lsn::from(5)) {
                Ok(Step::Change(change)) => vec![change],
                Ok(Step::Truncated(changes)) => changes.collect(),
                Ok(_) | Err(_) => continue,
            };
            for change in changes {
                if encoder.encode(&change, 1, &mut records).is_err() {
                    assert!(records.is_empty());
                    continue;
                }
                for record in records.iter() {
                    published += 1;
                    for json in [record.key, record.value].into_iter().flatten() {
                        let read = serde_json::from_slice::<IgnoredAny>(json);
                        assert!(read.is_ok(), "{read:?}: {}", String::from_utf8_lossy(json));
                        assert!(std::str::from_utf8(json).is_ok());
                    }
                }
            }
        }
    }
    println!("{runs} messages, {decoded} decoded, {published} records");
    assert!(published > 0 && decoded < runs, "the mutations reach both sides");
}

fn change_bytes(frame: &mut Vec<u8>, random: &mut StdRng) {
    const LIKELY: &[u8] = b"\"\\{}[],:nutbNKO\0\xFF\x80-+0";
    for _ in 0..random.random_range(0..4) {
        if frame.is_empty() {
            return;
        }
        let at = random.random_range(0..frame.len());
        match random.random_range(0..6) {
            0 => frame[at] = random.random(),
            1 | 2 => frame[at] = LIKELY[random.random_range(0..LIKELY.len())],
            3 => frame[at] ^= 1 << random.random_range(0..8),
            4 => frame.truncate(at),
            _ => frame.insert(at, random.random()),
        }
    }
}
