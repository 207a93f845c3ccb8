//! Vectors of pgvector: from `[1,2.5]` and `{1:1,3:2}/5` to JSON.
//!
//! Debezium makes `vector` an array of doubles, `halfvec` one of floats, and `sparsevec` an object
//! of its dimensions and of pairs of index and value, in the order of Java's `HashMap`.

use std::cell::Cell;
use std::fmt;

use super::ValueError;
use super::float::{Float, write_java};
use super::java_map::{bucket, buckets};
use super::scan::Scanner;

/// An array of the numbers as the server prints them.
pub(super) fn write_numbers(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    elements(wire, out, |element, out| {
        if element.ends_with(['N', 'y']) {
            super::text::write_string(element, out);
        } else {
            out.extend_from_slice(element.as_bytes());
        }
        true
    })
}

/// An array of the numbers as Java prints them.
pub(super) fn write_vector<F: Float>(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    elements(wire, out, |element, out| {
        element.parse::<F>().is_ok_and(|number| {
            write_java(number, out);
            true
        })
    })
}

fn elements(
    wire: &[u8],
    out: &mut Vec<u8>,
    write: impl Fn(&str, &mut Vec<u8>) -> bool,
) -> Result<(), ValueError> {
    const EXPECTED: &str = "a vector as [x,y,...]";
    let mut text = Scanner::new("vector", wire);
    text.expect(b'[', EXPECTED)?;
    out.push(b'[');
    loop {
        let start = text;
        let element = text.decimal("a number")?;
        if !write(element, out) {
            return Err(start.error("a number"));
        }
        if !text.take(b',') {
            break;
        }
        out.push(b',');
    }
    text.expect(b']', EXPECTED)?;
    out.push(b']');
    text.end()
}

/// The codec of a sparse vector, with space that is used again.
#[derive(Default)]
pub(super) struct SparseVectorCodec {
    space: Cell<Vec<Entry>>,
}

#[derive(Clone, Copy)]
struct Entry {
    bucket: u32,
    /// How many came before.
    place: usize,
    index: i64,
    value: f64,
}

impl fmt::Debug for SparseVectorCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The space holds a row's value: not to be shown.
        f.write_str("SparseVectorCodec")
    }
}

impl SparseVectorCodec {
    pub(super) fn write(&self, wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let mut entries = self.space.take();
        let read = read_sparse(wire, &mut entries);
        if let Ok(dimensions) = read {
            write_sparse(dimensions, &mut entries, out);
        }
        self.space.set(entries);
        read.map(drop)
    }
}

/// Reads `{1:1,3:2}/5` and returns the number after the slash.
fn read_sparse(wire: &[u8], entries: &mut Vec<Entry>) -> Result<i64, ValueError> {
    const EXPECTED: &str = "a vector as {index:value,...}/dimensions";
    entries.clear();
    let mut text = Scanner::new("sparsevec", wire);
    text.expect(b'{', EXPECTED)?;
    if !text.take(b'}') {
        loop {
            let index = text.number("an index")?;
            text.expect(b':', EXPECTED)?;
            let start = text;
            let value = text.decimal("a number")?;
            let value = value.parse().map_err(|_| start.error("a number"))?;
            entries.push(Entry { bucket: 0, place: entries.len(), index, value });
            if !text.take(b',') {
                break;
            }
        }
        text.expect(b'}', EXPECTED)?;
    }
    text.expect(b'/', EXPECTED)?;
    let dimensions = text.number("the dimensions")?;
    text.end()?;
    Ok(dimensions)
}

fn write_sparse(dimensions: i64, entries: &mut [Entry], out: &mut Vec<u8>) {
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX / 2);
    let buckets = buckets(count, count);
    for entry in entries.iter_mut() {
        // The hash of a number in Java is the number.
        entry.bucket = bucket(u32::try_from(entry.index).unwrap_or(u32::MAX), buckets);
    }
    entries.sort_unstable_by_key(|entry| (entry.bucket, entry.place));
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"{\"dimensions\":");
    out.extend_from_slice(digits.format(dimensions).as_bytes());
    out.extend_from_slice(b",\"vector\":[");
    for (at, entry) in entries.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"[" } else { b",[" });
        out.extend_from_slice(digits.format(entry.index).as_bytes());
        out.push(b',');
        write_java(entry.value, out);
        out.push(b']');
    }
    out.extend_from_slice(b"]}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Write = fn(&[u8], &mut Vec<u8>) -> Result<(), ValueError>;

    fn written(write: Write, wire: &str) -> Result<String, usize> {
        let mut out = Vec::new();
        write(wire.as_bytes(), &mut out).map_err(|error| error.offset)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn sparse(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        SparseVectorCodec::default().write(wire, out)
    }

    #[test]
    fn vectors_are_arrays() {
        let wire = "[1,2.5,-1e-05]";
        assert_eq!(written(write_numbers, wire).as_deref(), Ok(wire));
        assert_eq!(written(write_vector::<f64>, wire).as_deref(), Ok("[1.0,2.5,-1.0E-5]"));
        assert_eq!(written(write_vector::<f32>, "[0.1]").as_deref(), Ok("[0.1]"));
        for (wire, offset) in [("", 0), ("[]", 1), ("[1", 2), ("[1,]", 3), ("[a]", 1), ("[1]x", 3)]
        {
            assert_eq!(written(write_numbers, wire), Err(offset), "{wire}");
            assert_eq!(written(write_vector::<f64>, wire), Err(offset), "{wire}");
        }
    }

    #[test]
    fn sparse_vectors_are_pairs_in_javas_order() {
        for (wire, json) in [
            ("{1:1,3:2.5}/5", "{\"dimensions\":5,\"vector\":[[1,1.0],[3,2.5]]}"),
            ("{2:1,5:2}/5", "{\"dimensions\":5,\"vector\":[[5,2.0],[2,1.0]]}"),
            ("{}/3", "{\"dimensions\":3,\"vector\":[]}"),
        ] {
            assert_eq!(written(sparse, wire).as_deref(), Ok(json), "{wire}");
        }
        for (wire, offset) in [("", 0), ("{1}/2", 2), ("{1:1}", 5), ("{1:1,}/2", 5), ("{}/", 3)] {
            assert_eq!(written(sparse, wire), Err(offset), "{wire}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(wire in "[\\[{][-0-9.,:eN]{0,20}[\\]}](/[0-9]{0,3})?") {
            for write in [write_numbers as Write, write_vector::<f32>, write_vector::<f64>, sparse] {
                if let Ok(json) = written(write, &wire) {
                    serde_json::from_str::<serde_json::Value>(&json).unwrap();
                }
            }
        }
    }
}
