//! Tables made again from nothing but the records of their topics, as a consumer does, and held
//! against the tables as they are.
//!
//! | what is held | at least once | exactly once |
//! |---|---|---|
//! | the tables are the same, row for row | yes | yes |
//! | a column is missing only where an event said so: a row that was moved, with a value that did not change and is too large for its row | yes | yes |
//! | no change of the stream twice, by position | repeats are left out | yes |
//! | no row of a snapshot twice at one position | | yes |
//! | versions of a key do not go back while it lives | | yes |
//! | a row of the seed that nobody writes to is read once, and once more for each request that asks for it | at least | yes |

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use serde_json::Value;
use tokio_postgres::Client;

use crate::support::consume::OwnedRecord;
use crate::tables::{TABLES, Table, table_of};

/// A row: its columns, as Postgres writes their values.
pub(crate) type Row = BTreeMap<String, Option<String>>;

/// Problems that are printed of those that were found.
const PRINTED: usize = 20;

/// What was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

impl Delivery {
    /// How often comes what is promised so often.
    pub(crate) fn times(self, least: usize, most: usize) -> RangeInclusive<usize> {
        least..=if self == Self::ExactlyOnce { most } else { usize::MAX }
    }

    /// As the configuration names it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
        }
    }
}

/// A row as it was told.
#[derive(Debug, Default, Clone)]
struct Told {
    row: Row,
    /// Columns that no event has to tell: the row came from another key with a value that did not
    /// change.
    untold: BTreeSet<String>,
}

/// What the records of one table tell.
#[derive(Debug, Default)]
struct Replay {
    /// By the key's values; without a key, by the tag.
    rows: BTreeMap<String, Told>,
    /// How often a row was read by a snapshot.
    reads: BTreeMap<String, usize>,
    changes: HashSet<(String, String, char)>,
    read_at: HashSet<(String, String, String)>,
    problems: Vec<String>,
}

/// What all topics tell.
#[derive(Debug)]
pub(crate) struct Replayed {
    delivery: Delivery,
    tables: BTreeMap<&'static str, Replay>,
}

impl Replayed {
    /// Of what was promised so, before any record.
    pub(crate) fn new(delivery: Delivery) -> Self {
        let tables = TABLES.iter().map(|table| (table.name, Replay::default())).collect();
        Self { delivery, tables }
    }

    /// Replays more records, each partition's in the order of its offsets.
    pub(crate) fn replay(&mut self, records: &[OwnedRecord]) {
        for record in records {
            let table = table_of(&record.topic);
            let replay = self.tables.get_mut(table.name).expect("all are there");
            replay.apply(self.delivery, table, record);
        }
    }

    /// Rows that a snapshot told, of all tables.
    pub(crate) fn reads(&self) -> usize {
        self.tables.values().flat_map(|replay| replay.reads.values()).sum()
    }

    /// What is wrong with the records in themselves; none where nothing is.
    pub(crate) fn problems(&self) -> Option<String> {
        printed(self.tables.values().flat_map(|replay| replay.problems.clone()).collect())
    }

    /// The most often that one row was read, whoever wrote to it.
    pub(crate) fn most_reads(&self, table: &str) -> usize {
        self.tables[table].reads.values().copied().max().unwrap_or(0)
    }

    /// Which rows that nobody has written to were read more or less often than `expected` says of a
    /// table and a key.
    pub(crate) fn misread(
        &self,
        still: &BTreeMap<&'static str, Vec<String>>,
        expected: impl Fn(&str, &str) -> RangeInclusive<usize>,
    ) -> Option<String> {
        let all = still.iter().flat_map(|(table, keys)| keys.iter().map(move |key| (*table, key)));
        let wrong = all.filter_map(|(table, key)| {
            let (reads, expected) =
                (self.tables[table].reads.get(key).copied().unwrap_or(0), expected(table, key));
            let is_wrong = !expected.contains(&reads);
            is_wrong.then(|| format!("{table}: {key} was read {reads} times, not {expected:?}"))
        });
        printed(wrong.collect())
    }

    /// Where the tables are other than the records tell. `lenient` lets rows stay that are gone: of
    /// what was deleted while no slot was there, nothing can tell.
    pub(crate) fn differences(&self, truth: &Truth, lenient: bool) -> Option<String> {
        let mut found = Vec::new();
        for table in &TABLES {
            let (name, told) = (table.name, &self.tables[table.name].rows);
            let rows = &truth.0[name];
            for (key, row) in rows {
                match told.get(key) {
                    None => found.push(format!("{name}: nothing tells of {key}")),
                    Some(told) => found.extend(
                        told.difference(table, row)
                            .map(|difference| format!("{name}: {key}: {difference}")),
                    ),
                }
            }
            let gone = told.keys().filter(|key| !lenient && !rows.contains_key(*key));
            found.extend(gone.map(|key| format!("{name}: {key} is gone, and told of")));
        }
        printed(found)
    }
}

fn printed(problems: Vec<String>) -> Option<String> {
    let count = problems.len();
    let mut text = String::new();
    for problem in problems.into_iter().take(PRINTED) {
        let _ = writeln!(text, "{problem}");
    }
    (count > 0).then(|| format!("{count} problems:\n{text}"))
}

impl Told {
    fn difference(&self, table: &Table, row: &Row) -> Option<String> {
        table.columns().find_map(|column| match (self.row.get(column), &row[column]) {
            (Some(told), is) if told == is => None,
            (None, _) if self.untold.contains(column) => None,
            (None, _) => Some(format!("{column} was never told")),
            // Values can be long, and are of no use here.
            (Some(told), is) => {
                let brief = |value: &Option<String>| {
                    value.as_ref().map(|text| text.chars().take(30).collect::<String>())
                };
                Some(format!("{column} is {:?}, told is {:?}", brief(is), brief(told)))
            }
        })
    }
}

impl Replay {
    fn apply(&mut self, delivery: Delivery, table: &Table, record: &OwnedRecord) {
        let place = |name| header(record, name).unwrap_or_default().to_owned();
        let (lsn, ordinal) = (place("rowcast.lsn"), place("rowcast.ordinal"));
        let brief = format!("{}[{}]@{}", table.name, record.partition, record.offset);
        let Some(event) = record.json() else {
            // The delete before it has said so.
            self.once(delivery, (lsn, ordinal, 't'), &brief);
            return;
        };
        let op = event["op"].as_str().and_then(|op| op.chars().next()).unwrap_or('?');
        let (before, after) = (row_of(&event["before"]), row_of(&event["after"]));
        match op {
            'r' => {
                let Some(row) = after else {
                    return self.problems.push(format!("{brief}: no row"));
                };
                let key = key_of(table, &row);
                *self.reads.entry(key.clone()).or_default() += 1;
                let at = (key.clone(), lsn, ordinal);
                if !self.read_at.insert(at) && delivery == Delivery::ExactlyOnce {
                    self.problems.push(format!("{brief}: {key} is read twice"));
                }
                self.write(delivery, &key, row, BTreeSet::new(), &brief);
            }
            'c' | 'u' => {
                if !self.once(delivery, (lsn, ordinal, 'w'), &brief) {
                    return;
                }
                let Some(row) = after else {
                    return self.problems.push(format!("{brief}: no row"));
                };
                let named = header(record, "rowcast.unchanged").unwrap_or("[]");
                let named: BTreeSet<String> = serde_json::from_str(named).unwrap_or_default();
                let missing = table.columns().filter(|column| !row.contains_key(*column));
                for column in missing.filter(|column| !named.contains(*column)) {
                    self.problems.push(format!("{brief}: {column} is left out without a word"));
                }
                let key = key_of(table, &row);
                // What an insert leaves out was moved here.
                let moved = if op == 'c' { named } else { BTreeSet::new() };
                if op == 'c' {
                    self.rows.remove(&key);
                }
                self.write(delivery, &key, row, moved, &brief);
            }
            'd' => {
                if self.once(delivery, (lsn, ordinal, 'd'), &brief) {
                    let row = before.unwrap_or_default();
                    self.rows.remove(&key_of(table, &row));
                }
            }
            other => self.problems.push(format!("{brief}: the operation {other:?}")),
        }
    }

    /// Whether a change is seen for the first time.
    fn once(&mut self, delivery: Delivery, at: (String, String, char), brief: &str) -> bool {
        if self.changes.insert(at) {
            return true;
        }
        if delivery == Delivery::ExactlyOnce {
            self.problems.push(format!("{brief}: the change was published before"));
        }
        false
    }

    fn write(
        &mut self,
        delivery: Delivery,
        key: &str,
        row: Row,
        moved: BTreeSet<String>,
        brief: &str,
    ) {
        let told = self.rows.entry(key.to_owned()).or_default();
        let version = |row: &Row| row.get("version")?.as_ref()?.parse::<i64>().ok();
        if let (Some(before), Some(after)) = (version(&told.row), version(&row))
            && delivery == Delivery::ExactlyOnce
            && after < before
        {
            self.problems.push(format!("{brief}: {key} goes back from {before} to {after}"));
        }
        told.untold.extend(moved);
        told.row.extend(row);
    }
}

/// The tables as they are, by key.
pub(crate) struct Truth(BTreeMap<&'static str, BTreeMap<String, Row>>);

impl Truth {
    /// Reads all tables at one moment.
    pub(crate) async fn read(client: &Client) -> Self {
        client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .expect("begin");
        let mut tables = BTreeMap::new();
        for table in &TABLES {
            let columns: Vec<&str> = table.columns().collect();
            let list = columns.iter().map(|column| format!("{column}::text"));
            let list = list.collect::<Vec<_>>().join(", ");
            let query = format!("SELECT {list} FROM {} WHERE {}", table.name, table.published);
            let rows = client.query(&query, &[]).await.expect("read a table");
            let row = |row: &tokio_postgres::Row| -> Row {
                let named = columns.iter().enumerate();
                named.map(|(at, column)| ((*column).to_owned(), row.get(at))).collect()
            };
            let rows = rows.iter().map(row).map(|row| (key_of(table, &row), row)).collect();
            tables.insert(table.name, rows);
        }
        client.batch_execute("COMMIT").await.expect("end");
        Self(tables)
    }

    /// Whether there are many rows that have been as they are since the seed.
    pub(crate) fn tells_of_seeded(&self) -> bool {
        self.still().values().map(Vec::len).sum::<usize>() > 1_000
    }

    /// The keys of a table's rows for which an SQL condition holds.
    pub(crate) async fn keys_where(
        client: &Client,
        table: &Table,
        condition: &str,
    ) -> BTreeSet<String> {
        let columns: Vec<&str> = key_columns(table).to_vec();
        let list = columns.iter().map(|column| format!("{column}::text"));
        let list = list.collect::<Vec<_>>().join(", ");
        let (name, published) = (table.name, table.published);
        let query = format!("SELECT {list} FROM {name} WHERE ({published}) AND ({condition}\n)");
        let rows = client.query(&query, &[]).await.expect("read a table");
        let key = |row: &tokio_postgres::Row| {
            let named = columns.iter().enumerate();
            let row = named.map(|(at, column)| ((*column).to_owned(), row.get(at))).collect();
            key_of(table, &row)
        };
        rows.iter().map(key).collect()
    }

    /// The keys of the rows that have been as they are since the seed.
    pub(crate) fn still(&self) -> BTreeMap<&'static str, Vec<String>> {
        let is_still = |row: &Row, table: &Table| {
            let version = row["version"].as_deref() == Some("0");
            let body = row["body"].as_deref().is_some_and(|body| body.starts_with('b'));
            // The load begins its texts with a digit.
            let tagged = table.key.is_empty().then(|| row["tag"].as_ref().map_or(0, String::len));
            version && body && tagged.is_none_or(|length| length < 7)
        };
        let keys = |table: &Table| {
            let rows = self.0[table.name].iter().filter(|(_, row)| is_still(row, table));
            rows.map(|(key, _)| key.clone()).collect()
        };
        TABLES.iter().map(|table| (table.name, keys(table))).collect()
    }
}

/// What tells rows apart.
const fn key_columns(table: &Table) -> &'static [&'static str] {
    if table.key.is_empty() { &["tag"] } else { table.key }
}

/// The key's values, or the tag.
fn key_of(table: &Table, row: &Row) -> String {
    let values = key_columns(table).iter().map(|column| row.get(*column).cloned().flatten());
    values.map(|value| value.unwrap_or_else(|| "?".to_owned())).collect::<Vec<_>>().join("/")
}

/// The row in an event, its values as Postgres writes them.
fn row_of(value: &Value) -> Option<Row> {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(is) => Some(is.to_string()),
        other => Some(other.to_string()),
    };
    let row = value.as_object()?;
    Some(row.iter().map(|(column, value)| (column.clone(), text(value))).collect())
}

fn header<'a>(record: &'a OwnedRecord, name: &str) -> Option<&'a str> {
    let (_, value) = record.headers.iter().find(|(header, _)| header == name)?;
    std::str::from_utf8(value.as_deref()?).ok()
}
