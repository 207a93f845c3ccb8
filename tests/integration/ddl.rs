//! Tables that change in the middle of the stream, on every server. Read at once, the catalog
//! agrees with the stream; read late, it has gone on, and the stream is followed all the same.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::scenario::{Event, Scenario, short};
use crate::support::bridge::Bridge;
use crate::support::consume::{at_least, consume};
use crate::support::kafka::Brokers;
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, for_each_postgres};
use crate::support::{PATIENCE, eventually, unique};

/// `after` of each event.
fn after(events: &[Event]) -> Value {
    events
        .iter()
        .map(|event| event.value.as_ref().expect("no tombstone")["after"].clone())
        .collect()
}

const SHAPES: &str = "
    INSERT INTO t VALUES (1, 1, 'x');
    ALTER TABLE t ADD c numeric(5,2) DEFAULT 1.5;
    INSERT INTO t VALUES (2, 2, 'y', 2);
    ALTER TABLE t DROP a;
    INSERT INTO t VALUES (3, '3', 3);
    ALTER TABLE t RENAME b TO \"B\";
    UPDATE t SET c = 4 WHERE id = 3;
    ALTER TABLE t ALTER \"B\" TYPE int USING 5;
    INSERT INTO t VALUES (4, 6, 7);
    DELETE FROM t WHERE id = 4;
    INSERT INTO t VALUES (5, 8, 9)";

fn shapes() -> Value {
    json!([
        [{"id": 1}, "c", null, {"id": 1, "a": 1, "b": "x"}],
        [{"id": 2}, "c", null, {"id": 2, "a": 2, "b": "y", "c": "2.00"}],
        [{"id": 3}, "c", null, {"id": 3, "b": "3", "c": "3.00"}],
        [{"id": 3}, "u", null, {"id": 3, "B": "3", "c": "4.00"}],
        [{"id": 4}, "c", null, {"id": 4, "B": 6, "c": "7.00"}],
        [{"id": 4}, "d", {"id": 4}, null],
        [{"id": 4}, null],
        [{"id": 5}, "c", null, {"id": 5, "B": 8, "c": "9.00"}],
    ])
}

const SHAPES_TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, a int, b text)";

#[tokio::test(flavor = "multi_thread")]
async fn each_row_has_the_columns_it_was_written_with() {
    for_each_postgres(async |server| {
        for (how, late) in [("", false), ("", true), ("BEGIN", false), ("BEGIN", true)] {
            let mut scenario = Scenario::start(server, "", SHAPES_TABLE, &["public.t"]).await;
            if late {
                scenario.stop();
            }
            if how == "BEGIN" {
                scenario.sql(SHAPES).await;
            } else {
                for statement in SHAPES.split(';') {
                    scenario.sql(statement).await;
                }
            }
            if late {
                scenario.run();
            }
            let events = scenario.events("public.t").await;
            assert_eq!(short(&events), shapes(), "{how}, late: {late}");
            let differs = scenario.log().contains("catalog is newer than the stream");
            assert!(differs || !late, "log:\n{}", scenario.log());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_table_goes_on_in_the_topic_of_its_new_name() {
    for_each_postgres(async |server| {
        let tables = ["public.old", "public.new"];
        let setup = "CREATE TABLE old (id int PRIMARY KEY)";
        let scenario = Scenario::start(server, "", setup, &tables).await;
        scenario.sql("INSERT INTO old VALUES (1)").await;
        scenario
            .sql("INSERT INTO old VALUES (2); ALTER TABLE old RENAME TO new; INSERT INTO new VALUES (3)")
            .await;
        scenario.sql("UPDATE new SET id = 4 WHERE id = 3").await;
        let old = scenario.events("public.old").await;
        assert_eq!(after(&old), json!([{"id": 1}, {"id": 2}]));
        let new = short(&scenario.events("public.new").await);
        assert_eq!(
            new,
            json!([
                [{"id": 3}, "c", null, {"id": 3}],
                [{"id": 3}, "d", {"id": 3}, null],
                [{"id": 3}, null],
                [{"id": 4}, "c", null, {"id": 4}],
            ])
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_to_a_table_is_published_although_the_table_is_gone() {
    for_each_postgres(async |server| {
        let setup = "CREATE TYPE mood AS ENUM ('calm'); CREATE DOMAIN fee AS int;
             CREATE TABLE gone (b int, a int, mood mood, fee fee, moods mood[], n numeric,
                 PRIMARY KEY (a, b));
             CREATE TABLE kept (id int PRIMARY KEY)";
        let tables = ["public.gone", "public.kept"];
        let write = "INSERT INTO gone VALUES (1, 2, 'calm', 7, '{calm}', 1.50);
             UPDATE gone SET n = 2; DELETE FROM gone";
        let drop = "DROP TABLE gone; DROP TYPE mood; DROP DOMAIN fee";
        // Dropped while nobody read: nothing is known of it but what the stream says.
        let mut scenario = Scenario::start(server, "", setup, &tables).await;
        scenario.stop();
        scenario.sql(write).await;
        scenario.sql(drop).await;
        scenario.sql("INSERT INTO kept VALUES (1)").await;
        scenario.run();
        let key = json!({"b": 1, "a": 2});
        let row = |fee: Value, moods: Value, n: &str| json!({"b": 1, "a": 2, "mood": "calm", "fee": fee, "moods": moods, "n": n});
        let gone = |fee: Value, moods: Value| {
            json!([
                [key, "c", null, row(fee.clone(), moods.clone(), "1.50")],
                [key, "u", null, row(fee, moods, "2")],
                [key, "d", key, null],
                [key, null],
            ])
        };
        // A type that is gone is the text of its values.
        let expected = gone(json!("7"), json!("{calm}"));
        assert_eq!(short(&scenario.events("public.gone").await), expected);
        assert!(scenario.log().contains("the table is gone"), "log:\n{}", scenario.log());
        let kept = scenario.events("public.kept").await;
        assert_eq!(after(&kept), json!([{"id": 1}]));

        // Dropped after a first row was read: what was known of its types is still known.
        let scenario = Scenario::start(server, "", setup, &tables).await;
        scenario.sql("INSERT INTO gone VALUES (1, 2, 'calm', 7, '{calm}', 1.50)").await;
        scenario.events("public.gone").await;
        scenario
            .sql(&format!(
                "UPDATE gone SET n = 2; ALTER TABLE gone ADD x int; ALTER TABLE gone DROP x;
                 DELETE FROM gone; {drop}"
            ))
            .await;
        let expected = gone(json!(7), json!(["calm"]));
        assert_eq!(short(&scenario.events("public.gone").await), expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_primary_key_keys_rows_from_there_on() {
    for_each_postgres(async |server| {
        let setup = "CREATE TABLE t (a int CONSTRAINT pk PRIMARY KEY, b int NOT NULL)";
        for late in [false, true] {
            let mut scenario = Scenario::start(server, "", setup, &["public.t"]).await;
            if late {
                scenario.stop();
            }
            scenario.sql("INSERT INTO t VALUES (1, 2); UPDATE t SET b = 3").await;
            scenario
                .sql(
                    "ALTER TABLE t DROP CONSTRAINT pk, ADD PRIMARY KEY (b, a); UPDATE t SET b = 4;
                     DELETE FROM t",
                )
                .await;
            if late {
                scenario.run();
            }
            let (a, three, four) =
                (json!({"a": 1}), json!({"b": 3, "a": 1}), json!({"b": 4, "a": 1}));
            assert_eq!(
                short(&scenario.events("public.t").await),
                json!([
                    [a, "c", null, {"a": 1, "b": 2}],
                    [a, "u", null, {"a": 1, "b": 3}],
                    [three, "d", three, null],
                    [three, null],
                    [four, "c", null, {"a": 1, "b": 4}],
                    [four, "d", four, null],
                    [four, null],
                ]),
                "late: {late}"
            );
            assert!(scenario.log().contains("the table's key has changed"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nulls_from_before_a_primary_key_do_not_stop_the_stream() {
    for_each_postgres(async |server| {
        let setup = "CREATE TABLE t (id int, n int); ALTER TABLE t REPLICA IDENTITY FULL";
        let mut scenario = Scenario::start(server, "", setup, &["public.t"]).await;
        scenario.stop();
        scenario
            .sql(
                "INSERT INTO t VALUES (null, 1); UPDATE t SET n = 2; UPDATE t SET id = 1;
                 ALTER TABLE t ADD PRIMARY KEY (id)",
            )
            .await;
        scenario.run();
        let (none, one) = (json!({"id": null}), json!({"id": 1}));
        let row = |id: Value, n: i32| json!({"id": id, "n": n});
        assert_eq!(
            short(&scenario.events("public.t").await),
            json!([
                [none, "c", null, row(Value::Null, 1)],
                [none, "u", row(Value::Null, 1), row(Value::Null, 2)],
                [none, "d", row(Value::Null, 2), null],
                [none, null],
                [one, "c", null, row(json!(1), 2)],
            ])
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_made_changed_and_made_anew_are_seen_at_once() {
    for_each_postgres(async |server| {
        let setup =
            "CREATE TYPE mood AS ENUM ('calm'); CREATE TABLE t (id int PRIMARY KEY, m mood)";
        let scenario = Scenario::start(server, "", setup, &["public.t"]).await;
        scenario.sql("INSERT INTO t VALUES (1, 'calm')").await;
        scenario.sql("ALTER TYPE mood ADD VALUE 'wild'").await;
        scenario.sql("INSERT INTO t VALUES (2, 'wild')").await;
        scenario.sql("ALTER TYPE mood RENAME VALUE 'wild' TO 'mad'").await;
        scenario
            .sql("UPDATE t SET m = 'calm' WHERE id = 2; UPDATE t SET m = 'mad' WHERE id = 2")
            .await;
        scenario
            .sql(
                "CREATE DOMAIN fee AS numeric(6,2); CREATE TYPE pair AS (a int, b text);
                 ALTER TABLE t ADD fee fee, ADD fees fee[], ADD pair pair;
                 INSERT INTO t VALUES (3, 'calm', 1.5, '{2,3}', '(1,x)');
                 ALTER TABLE t DROP m; DROP TYPE mood; CREATE DOMAIN mood AS int;
                 ALTER TABLE t ADD m mood; INSERT INTO t (id, m) VALUES (4, 7)",
            )
            .await;
        assert_eq!(
            after(&scenario.events("public.t").await),
            json!([
                {"id": 1, "m": "calm"},
                {"id": 2, "m": "wild"},
                {"id": 2, "m": "calm"},
                {"id": 2, "m": "mad"},
                {"id": 3, "m": "calm", "fee": "1.50", "fees": ["2.00", "3.00"], "pair": "(1,x)"},
                {"id": 4, "fee": null, "fees": null, "pair": null, "m": 7},
            ])
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_replica_identity_gives_its_old_rows_from_there_on() {
    for_each_postgres(async |server| {
        let setup = "CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, n int);
             CREATE UNIQUE INDEX by_code ON t (code)";
        for late in [false, true] {
            let mut scenario = Scenario::start(server, "", setup, &["public.t"]).await;
            if late {
                scenario.stop();
            }
            scenario
                .sql(
                    "INSERT INTO t VALUES (1, 'a', 0); UPDATE t SET n = 1;
                     ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET n = 2;
                     ALTER TABLE t REPLICA IDENTITY USING INDEX by_code;
                     UPDATE t SET code = 'b'; UPDATE t SET n = 3;
                     ALTER TABLE t REPLICA IDENTITY DEFAULT; DELETE FROM t",
                )
                .await;
            if late {
                scenario.run();
            }
            let row = |code: &str, n: i32| json!({"id": 1, "code": code, "n": n});
            let (one, a, b) = (json!({"id": 1}), json!({"code": "a"}), json!({"code": "b"}));
            assert_eq!(
                short(&scenario.events("public.t").await),
                json!([
                    [one, "c", null, row("a", 0)],
                    [one, "u", null, row("a", 1)],
                    [one, "u", row("a", 1), row("a", 2)],
                    [a, "d", a, null],
                    [a, null],
                    [b, "c", null, row("b", 2)],
                    [b, "u", null, row("b", 3)],
                    [one, "d", one, null],
                    [one, null],
                ]),
                "late: {late}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_holds_stops_neither_its_rows_nor_the_end_of_the_bridge() {
    let brokers = Brokers::any().bootstrap();
    let database = TestDatabase::create().await;
    let (client, other) = (database.client().await, database.client().await);
    let setup = "CREATE TABLE rides (id int PRIMARY KEY, note text, ssn text)";
    client.batch_execute(setup).await.expect("make a table");
    let name = unique("held");
    let config = "[tables.\"public.rides\"]\nexclude_columns = [\"ssn\"]\n";
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, config, PATIENCE);
    // As CREATE INDEX CONCURRENTLY does, for as long as any transaction lasts. The publication would
    // follow the new column, and can't.
    let held = "INSERT INTO rides VALUES (1); ALTER TABLE rides ADD city text";
    client.batch_execute(held).await.expect("alter");
    let hold = "BEGIN; LOCK TABLE rides IN SHARE UPDATE EXCLUSIVE MODE";
    other.batch_execute(hold).await.expect("hold the table");
    client.batch_execute("INSERT INTO rides VALUES (2)").await.expect("write");
    let topic = format!("{name}.public.rides");
    consume(&brokers, &[&topic], at_least(2), PATIENCE).await;

    let again = "BEGIN; LOCK TABLE rides IN SHARE UPDATE EXCLUSIVE MODE";
    other.batch_execute("COMMIT").await.expect("let go");
    client.batch_execute("ALTER TABLE rides ADD zone text").await.expect("alter");
    other.batch_execute(again).await.expect("hold the table");
    client.batch_execute("INSERT INTO rides VALUES (3)").await.expect("write");
    assert!(bridge.terminate(PATIENCE / 2).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_transaction_changed_that_a_standby_still_holds_up_holds_for_its_own_rows() {
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let setup = "CREATE TABLE t (id int NOT NULL, n int); ALTER TABLE t REPLICA IDENTITY FULL;
                 INSERT INTO t VALUES (1, 0)";
    let mut scenario = Scenario::start(&server, "", setup, &["public.t"]).await;
    let wait_for = async |standby: &str| {
        scenario.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{standby}'")).await;
        scenario.sql("SELECT pg_reload_conf()").await;
        eventually(PATIENCE, "the setting to hold", async || {
            let show = "SHOW synchronous_standby_names";
            let row = scenario.client.query_one(show, &[]).await.expect("ask");
            (row.get::<_, &str>(0) == standby).then_some(())
        })
        .await;
    };
    wait_for("gone").await;
    // Its commit is in the WAL, so the stream brings it, and nobody sees what it did.
    let writer = scenario.connect().await;
    let write = "ALTER TABLE t ADD PRIMARY KEY (id); INSERT INTO t VALUES (2, 0)";
    let writing = tokio::spawn(async move { writer.batch_execute(write).await });
    let said = "the catalog does not show a transaction that the stream brings";
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let begun = Instant::now();
    while !scenario.log().contains(said) && begun.elapsed() < PATIENCE {
        ticks.tick().await;
    }
    // Whatever came of it: nothing can be committed on the server before.
    wait_for("").await;
    writing.await.expect("no panic").expect("it is committed");
    assert!(scenario.log().contains(said), "log:\n{}", scenario.log());
    scenario.sql("INSERT INTO t VALUES (3, 0)").await;
    let keys: Vec<_> = scenario.events("public.t").await.into_iter().map(|e| e.key).collect();
    assert_eq!(keys, [None, Some(json!({"id": 2})), Some(json!({"id": 3}))]);
    scenario.stop();
}
