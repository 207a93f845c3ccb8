//! Any message survives the way over the wire, and any bytes are taken or refused, never a panic.
//!
//! A message is made up, written by [`wire`] and the few lines here (which share nothing with the
//! decoder but the protocol's page), decoded, and compared with what was made up.

use proptest::collection::vec;
use proptest::prelude::*;
use rowcast::pgoutput::{Datum, Message, OldTuple, ReplicaIdentity, Tuple, decode};

use crate::golden;
use crate::wire::{self, Value};

/// From the Unix epoch to the Postgres epoch.
const EPOCHS_APART_US: i64 = 946_684_800_000_000;

/// A message with values of its own.
#[derive(Debug, Clone, PartialEq)]
enum Sent {
    Begin { final_lsn: u64, time_us: i64, xid: u32 },
    Commit { lsn: u64, end: u64, time_us: i64 },
    Origin { lsn: u64, name: String },
    Relation { oid: u32, schema: String, table: String, identity: u8, columns: Vec<Column> },
    Type { oid: u32, schema: String, name: String },
    Insert { oid: u32, new: Vec<Value> },
    Update { oid: u32, old: Option<(u8, Vec<Value>)>, new: Vec<Value> },
    Delete { oid: u32, old: (u8, Vec<Value>) },
    Truncate { oids: Vec<u32>, cascade: bool, restart: bool },
    Message { transactional: bool, lsn: u64, prefix: String, content: Vec<u8> },
}

/// In the identity or not, name, type OID, type modifier.
type Column = (bool, String, u32, i32);

impl Sent {
    fn written(&self) -> Vec<u8> {
        let new = |values: &[Value]| wire::tuple(b'N', values);
        match self {
            Self::Begin { final_lsn, time_us, xid } => wire::begin(*final_lsn, *time_us, *xid),
            Self::Commit { lsn, end, time_us } => wire::commit(*lsn, *end, *time_us),
            Self::Origin { lsn, name } => {
                [b"O", lsn.to_be_bytes().as_slice(), name.as_bytes(), &[0]].concat()
            }
            Self::Relation { oid, schema, table, identity, columns } => {
                let head = [b"R", oid.to_be_bytes().as_slice(), schema.as_bytes(), &[0]].concat();
                let count = u16::try_from(columns.len()).unwrap().to_be_bytes();
                let mut out = [&head, table.as_bytes(), &[0, *identity], &count].concat();
                for (in_identity, name, oid, typmod) in columns {
                    out.push(u8::from(*in_identity));
                    out.extend([name.as_bytes(), &[0]].concat());
                    out.extend([oid.to_be_bytes(), typmod.to_be_bytes()].concat());
                }
                out
            }
            Self::Type { oid, schema, name } => {
                let names = [schema.as_bytes(), &[0], name.as_bytes(), &[0]].concat();
                [b"Y", oid.to_be_bytes().as_slice(), &names].concat()
            }
            Self::Insert { oid, new: values } => wire::row(b'I', *oid, &[new(values)]),
            Self::Update { oid, old, new: values } => {
                let old = old.as_ref().map(|(kind, values)| wire::tuple(*kind, values));
                wire::row(b'U', *oid, &old.into_iter().chain([new(values)]).collect::<Vec<_>>())
            }
            Self::Delete { oid, old: (kind, values) } => {
                wire::row(b'D', *oid, &[wire::tuple(*kind, values)])
            }
            Self::Truncate { oids, cascade, restart } => {
                let mut out = wire::truncate(oids);
                out[5] = u8::from(*cascade) + 2 * u8::from(*restart);
                out
            }
            Self::Message { transactional, lsn, prefix, content } => {
                wire::message(*transactional, *lsn, prefix, content)
            }
        }
    }

    /// What the decoder read, to compare with what was written.
    fn read(message: Message<'_>) -> Self {
        let since_postgres_epoch = |time_us: i64| time_us - EPOCHS_APART_US;
        match message {
            Message::Begin(begin) => Self::Begin {
                final_lsn: begin.final_lsn.as_u64(),
                time_us: since_postgres_epoch(begin.commit_time_us),
                xid: begin.xid,
            },
            Message::Commit(commit) => Self::Commit {
                lsn: commit.commit_lsn.as_u64(),
                end: commit.end_lsn.as_u64(),
                time_us: since_postgres_epoch(commit.commit_time_us),
            },
            Message::Origin(origin) => {
                Self::Origin { lsn: origin.commit_lsn.as_u64(), name: origin.name.to_owned() }
            }
            Message::Relation(body) => {
                assert_eq!(body.columns.iter().count(), body.columns.len());
                Self::Relation {
                    oid: body.oid,
                    schema: body.schema.to_owned(),
                    table: body.table.to_owned(),
                    identity: match body.replica_identity {
                        ReplicaIdentity::Default => b'd',
                        ReplicaIdentity::Nothing => b'n',
                        ReplicaIdentity::Full => b'f',
                        ReplicaIdentity::Index => b'i',
                    },
                    columns: body
                        .columns
                        .iter()
                        .map(|at| (at.in_identity, at.name.to_owned(), at.type_oid, at.typmod))
                        .collect(),
                }
            }
            Message::Type(body) => Self::Type {
                oid: body.oid,
                schema: body.schema.to_owned(),
                name: body.name.to_owned(),
            },
            Message::Insert { relation, new } => Self::Insert { oid: relation, new: values(new) },
            Message::Update { relation, old, new } => {
                Self::Update { oid: relation, old: old.map(old_values), new: values(new) }
            }
            Message::Delete { relation, old } => {
                Self::Delete { oid: relation, old: old_values(old) }
            }
            Message::Truncate(truncate) => Self::Truncate {
                oids: truncate.relations.iter().collect(),
                cascade: truncate.cascade,
                restart: truncate.restart_identity,
            },
            Message::Message(message) => Self::Message {
                transactional: message.transactional,
                lsn: message.lsn.as_u64(),
                prefix: String::from_utf8(message.prefix.to_owned()).expect("it was text"),
                content: message.content.to_vec(),
            },
        }
    }
}

fn old_values(old: OldTuple<'_>) -> (u8, Vec<Value>) {
    match old {
        OldTuple::Key(tuple) => (b'K', values(tuple)),
        OldTuple::Full(tuple) => (b'O', values(tuple)),
    }
}

/// The values in order, which must be the same when each is asked for by its number.
fn values(tuple: Tuple<'_>) -> Vec<Value> {
    let value = |datum| match datum {
        Datum::Null => Value::Null,
        Datum::Unchanged => Value::Unchanged,
        Datum::Text(bytes) => Value::Text(bytes.to_vec()),
        Datum::Binary(bytes) => Value::Binary(bytes.to_vec()),
    };
    let in_order: Vec<Value> = tuple.iter().map(value).collect();
    let by_number = (0..tuple.len()).map(|column| value(tuple.datum(column).unwrap()));
    assert_eq!(in_order, by_number.collect::<Vec<_>>());
    assert_eq!(tuple.datum(tuple.len()), None);
    in_order
}

/// A name as Postgres allows it: any characters but the zero byte.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_]{1,8}", "[^\\x00]{1,12}"]
}

fn row() -> impl Strategy<Value = Vec<Value>> {
    let bytes = || vec(any::<u8>(), 0..20);
    let value = prop_oneof![
        Just(Value::Null),
        Just(Value::Unchanged),
        bytes().prop_map(Value::Text),
        bytes().prop_map(Value::Binary),
    ];
    vec(value, 0..12)
}

fn sent() -> impl Strategy<Value = Sent> {
    // Beyond the years that Postgres knows, the decoder saturates.
    let time_us = || -210_866_803_200_000_000..=9_223_371_331_200_000_000_i64 - EPOCHS_APART_US;
    let old = || (prop_oneof![Just(b'K'), Just(b'O')], row());
    let identity = prop_oneof![Just(b'd'), Just(b'n'), Just(b'f'), Just(b'i')];
    let columns = vec((any::<bool>(), name(), any::<u32>(), any::<i32>()), 0..12);
    prop_oneof![
        (any::<u64>(), time_us(), any::<u32>()).prop_map(|(final_lsn, time_us, xid)| Sent::Begin {
            final_lsn,
            time_us,
            xid
        }),
        (any::<u64>(), any::<u64>(), time_us()).prop_map(|(lsn, end, time_us)| Sent::Commit {
            lsn,
            end,
            time_us
        }),
        (any::<u64>(), name()).prop_map(|(lsn, name)| Sent::Origin { lsn, name }),
        (any::<u32>(), name(), name(), identity, columns).prop_map(
            |(oid, schema, table, identity, columns)| Sent::Relation {
                oid,
                schema,
                table,
                identity,
                columns
            }
        ),
        (any::<u32>(), name(), name()).prop_map(|(oid, schema, name)| Sent::Type {
            oid,
            schema,
            name
        }),
        (any::<u32>(), row()).prop_map(|(oid, new)| Sent::Insert { oid, new }),
        (any::<u32>(), proptest::option::of(old()), row())
            .prop_map(|(oid, old, new)| Sent::Update { oid, old, new }),
        (any::<u32>(), old()).prop_map(|(oid, old)| Sent::Delete { oid, old }),
        (vec(any::<u32>(), 0..5), any::<bool>(), any::<bool>())
            .prop_map(|(oids, cascade, restart)| Sent::Truncate { oids, cascade, restart }),
        (any::<bool>(), any::<u64>(), name(), vec(any::<u8>(), 0..20)).prop_map(
            |(transactional, lsn, prefix, content)| Sent::Message {
                transactional,
                lsn,
                prefix,
                content
            }
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_message_is_read_as_it_was_written(sent in sent()) {
        let bytes = sent.written();
        let read = decode(&bytes).map(Sent::read);
        prop_assert_eq!(read, Ok(sent));
    }

    #[test]
    fn no_part_of_a_message_is_a_message(sent in sent(), more in 1_usize..9) {
        let bytes = sent.written();
        for length in 0..bytes.len() {
            prop_assert!(decode(&bytes[..length]).is_err(), "{} of {} bytes", length, bytes.len());
        }
        prop_assert!(decode(&[bytes, vec![0; more]].concat()).is_err(), "{} bytes more", more);
    }

    #[test]
    fn any_bytes_are_read_or_refused(letter in "[BCORYIUDTMSEcAbPKrp]|\\PC", rest in vec(any::<u8>(), 0..80)) {
        let bytes = [letter.as_bytes(), &rest].concat();
        for bytes in [&*bytes, &rest] {
            let Ok(message) = decode(bytes) else { continue };
            // What is read is a message that can be written, and says the same then.
            let read = Sent::read(message);
            let again = read.written();
            prop_assert_eq!(decode(&again).map(Sent::read), Ok(read));
        }
    }
}

#[test]
fn captured_frames_are_written_again_as_they_were_captured() {
    for (lsn, frame) in golden::frames() {
        let again = Sent::read(decode(&frame).unwrap()).written();
        // The server leaves the schema empty for pg_catalog, which the decoder fills in.
        let schema = b"pg_catalog".as_slice();
        let at = again.windows(schema.len()).position(|part| part == schema);
        let again = match at {
            Some(at) if b"RY".contains(&frame[0]) => {
                [&again[..at], &again[at + schema.len()..]].concat()
            }
            _ => again,
        };
        assert_eq!(again, frame, "the frame at {lsn}");
    }
}
