//! A value of any text in a column of any type: valid JSON on one line, or an error that does not
//! quote it.
//!
//! The first byte chooses the type, the second the format; the rest is the value.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rowcast::config::{Format, ValueFormat};
use serde::de::IgnoredAny;
use stream::Stream;
use wire::Value;

#[allow(dead_code, reason = "the tests need all of it")]
#[path = "../../tests/changes/stream.rs"]
mod stream;
#[allow(dead_code, reason = "the tests need all of it")]
#[path = "../../tests/changes/wire.rs"]
mod wire;

/// Every built-in type with a codec of its own, its array, and a type without one.
const TYPES: [u32; 32] = [
    16, 20, 21, 23, 26, 700, 701, 1700, 1082, 1083, 1266, 1114, 1184, 1186, 17, 114, 3802, 25,
    1000, 1016, 1231, 1182, 1183, 1270, 1115, 1185, 1187, 1001, 199, 3807, 1009, 869,
];

fuzz_target!(|bytes: &[u8]| {
    let [kind, format, value @ ..] = bytes else { return };
    let kind = TYPES[usize::from(*kind) % TYPES.len()];
    let value_format = if format & 1 == 0 { ValueFormat::Debezium } else { ValueFormat::Flat };
    let format = Format { value: value_format, ..Format::default() };
    let mut stream = Stream::new(&format, Default::default(), None);
    let relation = wire::relation(7, "t", b'f', &[(true, "id", 23), (false, "value", kind)]);
    let values = [wire::text("1"), Value::Text(value.to_vec())];
    let insert = wire::row(b'I', 7, &[wire::tuple(b'N', &values)]);
    stream.send(&relation).expect("a relation");
    stream.send(&wire::begin(900, 0, 771)).expect("a transaction");
    let sent = stream.send_at(&insert, rowcast::lsn::Lsn::from(5), |record| {
        for json in [record.key, record.value].into_iter().flatten() {
            serde_json::from_slice::<IgnoredAny>(json).expect("valid JSON");
            assert!(!json.contains(&b'\n') && std::str::from_utf8(json).is_ok());
        }
    });
    if let Err(error) = sent {
        assert!(error.len() < 300, "an error tells the place, not the value: {error}");
    }
});
