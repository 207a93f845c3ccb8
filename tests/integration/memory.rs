//! The process stays within `memory` and what it needs itself, whatever comes: a transaction of
//! many rows, one of large rows, a broker that takes nothing while rows pour in. And that one costs no
//! core: librdkafka's thread would spin for as long as the broker is silent.
//!
//! Judged is the peak that the kernel keeps for the process, less the pages of the program file
//! that it has mapped: these are not the process's own, and a debug build has many.
//!
//! `ROWCAST_TEST_MEMORY_ROWS` sets the rows of the large transaction: 1,000,000 take a debug build
//! half a minute, and no more memory than the default.

use std::time::{Duration, Instant};

use crate::support::bridge::{Bridge, TRUSTING, signal};
use crate::support::kafka::{KafkaNode, kafka_or_skip, private_kafka_or_skip};
use crate::support::postgres::TestDatabase;
use crate::support::usage::usage;
use crate::support::{PATIENCE, eventually, unique};

/// Of the 30 MB that `docs/memory.md` gives the process beside `memory`, what is not the program's
/// file: stacks, connections, descriptions of tables.
const PROCESS_KB: u64 = 8 * 1024;

/// Longest that all of this may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// The peak so far, in kB.
fn peak_kb(bridge: &Bridge) -> u64 {
    let pid = bridge.pid().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
    };
    field("VmHWM:") - field("RssFile:")
}

pub(crate) fn assert_within(bridge: &Bridge, memory_mb: u64, what: &str) {
    let (peak, bound) = (peak_kb(bridge), memory_mb * 1024 + PROCESS_KB);
    println!("{what}: peak of {peak} kB, the bound is {bound} kB");
    assert!(peak <= bound, "{what}: {peak} kB, above {bound} kB");
}

/// A counter or gauge of the metrics page.
fn metric(bridge: &Bridge, name: &str) -> Option<u64> {
    let (_, page) = bridge.get("/metrics")?;
    let line = page.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(1)?.parse().ok()
}

/// User and system time so far, in seconds.
fn cpu_s(bridge: &Bridge) -> f64 {
    usage(bridge.pid().expect("it runs")).expect("it runs").cpu_s
}

async fn acknowledged(bridge: &Bridge, records: u64) {
    eventually(LIMIT, "all records to be acknowledged", async || {
        metric(bridge, "rowcast_records_acked_total").filter(|&acked| acked >= records)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_many_rows_takes_no_more_than_the_bound() {
    let kafka = kafka_or_skip!();
    let rows = std::env::var("ROWCAST_TEST_MEMORY_ROWS")
        .map_or(150_000, |rows| rows.parse::<u64>().expect("ROWCAST_TEST_MEMORY_ROWS is a number"));
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let table = "CREATE TABLE rides (id bigint PRIMARY KEY, zone int, note text)";
    client.batch_execute(table).await.expect("make a table");
    let name = unique("many");
    let (url, brokers) = (&database.unix_url, kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, url, &brokers, "memory = \"16MB\"\n", PATIENCE);
    let insert =
        format!("INSERT INTO rides SELECT n, n % 7, 'x' FROM generate_series(1, {rows}) n");
    client.batch_execute(&insert).await.expect("write");
    acknowledged(&bridge, rows).await;
    assert_within(&bridge, 16, "many rows");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_large_rows_takes_no_more_than_the_bound() {
    const CONFIG: &str = "[kafka.properties]\n\"message.max.bytes\" = 2_000_000\n\
                          [topics.settings]\n\"max.message.bytes\" = \"2000000\"\n";
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    // External: what does not compress here does not compress in a batch either.
    client
        .batch_execute(
            "CREATE TABLE rides (id int PRIMARY KEY, note text);
             ALTER TABLE rides ALTER note SET STORAGE EXTERNAL",
        )
        .await
        .expect("make a table");
    let name = unique("large");
    let (url, brokers) = (&database.unix_url, kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, url, &brokers, CONFIG, PATIENCE);
    // A megabyte that no compressor makes smaller, and a hundred rows of it that are not alike.
    client
        .batch_execute(
            "INSERT INTO rides
             SELECT n, (SELECT string_agg(md5(m::text || n), '') FROM generate_series(1, 32000) m)
             FROM generate_series(1, 100) n",
        )
        .await
        .expect("write");
    acknowledged(&bridge, 100).await;
    assert!(metric(&bridge, "rowcast_sent_bytes_total").expect("counted") > 100_000_000);
    assert_within(&bridge, 64, "large rows");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_nothing_under_full_load_costs_neither_memory_nor_a_core() {
    let kafka = private_kafka_or_skip!();
    // The values of the first are a tenth of what their records take in the client.
    let small = "[format]\nvalue = \"flat\"\nposition_headers = true\n";
    for (memory_mb, rows, format) in [(16, 60_000_u64, small), (64, 120_000, "")] {
        let database = TestDatabase::create().await;
        let client = database.client().await;
        let table = "CREATE TABLE rides (id int PRIMARY KEY, zone int, note text)";
        client.batch_execute(table).await.expect("make a table");
        let name = unique("stalled");
        let config = format!("memory = \"{memory_mb}MB\"\n{format}");
        let (url, brokers) = (&database.unix_url, kafka.brokers());
        let mut bridge = Bridge::start_ready(&name, url, &brokers, &config, PATIENCE);
        client.batch_execute("INSERT INTO rides VALUES (0, 0, '')").await.expect("write");
        acknowledged(&bridge, 1).await;

        kafka.freeze();
        let insert = format!(
            "INSERT INTO rides SELECT n, n % 7, md5(n::text) FROM generate_series(1, {rows}) n"
        );
        client.batch_execute(&insert).await.expect("the database is not made to wait for long");
        // Refused at every look for a while: the queue is full and stays so.
        let full = "rowcast_queue_full_total";
        let refused = async |times: u64| {
            eventually(LIMIT, "the queue to be full", async || {
                metric(&bridge, full).filter(|&refused| refused >= times)
            })
            .await
        };
        let times = refused(20).await;
        let (since, before) = (Instant::now(), cpu_s(&bridge));
        refused(times + 20).await;
        let (took, used) = (since.elapsed().as_secs_f64(), cpu_s(&bridge) - before);
        println!("{used:.2} s of {took:.2} s at work");
        assert!(used < took / 2.0, "{used} s of {took} s at work for a broker that takes nothing");
        let queued = metric(&bridge, "rowcast_records_sent_total").expect("counted");
        println!("{queued} records wait");
        assert!(queued < rows, "the rest waits in the database");
        assert_within(&bridge, memory_mb, "a broker that takes nothing");

        kafka.thaw();
        acknowledged(&bridge, rows + 1).await;
        assert_within(&bridge, memory_mb, "a broker that takes all at once");
        assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
    }
}

/// Rows of half a megabyte, packed neither in the database nor in Kafka, so that all of each is held
/// wherever it is.
const WIDE_ROWS: u64 = 200;
const WIDE: &str = "
    CREATE TABLE rides (id int PRIMARY KEY, note text);
    ALTER TABLE rides ALTER note SET STORAGE EXTERNAL;
    INSERT INTO rides SELECT n, repeat(md5(n::text), 15000) FROM generate_series(1, 200) n";
const UNPACKED: &str = "[kafka.properties]\n\"compression.type\" = \"none\"\n";

/// What snapshots of such rows are held to.
const WIDE_MEMORY_MB: u64 = 32;

/// Waits until the queue is refused at every look for a while, with the broker frozen; then lets it
/// take so many records in all.
async fn stays_within_while_stalled(bridge: &Bridge, kafka: &KafkaNode, records: u64, what: &str) {
    let full = "rowcast_queue_full_total";
    let before = metric(bridge, full).unwrap_or_default();
    eventually(LIMIT, "the queue to be full", async || {
        metric(bridge, full).filter(|&times| times >= before + 20)
    })
    .await;
    let read = metric(bridge, "rowcast_snapshot_rows_total").expect("counted");
    println!("{read} rows are read");
    assert!(read < WIDE_ROWS, "the rest waits in the database");
    assert_within(bridge, WIDE_MEMORY_MB, &format!("{what}, while the broker takes nothing"));
    kafka.thaw();
    acknowledged(bridge, records).await;
    assert_within(bridge, WIDE_MEMORY_MB, &format!("{what}, once it takes all"));
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_wide_rows_take_no_more_than_the_bound_while_the_broker_takes_nothing() {
    let kafka = private_kafka_or_skip!();
    let brokers = kafka.brokers();
    let database = TestDatabase::create().await;
    database.client().await.batch_execute(WIDE).await.expect("fill the table");
    let name = unique("first");
    let config = |snapshot: &str| {
        format!("memory = \"{WIDE_MEMORY_MB}MB\"\n[snapshot]\n{snapshot}\n{UNPACKED}")
    };
    let four = config("connections = 4");
    let mut bridge = Bridge::start(&name, &database.unix_url, &brokers, &four);
    eventually(PATIENCE, "rows to be read", async || {
        metric(&bridge, "rowcast_records_acked_total").filter(|&acked| acked > 0)
    })
    .await;
    kafka.freeze();
    stays_within_while_stalled(&bridge, &kafka, WIDE_ROWS, "a first snapshot").await;
    assert!(bridge.log().contains("connections=4"), "log:\n{}", bridge.log());
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());

    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute(WIDE).await.expect("fill the table");
    let name = unique("beside");
    let never = TRUSTING.to_owned() + &config("mode = \"never\"");
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &brokers, &never, PATIENCE);
    let ask = signal(&serde_json::json!({"type": "snapshot", "tables": ["public.rides"]}));
    let ask = format!("SELECT pg_logical_emit_message(true, 'rowcast.signal', '{ask}')");
    client.query(&ask, &[]).await.expect("ask for a snapshot");
    eventually(PATIENCE, "rows to be read", async || {
        metric(&bridge, "rowcast_snapshot_rows_total").filter(|&read| read > 0)
    })
    .await;
    kafka.freeze();
    // The stream's rows fill the queue together with the snapshot's, of which few are under way.
    let insert = "INSERT INTO rides SELECT n + 1000, note FROM rides, generate_series(1, 60) n
                  WHERE id = 1";
    client.batch_execute(insert).await.expect("write");
    stays_within_while_stalled(&bridge, &kafka, WIDE_ROWS + 60, "beside the stream").await;
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_memory_is_refused_for_ends_the_process_with_what_it_needs() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};

    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let table = "CREATE TABLE rides (id int PRIMARY KEY, note text);
                 ALTER TABLE rides ALTER note SET STORAGE EXTERNAL";
    client.batch_execute(table).await.expect("make a table");
    let (url, brokers) = (&database.unix_url, kafka.brokers());
    let mut bridge = Bridge::start_ready(&unique("refused"), url, &brokers, "", PATIENCE);
    client.batch_execute("INSERT INTO rides VALUES (0, 'small')").await.expect("write");
    acknowledged(&bridge, 1).await;
    let pid = bridge.pid().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.strip_suffix(" kB"));
    let size: u64 = size.and_then(|kb| kb.trim().parse().ok()).expect("a number");
    let limit = Some((size << 10) + (200 << 20));
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    let limit = Rlimit { current: limit, maximum: limit };
    prlimit(Some(pid), Resource::As, limit).expect("limit its memory");
    let large = "INSERT INTO rides VALUES (1, repeat(md5('1'), 5 * 1024 * 1024))";
    client.batch_execute(large).await.expect("write a row of 160 MB");
    let status = eventually(PATIENCE, "the bridge to end", async || bridge.exited()).await;
    let log = bridge.log();
    assert_eq!(status.code(), Some(69), "{status}; log:\n{log}");
    let said = "a row or message of 160 MB needs about 800 MB of memory, and the system refuses";
    assert!(log.contains(said), "log:\n{log}");
    assert!(log.contains("fix: raise the memory limit of the process"), "log:\n{log}");
}

/// What a row takes at the peak, in its own size, by `docs/memory.md` and by the error.
fn documented_times() -> u64 {
    let manual = include_str!("../../docs/memory.md");
    let (before, _) = manual.split_once(" times its size").expect("the manual says it");
    let word = before.split_whitespace().last().expect("a word");
    let words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"];
    let times = words.iter().position(|known| *known == word).expect("a number");
    u64::try_from(times).expect("few")
}

/// `ROWCAST_TEST_MEMORY_ROW_MB` sets the size of the row: the figures of the manual are of 200 MB.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_row_takes_what_the_manual_says_and_no_more() {
    let kafka = kafka_or_skip!();
    let megabytes = crate::support::number("ROWCAST_TEST_MEMORY_ROW_MB").unwrap_or(40);
    let config = format!(
        "[kafka.properties]\n\"message.max.bytes\" = {0}\n\
         [topics.settings]\n\"max.message.bytes\" = \"{0}\"\n",
        megabytes * 3_000_000 + 1_000_000
    );
    // Each as large as text: a bytea is two digits a byte there.
    for (kind, value) in [("text", "note"), ("bytea", "decode(note, 'hex')")] {
        let database = TestDatabase::create().await;
        let client = database.client().await;
        let table = format!(
            "CREATE TABLE rides (id int PRIMARY KEY, note {kind});
             ALTER TABLE rides ALTER note SET STORAGE EXTERNAL"
        );
        client.batch_execute(&table).await.expect("make a table");
        let (url, brokers) = (&database.unix_url, kafka.brokers());
        let mut bridge = Bridge::start_ready(&unique("row"), url, &brokers, &config, PATIENCE);
        client.batch_execute("INSERT INTO rides VALUES (0, '00')").await.expect("write");
        acknowledged(&bridge, 1).await;
        let before = peak_kb(&bridge);
        let insert = format!(
            "INSERT INTO rides SELECT 1, {value} FROM (
                 SELECT string_agg(repeat(md5(n::text), 32), '') AS note
                 FROM generate_series(1, {}) n) of",
            megabytes * 1024
        );
        client.batch_execute(&insert).await.expect("write a large row");
        acknowledged(&bridge, 2).await;
        let (peak, size) = (peak_kb(&bridge), megabytes * 1024);
        println!("{kind}: a row of {size} kB as text: from {before} kB to {peak} kB");
        let bound = documented_times() * size;
        assert!(peak - before <= bound, "{kind}: {} kB, above {bound} kB", peak - before);
        assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
    }
}
