//! Snapshots while the stream runs: any key, a part, commits that nobody sees yet, tables that change
//! meanwhile, neighbours.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::incremental::{LONG, confirmed, op, records};
use crate::support::bridge::{Bridge, TRUSTING};
use crate::support::consume::{OwnedRecord, checkpoint};
use crate::support::kafka::{KafkaNode, produce};
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, for_each_postgres};
use crate::support::{PATIENCE, eventually, unique};

/// Asks for a snapshot in the stream.
async fn signal(client: &Client, content: &Value) {
    let emit = "SELECT pg_logical_emit_message(true, 'rowcast.signal', $1)";
    client.query(emit, &[&crate::support::bridge::signal(content)]).await.expect("signal");
}

/// Waits until so many snapshots are done.
async fn done(bridge: &Bridge, count: usize) {
    eventually(LONG, "snapshots to be done", async || {
        (bridge.log().matches("snapshot done").count() >= count).then_some(())
    })
    .await;
}

/// The values of a table's topic, `[op, after]` each.
async fn events(brokers: &str, topic: String) -> Vec<(String, Value)> {
    let records = records(brokers, topic).await;
    let values = records.iter().filter_map(OwnedRecord::json);
    values.map(|value| (op(&value).to_owned(), value["after"].clone())).collect()
}

/// A table with its pipeline.
struct Small {
    client: Client,
    bridge: Bridge,
    name: String,
    brokers: String,
    database: TestDatabase,
}

impl Small {
    async fn start(server: &PostgresServer, setup: &str, config: &str) -> Option<Self> {
        Self::start_as("postgres", server, setup, config).await
    }

    /// The same with a bridge that logs in as this role.
    async fn start_as(
        role: &str,
        server: &PostgresServer,
        setup: &str,
        config: &str,
    ) -> Option<Self> {
        let brokers = KafkaNode::shared().ok()?.brokers();
        let database = server.database().await;
        let client = database.client().await;
        client.batch_execute(setup).await.expect(setup);
        let name = unique("small");
        let config =
            format!("{TRUSTING}{config}\n[topics]\npartitions = 1\n[snapshot]\nmode = \"never\"\n");
        let url = database.unix_url.replace("postgres@", &format!("{role}@"));
        let bridge = Bridge::start_ready(&name, &url, &brokers, &config, PATIENCE);
        Some(Self { client, bridge, name, brokers, database })
    }

    async fn sql(&self, sql: &str) {
        self.client.batch_execute(sql).await.expect(sql);
    }

    /// Names the synchronous standbys, and waits until that holds.
    async fn standbys(&self, names: &str) {
        self.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'")).await;
        self.sql("SELECT pg_reload_conf()").await;
        eventually(PATIENCE, "the setting", async || {
            let shown = self.client.query_one("SHOW synchronous_standby_names", &[]).await;
            (shown.expect("ask").get::<_, &str>(0) == names).then_some(())
        })
        .await;
    }

    /// All events of a table so far, once all that was written is published.
    async fn events(&self, table: &str) -> Vec<(String, Value)> {
        confirmed(&self.client, &self.name).await;
        events(&self.brokers, format!("{}.public.{table}", self.name)).await
    }
}

fn reads(events: &[(String, Value)]) -> Vec<&Value> {
    events.iter().filter(|(op, _)| op == "r").map(|(_, after)| after).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_key_of_any_type_is_read_whole_once_with_gaps_and_with_one_row_and_with_none() {
    for_each_postgres(async |server| {
        let setup = "
            CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
            CREATE DOMAIN code AS varchar(9);
            CREATE TABLE numbers (k numeric PRIMARY KEY);
            INSERT INTO numbers SELECT n * abs(n) * 0.37 FROM generate_series(-900, 2000) n;
            INSERT INTO numbers VALUES ('NaN'), ('1e30');
            CREATE TABLE times (k timestamptz, s \"char\", PRIMARY KEY (k, s));
            INSERT INTO times SELECT '2024-01-01'::timestamptz + n * interval '1 ms', 'a'
                FROM generate_series(1, 2500) n;
            INSERT INTO times VALUES ('infinity', 'b'), ('-infinity', 'c'), ('0044-03-15 BC', 'd');
            CREATE TABLE mixed (m mood, c code, b bytea, f float8, PRIMARY KEY (m, c, b, f));
            INSERT INTO mixed SELECT (ARRAY['ok', 'sad', 'happy']::mood[])[1 + n % 3], 'c' || n % 7,
                decode(to_hex(n + 4096), 'hex'), n / 7.0 FROM generate_series(1, 2500) n;
            CREATE TABLE chosen (a int NOT NULL, b text NOT NULL, x int, PRIMARY KEY (b));
            CREATE UNIQUE INDEX chosen_a ON chosen (a);
            ALTER TABLE chosen REPLICA IDENTITY USING INDEX chosen_a;
            INSERT INTO chosen SELECT n * 13, 'b' || n, n FROM generate_series(1, 1500) n;
            CREATE TABLE \"Odd 'one\" (\"The Key\" text PRIMARY KEY, \"a\"\"b\" int);
            INSERT INTO \"Odd 'one\" VALUES (E'\\\\''\\t', 1);
            CREATE TABLE nothing (k uuid PRIMARY KEY)";
        let Some(small) = Small::start(server, setup, "memory = \"8MB\"").await else { return };
        signal(&small.client, &json!({"type": "snapshot", "tables": ["public.*"]})).await;
        done(&small.bridge, 6).await;
        let log = small.bridge.log();
        assert!(!log.contains("snapshot failed"), "{log}");
        for (table, rows) in [("numbers", 2903), ("times", 2503), ("mixed", 2500), ("chosen", 1500)]
        {
            let events = small.events(table).await;
            let mut read: Vec<String> = reads(&events).iter().map(ToString::to_string).collect();
            assert_eq!(read.len(), rows, "{table}");
            read.sort_unstable();
            read.dedup();
            assert_eq!(read.len(), rows, "{table}: each once");
        }
        let odd = events(&small.brokers, format!("{}.public.Odd__one", small.name)).await;
        assert_eq!(reads(&odd), [&json!({"The Key": "\\'\t", "a\"b": 1})]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_on_a_column_that_may_hold_nulls_still_leads_no_snapshot() {
    let server = PostgresServer::shared();
    if server.major() < 18 {
        return;
    }
    let setup = "CREATE TABLE old (id int, n int);
        INSERT INTO old SELECT NULL, n FROM generate_series(1, 1500) n;
        INSERT INTO old SELECT n, n FROM generate_series(1501, 3000) n;
        ALTER TABLE old ADD NOT NULL id NOT VALID;
        CREATE UNIQUE INDEX old_id ON old (id);
        ALTER TABLE old REPLICA IDENTITY FULL";
    let Some(small) = Small::start(server, setup, "").await else { return };
    signal(&small.client, &json!({"type": "snapshot", "tables": ["public.old"]})).await;
    done(&small.bridge, 1).await;
    let events = small.events("old").await;
    let mut read: Vec<i64> = reads(&events).iter().filter_map(|row| row["n"].as_i64()).collect();
    read.sort_unstable();
    assert_eq!(read, (1..=3000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_asked_for_is_read_and_no_more_and_through_the_publications_filters() {
    let server = PostgresServer::shared();
    let setup = "CREATE TABLE rides (id int PRIMARY KEY, fare int, secret text);
                 INSERT INTO rides SELECT n, n % 10, 's' FROM generate_series(1, 1000) n;
                 CREATE TABLE parts (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
                 CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
                 CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
                 INSERT INTO parts SELECT n, n % 200 FROM generate_series(1, 1000) n;
                 ANALYZE parts";
    let config =
        "[tables.\"public.rides\"]\nexclude_columns = [\"secret\"]\nwhere = \"id > 500\"\n";
    let Some(small) = Small::start(server, setup, config).await else { return };
    let asked = json!({"type": "snapshot", "tables": ["public.rides"], "where": "fare = 3 -- few"});
    signal(&small.client, &asked).await;
    signal(&small.client, &json!({"type": "snapshot", "tables": ["public.parts"]})).await;
    done(&small.bridge, 2).await;
    let events = small.events("rides").await;
    let read = reads(&events);
    assert_eq!(read.len(), 50);
    assert!(read.iter().all(|row| row["id"].as_i64() > Some(500) && row.get("secret").is_none()));
    // Under the root's name, as changes are.
    assert_eq!(reads(&small.events("parts").await).len(), 1000);
    let (_, page) = small.bridge.get("/snapshots").expect("it answers");
    let listed: Value = serde_json::from_str(&page).expect("JSON");
    let parts = listed["snapshots"].as_array().expect("a list");
    let parts = parts.iter().find(|of| of["table"] == "public.parts").expect("it was asked for");
    assert_eq!(parts["rows_estimated"], 1000, "each row once, the root's own count not added");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_streamed_and_not_visible_yet_is_never_followed_by_an_older_row() {
    // Nobody by that name is there: commits are written and streamed, and wait.
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let setup = "CREATE TABLE rides (id int PRIMARY KEY, v int);
                 INSERT INTO rides VALUES (1, 1), (2, 1)";
    let Some(small) = Small::start(&server, setup, "").await else { return };
    small.standbys("nobody").await;
    let writer = small.database.client().await;
    let update = tokio::spawn(async move {
        writer.batch_execute("UPDATE rides SET v = 2 WHERE id = 1").await.expect("write");
    });
    let topic = format!("{}.public.rides", small.name);
    let updated = async |brokers: &str| {
        events(brokers, topic.clone()).await.iter().any(|(op, after)| op == "u" && after["v"] == 2)
    };
    eventually(PATIENCE, "the update in the topic", async || {
        updated(&small.brokers).await.then_some(())
    })
    .await;
    let seen = small.client.query_one("SELECT v FROM rides WHERE id = 1", &[]).await;
    assert_eq!(seen.expect("read").get::<_, i32>(0), 1, "nobody sees it yet");

    small.sql("SET synchronous_commit = local").await;
    signal(&small.client, &json!({"type": "snapshot", "tables": ["public.rides"]})).await;
    eventually(PATIENCE, "the snapshot to wait", async || {
        small.bridge.log().contains("is not visible yet").then_some(())
    })
    .await;
    assert!(!small.bridge.log().contains("snapshot done"));
    small.standbys("").await;
    update.await.expect("it ends");
    done(&small.bridge, 1).await;
    let events = small.events("rides").await;
    let of_one: Vec<i64> = events
        .iter()
        .filter(|(_, after)| after["id"] == 1)
        .map(|(_, after)| after["v"].as_i64().expect("a number"))
        .collect();
    assert_eq!(of_one, [2, 2], "the update, and the row as it left it");
    assert_eq!(reads(&events).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_see_who_waits_for_standbys_is_told_once_what_it_lacks() {
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let role = unique("blind");
    let setup = format!(
        "CREATE ROLE {role} LOGIN REPLICATION;
         ALTER ROLE postgres SET synchronous_commit = local;
         CREATE TABLE rides (id int PRIMARY KEY); CREATE TABLE zones (id int PRIMARY KEY);
         INSERT INTO rides VALUES (1); INSERT INTO zones VALUES (1);
         ALTER TABLE rides OWNER TO {role}; ALTER TABLE zones OWNER TO {role};
         DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {role}', current_database());
         END $$"
    );
    let Some(small) = Small::start_as(&role, &server, &setup, "").await else { return };
    small.standbys("nobody").await;
    small.sql("SET synchronous_commit = local").await;
    // Somebody may wait for a standby, for all that the role can see.
    let runs = small.database.client().await;
    runs.batch_execute("BEGIN; INSERT INTO zones VALUES (2)").await.expect("write");
    small.sql("INSERT INTO rides VALUES (2)").await;
    signal(&small.client, &json!({"type": "snapshot", "tables": ["public.*"]})).await;
    eventually(PATIENCE, "the snapshot to wait", async || {
        small.bridge.log().contains("is not visible yet").then_some(())
    })
    .await;
    runs.batch_execute("COMMIT").await.expect("commit");
    done(&small.bridge, 2).await;
    let log = small.bridge.log();
    let fix = format!("GRANT pg_read_all_stats TO \\\"{role}\\\";");
    assert_eq!(log.matches(&fix).count(), 1, "{log}");
    assert_eq!(reads(&small.events("rides").await).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_before_a_table_was_published_and_committed_after_is_read() {
    let server = PostgresServer::shared();
    let setup = "CREATE TABLE seeds (id int PRIMARY KEY);
                 CREATE TABLE rides (id int PRIMARY KEY); INSERT INTO rides VALUES (1)";
    let config = |tables: &str| format!("[postgres]\ntables = [{tables}]\n");
    let Some(mut small) = Small::start(server, setup, &config("\"public.seeds\"")).await else {
        return;
    };
    assert!(small.bridge.terminate(PATIENCE).success());
    let writer = small.database.client().await;
    writer.batch_execute("BEGIN; INSERT INTO rides VALUES (2)").await.expect("write");
    small.bridge.configure(&config("\"public.seeds\", \"public.rides\""));
    small.bridge.start_again();
    eventually(PATIENCE, "the snapshot to wait for the writer", async || {
        let log = small.bridge.log();
        (log.contains("publication altered")
            && log.contains("began before the table was published"))
        .then_some(())
    })
    .await;
    // Killed now, it is not forgotten.
    small.bridge.kill();
    small.bridge.start_again();
    writer.batch_execute("INSERT INTO rides VALUES (3); COMMIT").await.expect("write");
    done(&small.bridge, 1).await;
    let events = small.events("rides").await;
    let mut ids: Vec<i64> =
        events.iter().map(|(_, after)| after["id"].as_i64().expect("an id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pipelines_on_one_database_do_not_take_each_others_watermarks() {
    let server = PostgresServer::shared();
    let setup = "CREATE TABLE rides (id int PRIMARY KEY);
                 INSERT INTO rides SELECT generate_series(1, 5000)";
    let Some(small) = Small::start(server, setup, "memory = \"8MB\"").await else { return };
    let name = unique("second");
    let (url, brokers) = (&small.database.unix_url, &small.brokers);
    let config = "memory = \"8MB\"\n[topics]\npartitions = 1\n[snapshot]\nmode = \"never\"\n";
    let config = &format!("{TRUSTING}{config}");
    let second = Bridge::start_ready(&name, url, brokers, config, PATIENCE);
    signal(&small.client, &json!({"type": "snapshot", "tables": ["public.rides"]})).await;
    done(&small.bridge, 1).await;
    done(&second, 1).await;
    confirmed(&small.client, &name).await;
    assert_eq!(small.events("rides").await.len(), 5000);
    assert_eq!(events(brokers, format!("{name}.public.rides")).await.len(), 5000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_altered_or_emptied_or_dropped_while_it_is_read_is_no_failure() {
    let server = PostgresServer::shared();
    let setup = "CREATE TABLE rides (id int PRIMARY KEY, v text);
                 INSERT INTO rides SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n;
                 CREATE TABLE gone (LIKE rides INCLUDING ALL);
                 INSERT INTO gone SELECT * FROM rides";
    let config = "memory = \"8MB\"\n[postgres]\nskipped_operations = []\n";
    let Some(small) = Small::start(server, setup, config).await else { return };
    let tables = json!({"type": "snapshot", "tables": ["public.gone", "public.rides"]});
    signal(&small.client, &tables).await;
    let topic = format!("{}.public.rides", small.name);
    let some = async || (!events(&small.brokers, topic.clone()).await.is_empty()).then_some(());
    eventually(LONG, "some rows", some).await;
    small.sql("DROP TABLE gone").await;
    small.sql("ALTER TABLE rides ADD more int DEFAULT 7").await;
    small.sql("UPDATE rides SET more = 8 WHERE id % 100 = 0").await;
    eventually(LONG, "both to end", async || {
        let log = small.bridge.log();
        let ended = log.matches("snapshot done").count() + log.matches("snapshot stopped").count();
        (ended == 2).then_some(())
    })
    .await;
    let mut rows: BTreeMap<i64, Value> = BTreeMap::new();
    for (_, after) in small.events("rides").await {
        rows.insert(after["id"].as_i64().expect("an id"), after);
    }
    assert_eq!(rows.len(), 20_000);
    assert!(rows.iter().all(|(id, row)| id % 100 != 0 || row["more"] == 8));

    signal(&small.client, &json!({"type": "snapshot", "tables": ["public.rides"]})).await;
    let before = small.events("rides").await.len();
    small.sql("TRUNCATE rides; INSERT INTO rides VALUES (1, 'new', 1)").await;
    done(&small.bridge, small.bridge.log().matches("snapshot done").count().max(2)).await;
    let after = small.events("rides").await;
    let emptied = after.iter().rposition(|(op, _)| op == "t").expect("it was emptied");
    assert!(emptied >= before || before > 0);
    assert!(after[emptied + 1..].iter().all(|(_, row)| row["id"] == 1), "nothing rises again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_first_snapshot_left_is_read_beside_the_stream_and_nothing_of_it_is_missed() {
    let server = PostgresServer::shared();
    let setup = "CREATE TABLE rides (id int PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
                 INSERT INTO rides SELECT n, repeat('x', 300) FROM generate_series(1, 2000) n";
    let Some(mut small) = Small::start(server, setup, "").await else { return };
    let text = async |query: &str| -> String {
        small.client.query_one(query, &[]).await.expect(query).get(0)
    };
    let shows = text("SELECT pg_current_snapshot()::text").await;
    let oid = text("SELECT 'rides'::regclass::oid::text").await;
    let filenode = text("SELECT pg_relation_filenode('rides')::text").await;
    let pages = text("SELECT (pg_relation_size('rides') / 8192)::text").await;
    let half = pages.parse::<u32>().expect("a number") / 2;
    let of_half = format!("SELECT count(*)::text FROM rides WHERE ctid < '({half},0)'");
    let read_before: usize = text(&of_half).await.parse().expect("a number");
    assert!(small.bridge.terminate(PATIENCE).success());
    // As a first snapshot leaves it that was cut off behind half of the pages.
    let (brokers, name) = (small.brokers.clone(), small.name.clone());
    let read = move || checkpoint(&brokers, &name).expect("a checkpoint");
    let found = tokio::task::spawn_blocking(read).await.expect("reading does not panic");
    let mut json = Vec::new();
    found.write(&mut json);
    let mut json: Value = serde_json::from_slice(&json).expect("JSON");
    json["generation"] = json!(json["generation"].as_u64().expect("a number") + 1);
    let number = |text: &str| text.parse::<u64>().expect("a number");
    json["snapshot"] = json!({"tables": [{
        "id": "first", "schema": "public", "table": "rides", "reason": "first",
        "progress": {"pages": {"lsn": json["through_lsn"], "shows": shows, "leaves": [
            {"oid": number(&oid), "filenode": number(&filenode), "done": [[0, half]]}]}}}]});
    produce(&small.brokers, "rowcast.checkpoints", &[(&small.name, &json.to_string())]).await;
    // One that was missing moves into pages that were read, one leaves its place.
    small.sql("DELETE FROM rides WHERE id <= 10").await;
    small.sql("VACUUM rides").await;
    small.sql("UPDATE rides SET v = v || 'y' WHERE id IN (1990, 1991)").await;
    small.bridge.start_again();
    done(&small.bridge, 1).await;
    let events = small.events("rides").await;
    let mut ids: Vec<i64> =
        reads(&events).iter().map(|row| row["id"].as_i64().expect("an id")).collect();
    ids.sort_unstable();
    let before = i64::try_from(read_before).expect("few");
    assert_eq!(ids, (before + 1..=2000).collect::<Vec<_>>(), "those that were missing, each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tables_are_read_in_turn_and_wait_and_go_on_and_end_as_they_are_told() {
    let server = PostgresServer::shared();
    let setup = "CREATE TABLE rides (id int PRIMARY KEY, v text);
                 INSERT INTO rides SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n;
                 CREATE TABLE zones (LIKE rides INCLUDING ALL);
                 INSERT INTO zones SELECT * FROM rides;
                 CREATE TABLE stopped (LIKE rides INCLUDING ALL);
                 INSERT INTO stopped SELECT * FROM rides";
    let config = "delivery = \"exactly-once\"\nmemory = \"8MB\"";
    let Some(mut small) = Small::start(server, setup, config).await else { return };
    let tables = json!(["public.rides", "public.zones"]);
    signal(&small.client, &json!({"type": "snapshot", "id": "a", "tables": tables})).await;
    let stopped = json!({"type": "snapshot", "id": "b", "tables": ["public.stopped"]});
    signal(&small.client, &stopped).await;
    let topics =
        ["rides", "zones", "stopped"].map(|table| format!("{}.public.{table}", small.name));
    for topic in &topics {
        eventually(LONG, "some rows of each", async || {
            (!events(&small.brokers, topic.clone()).await.is_empty()).then_some(())
        })
        .await;
    }
    signal(&small.client, &json!({"type": "pause", "id": "a"})).await;
    signal(&small.client, &json!({"type": "stop", "id": "b"})).await;
    let stands = async |brokers: &str, name: &str| {
        let (brokers, name) = (brokers.to_owned(), name.to_owned());
        let read = move || checkpoint(&brokers, &name).expect("a checkpoint").snapshots;
        tokio::task::spawn_blocking(read).await.expect("reading does not panic")
    };
    eventually(LONG, "both to wait", async || {
        let stands = stands(&small.brokers, &small.name).await;
        let waits = stands.tables.iter().all(|table| table.id == "a" && table.is_paused);
        (waits && stands.tables.len() == 2).then_some(())
    })
    .await;
    // What waits goes on waiting, whatever becomes of the process.
    small.bridge.kill();
    small.bridge.start_again();
    small.bridge.wait_until_ready(PATIENCE).expect("it streams");
    let before = small.events("rides").await.len();
    small.sql("INSERT INTO rides VALUES (0, 'new')").await;
    assert_eq!(small.events("rides").await.len(), before + 1, "nothing is read while it waits");
    signal(&small.client, &json!({"type": "resume", "id": "a"})).await;
    done(&small.bridge, 2).await;
    for table in ["rides", "zones"] {
        let events = small.events(table).await;
        let mut ids: Vec<i64> =
            reads(&events).iter().map(|row| row["id"].as_i64().expect("an id")).collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=20_000).collect::<Vec<_>>(), "{table}: each once");
    }
    let read = small.events("stopped").await.len();
    assert!(read < 20_000, "it ended where it was: {read}");
}
