//! A load of mixed transactions, which goes on while servers come and go.
//!
//! Several writers work on the same keys of four tables, in transactions over some of them: rows
//! with and without values that are too large for a row (TOAST), which most updates leave as they
//! are; key changes; deletes; thousands of rows at once; savepoints; and some that come to nothing.
//! What was committed is not counted here, for a writer whose connection breaks at its COMMIT does
//! not know: the server is asked afterwards (see `truth`).

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rowcast::lsn::Lsn;
use tokio_postgres::{Client, NoTls};

use crate::support::load::{GoOn, Load};
use crate::support::postgres::wal_end;

/// A table of the load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// Its primary key.
    pub(crate) key: &'static [&'static str],
    /// All its columns.
    pub(crate) columns: &'static [&'static str],
}

pub(crate) const TABLES: [Table; 4] = [
    Table { name: "rides", key: &["id"], columns: &["id", "version", "note"] },
    Table { name: "drivers", key: &["id"], columns: &["id", "version", "body"] },
    Table {
        name: "places",
        key: &["region", "code"],
        columns: &["region", "code", "version", "body"],
    },
    Table { name: "archive", key: &["id"], columns: &["id", "version", "body"] },
];

pub(crate) const SCHEMA: &str = "
CREATE TABLE rides (id int PRIMARY KEY, version int NOT NULL, note text);
CREATE TABLE drivers (id bigint PRIMARY KEY, version int NOT NULL, body text);
ALTER TABLE drivers ALTER body SET STORAGE EXTERNAL;
CREATE TABLE places (region int, code text, version int NOT NULL, body text,
    PRIMARY KEY (region, code));
ALTER TABLE places ALTER body SET STORAGE EXTERNAL;
CREATE TABLE archive (id int PRIMARY KEY, version int NOT NULL, body text);
ALTER TABLE archive ALTER body SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
";

/// The table whose topics these are.
pub(crate) fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

const WRITERS: u64 = 3;
const KEYS: i32 = 60;
/// Rows of the transactions that are large, a range a writer.
const BULK: i32 = 2_000;
/// Milliseconds between two transactions of a writer: enough to keep everybody busy, and little
/// enough that a busy machine is not choked.
const PACE: std::ops::Range<u64> = 20..120;

/// Starts writing. The seed gives the same statements again; who comes first, and what a broken
/// connection cuts off, differs.
pub(crate) fn start(url: &str, seed: u64) -> Load {
    let mut load = Load::default();
    for writer in 0..WRITERS {
        let rng = StdRng::seed_from_u64(seed ^ writer.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let number = i32::try_from(writer).expect("few writers");
        let url = url.to_owned();
        load.add(|go_on| Writer { url, number, rng, go_on }.write());
    }
    load
}

/// Commits one row more, behind all that the load has committed. Returns the end of the WAL before.
pub(crate) async fn commit_last(client: &Client) -> Lsn {
    let before = wal_end(client).await;
    client.batch_execute("INSERT INTO rides VALUES (-1, 1, 'last')").await.expect("write");
    before
}

struct Writer {
    url: String,
    number: i32,
    rng: StdRng,
    go_on: GoOn,
}

impl Writer {
    async fn write(mut self) -> u64 {
        let mut committed = 0;
        while self.go_on.is_wanted() {
            let Ok((client, connection)) = tokio_postgres::connect(&self.url, NoTls).await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let connection = tokio::spawn(connection);
            while self.go_on.is_wanted() && !client.is_closed() {
                let script = self.transaction();
                match client.batch_execute(&script).await {
                    Ok(()) => committed += 1,
                    // A key that another has taken, a deadlock, or the server's end.
                    Err(_) => drop(client.batch_execute("ROLLBACK").await),
                }
                let pause = self.rng.random_range(PACE);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            connection.abort();
        }
        committed
    }

    /// The statements of the next transaction.
    fn transaction(&mut self) -> String {
        let mut script = String::from("BEGIN;");
        if self.rng.random_bool(0.01) {
            script += &self.bulk();
        }
        for _ in 0..self.rng.random_range(1..10) {
            let statement = self.statement();
            match self.rng.random_range(0..20) {
                0 => script += &format!("SAVEPOINT s;{statement}RELEASE s;"),
                1 => script += &format!("SAVEPOINT s;{statement}ROLLBACK TO s;"),
                _ => script += &statement,
            }
        }
        script += if self.rng.random_bool(0.05) { "ROLLBACK;" } else { "COMMIT;" };
        script
    }

    fn statement(&mut self) -> String {
        let id = self.rng.random_range(0..KEYS);
        let region = id % 3;
        let table = ["rides", "drivers", "places", "archive"][self.rng.random_range(0..4)];
        let place = match table {
            "places" => format!("region = {region} AND code = 'c{id}'"),
            _ => format!("id = {id}"),
        };
        match self.rng.random_range(0..12) {
            0..5 => {
                let text = self.text(table == "rides");
                let key =
                    if table == "places" { format!("{region},'c{id}'") } else { id.to_string() };
                format!("INSERT INTO {table} VALUES ({key},1,{text}) ON CONFLICT DO NOTHING;")
            }
            5..8 => format!("UPDATE {table} SET version = version + 1 WHERE {place};"),
            8 => {
                let column = if table == "rides" { "note" } else { "body" };
                let text = self.text(table == "rides");
                format!(
                    "UPDATE {table} SET version = version + 1, {column} = {text} WHERE {place};"
                )
            }
            9 => {
                let to = self.rng.random_range(0..KEYS);
                let (set, free) = match table {
                    "places" => {
                        (format!("code = 'c{to}'"), format!("region = {region} AND code = 'c{to}'"))
                    }
                    _ => (format!("id = {to}"), format!("id = {to}")),
                };
                format!(
                    "UPDATE {table} SET {set}, version = version + 1 WHERE {place} \
                    AND NOT EXISTS (SELECT FROM {table} WHERE {free});"
                )
            }
            _ => format!("DELETE FROM {table} WHERE {place};"),
        }
    }

    /// A text as SQL writes it: short, or so long that it does not fit into its row.
    fn text(&mut self, short: bool) -> String {
        if self.rng.random_bool(0.05) {
            return "NULL".to_owned();
        }
        let long = !short && self.rng.random_bool(0.7);
        let count =
            if long { self.rng.random_range(2_500..9_000) } else { self.rng.random_range(0..60) };
        let letter = self.rng.random_range('a'..='z');
        // Quotes and backslashes, as rows have them.
        format!(
            "'{}''s \\ \"{}\"'",
            self.rng.random_range(0..10_000),
            letter.to_string().repeat(count)
        )
    }

    /// Many rows at once, each time the same.
    fn bulk(&mut self) -> String {
        let first = 1_000_000 + self.number * BULK;
        let last = first + self.rng.random_range(200..BULK);
        match self.rng.random_range(0..4) {
            0 => format!("DELETE FROM rides WHERE id BETWEEN {first} AND {last};"),
            _ => format!(
                "INSERT INTO rides SELECT n, 1, 'many' FROM generate_series({first}, {last}) n \
                ON CONFLICT (id) DO UPDATE SET version = rides.version + 1;"
            ),
        }
    }
}

/// The rows of a table as JSON texts, by the JSON text of their key.
pub(crate) async fn rows(
    client: &Client,
    table: &Table,
) -> Vec<(serde_json::Value, serde_json::Value)> {
    let query = format!("SELECT to_jsonb(t)::text FROM {} t", table.name);
    let rows = client.query(&query, &[]).await.expect("read the table");
    let parse = |row: &tokio_postgres::Row| -> (serde_json::Value, serde_json::Value) {
        let row: serde_json::Value =
            serde_json::from_str(&row.get::<_, String>(0)).expect("Postgres' own JSON");
        (table.key_of(&row), row)
    };
    rows.iter().map(parse).collect()
}

impl Table {
    /// The key's columns of a row, as an object.
    pub(crate) fn key_of(&self, row: &serde_json::Value) -> serde_json::Value {
        self.key.iter().map(|&column| (column.to_owned(), row[column].clone())).collect()
    }
}
