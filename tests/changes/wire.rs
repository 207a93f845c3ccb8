//! Writes pgoutput messages as a server does: the opposite of the decoder, for tests alone.
//!
//! Format: <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(dead_code, reason = "shared by test binaries that each use a part")]
pub(crate) enum Value {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

/// A text value.
pub(crate) fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().to_vec())
}

/// A column: in the identity or not, name, type OID.
pub(crate) type Column<'a> = (bool, &'a str, u32);

pub(crate) fn begin(final_lsn: u64, time_us: i64, xid: u32) -> Vec<u8> {
    [b"B".as_slice(), &final_lsn.to_be_bytes(), &time_us.to_be_bytes(), &xid.to_be_bytes()].concat()
}

pub(crate) fn commit(lsn: u64, end: u64, time_us: i64) -> Vec<u8> {
    [b"C\0".as_slice(), &lsn.to_be_bytes(), &end.to_be_bytes(), &time_us.to_be_bytes()].concat()
}

pub(crate) fn relation(oid: u32, table: &str, identity: u8, columns: &[Column<'_>]) -> Vec<u8> {
    let mut out = [b"R".as_slice(), &oid.to_be_bytes(), b"public\0", table.as_bytes()].concat();
    out.extend_from_slice(&[0, identity]);
    out.extend_from_slice(&i16::try_from(columns.len()).unwrap().to_be_bytes());
    for (in_identity, name, oid) in columns {
        out.push(u8::from(*in_identity));
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(&oid.to_be_bytes());
        out.extend_from_slice(&(-1_i32).to_be_bytes());
    }
    out
}

pub(crate) fn tuple(kind: u8, values: &[Value]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&i16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        let (kind, bytes) = match value {
            Value::Null => (b'n', None),
            Value::Unchanged => (b'u', None),
            Value::Text(bytes) => (b't', Some(bytes)),
            Value::Binary(bytes) => (b'b', Some(bytes)),
        };
        out.push(kind);
        if let Some(bytes) = bytes {
            out.extend_from_slice(&i32::try_from(bytes.len()).unwrap().to_be_bytes());
            out.extend_from_slice(bytes);
        }
    }
    out
}

/// Insert, Update or Delete of the tuples given.
pub(crate) fn row(letter: u8, oid: u32, tuples: &[Vec<u8>]) -> Vec<u8> {
    [&[letter], oid.to_be_bytes().as_slice(), &tuples.concat()].concat()
}

pub(crate) fn truncate(oids: &[u32]) -> Vec<u8> {
    let count = i32::try_from(oids.len()).unwrap().to_be_bytes();
    let oids: Vec<u8> = oids.iter().flat_map(|oid| oid.to_be_bytes()).collect();
    [b"T".as_slice(), &count, &[0], &oids].concat()
}

pub(crate) fn message(transactional: bool, lsn: u64, prefix: &str, content: &[u8]) -> Vec<u8> {
    let length = i32::try_from(content.len()).unwrap().to_be_bytes();
    let head = [b'M', u8::from(transactional)];
    [&head, lsn.to_be_bytes().as_slice(), prefix.as_bytes(), &[0], &length, content].concat()
}

pub(crate) fn origin(commit_lsn: u64, name: &str) -> Vec<u8> {
    [b"O".as_slice(), &commit_lsn.to_be_bytes(), name.as_bytes(), &[0]].concat()
}

/// The same row as COPY writes it.
pub(crate) fn taxi_line(trip: u64) -> String {
    format!("{trip}\t{}\n", TAXI[1..].join("\t"))
}

/// The values of the 20-column taxi row of the load tests; the first is the trip's number.
const TAXI: [&str; 20] = [
    "",
    "2",
    "2024-01-12 13:46:40",
    "2024-01-12 14:12:09",
    "3",
    "17.42",
    "1",
    "N",
    "132",
    "48",
    "1",
    "52.80",
    "2.50",
    "0.50",
    "11.05",
    "6.94",
    "1.00",
    "77.29",
    "2.50",
    "1.75",
];

/// The taxi row as an Insert, and its table.
pub(crate) fn taxi(trip: u64) -> (Vec<u8>, Vec<u8>) {
    let columns: [Column<'_>; 20] = [
        (true, "trip_id", 20),
        (false, "vendor_id", 23),
        (false, "pickup_at", 1114),
        (false, "dropoff_at", 1114),
        (false, "passenger_count", 23),
        (false, "trip_distance", 701),
        (false, "ratecode_id", 23),
        (false, "store_and_fwd_flag", 25),
        (false, "pu_location_id", 23),
        (false, "do_location_id", 23),
        (false, "payment_type", 23),
        (false, "fare_amount", 1700),
        (false, "extra", 1700),
        (false, "mta_tax", 1700),
        (false, "tip_amount", 1700),
        (false, "tolls_amount", 1700),
        (false, "improvement_surcharge", 1700),
        (false, "total_amount", 1700),
        (false, "congestion_surcharge", 1700),
        (false, "airport_fee", 1700),
    ];
    let trip = trip.to_string();
    let values = [&[&*trip], &TAXI[1..]].concat();
    let values: Vec<Value> = values.iter().map(|value| text(value)).collect();
    (relation(16400, "rides", b'd', &columns), row(b'I', 16400, &[tuple(b'N', &values)]))
}
