//! A row that is larger than Kafka takes stops the stream with its fix, goes to the dead letters
//! without its values, or is cut to fit; and nothing after it is lost.

use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use serde_json::json;
use tokio_postgres::Client;

use crate::support::bridge::Bridge;
use crate::support::consume::{OwnedRecord, at_least, consume};
use crate::support::kafka::{KafkaNode, admin, kafka_or_skip};
use crate::support::postgres::TestDatabase;
use crate::support::{PATIENCE, eventually, unique};

/// Takes batches of 20,000 bytes, and the client makes no larger ones.
const SMALL: &str = "[kafka.properties]\n\"batch.size\" = 20_000\n\
                     [topics.settings]\n\"max.message.bytes\" = \"20000\"\n";

/// Text that no codec makes smaller, the same at every run.
fn random(bytes: u32) -> String {
    let blocks = bytes / 32;
    format!("(SELECT string_agg(md5(m::text), '') FROM generate_series(1, {blocks}) m)")
}

async fn table(database: &TestDatabase) -> Client {
    let client = database.client().await;
    client
        .batch_execute("CREATE TABLE rides (id int PRIMARY KEY, zone text, note text, ssn text)")
        .await
        .expect("make a table");
    client
}

async fn write(client: &Client, large: &str) {
    let insert = format!(
        "INSERT INTO rides VALUES (1, 'a', 'one', 's'), (2, 'b', {large}, 'secret'),
                                  (3, 'c', 'three', 's')"
    );
    client.batch_execute(&insert).await.expect("write");
}

fn header<'a>(record: &'a OwnedRecord, name: &str) -> Option<&'a str> {
    let (_, value) = record.headers.iter().find(|(header, _)| header == name)?;
    std::str::from_utf8(value.as_deref()?).ok()
}

fn ids(records: &[OwnedRecord]) -> Vec<i64> {
    let id = |r: &OwnedRecord| r.json().and_then(|value| value["after"]["id"].as_i64());
    records.iter().filter_map(id).collect()
}

fn counted(bridge: &Bridge, name: &str) -> Option<u64> {
    let (_, page) = bridge.get("/metrics")?;
    let line = page.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_it_stops_the_stream_before_it_is_sent_and_says_what_mends_it() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = table(&database).await;
    let name = unique("large");
    let (url, brokers) = (&database.unix_url, kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, url, &brokers, "", PATIENCE);
    write(&client, &random(1_100_000)).await;
    assert_eq!(bridge.wait(PATIENCE).code(), Some(69));
    let log = bridge.log();
    let line = log.lines().find(|line| line.contains("is larger than")).expect("it says why");
    for text in [
        "number 2 of the transaction",
        "public.rides",
        "key columns: id",
        "1000000",
        "message.max.bytes of kafka.properties",
    ] {
        assert!(line.contains(text), "{text} in: {line}");
    }
    assert!(log.contains("truncate_oversize") && log.contains("errors.on_oversize"), "log:\n{log}");
    assert!(!log.contains("secret") && !log.contains("c4ca4238a0b9"), "no value is told:\n{log}");

    // Mended as it says, it goes on from that row.
    bridge.configure(
        "[kafka.properties]\n\"message.max.bytes\" = 3_000_000\n\
         [errors]\non_oversize = \"dead-letter\"\n",
    );
    let topic = format!("{name}.public.rides");
    alter(kafka, &topic, "max.message.bytes", "3000000").await;
    bridge.start_again();
    bridge.wait_until_ready(PATIENCE).expect("it runs");
    let last = |records: &[OwnedRecord]| ids(records).contains(&3);
    let records = consume(&brokers, &[&topic], last, PATIENCE).await;
    assert!(ids(&records).ends_with(&[2, 3]), "{:?}", ids(&records));
}

async fn alter(kafka: &KafkaNode, topic: &str, setting: &str, value: &str) {
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(setting, value);
    let answers = admin(&kafka.brokers()).alter_configs([&change], &AdminOptions::new()).await;
    let answers = answers.expect("ask");
    answers.into_iter().for_each(|answer| drop(answer.expect("altered")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_tells_all_but_the_values_and_the_stream_goes_on() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = table(&database).await;
    let name = unique("letter");
    let config = format!(
        "{SMALL}[errors]\non_oversize = \"dead-letter\"\n\
         [tables.\"public.rides\"]\nexclude_columns = [\"ssn\"]\n"
    );
    let (url, brokers) = (&database.unix_url, kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, url, &brokers, &config, PATIENCE);
    write(&client, &random(64_000)).await;
    let topic = format!("{name}.public.rides");
    let records = consume(&brokers, &[&topic], at_least(2), PATIENCE).await;
    assert_eq!(ids(&records), [1, 3]);

    let letters = format!("{name}.dead-letter");
    let letters = consume(&brokers, &[&letters], at_least(1), PATIENCE).await;
    let letter = &letters[0];
    assert_eq!(letter.key_text(), Some(r#"{"id":2}"#));
    let value = letter.json().expect("JSON");
    assert_eq!((&value["table"], &value["op"]), (&json!("rides"), &json!("c")));
    assert_eq!((&value["ordinal"], &value["limit"]), (&json!(2), &json!(20_000)));
    assert!(value["bytes"].as_u64().is_some_and(|bytes| bytes > 64_000), "{value}");
    let sizes = json!({"id": 1, "zone": 1, "note": 64_000});
    assert_eq!((&value["before_bytes"], &value["after_bytes"]), (&json!(null), &sizes));
    assert!(header(letter, "rowcast.error").is_some_and(|error| error.contains("is larger than")));
    assert_eq!(header(letter, "rowcast.table"), Some("public.rides"));
    assert_eq!(counted(&bridge, "rowcast_oversize_total"), Some(1));
    assert_eq!(counted(&bridge, "rowcast_dead_letters_total"), Some(1));
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_cut_to_fit_where_its_table_says_so_and_the_record_tells_it() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = table(&database).await;
    let name = unique("cut");
    let config =
        format!("{SMALL}[tables.\"public.rides\"]\ntruncate_oversize = [\"zone\", \"note\"]\n");
    let (url, brokers) = (&database.unix_url, kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, url, &brokers, &config, PATIENCE);
    write(&client, &random(64_000)).await;
    let topic = format!("{name}.public.rides");
    let records = consume(&brokers, &[&topic], at_least(3), PATIENCE).await;
    assert_eq!(ids(&records), [1, 2, 3], "all, in order");
    let cut = &records[1];
    let value = cut.json().expect("JSON");
    let note = value["after"]["note"].as_str().expect("a text");
    assert!((17_000..20_000).contains(&note.len()), "as much as fits: {}", note.len());
    let whole: String =
        client.query_one("SELECT note FROM rides WHERE id = 2", &[]).await.expect("read").get(0);
    assert!(whole.starts_with(note));
    assert_eq!(value["after"]["zone"], "b", "what is short stays whole");
    assert_eq!(header(cut, "rowcast.truncated"), Some(r#"["note"]"#));
    assert!(header(&records[0], "rowcast.truncated").is_none());
    assert_eq!(counted(&bridge, "rowcast_truncated_total"), Some(1));
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

/// A bridge that has published a row, and its topic, which takes less since the bridge asked for that.
async fn lowered(
    kafka: &'static KafkaNode,
    database: &TestDatabase,
    client: &Client,
) -> (Bridge, String) {
    let (name, brokers) = (unique("lowered"), kafka.brokers());
    let bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, "", PATIENCE);
    client.batch_execute("INSERT INTO rides VALUES (0, 'a', 'zero', 's')").await.expect("write");
    let topic = format!("{name}.public.rides");
    consume(&brokers, &[&topic], at_least(1), PATIENCE).await;
    alter(kafka, &topic, "max.message.bytes", "20000").await;
    (bridge, topic)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_that_only_the_broker_knows_stops_the_stream_with_its_fix() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = table(&database).await;
    let (mut bridge, topic) = lowered(kafka, &database, &client).await;
    eventually(PATIENCE, "the broker to follow the setting", async || {
        client
            .batch_execute(&format!(
                "INSERT INTO rides VALUES (1, 'a', {}, 's') ON CONFLICT (id) DO UPDATE SET zone = 'b'",
                random(64_000)
            ))
            .await
            .expect("write");
        bridge.exited()
    })
    .await;
    let log = bridge.log();
    assert!(log.contains(&format!("raise max.message.bytes of {topic}")), "log:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_records_that_were_too_large_together_are_sent_in_smaller_batches() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = table(&database).await;
    let (mut bridge, topic) = lowered(kafka, &database, &client).await;
    let mut last = 0;
    eventually(PATIENCE, "the broker to refuse a batch", async || {
        let insert = "INSERT INTO rides SELECT n, md5(n::text), md5((n + 7)::text), md5((-n)::text)
                      FROM generate_series($1::int, $2::int) n";
        client.execute(insert, &[&(last + 1), &(last + 2_000)]).await.expect("write");
        last += 2_000;
        assert!(bridge.exited().is_none(), "log:\n{}", bridge.log());
        bridge.log().contains("smaller batches").then_some(())
    })
    .await;
    let (mut seen, mut read) = (std::collections::BTreeSet::new(), 0);
    let all = move |records: &[OwnedRecord]| {
        seen.extend(ids(&records[read..]));
        read = records.len();
        seen.len() == usize::try_from(last).expect("a count") + 1
    };
    consume(&kafka.brokers(), &[&topic], all, PATIENCE).await;
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}
