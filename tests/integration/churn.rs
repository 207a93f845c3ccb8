//! An application that creates and drops tables for ever, in a publication of all tables: what is known of
//! a table goes with it, so memory stays as it is. And nothing is forgotten of a table that is there.
//!
//! `ROWCAST_TEST_CHURN` sets how many tables: 50,000 take thirty times as long as the default, and a few
//! megabytes more, which are the allocator's: each thread has a heap of its own, and keeps what it frees. With
//! `MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=65536` it takes 11.5 MB after 3,500 tables, 12.0 MB after
//! 8,500 and 12.5 MB after 22,500; of ours, the last 65,536 transactions are remembered (256 kB).

use std::time::{Duration, Instant};

use crate::support::bridge::{Bridge, TRUSTING, signal};
use crate::support::consume::{RecordReader, at_least};
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::TestDatabase;
use crate::support::{PATIENCE, eventually, number, unique};

/// Tables of one round.
const ROUND: u64 = 250;

/// What the process may grow by after its first tables, in kB: each that was kept would take about 5.
const GROWTH_KB: u64 = 6 * 1024;

/// A table of the test is known for no longer than it takes to find that it is gone: the bridge asks when
/// 512 are known, or twice as many as there are.
const KNOWN: u64 = 512 + ROUND;

/// What the process has for itself now, in kB.
fn resident_kb(bridge: &Bridge) -> u64 {
    let pid = bridge.pid().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
    };
    field("VmRSS:") - field("RssFile:")
}

/// A number of the metrics page.
fn metric(bridge: &Bridge, name: &str) -> Option<u64> {
    let (_, page) = bridge.get("/metrics")?;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line?.parse().ok()
}

async fn acknowledged(bridge: &Bridge, records: u64) {
    eventually(Duration::from_secs(300), "all records to be acknowledged", async || {
        metric(bridge, "rowcast_records_acked_total").filter(|&acked| acked >= records)
    })
    .await;
}

/// Tables that come with a row and go, every second one in the same transaction.
fn come_and_go(from: u64, to: u64) -> String {
    format!(
        "DO $$ BEGIN FOR n IN {from}..{to} LOOP
             EXECUTE format('CREATE TABLE churn_%s (id bigint PRIMARY KEY, zone int NOT NULL,
                 fare numeric(10,2), at timestamptz DEFAULT now(), note text)', n);
             EXECUTE format('INSERT INTO churn_%s VALUES (1, 7, 16.50, now(), ''first'')', n);
             IF n % 2 = 0 THEN COMMIT; END IF;
             EXECUTE format('DROP TABLE churn_%s', n);
             COMMIT;
         END LOOP; END $$"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_come_and_go_take_no_memory_and_those_that_stay_are_published() {
    let kafka = kafka_or_skip!();
    let tables = number("ROWCAST_TEST_CHURN").unwrap_or(1_500);
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let name = unique("churn");
    client
        .batch_execute(&format!(
            "CREATE TABLE stays (id bigint PRIMARY KEY); CREATE TABLE late (id bigint PRIMARY KEY);
             CREATE TABLE quiet (id bigint PRIMARY KEY);
             CREATE PUBLICATION rowcast_{name} FOR ALL TABLES"
        ))
        .await
        .expect("set the database up");
    // Topics of their own would remain on the brokers.
    let config = format!(
        "[format]\ntransaction_metadata = true\n[postgres]\ndiscover_interval = \"1s\"\n\
         [tables.\"public.churn_*\"]\ntopic = \"{name}.gone\"\n"
    );
    let (url, brokers) = (&database.unix_url, kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, url, &brokers, &config, PATIENCE);
    client.batch_execute("INSERT INTO quiet VALUES (0)").await.expect("write");
    let began = Instant::now();
    let (mut before, mut last) = (0, 0);
    for (round, from) in (1..=tables).step_by(usize::try_from(ROUND).expect("few")).enumerate() {
        let to = tables.min(from + ROUND - 1);
        client.batch_execute(&come_and_go(from, to)).await.expect("create and drop tables");
        let keep = format!("INSERT INTO stays VALUES ({to})");
        client.batch_execute(&keep).await.expect("write");
        // A row each, and two for each transaction.
        acknowledged(&bridge, 3 * to).await;
        let known = metric(&bridge, "rowcast_tables_described").expect("it is counted");
        assert!(known <= KNOWN, "{known} tables are known after {to}");
        last = resident_kb(&bridge);
        if round == 3 {
            before = last;
        }
        println!("{to} tables after {:?}: {last} kB, {known} known", began.elapsed());
    }
    let end = "INSERT INTO late VALUES (1); INSERT INTO quiet VALUES (1)";
    client.batch_execute(end).await.expect("write");
    let topics = ["stays", "late", "quiet"].map(|table| format!("{name}.public.{table}"));
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let mut reader = RecordReader::open(&brokers, &topics, PATIENCE);
    let rounds = usize::try_from(tables.div_ceil(ROUND)).expect("few");
    let records = reader.until(at_least(rounds + 3), PATIENCE);
    assert_eq!(records.len(), rounds + 3, "each row of the tables that stay, once");
    assert!(last < before + GROWTH_KB, "from {before} kB to {last} kB");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

/// Tables that nothing but a snapshot describes, as their rows were written before: more than are listed
/// once they are read.
const READ: u64 = 120;

/// Snapshots that ended and are listed.
const LISTED: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_only_a_snapshot_read_are_known_to_whatever_forgets_them() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let name = unique("read");
    let create = format!(
        "DO $$ BEGIN FOR n IN 1..{READ} LOOP
             EXECUTE format('CREATE TABLE read_%s (id bigint PRIMARY KEY)', n);
             EXECUTE format('INSERT INTO read_%s VALUES (1)', n);
         END LOOP; END $$"
    );
    client.batch_execute(&create).await.expect("create tables");
    let config = format!(
        "{TRUSTING}[snapshot]\nmode = \"never\"\n\
         [tables.\"public.read_*\"]\ntopic = \"{name}.read\"\n"
    );
    let (url, brokers) = (&database.unix_url, kafka.brokers());
    let mut bridge = Bridge::start_ready(&name, url, &brokers, &config, PATIENCE);
    let ask = signal(&serde_json::json!({"type": "snapshot", "tables": ["public.read_*"]}));
    let ask = format!("SELECT pg_logical_emit_message(true, 'rowcast.signal', '{ask}')");
    client.query(&ask, &[]).await.expect("ask for a snapshot");
    acknowledged(&bridge, READ).await;
    assert_eq!(metric(&bridge, "rowcast_tables_described"), Some(READ));
    let listed = eventually(PATIENCE, "all of them to be done", async || {
        (metric(&bridge, "rowcast_snapshot_tables_left") == Some(0)).then_some(())?;
        let (_, page) = bridge.get("/snapshots")?;
        let list: serde_json::Value = serde_json::from_str(&page).ok()?;
        let list = list["snapshots"].as_array()?.clone();
        list.iter().all(|snapshot| snapshot["state"] == "done").then_some(list)
    })
    .await;
    assert_eq!(listed.len(), LISTED);
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}
