//! Tables that inherit: what is published of one is never published of another, and an UPDATE of a
//! parent, which changes rows of its children too, works whatever is captured.

use serde_json::json;

use crate::scenario::{Scenario, short};
use crate::support::postgres::for_each_postgres;
use crate::support::{PATIENCE, eventually};

/// A parent, a child without a key, a child that is left out, a grandchild in another schema, and one
/// with two parents.
const TREE: &str = "
    CREATE SCHEMA other;
    CREATE TABLE parent (id int PRIMARY KEY, v text);
    CREATE TABLE child (x text) INHERITS (parent);
    CREATE TABLE secret_child (ssn text, PRIMARY KEY (id)) INHERITS (parent);
    CREATE TABLE other.grandchild (PRIMARY KEY (id)) INHERITS (child);
    CREATE TABLE aunt (a int PRIMARY KEY);
    CREATE TABLE nephew (PRIMARY KEY (id)) INHERITS (parent, aunt);
    INSERT INTO parent VALUES (1, 'a'); INSERT INTO child VALUES (2, 'b', 'x');
    INSERT INTO secret_child VALUES (3, 'c', '078-05-1120');
    INSERT INTO other.grandchild VALUES (4, 'd', 'y'); INSERT INTO nephew VALUES (5, 'e', 6)";

const TOPICS: [&str; 6] = [
    "public.parent",
    "public.child",
    "public.secret_child",
    "other.grandchild",
    "public.aunt",
    "public.nephew",
];

/// The ids of rows that came, in order.
async fn ids(scenario: &Scenario, table: &str) -> Vec<i64> {
    let events = scenario.events(table).await;
    let values = events.iter().filter_map(|event| event.value.as_ref());
    values.filter_map(|value| value["after"]["id"].as_i64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_is_published_without_its_children_and_takes_every_update() {
    for_each_postgres(async |server| {
        let config = "[postgres]\ntables = [\"public.parent\"]\n";
        let scenario = Scenario::start(server, config, TREE, &TOPICS).await;
        scenario.sql("UPDATE parent SET v = 'P'").await;
        scenario.sql("UPDATE child SET v = 'C'; DELETE FROM other.grandchild").await;
        assert_eq!(ids(&scenario, "public.parent").await, [1, 1]);
        for table in &TOPICS[1..] {
            assert_eq!(scenario.events(table).await, [], "{table}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_excluded_stays_in_the_database_though_it_inherits() {
    for_each_postgres(async |server| {
        let config = "[postgres]\nexclude_tables = [\"*.secret_*\", \"public.aunt\"]\n";
        let scenario = Scenario::start(server, config, TREE, &TOPICS).await;
        scenario.sql("UPDATE parent SET v = 'P'; UPDATE aunt SET a = a + 1").await;
        assert_eq!(ids(&scenario, "public.parent").await, [1, 1]);
        assert_eq!(ids(&scenario, "other.grandchild").await, [4, 4]);
        assert_eq!(ids(&scenario, "public.nephew").await, [5, 5, 5]);
        for table in ["public.secret_child", "public.aunt"] {
            assert_eq!(scenario.events(table).await, [], "{table}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_made_over_a_published_child_is_published_too() {
    for_each_postgres(async |server| {
        let mut config = "[postgres]\ndiscover_interval = \"200ms\"\n".to_owned();
        if server.major() >= 15 {
            config += "[tables.\"public.kid\"]\nexclude_columns = [\"ssn\"]\n";
        }
        let setup = "CREATE TABLE kid (id int PRIMARY KEY, v text, ssn text)";
        let topics = ["public.kid", "public.elder"];
        let scenario = Scenario::start(server, &config, setup, &topics).await;
        scenario
            .sql(
                "CREATE TABLE elder (id int PRIMARY KEY, v text);
                 ALTER TABLE kid INHERIT elder; INSERT INTO elder VALUES (7, 'old')",
            )
            .await;
        eventually(PATIENCE, "the parent's row to come", async || {
            (ids(&scenario, "public.elder").await == [7]).then_some(())
        })
        .await;
        scenario.sql("INSERT INTO kid VALUES (8, 'new'); UPDATE elder SET v = 'all'").await;
        assert_eq!(ids(&scenario, "public.elder").await, [7, 7]);
        assert_eq!(ids(&scenario, "public.kid").await, [8, 8]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_came_into_a_publication_with_their_parent_leave_it_at_the_next_start() {
    for_each_postgres(async |server| {
        let config = "[postgres]\ntables = [\"public.parent\"]\n";
        let mut scenario = Scenario::start(server, config, TREE, &TOPICS).await;
        scenario.stop();
        let publication = scenario.slot();
        // As it was made before ONLY was written.
        scenario
            .sql(&format!(
                "ALTER PUBLICATION {publication} DROP TABLE ONLY parent;
                 ALTER PUBLICATION {publication} ADD TABLE parent"
            ))
            .await;
        scenario.run();
        let published = "SELECT tablename::text FROM pg_publication_tables";
        let rows = scenario.client.query(published, &[]).await.expect("ask");
        let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(names, ["parent"], "log:\n{}", scenario.log());
        scenario.sql("UPDATE parent SET v = 'P'").await;
        let events = scenario.events("public.parent").await;
        let key = json!({"id": 1});
        let last = json!([key, "u", null, {"id": 1, "v": "P"}]);
        assert_eq!(short(&events)[1], last);
    })
    .await;
}
