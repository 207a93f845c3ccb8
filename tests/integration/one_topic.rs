//! One table, one topic: a table whose topic another one has is left out by name, whatever the rest
//! does, and comes in with its rows once it has a topic of its own.

use serde_json::Value;
use tokio_postgres::Client;

use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, at_least, consume};
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{TestDatabase, for_each_postgres};
use crate::support::{PATIENCE, eventually, unique};

const LOOK: &str = "[postgres]\ndiscover_interval = \"200ms\"\n";

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn logged(bridge: &Bridge, what: &[&str]) {
    eventually(PATIENCE, &what.join(", "), async || {
        let log = bridge.log();
        let is_it = |line: &str| what.iter().all(|part| line.contains(part));
        log.lines().any(is_it).then_some(())
    })
    .await;
}

/// The tables that `/status` says are left out, in order.
fn left_out(bridge: &Bridge) -> Vec<String> {
    let (_, body) = bridge.get("/status").expect("it answers");
    let status: Value = serde_json::from_str(&body).expect("JSON");
    let tables = status["left_out"].as_array().expect("a list").iter();
    let name = |of: &Value| format!("{}|{}", of["schema"], of["table"]).replace('"', "");
    let mut names: Vec<String> = tables.map(name).collect();
    names.sort();
    names
}

async fn until_left_out(bridge: &Bridge, tables: &[&str]) {
    eventually(PATIENCE, &format!("{tables:?} to be left out"), async || {
        (left_out(bridge) == tables).then_some(())
    })
    .await;
}

/// What of each record's row stands in `v`, with its operation, sorted.
fn values(records: &[OwnedRecord]) -> Vec<String> {
    let value = |record: &OwnedRecord| {
        let event = record.json()?;
        Some(format!("{}{}", event["op"].as_str()?, event["after"]["v"].as_str()?))
    };
    let mut values: Vec<String> = records.iter().filter_map(value).collect();
    values.sort();
    values
}

async fn read(brokers: &str, topic: &str, count: usize) -> Vec<String> {
    values(&consume(brokers, &[topic], at_least(count), PATIENCE).await)
}

/// Pairs of which the second table can't have the topic of the first, and that topic.
const PAIRS: [(&str, &str, &str); 4] = [
    (r#""a.b".c"#, r#"a."b.c""#, "a.b.c"),
    ("public.x_y", r#"public."x y""#, "public.x_y"),
    ("public.данные", "public.записи", "public.______"),
    ("d.e_f", "d_e.f", "d.e_f"),
];

#[tokio::test(flavor = "multi_thread")]
async fn of_tables_with_one_topic_the_older_streams_and_the_other_comes_in_by_the_line_in_the_log()
{
    let kafka = kafka_or_skip!();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        run(&client, r#"CREATE SCHEMA a; CREATE SCHEMA "a.b"; CREATE SCHEMA d; CREATE SCHEMA d_e"#)
            .await;
        run(&client, "CREATE TABLE plain (v text PRIMARY KEY); INSERT INTO plain VALUES ('0')")
            .await;
        for (first, second, _) in PAIRS {
            for table in [first, second] {
                let row = format!("INSERT INTO {table} VALUES ('{table} 1')");
                run(&client, &format!("CREATE TABLE {table} (v text PRIMARY KEY); {row}")).await;
            }
        }
        let (name, brokers) = (unique("pairs"), kafka.brokers());
        let bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, LOOK, PATIENCE);
        let out = ["a|b.c", "d_e|f", "public|x y", "public|записи"];
        until_left_out(&bridge, &out).await;
        let (_, metrics) = bridge.get("/metrics").expect("it answers");
        assert!(metrics.contains("rowcast_tables_left_out{reason=\"topic\"} 4"), "{metrics}");
        // What is written to them changes nothing, and is not lost.
        for (first, second, _) in PAIRS {
            for table in [first, second] {
                run(&client, &format!("INSERT INTO {table} VALUES ('{table} 2')")).await;
            }
        }
        for (first, _, topic) in PAIRS {
            let expected = [format!("c{first} 2"), format!("r{first} 1")];
            assert_eq!(read(&brokers, &format!("{name}.{topic}"), 2).await, expected);
        }
        // The lines that the log says to write are what it takes.
        let log = bridge.log();
        let mut config = LOOK.to_owned();
        for line in log.lines().filter(|line| line.contains("ERROR")) {
            let (_, fix) = line.split_once("[tables.").expect("each names a line to write");
            let (section, rest) = fix.split_once("] topic = ").expect("with a topic");
            let topic = rest.split(['"', '\\']).find(|part| part.starts_with(&name)).expect("one");
            config += &format!("[tables.{}]\ntopic = \"{topic}\"\n", section.replace("\\\"", "\""));
        }
        assert_eq!(config.matches("topic = ").count(), 4, "once each:\n{log}");
        bridge.configure(&config);
        bridge.hang_up();
        for ((_, second, _), topic) in PAIRS.iter().zip([
            "a.b_u002ec",
            "public.x_u0020y",
            "public._u0437_u0430_u043f_u0438_u0441_u0438",
            "d_e.f-2",
        ]) {
            let expected = [format!("r{second} 1"), format!("r{second} 2")];
            assert_eq!(read(&brokers, &format!("{name}.{topic}"), 2).await, expected);
        }
        until_left_out(&bridge, &[]).await;
        for (_, second, _) in PAIRS {
            run(&client, &format!("INSERT INTO {second} VALUES ('{second} 3')")).await;
        }
        assert_eq!(read(&brokers, &format!("{name}.public.x_u0020y"), 3).await.len(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_comes_later_or_is_renamed_into_a_topic_is_left_out_and_the_rest_streams_on() {
    let kafka = kafka_or_skip!();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        // The one that is renamed is the older: it had another topic, and does not get this one.
        run(&client, "CREATE TABLE renamed (v text PRIMARY KEY)").await;
        run(&client, "CREATE TABLE x_y (v text PRIMARY KEY)").await;
        let (name, brokers) = (unique("later"), kafka.brokers());
        let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, LOOK, PATIENCE);
        run(&client, "INSERT INTO renamed VALUES ('1'); INSERT INTO x_y VALUES ('1')").await;
        let topic = format!("{name}.public.x_y");
        read(&brokers, &topic, 1).await;

        run(&client, r#"CREATE TABLE "x y" (v text PRIMARY KEY); INSERT INTO "x y" VALUES ('n')"#)
            .await;
        logged(&bridge, &["ERROR", "public.x_y", "x y", "topic = "]).await;
        until_left_out(&bridge, &["public|x y"]).await;
        run(&client, r#"DROP TABLE "x y""#).await;
        until_left_out(&bridge, &[]).await;
        run(
            &client,
            r#"ALTER TABLE renamed RENAME TO "x y"; INSERT INTO "x y" VALUES ('2');
               INSERT INTO x_y VALUES ('2')"#,
        )
        .await;
        until_left_out(&bridge, &["public|x y"]).await;
        // The note of it is durable before anything else is published.
        run(&client, "INSERT INTO x_y VALUES ('2b')").await;
        assert_eq!(read(&brokers, &topic, 3).await, ["c1", "c2", "c2b"]);
        // A kill changes nothing of that.
        bridge.kill();
        bridge.start_again();
        bridge.wait_until_ready(PATIENCE).expect("it goes on");
        run(&client, r#"INSERT INTO "x y" VALUES ('3'); INSERT INTO x_y VALUES ('3')"#).await;
        let seen = read(&brokers, &topic, 4).await;
        assert!(
            seen.iter().all(|value| ["c1", "c2", "c2b", "c3"].contains(&value.as_str())),
            "{seen:?}"
        );
        until_left_out(&bridge, &["public|x y"]).await;
        // Once the topic is free it is the other's, with all its rows.
        run(&client, "DROP TABLE x_y").await;
        until_left_out(&bridge, &[]).await;
        run(&client, r#"INSERT INTO "x y" VALUES ('4')"#).await;
        let all = |records: &[OwnedRecord]| {
            let seen = values(records);
            let has = |rows: &[&str]| rows.iter().any(|row| seen.iter().any(|value| value == row));
            has(&["r1"]) && has(&["r2"]) && has(&["r3"]) && has(&["r4", "c4"])
        };
        consume(&brokers, &[&topic], all, PATIENCE).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_named_as_a_topic_of_rowcasts_own_is_left_out() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    for table in ["message", "transaction", "dead-letter", "rides"] {
        let sql = format!("CREATE TABLE \"{table}\" (v text PRIMARY KEY)");
        run(&client, &format!("{sql}; INSERT INTO \"{table}\" VALUES ('1')")).await;
    }
    let (name, brokers) = (unique("own"), kafka.brokers());
    let config = "[topics]\ntemplate = \"{prefix}.{table}\"\n\
                  [format]\ntransaction_metadata = true\n\
                  [errors]\non_error = \"skip-with-dead-letter\"\n";
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, config, PATIENCE);
    until_left_out(&bridge, &["public|dead-letter", "public|message", "public|transaction"]).await;
    run(&client, "SELECT pg_logical_emit_message(true, 'app', 'hello')").await;
    run(&client, "INSERT INTO rides VALUES ('2'); INSERT INTO message VALUES ('2')").await;
    assert_eq!(read(&brokers, &format!("{name}.rides"), 2).await, ["c2", "r1"]);
    let messages = consume(&brokers, &[&format!("{name}.message")], at_least(1), PATIENCE).await;
    assert!(messages.iter().all(|of| of.json().expect("an event")["op"] == "m"), "no rows");
    assert!(bridge.terminate(PATIENCE).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_publication_for_all_and_single_partitions_are_left_out_one_by_one() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    run(
        &client,
        r#"CREATE TABLE x_y (v text PRIMARY KEY);
           CREATE TABLE days (v text PRIMARY KEY) PARTITION BY LIST (v);
           CREATE TABLE "x y" PARTITION OF days FOR VALUES IN ('1', '2');
           CREATE TABLE days_2 PARTITION OF days FOR VALUES IN ('3', '4');
           INSERT INTO days VALUES ('1'), ('3'); INSERT INTO x_y VALUES ('0')"#,
    )
    .await;
    let brokers = kafka.brokers();
    for is_made in [true, false] {
        let name = unique("leaves");
        if is_made {
            let publication = format!("CREATE PUBLICATION rowcast_{name} FOR ALL TABLES");
            run(&client, &publication).await;
        }
        let config = format!("{LOOK}publish_via_partition_root = false\n");
        let bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, &config, PATIENCE);
        until_left_out(&bridge, &["public|x y"]).await;
        run(&client, "INSERT INTO days VALUES ('2'), ('4')").await;
        assert_eq!(read(&brokers, &format!("{name}.public.days_2"), 2).await, ["c4", "r3"]);
        assert_eq!(read(&brokers, &format!("{name}.public.x_y"), 1).await, ["r0"]);
        // Its rows come with the topic that it is given, those of the time before too.
        let own = format!("{config}[topics]\nescape = \"unicode\"\n");
        bridge.configure(&own);
        bridge.hang_up();
        let expected = ["r1", "r2"];
        assert_eq!(read(&brokers, &format!("{name}.public.x_u0020y"), 2).await, expected);
        until_left_out(&bridge, &[]).await;
        drop(bridge);
        run(&client, "DELETE FROM days WHERE v IN ('2', '4')").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_asked_for_take_no_topic_from_the_table_that_has_it() {
    let kafka = kafka_or_skip!();
    let brokers = kafka.brokers();
    // The table that is left out is created again; or it is a partition of a new table.
    let again = r#"DROP TABLE "x y"; CREATE TABLE "x y" (v text PRIMARY KEY);
                   INSERT INTO "x y" VALUES ('other')"#;
    let partition = r#"CREATE TABLE days (v text PRIMARY KEY) PARTITION BY LIST (v);
                       CREATE TABLE "x y" PARTITION OF days FOR VALUES IN ('other');
                       CREATE TABLE days_2 PARTITION OF days FOR VALUES IN ('second');
                       INSERT INTO days VALUES ('other'), ('second')"#;
    for (change, is_new) in [(again, false), (partition, true)] {
        let database = TestDatabase::create().await;
        let client = database.client().await;
        run(&client, "CREATE TABLE x_y (v text PRIMARY KEY); INSERT INTO x_y VALUES ('1')").await;
        if !is_new {
            run(&client, r#"CREATE TABLE "x y" (v text PRIMARY KEY)"#).await;
        }
        let name = unique("held");
        let config = format!("{LOOK}publish_via_partition_root = false\n");
        let bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, &config, PATIENCE);
        if !is_new {
            until_left_out(&bridge, &["public|x y"]).await;
        }
        run(&client, change).await;
        if is_new {
            assert_eq!(read(&brokers, &format!("{name}.public.days_2"), 1).await, ["rsecond"]);
        } else {
            logged(&bridge, &["this is not the table"]).await;
        }
        until_left_out(&bridge, &["public|x y"]).await;
        // What a look asks for is taken in turn.
        run(&client, "CREATE TABLE late (v text PRIMARY KEY); INSERT INTO late VALUES ('1')").await;
        read(&brokers, &format!("{name}.public.late"), 1).await;
        let topic = format!("{name}.public.x_y");
        for (count, value) in [(2, "2"), (3, "3")] {
            run(&client, &format!("INSERT INTO x_y VALUES ('{value}')")).await;
            let all = read(&brokers, &topic, count).await;
            assert_eq!(all.last(), Some(&"r1".to_owned()), "{all:?}");
            assert_eq!(all.len(), count, "{all:?}");
        }
        assert_eq!(left_out(&bridge), ["public|x y"]);
        // Its rows come once the topic is free.
        run(&client, "DROP TABLE x_y").await;
        until_left_out(&bridge, &[]).await;
        let came = |records: &[OwnedRecord]| values(records).contains(&"rother".to_owned());
        let all = values(&consume(&brokers, &[&topic], came, PATIENCE).await);
        assert_eq!(all, ["c2", "c3", "r1", "rother"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_the_brokers_have_is_in_the_way_of_one_with_its_metrics() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    run(&client, "CREATE TABLE t (v text PRIMARY KEY); CREATE TABLE u (v text PRIMARY KEY)").await;
    let (name, brokers) = (unique("alike"), kafka.brokers());
    let other = format!("{name}_public.t");
    kafka.create_topic(&other, 1, &[]).await;
    let bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, LOOK, PATIENCE);
    logged(&bridge, &["ERROR", &other, "public.t", "topic = "]).await;
    run(&client, "INSERT INTO t VALUES ('1'); INSERT INTO u VALUES ('1')").await;
    assert_eq!(read(&brokers, &format!("{name}.public.u"), 1).await, ["c1"]);
    until_left_out(&bridge, &["public|t"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_come_to_a_row_leaves_no_slot() {
    let kafka = kafka_or_skip!();
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        run(
            &client,
            "CREATE TABLE t (v text PRIMARY KEY, w text); INSERT INTO t VALUES ('1', '2')",
        )
        .await;
        let (name, brokers) = (unique("nothing"), kafka.brokers());
        let slots = async || -> i64 {
            let count = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
            client.query_one(count, &[&format!("rowcast_{name}")]).await.expect("ask").get(0)
        };
        // More replicas than there are brokers: tried again, without a slot.
        let config = "[tables.\"public.t\"]\nreplication_factor = 3\n";
        let mut bridge = Bridge::start(&name, &database.unix_url, &brokers, config);
        logged(&bridge, &["trying again", &format!("{name}.public.t"), "replication"]).await;
        assert_eq!(slots().await, 0);
        bridge.kill();
        for (config, words) in [
            ("[tables.\"public.t\"]\nkey = [\"nowhere\"]\n", "nowhere"),
            ("[tables.\"public.t\"]\nmask = { v = 3 }\n", "mask"),
            ("[topics]\ncreate = false\n", "does not exist"),
            ("[topics]\nsettings = { \"retention.ms\" = \"long\" }\n", "public.t"),
        ] {
            bridge.configure(config);
            bridge.start_again();
            let status = bridge.wait(PATIENCE);
            let log = bridge.log();
            assert!(!status.success() && log.contains(words), "{config}{log}");
            assert_eq!(slots().await, 0, "{config}");
        }
        bridge.configure("");
        bridge.start_again();
        bridge.wait_until_ready(PATIENCE).expect("nothing is in the way");
        assert_eq!(read(&brokers, &format!("{name}.public.t"), 1).await, ["r1"]);
        assert_eq!(slots().await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_very_many_tables_that_are_left_out_the_log_names_a_few_and_the_status_all() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let create = "DO $$ BEGIN FOR n IN 1..70 LOOP
                      EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY)', n);
                  END LOOP; END $$";
    run(&client, create).await;
    let (name, brokers) = (unique("crowd"), kafka.brokers());
    let config = format!("{LOOK}[topics]\ntemplate = \"{{prefix}}.all\"\n");
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, &config, PATIENCE);
    logged(&bridge, &["left out, too", "more=49"]).await;
    assert_eq!(left_out(&bridge).len(), 69);
    run(&client, "INSERT INTO t1 VALUES (1)").await;
    consume(&brokers, &[&format!("{name}.all")], at_least(1), PATIENCE).await;
    let log = bridge.log();
    assert_eq!(log.matches("would share the topic").count(), 20, "log:\n{log}");
    assert!(bridge.terminate(PATIENCE).success());
}
