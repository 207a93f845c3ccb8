//! Renames as they come: tables, columns and schemas are renamed and moved at random, in the middle of
//! transactions, between looks and while nothing runs, and whatever was hidden at the start is in no
//! topic at the end. `CHAOS_SEED` repeats a run.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_postgres::Client;

use super::{LOOKS, no_secret};
use crate::faults::{start_again, stop};
use crate::support::bridge::Bridge;
use crate::support::kafka::Brokers;
use crate::support::postgres::for_oldest_and_newest;
use crate::support::{PATIENCE, seed, unique};

const STEPS: usize = 60;

/// The settings: some names hide a column, some a table, some nothing; one schema is not captured.
const CONFIG: &str = "tables = [\"public.*\", \"moved.*\"]\nexclude_tables = [\"*.hidden_*\"]\n\
    [tables.\"public.cards\"]\nexclude_columns = [\"word\"]\n\
    [tables.\"*.masked\"]\nmask = { word = 3 }\n\
    [tables.\"moved.listed\"]\ncolumns = [\"id\", \"note\"]\n";

/// What tables may be called. The first four are there at the start, and hide what is secret.
const NAMES: &[(&str, &str)] = &[
    ("public", "cards"),
    ("public", "masked"),
    ("moved", "listed"),
    ("public", "hidden_a"),
    ("public", "open"),
    ("public", "a b"),
    ("moved", "cards"),
    ("moved", "masked"),
    ("moved", "open"),
    ("away", "cards"),
    ("away", "open"),
    ("moved", "hidden_b"),
];

/// A table as it is called now.
struct Table {
    name: usize,
    /// The secret column's name.
    word: &'static str,
}

impl Table {
    fn sql(&self) -> String {
        let (schema, name) = NAMES[self.name];
        format!("\"{schema}\".\"{name}\"")
    }

    fn insert(&self, id: usize) -> String {
        format!(
            "INSERT INTO {0} (id, note, {1}) VALUES ({id}, {2}, 'secret-{id}'); \
             UPDATE {0} SET {1} = 'secret-again-{id}' WHERE id = {id}; ",
            self.sql(),
            self.word,
            // All of one that is excluded is secret.
            if self.word.starts_with("all") { "'secret'" } else { "'open'" },
        )
    }

    /// Statements that call it otherwise.
    fn rename(&mut self, random: &mut StdRng, taken: &[usize]) -> String {
        if random.random_ratio(1, 4) {
            let words = match self.word.starts_with("all") {
                true => ["all_word", "all_verb"],
                false => ["word", "verb"],
            };
            let word = words[random.random_range(0..2)];
            let before = std::mem::replace(&mut self.word, word);
            return match before == word {
                true => String::new(),
                false => format!("ALTER TABLE {} RENAME {before} TO {word}; ", self.sql()),
            };
        }
        let name = random.random_range(0..NAMES.len());
        if taken.contains(&name) {
            return String::new();
        }
        let (before, sql) = (NAMES[self.name], self.sql());
        self.name = name;
        let (schema, table) = NAMES[name];
        // By a name that nobody else has on the way.
        let on_the_way = format!("on_the_way_{}", random.random_range(0..1_000_000));
        let mut statements = format!("ALTER TABLE {sql} RENAME TO {on_the_way}; ");
        statements +=
            &format!("ALTER TABLE \"{}\".{on_the_way} SET SCHEMA \"{schema}\"; ", before.0);
        statements + &format!("ALTER TABLE \"{schema}\".{on_the_way} RENAME TO \"{table}\"; ")
    }
}

async fn make(client: &Client) -> Vec<Table> {
    let words = ["word", "word", "word", "all_word"];
    let tables: Vec<Table> =
        words.iter().zip(0..).map(|(word, name)| Table { name, word }).collect();
    let mut sql =
        "CREATE SCHEMA moved; CREATE SCHEMA away; CREATE TABLE marks (id int PRIMARY KEY); "
            .to_owned();
    for table in &tables {
        sql += &format!(
            "CREATE TABLE {} (id int PRIMARY KEY, note text, {} text); ",
            table.sql(),
            table.word
        );
        sql += &format!("ALTER TABLE {} REPLICA IDENTITY FULL; ", table.sql());
        sql += &table.insert(0);
    }
    client.batch_execute(&sql).await.expect("make tables");
    tables
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_called_whatever_nothing_that_was_hidden_is_in_any_topic() {
    let brokers = Brokers::any();
    for_oldest_and_newest(async |server| {
        let seed = seed();
        println!("CHAOS_SEED={seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let database = server.database().await;
        let client = database.client().await;
        let mut tables = make(&client).await;
        let name = unique("generated");
        let bootstrap = brokers.bootstrap();
        let config = format!("{LOOKS}{CONFIG}");
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &bootstrap, &config, PATIENCE);
        let mut is_running = true;
        for step in 1..=STEPS {
            let at = random.random_range(0..tables.len());
            let taken: Vec<usize> = tables.iter().map(|table| table.name).collect();
            let table = &mut tables[at];
            let mut sql = String::new();
            if random.random() {
                sql += &table.insert(2 * step);
            }
            sql += &table.rename(&mut random, &taken);
            sql += &table.insert(2 * step + 1);
            if random.random() {
                sql = format!("BEGIN; {sql} COMMIT");
            }
            client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            match random.random_range(0..20) {
                0 if is_running => {
                    bridge.kill();
                    is_running = false;
                }
                1 if is_running => {
                    stop(&mut bridge);
                    is_running = false;
                }
                2..=5 if is_running => bridge.hang_up(),
                6..=8 if is_running => drop(no_secret(&client, &bootstrap, &name).await),
                13.. if !is_running => {
                    start_again(&mut bridge);
                    is_running = true;
                }
                _ => {}
            }
        }
        if !is_running {
            start_again(&mut bridge);
        }
        let records = no_secret(&client, &bootstrap, &name).await;
        assert!(records.len() > 1, "nothing at all is published");
        stop(&mut bridge);
    })
    .await;
}
