//! What a consumer saw, held against what must be there.
//!
//! | promise | both modes | `exactly-once` |
//! |---|---|---|
//! | nothing is lost, invented or altered | yes | |
//! | in order, a partition | first sights, without a hole | all records |
//! | nothing twice | a repeat is the same, record for record | no repeats |
//! | transactions are whole | | no Kafka transaction ends within one of Postgres |
//! | `source.sequence` names the end of a transaction before, and never an earlier one | first sights | all records |
//! | the last record of a key tells its row | yes | |
//!
//! All problems are collected, not only the first: which ones come together tells what went wrong.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde_json::Value;

use crate::support::consume::OwnedRecord;
use crate::truth::{Event, Expected, Part, Place};

/// What was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    AtLeastOnce,
    ExactlyOnce,
}

impl Mode {
    /// As `delivery` names it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
        }
    }
}

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A record that must be there is not.
    Lost,
    /// A record that nothing in the database stands for.
    Invented,
    /// A record says something else than the change, or than it did the first time.
    Altered,
    /// A record comes again where none may.
    Repeated,
    /// A record comes before one that it must follow.
    OutOfOrder,
    /// A key is in two partitions.
    Scattered,
    /// A transaction is split over two of Kafka's.
    Split,
    /// A table's rows are not what the records tell.
    State,
}

/// Where and how it was broken.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    pub(crate) told: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.told)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<Problem>,
    /// Records that came again.
    pub(crate) repeats: usize,
    /// Transactions of the database that have records.
    pub(crate) transactions: usize,
}

impl Findings {
    fn add(&mut self, kind: Kind, told: String) {
        self.problems.push(Problem { kind, told });
    }
}

/// Holds records, each partition's in order of offsets, against the truth. A topic's name ends with
/// its table's.
pub(crate) fn check(
    mode: Mode,
    expected: &[Expected],
    records: &[OwnedRecord],
    checkpoints: &[Checkpoint],
) -> Findings {
    let mut findings = Findings::default();
    let by_place: HashMap<(&str, Place), usize> =
        expected.iter().enumerate().map(|(at, e)| ((e.table, e.place), at)).collect();
    let xids: HashSet<u64> = expected.iter().map(|expected| expected.place.xid).collect();
    findings.transactions = xids.len();
    let mut partitions: BTreeMap<(&str, i32), Vec<Sight<'_>>> = BTreeMap::new();
    for record in records {
        let Some(place) = place_of(record) else {
            findings.add(Kind::Invented, format!("without a place: {}", brief(record)));
            continue;
        };
        let table = record.topic.rsplit('.').next().expect("a topic has a name");
        let Some(&at) = by_place.get(&(table, place)) else {
            findings.add(Kind::Invented, brief(record));
            continue;
        };
        if let Some(difference) = difference(&expected[at], record) {
            findings.add(Kind::Altered, format!("{}: {difference}", brief(record)));
        }
        let partition = (record.topic.as_str(), record.partition);
        partitions.entry(partition).or_default().push(Sight { at, record });
    }
    check_partitions_of_keys(expected, &partitions, &mut findings);
    for sights in partitions.values() {
        check_order(mode, sights, &mut findings);
        check_repeats(mode, sights, &mut findings);
        check_sequence(mode, sights, &mut findings);
        if mode == Mode::ExactlyOnce {
            check_wholeness(expected, sights, &mut findings);
        }
    }
    if mode == Mode::ExactlyOnce {
        check_checkpoints(expected, checkpoints, &partitions, &mut findings);
    }
    let seen: HashSet<usize> = partitions.values().flatten().map(|sight| sight.at).collect();
    for (at, lost) in expected.iter().enumerate().filter(|(at, _)| !seen.contains(at)) {
        findings.add(Kind::Lost, format!("number {at} of {}: {lost:?}", expected.len()));
    }
    findings
}

/// A record, and which of the expected it is.
struct Sight<'a> {
    at: usize,
    record: &'a OwnedRecord,
}

/// What a Kafka transaction said that it holds: it is one record of the checkpoints' topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The commit of the last change that is in, as a number.
    pub(crate) commit_lsn: u64,
    /// That change's count in its transaction.
    pub(crate) ordinal: u64,
}

/// All records of a key are in one partition.
fn check_partitions_of_keys(
    expected: &[Expected],
    partitions: &BTreeMap<(&str, i32), Vec<Sight<'_>>>,
    findings: &mut Findings,
) {
    let mut homes: HashMap<(&str, String), i32> = HashMap::new();
    for (&(topic, partition), sights) in partitions {
        for sight in sights {
            let key = expected[sight.at].key.to_string();
            let home = *homes.entry((topic, key)).or_insert(partition);
            if home != partition {
                let also = format!("the key is also in {home}: {}", brief(sight.record));
                findings.add(Kind::Scattered, also);
            }
        }
    }
}

/// First sights follow the order of commits, so that a reader who stops anywhere misses nothing of
/// what came before in its partition; under exactly-once all records do.
fn check_order(mode: Mode, sights: &[Sight<'_>], findings: &mut Findings) {
    let mut newest: Option<&Sight<'_>> = None;
    let mut seen = HashSet::new();
    for sight in sights {
        let is_first = seen.insert(sight.at);
        let follows = newest.is_none_or(|newest| newest.at < sight.at);
        let counts = is_first || mode == Mode::ExactlyOnce;
        if let Some(newest) = newest.filter(|newest| counts && newest.at != sight.at && !follows) {
            let told = format!("{} after {}", brief(sight.record), brief(newest.record));
            findings.add(Kind::OutOfOrder, told);
        }
        if follows {
            newest = Some(sight);
        }
    }
}

/// The first of the two positions is the end of a transaction that was committed before: behind the
/// one that the record before it names, and before the record's own commit.
fn check_sequence(mode: Mode, sights: &[Sight<'_>], findings: &mut Findings) {
    let mut seen = HashSet::new();
    let mut newest = 0;
    for sight in sights {
        let counts = seen.insert(sight.at) || mode == Mode::ExactlyOnce;
        // A tombstone has none, and the first transaction of a new slot knows of none before.
        let Some(before) = end_before(sight.record).filter(|_| counts) else { continue };
        if before < newest || commit_lsn(sight.record).is_none_or(|commit| commit < before) {
            let told = format!("{} names {before} after {newest}", brief(sight.record));
            findings.add(Kind::OutOfOrder, told);
        }
        newest = newest.max(before);
    }
}

/// The end of the transaction before, as `source.sequence` tells it.
fn end_before(record: &OwnedRecord) -> Option<u64> {
    let event = record.json()?;
    let pair: [Option<String>; 2] =
        serde_json::from_str(event["source"]["sequence"].as_str()?).ok()?;
    pair[0].as_ref()?.parse().ok()
}

/// What comes again is what came before.
fn check_repeats(mode: Mode, sights: &[Sight<'_>], findings: &mut Findings) {
    let mut first: HashMap<usize, &OwnedRecord> = HashMap::new();
    for Sight { at, record } in sights {
        let Some(first) = first.get(at) else {
            first.insert(*at, record);
            continue;
        };
        findings.repeats += 1;
        if mode == Mode::ExactlyOnce {
            findings.add(Kind::Repeated, format!("{} is {}", brief(record), brief(first)));
        } else if lasting(first) != lasting(record) {
            let told = format!("{} was {}", brief(record), brief(first));
            findings.add(Kind::Altered, told);
        }
    }
}

/// The end of a Kafka transaction takes an offset of its own in each partition. So between records
/// of one source transaction there is none.
fn check_wholeness(expected: &[Expected], sights: &[Sight<'_>], findings: &mut Findings) {
    for pair in sights.windows(2) {
        let [before, after] = pair else { continue };
        let is_same = expected[before.at].place.xid == expected[after.at].place.xid;
        if is_same && after.record.offset != before.record.offset + 1 {
            let told = format!("between {} and {}", brief(before.record), brief(after.record));
            findings.add(Kind::Split, told);
        }
    }
}

/// Each Kafka transaction ends where one of Postgres does, and what is before it in the order of
/// commits is in no later one: so at each checkpoint, a partition's offsets have a gap.
fn check_checkpoints(
    expected: &[Expected],
    checkpoints: &[Checkpoint],
    partitions: &BTreeMap<(&str, i32), Vec<Sight<'_>>>,
    findings: &mut Findings,
) {
    let mut last: HashMap<u64, u64> = HashMap::new();
    for record in expected {
        last.insert(record.place.xid, record.place.ordinal);
    }
    let all = || partitions.values().flatten();
    let xids: HashMap<u64, u64> = all()
        .filter_map(|sight| Some((commit_lsn(sight.record)?, expected[sight.at].place.xid)))
        .collect();
    for checkpoint in checkpoints {
        let whole = xids.get(&checkpoint.commit_lsn).and_then(|xid| last.get(xid));
        if whole.is_some_and(|&whole| whole != checkpoint.ordinal) {
            findings.add(Kind::Split, format!("{checkpoint:?} of {whole:?} changes"));
        }
    }
    let mut ends: Vec<u64> = checkpoints.iter().map(|checkpoint| checkpoint.commit_lsn).collect();
    ends.sort_unstable();
    for sights in partitions.values() {
        for pair in sights.windows(2) {
            let [before, after] = pair else { continue };
            let range = commit_lsn(before.record).zip(commit_lsn(after.record));
            let Some((from, to)) = range.filter(|(from, to)| from < to) else { continue };
            let end = ends.get(ends.partition_point(|&end| end < from));
            let is_divided = end.is_some_and(|&end| end < to);
            if is_divided && after.record.offset == before.record.offset + 1 {
                let told = format!(
                    "a checkpoint divides {} from {}, which no end of a transaction does",
                    brief(before.record),
                    brief(after.record)
                );
                findings.add(Kind::Split, told);
            }
        }
    }
}

/// Compares the rows of a table with what the last records of its keys tell. Columns that Postgres
/// did not send with the last change are left out, as a consumer has them from before.
pub(crate) fn check_state(
    table: &str,
    expected: &[Expected],
    records: &[OwnedRecord],
    rows: &[(Value, Value)],
) -> Vec<Problem> {
    let topic_of = |record: &&OwnedRecord| record.topic.rsplit('.').next() == Some(table);
    let mut last: HashMap<String, &OwnedRecord> = HashMap::new();
    for record in records.iter().filter(topic_of) {
        // A key has one partition, in which records stand in order of offsets.
        last.insert(key_of(record).to_string(), record);
    }
    let mut problems = Vec::new();
    let mut problem = |told: String| problems.push(Problem { kind: Kind::State, told });
    for (key, row) in rows {
        let Some(record) = last.remove(&key.to_string()) else {
            problem(format!("{table}: no record tells of {key}"));
            continue;
        };
        let told = record.json();
        let after = told.as_ref().and_then(|told| told["after"].as_object());
        let Some(after) = after else {
            problem(format!("{table}: {key} is there, and the last is {}", brief(record)));
            continue;
        };
        if after.iter().any(|(column, value)| row[column] != *value) {
            problem(format!("{table}: {} tells another row", brief(record)));
        }
    }
    for record in last.into_values().filter(|record| record.value.is_some()) {
        problem(format!("{table}: a row that is gone is told by {}", brief(record)));
    }
    if !expected.iter().any(|expected| expected.table == table) {
        problem(format!("{table}: the load wrote nothing"));
    }
    problems
}

/// The record's key; null where that is no JSON.
fn key_of(record: &OwnedRecord) -> Value {
    let parse = |key: &[u8]| serde_json::from_slice(key).ok();
    record.key.as_deref().and_then(parse).unwrap_or_default()
}

fn difference(expected: &Expected, record: &OwnedRecord) -> Option<String> {
    if key_of(record) != expected.key {
        return Some(format!("its key is {}", expected.key));
    }
    let value = record.json();
    match (&expected.event, &value) {
        (Event::Tombstone, None) => None,
        (Event::Delete, Some(value)) if value["op"] == "d" && value["after"].is_null() => None,
        (Event::Write { op, after, unchanged }, Some(value)) => {
            if value["op"] != *op {
                return Some(format!("its operation is {op}"));
            }
            if value["after"].as_object() != Some(after) {
                return Some("the row has other values".to_owned());
            }
            let named = header(record, "rowcast.unchanged").unwrap_or("[]");
            let named: Vec<String> = serde_json::from_str(named).unwrap_or_default();
            (named != *unchanged).then(|| format!("its unchanged columns are {unchanged:?}"))
        }
        _ => Some(format!("it is {:?}", expected.event)),
    }
}

/// What of a record must be the same when it comes again: all but clocks and the run's own ID.
#[derive(PartialEq)]
struct Lasting<'a> {
    key: Option<&'a [u8]>,
    value: Option<Value>,
    headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

fn lasting(record: &OwnedRecord) -> Lasting<'_> {
    let mut value = record.json();
    if let Some(value) = value.as_mut().and_then(Value::as_object_mut) {
        for clock in ["ts_ms", "ts_us", "ts_ns"] {
            value.remove(clock);
        }
        // It tells of the commit before, which nobody knows at a new slot's first transaction; at a
        // restart it is the slot's position.
        if let Some(source) = value.get_mut("source").and_then(Value::as_object_mut) {
            source.remove("sequence");
        }
    }
    let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
    let headers = headers.filter(|(name, _)| *name != "__debezium.context.runId").collect();
    Lasting { key: record.key.as_deref(), value, headers }
}

fn header<'a>(record: &'a OwnedRecord, name: &str) -> Option<&'a str> {
    let (_, value) = record.headers.iter().find(|(header, _)| header == name)?;
    std::str::from_utf8(value.as_deref()?).ok()
}

/// The commit LSN that the record's header tells.
pub(crate) fn commit_lsn(record: &OwnedRecord) -> Option<u64> {
    header(record, "rowcast.lsn")?.parse().ok()
}

fn place_of(record: &OwnedRecord) -> Option<Place> {
    let xid = header(record, "rowcast.xid")?.parse().ok()?;
    let ordinal = header(record, "rowcast.ordinal")?.parse().ok()?;
    let part = match record.json() {
        None => Part::Tombstone,
        Some(value) if value["op"] == "d" => Part::Delete,
        Some(_) => Part::Write,
    };
    Some(Place { xid, ordinal, part })
}

/// A record without its values.
fn brief(record: &OwnedRecord) -> String {
    let OwnedRecord { topic, partition, offset, .. } = record;
    let header = |name| header(record, name).unwrap_or("?");
    format!(
        "{topic}[{partition}]@{offset} (lsn {}, xid {}, ordinal {}, key {}{})",
        header("rowcast.lsn"),
        header("rowcast.xid"),
        header("rowcast.ordinal"),
        key_of(record),
        if record.value.is_none() { ", tombstone" } else { "" }
    )
}
