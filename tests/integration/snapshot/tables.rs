//! What a first snapshot publishes of tables of every shape: each row once, under the table's own
//! name and key, without what filters leave out; and what it says of that which it can't read.

use serde_json::{Value, json};

use crate::scenario::{Event, Scenario, short};
use crate::support::postgres::{Binaries, PostgresServer, for_each_postgres};
use crate::support::{PATIENCE, eventually, unique};

/// The events in short, in the order of their text: tables are read concurrently.
fn sorted(events: &[Event]) -> Value {
    let mut events: Vec<Value> = events.iter().map(Event::short).collect();
    events.sort_by_key(Value::to_string);
    Value::Array(events)
}

fn read(key: &Value, after: &Value) -> Value {
    json!([key, "r", null, after])
}

fn source<'a>(event: &'a Event, field: &str) -> &'a Value {
    &event.value.as_ref().expect("a row")["source"][field]
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_partitions_are_their_roots_or_their_own_as_the_changes_after_them() {
    const SETUP: &str = "
        CREATE TABLE days (id int, day date, n int, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
        CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')
            PARTITION BY RANGE (id);
        CREATE TABLE days_1_low PARTITION OF days_1 FOR VALUES FROM (0) TO (10);
        CREATE TABLE days_2 (n int, day date NOT NULL, id int NOT NULL, PRIMARY KEY (day, id));
        ALTER TABLE days ATTACH PARTITION days_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
        CREATE TABLE days_3 PARTITION OF days FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
        INSERT INTO days VALUES (1, '2026-01-05', 1), (2, '2026-02-05', 2), (3, '2026-02-06', 3)";
    const TOPICS: [&str; 5] = ["days", "days_1", "days_1_low", "days_2", "days_3"];
    let topics = TOPICS.map(|table| format!("public.{table}"));
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let row = |id: i32, day: &str, n: i32| {
        let day = format!("2026-{day}");
        read(&json!({"day": day, "id": id}), &json!({"id": id, "day": day, "n": n}))
    };
    for_each_postgres(async |server| {
        for via_root in [true, false] {
            let config = format!("[postgres]\npublish_via_partition_root = {via_root}\n");
            let mut scenario = Scenario::prepare(server, &config, SETUP, &topics).await;
            scenario.run();
            scenario.sql("UPDATE days SET n = 20 WHERE id = 2").await;
            for (table, topic) in TOPICS.iter().zip(&topics) {
                let events = scenario.events(topic).await;
                let (read, changed): (Vec<Event>, Vec<Event>) =
                    events.into_iter().partition(|event| {
                        event.value.as_ref().is_some_and(|value| value["op"] == "r")
                    });
                let (rows, changes) = match (via_root, *table) {
                    (true, "days") => {
                        (json!([row(1, "01-05", 1), row(2, "02-05", 2), row(3, "02-06", 3)]), 1)
                    }
                    (false, "days_1_low") => (json!([row(1, "01-05", 1)]), 0),
                    (false, "days_2") => (json!([row(2, "02-05", 2), row(3, "02-06", 3)]), 1),
                    _ => (json!([]), 0),
                };
                assert_eq!(sorted(&read), rows, "{table}, via the root: {via_root}");
                assert_eq!(changed.len(), changes, "{table}, via the root: {via_root}");
                assert!(read.iter().all(|event| source(event, "table") == table));
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_and_rows_that_filters_leave_out_are_not_read() {
    const SETUP: &str = "
        CREATE TABLE listed (id int PRIMARY KEY, note text, secret text);
        CREATE TABLE chosen (id int PRIMARY KEY, note text);
        CREATE TABLE recent (id int PRIMARY KEY, note text);
        INSERT INTO listed VALUES (1, 'a', 'hidden');
        INSERT INTO chosen VALUES (1, 'hidden'), (2, 'b');
        INSERT INTO recent VALUES (1, 'hidden'), (2, 'c')";
    const COMMON: &str = "
        [tables.\"public.listed\"]\nexclude_columns = [\"secret\"]\n
        [tables.\"public.recent\"]\nsnapshot_where = \"id > 1 -- as Postgres reads it\"\n";
    const CHOSEN: &str = "[tables.\"public.chosen\"]\nwhere = \"id > 1\"\n";
    const WITHOUT: &str = "[postgres]\nexclude_tables = [\"public.chosen\"]\n";
    let topics = ["public.listed", "public.chosen", "public.recent"];
    let row = |id: i32, note: &str| read(&json!({"id": id}), &json!({"id": id, "note": note}));
    for_each_postgres(async |server| {
        // One that rowcast makes has the filters itself; one of all tables has none.
        for is_whole in [false, true] {
            let rest = if is_whole || server.major() < 15 { WITHOUT } else { CHOSEN };
            let config = format!("{rest}{COMMON}");
            let mut scenario = Scenario::prepare(server, &config, SETUP, &topics).await;
            if is_whole {
                let name = scenario.slot();
                scenario.sql(&format!("CREATE PUBLICATION {name} FOR ALL TABLES")).await;
            }
            scenario.run();
            scenario.sql("UPDATE recent SET note = 'd' WHERE id = 1").await;
            let events = scenario.events("public.listed").await;
            assert_eq!(short(&events), json!([row(1, "a")]), "whole: {is_whole}");
            let events = scenario.events("public.chosen").await;
            let chosen = if rest == CHOSEN { json!([row(2, "b")]) } else { json!([]) };
            assert_eq!(short(&events), chosen, "whole: {is_whole}");
            // The condition is for the rows that were there, not for their changes.
            let events = scenario.events("public.recent").await;
            let updated = json!([{"id": 1}, "u", null, {"id": 1, "note": "d"}]);
            assert_eq!(short(&events), json!([row(2, "c"), updated]), "whole: {is_whole}");
            assert!(!scenario.log().contains("hidden"), "log:\n{}", scenario.log());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
async fn every_row_is_read_once_of_tables_without_a_key_or_rows_and_of_any_name_and_width() {
    const SETUP: &str = "
        CREATE TABLE keyless (a int, b text);
        INSERT INTO keyless VALUES (1, 'twice'), (1, 'twice'), (NULL, NULL);
        CREATE TABLE bare (); INSERT INTO bare DEFAULT VALUES; INSERT INTO bare DEFAULT VALUES;
        CREATE TABLE nobody (id int PRIMARY KEY, note text);
        CREATE TABLE emptied (id int PRIMARY KEY);
        INSERT INTO emptied SELECT generate_series(1, 1000); DELETE FROM emptied;
        CREATE SCHEMA \"Odd Schema\";
        CREATE TABLE \"Odd Schema\".\"Tab le\" (\"I d\" int PRIMARY KEY, \"a\"\"b\" text, \"select\" int);
        INSERT INTO \"Odd Schema\".\"Tab le\" VALUES (1, 'q', 2);
        CREATE TABLE \"CamelCase\" (\"Id\" int PRIMARY KEY); INSERT INTO \"CamelCase\" VALUES (1);
        CREATE TABLE camelcase (id int PRIMARY KEY); INSERT INTO camelcase VALUES (2);
        CREATE TABLE wide (id int PRIMARY KEY, note text, raw bytea);
        ALTER TABLE wide ALTER note SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL;
        INSERT INTO wide
            SELECT n, repeat(md5(n::text), 32768), decode(repeat('5c0a', 8192), 'hex')
            FROM generate_series(1, 3) n";
    // Without a key, a table is taken where it is named.
    const CONFIG: &str = "[snapshot]\nconnections = 4\n
        [postgres]\ntables = [\"*.*\", \"public.keyless\", \"public.bare\"]\n
        [kafka.properties]\n\"message.max.bytes\" = 4_000_000\n";
    let topics = [
        "public.keyless",
        "public.bare",
        "public.nobody",
        "public.emptied",
        "Odd_Schema.Tab_le",
        "public.CamelCase",
        "public.camelcase",
        "public.wide",
    ];
    for_each_postgres(async |server| {
        let mut scenario = Scenario::prepare(server, CONFIG, SETUP, &topics).await;
        scenario.run();
        let mut rows = Vec::new();
        for topic in topics {
            rows.push(scenario.events(topic).await);
        }
        let [keyless, bare, nobody, emptied, odd, camel, lower, wide] = &rows[..] else {
            panic!("a topic each")
        };
        let none = Value::Null;
        let twice = read(&none, &json!({"a": 1, "b": "twice"}));
        let nulls = read(&none, &json!({"a": null, "b": null}));
        assert_eq!(short(keyless), json!([twice, twice, nulls]));
        let bare_row = read(&none, &json!({}));
        assert_eq!(short(bare), json!([bare_row, bare_row]));
        assert_eq!((nobody.len(), emptied.len()), (0, 0));
        let row = json!({"I d": 1, "a\"b": "q", "select": 2});
        assert_eq!(short(odd), json!([read(&json!({"I d": 1}), &row)]));
        assert_eq!([source(&odd[0], "schema"), source(&odd[0], "table")], ["Odd Schema", "Tab le"]);
        assert_eq!(short(camel), json!([read(&json!({"Id": 1}), &json!({"Id": 1}))]));
        assert_eq!(short(lower), json!([read(&json!({"id": 2}), &json!({"id": 2}))]));
        assert_eq!(wide.len(), 3);
        let query =
            "SELECT id, note, translate(encode(raw, 'base64'), E'\\n', '') FROM wide ORDER BY id";
        let stored = scenario.client.query(query, &[]).await.expect("read the table");
        let mut wide: Vec<Value> = wide.iter().map(|event| event.short()[3].clone()).collect();
        wide.sort_by_key(|row| row["id"].as_i64());
        for (stored, row) in stored.iter().zip(wide) {
            let (id, note, raw): (i32, &str, &str) = (stored.get(0), stored.get(1), stored.get(2));
            assert_eq!(note.len(), 1 << 20);
            assert!(row == json!({"id": id, "note": note, "raw": raw}), "row {id} is another");
        }
        let (_, status) =
            scenario.bridge.as_ref().expect("it runs").get("/status").expect("a page");
        let status: Value = serde_json::from_str(&status).expect("JSON");
        let tables = status["snapshot"]["tables"].as_array().expect("the tables");
        assert_eq!(tables.len(), topics.len());
        assert!(tables.iter().all(|table| table["phase"] == "done"), "{status}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_globs_match_and_nobody_can_stream_is_told_and_the_rest_is_read() {
    const SETUP: &str = "
        CREATE FOREIGN DATA WRAPPER dummy; CREATE SERVER far FOREIGN DATA WRAPPER dummy;
        CREATE TABLE rides (id int PRIMARY KEY); INSERT INTO rides VALUES (1);
        CREATE VIEW a_view AS SELECT id FROM rides;
        CREATE MATERIALIZED VIEW a_matview AS SELECT id FROM rides;
        CREATE FOREIGN TABLE a_foreign (id int) SERVER far;
        CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY); INSERT INTO scratch VALUES (1);
        CREATE TABLE days (id int, day int, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
        CREATE TABLE days_near PARTITION OF days FOR VALUES FROM (0) TO (10);
        INSERT INTO days VALUES (1, 1)";
    const REASONS: [(&str, &str); 4] = [
        ("public.a_view", "it is a view, and Postgres streams no changes of views"),
        ("public.a_matview", "it is a materialized view"),
        ("public.a_foreign", "it is a foreign table: its rows"),
        ("public.scratch", "it is unlogged, so its changes are in no WAL"),
    ];
    let topics = ["public.rides", "public.days"];
    for_each_postgres(async |server| {
        let mut scenario = Scenario::prepare(server, "", SETUP, &topics).await;
        scenario.run();
        let rides = scenario.events("public.rides").await;
        assert_eq!(short(&rides), json!([read(&json!({"id": 1}), &json!({"id": 1}))]));
        assert_eq!(scenario.events("public.days").await.len(), 1);
        let log = scenario.log();
        let told: Vec<&str> = log.lines().filter(|line| line.contains("not read")).collect();
        assert_eq!(told.len(), REASONS.len(), "{told:?}");
        for (name, reason) in REASONS {
            let is_its = |line: &&&str| line.contains(name) && line.contains(reason);
            assert_eq!(told.iter().filter(is_its).count(), 1, "{name}: {reason} in {told:?}");
        }
        scenario.stop();

        // Named one by one, each is a mistake, and all are told at once.
        let names = REASONS.map(|(name, _)| format!("\"{name}\"")).join(", ");
        let config = format!("[postgres]\ntables = [\"public.rides\", {names}]\n");
        let mut scenario = Scenario::prepare(server, &config, SETUP, &topics).await;
        scenario.launch();
        assert_eq!(scenario.ended(), Some(69), "log:\n{}", scenario.log());
        let log = scenario.log();
        for (name, reason) in REASONS {
            assert!(log.contains(&format!("{name} can't be captured: {reason}")), "log:\n{log}");
            assert!(log.contains(&format!("remove {name} from postgres.tables")), "log:\n{log}");
        }
        let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
        let slots = scenario.client.query_one(slots, &[&scenario.slot()]).await.expect("ask");
        assert_eq!(slots.get::<_, i64>(0), 0, "no slot was made");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_gone_or_emptied_between_plan_and_snapshot_begins_it_anew() {
    const SETUP: &str = "
        CREATE TABLE rides (id int PRIMARY KEY); INSERT INTO rides VALUES (1);
        CREATE TABLE doomed (id int PRIMARY KEY); INSERT INTO doomed VALUES (1);
        CREATE TABLE busy (id int)";
    // A slot waits for all transactions of its server.
    let server = PostgresServer::start(Binaries::newest(), &[]);
    for (change, is_told, left) in [
        ("DROP TABLE doomed", "was dropped while the first snapshot was taken", 0),
        ("TRUNCATE doomed; INSERT INTO doomed VALUES (2)", "public.doomed was rewritten while", 1),
    ] {
        let topics = ["public.rides", "public.doomed", "public.busy"];
        let mut scenario = Scenario::prepare(&server, "", SETUP, &topics).await;
        let long = scenario.connect().await;
        long.batch_execute("BEGIN; INSERT INTO busy VALUES (1)").await.expect("write");
        scenario.launch();
        let bridge = scenario.bridge.as_mut().expect("it was launched");
        // The plan is made before the slot.
        eventually(PATIENCE, "the slot to be waited for", async || {
            let (_, body) = bridge.get("/readyz")?;
            body.contains("creating the slot").then_some(())
        })
        .await;
        scenario.sql(change).await;
        long.batch_execute("COMMIT").await.expect("end the transaction");
        let bridge = scenario.bridge.as_mut().expect("it was launched");
        bridge.wait_until_ready(PATIENCE).unwrap_or_else(|ended| panic!("{change}: {ended:?}"));
        let log = bridge.log();
        assert!(log.contains(is_told), "{is_told:?} in the log:\n{log}");
        let rides = scenario.events("public.rides").await;
        assert_eq!(short(&rides), json!([read(&json!({"id": 1}), &json!({"id": 1}))]));
        let doomed = scenario.events("public.doomed").await;
        let row = read(&json!({"id": 2}), &json!({"id": 2}));
        assert_eq!(short(&doomed), Value::Array(vec![row; left]), "{change}");
        scenario.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_that_the_role_may_not_read_is_told_with_its_grant_which_is_enough() {
    let role = unique("reader");
    let setup = format!(
        "CREATE SCHEMA \"Odd\"; CREATE TABLE \"Odd\".rides (id int PRIMARY KEY);
         CREATE TABLE open (id int PRIMARY KEY);
         INSERT INTO \"Odd\".rides VALUES (1); INSERT INTO open VALUES (1);
         CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON open TO {role}"
    );
    let topics = ["Odd.rides", "public.open"];
    let mut scenario = Scenario::prepare(PostgresServer::shared(), "", &setup, &topics).await;
    let slot = scenario.slot();
    scenario.sql(&format!("CREATE PUBLICATION {slot} FOR ALL TABLES")).await;
    scenario.launch_as(&role);
    assert_eq!(scenario.ended(), Some(69), "log:\n{}", scenario.log());
    let log = scenario.log();
    assert!(!log.contains("may not read public.open"), "log:\n{log}");
    let grants = format!(
        "GRANT USAGE ON SCHEMA \"Odd\" TO \"{role}\";\nGRANT SELECT ON \"Odd\".\"rides\" TO \"{role}\";"
    );
    assert!(log.contains(&grants), "{grants} in the log:\n{log}");
    scenario.sql(&grants).await;
    scenario.run_as(&role);
    for topic in topics {
        let events = scenario.events(topic).await;
        assert_eq!(short(&events), json!([read(&json!({"id": 1}), &json!({"id": 1}))]), "{topic}");
    }
    scenario.stop();
    scenario.sql(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    scenario.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
