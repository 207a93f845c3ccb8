//! A database of very many small tables, and how long a bridge takes to start on it: for the test that
//! bounds it and the bench that measures it.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::bridge::Bridge;
use super::eventually;
use super::usage::usage;

/// Longest that any part of it may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Tables that are created in one transaction: each takes locks.
const STEP: u64 = 250;

/// What a bridge took to publish the tables.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// From the start of the process until it streams: topics are created, a row of each table is read.
    pub to_stream: Duration,
    /// From one insert into each table, in one transaction each, until Kafka has all.
    pub first_changes: Duration,
    /// From the start of the process until it streams again, after it was stopped.
    pub to_stream_again: Duration,
    /// From the first insert after that until Kafka has all.
    pub changes_again: Duration,
    /// Highest resident memory of both processes, in MiB.
    pub peak_mib: f64,
}

/// Creates the tables, each with a key, five columns and a row.
pub async fn create(client: &Client, tables: u64) {
    for from in (1..=tables).step_by(usize::try_from(STEP).expect("small")) {
        let to = tables.min(from + STEP - 1);
        let sql = format!(
            "DO $$ BEGIN FOR n IN {from}..{to} LOOP
                 EXECUTE format('CREATE TABLE many_%s (id bigint PRIMARY KEY, zone int NOT NULL, \
                     fare numeric(10,2), at timestamptz DEFAULT now(), note text)', n);
                 EXECUTE format('INSERT INTO many_%s VALUES (1, n, 16.50, now(), ''first'')'
                     , n) USING n;
             END LOOP; END $$"
        )
        .replace("(1, n,", "(1, $1,");
        client.batch_execute(&sql).await.expect("create tables");
    }
}

/// Inserts a row into each table, each in a transaction of its own.
async fn insert(client: &Client, tables: u64, id: u64) {
    let sql = format!(
        "DO $$ BEGIN FOR n IN 1..{tables} LOOP
             EXECUTE format('INSERT INTO many_%s VALUES ({id}, $1, 16.50, now(), ''more'')', n)
                 USING n;
             COMMIT;
         END LOOP; END $$"
    );
    client.batch_execute(&sql).await.expect("insert");
}

/// Starts a bridge on the tables that were created, stops it and starts it again.
pub async fn start_on(
    client: &Client,
    (name, url, brokers): (&str, &str, &str),
    config: &str,
    tables: u64,
) -> (Took, Bridge) {
    let started = Instant::now();
    let mut bridge = Bridge::start_ready(name, url, brokers, config, LIMIT);
    let to_stream = started.elapsed();
    let written = Instant::now();
    insert(client, tables, 2).await;
    acknowledged(&bridge, 2 * tables).await;
    let first_changes = written.elapsed();
    let first = usage(bridge.pid().expect("it runs")).expect("it runs").peak_mib;
    let status = bridge.terminate(LIMIT);
    assert!(status.success(), "{status}; log:\n{}", bridge.log_tail());
    let started = Instant::now();
    bridge.start_again();
    bridge.wait_until_ready(LIMIT).expect("it streams");
    let to_stream_again = started.elapsed();
    let written = Instant::now();
    insert(client, tables, 3).await;
    acknowledged(&bridge, tables).await;
    let changes_again = written.elapsed();
    let second = usage(bridge.pid().expect("it runs")).expect("it runs").peak_mib;
    let peak_mib = first.max(second);
    (Took { to_stream, first_changes, to_stream_again, changes_again, peak_mib }, bridge)
}

/// Waits until Kafka has so many records of this process.
async fn acknowledged(bridge: &Bridge, records: u64) {
    eventually(LIMIT, "all records to be acknowledged", async || {
        let (_, page) = bridge.get("/metrics")?;
        let line = page.lines().find_map(|line| line.strip_prefix("rowcast_records_acked_total "));
        line?.parse::<u64>().ok().filter(|&acked| acked >= records)
    })
    .await;
}
