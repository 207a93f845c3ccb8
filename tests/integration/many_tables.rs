//! A start on a database of very many tables: topics are created and tables looked up many at a time,
//! the log says how far it is, and no line of it is longer than one can read.
//!
//! `ROWCAST_TEST_TABLES` sets how many: `make bench` measures 2,000.

use crate::support::kafka::kafka_or_skip;
use crate::support::many_tables::{create, start_on};
use crate::support::postgres::TestDatabase;
use crate::support::{PATIENCE, number, unique};

/// The bound for 2,000, on a machine that does much else.
const PEAK_MIB: f64 = 100.0;

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_many_tables_creates_topics_and_looks_tables_up_in_batches() {
    let kafka = kafka_or_skip!();
    let tables = number("ROWCAST_TEST_TABLES").unwrap_or(250);
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create(&client, tables).await;
    let name = unique("tables");
    let (url, brokers) = (database.unix_url.clone(), kafka.brokers());
    let (took, mut bridge) = start_on(&client, (&name, &url, &brokers), "", tables).await;
    println!("{tables} tables: {took:?}");
    let log = bridge.log();
    let longest = log.lines().max_by_key(|line| line.len()).expect("a line");
    assert!(longest.len() < 1_500, "{} bytes in one line:\n{longest}", longest.len());
    let created: Vec<&str> = log.lines().filter(|line| line.contains("topics created")).collect();
    assert_eq!(created.len(), usize::try_from(tables.div_ceil(100)).expect("few"), "log:\n{log}");
    assert!(created[0].contains(&format!("topics=100 of={tables}")), "{}", created[0]);
    assert!(log.matches(" topic created").count() <= 1, "that of the checkpoints alone");
    assert!(took.peak_mib < PEAK_MIB, "{took:?}");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}
