//! Tables that Postgres would refuse to update once published: their inserts are captured, by a second
//! publication on the same slot, and the application never notices.

use serde_json::{Value, json};

use crate::scenario::{Scenario, short};
use crate::support::postgres::{PostgresServer, for_each_postgres, for_oldest_and_newest};
use crate::support::{PATIENCE, eventually};

const QUICK: &str = "[postgres]\ndiscover_interval = \"300ms\"\n";

/// The tables of the publication (or, with `_inserts`, of the one for inserts).
pub(crate) async fn held(scenario: &Scenario, suffix: &str) -> Vec<String> {
    let query = "SELECT prrelid::regclass::text FROM pg_publication_rel r
                 JOIN pg_publication p ON p.oid = prpubid WHERE pubname = $1 ORDER BY 1";
    let name = format!("{}{suffix}", scenario.slot());
    let rows = scenario.client.query(query, &[&name]).await.expect("ask for the publication");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits until the publication for inserts holds exactly these.
pub(crate) async fn until_insert_only(scenario: &Scenario, tables: &[&str]) {
    eventually(PATIENCE, &format!("{tables:?} to be insert-only"), async || {
        (held(scenario, "_inserts").await == tables).then_some(())
    })
    .await;
}

/// A list of `/status`' limits, by table.
pub(crate) fn limits(scenario: &Scenario, kind: &str) -> Vec<Value> {
    let bridge = scenario.bridge.as_ref().expect("a bridge");
    let (_, body) = bridge.get("/status").expect("the admin endpoint answers");
    let status: Value = serde_json::from_str(&body).expect("JSON");
    status["limits"][kind].as_array().expect("a list").clone()
}

/// The operations that came of a table.
async fn operations(scenario: &Scenario, table: &str) -> Vec<String> {
    let events = scenario.events(table).await;
    let values = events.iter().filter_map(|event| event.value.as_ref());
    values.filter_map(|value| value["op"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_and_truncates_come_and_the_application_updates_as_it_likes() {
    for_each_postgres(async |server| {
        let config =
            "[postgres]\nskipped_operations = []\ntables = [\"public.log\", \"public.*\"]\n";
        let setup = "CREATE TABLE log (n int); INSERT INTO log VALUES (1);
             CREATE TABLE late (id int PRIMARY KEY DEFERRABLE, n int);
             CREATE TABLE rides (id int PRIMARY KEY, n int)";
        let topics = ["public.log", "public.late", "public.rides"];
        let scenario = Scenario::start(server, config, setup, &topics).await;
        assert_eq!(held(&scenario, "").await, ["rides"]);
        assert_eq!(held(&scenario, "_inserts").await, ["late", "log"]);
        scenario
            .sql(
                "INSERT INTO log VALUES (2); UPDATE log SET n = 3; DELETE FROM log;
                 INSERT INTO late VALUES (1, 1); UPDATE late SET n = 2; DELETE FROM late;
                 INSERT INTO rides VALUES (1, 1); UPDATE rides SET n = 2",
            )
            .await;
        scenario.sql("TRUNCATE log").await;
        assert_eq!(operations(&scenario, "public.log").await, ["r", "c", "t"]);
        assert_eq!(operations(&scenario, "public.late").await, ["c"]);
        assert_eq!(operations(&scenario, "public.rides").await, ["c", "u"]);

        let log = scenario.log();
        assert!(log.contains("insert-only") && log.contains("deferrable"), "log:\n{log}");
        assert!(log.contains("ALTER TABLE"), "log:\n{log}");
        assert!(scenario.metrics().contains("rowcast_tables_insert_only 2"));
        let shown = limits(&scenario, "insert_only");
        let tables: Vec<&Value> = shown.iter().map(|limited| &limited["table"]).collect();
        assert_eq!(tables, ["public.late", "public.log"]);
        // The fix that is told is one.
        for limited in &shown {
            scenario.sql(limited["fix"].as_str().expect("a text")).await;
        }
        until_insert_only(&scenario, &[]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_loses_its_identity_goes_over_and_one_that_has_it_again_is_read_and_comes_back()
 {
    for_oldest_and_newest(async |server| {
        let setup =
            "CREATE TABLE rides (id int PRIMARY KEY, n int); INSERT INTO rides VALUES (1, 0)";
        let scenario = Scenario::start(server, QUICK, setup, &["public.rides"]).await;
        scenario.sql("ALTER TABLE rides DROP CONSTRAINT rides_pkey").await;
        until_insert_only(&scenario, &["rides"]).await;
        assert_eq!(held(&scenario, "").await, Vec::<String>::new());
        scenario.sql("UPDATE rides SET n = 1; INSERT INTO rides VALUES (2, 0)").await;
        assert_eq!(operations(&scenario, "public.rides").await, ["r", "c"]);
        assert!(scenario.log().contains("insert-only"), "log:\n{}", scenario.log());

        scenario.sql("ALTER TABLE rides ADD PRIMARY KEY (id)").await;
        eventually(PATIENCE, "the rows to be read again", async || {
            let events = scenario.events("public.rides").await;
            let last = json!([{"id": 1}, "r", null, {"id": 1, "n": 1}]);
            events.iter().any(|event| event.short() == last).then_some(())
        })
        .await;
        assert_eq!(held(&scenario, "").await, ["rides"]);
        scenario.sql("DELETE FROM rides WHERE id = 2").await;
        let events = short(&scenario.events("public.rides").await);
        let events = events.as_array().expect("a list");
        assert_eq!(events[events.len() - 2], json!([{"id": 2}, "d", {"id": 2}, null]));
        assert!(limits(&scenario, "insert_only").is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_partition_without_an_identity_takes_its_tree_along_however_it_is_published() {
    for_oldest_and_newest(async |server| {
        for via_root in [true, false] {
            let config = format!("{QUICK}publish_via_partition_root = {via_root}\n");
            let setup = "
                CREATE TABLE days (id int, day int, n int) PARTITION BY LIST (day);
                ALTER TABLE days REPLICA IDENTITY FULL;
                CREATE TABLE days_1 PARTITION OF days FOR VALUES IN (1);
                ALTER TABLE days_1 REPLICA IDENTITY FULL";
            let topics = ["public.days", "public.days_1", "public.days_2"];
            let scenario = Scenario::start(server, &config, setup, &topics).await;
            assert_eq!(held(&scenario, "").await, ["days"], "FULL leaf, FULL root");
            scenario.sql("CREATE TABLE days_2 PARTITION OF days FOR VALUES IN (2)").await;
            until_insert_only(&scenario, &["days"]).await;
            scenario
                .sql("INSERT INTO days VALUES (1, 2, 0); UPDATE days SET n = 1; DELETE FROM days")
                .await;
            let table = if via_root { "public.days" } else { "public.days_2" };
            assert_eq!(operations(&scenario, table).await, ["c"]);
            let shown = limits(&scenario, "insert_only");
            assert!(
                shown[0]["cause"].as_str().is_some_and(|why| why.contains("days_2")),
                "{shown:?}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_to_a_partition_that_was_attached_comes_too() {
    for_oldest_and_newest(async |server| {
        let config = format!("{QUICK}tables = [\"public.days\"]\n");
        let setup = "CREATE TABLE days (id int, day int) PARTITION BY LIST (day);
                     CREATE TABLE days_1 PARTITION OF days FOR VALUES IN (1);
                     CREATE TABLE days_2 (LIKE days)";
        let scenario = Scenario::start(server, &config, setup, &["public.days"]).await;
        until_insert_only(&scenario, &["days"]).await;
        // The server meets it as a table that is not published.
        scenario.sql("INSERT INTO days_2 VALUES (1, 2)").await;
        scenario.sql("INSERT INTO days VALUES (1, 1)").await;
        eventually(PATIENCE, "the stream to be there", async || {
            operations(&scenario, "public.days").await.contains(&"c".to_owned()).then_some(())
        })
        .await;
        scenario.sql("ALTER TABLE days ATTACH PARTITION days_2 FOR VALUES IN (2)").await;
        eventually(PATIENCE, "rows of the partition in the stream", async || {
            scenario.sql("INSERT INTO days VALUES (2, 2)").await;
            let events = scenario.events("public.days").await;
            let mut values = events.iter().filter_map(|event| event.value.as_ref());
            values.any(|value| value["op"] == "c" && value["after"]["day"] == 2).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_from_before_the_second_publication_streams_on_and_names_it_when_it_is_past() {
    for_oldest_and_newest(async |server| {
        let setup = "CREATE TABLE rides (id int PRIMARY KEY, n int); CREATE TABLE log (n int)";
        let topics = ["public.rides", "public.log"];
        let mut scenario = Scenario::start(server, QUICK, setup, &topics).await;
        scenario.stop();
        // As an earlier version left it, which captured what was named exactly.
        let name = scenario.slot();
        scenario
            .sql(&format!(
                "DROP PUBLICATION {name}_inserts; ALTER PUBLICATION {name} ADD TABLE log"
            ))
            .await;
        scenario.sql("INSERT INTO log VALUES (1)").await;
        scenario.sql("INSERT INTO rides VALUES (1, 0); UPDATE rides SET n = 1").await;
        scenario.run();
        until_insert_only(&scenario, &["log"]).await;
        scenario.sql("UPDATE log SET n = 2").await;
        eventually(PATIENCE, "the row to be read", async || {
            operations(&scenario, "public.log").await.contains(&"r".to_owned()).then_some(())
        })
        .await;
        scenario.sql("INSERT INTO log VALUES (3); INSERT INTO rides VALUES (2, 0)").await;
        assert_eq!(operations(&scenario, "public.rides").await, ["c", "u", "c"]);
        let log = operations(&scenario, "public.log").await;
        assert_eq!(log.last().map(String::as_str), Some("c"), "{log:?}");
        assert!(!scenario.log().contains("trying again"), "log:\n{}", scenario.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_named_too_early_costs_a_session_and_no_row() {
    for_oldest_and_newest(async |server| {
        let setup = "CREATE TABLE rides (id int PRIMARY KEY, n int); CREATE TABLE log (n int)";
        let topics = ["public.rides", "public.log"];
        let mut scenario = Scenario::start(server, QUICK, setup, &topics).await;
        scenario.stop();
        let name = scenario.slot();
        let publication = format!("{name}_inserts");
        scenario.sql(&format!("DROP PUBLICATION {publication}")).await;
        scenario.sql("INSERT INTO rides VALUES (1, 0); INSERT INTO log VALUES (1)").await;
        // By a DBA, after changes that the slot has yet to send.
        scenario
            .sql(&format!(
                "CREATE PUBLICATION {publication} FOR TABLE ONLY log WITH (publish = 'insert')"
            ))
            .await;
        scenario.run();
        scenario.sql("INSERT INTO rides VALUES (2, 0)").await;
        eventually(PATIENCE, "both rides", async || {
            (operations(&scenario, "public.rides").await == ["c", "c"]).then_some(())
        })
        .await;
        until_insert_only(&scenario, &["log"]).await;
        // Once it is named.
        eventually(PATIENCE, "inserts to come", async || {
            scenario.sql("INSERT INTO log VALUES (2)").await;
            (!scenario.events("public.log").await.is_empty()).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_may_alter_nothing_it_says_what_a_dba_would_run() {
    for_oldest_and_newest(async |server| {
        let config = "[postgres]\nmanage = false\n";
        let setup = "CREATE TABLE rides (id int PRIMARY KEY, n int); CREATE TABLE log (n int)";
        let mut scenario =
            Scenario::prepare(server, config, setup, &["public.rides", "public.log"]).await;
        scenario.make_slot_and_publication("rides, log").await;
        scenario.run();
        eventually(PATIENCE, "it to be shown", async || {
            (!limits(&scenario, "refused").is_empty()).then_some(())
        })
        .await;
        let fix = limits(&scenario, "refused")[0]["fix"].as_str().expect("a text").to_owned();
        assert!(scenario.log().contains("refuses to update or delete"), "{}", scenario.log());
        // What stands behind the first way is the second.
        let (_, script) = fix.split_once("as a DBA: ").expect("a script");
        scenario.sql(script).await;
        assert_eq!(held(&scenario, "_inserts").await, ["log"]);
        scenario.sql("INSERT INTO log VALUES (1); UPDATE log SET n = 2").await;
        eventually(PATIENCE, "inserts to come", async || {
            scenario.sql("INSERT INTO log VALUES (2)").await;
            (!scenario.events("public.log").await.is_empty()).then_some(())
        })
        .await;
        assert!(limits(&scenario, "refused").is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_holds_is_not_queued_for() {
    let setup = "CREATE TABLE rides (id int PRIMARY KEY, n int); INSERT INTO rides VALUES (1, 0)";
    let server = PostgresServer::shared();
    let scenario = Scenario::start(server, QUICK, setup, &["public.rides"]).await;
    let mut other = scenario.connect().await;
    let holder = other.transaction().await.expect("begin");
    holder.batch_execute("ALTER TABLE rides DROP CONSTRAINT rides_pkey").await.expect("alter");
    holder.commit().await.expect("commit");
    let vacuum = other.transaction().await.expect("begin");
    // As a VACUUM holds it, for as long as that takes.
    vacuum.batch_execute("LOCK TABLE rides IN SHARE UPDATE EXCLUSIVE MODE").await.expect("lock");
    eventually(PATIENCE, "a try to be given up", async || {
        scenario.log().contains("can't be moved between publications").then_some(())
    })
    .await;
    // Whoever writes rows is not held up meanwhile.
    scenario.sql("SET lock_timeout = '5s'; INSERT INTO rides VALUES (2, 0)").await;
    vacuum.rollback().await.expect("end");
    until_insert_only(&scenario, &["rides"]).await;
    scenario.sql("UPDATE rides SET n = 1").await;
}

/// Loses the identity of a table, and waits until the next look has seen to it.
async fn until_moved(scenario: &Scenario, table: &str, all: &[&str]) {
    scenario.sql(&format!("ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")).await;
    until_insert_only(scenario, all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looks_for_identities_ask_nothing_of_row_filters() {
    let config = "[postgres]\ndiscover_interval = \"1h\"\n\n[tables.\"public.rides\"]\n\
                  exclude_columns = [\"ssn\"]\nwhere = \"id > 0\"\n";
    // A sequence keeps what is rolled back.
    let setup = "CREATE TABLE rides (id int PRIMARY KEY, ssn text);
         CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
         CREATE SEQUENCE ddl;
         CREATE FUNCTION count_ddl() RETURNS event_trigger LANGUAGE plpgsql
             AS $$ BEGIN PERFORM pg_catalog.nextval('public.ddl'); END $$;
         CREATE EVENT TRIGGER count_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
             EXECUTE FUNCTION count_ddl()";
    let server = PostgresServer::shared();
    let topics = ["public.rides", "public.a", "public.b"];
    let scenario = Scenario::start(server, config, setup, &topics).await;
    until_moved(&scenario, "a", &["a"]).await;
    scenario
        .sql("INSERT INTO rides VALUES (1, 'x'); ALTER TABLE rides ADD COLUMN city text; INSERT INTO rides VALUES (2, 'y', 'z')")
        .await;
    assert_eq!(operations(&scenario, "public.rides").await, ["c", "c"]);
    until_moved(&scenario, "b", &["a", "b"]).await;
    let row = scenario.client.query_one("SELECT last_value FROM ddl", &[]).await.expect("ask");
    // One of the start, one of the first look for new tables.
    assert!(row.get::<_, i64>(0) <= 2, "asked {} times", row.get::<_, i64>(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_does_not_fit_or_a_locked_table_holds_up_no_other() {
    let config = format!("{QUICK}\n[tables.\"public.r*\"]\nwhere = \"region = 'eu'\"\n");
    let setup = "CREATE TABLE rides (id int, region text, PRIMARY KEY (id, region));
         CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)";
    let server = PostgresServer::shared();
    let topics = ["public.rides", "public.a", "public.b"];
    let scenario = Scenario::start(server, &config, setup, &topics).await;
    scenario.sql("CREATE TABLE rivers (id int PRIMARY KEY)").await;
    eventually(PATIENCE, "the filter to be refused", async || {
        scenario.log().contains("as a condition on public.rivers").then_some(())
    })
    .await;
    until_moved(&scenario, "a", &["a"]).await;

    let mut other = scenario.connect().await;
    let holder = other.transaction().await.expect("begin");
    holder.batch_execute("LOCK TABLE rides IN ACCESS EXCLUSIVE MODE").await.expect("lock");
    until_moved(&scenario, "b", &["a", "b"]).await;
    holder.rollback().await.expect("end");
    assert_eq!(held(&scenario, "").await, ["rides"]);
    let condition = "SELECT pg_get_expr(prqual, prrelid) FROM pg_publication_rel
                     WHERE prrelid = 'rides'::regclass";
    let row = scenario.client.query_one(condition, &[]).await.expect("ask");
    assert_eq!(row.get::<_, Option<&str>>(0), Some("(region = 'eu'::text)"));
    let log = scenario.log();
    assert_eq!(log.matches("as a condition on").count(), 1, "log:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_for_whole_schemas_is_said_to_harm_only_what_it_publishes() {
    for_oldest_and_newest(async |server| {
        if server.major() < 15 {
            return;
        }
        let setup = "CREATE SCHEMA shop; CREATE TABLE log (n int); CREATE TABLE shop.log (n int);
            INSERT INTO log VALUES (1); INSERT INTO shop.log VALUES (1)";
        let mut scenario = Scenario::prepare(server, QUICK, setup, &["shop.log"]).await;
        scenario.make_slot_and_publication("log").await;
        let name = scenario.slot();
        scenario.sql(&format!("ALTER PUBLICATION {name} SET TABLES IN SCHEMA shop")).await;
        scenario.run();
        let refused = eventually(PATIENCE, "it to be shown", async || {
            let refused = limits(&scenario, "refused");
            (!refused.is_empty()).then_some(refused)
        })
        .await;
        let tables: Vec<&Value> = refused.iter().map(|limited| &limited["table"]).collect();
        assert_eq!(tables, ["shop.log"]);
        scenario.sql("UPDATE log SET n = 2").await;
        let update = scenario.client.batch_execute("UPDATE shop.log SET n = 2").await;
        assert!(update.is_err(), "that is what it is said of");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_says_nothing_of_a_filter_does_not_refuse_it() {
    let config = format!("{QUICK}\n[tables.\"public.rides\"]\nwhere = \"id > 0\"\n");
    let setup = "CREATE TABLE rides (id int PRIMARY KEY); CREATE TABLE a (id int PRIMARY KEY);
        CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'no table today'; END $$";
    let server = PostgresServer::shared();
    let topics = ["public.rides", "public.a"];
    let mut scenario = Scenario::prepare(server, &config, setup, &topics).await;
    // A start that meets a lock does not wait for it without a word.
    let mut other = scenario.connect().await;
    let holder = other.transaction().await.expect("begin");
    holder.batch_execute("LOCK TABLE rides IN ACCESS EXCLUSIVE MODE").await.expect("lock");
    scenario.launch();
    eventually(PATIENCE, "the lock to be named", async || {
        scenario.log().contains("lock timeout").then_some(())
    })
    .await;
    holder.rollback().await.expect("end");
    scenario.until_ready();

    scenario
        .sql(
            "CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE TABLE')
                 EXECUTE FUNCTION refuse()",
        )
        .await;
    let says = "the row filter could not be checked";
    eventually(PATIENCE, "it to be said", async || scenario.log().contains(says).then_some(()))
        .await;
    // Looks go on, and what is published stays as it is.
    until_moved(&scenario, "a", &["a"]).await;
    scenario.sql("INSERT INTO rides VALUES (0), (1)").await;
    assert_eq!(operations(&scenario, "public.rides").await, ["c"]);
    let log = scenario.log();
    assert_eq!(log.matches(says).count(), 1, "log:\n{log}");
    assert!(!log.contains("as a condition on"), "log:\n{log}");
}
