//! A row that can't be published stops the stream, or goes to the dead letter topic and the stream
//! goes on.

use serde_json::json;

use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, at_least, consume};
use crate::support::kafka::Brokers;
use crate::support::postgres::{PostgresServer, TestDatabase, for_each_postgres};
use crate::support::{PATIENCE, unique};

/// What a database may hold that no event can.
const ANY_BYTES: &str = "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
const NOT_UTF8: &str = "convert_from('\\xff68656c6c6f'::bytea, 'SQL_ASCII')";

const SKIP: &str = "[errors]\non_error = \"skip-with-dead-letter\"\n";

fn header<'a>(record: &'a OwnedRecord, name: &str) -> &'a str {
    let found = record.headers.iter().find(|(header, _)| header == name);
    let value = found.and_then(|(_, value)| value.as_deref()).expect("the header");
    std::str::from_utf8(value).expect("text")
}

fn ids(records: &[OwnedRecord]) -> Vec<i64> {
    let id = |r: &OwnedRecord| r.json().and_then(|value| value["after"]["id"].as_i64());
    records.iter().filter_map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_no_text_goes_to_the_dead_letters_and_the_stream_goes_on() {
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        let database = server.database_with(ANY_BYTES).await;
        let client = database.client().await;
        client
            .batch_execute("CREATE TABLE rides (id int PRIMARY KEY, note text, ssn text)")
            .await
            .expect("make a table");
        let name = unique("letters");
        let config = format!("{SKIP}[tables.\"public.rides\"]\nmask = {{ ssn = 3 }}\n");
        let bootstrap = brokers.bootstrap();
        let mut bridge =
            Bridge::start_ready(&name, &database.unix_url, &bootstrap, &config, PATIENCE);
        client
            .batch_execute(&format!(
                "INSERT INTO rides VALUES (1, 'one', 'secret'), (2, {NOT_UTF8}, 'secret'),
                                          (3, {NOT_UTF8}, 'secret'), (4, 'four', 'secret')"
            ))
            .await
            .expect("write");
        let topic = format!("{name}.public.rides");
        let records = consume(&bootstrap, &[&topic], at_least(2), PATIENCE).await;
        assert_eq!(ids(&records), [1, 4], "in order, without the two");

        let topic = format!("{name}.dead-letter");
        let letters = consume(&bootstrap, &[&topic], at_least(2), PATIENCE).await;
        let letter = &letters[0];
        assert_eq!(letter.key_text(), Some(r#"{"id":2}"#));
        let value = letter.json().expect("JSON");
        assert_eq!((&value["schema"], &value["table"]), (&json!("public"), &json!("rides")));
        assert_eq!((&value["op"], &value["ordinal"]), (&json!("c"), &json!(2)));
        let after = json!({"id": "2", "note": {"base64": "/2hlbGxv"}, "ssn": "***"});
        assert_eq!((&value["before"], &value["after"]), (&json!(null), &after));
        assert!(header(letter, "rowcast.error").contains("column \"note\" of table public.rides"));
        assert_eq!(header(letter, "rowcast.table"), "public.rides");
        assert_eq!(header(letter, "rowcast.op"), "c");
        assert_eq!(header(letter, "rowcast.lsn"), value["commit_lsn"].to_string());
        assert_eq!(
            (header(letter, "rowcast.ordinal"), header(&letters[1], "rowcast.ordinal")),
            ("2", "3")
        );

        let (_, metrics) = bridge.get("/metrics").expect("metrics");
        assert!(metrics.contains("rowcast_dead_letters_total 2"), "{metrics}");
        assert!(bridge.terminate(PATIENCE).success(), "it drains as ever");
        let log = bridge.log();
        assert_eq!(log.matches("sent to the dead letter topic").count(), 1, "log:\n{log}");
        assert!(!log.contains("secret") && !log.contains("hello"), "log:\n{log}");

        // All of it was confirmed: nothing comes twice.
        client.batch_execute("INSERT INTO rides VALUES (5, 'five')").await.expect("write");
        bridge.start_again();
        bridge.wait_until_ready(PATIENCE).expect("it runs");
        let topics = [format!("{name}.public.rides"), topic];
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let records = consume(&bootstrap, &topics, at_least(5), PATIENCE).await;
        assert_eq!(records.len(), 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_word_on_it_the_stream_stops_and_says_where() {
    let brokers = Brokers::any();
    for_each_postgres(async |server| {
        let database = server.database_with(ANY_BYTES).await;
        let client = database.client().await;
        client
            .batch_execute("CREATE TABLE rides (id int PRIMARY KEY, note text)")
            .await
            .expect("make a table");
        let name = unique("stops");
        let bootstrap = brokers.bootstrap();
        let mut bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, "", PATIENCE);
        let write = format!("INSERT INTO rides VALUES (1, 'one'), (2, {NOT_UTF8})");
        client.batch_execute(&write).await.expect("write");
        assert_eq!(bridge.wait(PATIENCE).code(), Some(69));
        let log = bridge.log();
        for text in [
            "number 2 of the transaction",
            "note",
            "public.rides",
            "UTF-8",
            "skip-with-dead-letter",
        ] {
            assert!(log.contains(text), "{text} in the log:\n{log}");
        }
        assert!(!log.contains("hello"), "log:\n{log}");

        // Told to go on, it does so from the same row.
        bridge.configure(SKIP);
        bridge.start_again();
        bridge.wait_until_ready(PATIENCE).expect("it runs");
        let topic = format!("{name}.dead-letter");
        let letters = consume(&bootstrap, &[&topic], at_least(1), PATIENCE).await;
        assert_eq!(letters[0].key_text(), Some(r#"{"id":2}"#));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_its_key_is_a_dead_letter_without_one() {
    let brokers = Brokers::any();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client
        .batch_execute("CREATE TABLE rides (id int PRIMARY KEY, zone int, note text)")
        .await
        .expect("make a table");
    let name = unique("keyless");
    let config = format!(
        "[errors]\non_error = \"skip-with-dead-letter\"\ndead_letter_topic = \"{name}-lost\"\n\
         [tables.\"public.rides\"]\nkey = [\"zone\"]\n"
    );
    let bootstrap = brokers.bootstrap();
    let bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, &config, PATIENCE);
    let log = bridge.log();
    assert!(log.contains("leave the row under its old key"), "{log}");
    client
        .batch_execute(
            "INSERT INTO rides VALUES (1, NULL, 'a'), (2, 7, 'b'); DELETE FROM rides WHERE id = 2",
        )
        .await
        .expect("write");
    let topic = format!("{name}-lost");
    let letters = consume(&bootstrap, &[&topic], at_least(2), PATIENCE).await;
    assert!(letters.iter().all(|letter| letter.key.is_none()));
    let value = letters[0].json().expect("JSON");
    assert_eq!(value["after"], json!({"id": "1", "zone": null, "note": "a"}));
    let value = letters[1].json().expect("JSON");
    assert_eq!((&value["op"], &value["before"]), (&json!("d"), &json!({"id": "2"})));
    assert!(header(&letters[1], "rowcast.error").contains("not part of the replica identity"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_no_event_can_have_is_named_alike_in_a_first_snapshot_and_in_the_stream() {
    let brokers = Brokers::any();
    let server = PostgresServer::shared();
    let debezium = "[format]\ntypes = \"debezium\"\n";
    // What is refused, and why; a value that fits, and how the server gets there.
    for (options, config, kind, refused, why) in [
        (
            "",
            debezium,
            "numeric",
            "'NaN'",
            "it can't be published as numeric: at byte 0, expected ",
        ),
        (
            ANY_BYTES,
            "",
            "text",
            NOT_UTF8,
            "it can't be published as text: at byte 0, expected UTF-8 (is the database's encoding",
        ),
    ] {
        let database = server.database_with(options).await;
        let client = database.client().await;
        let bootstrap = brokers.bootstrap();
        let create = format!("CREATE TABLE rides (id int PRIMARY KEY, value {kind})");
        client.batch_execute(&create).await.expect("make a table");
        let insert = format!("INSERT INTO rides VALUES (1, {refused})");
        for is_streamed in [false, true] {
            client.batch_execute("TRUNCATE rides").await.expect("begin without rows");
            let name = unique("refused");
            let url = &database.unix_url;
            let mut bridge = if is_streamed {
                let bridge = Bridge::start_ready(&name, url, &bootstrap, config, PATIENCE);
                client.batch_execute(&insert).await.expect("write");
                bridge
            } else {
                client.batch_execute(&insert).await.expect("write");
                Bridge::start(&name, url, &bootstrap, config)
            };
            assert_eq!(bridge.wait(PATIENCE).code(), Some(69), "log:\n{}", bridge.log());
            let log = bridge.log();
            let (_, last) = log.rsplit_once("error: ").expect("its last words");
            let wanted = format!("encoding column \"value\" of table public.rides: {why}");
            let place = match is_streamed {
                true => "number 1 of the transaction that commits at ",
                false => "encoding a row that the snapshot read: ",
            };
            for text in [&wanted, place, "exclude_columns", "skip-with-dead-letter"] {
                assert!(last.contains(text), "{kind}: no {text:?} in: {last}");
            }
            for text in ["malformed", "text text", "hello"] {
                assert!(!log.contains(text), "{kind}: {text:?} in the log:\n{log}");
            }
        }
    }
}
