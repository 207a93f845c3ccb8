//! Frames captured from real servers, and the records they become.
//!
//! `tests/golden/capture.sh` makes the frames of every version, once with values in text and once
//! in binary; `UPDATE_GOLDEN=1` writes the records again. Positions, times and transaction ids
//! differ from capture to capture, so they are numbered again before frames become records: then
//! all versions have one golden file, and a new capture changes no record.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rowcast::change::RelationFacts;
use rowcast::config::{Format, ValueFormat};
use rowcast::lsn::Lsn;
use rowcast::pgoutput::{Datum, Message, OldTuple, Tuple, decode};

use crate::stream::Stream;
use crate::wire;

/// The versions that `scripts/postgres.lock` has.
const VERSIONS: [u32; 5] = [14, 15, 16, 17, 18];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The frames of one capture. `values`: "text" or "binary".
fn capture(version: u32, values: &str) -> Vec<(Lsn, Vec<u8>)> {
    let file = folder().join(format!("pg{version}.{values}.frames"));
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let frame = |line: &str| {
        let (lsn, shown) = line.split_once(' ').unwrap();
        (lsn.parse().unwrap(), bytes_of(shown))
    };
    text.lines().map(frame).collect()
}

/// The opposite of `shown` in `workload.sql`.
fn bytes_of(shown: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = shown.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = match (byte, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digit =
                    |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
                (digit(*high) * 16 + digit(*low), after)
            }
            (byte, after) => (byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    bytes
}

/// All frames of all servers.
pub(crate) fn frames() -> Vec<(Lsn, Vec<u8>)> {
    let both = |version| [capture(version, "text"), capture(version, "binary")].concat();
    VERSIONS.into_iter().flat_map(both).collect()
}

/// Gives the `n`th transaction the position `n * 1000`, the id `700 + n`, and the `n`th second, and
/// leaves out transactions without a change, which only version 14 sends.
fn numbered_anew(frames: &[(Lsn, Vec<u8>)]) -> Vec<(Lsn, Vec<u8>)> {
    let letter = |index: usize| frames.get(index).map(|(_, frame)| frame[0]);
    let is_empty = |index: usize| (letter(index), letter(index + 1)) == (Some(b'B'), Some(b'C'));
    let (mut transactions, mut of_transaction) = (0_u32, 0);
    let mut numbered = Vec::new();
    for (index, (_, frame)) in frames.iter().enumerate() {
        if is_empty(index) || index.checked_sub(1).is_some_and(is_empty) {
            continue;
        }
        if frame[0] == b'B' {
            transactions += 1;
            of_transaction = 0;
        }
        of_transaction += 1;
        let commit = u64::from(transactions) * 1000;
        let (at, second) = (commit + of_transaction, i64::from(transactions) * 1_000_000);
        let frame = match decode(frame).unwrap() {
            Message::Begin(_) => wire::begin(commit, second, 700 + transactions),
            Message::Commit(_) => wire::commit(commit, commit + 8, second),
            Message::Message(message) => {
                let prefix = std::str::from_utf8(message.prefix).expect("it was text");
                wire::message(message.transactional, at, prefix, message.content)
            }
            _ => frame.clone(),
        };
        numbered.push((Lsn::from(at), frame));
    }
    numbered
}

fn tuples(message: Message<'_>) -> Vec<Tuple<'_>> {
    match message {
        Message::Insert { new, .. } => vec![new],
        Message::Update { old, new, .. } => {
            old.map(OldTuple::tuple).into_iter().chain([new]).collect()
        }
        Message::Delete { old, .. } => vec![old.tuple()],
        _ => Vec::new(),
    }
}

/// What a frame shows of the protocol, in words.
fn shows(frame: &[u8]) -> Vec<String> {
    let message = decode(frame).unwrap();
    let old = |old: Option<OldTuple<'_>>| match old {
        None => "nothing",
        Some(OldTuple::Key(_)) => "key",
        Some(OldTuple::Full(_)) => "row",
    };
    let more = match message {
        Message::Update { old: tuple, .. } => format!("old of update: {}", old(tuple)),
        Message::Delete { old: tuple, .. } => format!("old of delete: {}", old(Some(tuple))),
        Message::Relation(body) => format!("identity: {:?}", body.replica_identity),
        Message::Message(message) => format!("transactional: {}", message.transactional),
        Message::Truncate(truncate) => format!("cascade: {}", truncate.cascade),
        _ => String::new(),
    };
    let value = |datum| match datum {
        Datum::Null => "value: null",
        Datum::Unchanged => "value: unchanged",
        Datum::Text(_) => "value: text",
        Datum::Binary(_) => "value: binary",
    };
    let values = tuples(message).into_iter().flatten().map(|datum| value(datum).to_owned());
    let letter = format!("message: {}", char::from(frame[0]));
    values.chain([letter, more]).filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_kind_of_message_old_tuple_and_value_is_captured() {
    for version in VERSIONS {
        for values in ["text", "binary"] {
            let frames = capture(version, values);
            let seen: BTreeSet<String> =
                frames.iter().flat_map(|(_, frame)| shows(frame)).collect();
            let letters = "BCDIMORTUY".chars().map(|letter| format!("message: {letter}"));
            let more = [
                "old of update: nothing",
                "old of update: key",
                "old of update: row",
                "old of delete: key",
                "old of delete: row",
                "identity: Default",
                "identity: Full",
                "identity: Index",
                "identity: Nothing",
                "transactional: false",
                "transactional: true",
                "cascade: false",
                "cascade: true",
                "value: null",
                "value: unchanged",
                &format!("value: {values}"),
            ];
            let expected: BTreeSet<String> = letters.chain(more.map(str::to_owned)).collect();
            assert_eq!(seen, expected, "PostgreSQL {version}, values in {values}");
        }
    }
}

#[test]
fn every_truncation_of_every_captured_frame_is_an_error() {
    for (lsn, frame) in frames() {
        decode(&frame).unwrap();
        for length in 0..frame.len() {
            assert!(decode(&frame[..length]).is_err(), "{length} bytes of the frame at {lsn}");
        }
        let longer = [&*frame, &[0]].concat();
        assert!(decode(&longer).is_err(), "a byte more than the frame at {lsn}");
    }
}

#[test]
fn binary_tuples_have_a_value_wherever_text_tuples_have_one() {
    let shape = |frame: &[u8]| -> Vec<Vec<&'static str>> {
        let of_tuple = |tuple: Tuple<'_>| {
            let kind = |datum| match datum {
                Datum::Null => "null",
                Datum::Unchanged => "unchanged",
                Datum::Text(_) | Datum::Binary(_) => "value",
            };
            tuple.iter().map(kind).collect()
        };
        tuples(decode(frame).unwrap()).into_iter().map(of_tuple).collect()
    };
    for version in VERSIONS {
        let (text, binary) = (capture(version, "text"), capture(version, "binary"));
        assert_eq!(text.len(), binary.len());
        for ((lsn, text), (binary_lsn, binary)) in text.iter().zip(&binary) {
            assert_eq!((lsn, text[0]), (binary_lsn, binary[0]));
            assert_eq!(shape(text), shape(binary), "PostgreSQL {version} at {lsn}");
        }
    }
}

/// Each format, with the metadata that can stand around it in one of them.
fn formats() -> [(&'static str, Format); 4] {
    let format =
        |value| Format { value, flat_metadata: true, position_headers: true, ..Format::default() };
    let around = Format {
        position_headers: false,
        transaction_metadata: true,
        context_headers: Some(true),
        ..format(ValueFormat::CloudEvents)
    };
    [
        ("debezium", format(ValueFormat::Debezium)),
        ("debezium-schema", format(ValueFormat::DebeziumSchema)),
        ("flat", format(ValueFormat::Flat)),
        ("cloudevents", around),
    ]
}

#[test]
fn captured_frames_become_the_same_records_as_ever_on_every_version() {
    for (name, format) in formats() {
        let golden = folder().join(format!("records.{name}.txt"));
        for version in VERSIONS {
            let text = records(&format, numbered_anew(&capture(version, "text")));
            if std::env::var_os("UPDATE_GOLDEN").is_some() && version == VERSIONS[0] {
                fs::write(&golden, &text).unwrap();
            }
            let expected = fs::read_to_string(&golden).unwrap();
            let line = text.lines().zip(expected.lines()).find(|(is, was)| is != was);
            assert!(
                text == expected,
                "PostgreSQL {version} differs from {}: {line:#?}",
                golden.display()
            );
        }
    }
}

/// The records of frames, as they stand in a golden file.
fn records(format: &Format, frames: Vec<(Lsn, Vec<u8>)>) -> String {
    let part = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => std::str::from_utf8(bytes).unwrap().to_owned(),
        None => "none".to_owned(),
    };
    let mut stream = Stream::new(format, RelationFacts::default(), None);
    let mut text = String::new();
    for (lsn, frame) in frames {
        let sent = stream.send_at(&frame, lsn, |record| {
            for json in [record.key, record.value].into_iter().flatten() {
                serde_json::from_slice::<serde_json::Value>(json).unwrap();
            }
            writeln!(text, "key   {}", part(record.key)).unwrap();
            for (name, value) in record.headers() {
                writeln!(text, "      {name}: {}", part(value)).unwrap();
            }
            writeln!(text, "value {}\n", part(record.value)).unwrap();
        });
        sent.unwrap_or_else(|error| panic!("at {lsn}: {error}"));
    }
    text
}
