//! Partitions that come and go: after each step the topic, read by its keys, holds what the table holds,
//! and of what Postgres tells nobody the log does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::faults::{start_again, stop};
use crate::scenario::{Event, Scenario};
use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, at_least, consume};
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{
    PostgresServer, TestDatabase, for_every_postgres, for_oldest_and_newest,
};
use crate::support::{PATIENCE, eventually, seed, unique};

/// Looks often, and takes no table but the root.
const CONFIG: &str = "[postgres]\ntables = [\"public.days\"]\ndiscover_interval = \"200ms\"\n\
                      skipped_operations = []\n";

const DAYS: &str = "CREATE TABLE days (id int, day int, n int, PRIMARY KEY (day, id))
                        PARTITION BY LIST (day);
                    CREATE TABLE days_1 PARTITION OF days FOR VALUES IN (1)";

/// Rows by day and ID.
type Rows = BTreeMap<(i64, i64), i64>;

/// What a reader of the topic has, who keeps the last of each key.
fn replayed(events: &[Event]) -> Rows {
    let mut rows = Rows::new();
    for event in events {
        let Some(value) = &event.value else { continue };
        let key = event.key.as_ref().expect("a key");
        let number = |of: &Value, name: &str| of[name].as_i64().expect(name);
        let at = (number(key, "day"), number(key, "id"));
        match value["op"].as_str().expect("an operation") {
            "d" => drop(rows.remove(&at)),
            _ => drop(rows.insert(at, number(&value["after"], "n"))),
        }
        assert_eq!(value["source"]["table"], "days", "{value}");
    }
    rows
}

/// The rows of a table.
async fn rows(scenario: &Scenario, table: &str) -> Rows {
    let query = format!("SELECT day, id, n FROM {table}");
    let rows = scenario.client.query(&query, &[]).await.expect(&query);
    let number = |row: &tokio_postgres::Row, at: usize| i64::from(row.get::<_, i32>(at));
    rows.iter().map(|row| ((number(row, 0), number(row, 1)), number(row, 2))).collect()
}

/// Waits until the topic holds these rows.
async fn until_replayed(scenario: &Scenario, expected: &Rows, what: &str) {
    let mut last = Rows::new();
    let holds = async || {
        last = replayed(&scenario.events("public.days").await);
        (last == *expected).then_some(())
    };
    let held = tokio::time::timeout(PATIENCE, eventually(PATIENCE * 2, "rows", holds)).await;
    let log = scenario.log();
    assert!(held.is_ok(), "{what}\nexpected {expected:?}\nfound    {last:?}\nlog:\n{log}");
}

async fn until_like_the_table(scenario: &Scenario, what: &str) {
    until_replayed(scenario, &rows(scenario, "days").await, what).await;
}

async fn logged(scenario: &Scenario, what: &[&str]) -> String {
    eventually(PATIENCE, &what.join(" "), async || {
        let log = scenario.log();
        let has_all = |line: &&str| what.iter().all(|part| line.contains(part));
        log.lines().find(has_all).map(str::to_owned)
    })
    .await
}

fn operations(events: &[Event], day: i64) -> Vec<&str> {
    let of_day = events.iter().filter_map(|event| event.value.as_ref());
    let of_day = of_day.filter(|value| value["after"]["day"] == day);
    of_day.map(|value| value["op"].as_str().expect("an operation")).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
async fn the_rows_that_a_partition_brings_are_read_and_those_of_a_new_one_are_not_read_again() {
    for_every_postgres(async |server| {
        let mut scenario = Scenario::start(server, CONFIG, DAYS, &["public.days"]).await;
        // As pg_partman has them: in a schema of their own. Columns in another order, one was dropped.
        scenario
            .sql(
                "CREATE SCHEMA parts;
                 CREATE TABLE parts.days_2 (gone int, n int, day int NOT NULL, id int NOT NULL);
                 ALTER TABLE parts.days_2 DROP gone;
                 INSERT INTO parts.days_2 SELECT i, 2, i FROM generate_series(1, 500) i",
            )
            .await;
        scenario
            .sql(
                "BEGIN;
                 ALTER TABLE days ATTACH PARTITION parts.days_2 FOR VALUES IN (2);
                 INSERT INTO days VALUES (501, 2, 7);
                 COMMIT;
                 BEGIN;
                 CREATE TABLE days_3 PARTITION OF days FOR VALUES IN (3);
                 INSERT INTO days SELECT i, 3, i FROM generate_series(1, 5) i;
                 COMMIT",
            )
            .await;
        // Sub-partitioned, with its rows, made and attached in one transaction.
        scenario
            .sql(
                "BEGIN;
                 CREATE TABLE days_4 (id int, day int, n int, PRIMARY KEY (day, id))
                     PARTITION BY RANGE (id);
                 CREATE TABLE days_4_low PARTITION OF days_4 FOR VALUES FROM (0) TO (3);
                 CREATE TABLE days_4_high PARTITION OF days_4 DEFAULT;
                 INSERT INTO days_4 SELECT i, 4, i FROM generate_series(1, 5) i;
                 ALTER TABLE days ATTACH PARTITION days_4 FOR VALUES IN (4);
                 COMMIT",
            )
            .await;
        until_like_the_table(&scenario, "attached").await;
        let events = scenario.events("public.days").await;
        assert!(operations(&events, 2).contains(&"r"));
        assert_eq!(operations(&events, 3), ["c"; 5], "they came through the stream");
        assert_eq!(operations(&events, 4), ["r"; 5]);

        // While nobody runs; and what is written to it afterwards is the table's.
        scenario.stop();
        scenario
            .sql(
                "CREATE TABLE days_5 (LIKE days INCLUDING ALL);
                 INSERT INTO days_5 VALUES (1, 5, 1), (2, 5, 2);
                 ALTER TABLE days ATTACH PARTITION days_5 FOR VALUES IN (5);
                 CREATE TABLE days_6 PARTITION OF days FOR VALUES IN (6);
                 INSERT INTO days VALUES (1, 6, 1)",
            )
            .await;
        scenario.run();
        scenario
            .sql("UPDATE days SET n = n + 1 WHERE day >= 5; DELETE FROM days_5 WHERE id = 2")
            .await;
        until_like_the_table(&scenario, "attached while nobody ran").await;
        let events = scenario.events("public.days").await;
        assert_eq!(operations(&events, 6), ["c", "u"]);
        // What was handled is not again.
        let handled = scenario.log().matches("a partition was attached").count();
        scenario.stop();
        scenario.run();
        scenario.sql("INSERT INTO days VALUES (9, 1, 9)").await;
        until_like_the_table(&scenario, "started again").await;
        assert_eq!(scenario.log().matches("a partition was attached").count(), handled);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_partition_is_read_as_itself_where_partitions_are_tables() {
    let config = format!("{CONFIG}publish_via_partition_root = false\n");
    let topics = ["public.days", "public.days_1", "public.days_2"];
    let scenario = Scenario::start(PostgresServer::shared(), &config, DAYS, &topics).await;
    scenario
        .sql(
            "CREATE TABLE days_2 (LIKE days INCLUDING ALL); INSERT INTO days_2 VALUES (1, 2, 3);
             ALTER TABLE days ATTACH PARTITION days_2 FOR VALUES IN (2); TRUNCATE days_1",
        )
        .await;
    let read = eventually(PATIENCE, "its row", async || {
        let events = scenario.events("public.days_2").await;
        events.first().map(Event::short)
    })
    .await;
    let row = json!({"id": 1, "day": 2, "n": 3});
    assert_eq!(read, json!([{"day": 2, "id": 1}, "r", null, row]));
    assert_eq!(scenario.events("public.days").await, []);
    let of_one = scenario.events("public.days_1").await;
    assert_eq!(of_one[0].value.as_ref().expect("an event")["op"], "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_key_come_with_their_partition_too() {
    let setup = "CREATE TABLE days (id int, day int, n int) PARTITION BY LIST (day);
                 ALTER TABLE days REPLICA IDENTITY FULL;
                 CREATE TABLE days_1 PARTITION OF days FOR VALUES IN (1);
                 ALTER TABLE days_1 REPLICA IDENTITY FULL; INSERT INTO days VALUES (1, 1, 1)";
    let scenario = Scenario::start(PostgresServer::shared(), CONFIG, setup, &["public.days"]).await;
    scenario
        .sql(
            "CREATE TABLE days_2 (LIKE days); ALTER TABLE days_2 REPLICA IDENTITY FULL;
             INSERT INTO days_2 VALUES (1, 2, 1), (1, 2, 1);
             ALTER TABLE days ATTACH PARTITION days_2 FOR VALUES IN (2);
             INSERT INTO days VALUES (5, 2, 5)",
        )
        .await;
    let ids = eventually(PATIENCE, "all rows", async || {
        let events = scenario.events("public.days").await;
        let after =
            events.iter().map(|event| event.value.as_ref().expect("a row")["after"].clone());
        let of_two = after.filter(|after| after["day"] == 2);
        let mut ids: Vec<i64> = of_two.map(|after| after["id"].as_i64().expect("an ID")).collect();
        ids.sort_unstable();
        (ids.len() >= 3).then_some(ids)
    })
    .await;
    assert!(ids == [1, 1, 5] || ids == [1, 1, 5, 5], "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_the_table_without_row_changes_is_told() {
    for_oldest_and_newest(async |server| {
        let setup = format!(
            "{DAYS}; CREATE TABLE days_2 PARTITION OF days FOR VALUES IN (2);
             CREATE TABLE days_3 PARTITION OF days FOR VALUES IN (3);
             CREATE TABLE days_4 PARTITION OF days FOR VALUES IN (4);
             INSERT INTO days SELECT i, 1 + i % 4, i FROM generate_series(1, 400) i; ANALYZE"
        );
        let scenario = Scenario::start(server, CONFIG, &setup, &["public.days"]).await;
        until_like_the_table(&scenario, "the first snapshot").await;
        let whole = rows(&scenario, "days").await;
        // Looked at once, as they are.
        scenario
            .sql("CREATE TABLE days_5 (LIKE days INCLUDING ALL); INSERT INTO days_5 VALUES (1, 5, 1)")
            .await;
        scenario.sql("ALTER TABLE days ATTACH PARTITION days_5 FOR VALUES IN (5)").await;
        logged(&scenario, &["a partition was attached", "days_5"]).await;
        scenario.sql("ALTER TABLE days DETACH PARTITION days_2 CONCURRENTLY").await;
        scenario.sql("DROP TABLE days_3").await;
        scenario.sql("TRUNCATE days_4").await;
        for (partition, what) in
            [("days_2", "detached"), ("days_3", "dropped"), ("days_4", "truncated")]
        {
            let what = format!("a partition was {what}");
            let line = logged(&scenario, &[&what, &format!("partition=public.{partition}")]).await;
            for part in
                [" WARN ", "table=public.days", "rows=100", "rowcast snapshot 'public.days'"]
            {
                assert!(line.contains(part), "{part} in {line}");
            }
        }
        // No event says that the whole table was emptied.
        let events = scenario.events("public.days").await;
        assert!(events.iter().flat_map(|event| &event.value).all(|value| value["op"] != "t"));
        let mut kept = whole;
        kept.insert((5, 1), 1);
        until_replayed(&scenario, &kept, "the topic keeps all").await;
        // The table as a whole is another matter.
        scenario.sql("TRUNCATE days").await;
        let t = async || {
            let events = scenario.events("public.days").await;
            events
                .iter()
                .flat_map(|event| &event.value)
                .any(|value| value["op"] == "t")
                .then_some(())
        };
        eventually(PATIENCE, "a truncate", t).await;
    })
    .await;
}

/// A partition's life, and what is done to it.
struct Tree<'a> {
    scenario: &'a mut Scenario,
    rng: StdRng,
    /// By day: the partition's name, and whether it is attached.
    parts: BTreeMap<i64, (String, bool)>,
    names: u32,
    /// Rows that were in the table and left it without an event.
    left: Rows,
    /// Days whose partition was attached since the last check. One that goes again before anybody looks
    /// is not read, as the manual says: whether its rows are in the topic is chance.
    attached: BTreeSet<i64>,
}

impl Tree<'_> {
    fn insert(&mut self, into: &str, day: i64) -> String {
        let (from, n) = (self.rng.random_range(1..8), self.rng.random_range(0..1000));
        format!(
            "INSERT INTO {into} (id, day, n) SELECT i, {day}, {n} + i
             FROM generate_series({from}, {from} + 5) i
             ON CONFLICT (day, id) DO UPDATE SET n = excluded.n; "
        )
    }

    /// Does something with the partition of a day, in SQL; returns what.
    async fn step(&mut self) -> String {
        let day = self.rng.random_range(1..=5);
        let mut sql = String::new();
        match self.parts.get(&day).cloned() {
            None => {
                self.names += 1;
                let name = format!("days_{day}_{}", self.names);
                let (before, after) = (self.insert(&name, day), self.insert("days", day));
                let bound = format!("FOR VALUES IN ({day})");
                let attach = format!("ALTER TABLE days ATTACH PARTITION {name} {bound}; ");
                let of = "(n int, id int, day int, PRIMARY KEY (day, id))";
                let made = [
                    format!("CREATE TABLE {name} PARTITION OF days {bound}; {after}"),
                    format!("CREATE TABLE {name} {of}; {before} {attach} {after}"),
                    format!("CREATE TABLE {name} {of}; COMMIT; {before} COMMIT; {attach}"),
                    format!(
                        "CREATE TABLE {name} {of} PARTITION BY RANGE (id);
                         CREATE TABLE {name}_low PARTITION OF {name} FOR VALUES FROM (0) TO (7);
                         CREATE TABLE {name}_high PARTITION OF {name} DEFAULT;
                         {before} {attach} {after}"
                    ),
                ];
                sql += made.choose(&mut self.rng).expect("some");
                self.attached.insert(day);
                self.parts.insert(day, (name, true));
            }
            Some((name, false)) => {
                sql += &self.insert(&name, day);
                write!(sql, "ALTER TABLE days ATTACH PARTITION {name} FOR VALUES IN ({day}); ")
                    .expect("a string");
                self.attached.insert(day);
                self.parts.insert(day, (name, true));
            }
            Some((name, true)) => {
                let stays = self.attached.contains(&day);
                let what = self.rng.random_range(0..if stays { 3 } else { 6 });
                if what >= 3 {
                    self.left.extend(rows(self.scenario, &name).await);
                }
                match what {
                    0 => sql += &self.insert("days", day),
                    1 => sql += &format!("UPDATE days SET n = n + 1 WHERE day = {day}"),
                    2 => sql += &format!("DELETE FROM days WHERE day = {day} AND id < 5"),
                    3 => sql += &format!("TRUNCATE {name}"),
                    4 => {
                        sql += &format!("ALTER TABLE days DETACH PARTITION {name}");
                        self.parts.insert(day, (name, false));
                    }
                    _ => {
                        sql += &format!("DROP TABLE {name}");
                        self.parts.remove(&day);
                    }
                }
            }
        }
        self.scenario.sql(&sql).await;
        // What came again speaks for itself, and what is deleted then is told.
        let table = rows(self.scenario, "days").await;
        self.left.retain(|key, _| !table.contains_key(key));
        sql
    }

    async fn check(&mut self, what: &str) {
        self.attached.clear();
        let table = rows(self.scenario, "days").await;
        let expected: Rows = self.left.clone().into_iter().chain(table).collect();
        until_replayed(self.scenario, &expected, what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_partitions_the_topic_follows_the_table() {
    const STEPS: u32 = 14;
    let seed = seed();
    for_oldest_and_newest(async |server| {
        let mut scenario = Scenario::start(server, CONFIG, DAYS, &["public.days"]).await;
        let parts = BTreeMap::from([(1, ("days_1".to_owned(), true))]);
        let rng = StdRng::seed_from_u64(seed);
        let (scenario, left) = (&mut scenario, Rows::new());
        let mut tree = Tree { scenario, rng, parts, names: 0, left, attached: BTreeSet::new() };
        let mut done = format!("PostgreSQL {}, CHAOS_SEED={seed}\n", server.major());
        for step in 0..STEPS {
            let is_away = step % 4 == 3;
            if is_away {
                tree.scenario.stop();
            }
            // Several at once, so that one look finds more than one. PostgreSQL 14 leaves out what is
            // deleted between an ATTACH and the next look.
            let most = if server.major() < 15 { 1 } else { 2 };
            for _ in 0..tree.rng.random_range(1..=most) {
                let sql = tree.step().await;
                writeln!(done, "{step}{}: {sql}", if is_away { " (stopped)" } else { "" })
                    .expect("a string");
            }
            if is_away {
                tree.scenario.run();
            }
            tree.check(&done).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_detach_a_new_topic_and_a_snapshot_bring_topic_and_table_together() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let setup = format!(
        "{DAYS}; CREATE TABLE days_2 PARTITION OF days FOR VALUES IN (2);
         INSERT INTO days VALUES (1, 1, 1), (1, 2, 2)"
    );
    client.batch_execute(&setup).await.expect("make tables");
    let (name, brokers) = (unique("together"), kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, CONFIG, PATIENCE);
    let topic = format!("{name}.public.days");
    consume(&brokers, &[&topic], at_least(2), PATIENCE).await;
    client.batch_execute("ALTER TABLE days DETACH PARTITION days_2").await.expect("detach");
    eventually(PATIENCE, "the warning", async || {
        bridge.log().contains("a partition was detached").then_some(())
    })
    .await;
    // As the warning and the documentation say.
    stop(&mut bridge);
    kafka.discard_topics(&[&topic]).await;
    start_again(&mut bridge);
    let (code, answer) = bridge
        .ask("POST", "/snapshots", "", &json!({"tables": ["public.days"]}))
        .expect("it answers");
    assert_eq!(code, 202, "{answer}");
    let records = consume(&brokers, &[&topic], at_least(1), PATIENCE).await;
    client.batch_execute("INSERT INTO days VALUES (3, 1, 3)").await.expect("insert");
    let all = consume(&brokers, &[&topic], at_least(2), PATIENCE).await;
    let ids = |records: &[OwnedRecord]| -> Vec<Value> {
        let values = records.iter().filter_map(OwnedRecord::json);
        values
            .map(|value| json!([value["op"], value["after"]["id"], value["after"]["day"]]))
            .collect()
    };
    assert_eq!(ids(&records), [json!(["r", 1, 1])], "log:\n{}", bridge.log());
    assert_eq!(ids(&all), [json!(["r", 1, 1]), json!(["c", 3, 1])], "log:\n{}", bridge.log());
    stop(&mut bridge);
}
