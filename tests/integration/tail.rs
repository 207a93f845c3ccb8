//! `tail` prints what a real Kafka node holds, from the beginning, from now on, and of topics that
//! are made while it runs.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rowcast::tools::tail::{self, Follower, Format, Options, Start};
use serde_json::{Value, json};

use crate::support::kafka::{KafkaNode, client_config, kafka_or_skip, produce};
use crate::support::{PATIENCE, eventually, unique};

const INSERT: (&str, &str) =
    (r#"{"ride_id":7}"#, r#"{"op":"c","after":{"ride_id":7,"fare":"16.50"}}"#);

/// The times of the records are long past, and a topic would drop them for that.
const KEEP: [(&str, &str); 1] = [("retention.ms", "-1")];

/// Output that can be looked at while it is written.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().expect("no writer panics");
        String::from_utf8(bytes.clone()).expect("text").lines().map(str::to_owned).collect()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no reader panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn options(kafka: &KafkaNode, topic: &str, count: u64) -> Options {
    Options {
        brokers: kafka.brokers(),
        topics: vec![topic.to_owned()],
        from: Start::Beginning,
        count: Some(count),
        ..Options::default()
    }
}

/// Runs it up to its count, and gives what it printed.
async fn print(options: Options) -> Vec<String> {
    let (count, mut screen) = (options.count, Screen::default());
    let run = tail::run(options, &mut screen, std::future::pending());
    let printed = tokio::time::timeout(PATIENCE, run).await.expect("ends at its count");
    assert_eq!(Some(printed.expect("tail")), count);
    screen.lines()
}

/// Produces one record with the given time and headers; without a value it is a tombstone.
async fn produce_one(kafka: &KafkaNode, topic: &str, key: &str, value: Option<&[u8]>) {
    let producer: FutureProducer = client_config(&kafka.brokers()).create().expect("a producer");
    let headers = OwnedHeaders::new().insert(Header { key: "rowcast.xid", value: Some("771") });
    let mut record =
        FutureRecord::<str, [u8]>::to(topic).key(key).timestamp(1_767_610_800_123).headers(headers);
    if let Some(value) = value {
        record = record.payload(value);
    }
    producer.send(record, PATIENCE).await.expect("produce");
}

#[tokio::test]
async fn from_the_beginning_what_a_topic_holds_is_printed_in_order_up_to_the_count() {
    let kafka = kafka_or_skip!();
    let topic = unique("tail");
    kafka.create_topic(&topic, 1, &KEEP).await;
    produce_one(kafka, &topic, INSERT.0, Some(INSERT.1.as_bytes())).await;
    produce_one(kafka, &topic, INSERT.0, None).await;
    produce_one(kafka, &topic, "past the count", None).await;

    assert_eq!(
        print(options(kafka, &topic, 2)).await,
        [
            format!(
                r#"11:00:00.123 {topic}[0]@0 {{"ride_id":7}} create ride_id=7 fare=16.50 rowcast.xid:771"#
            ),
            format!(r#"11:00:00.123 {topic}[0]@1 {{"ride_id":7}} tombstone rowcast.xid:771"#),
        ]
    );
}

#[tokio::test]
async fn from_the_end_all_that_comes_later_is_seen_and_nothing_before() {
    let kafka = kafka_or_skip!();
    let topic = unique("tail");
    kafka.create_topic(&topic, 3, &[]).await;
    let (old, new) = (["1", "2", "3", "4", "5", "6"], ["7", "8", "9", "10", "11", "12"]);
    produce(&kafka.brokers(), &topic, &old.map(|key| (key, "old"))).await;

    let mut follower =
        Follower::connect(&kafka.brokers(), std::slice::from_ref(&topic), Start::End, &[])
            .await
            .expect("ask");
    produce(&kafka.brokers(), &topic, &new.map(|key| (key, "new"))).await;
    let mut keys = Vec::new();
    for _ in new {
        let next = tokio::time::timeout(PATIENCE, follower.next());
        let event = next.await.expect("in time").expect("read");
        assert_eq!(event.value.as_deref(), Some(&b"new"[..]));
        keys.push(String::from_utf8(event.key.expect("a key")).expect("text"));
    }
    keys.sort_by_key(|key| key.parse::<u32>().expect("a number"));
    assert_eq!(keys, new);
}

#[tokio::test]
async fn a_topic_made_while_it_runs_is_printed_from_its_first_record() {
    let kafka = kafka_or_skip!();
    let stem = unique("tail");
    let (first, later) = (format!("{stem}.first"), format!("{stem}.later"));
    kafka.create_topic(&first, 1, &[]).await;

    let mut screen = Screen::default();
    let seen = screen.clone();
    let use_topics = async {
        // It reads from the moment it has asked: what is written before is not its own.
        eventually(PATIENCE, "the first line", async || {
            produce(&kafka.brokers(), &first, &[INSERT]).await;
            (!seen.lines().is_empty()).then_some(())
        })
        .await;
        kafka.create_topic(&later, 1, &[]).await;
        produce(&kafka.brokers(), &later, &[INSERT]).await;
        eventually(PATIENCE, "a line of the later topic", async || {
            seen.lines().iter().any(|line| line.contains(&later)).then_some(())
        })
        .await;
    };
    let pattern = format!("{stem}.*");
    let options = Options { from: Start::End, count: None, ..options(kafka, &pattern, 0) };
    let printed = tail::run(options, &mut screen, use_topics).await.expect("tail");

    let lines = screen.lines();
    assert_eq!(u64::try_from(lines.len()), Ok(printed));
    assert!(lines.iter().any(|line| line.contains(&format!("{later}[0]@0 "))), "{lines:?}");
}

#[tokio::test]
async fn the_json_form_is_one_object_a_line_with_key_and_value_nested() {
    let kafka = kafka_or_skip!();
    let topic = unique("tail");
    kafka.create_topic(&topic, 1, &KEEP).await;
    produce_one(kafka, &topic, INSERT.0, Some(INSERT.1.as_bytes())).await;
    produce_one(kafka, &topic, INSERT.0, None).await;
    produce_one(kafka, &topic, "no JSON", Some(&[0xFF, 0xFE])).await;

    let lines = print(Options { format: Format::Json, ..options(kafka, &topic, 3) }).await;
    let parse = |line: &String| serde_json::from_str(line).expect("a line is JSON");
    let objects: Vec<Value> = lines.iter().map(parse).collect();
    let expected = |offset: u64, key: Value, value: Value| {
        json!({
            "topic": topic, "partition": 0, "offset": offset, "timestamp_ms": 1_767_610_800_123_u64,
            "key": key, "value": value, "headers": [["rowcast.xid", "771"]],
        })
    };
    let ride = json!({"ride_id": 7});
    let insert = json!({"op": "c", "after": {"ride_id": 7, "fare": "16.50"}});
    assert_eq!(objects[0], expected(0, ride.clone(), insert));
    assert_eq!(objects[1], expected(1, ride, Value::Null));
    assert_eq!(objects[2], expected(2, json!("no JSON"), json!({"base64": "//4="})));
    assert_eq!(objects.len(), 3);
}

#[tokio::test]
async fn it_leaves_no_consumer_group_at_the_broker() {
    let kafka = kafka_or_skip!();
    let topic = unique("tail");
    kafka.create_topic(&topic, 1, &KEEP).await;
    produce(&kafka.brokers(), &topic, &[INSERT]).await;
    assert_eq!(print(options(kafka, &topic, 1)).await.len(), 1);

    let brokers = kafka.brokers();
    let groups = tokio::task::spawn_blocking(move || {
        use rdkafka::consumer::{BaseConsumer, Consumer as _};
        let client: BaseConsumer = client_config(&brokers).create().expect("a client");
        let list = client.fetch_group_list(Some("rowcast-tail"), PATIENCE).expect("ask");
        let known = list.groups().iter().filter(|group| !matches!(group.state(), "" | "Dead"));
        known.map(|group| group.name().to_owned()).collect::<Vec<_>>()
    });
    assert_eq!(groups.await.expect("no panic"), Vec::<String>::new());
}
