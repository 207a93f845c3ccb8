//! A load whose events can be checked without knowing what the server made of it.
//!
//! Every row counts its own versions: an insert starts at 1, each update adds 1. So the events of a
//! key, read in order, must say c(1) u(2) u(3) d c(1) ... without a gap; that is no loss, no
//! repeat and commit order in one. Several writers work on the same keys at once, in transactions
//! over both tables, and the number of changes is what the server says it did.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_postgres::Client;

use crate::support::consume::OwnedRecord;
use crate::support::postgres::TestDatabase;

/// The two tables.
pub(crate) const TABLES: [&str; 2] = ["rides", "drivers"];

const KEYS: i32 = 400;
const WRITERS: u64 = 4;

/// Changes that the server made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) inserts: u64,
    pub(crate) updates: u64,
    pub(crate) deletes: u64,
}

impl Written {
    /// Records that these become: a delete is followed by its tombstone.
    pub(crate) fn records(self) -> usize {
        let records = self.inserts + self.updates + 2 * self.deletes;
        usize::try_from(records).expect("few enough to count")
    }

    fn add(&mut self, other: Self) {
        self.inserts += other.inserts;
        self.updates += other.updates;
        self.deletes += other.deletes;
    }
}

/// Makes the tables.
pub(crate) async fn create_tables(client: &Client) {
    for table in TABLES {
        let create =
            format!("CREATE TABLE {table} (id int PRIMARY KEY, version int NOT NULL, note text)");
        client.batch_execute(&create).await.expect("make a table");
    }
}

/// Makes at least `changes` changes, by several writers at once. The seed is printed, and gives
/// the same statements again; who of the writers comes first, the server decides.
pub(crate) async fn write(database: &TestDatabase, changes: u64, seed: u64) -> Written {
    println!("seed of the load: {seed}");
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let client = database.client().await;
        let rng = StdRng::seed_from_u64(seed ^ writer.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        writers.push(tokio::spawn(write_alone(client, changes / WRITERS, rng)));
    }
    let mut written = Written::default();
    for writer in writers {
        written.add(writer.await.expect("a writer does not panic"));
    }
    written
}

async fn write_alone(client: Client, changes: u64, mut rng: StdRng) -> Written {
    let mut written = Written::default();
    while written.inserts + written.updates + written.deletes < changes {
        let mut places: Vec<(usize, i32)> = (0..rng.random_range(1..20))
            .map(|_| (rng.random_range(0..TABLES.len()), rng.random_range(0..KEYS)))
            .collect();
        // Rows are locked in one order by all, so that no two writers wait for each other.
        places.sort_unstable();
        client.batch_execute("BEGIN").await.expect("begin");
        let mut done = Written::default();
        for (table, id) in places {
            let table = TABLES[table];
            match rng.random_range(0..10) {
                0..4 => {
                    let note = "n".repeat(rng.random_range(0..200));
                    let insert = format!(
                        "INSERT INTO {table} VALUES ($1, 1, $2) ON CONFLICT (id) DO NOTHING"
                    );
                    done.inserts += client.execute(&insert, &[&id, &note]).await.expect("insert");
                }
                4..9 => {
                    let update = format!("UPDATE {table} SET version = version + 1 WHERE id = $1");
                    done.updates += client.execute(&update, &[&id]).await.expect("update");
                }
                _ => {
                    let delete = format!("DELETE FROM {table} WHERE id = $1");
                    done.deletes += client.execute(&delete, &[&id]).await.expect("delete");
                }
            }
        }
        // Some transactions come to nothing, and nothing of them may be seen.
        if rng.random_range(0..20) == 0 {
            client.batch_execute("ROLLBACK").await.expect("roll back");
        } else {
            client.batch_execute("COMMIT").await.expect("commit");
            written.add(done);
        }
    }
    written
}

/// What a consumer makes of a table's events: the rows by key.
pub(crate) type Rows = BTreeMap<i64, (i64, Option<String>)>;

/// Applies the events of one topic, in order, and fails at the first that does not follow.
pub(crate) fn replay<'a>(records: impl Iterator<Item = &'a OwnedRecord>) -> Rows {
    let mut rows = Rows::new();
    let mut awaits_tombstone: Option<String> = None;
    for record in records {
        let key = record.key_text().expect("every record has a key").to_owned();
        let Some(event) = record.json() else {
            assert_eq!(awaits_tombstone.take(), Some(key), "a tombstone follows its delete");
            continue;
        };
        assert_eq!(awaits_tombstone, None, "nothing comes between a delete and its tombstone");
        let key_json: serde_json::Value = serde_json::from_str(&key).expect("a key in JSON");
        let id = key_json["id"].as_i64().expect("the key column");
        let after = &event["after"];
        let version = after["version"].as_i64();
        let note = after["note"].as_str().map(str::to_owned);
        let place = format!("{}[{}]@{}", record.topic, record.partition, record.offset);
        let before = rows.get(&id).map(|(version, _)| *version);
        match event["op"].as_str() {
            Some("c") => {
                assert_eq!((before, version), (None, Some(1)), "insert of {id} at {place}");
                rows.insert(id, (1, note));
            }
            Some("r") => {
                // Read again after a crash, it is what it was.
                assert!(before.is_none() || before == version, "row {id} at {place}");
                rows.insert(id, (version.expect("a version"), note));
            }
            Some("u") => {
                let expected = before.map(|version| version + 1);
                assert_eq!(version, expected, "update of {id} at {place}");
                rows.insert(id, (expected.expect("just compared"), note));
            }
            Some("d") => {
                assert!(
                    rows.remove(&id).is_some(),
                    "delete of {id}, which is not there, at {place}"
                );
                awaits_tombstone = Some(key);
            }
            other => panic!("op {other:?} at {place}"),
        }
    }
    assert_eq!(awaits_tombstone, None, "the last delete has its tombstone");
    rows
}

/// The rows as they are in the database.
pub(crate) async fn rows_of(client: &Client, table: &str) -> Rows {
    let query = format!("SELECT id, version, note FROM {table}");
    let rows = client.query(&query, &[]).await.expect("read the table");
    rows.iter()
        .map(|row| {
            let (id, version): (i32, i32) = (row.get(0), row.get(1));
            (i64::from(id), (i64::from(version), row.get(2)))
        })
        .collect()
}

/// Longest time a load and its events may take on a busy machine.
pub(crate) const LOAD_LIMIT: Duration = Duration::from_secs(120);
