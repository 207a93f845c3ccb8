//! Keys and old rows by replica identity, on every server.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::insert_only::until_insert_only;
use crate::scenario::{Scenario, short};
use crate::support::postgres::{PostgresServer, for_each_postgres};

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
async fn each_replica_identity_gives_the_old_rows_it_has() {
    for_each_postgres(async |server| {
        let setup = "CREATE TABLE by_default (id int PRIMARY KEY, code text NOT NULL, n int);
             CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL UNIQUE, n int);
             ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key;
             CREATE TABLE whole (id int PRIMARY KEY, code text NOT NULL, n int);
             ALTER TABLE whole REPLICA IDENTITY FULL;
             CREATE TABLE nothing (id int PRIMARY KEY, code text NOT NULL, n int);
             ALTER TABLE nothing REPLICA IDENTITY NOTHING";
        let tables = ["public.by_default", "public.by_index", "public.whole", "public.nothing"];
        let scenario = Scenario::start(server, "", setup, &tables).await;
        for table in ["by_default", "by_index", "whole"] {
            scenario
                .sql(&format!(
                    "INSERT INTO {table} VALUES (1, 'a', 0); UPDATE {table} SET n = 1;
                     UPDATE {table} SET id = 2; UPDATE {table} SET code = 'b'; DELETE FROM {table}"
                ))
                .await;
        }
        // Published with its updates, it would take none.
        scenario.sql("INSERT INTO nothing VALUES (1, 'a', 0); UPDATE nothing SET n = 1").await;

        let row = |id: i32, code: &str, n: i32| json!({"id": id, "code": code, "n": n});
        let (one, two) = (json!({"id": 1}), json!({"id": 2}));
        assert_eq!(
            short(&scenario.events("public.by_default").await),
            json!([
                [one, "c", null, row(1, "a", 0)],
                [one, "u", null, row(1, "a", 1)],
                [one, "d", one, null],
                [one, null],
                [two, "c", null, row(2, "a", 1)],
                [two, "u", null, row(2, "b", 1)],
                [two, "d", two, null],
                [two, null],
            ])
        );
        let (a, b) = (json!({"code": "a"}), json!({"code": "b"}));
        assert_eq!(
            short(&scenario.events("public.by_index").await),
            json!([
                [a, "c", null, row(1, "a", 0)],
                [a, "u", null, row(1, "a", 1)],
                [a, "u", null, row(2, "a", 1)],
                [a, "d", a, null],
                [a, null],
                [b, "c", null, row(2, "b", 1)],
                [b, "d", b, null],
                [b, null],
            ])
        );
        assert_eq!(
            short(&scenario.events("public.whole").await),
            json!([
                [one, "c", null, row(1, "a", 0)],
                [one, "u", row(1, "a", 0), row(1, "a", 1)],
                [one, "d", row(1, "a", 1), null],
                [one, null],
                [two, "c", null, row(2, "a", 1)],
                [two, "u", row(2, "a", 1), row(2, "b", 1)],
                [two, "d", row(2, "b", 1), null],
                [two, null],
            ])
        );
        let events = scenario.events("public.nothing").await;
        assert_eq!(short(&events), json!([[one, "c", null, row(1, "a", 0)]]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_links_its_two_halves_by_headers() {
    let setup = "CREATE TABLE t (b int, a int, n int, PRIMARY KEY (a, b))";
    let server = PostgresServer::shared();
    let scenario = Scenario::start(server, "", setup, &["public.t"]).await;
    scenario.sql("INSERT INTO t VALUES (1, 2, 0); UPDATE t SET b = 7").await;
    let events = scenario.events("public.t").await;
    assert_eq!(events[1].header("__debezium.newkey"), Some(r#"{"a":2,"b":7}"#));
    assert_eq!(events[2].header("__debezium.newkey"), Some(r#"{"a":2,"b":7}"#));
    assert_eq!(events[3].header("__debezium.oldkey"), Some(r#"{"a":2,"b":1}"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_primary_key_the_first_usable_unique_index_keys_rows() {
    for_each_postgres(async |server| {
        let setup = "CREATE TABLE t (a int, b int NOT NULL, c int NOT NULL, d int);
             CREATE UNIQUE INDEX i1 ON t (a);
             CREATE UNIQUE INDEX i2 ON t ((b + 1));
             CREATE UNIQUE INDEX i3 ON t (d) WHERE d > 0;
             CREATE UNIQUE INDEX i4 ON t (c, b) INCLUDE (d);
             CREATE UNIQUE INDEX i5 ON t (b);
             ALTER TABLE t REPLICA IDENTITY FULL;
             CREATE TABLE keyless (a int);
             ALTER TABLE keyless REPLICA IDENTITY FULL";
        let tables = ["public.t", "public.keyless"];
        let scenario = Scenario::start(server, "", setup, &tables).await;
        scenario
            .sql(
                "INSERT INTO t VALUES (null, 1, 2, 3); UPDATE t SET d = 4; DELETE FROM t;
                 INSERT INTO keyless VALUES (1); UPDATE keyless SET a = 2; DELETE FROM keyless",
            )
            .await;
        let key = json!({"c": 2, "b": 1});
        let row = |d: i32| json!({"a": null, "b": 1, "c": 2, "d": d});
        assert_eq!(
            short(&scenario.events("public.t").await),
            json!([
                [key, "c", null, row(3)],
                [key, "u", row(3), row(4)],
                [key, "d", row(4), null],
                [key, null],
            ])
        );
        // Without a key there is nothing a tombstone could stand for.
        assert_eq!(
            short(&scenario.events("public.keyless").await),
            json!([
                [null, "c", null, {"a": 1}],
                [null, "u", {"a": 1}, {"a": 2}],
                [null, "d", {"a": 2}, null],
            ])
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_key_is_followed_where_the_identity_carries_it() {
    let setup = "CREATE TABLE rides (id int PRIMARY KEY, zone int NOT NULL, n int);
         ALTER TABLE rides REPLICA IDENTITY FULL";
    let config = "[tables.\"public.rides\"]\nkey = [\"zone\"]\n";
    let server = PostgresServer::shared();
    let scenario = Scenario::start(server, config, setup, &["public.rides"]).await;
    scenario
        .sql(
            "INSERT INTO rides VALUES (1, 7, 0); UPDATE rides SET id = 2;
             UPDATE rides SET zone = 8; DELETE FROM rides",
        )
        .await;
    let (seven, eight) = (json!({"zone": 7}), json!({"zone": 8}));
    let row = |id: i32, zone: i32| json!({"id": id, "zone": zone, "n": 0});
    assert_eq!(
        short(&scenario.events("public.rides").await),
        json!([
            [seven, "c", null, row(1, 7)],
            [seven, "u", row(1, 7), row(2, 7)],
            [seven, "d", row(2, 7), null],
            [seven, null],
            [eight, "c", null, row(2, 8)],
            [eight, "d", row(2, 8), null],
            [eight, null],
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_name_that_postgres_takes_is_a_name_in_events() {
    for_each_postgres(async |server| {
        let setup = r#"CREATE TABLE "Ri""des" ("ID" int, id int, "É t\ é" text, "a.b" int,
                 " " int, PRIMARY KEY ("ID", "id", "É t\ é"));
             CREATE TABLE rides (id int PRIMARY KEY); CREATE TABLE "RIDES" (id int PRIMARY KEY);
             CREATE SCHEMA "O.k"; CREATE TABLE "O.k"."日本" ("名" int PRIMARY KEY)"#;
        let tables = ["public.Ri_des", "public.rides", "public.RIDES", "O.k.__"];
        let scenario = Scenario::start(server, "", setup, &tables).await;
        scenario
            .sql(
                r#"INSERT INTO "Ri""des" VALUES (1, 2, 'x', 3, 4); UPDATE "Ri""des" SET id = 5;
                   INSERT INTO rides VALUES (1); INSERT INTO "RIDES" VALUES (2);
                   INSERT INTO "O.k"."日本" VALUES (3)"#,
            )
            .await;
        let key = |id: i32| json!({"ID": 1, "id": id, "É t\\ é": "x"});
        let row = |id: i32| json!({"ID": 1, "id": id, "É t\\ é": "x", "a.b": 3, " ": 4});
        let events = scenario.events("public.Ri_des").await;
        assert_eq!(
            short(&events),
            json!([
                [key(2), "c", null, row(2)],
                [key(2), "d", key(2), null],
                [key(2), null],
                [key(5), "c", null, row(5)],
            ])
        );
        assert_eq!(events[0].value.as_ref().unwrap()["source"]["table"], "Ri\"des");
        for (table, id) in [("public.rides", json!({"id": 1})), ("public.RIDES", json!({"id": 2}))]
        {
            let events = scenario.events(table).await;
            assert_eq!(short(&events), json!([[id, "c", null, id]]));
        }
        let events = scenario.events("O.k.__").await;
        assert_eq!(short(&events), json!([[{"名": 3}, "c", null, {"名": 3}]]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_columns_is_an_empty_object() {
    for_each_postgres(async |server| {
        let setup = "CREATE TABLE bare (); ALTER TABLE bare REPLICA IDENTITY FULL";
        let scenario = Scenario::start(server, "", setup, &["public.bare"]).await;
        scenario.sql("INSERT INTO bare DEFAULT VALUES").await;
        scenario.sql("ALTER TABLE bare ADD n int; UPDATE bare SET n = 1").await;
        scenario.sql("ALTER TABLE bare DROP n; DELETE FROM bare").await;
        assert_eq!(
            short(&scenario.events("public.bare").await),
            json!([
                [null, "c", null, {}],
                [null, "u", {"n": null}, {"n": 1}],
                [null, "d", {}, null],
            ])
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_are_left_out_and_never_half_a_key() {
    for_each_postgres(async |server| {
        let setup = "CREATE TABLE priced (id int PRIMARY KEY, fare int,
                 twice int GENERATED ALWAYS AS (fare * 2) STORED);
             CREATE TABLE half (id int, twice int GENERATED ALWAYS AS (id % 2) STORED NOT NULL,
                 PRIMARY KEY (id, twice))";
        let tables = ["public.priced", "public.half"];
        let scenario = Scenario::start(server, "", setup, &tables).await;
        scenario.sql("INSERT INTO priced VALUES (1, 2); UPDATE priced SET fare = 3").await;
        scenario.sql("INSERT INTO half VALUES (1)").await;
        assert_eq!(
            short(&scenario.events("public.priced").await),
            json!([
                [{"id": 1}, "c", null, {"id": 1, "fare": 2}],
                [{"id": 1}, "u", null, {"id": 1, "fare": 3}],
            ])
        );
        assert_eq!(
            short(&scenario.events("public.half").await),
            json!([[null, "c", null, {"id": 1}]])
        );
        assert!(scenario.log().contains("generated columns that are not published"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_that_the_publication_has_are_columns_like_any_other() {
    let server = PostgresServer::shared();
    if server.major() < 18 {
        return;
    }
    let setup = "CREATE TABLE half (id int, twice int GENERATED ALWAYS AS (id * 2) STORED NOT NULL,
         PRIMARY KEY (id, twice))";
    let mut scenario = Scenario::start(server, "", setup, &["public.half"]).await;
    scenario.stop();
    until_insert_only(&scenario, &["half"]).await;
    let name = scenario.slot();
    scenario
        .sql(&format!("ALTER PUBLICATION {name} SET (publish_generated_columns = stored)"))
        .await;
    scenario.run();
    until_insert_only(&scenario, &[]).await;
    scenario.sql("INSERT INTO half VALUES (1); UPDATE half SET id = 3; DELETE FROM half").await;
    let key = |id: i32| json!({"id": id, "twice": id * 2});
    assert_eq!(
        short(&scenario.events("public.half").await),
        json!([
            [key(1), "c", null, key(1)],
            [key(1), "d", key(1), null],
            [key(1), null],
            [key(3), "c", null, key(3)],
            [key(3), "d", key(3), null],
            [key(3), null],
        ])
    );
}

/// The lines of a script or a capture of Debezium's that speak of one table.
fn of_debezium(file: &str, table: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debezium").join(file);
    let text = fs::read_to_string(path).expect("a file of the comparison with Debezium");
    let lines = text.lines().filter(|line| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == table)
    });
    lines.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fillers_of_deleted_rows_are_those_that_debezium_wrote() {
    let server = PostgresServer::shared();
    let script = of_debezium("sql/21_identity.sql", "fillers_defaults");
    let (create, write) = script.split_first().expect("the table is made first");
    let setup = format!("CREATE TYPE mood AS ENUM ('calm', 'glad'); {create}");
    let config = "[format]\ntypes = \"debezium\"\n";
    let scenario = Scenario::start(server, config, &setup, &["public.fillers_defaults"]).await;
    for statement in write {
        scenario.sql(statement).await;
    }
    let events = scenario.events("public.fillers_defaults").await;
    let before = |value: &Value| value["before"].clone();
    let ours = events[1].value.as_ref().map(before);
    let theirs = of_debezium("golden/plain.jsonl", "fillers_defaults");
    let theirs: Vec<Value> =
        theirs.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(ours, Some(before(&theirs[1]["value"])));
}
