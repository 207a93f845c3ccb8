//! How topics are made, and where keys land in them.

use std::time::Duration;

use rdkafka::admin::{AdminOptions, ResourceSpecifier};

use crate::support::bridge::Bridge;
use crate::support::consume::{at_least, consume};
use crate::support::kafka::{admin, kafka_or_skip};
use crate::support::postgres::TestDatabase;
use crate::support::{PATIENCE, unique};

/// The hash of Java clients' default partitioner, as its own sources compute it.
/// <https://kafka.apache.org/protocol>
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).expect("short keys");
    let mut hash = 0x9747_b28c ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (place, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * place);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[test]
fn the_hash_is_that_of_java_clients() {
    // From the Kafka project's own tests of its clients.
    for (key, hash) in [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_land_where_java_clients_put_them() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.expect("make a table");
    let name = unique("murmur");
    let config = "[topics]\npartitions = 7\n";
    let _bridge =
        Bridge::start_ready(&name, &database.unix_url, &kafka.brokers(), config, PATIENCE);
    client.batch_execute("INSERT INTO t SELECT generate_series(1, 500)").await.expect("insert");
    let topic = format!("{name}.public.t");
    let records = consume(&kafka.brokers(), &[&topic], at_least(500), PATIENCE).await;
    for record in &records {
        let key = record.key.as_deref().expect("a key");
        let expected = (murmur2(key) & 0x7fff_ffff) % 7;
        assert_eq!(record.partition.cast_unsigned(), expected, "{:?}", record.key_text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_made_with_its_partitions_and_settings_on_first_need() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client
        .batch_execute("CREATE TABLE rides (id int PRIMARY KEY, fare numeric(10,2))")
        .await
        .expect("make a table");
    let (name, topic) = (unique("made"), unique("rides"));
    let config = format!(
        "[tables.\"public.rides\"]\ntopic = \"{topic}\"\npartitions = 2\n\
         settings = {{ \"retention.ms\" = \"86400000\" }}\n"
    );
    let _bridge =
        Bridge::start_ready(&name, &database.unix_url, &kafka.brokers(), &config, PATIENCE);
    client.batch_execute("INSERT INTO rides VALUES (1, 16.50)").await.expect("insert");
    let records = consume(&kafka.brokers(), &[&topic], at_least(1), PATIENCE).await;
    assert_eq!(records[0].key_text(), Some(r#"{"id":1}"#));
    let event = records[0].json().expect("an event");
    assert_eq!(event["after"]["fare"], "16.50");
    assert_eq!(
        records[0].timestamp_ms,
        event["source"]["ts_ms"].as_i64(),
        "the record's time is the commit's"
    );

    let admin = admin(&kafka.brokers());
    let metadata = admin.inner().fetch_metadata(Some(&topic), PATIENCE).expect("metadata");
    assert_eq!(metadata.topics()[0].partitions().len(), 2);
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
    let resources = admin.describe_configs([&ResourceSpecifier::Topic(&topic)], &options).await;
    let resource = resources.expect("ask").remove(0).expect("a description");
    let retention = resource.get("retention.ms").and_then(|entry| entry.value.as_deref());
    assert_eq!(retention, Some("86400000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_topic_is_left_as_it_is() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.expect("make a table");
    let (name, topic) = (unique("kept"), unique("t"));
    kafka.create_topic(&topic, 4, &[]).await;
    let config = format!("[tables.\"public.t\"]\ntopic = \"{topic}\"\npartitions = 2\n");
    let bridge =
        Bridge::start_ready(&name, &database.unix_url, &kafka.brokers(), &config, PATIENCE);
    client.batch_execute("INSERT INTO t VALUES (1)").await.expect("insert");
    consume(&kafka.brokers(), &[&topic], at_least(1), PATIENCE).await;
    let admin = admin(&kafka.brokers());
    let metadata = admin.inner().fetch_metadata(Some(&topic), PATIENCE).expect("metadata");
    assert_eq!(metadata.topics()[0].partitions().len(), 4);
    let log = bridge.log();
    assert!(log.contains("keeps its partitions"), "the difference is logged:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_changes_are_its_roots_has_no_topic_made() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE days (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (1) TO (10);
             INSERT INTO days VALUES (1)",
        )
        .await
        .expect("make tables");
    let name = unique("roots");
    let _bridge = Bridge::start_ready(&name, &database.unix_url, &kafka.brokers(), "", PATIENCE);
    client.batch_execute("INSERT INTO days VALUES (2)").await.expect("insert");
    let root = format!("{name}.public.days");
    consume(&kafka.brokers(), &[&root], at_least(2), PATIENCE).await;
    let admin = admin(&kafka.brokers());
    let metadata = admin.inner().fetch_metadata(None, PATIENCE).expect("metadata");
    let own = metadata.topics().iter().map(|topic| topic.name());
    let own: Vec<&str> = own.filter(|topic| topic.starts_with(&name)).collect();
    assert_eq!(own, [root]);
}
