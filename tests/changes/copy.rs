//! A line of COPY becomes the tuple that a message would have brought: against a naive reader, over
//! any row and any bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rowcast::change::{KeyChoice, Relation, RelationFacts, Relations};
use rowcast::pgoutput::{Datum, Message, decode};
use rowcast::snapshot::{RowError, RowReader};

use crate::wire;

type Values = Vec<Option<Vec<u8>>>;

fn table(columns: usize) -> Arc<Relation> {
    let names: Vec<String> = (0..columns).map(|at| format!("c{at}")).collect();
    let columns: Vec<wire::Column<'_>> = names.iter().map(|name| (false, &**name, 25)).collect();
    let message = wire::relation(7, "notes", b'd', &columns);
    let Message::Relation(body) = decode(&message).unwrap() else { panic!("not a relation") };
    let facts = RelationFacts::default();
    Relations::default().insert(&body, facts, &KeyChoice::default()).unwrap()
}

/// What the server writes, value by value and byte by byte.
fn written(values: &Values) -> Vec<u8> {
    let mut line = Vec::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            line.push(b'\t');
        }
        let Some(value) = value else {
            line.extend(b"\\N");
            continue;
        };
        for byte in value {
            match byte {
                b'\\' => line.extend(b"\\\\"),
                8 => line.extend(b"\\b"),
                b'\t' => line.extend(b"\\t"),
                b'\n' => line.extend(b"\\n"),
                11 => line.extend(b"\\v"),
                12 => line.extend(b"\\f"),
                b'\r' => line.extend(b"\\r"),
                byte => line.push(*byte),
            }
        }
    }
    line.push(b'\n');
    line
}

/// Reads a line the slow way, byte by byte.
fn read_naively(line: &[u8], columns: usize) -> Option<Values> {
    let line = line.strip_suffix(b"\n")?;
    if columns == 0 {
        return line.is_empty().then(Vec::new);
    }
    let values = line.split(|byte| *byte == b'\t').map(|value| {
        if value == b"\\N" {
            return Some(None);
        }
        let mut plain = Vec::new();
        let mut bytes = value.iter();
        while let Some(byte) = bytes.next() {
            plain.push(match byte {
                b'\\' => match bytes.next()? {
                    b'\\' => b'\\',
                    b'b' => 8,
                    b't' => 9,
                    b'n' => 10,
                    b'v' => 11,
                    b'f' => 12,
                    b'r' => 13,
                    _ => return None,
                },
                byte => *byte,
            });
        }
        Some(Some(plain))
    });
    let values: Values = values.collect::<Option<_>>()?;
    (values.len() == columns).then_some(values)
}

fn read(reader: &mut RowReader, line: &[u8], relation: &Relation) -> Result<Values, RowError> {
    let row = reader.read(line, relation)?;
    assert_eq!(row.tuple().len(), relation.columns.len());
    let value = |datum| match datum {
        Datum::Null => None,
        Datum::Text(text) => Some(text.to_vec()),
        other => panic!("COPY has no {other:?}"),
    };
    let values: Values = row.tuple().iter().map(value).collect();
    assert_eq!(values.len(), row.tuple().len());
    Ok(values)
}

fn row() -> impl Strategy<Value = Values> {
    let likely = prop::sample::select(b"\\\t\n\r\x08\x0b\x0c\x00abNbtn.\xff".to_vec());
    let value = prop_oneof![
        vec(any::<u8>(), 0..40),
        vec(likely, 0..12),
        "[a-z0-9 .:-]{0,20}".prop_map(String::into_bytes),
    ];
    vec(prop_oneof![1 => Just(None), 5 => value.prop_map(Some)], 0..12)
}

proptest! {
    #[test]
    fn every_row_that_a_server_writes_reads_back_and_no_part_of_it_does(
        rows in vec(row(), 1..4),
    ) {
        let mut reader = RowReader::default();
        for values in rows {
            let (line, relation) = (written(&values), table(values.len()));
            for end in 0..line.len() {
                let read = read(&mut reader, &line[..end], &relation);
                prop_assert!(matches!(read, Err(RowError::CutOff { .. })), "{end} of {line:?}");
            }
            prop_assert_eq!(read(&mut reader, &line, &relation).unwrap(), values);
        }
    }

    #[test]
    fn any_line_is_read_as_the_naive_reader_reads_it(
        line in vec(prop::sample::select(b"\\\\\t\t\n\nabNbtnvfrx.".to_vec()), 0..24),
        columns in 0_usize..5,
    ) {
        let read = read(&mut RowReader::default(), &line, &table(columns));
        prop_assert_eq!(read.ok(), read_naively(&line, columns));
    }
}

#[test]
fn a_line_of_another_shape_is_refused_by_table_and_column_and_never_by_value() {
    let mut reader = RowReader::default();
    let mut refused = |line: &[u8], columns| {
        let error = reader.read(line, &table(columns)).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
        error
    };
    let head = "reading a row of public.notes from COPY: ";
    let shape = format!("{head}the line has 3 values, the table 2 columns");
    assert_eq!(refused(b"secret\tsecret\t\n", 2), shape);
    assert_eq!(refused(b"a\\tsecret\tb\tc\n", 2), shape);
    assert_eq!(refused(b"secret\tb", 2), format!("{head}the line is cut off"));
    let escape = |column| {
        let tail = "has a backslash before something that no server escapes";
        format!("{head}column {column:?} {tail}")
    };
    assert_eq!(refused(b"a\tsecret\\q\n", 2), escape("c1"));
    assert_eq!(refused(b"secret\\\tb\n", 2), escape("c0"));
    assert_eq!(refused(b"\\Nsecret\tb\n", 2), escape("c0"));
    assert_eq!(refused(b"\\.\n", 1), escape("c0"), "the end of a file of before protocol 3");
}

#[test]
fn a_line_gives_the_tuple_that_a_message_of_the_same_row_gives() {
    let (relation, insert) = wire::taxi(42);
    let Message::Relation(body) = decode(&relation).unwrap() else { panic!("not a relation") };
    let facts = RelationFacts::default();
    let relation = Relations::default().insert(&body, facts, &KeyChoice::default()).unwrap();
    let Message::Insert { new, .. } = decode(&insert).unwrap() else { panic!("not an insert") };
    let mut reader = RowReader::default();
    let row = reader.read(wire::taxi_line(42).as_bytes(), &relation).unwrap();
    assert_eq!(row.tuple(), new);
}

#[test]
fn an_empty_line_is_a_row_of_no_columns_or_of_one_empty_text() {
    let mut reader = RowReader::default();
    assert_eq!(read(&mut reader, b"\n", &table(0)), Ok(vec![]));
    assert_eq!(read(&mut reader, b"\n", &table(1)), Ok(vec![Some(vec![])]));
    assert!(read(&mut reader, b"x\n", &table(0)).is_err());
    assert!(read(&mut reader, b"\n", &table(2)).is_err());
}

#[test]
fn mutated_lines_never_panic_and_are_read_as_the_naive_reader_reads_them() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seconds = number("ROWCAST_TEST_FUZZ_SECONDS").unwrap_or(5);
    let seed = number("ROWCAST_TEST_FUZZ_SEED").unwrap_or_else(rand::random);
    println!("ROWCAST_TEST_FUZZ_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let relation = table(4);
    let corpus: [&[u8]; 4] = [
        b"1\tplain\t2024-01-12 13:46:40\t16.50\n",
        b"2\t\\N\ta\\tb\\\\c\\nd\t\\N\n",
        b"\\N\t\t\\\\N\t{\"a\": \"\\\\\"b\\\\\"\"}\n",
        b"\t\t\t\n",
    ];
    let mut reader = RowReader::default();
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut taken, mut refused) = (0_u64, 0_u64);
    while Instant::now() < end {
        for _ in 0..1000 {
            let mut line = corpus[random.random_range(0..corpus.len())].to_vec();
            for _ in 0..random.random_range(0..4) {
                let at = random.random_range(0..line.len());
                match random.random_range(0..4) {
                    0 => line[at] = random.random(),
                    1 => line.insert(at, b"\\\t\nNtb"[random.random_range(0..6)]),
                    2 if line.len() > 1 => drop(line.remove(at)),
                    _ => line[at] = b"\\\t\nNtb"[random.random_range(0..6)],
                }
            }
            let read = read(&mut reader, &line, &relation);
            *if read.is_ok() { &mut taken } else { &mut refused } += 1;
            assert_eq!(read.ok(), read_naively(&line, 4), "{line:?}");
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(taken > 0 && refused > 0, "the mutations reach both sides");
}
