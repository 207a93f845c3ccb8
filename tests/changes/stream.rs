//! Sends messages through decode, assemble and encode as the bridge does.

use rowcast::change::{Assembler, Change, Data, KeyChoice, RelationFacts, Snapshot, Step};
use rowcast::config::Format;
use rowcast::encode::{EncodeOptions, Encoder, RecordRef, Records, SourceIdentity, ValueRules};
use rowcast::lsn::Lsn;
use rowcast::pgoutput::{Message, decode};
use serde_json::Value as Json;

/// A record, read by an ordinary JSON parser.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) key: Option<Json>,
    pub(crate) value: Option<Json>,
    pub(crate) headers: Vec<(String, String)>,
}

pub(crate) struct Stream {
    pub(crate) assembler: Assembler,
    encoder: Encoder,
    records: Records,
    facts: RelationFacts,
    configured: Option<Vec<String>>,
}

pub(crate) const NOW_US: i64 = 1_709_282_101_640_211;

impl Stream {
    pub(crate) fn new(
        format: &Format,
        facts: RelationFacts,
        configured: Option<Vec<String>>,
    ) -> Self {
        let source = SourceIdentity {
            version: "0.1.0".to_owned(),
            name: "nyc".to_owned(),
            database: "taxi".to_owned(),
            run_id: "5f2d".to_owned(),
        };
        Self {
            assembler: Assembler::new(None),
            encoder: Encoder::new(&EncodeOptions { format, source }),
            records: Records::default(),
            facts,
            configured,
        }
    }

    pub(crate) fn with_rules(mut self, rules: ValueRules) -> Self {
        self.encoder = self.encoder.with_rules(rules);
        self
    }

    /// The records of one message; an error as its text.
    pub(crate) fn send(&mut self, body: &[u8]) -> Result<Vec<Seen>, String> {
        let mut seen = Vec::new();
        self.send_at(body, Lsn::from(24_023_128), |record| seen.push(Seen::new(&record)))?;
        Ok(seen)
    }

    /// Gives each record of one message to `see`.
    pub(crate) fn send_at(
        &mut self,
        body: &[u8],
        lsn: Lsn,
        mut see: impl FnMut(RecordRef<'_>),
    ) -> Result<(), String> {
        let message = decode(body).map_err(|error| error.to_string())?;
        if let Message::Relation(body) = &message {
            let choice = KeyChoice { configured: self.configured.as_deref() };
            let inserted = self.assembler.relations.insert(body, self.facts.clone(), &choice);
            let relation = inserted.map_err(|error| error.to_string())?;
            let topic = format!("nyc.{}", relation.full_name);
            let announced = self.encoder.announce(&relation, &topic);
            return announced.map(drop).map_err(|error| error.to_string());
        }
        let step = self.assembler.apply(message, lsn);
        let changes: Vec<Change<'_>> = match step.map_err(|error| error.to_string())? {
            Step::Change(change) => vec![change],
            Step::Truncated(changes) => changes.collect(),
            Step::Begin(transaction) => {
                self.encoder.begin(&transaction, lsn, &mut self.records);
                self.records.iter().for_each(&mut see);
                Vec::new()
            }
            Step::Commit { transaction, .. } => {
                self.encoder.end(&transaction, lsn, &mut self.records);
                self.records.iter().for_each(&mut see);
                Vec::new()
            }
            Step::Nothing => Vec::new(),
        };
        for change in changes {
            let encoded = self.encoder.encode(&change, NOW_US, &mut self.records);
            encoded.map_err(|error| match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            })?;
            self.records.iter().for_each(&mut see);
        }
        Ok(())
    }

    /// The records of an insert's row as if a snapshot had read it.
    pub(crate) fn read(&mut self, insert: &[u8], snapshot: Snapshot) -> Vec<Seen> {
        let step = self.assembler.apply(decode(insert).unwrap(), Lsn::from(24_023_128)).unwrap();
        let Step::Change(change) = step else { panic!("not a change") };
        let Data::Insert { relation, after: row } = change.data else { panic!("not an insert") };
        let data = Data::Read { relation, row, snapshot };
        let change = Change { transaction: None, data, ..change };
        self.encoder.encode(&change, NOW_US, &mut self.records).unwrap();
        self.records.iter().map(|record| Seen::new(&record)).collect()
    }

    /// As [`send`](Self::send), where every message must be taken.
    pub(crate) fn all(&mut self, bodies: &[Vec<u8>]) -> Vec<Seen> {
        bodies.iter().flat_map(|body| self.send(body).unwrap()).collect()
    }
}

impl Seen {
    fn new(record: &RecordRef<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let header = |(name, value): (&str, Option<&[u8]>)| (name.to_owned(), text(value.unwrap()));
        Self {
            key: record.key.map(json),
            value: record.value.map(json),
            headers: record.headers().map(header).collect(),
        }
    }
}

fn json(bytes: &[u8]) -> Json {
    serde_json::from_slice(bytes).expect("a record is valid JSON")
}
