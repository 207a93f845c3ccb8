//! What was committed, in commit order, as Postgres itself tells it.
//!
//! A slot of its own, made before the load and read after it by `test_decoding`, which shares
//! nothing with pgoutput but the server's decoding. Its rows become the records that must be in
//! Kafka: what an event holds, what follows it, and its place among the changes of its transaction.

use serde_json::{Map, Value};
use tokio_postgres::Client;

use crate::load::{Table, table};

pub(crate) const SLOT: &str = "truth";

/// Makes the slot.
pub(crate) async fn begin(client: &Client) {
    let make = "SELECT FROM pg_create_logical_replication_slot($1, 'test_decoding')";
    client.execute(make, &[&SLOT]).await.expect("make the slot");
}

/// A record that must be there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expected {
    pub(crate) place: Place,
    pub(crate) table: &'static str,
    pub(crate) key: Value,
    /// What the record tells.
    pub(crate) event: Event,
}

/// Where a record belongs. The order is the order in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) xid: u64,
    /// Counts the changes of the transaction, from 1.
    pub(crate) ordinal: u64,
    pub(crate) part: Part,
}

/// A change may be several records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Delete,
    Tombstone,
    Write,
}

/// What a record tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// `c` or `u`, with the row; columns that the server did not send are left out.
    Write {
        op: &'static str,
        after: Map<String, Value>,
        unchanged: Vec<String>,
    },
    Delete,
    Tombstone,
}

/// All that was committed since [`begin`].
pub(crate) async fn tell(client: &Client) -> Vec<Expected> {
    let read = "SELECT data FROM pg_logical_slot_peek_changes($1, NULL, NULL,
        'include-timestamp', 'off', 'skip-empty-xacts', 'on')";
    let rows = client.query(read, &[&SLOT]).await.expect("read the slot");
    expected(rows.iter().map(|row| row.get(0)))
}

/// What the lines of `test_decoding` demand.
pub(crate) fn expected<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Expected> {
    let mut all = Vec::new();
    let (mut xid, mut ordinal) = (0, 0);
    for line in lines {
        if let Some(begun) = line.strip_prefix("BEGIN ") {
            (xid, ordinal) = (begun.parse().expect("a transaction's ID"), 0);
        } else if let Some(change) = line.strip_prefix("table public.") {
            ordinal += 1;
            demand(change, xid, ordinal, &mut all);
        } else {
            assert!(line.starts_with("COMMIT "), "a line of test_decoding: {line}");
        }
    }
    all
}

fn demand(change: &str, xid: u64, ordinal: u64, all: &mut Vec<Expected>) {
    let (name, rest) = change.split_once(": ").expect("a table's name");
    let (op, rest) = rest.split_once(": ").expect("an operation");
    let table = table(name).unwrap_or_else(|| panic!("a table of the load: {name}"));
    let mut demand = |part, key: &Value, event| {
        let place = Place { xid, ordinal, part };
        all.push(Expected { place, table: table.name, key: key.clone(), event });
    };
    let mut delete = |key: &Value| {
        demand(Part::Delete, key, Event::Delete);
        demand(Part::Tombstone, key, Event::Tombstone);
    };
    match op {
        "DELETE" => delete(&table.key_of(&Value::Object(row(table, rest).0))),
        "INSERT" | "UPDATE" => {
            let (old, new) = match rest.strip_prefix("old-key: ") {
                Some(rest) => {
                    let (old, new) = rest.split_once(" new-tuple: ").expect("a new row");
                    (Some(row(table, old).0), new)
                }
                None => (None, rest),
            };
            let (mut after, mut unchanged) = row(table, new);
            // Under REPLICA IDENTITY FULL the old row has what the new one was sent without.
            if let Some(old) = &old {
                unchanged.retain(|column| !old.contains_key(column));
                for (column, value) in old {
                    after.entry(column.as_str()).or_insert_with(|| value.clone());
                }
            }
            let key = table.key_of(&Value::Object(after.clone()));
            let old_key = old.map(|old| table.key_of(&Value::Object(old)));
            let moved = old_key.filter(|old| *old != key);
            if let Some(old) = &moved {
                delete(old);
            }
            let op = if op == "INSERT" || moved.is_some() { "c" } else { "u" };
            demand(Part::Write, &key, Event::Write { op, after, unchanged });
        }
        _ => panic!("an operation of the load: {op}"),
    }
}

/// Columns and values of a row, and the columns whose values the server did not send.
fn row(table: &Table, text: &str) -> (Map<String, Value>, Vec<String>) {
    let mut row = Map::new();
    let mut unchanged = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (column, after) = rest.split_once('[').expect("a column's type");
        assert!(table.columns.contains(&column), "a column of {}: {column}", table.name);
        let (_, after) = after.split_once("]:").expect("a column's value");
        let (value, after) = value(after);
        match value {
            Some(value) => drop(row.insert(column.to_owned(), value)),
            None => unchanged.push(column.to_owned()),
        }
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    (row, unchanged)
}

/// The value at the beginning of the text, `None` if it was not sent, and what comes after.
fn value(text: &str) -> (Option<Value>, &str) {
    let Some(quoted) = text.strip_prefix('\'') else {
        let (word, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
        let value = match word {
            "null" => Some(Value::Null),
            "unchanged-toast-datum" => None,
            number => Some(number.parse::<i64>().expect("a number").into()),
        };
        return (value, rest);
    };
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('\'').expect("the end of a text");
        value += before;
        match after.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None => return (Some(Value::String(value)), after),
        }
    }
}
