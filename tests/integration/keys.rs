//! Configured keys are checked against the tables before the first row: what can't key every change
//! is refused with the SQL that fixes it, and what can does so as a primary key would.

use serde_json::json;

use crate::scenario::{Scenario, short};
use crate::support::postgres::for_every_postgres;
use crate::support::{PATIENCE, eventually};

/// `[tables]` with one key a table.
fn keyed(tables: &[(&str, &str)]) -> String {
    let table =
        |(name, key): &(&str, &str)| format!("[tables.\"public.{name}\"]\nkey = [\"{key}\"]\n");
    tables.iter().map(table).collect()
}

const TABLES: &str = "
    CREATE TABLE plain (id int PRIMARY KEY, zone text NOT NULL);
    CREATE TABLE \"by Index\" (id int PRIMARY KEY, zone text NOT NULL UNIQUE);
    ALTER TABLE \"by Index\" REPLICA IDENTITY USING INDEX \"by Index_zone_key\";
    CREATE TABLE indexed (id int PRIMARY KEY, zone text NOT NULL UNIQUE);
    ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_zone_key;
    CREATE TABLE whole (id int PRIMARY KEY, zone text);
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE nothing (id int PRIMARY KEY, zone text NOT NULL);
    ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE unkeyed (id int, zone text NOT NULL);
    CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE, zone text NOT NULL);
    CREATE TABLE parts (id int PRIMARY KEY, zone text NOT NULL) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9);
    ALTER TABLE parts REPLICA IDENTITY FULL; ALTER TABLE parts_1 REPLICA IDENTITY FULL;
    CREATE TABLE mixed (id int PRIMARY KEY, zone text NOT NULL) PARTITION BY RANGE (id);
    CREATE TABLE mixed_1 PARTITION OF mixed FOR VALUES FROM (0) TO (9);
    CREATE TABLE mixed_2 PARTITION OF mixed FOR VALUES FROM (9) TO (19);
    ALTER TABLE mixed REPLICA IDENTITY FULL; ALTER TABLE mixed_1 REPLICA IDENTITY FULL;
    CREATE TABLE typo (id int PRIMARY KEY, zone text NOT NULL);
    ALTER TABLE typo REPLICA IDENTITY FULL;
    CREATE TABLE made (id int PRIMARY KEY, zone text GENERATED ALWAYS AS ('z') STORED)";

/// Each table with the column that keys it, and what is said of it: nothing where that is right.
const KEYS: [(&str, &str, Option<&str>); 11] = [
    ("plain", "zone", Some(r#"ALTER TABLE "public"."plain" REPLICA IDENTITY FULL;"#)),
    ("by Index", "id", Some(r#"ALTER TABLE "public"."by Index" REPLICA IDENTITY FULL;"#)),
    ("indexed", "zone", None),
    ("whole", "zone", None),
    ("nothing", "zone", None),
    ("unkeyed", "zone", None),
    ("deferred", "zone", None),
    ("parts", "zone", None),
    ("mixed", "zone", Some(r#"ALTER TABLE "public"."mixed_2" REPLICA IDENTITY FULL;"#)),
    ("typo", "zoen", Some(r#"write "zone""#)),
    ("made", "zone", Some("public.made")),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_can_not_key_every_change_is_refused_at_start_with_its_fix() {
    for_every_postgres(async |server| {
        let keys: Vec<(&str, &str)> = KEYS.iter().map(|(table, key, _)| (*table, *key)).collect();
        let topics = ["public.plain", "public.mixed"];
        let mut scenario = Scenario::prepare(server, &keyed(&keys), TABLES, &topics).await;
        scenario.launch();
        assert_eq!(scenario.ended(), Some(69), "log:\n{}", scenario.log());
        let log = scenario.log();
        for (table, key, said) in KEYS {
            let setting = format!("tables.\"public.{table}\".key");
            assert_eq!(log.contains(&setting), said.is_some(), "{table} by {key}: log:\n{log}");
            assert!(said.is_none_or(|said| log.contains(said)), "{table} by {key}: log:\n{log}");
        }
        // Of a partitioned table only the partition that lacks it is named.
        for (table, is_named) in [("mixed", false), ("mixed_1", false), ("mixed_2", true)] {
            let sql = format!(r#"ALTER TABLE "public"."{table}" REPLICA"#);
            assert_eq!(log.contains(&sql), is_named, "{table}: log:\n{log}");
        }
        let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
        let slots = scenario.client.query_one(slots, &[&scenario.slot()]).await.expect("count");
        assert_eq!(slots.get::<_, i64>(0), 0, "nothing is left behind");

        // Where neither updates nor deletes are published, any column that is there will do.
        let config = "[postgres]\ntables = [\"public.plain\", \"public.mixed\"]\n\
                      skipped_operations = [\"update\", \"delete\"]\n";
        let inserts = ["plain", "mixed"].map(|table| (table, "zone"));
        scenario.configure(&format!("{config}{}", keyed(&inserts)));
        scenario.run();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_key_under_full_moves_rows_as_a_primary_key_does() {
    for_every_postgres(async |server| {
        let setup = "CREATE TABLE rides (id int PRIMARY KEY, zone int);
             ALTER TABLE rides REPLICA IDENTITY FULL;
             CREATE TABLE parts (id int PRIMARY KEY, zone int NOT NULL) PARTITION BY RANGE (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9);
             ALTER TABLE parts REPLICA IDENTITY FULL; ALTER TABLE parts_1 REPLICA IDENTITY FULL;
             CREATE TABLE nothing (id int PRIMARY KEY, n int);
             ALTER TABLE nothing REPLICA IDENTITY NOTHING";
        let config = "[postgres]\ntables = [\"public.*\", \"public.nothing\"]\n";
        let config = format!("{config}{}", keyed(&[("rides", "zone"), ("parts", "zone")]));
        let tables = ["public.rides", "public.parts", "public.nothing"];
        let scenario = Scenario::start(server, &config, setup, &tables).await;
        let (one, two) = (json!({"zone": 1}), json!({"zone": 2}));
        let row = |zone: i32| json!({"id": 7, "zone": zone});
        for table in ["rides", "parts"] {
            let sql = "INSERT INTO t VALUES (7, 1); UPDATE t SET zone = 2; DELETE FROM t";
            scenario
                .sql(
                    &sql.replace(" t ", &format!(" {table} "))
                        .replace("FROM t", &format!("FROM {table}")),
                )
                .await;
            assert_eq!(
                short(&scenario.events(&format!("public.{table}")).await),
                json!([
                    [one, "c", null, row(1)],
                    [one, "d", row(1), null],
                    [one, null],
                    [two, "c", null, row(2)],
                    [two, "d", row(2), null],
                    [two, null],
                ]),
                "{table}"
            );
        }
        let log = scenario.log();
        assert!(log.contains("may be null") && log.contains("public.rides"), "log:\n{log}");

        // A table keyed by its own primary key has nothing to do with configured ones.
        scenario.sql("INSERT INTO nothing VALUES (1, 1)").await;
        assert_eq!(scenario.events("public.nothing").await.len(), 1);
        let lost = "columns of the configured key";
        assert!(!scenario.log().contains(lost), "log:\n{}", scenario.log());

        // An identity that is lost later is logged with the next row, before any delete.
        scenario
            .sql("ALTER TABLE rides REPLICA IDENTITY DEFAULT; INSERT INTO rides VALUES (8, 1)")
            .await;
        assert_eq!(scenario.events("public.rides").await.len(), 7);
        assert!(scenario.log().contains(lost), "log:\n{}", scenario.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_table_that_can_not_be_keyed_as_configured_waits_until_it_can() {
    for_every_postgres(async |server| {
        let config = "[postgres]\ndiscover_interval = \"500ms\"\n[tables.\"public.late*\"]\nkey = [\"zone\"]\n";
        let setup = "CREATE TABLE zones (id int PRIMARY KEY)";
        let tables = ["public.late", "public.late_too", "public.zones"];
        let mut scenario = Scenario::start(server, config, setup, &tables).await;
        let make = "CREATE TABLE late (id int PRIMARY KEY, zone int NOT NULL);
             INSERT INTO late VALUES (1, 7);
             CREATE TABLE late_too (id int, zone int PRIMARY KEY); INSERT INTO late_too VALUES (1, 8)";
        scenario.sql(make).await;
        eventually(PATIENCE, "the other to be read, and this one to be named", async || {
            let log = scenario.log();
            let named = log.contains("a new table is left out until it is possible");
            let read = scenario.events("public.late_too").await.len() == 1;
            (named && read).then_some(())
        })
        .await;
        let log = scenario.log();
        let fix = r#"ALTER TABLE "public"."late" REPLICA IDENTITY FULL;"#;
        assert!(log.contains(fix) || log.contains(&fix.replace('"', "\\\"")), "log:\n{log}");
        assert_eq!(scenario.events("public.late").await, []);
        let named = log.matches("a new table is left out until it is possible").count();
        assert_eq!(named, 1, "log:\n{}", scenario.log());
        // It is no reason for the next start, or a connection that was lost, to end the stream.
        scenario.stop();
        scenario.run();
        scenario.sql("INSERT INTO late_too VALUES (2, 9)").await;
        eventually(PATIENCE, "the other to stream on", async || {
            (scenario.events("public.late_too").await.len() == 2).then_some(())
        })
        .await;
        assert_eq!(scenario.events("public.late").await, []);
        scenario.sql("ALTER TABLE late REPLICA IDENTITY FULL").await;
        eventually(PATIENCE, "its row to be read", async || {
            (scenario.events("public.late").await.len() == 1).then_some(())
        })
        .await;
        let events = scenario.events("public.late").await;
        assert_eq!(events[0].key, Some(json!({"zone": 7})));
    })
    .await;
}
