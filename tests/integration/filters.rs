//! Filters reach the publication, and what they leave out never reaches Kafka.

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::bridge::{Bridge, EndedEarly};
use crate::support::consume::{OwnedRecord, RecordReader};
use crate::support::kafka::{Brokers, client_config};
use crate::support::postgres::{TestDatabase, for_each_postgres};
use crate::support::{PATIENCE, eventually, unique};

/// The first version whose publications filter columns and rows.
const FILTERS_SINCE: u32 = 15;

/// Columns and row filter of a published table, as the server has them.
async fn published(client: &Client, name: &str, table: &str) -> (Vec<String>, Option<String>) {
    let query = "SELECT attnames::text[], rowfilter FROM pg_publication_tables
                 WHERE pubname = $1 AND tablename = $2";
    let row = client.query_one(query, &[&format!("rowcast_{name}"), &table]).await.expect("ask");
    (row.get(0), row.get(1))
}

/// What is in a table's topic up to the row with `note = 'end'`, of which the topic must have an
/// event; and nothing that holds `secret`.
fn events(brokers: &str, topic: &str) -> Vec<OwnedRecord> {
    let mut reader = RecordReader::open(brokers, &[topic], PATIENCE);
    let ended = |records: &[OwnedRecord]| {
        let is_end = |r: &OwnedRecord| r.json().is_some_and(|v| v["after"]["note"] == "end");
        records.iter().any(is_end)
    };
    reader.until(ended, PATIENCE);
    for record in &reader.records {
        let bytes = [record.key.as_deref(), record.value.as_deref()];
        for text in bytes.into_iter().flatten().map(String::from_utf8_lossy) {
            assert!(!text.contains("secret"), "{text}");
        }
    }
    reader.records
}

fn rows(records: &[OwnedRecord]) -> Vec<(String, Value, Value)> {
    let values = records.iter().filter_map(OwnedRecord::json);
    let row = |value: Value| {
        (
            value["op"].as_str().expect("an op").to_owned(),
            value["before"].clone(),
            value["after"].clone(),
        )
    };
    values.map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn excluded_columns_are_not_in_the_publication_and_never_in_kafka() {
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute(
                "CREATE TABLE riders (id int PRIMARY KEY, note text, ssn text, card_no text);
                 CREATE TABLE full_riders (id int PRIMARY KEY, note text, ssn text);
                 ALTER TABLE full_riders REPLICA IDENTITY FULL;
                 CREATE TABLE keyed (ssn text PRIMARY KEY, note text)",
            )
            .await
            .expect("make tables");
        let name = unique("columns");
        let config = "[tables.\"*.*\"]\nexclude_columns = [\"ssn\", \"card_*\"]\n";
        let bootstrap = brokers.bootstrap();
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &bootstrap, config, PATIENCE);
        if server.major() >= FILTERS_SINCE {
            assert_eq!(published(&client, &name, "riders").await.0, ["id", "note"]);
            // Postgres takes no list there, so the bridge drops the column.
            assert_eq!(published(&client, &name, "full_riders").await.0, ["id", "note", "ssn"]);
            assert!(bridge.log().contains("full_riders are dropped in the bridge"));
            // A key is never cut.
            assert_eq!(published(&client, &name, "keyed").await.0, ["ssn", "note"]);
        }
        client
            .batch_execute(
                "INSERT INTO riders VALUES (1, 'a', 'secret-1', 'secret-2');
                 UPDATE riders SET note = 'b', ssn = 'secret-3';
                 UPDATE riders SET id = 2; DELETE FROM riders;
                 INSERT INTO riders VALUES (3, 'end', 'secret', 'secret');
                 INSERT INTO full_riders VALUES (1, 'a', 'secret-1');
                 UPDATE full_riders SET note = 'b', ssn = 'secret-3'; DELETE FROM full_riders;
                 INSERT INTO full_riders VALUES (3, 'end', 'secret');
                 INSERT INTO keyed VALUES ('key', 'end')",
            )
            .await
            .expect("write");
        let seen = rows(&events(&bootstrap, &format!("{name}.public.riders")));
        assert_eq!(seen[0].2, json!({"id": 1, "note": "a"}));
        assert_eq!(seen[1].2, json!({"id": 1, "note": "b"}));
        let seen = rows(&events(&bootstrap, &format!("{name}.public.full_riders")));
        assert_eq!(seen[1].1, json!({"id": 1, "note": "a"}), "old rows too");
        let keyed = events(&bootstrap, &format!("{name}.public.keyed"));
        assert_eq!(keyed[0].key_text(), Some(r#"{"ssn":"key"}"#));
        assert_eq!(rows(&keyed)[0].2, json!({"note": "end"}));
        assert!(bridge.terminate(PATIENCE).success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_rows_that_the_filter_matches_are_published() {
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute(
                "CREATE TABLE rides (id int PRIMARY KEY, note text);
                 CREATE TABLE days (day date, id int, note text, PRIMARY KEY (day, id))
                     PARTITION BY RANGE (day);
                 CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
            )
            .await
            .expect("make tables");
        let name = unique("rows");
        let config = "[tables.\"public.rides\"]\nwhere = \"id % 2 = 0 -- even\"\n\
                      [tables.\"public.days\"]\nwhere = \"id > 5\"\ncolumns = [\"note\"]\n";
        let bootstrap = brokers.bootstrap();
        let mut bridge = Bridge::start(&name, &database.unix_url, &bootstrap, config);
        if server.major() < FILTERS_SINCE {
            let EndedEarly { status, log } = bridge.wait_until_ready(PATIENCE).expect_err("14");
            assert_eq!(status.code(), Some(69), "log:\n{log}");
            for text in ["tables.\"public.rides\".where", "this server has version 14", "upgrade"] {
                assert!(log.contains(text), "{text} in the log:\n{log}");
            }
            let query = "SELECT count(*) FROM pg_publication";
            let made: i64 = client.query_one(query, &[]).await.expect("ask").get(0);
            assert_eq!(made, 0, "nothing is made before all is well");
            return;
        }
        bridge.wait_until_ready(PATIENCE).unwrap_or_else(|ended| panic!("{}", ended.log));
        let condition = published(&client, &name, "rides").await.1.expect("a row filter");
        assert_eq!(condition, "((id % 2) = 0)");
        let (columns, condition) = published(&client, &name, "days").await;
        assert_eq!((columns.join(" "), condition.as_deref()), ("day id note".into(), Some("(id > 5)")));
        client
            .batch_execute(
                "INSERT INTO rides SELECT i, 'secret' FROM generate_series(1, 9, 2) i;
                 INSERT INTO rides SELECT i, 'even' FROM generate_series(2, 10, 2) i;
                 UPDATE rides SET note = note || '!'; DELETE FROM rides WHERE id = 3;
                 INSERT INTO days VALUES ('2026-11-24', 1, 'secret'), ('2026-11-24', 6, 'six');
                 INSERT INTO rides VALUES (12, 'end'); INSERT INTO days VALUES ('2026-11-25', 7, 'end')",
            )
            .await
            .expect("write");
        let seen = rows(&events(&bootstrap, &format!("{name}.public.rides")));
        assert_eq!(seen.iter().map(|row| row.0.as_str()).collect::<String>(), "cccccuuuuuc");
        let days = events(&bootstrap, &format!("{name}.public.days"));
        assert_eq!(days[0].key_text(), Some(r#"{"day":"2026-11-24","id":6}"#));
        assert_eq!(rows(&days)[0].2, json!({"note": "six"}));
        assert!(bridge.terminate(PATIENCE).success());

        // The same filter is known as the same, however it is written.
        bridge.configure("[tables.\"public.rides\"]\nwhere = \"(id%2)=0\"\n\
                          [tables.\"public.days\"]\nwhere = \"id>5\"\ncolumns = [\"note\"]\n");
        bridge.start_again();
        bridge.wait_until_ready(PATIENCE).expect("it runs");
        assert!(!bridge.log().contains("publication altered"), "log:\n{}", bridge.log());
        assert!(bridge.terminate(PATIENCE).success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_filter_is_published_at_the_next_start_and_logged() {
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        if server.major() < FILTERS_SINCE {
            return;
        }
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute("CREATE TABLE rides (id int PRIMARY KEY, note text, ssn text)")
            .await
            .expect("make a table");
        let name = unique("changed");
        let bootstrap = brokers.bootstrap();
        let mut bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, "", PATIENCE);
        assert!(bridge.terminate(PATIENCE).success());
        for (config, columns, condition) in [
            ("exclude_columns = [\"ssn\"]", vec!["id", "note"], None),
            ("columns = [\"id\"]\nwhere = \"id > 1\"", vec!["id"], Some("(id > 1)")),
            ("where = \"id > 2\"", vec!["id", "note", "ssn"], Some("(id > 2)")),
            ("topic = \"rides\"", vec!["id", "note", "ssn"], None),
        ] {
            bridge.configure(&format!("[tables.\"public.rides\"]\n{config}\n"));
            let altered = bridge.log().matches("publication altered").count();
            bridge.start_again();
            bridge.wait_until_ready(PATIENCE).expect("it runs");
            let (now, filter) = published(&client, &name, "rides").await;
            assert_eq!(
                (now, filter.as_deref()),
                (columns.iter().map(|&c| c.to_owned()).collect(), condition)
            );
            assert_eq!(bridge.log().matches("publication altered").count(), altered + 1);
            assert!(bridge.terminate(PATIENCE).success());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_is_published_unless_it_is_excluded() {
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute("CREATE TABLE riders (id int PRIMARY KEY, note text, ssn text)")
            .await
            .expect("make a table");
        let name = unique("added");
        let config = "[tables.\"*.*\"]\nexclude_columns = [\"ssn*\"]\n";
        let bootstrap = brokers.bootstrap();
        let _bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, config, PATIENCE);
        client
            .batch_execute(
                "INSERT INTO riders VALUES (1, 'a', 'secret');
                 ALTER TABLE riders ADD COLUMN city text, ADD COLUMN ssn_old text;
                 INSERT INTO riders VALUES (2, 'b', 'secret', 'Queens', 'secret')",
            )
            .await
            .expect("write");
        if server.major() >= FILTERS_SINCE {
            eventually(PATIENCE, "the list to follow the table", async || {
                let columns = published(&client, &name, "riders").await.0;
                (columns == ["id", "note", "city"]).then_some(())
            })
            .await;
        }
        client
            .batch_execute("INSERT INTO riders VALUES (3, 'end', 'secret', 'Bronx', 'secret')")
            .await
            .expect("write");
        let seen = rows(&events(&bootstrap, &format!("{name}.public.riders")));
        assert_eq!(seen[2].2, json!({"id": 3, "note": "end", "city": "Bronx"}));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_that_would_break_the_application_are_refused_with_the_fix() {
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        if server.major() < FILTERS_SINCE {
            return;
        }
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute("CREATE TABLE rides (id int PRIMARY KEY, note text)")
            .await
            .expect("make a table");
        let refused = |config: &str| {
            let name = unique("refused");
            let mut bridge =
                Bridge::start(&name, &database.unix_url, &brokers.bootstrap(), config);
            let EndedEarly { status, log } =
                bridge.wait_until_ready(PATIENCE).expect_err("it is refused");
            assert_eq!(status.code(), Some(69), "log:\n{log}");
            log
        };
        let log = refused("[tables.\"public.rides\"]\nwhere = \"note <> 'x'\"\n");
        assert!(log.contains("would refuse every UPDATE and DELETE"), "log:\n{log}");
        assert!(log.contains("REPLICA IDENTITY FULL"), "log:\n{log}");
        let log = refused("[tables.\"public.rides\"]\nwhere = \"no_such > 1\"\n");
        assert!(log.contains("column \\\"no_such\\\" does not exist") || log.contains("column \"no_such\" does not exist"), "log:\n{log}");
        let log = refused("[tables.\"public.rides\"]\ncolumns = [\"x*\"]\n");
        assert!(log.contains("no column of public.rides is left"), "log:\n{log}");
        let log = refused(
            "[tables.\"*.*\"]\nexclude_columns = [\"note\"]\n[tables.\"public.rides\"]\npartitions = 2\n",
        );
        assert!(log.contains("does not apply"), "log:\n{log}");

        // Where old rows are whole, or not asked for, any column may be looked at.
        let name = unique("inserts");
        let config = "[postgres]\nskipped_operations = [\"u\", \"d\", \"t\"]\n\
                      [tables.\"public.rides\"]\nwhere = \"note <> 'x'\"\n";
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &brokers.bootstrap(), config, PATIENCE);
        client
            .batch_execute("INSERT INTO rides VALUES (1, 'x'); UPDATE rides SET note = 'y'; DELETE FROM rides")
            .await
            .expect("the application goes on");
        assert!(bridge.terminate(PATIENCE).success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_of_somebody_else_is_filtered_in_the_bridge_or_refused() {
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        let name = unique("theirs");
        client
            .batch_execute(&format!(
                "CREATE TABLE riders (id int PRIMARY KEY, note text, ssn text);
                 CREATE TABLE staff (id int PRIMARY KEY);
                 CREATE PUBLICATION rowcast_{name} FOR ALL TABLES"
            ))
            .await
            .expect("make a table");
        let config = "[postgres]\nexclude_tables = [\"public.staff\"]\n\
                      [tables.\"public.riders\"]\nexclude_columns = [\"ssn\"]\n";
        let bootstrap = brokers.bootstrap();
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &bootstrap, config, PATIENCE);
        client
            .batch_execute(
                "INSERT INTO riders VALUES (1, 'a', 'secret'); TRUNCATE riders;
                 INSERT INTO staff VALUES (7);
                 INSERT INTO riders VALUES (2, 'end', 'secret')",
            )
            .await
            .expect("write");
        let seen = rows(&events(&bootstrap, &format!("{name}.public.riders")));
        let admin: BaseConsumer = client_config(&bootstrap).create().expect("a client");
        let topics = admin.fetch_metadata(None, PATIENCE).expect("ask for topics");
        let staff = format!("{name}.public.staff");
        assert!(topics.topics().iter().all(|topic| topic.name() != staff), "no topic is made");
        assert!(bridge.log().contains("left out: in the publication"), "{}", bridge.log());
        let operations: String = seen.iter().map(|row| row.0.as_str()).collect();
        assert_eq!(operations, "cc", "truncates are skipped here too");
        assert_eq!(seen[0].2, json!({"id": 1, "note": "a"}));
        assert!(bridge.terminate(PATIENCE).success());

        bridge.configure("[tables.\"public.riders\"]\nwhere = \"id > 1\"\n");
        bridge.start_again();
        let EndedEarly { status, log } = bridge.wait_until_ready(PATIENCE).expect_err("no rows");
        assert_eq!(status.code(), Some(69), "log:\n{log}");
        assert!(
            log.contains("which can't have row filters") || server.major() < FILTERS_SINCE,
            "log:\n{log}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_filter_without_the_right_to_set_it_ends_with_the_sql_for_a_dba() {
    let brokers = Brokers::any();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let name = unique("dba");
    client
        .batch_execute(&format!(
            "CREATE TABLE rides (id int PRIMARY KEY, note text);
             CREATE PUBLICATION rowcast_{name} FOR TABLE rides
                 WITH (publish = 'insert, update, delete')"
        ))
        .await
        .expect("make table and publication");
    let slot = format!("SELECT pg_create_logical_replication_slot('rowcast_{name}', 'pgoutput')");
    client.batch_execute(&slot).await.expect("make a slot");
    let config = "[postgres]\nmanage = false\n[tables.\"public.rides\"]\nwhere = \"id > 1\"\n";
    let bootstrap = brokers.bootstrap();
    let mut bridge = Bridge::start(&name, &database.unix_url, &bootstrap, config);
    let EndedEarly { status, log } = bridge.wait_until_ready(PATIENCE).expect_err("no filter");
    assert_eq!(status.code(), Some(69), "log:\n{log}");
    let statement = format!(
        "ALTER PUBLICATION \"rowcast_{name}\" ADD TABLE ONLY \"public\".\"rides\" WHERE ((id > 1))"
    );
    assert!(log.replace('\\', "").contains(&statement), "log:\n{log}");

    client
        .batch_execute(&format!("ALTER PUBLICATION rowcast_{name} SET TABLE rides WHERE (id > 1)"))
        .await
        .expect("as the DBA");
    bridge.start_again();
    bridge.wait_until_ready(PATIENCE).unwrap_or_else(|ended| panic!("{}", ended.log));
    client
        .batch_execute("INSERT INTO rides VALUES (1, 'secret'), (2, 'end')")
        .await
        .expect("write");
    assert_eq!(events(&bootstrap, &format!("{name}.public.rides")).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_operations_are_not_even_sent_by_the_server() {
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute("CREATE TABLE rides (id int PRIMARY KEY, note text)")
            .await
            .expect("make a table");
        let name = unique("operations");
        let bootstrap = brokers.bootstrap();
        let config = |skipped: &str| format!("[postgres]\nskipped_operations = [{skipped}]\n");
        let start = config("\"u\", \"truncate\"");
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &bootstrap, &start, PATIENCE);
        let publishes = async || {
            let query = "SELECT concat_ws(' ', pubinsert, pubupdate, pubdelete, pubtruncate)
                         FROM pg_publication WHERE pubname = $1";
            let row = client.query_one(query, &[&format!("rowcast_{name}")]).await.expect("ask");
            row.get::<_, String>(0)
        };
        assert_eq!(publishes().await, "t f t f");
        let write = "INSERT INTO rides VALUES (1, 'a'); UPDATE rides SET note = 'b';
                     DELETE FROM rides; TRUNCATE rides; INSERT INTO rides VALUES (2, 'end')";
        client.batch_execute(write).await.expect("write");
        let topic = format!("{name}.public.rides");
        let operations = |records: &[OwnedRecord]| {
            rows(records).into_iter().map(|row| row.0).collect::<String>()
        };
        assert_eq!(operations(&events(&bootstrap, &topic)), "cdc");
        assert!(bridge.terminate(PATIENCE).success());

        bridge.configure(&config(""));
        bridge.start_again();
        bridge.wait_until_ready(PATIENCE).expect("it runs");
        assert_eq!(publishes().await, "t t t t");
        client.batch_execute("TRUNCATE rides").await.expect("truncate");
        client.batch_execute(write).await.expect("write");
        let mut reader = RecordReader::open(&bootstrap, &[&topic], PATIENCE);
        let all = "cdctcudtc";
        reader.until(|records| operations(records).len() == all.len(), PATIENCE);
        assert_eq!(operations(&reader.records), all);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rules_hide_is_neither_in_kafka_nor_in_the_log() {
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        client
            .batch_execute(
                "CREATE DOMAIN mail AS varchar(20);
                 CREATE TABLE riders (id int PRIMARY KEY, note text, card text, email mail, bio varchar(99));
                 ALTER TABLE riders REPLICA IDENTITY FULL",
            )
            .await
            .expect("make a table");
        let name = unique("rules");
        let config = "[log]\nlevel = \"rowcast=trace\"\n[format]\nhash_salt = \"pepper\"\n\
                      [tables.\"public.riders\"]\nmask = { card = 4 }\nhash = [\"email\"]\n\
                      truncate = { bio = 3 }\n";
        let bootstrap = brokers.bootstrap();
        let bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, config, PATIENCE);
        client
            .batch_execute(
                "INSERT INTO riders VALUES (1, 'a', 'secret', 'secret', 'Biosecret');
                 UPDATE riders SET note = 'end', email = NULL",
            )
            .await
            .expect("write");
        let seen = rows(&events(&bootstrap, &format!("{name}.public.riders")));
        // What Postgres itself computes, cut to the 20 characters of the column.
        let query = "SELECT left(encode(sha256(convert_to('pepper' || 'secret', 'UTF8')), 'hex'), 20)";
        let hash: String = client.query_one(query, &[]).await.expect("hash").get(0);
        let row = json!({"id": 1, "note": "a", "card": "****", "email": hash, "bio": "Bio"});
        assert_eq!(seen[0].2, row);
        assert_eq!(seen[1].1, row, "old rows too");
        assert_eq!(seen[1].2["email"], Value::Null);
        let log = bridge.log();
        assert!(!log.contains("secret") && !log.contains("pepper"), "log:\n{log}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_does_not_fit_its_column_stops_the_bridge_with_the_fix() {
    let brokers = Brokers::any();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client
        .batch_execute("CREATE TABLE rides (id int PRIMARY KEY, fare numeric)")
        .await
        .expect("make a table");
    let name = unique("unfit");
    let config = "[tables.\"public.rides\"]\nmask = { fare = 4 }\n";
    let bootstrap = brokers.bootstrap();
    let mut bridge = Bridge::start(&name, &database.unix_url, &bootstrap, config);
    assert_eq!(bridge.wait(PATIENCE).code(), Some(69));
    let log = bridge.log();
    assert!(log.contains("of type numeric"), "log:\n{log}");
    assert!(log.contains("exclude_columns"), "log:\n{log}");
}
