//! Partitioned tables, published as their root or partition by partition, on every server.

use serde_json::{Value, json};

use crate::scenario::{Event, Scenario, short};
use crate::support::postgres::{PostgresServer, for_each_postgres};
use crate::support::{PATIENCE, eventually};

const TABLES: &str = "
    CREATE TABLE days (id int, day date, n int, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
    CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
    CREATE TABLE days_2 (n int, day date NOT NULL, id int NOT NULL, PRIMARY KEY (day, id));
    ALTER TABLE days ATTACH PARTITION days_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')";

const WRITE: &str = "
    INSERT INTO days VALUES (1, '2026-01-05', 0), (2, '2026-02-05', 0);
    UPDATE days SET n = 1;
    UPDATE days SET day = '2026-02-06' WHERE id = 1;
    DELETE FROM days WHERE id = 2";

const TOPICS: [&str; 4] = ["public.days", "public.days_1", "public.days_2", "public.days_3"];

fn key(id: i32, day: &str) -> Value {
    json!({"day": format!("2026-{day}"), "id": id})
}

fn row(id: i32, day: &str, n: i32) -> Value {
    json!({"id": id, "day": format!("2026-{day}"), "n": n})
}

fn table_of(event: &Event) -> &Value {
    &event.value.as_ref().expect("no tombstone")["source"]["table"]
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_their_root_by_default_whatever_is_attached_and_detached() {
    for_each_postgres(async |server| {
        // What is detached would else be found as a new table, sooner or later.
        let config = "[postgres]\ntables = [\"public.days\"]\ndiscover_interval = \"200ms\"\n";
        let scenario = Scenario::start(server, config, TABLES, &TOPICS).await;
        scenario.sql(WRITE).await;
        scenario
            .sql(
                "CREATE TABLE days_3 (LIKE days INCLUDING ALL);
                 INSERT INTO days_3 VALUES (3, '2026-03-05', 0);
                 ALTER TABLE days ATTACH PARTITION days_3
                     FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
                 ALTER TABLE days DETACH PARTITION days_1",
            )
            .await;
        // The row that it brought is read.
        eventually(PATIENCE, "its row", async || {
            scenario.log().contains("snapshot done").then_some(())
        })
        .await;
        scenario.sql("UPDATE days_3 SET n = 1").await;
        scenario.sql("INSERT INTO days_1 VALUES (4, '2026-01-06', 0)").await;
        scenario.sql("INSERT INTO days VALUES (5, '2026-03-06', 0)").await;
        let events = scenario.events("public.days").await;
        assert_eq!(
            short(&events),
            json!([
                [key(1, "01-05"), "c", null, row(1, "01-05", 0)],
                [key(2, "02-05"), "c", null, row(2, "02-05", 0)],
                [key(1, "01-05"), "u", null, row(1, "01-05", 1)],
                [key(2, "02-05"), "u", null, row(2, "02-05", 1)],
                // A row that moves to another partition is a delete there and an insert here.
                [key(1, "01-05"), "d", key(1, "01-05"), null],
                [key(1, "01-05"), null],
                [key(1, "02-06"), "c", null, row(1, "02-06", 1)],
                [key(2, "02-05"), "d", key(2, "02-05"), null],
                [key(2, "02-05"), null],
                [key(3, "03-05"), "r", null, row(3, "03-05", 0)],
                [key(3, "03-05"), "u", null, row(3, "03-05", 1)],
                [key(5, "03-06"), "c", null, row(5, "03-06", 0)],
            ])
        );
        assert_eq!(table_of(&events[0]), "days");
        for topic in &TOPICS[1..] {
            assert_eq!(scenario.events(topic).await, [], "{topic}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_tables_of_their_own_where_that_is_wanted() {
    for_each_postgres(async |server| {
        let config = "[postgres]\npublish_via_partition_root = false\n";
        let scenario = Scenario::start(server, config, TABLES, &TOPICS).await;
        scenario.sql(WRITE).await;
        assert_eq!(scenario.events("public.days").await, []);
        let one = scenario.events("public.days_1").await;
        assert_eq!(
            short(&one),
            json!([
                [key(1, "01-05"), "c", null, row(1, "01-05", 0)],
                [key(1, "01-05"), "u", null, row(1, "01-05", 1)],
                [key(1, "01-05"), "d", key(1, "01-05"), null],
                [key(1, "01-05"), null],
            ])
        );
        assert_eq!(table_of(&one[0]), "days_1");
        let two = scenario.events("public.days_2").await;
        assert_eq!(two.len(), 5);
        assert_eq!(two[0].short(), json!([key(2, "02-05"), "c", null, row(2, "02-05", 0)]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publication_follows_the_setting_at_the_next_start() {
    let server = PostgresServer::shared();
    let mut scenario = Scenario::start(server, "", TABLES, &TOPICS).await;
    scenario.stop();
    let publication = "SELECT pubname::text, pubviaroot FROM pg_publication WHERE pubupdate";
    let found = scenario.client.query_one(publication, &[]).await.expect("a publication");
    let name: String = found.get(0);
    assert!(found.get::<_, bool>(1));
    scenario
        .sql(&format!("ALTER PUBLICATION {name} SET (publish_via_partition_root = false)"))
        .await;
    scenario.run();
    let found = scenario.client.query_one(publication, &[]).await.expect("a publication");
    assert!(found.get::<_, bool>(1), "log:\n{}", scenario.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_hold_what_the_partition_tells_and_no_invented_nulls() {
    for_each_postgres(async |server| {
        let setup = format!("{TABLES}; ALTER TABLE days REPLICA IDENTITY FULL");
        let scenario = Scenario::start(server, "", &setup, &TOPICS).await;
        scenario.sql("INSERT INTO days VALUES (1, '2026-01-05', 0); DELETE FROM days").await;
        let events = scenario.events("public.days").await;
        let key = key(1, "01-05");
        assert_eq!(events[1].short(), json!([key, "d", key, null]));
        assert!(scenario.log().contains("not on all partitions"), "log:\n{}", scenario.log());

        let alter = ["days_1", "days_2"].map(|t| format!("ALTER TABLE {t} REPLICA IDENTITY FULL;"));
        let setup = format!("{setup}; {}", alter.concat());
        let scenario = Scenario::start(server, "", &setup, &TOPICS).await;
        scenario.sql("INSERT INTO days VALUES (1, '2026-01-05', 0); DELETE FROM days").await;
        let events = scenario.events("public.days").await;
        assert_eq!(events[1].short(), json!([key, "d", row(1, "01-05", 0), null]));
    })
    .await;
}
