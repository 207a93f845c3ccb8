//! How much later a consumer sees a row, at 1,000 rows a second, one row a transaction.
//!
//! The time runs from the commit, as the server stamps it, to the moment the consumer has the
//! event. Beside it, a plain producer and consumer on the same broker: from the call that hands the
//! record over to the moment the consumer has it. And the same row once more while another table
//! takes 10,000 rows a second: what is seldom is not to wait for what is not. All take turns in
//! slices of a few seconds.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::bridge::Bridge;
use crate::support::kafka::{KafkaNode, client_config};
use crate::support::postgres::{Binaries, PostgresServer, connect};
use crate::support::{PATIENCE, unique};

const RATE: u64 = 1_000;
const SLICES: u64 = 4;
/// The other table's rows, a transaction each [`LOAD_EVERY`].
const LOAD: u64 = 10_000;
const LOAD_EVERY: Duration = Duration::from_millis(10);
/// The first records pay for connections and caches.
const WARM_UP: u64 = 500;

/// Measures both for `seconds` each, and prints the table.
#[expect(clippy::too_many_lines, reason = "one scenario, step by step")]
pub(crate) async fn run(kafka: &KafkaNode, seconds: u64) {
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let client = connect(&server.unix_url("postgres")).await;
    client
        .batch_execute(
            "CREATE TABLE ticks (tick_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             zone int, fare numeric(10,2), note text);
             CREATE TABLE load (LIKE ticks INCLUDING ALL)",
        )
        .await
        .expect("make the table");
    let topic = unique("ticks");
    kafka.create_topic(&topic, 1, &[]).await;
    let config = format!(
        "[postgres]\ntables = [\"public.ticks\", \"public.load\"]\n\
         [tables.\"public.ticks\"]\ntopic = \"{topic}\"\n"
    );
    let mut bridge = Bridge::start_ready(
        "latency",
        &server.unix_url("postgres"),
        &kafka.brokers(),
        &config,
        PATIENCE,
    );
    let plain_topic = unique("plain");
    kafka.create_topic(&plain_topic, 1, &[]).await;
    let producer: BaseProducer = client_config(&kafka.brokers())
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("compression.type", "lz4")
        .create()
        .expect("a producer");

    let insert = client
        .prepare("INSERT INTO ticks (zone, fare, note) VALUES (132, 16.50, 'a short note')")
        .await
        .expect("prepare");
    let (mut bridged, mut plain, mut loaded) = (histogram(), histogram(), histogram());
    let per_slice = RATE * seconds / SLICES + WARM_UP;
    for _ in 0..SLICES {
        for (ages, is_loaded) in [(&mut bridged, false), (&mut loaded, true)] {
            let loading = is_loaded.then(|| tokio::spawn(load(server.unix_url("postgres"))));
            let seen = watch(kafka, &topic, per_slice, commit_time_us);
            pace(per_slice, async || {
                client.execute(&insert, &[]).await.expect("insert");
            })
            .await;
            ages.add(seen.await.expect("the consumer does not panic")).expect("same bounds");
            if let Some(loading) = loading {
                loading.abort();
            }
        }

        let seen = watch(kafka, &plain_topic, per_slice, sent_time_us);
        pace(per_slice, async || {
            // As long as an event of the bridge.
            let value = format!("{:<600}", now_us());
            producer.send(BaseRecord::<(), str>::to(&plain_topic).payload(&value)).expect("send");
            producer.poll(Duration::ZERO);
        })
        .await;
        producer.flush(PATIENCE).expect("flush");
        plain.add(seen.await.expect("the consumer does not panic")).expect("same bounds");
    }
    let status = bridge.terminate(PATIENCE);
    assert!(status.success(), "{status}; log:\n{}", bridge.log());
    print(&bridged, &loaded, &plain);
}

/// Does something `count` times at the rate; what was late is made up for at once.
async fn pace(count: u64, mut step: impl AsyncFnMut()) {
    let started = Instant::now();
    for done in 0..count {
        let due = started + Duration::from_micros(done * 1_000_000 / RATE);
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            tokio::time::sleep(wait).await;
        }
        step().await;
    }
}

/// Writes to the other table until it is aborted.
async fn load(url: String) {
    let client = connect(&url).await;
    let rows = LOAD * u64::try_from(LOAD_EVERY.as_millis()).expect("a moment") / 1_000;
    let insert = format!(
        "INSERT INTO load (zone, fare, note)
         SELECT 132, 16.50, 'a short note' FROM generate_series(1, {rows})"
    );
    let insert = client.prepare(&insert).await.expect("prepare");
    let mut ticks = tokio::time::interval(LOAD_EVERY);
    loop {
        ticks.tick().await;
        client.execute(&insert, &[]).await.expect("insert");
    }
}

/// Consumes `count` records from now on, and tells how old each was when it came.
fn watch(
    kafka: &KafkaNode,
    topic: &str,
    count: u64,
    origin_us: fn(&[u8]) -> i64,
) -> tokio::task::JoinHandle<Histogram<u64>> {
    let consumer: BaseConsumer = client_config(&kafka.brokers())
        .set("group.id", "rowcast-bench")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "500")
        .create()
        .expect("a consumer");
    let (_, end) = consumer.fetch_watermarks(topic, 0, PATIENCE).expect("watermarks");
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Offset(end)).expect("an offset that exists");
    consumer.assign(&from).expect("assign");
    tokio::task::spawn_blocking(move || {
        let mut ages = histogram();
        let started = Instant::now();
        let mut seen = 0;
        while seen < count {
            assert!(started.elapsed() < Duration::from_secs(300), "{seen} of {count} records");
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            let age = now_us() - origin_us(message.payload().expect("no tombstones here"));
            seen += 1;
            if seen > WARM_UP {
                ages.saturating_record(u64::try_from(age).unwrap_or(0));
            }
        }
        ages
    })
}

fn commit_time_us(event: &[u8]) -> i64 {
    let event: serde_json::Value = serde_json::from_slice(event).expect("an event in JSON");
    event["source"]["ts_us"].as_i64().expect("the commit time")
}

fn sent_time_us(value: &[u8]) -> i64 {
    let text = std::str::from_utf8(value).expect("a number");
    text.trim().parse().expect("a number")
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_micros()).expect("before the year 294000")
}

/// Up to a minute, in microseconds.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds")
}

fn print(bridged: &Histogram<u64>, loaded: &Histogram<u64>, plain: &Histogram<u64>) {
    println!("\nlatency at {RATE} rows/s, one row a transaction; milliseconds\n");
    println!("{:<42} {:>8} {:>8} {:>8} {:>8}", "", "p50", "p90", "p99", "max");
    let beside = format!("the same beside {LOAD} rows/s of a table");
    for (name, ages) in [
        ("commit to consumer, through rowcast", bridged),
        (beside.as_str(), loaded),
        ("plain producer to consumer", plain),
    ] {
        let ms = |quantile| ms(ages.value_at_quantile(quantile));
        println!("{name:<42} {:>8.2} {:>8.2} {:>8.2} {:>8.2}", ms(0.5), ms(0.9), ms(0.99), ms(1.0));
    }
    let above =
        |quantile| ms(bridged.value_at_quantile(quantile)) - ms(plain.value_at_quantile(quantile));
    println!("\nabove the plain one: p50 {:.2} ms, p99 {:.2} ms", above(0.5), above(0.99));
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}
