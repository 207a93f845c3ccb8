//! Writers that go on while the bridge comes and goes: several tables in a transaction, key changes,
//! deletes, savepoints, what comes to nothing; and one whose transactions last for seconds, so that
//! they run while the slot is made and while tables are read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::support::postgres::connect;
use crate::tables::{HOT, TABLES, Table, Takes};

/// Milliseconds between two transactions of a writer.
const PACE: std::ops::Range<u64> = 5..60;

/// Writers that go on until they are told to stop.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    writers: JoinSet<u64>,
}

impl Load {
    /// Starts writing; the seed gives the same statements again.
    pub(crate) fn start(url: &str, seed: u64) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let tags = Arc::new(AtomicU64::new(1_000_000));
        let mut writers = JoinSet::new();
        for number in 0..3_u64 {
            let writer = Writer {
                random: StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
                is_slow: number == 2,
                tags: Arc::clone(&tags),
                stop: Arc::clone(&stop),
            };
            writers.spawn(writer.write(url.to_owned()));
        }
        Self { stop, writers }
    }

    /// Stops, and gives the number of transactions that were committed.
    pub(crate) async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut committed = 0;
        while let Some(writer) = self.writers.join_next().await {
            committed += writer.expect("a writer does not panic");
        }
        committed
    }
}

struct Writer {
    random: StdRng,
    is_slow: bool,
    tags: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Writer {
    async fn write(mut self, url: String) -> u64 {
        let client = connect(&url).await;
        let mut committed = 0;
        while !self.stop.load(Ordering::Relaxed) {
            match self.transaction(&client).await {
                Ok(is_committed) => committed += u64::from(is_committed),
                // A key that another has taken, or a deadlock.
                Err(_) => client.batch_execute("ROLLBACK").await.expect("the server lives"),
            }
            tokio::time::sleep(Duration::from_millis(self.random.random_range(PACE))).await;
        }
        committed
    }

    async fn transaction(&mut self, client: &Client) -> Result<bool, tokio_postgres::Error> {
        client.batch_execute("BEGIN; SET LOCAL deadlock_timeout = '50ms'").await?;
        for _ in 0..self.random.random_range(1..8) {
            let statement = self.statement();
            let statement = match self.random.random_range(0..15) {
                0 => format!("SAVEPOINT s;{statement}RELEASE s;"),
                1 => format!("SAVEPOINT s;{statement}ROLLBACK TO s;"),
                _ => statement,
            };
            client.batch_execute(&statement).await?;
            if self.is_slow {
                let pause = self.random.random_range(0..400);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        let commits = !self.random.random_bool(0.05);
        client.batch_execute(if commits { "COMMIT" } else { "ROLLBACK" }).await?;
        Ok(commits)
    }

    fn statement(&mut self) -> String {
        let written: Vec<&Table> =
            TABLES.iter().filter(|table| table.takes != Takes::Nothing).collect();
        let table = written[self.random.random_range(0..written.len())];
        let body = self.body();
        match (table.key.is_empty(), table.takes) {
            (true, Takes::All) => self.without_key(table, &body),
            (true, _) => self.insert_tag(table, &body),
            (false, _) => self.with_key(table, &body),
        }
    }

    fn with_key(&mut self, table: &Table, body: &str) -> String {
        let name = table.name;
        let number = self.random.random_range(1..=HOT).to_string();
        let place = table.place_of(&number);
        match self.random.random_range(0..12) {
            0..4 => format!(
                "INSERT INTO {name} ({}, version, body) VALUES ({}, 0, {body})
                 ON CONFLICT DO NOTHING;",
                table.key.join(", "),
                table.key_of(&number)
            ),
            4..7 => format!("UPDATE {name} SET version = version + 1 WHERE {place};"),
            7 => {
                format!("UPDATE {name} SET version = version + 1, body = {body} WHERE {place};")
            }
            8 => {
                let to = self.random.random_range(1..=HOT).to_string();
                format!(
                    "UPDATE {name} SET {}, version = version + 1 WHERE {place}
                     AND NOT EXISTS (SELECT FROM {name} WHERE {});",
                    table.set_key(&to),
                    table.place_of(&to)
                )
            }
            9 => format!("UPDATE {name} SET version = version + 1, body = NULL WHERE {place};"),
            _ => format!("DELETE FROM {name} WHERE {place};"),
        }
    }

    /// Rows are told apart by a tag that none shares with another, so that a row that is told twice
    /// is seen.
    fn without_key(&mut self, table: &Table, body: &str) -> String {
        let name = table.name;
        let tag = self.random.random_range(1..=HOT);
        match self.random.random_range(0..6) {
            0 | 1 => self.insert_tag(table, body),
            2 | 3 => format!("UPDATE {name} SET version = version + 1 WHERE tag = {tag};"),
            4 => {
                format!("UPDATE {name} SET version = version + 1, body = {body} WHERE tag = {tag};")
            }
            _ => format!("DELETE FROM {name} WHERE tag = {tag};"),
        }
    }

    fn insert_tag(&self, table: &Table, body: &str) -> String {
        let tag = self.tags.fetch_add(1, Ordering::Relaxed);
        format!("INSERT INTO {} (tag, version, body) VALUES ({tag}, 0, {body});", table.name)
    }

    /// A text as SQL writes it; some are too large for their row.
    fn body(&mut self) -> String {
        let count = match self.random.random_bool(0.3) {
            true => self.random.random_range(2_500..6_000),
            false => self.random.random_range(0..60),
        };
        let letter = self.random.random_range('a'..='z').to_string();
        format!("'{}''s \\ {}'", self.random.random_range(0..10_000), letter.repeat(count))
    }
}
