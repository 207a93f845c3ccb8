//! Large values that an update did not change and that the server does not send, by policy, on
//! every server.

use serde_json::{Value, json};

use crate::scenario::{Event, Scenario, short};
use crate::support::postgres::{PostgresServer, for_each_postgres};
use crate::support::{PATIENCE, eventually};

/// Kept out of line and uncompressed, so that an update of another column leaves it unsent.
const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, n int, big text, raw bytea);
     ALTER TABLE t ALTER big SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL";

const INSERT: &str =
    "INSERT INTO t VALUES (1, 0, repeat('x', 3000), decode(repeat('ff', 3000), 'hex'))";

fn big() -> String {
    "x".repeat(3000)
}

fn raw() -> String {
    "/".repeat(4000)
}

fn after(event: &Event) -> Value {
    event.value.as_ref().expect("no tombstone")["after"].clone()
}

/// The value of a metric of the bridge.
fn metric(scenario: &Scenario, name: &str) -> u64 {
    let page = scenario.metrics();
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("rowcast_{name}_total ")));
    line.unwrap_or_else(|| panic!("{name} in {page}")).parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn omitted_columns_are_named_and_full_identity_has_their_values() {
    for_each_postgres(async |server| {
        let scenario = Scenario::start(server, "", TABLE, &["public.t"]).await;
        scenario.sql(INSERT).await;
        scenario.sql("UPDATE t SET n = 1; UPDATE t SET big = 'short'").await;
        scenario.sql("UPDATE t SET id = 2").await;
        scenario.sql("ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET n = 2").await;
        let events = scenario.events("public.t").await;
        assert_eq!(after(&events[0]), json!({"id": 1, "n": 0, "big": big(), "raw": raw()}));
        assert_eq!(after(&events[1]), json!({"id": 1, "n": 1}));
        assert_eq!(events[1].header("rowcast.unchanged"), Some(r#"["big","raw"]"#));
        assert_eq!(after(&events[2]), json!({"id": 1, "n": 1, "big": "short"}));
        assert_eq!(events[2].header("rowcast.unchanged"), Some(r#"["raw"]"#));
        // The key's change is a delete and a create, which lacks the value too.
        assert_eq!(after(&events[5]), json!({"id": 2, "n": 1, "big": "short"}));
        assert_eq!(events[5].header("rowcast.unchanged"), Some(r#"["raw"]"#));
        let whole = json!({"id": 2, "n": 2, "big": "short", "raw": raw()});
        assert_eq!((after(&events[6]), events[6].header("rowcast.unchanged")), (whole, None));
        assert_eq!(metric(&scenario, "unchanged_omitted"), 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn placeholders_stand_for_values_as_debezium_writes_them() {
    let server = PostgresServer::shared();
    for (config, raw_null) in [
        ("[format]\nunchanged_toast = \"placeholder\"\n", false),
        ("[format]\ntypes = \"debezium\"\n", true),
    ] {
        let setup = format!("{TABLE}; ALTER TABLE t ADD d numeric, ADD i int[]");
        let scenario = Scenario::start(server, config, &setup, &["public.t"]).await;
        scenario
            .sql(
                "ALTER TABLE t ALTER d SET STORAGE EXTERNAL, ALTER i SET STORAGE EXTERNAL;
                 INSERT INTO t VALUES (1, 0, repeat('x', 3000), decode(repeat('ff', 3000), 'hex'),
                     repeat('9', 9000)::numeric, array_fill(1, ARRAY[900]))",
            )
            .await;
        scenario.sql("UPDATE t SET n = 1").await;
        let events = scenario.events("public.t").await;
        let bytes: Vec<u8> = b"__debezium_unavailable_value".to_vec();
        // Debezium can't hold its placeholder in a number, and writes a null.
        let number = if raw_null { Value::Null } else { json!("__debezium_unavailable_value") };
        assert_eq!(
            after(&events[1]),
            json!({"id": 1, "n": 1, "big": "__debezium_unavailable_value",
                "raw": "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==", "d": number, "i": bytes}),
            "{config}"
        );
        assert_eq!(events[1].header("rowcast.unchanged"), Some(r#"["big","raw","d","i"]"#));
        assert_eq!(metric(&scenario, "unchanged_placeholders"), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reselected_values_are_those_of_now_and_a_row_that_is_gone_has_none() {
    for_each_postgres(async |server| {
        let config = "[format]\nunchanged_toast = \"reselect\"\n";
        let setup = format!(
            "{TABLE}; CREATE TABLE \"O'k\" (\"the \"\"key\" text PRIMARY KEY, n int, big text);
             ALTER TABLE \"O'k\" ALTER big SET STORAGE EXTERNAL;
             CREATE TABLE old (id int PRIMARY KEY, n int, big text);
             ALTER TABLE old ALTER big SET STORAGE EXTERNAL"
        );
        let tables = ["public.t", "public.O_k", "public.old"];
        let mut scenario = Scenario::start(server, config, &setup, &tables).await;
        scenario.sql(INSERT).await;
        scenario.sql("UPDATE t SET n = 1").await;
        let events = scenario.events("public.t").await;
        assert_eq!(after(&events[1]), json!({"id": 1, "n": 1, "big": big(), "raw": raw()}));
        assert_eq!(events[1].header("rowcast.reselected"), Some(r#"["big","raw"]"#));
        assert_eq!(events[1].header("rowcast.unchanged"), None);
        assert_eq!(metric(&scenario, "unchanged_reselected"), 2);

        // Read late, values have gone on, and so have rows and tables.
        scenario.stop();
        scenario.sql("UPDATE t SET n = 2").await;
        scenario.sql("UPDATE t SET big = 'later'").await;
        scenario
            .sql(
                "INSERT INTO \"O'k\" VALUES (E'a''\\\\b', 0, repeat('x', 3000));
                 UPDATE \"O'k\" SET n = 1; INSERT INTO \"O'k\" VALUES ('gone', 0, repeat('x', 3000))",
            )
            .await;
        scenario.sql("UPDATE \"O'k\" SET n = 2 WHERE \"the \"\"key\" = 'gone'").await;
        scenario.sql("DELETE FROM \"O'k\" WHERE \"the \"\"key\" = 'gone'").await;
        scenario.sql("INSERT INTO old VALUES (1, 0, repeat('x', 3000)); UPDATE old SET n = 1").await;
        scenario
            .sql(
                "ALTER TABLE old RENAME TO older; CREATE TABLE old (id int, n int, big text);
                 INSERT INTO old VALUES (1, 7, 'of another table')",
            )
            .await;
        scenario.run();
        let events = scenario.events("public.t").await;
        assert_eq!(after(&events[2])["big"], "later");
        assert_eq!(after(&events[3]), json!({"id": 1, "n": 2, "big": "later", "raw": raw()}));
        let events = scenario.events("public.O_k").await;
        assert_eq!(after(&events[1]), json!({"the \"key": "a'\\b", "n": 1, "big": big()}));
        assert_eq!(after(&events[3]), json!({"the \"key": "gone", "n": 2}));
        assert_eq!(events[3].header("rowcast.unchanged"), Some(r#"["big"]"#));
        assert_eq!(events[3].header("rowcast.reselected"), None);
        let events = scenario.events("public.old").await;
        assert_eq!(after(&events[1]), json!({"id": 1, "n": 1}));
        assert_eq!(metric(&scenario, "unchanged_not_found"), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reselect_waits_for_a_lock_and_a_stop_ends_the_wait() {
    let config = "[format]\nunchanged_toast = \"reselect\"\n[kafka]\ndrain_timeout = \"1s\"\n";
    let server = PostgresServer::shared();
    let mut scenario = Scenario::start(server, config, TABLE, &["public.t"]).await;
    scenario.sql(INSERT).await;
    scenario.events("public.t").await;
    scenario.stop();
    scenario.sql("UPDATE t SET n = 1").await;
    let lock = scenario.connect().await;
    lock.batch_execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await.expect("lock");
    scenario.run();
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND NOT granted";
    eventually(PATIENCE, "the bridge to wait for the lock", async || {
        let row = lock.query_one(waiting, &[]).await.expect("ask");
        (row.get::<_, i64>(0) >= 1).then_some(())
    })
    .await;
    scenario.bridge.as_mut().expect("a bridge").terminate(PATIENCE);
    lock.batch_execute("ROLLBACK").await.expect("unlock");
    scenario.run();
    let events = scenario.events("public.t").await;
    assert_eq!(after(&events[1]), json!({"id": 1, "n": 1, "big": big(), "raw": raw()}));
    assert_eq!(events.len(), 2, "nothing was published while the value was waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn to_fail_names_table_column_and_the_fix() {
    let config = "[format]\nunchanged_toast = \"fail\"\n";
    let server = PostgresServer::shared();
    let mut scenario = Scenario::start(server, config, TABLE, &["public.t"]).await;
    scenario.sql(INSERT).await;
    scenario.sql("UPDATE t SET n = 1").await;
    assert_eq!(scenario.ended(), Some(69));
    let log = scenario.log();
    assert!(log.contains("table public.t") && log.contains("column \"big\""), "log:\n{log}");
    assert!(log.contains("ALTER TABLE public.t REPLICA IDENTITY FULL"), "log:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_a_reselect_stops_with_the_reason() {
    let server = PostgresServer::shared();
    let config = "[format]\nunchanged_toast = \"reselect\"\n[postgres]\nmanage = false\n";
    let role = crate::support::unique("blind");
    let setup = format!("{TABLE}; CREATE ROLE {role} LOGIN REPLICATION");
    let mut scenario = Scenario::prepare(server, config, &setup, &["public.t"]).await;
    scenario.make_slot_and_publication("t").await;
    scenario.run_as(&role);
    scenario.sql(INSERT).await;
    scenario.sql("UPDATE t SET n = 1").await;
    assert_eq!(scenario.ended(), Some(69));
    let log = scenario.log();
    assert!(log.contains("needs SELECT on the table"), "log:\n{log}");
    scenario.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_key_is_known_although_it_did_not_change() {
    for_each_postgres(async |server| {
        let setup = "CREATE TABLE t (id text PRIMARY KEY, n int);
             ALTER TABLE t ALTER id SET STORAGE EXTERNAL";
        let scenario = Scenario::start(server, "", setup, &["public.t"]).await;
        scenario.sql("INSERT INTO t VALUES (repeat('k', 2100), 0); UPDATE t SET n = 1").await;
        scenario.sql("DELETE FROM t").await;
        let key = json!({"id": "k".repeat(2100)});
        let row = |n: i32| json!({"id": "k".repeat(2100), "n": n});
        assert_eq!(
            short(&scenario.events("public.t").await),
            json!([
                [key, "c", null, row(0)],
                [key, "u", key, row(1)],
                [key, "d", key, null],
                [key, null],
            ])
        );
    })
    .await;
}
