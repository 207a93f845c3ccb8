//! Frames captured from real servers, and the records they become.
//!
//! `tests/golden/capture.sh` makes the frames; `UPDATE_GOLDEN=1` writes the records again.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rowcast::change::RelationFacts;
use rowcast::config::{Format, ValueFormat};
use rowcast::lsn::Lsn;
use rowcast::pgoutput::decode;

use crate::stream::Stream;

fn captures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut captures: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "hex")).collect();
    captures.sort();
    assert!(!captures.is_empty(), "tests/golden has captured frames");
    captures
}

fn frames_of(capture: &Path) -> Vec<(Lsn, Vec<u8>)> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let text = fs::read_to_string(capture).unwrap();
    let frame = |line: &str| {
        let (lsn, hex) = line.split_once(' ').unwrap();
        (lsn.parse().unwrap(), hex.as_bytes().chunks(2).map(byte).collect())
    };
    text.lines().map(frame).collect()
}

/// All frames of all servers.
pub(crate) fn frames() -> Vec<(Lsn, Vec<u8>)> {
    captures().iter().flat_map(|capture| frames_of(capture)).collect()
}

#[test]
fn every_kind_of_message_is_captured() {
    for capture in captures() {
        let mut letters: Vec<u8> = frames_of(&capture).iter().map(|(_, frame)| frame[0]).collect();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters, b"BCDIMORTUY", "{}", capture.display());
    }
}

#[test]
fn every_truncation_of_every_captured_frame_is_an_error() {
    for (lsn, frame) in frames() {
        decode(&frame).unwrap();
        for length in 0..frame.len() {
            assert!(decode(&frame[..length]).is_err(), "{length} bytes of the frame at {lsn}");
        }
    }
}

#[test]
fn captured_frames_become_the_same_records_as_ever() {
    for capture in captures() {
        for (name, value) in [("debezium", ValueFormat::Debezium), ("flat", ValueFormat::Flat)] {
            let format = Format {
                value,
                truncates: true,
                flat_metadata: true,
                position_headers: true,
                ..Format::default()
            };
            let mut stream = Stream::new(&format, RelationFacts::default(), None);
            let mut text = String::new();
            for (lsn, frame) in frames_of(&capture) {
                let part = |bytes: Option<&[u8]>| match bytes {
                    Some(bytes) => std::str::from_utf8(bytes).unwrap().to_owned(),
                    None => "none".to_owned(),
                };
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
            let golden = capture.with_extension(format!("{name}.txt"));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(&golden, &text).unwrap();
            }
            let expected = fs::read_to_string(&golden).unwrap();
            assert!(text == expected, "records differ from {}", golden.display());
        }
    }
}
