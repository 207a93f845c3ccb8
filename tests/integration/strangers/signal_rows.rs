//! Signals as rows of `postgres.signal_table`: what may be said by them, and by whom.

use serde_json::{Value, json};

use super::signals::{MEMORY_MB, Scene, scene_with};
use crate::memory::assert_within;
use crate::support::bridge::{Bridge, TRUSTING};
use crate::support::consume::{at_least, consume};
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{PostgresServer, TestDatabase, connect, for_oldest_and_newest};
use crate::support::{PATIENCE, eventually, unique};

/// The table, as Debezium's manual creates it.
pub(super) const TABLE: &str = "CREATE TABLE debezium_signal \
     (id VARCHAR(42) PRIMARY KEY, type VARCHAR(32) NOT NULL, data VARCHAR(2048) NULL);";
pub(super) const CONFIG: &str =
    "[postgres]\nsignal_table = \"public.debezium_signal\"\n[snapshot]\nmode = \"never\"\n";

impl Scene {
    async fn insert(&self, id: &str, kind: &str, data: &str) {
        self.insert_all(&[(id, kind, data)]).await;
    }

    /// In one transaction, as one statement each.
    async fn insert_all(&self, rows: &[(&str, &str, &str)]) {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let insert = |(id, kind, data): &(&str, &str, &str)| {
            format!(
                "INSERT INTO public.debezium_signal (id, type, data) VALUES ({}, {}, {});",
                quoted(id),
                quoted(kind),
                quoted(data)
            )
        };
        let statements: String = rows.iter().map(insert).collect();
        self.client.batch_execute(&format!("BEGIN; {statements} COMMIT")).await.expect("insert");
    }

    fn refused(&self) -> u64 {
        let (_, page) = self.bridge.get("/metrics").expect("metrics");
        let line =
            page.lines().find_map(|line| line.strip_prefix("rowcast_signals_refused_total "));
        line.and_then(|count| count.parse().ok()).expect("a count")
    }

    async fn in_state(&self, id: &str, state: &str) {
        eventually(PATIENCE, &format!("{id} to be {state}"), async || {
            let listed = self.listed();
            let own = listed.as_array()?.iter().find(|listed| listed["id"] == id)?.clone();
            (own["state"] == state).then_some(())
        })
        .await;
    }

    fn ids(&self) -> Vec<String> {
        let listed = self.listed();
        let listed = listed.as_array().expect("a list").iter();
        listed.map(|one| one["id"].as_str().expect("an ID").to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debeziums_own_statements_take_pause_and_stop_snapshots() {
    for_oldest_and_newest(async |server| {
        let scene = scene_with(server, TABLE, CONFIG).await;
        let (rides, regex) = (
            r#"{"data-collections": ["public.rides"], "type": "incremental"}"#,
            r#"{"data-collections": ["public\\.ri.*"], "type": "BLOCKING"}"#,
        );
        scene.insert("ad-hoc-1", "execute-snapshot", rides).await;
        assert_eq!(scene.ended("ad-hoc-1").await["state"], "done");
        let topic = format!("{}.public.rides", scene.name);
        consume(&scene.brokers.bootstrap(), &[&topic], at_least(100), PATIENCE).await;
        scene.insert("ad-hoc-2", "execute-snapshot", regex).await;
        assert_eq!(scene.ended("ad-hoc-2").await["rows"], 100);
        // Paused before it begins, for both are of one transaction.
        for (id, then, data, state) in [
            ("ad-hoc-3", "resume-snapshot", r#"{"type": "incremental"}"#, "done"),
            ("ad-hoc-4", "stop-snapshot", regex, "stopped"),
            ("ad-hoc-5", "stop-snapshot", r#"{"type": "incremental"}"#, "stopped"),
        ] {
            let pause = format!("{id}-pause");
            let pause = (pause.as_str(), "pause-snapshot", r#"{"type": "incremental"}"#);
            scene.insert_all(&[(id, "execute-snapshot", rides), pause]).await;
            scene.in_state(id, "paused").await;
            let others = r#"{"data-collections": ["public.secrets"], "type": "incremental"}"#;
            scene.insert(&format!("{id}-other"), "stop-snapshot", others).await;
            scene.insert(&format!("{id}-then"), then, data).await;
            scene.in_state(id, state).await;
        }
        // Our own words, by the same table; and what Debezium writes there for itself.
        scene.insert("own", "snapshot", r#"{"tables": ["public.rides"]}"#).await;
        assert_eq!(scene.ended("own").await["state"], "done");
        for (id, kind, data) in [
            ("other", "snapshot", r#"{"tables": ["public.rides"], "pipeline": "another"}"#),
            ("1-open", "snapshot-window-open", r#"{"openWindowTimestamp": "now"}"#),
            ("1-close", "snapshot-window-close", r#"{"closeWindowTimestamp": "now"}"#),
        ] {
            scene.insert(id, kind, data).await;
        }
        let rolled_back = "BEGIN; INSERT INTO debezium_signal VALUES ('never', 'snapshot', \
             '{\"tables\": [\"public.rides\"]}'); ROLLBACK";
        scene.client.batch_execute(rolled_back).await.expect("roll back");
        scene.client.batch_execute("DELETE FROM debezium_signal").await.expect("clear it");
        scene.seen().await;
        let ids = ["ad-hoc-1", "ad-hoc-2", "ad-hoc-3", "ad-hoc-4", "ad-hoc-5", "own"];
        assert_eq!(scene.ids(), ids);
        assert_eq!(scene.refused(), 0);
        // It has no topic, though postgres.tables is *.*, and is no table that is left out.
        let log = scene.bridge.log();
        assert!(!log.contains("public.debezium_signal\" partitions"), "{log}");
        let (_, status) = scene.bridge.get("/status").expect("an answer");
        assert!(!status.contains("debezium_signal"), "{status}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
async fn whoever_may_insert_gives_signals_and_nothing_beyond_them() {
    for_oldest_and_newest(async |server| {
        let scene = scene_with(server, TABLE, CONFIG).await;
        let (stranger, operator) = (unique("stranger"), unique("operator"));
        let victim = unique("victim");
        for setup in [
            format!("CREATE ROLE {stranger} LOGIN; CREATE ROLE {operator} LOGIN"),
            format!("GRANT INSERT ON debezium_signal TO {operator}"),
            "ALTER TABLE debezium_signal ALTER data TYPE text".to_owned(),
            format!("SELECT pg_create_logical_replication_slot('{victim}', 'pgoutput')"),
        ] {
            scene.client.batch_execute(&setup).await.expect("set it up");
        }
        let of = |role: &str| scene.database.unix_url.replace("postgres@", &format!("{role}@"));
        let insert = "INSERT INTO public.debezium_signal VALUES ($1, $2, $3)";
        let refused = connect(&of(&stranger)).await.execute(insert, &[&"1", &"stop", &"{}"]).await;
        assert_eq!(refused.expect_err("no right").code().map(|code| code.code()), Some("42501"));

        let client = connect(&of(&operator)).await;
        let with = |condition: &str| {
            json!({"data-collections": ["public.rides"], "additional-conditions":
                [{"data-collection": "public.rides", "filter": condition}]})
            .to_string()
        };
        let names: Vec<String> = (0..60_000).map(|n| format!("public.t{n}.*")).collect();
        let attacks = [
            with(&format!("(select true from pg_drop_replication_slot('{victim}'))")),
            with("(select string_agg(pw,',') from public.secrets)::int = 1"),
            with(&"1".repeat(2_000_000)),
            json!({"data-collections": names}).to_string(),
            json!({"data-collections": vec!["a.*(x|y){99}"; 1_000]}).to_string(),
            "hunter2, as it is".to_owned(),
            "[".repeat(60_000),
        ];
        for (n, attack) in (1..).zip(&attacks) {
            client
                .execute(insert, &[&n.to_string(), &"execute-snapshot", attack])
                .await
                .expect("insert");
        }
        scene.seen().await;
        assert_eq!(scene.refused(), attacks.len() as u64);
        assert_eq!(scene.listed(), json!([]), "nothing was taken up");
        // Many in one transaction are counted, and not each is logged.
        let many = "INSERT INTO public.debezium_signal \
                    SELECT 'many' || n, 'hunter2', NULL FROM generate_series(1, 1000) n";
        client.execute(many, &[]).await.expect("insert");
        scene.seen().await;
        assert_eq!(scene.refused(), attacks.len() as u64 + 1_000);
        let log = scene.bridge.log();
        let lines = log.matches("ignoring an invalid row of the signal table").count();
        assert!((1..30).contains(&lines), "{lines} lines: {log}");
        assert!(!log.contains("hunter2"), "{log}");
        assert_within(&scene.bridge, MEMORY_MB, "rows that are no signals");

        let right = r#"{"tables": ["public.rides"]}"#;
        client.execute(insert, &[&"right", &"snapshot", &right]).await.expect("insert");
        assert_eq!(scene.ended("right").await["state"], "done");
        let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
        let left = scene.client.query_one(slots, &[&victim]).await.expect("ask");
        assert_eq!(left.get::<_, i64>(0), 1, "the slot is still there");
        drop(client);
        let end = format!(
            "SELECT pg_drop_replication_slot('{victim}'); DROP OWNED BY {operator};
             DROP ROLE {operator}, {stranger}"
        );
        for statement in end.split(';') {
            scene.client.batch_execute(statement).await.expect("clean up");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_a_signal_once_however_often_rowcast_is_killed() {
    let kafka = kafka_or_skip!().brokers();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let rides = "CREATE TABLE rides (id int PRIMARY KEY, fare int);
                 INSERT INTO rides SELECT n, n FROM generate_series(1, 100) n;";
    client.batch_execute(&format!("{rides}{TABLE}")).await.expect("make tables");
    let name = unique("rows");
    let config = format!("{TRUSTING}delivery = \"exactly-once\"\n{CONFIG}");
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &kafka, &config, PATIENCE);
    for fare in [10, 20, 30] {
        let data = json!({"data-collections": ["public.rides"], "additional-conditions":
            [{"data-collection": "public.rides", "filter": format!("fare = {fare}")}]});
        let insert = "INSERT INTO debezium_signal VALUES ($1, 'execute-snapshot', $2)";
        let row: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
            [&fare.to_string(), &data.to_string()];
        client.execute(insert, &row).await.expect("insert");
        bridge.kill();
        bridge.start_again();
        bridge.wait_until_ready(PATIENCE).expect("it runs");
    }
    let topic = format!("{name}.public.rides");
    let read = consume(&kafka, &[&topic], at_least(3), PATIENCE).await;
    client.execute("INSERT INTO rides VALUES (101, 101)", &[]).await.expect("insert");
    let all = consume(&kafka, &[&topic], at_least(read.len() + 1), PATIENCE).await;
    assert!(bridge.terminate(PATIENCE).success());
    let fares: Vec<Value> =
        all.iter().filter_map(|record| Some(record.json()?["after"]["fare"].clone())).collect();
    assert_eq!(fares, [10, 20, 30, 101]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_table_that_is_named_exactly_is_published_too() {
    let config = CONFIG
        .replace("[snapshot]", "tables = [\"public.*\", \"public.debezium_signal\"]\n[snapshot]");
    let scene = scene_with(PostgresServer::shared(), TABLE, &config).await;
    scene.insert("1", "snapshot", r#"{"tables": ["public.rides"]}"#).await;
    assert_eq!(scene.ended("1").await["state"], "done");
    let topic = format!("{}.public.debezium_signal", scene.name);
    let rows = consume(&scene.brokers.bootstrap(), &[&topic], at_least(1), PATIENCE).await;
    assert_eq!(rows[0].json().expect("a row")["after"]["type"], "snapshot");
}
