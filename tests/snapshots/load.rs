//! Writers that go on while the bridge comes and goes: several tables in a transaction, key changes,
//! deletes, savepoints, what comes to nothing; and one whose transactions last for seconds, so that
//! they run while the slot is made and while tables are read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_postgres::Client;

use crate::support::load::{GoOn, Load};
use crate::support::postgres::connect;
use crate::tables::{HOT, Table, Takes};

/// Milliseconds between two transactions of a writer.
const PACE: std::ops::Range<u64> = 5..60;

/// The tables that there are to write to; more may come. Their tags go on from one load to the next.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    tables: Arc<RwLock<Vec<&'static Table>>>,
    next_tag: Arc<AtomicU64>,
}

impl Written {
    /// Of these, those that take anything.
    pub(crate) fn of(tables: impl IntoIterator<Item = &'static Table>) -> Self {
        let written =
            Self { tables: Arc::default(), next_tag: Arc::new(AtomicU64::new(1_000_000)) };
        tables.into_iter().for_each(|table| written.add(table));
        written
    }

    /// There is one more.
    pub(crate) fn add(&self, table: &'static Table) {
        if table.takes != Takes::Nothing {
            self.tables.write().expect("nobody panics with it").push(table);
        }
    }

    fn any(&self, random: &mut StdRng) -> &'static Table {
        let tables = self.tables.read().expect("nobody panics with it");
        tables[random.random_range(0..tables.len())]
    }
}

/// Starts writing; the seed gives the same statements again.
pub(crate) fn start(url: &str, seed: u64, tables: &Written) -> Load {
    let mut load = Load::default();
    for number in 0..3_u64 {
        let random = StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (tables, url, is_slow) = (tables.clone(), url.to_owned(), number == 2);
        load.add(|go_on| Writer { random, is_slow, tables, go_on }.write(url));
    }
    load
}

struct Writer {
    random: StdRng,
    is_slow: bool,
    tables: Written,
    go_on: GoOn,
}

impl Writer {
    async fn write(mut self, url: String) -> u64 {
        let client = connect(&url).await;
        let mut committed = 0;
        while self.go_on.is_wanted() {
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
        let table = self.tables.any(&mut self.random);
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

    /// Rows are distinguished by a tag that none shares with another, so that a row that comes twice
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
        let tag = self.tables.next_tag.fetch_add(1, Ordering::Relaxed);
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
