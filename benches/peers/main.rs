//! rowcast beside what bounds it, on one machine, in one run: `make bench`.
//!
//! Four questions. How fast is a backlog drained into Kafka, next to `pg_recvlogical` that drains
//! the same backlog to /dev/null? How much later does a consumer see a row at a steady rate, beside
//! a plain producer and consumer on the same broker? How fast is a table published that was there
//! before, beside COPY alone, a producer alone and the broker alone, and beside Debezium
//! (`DEBEZIUM=1`)? And how long does a first start on thousands of tables take? Contestants take
//! turns, so that a machine whose speed drifts drifts for all; what counts are the ratios.
//!
//! `ROWS` (default 1,000,000), `ROUNDS` (3), `SECONDS` (20) and `TABLES` (2,000) set the sizes; `ONLY`
//! (`backlog`, `latency`, `snapshot` or `tables`) asks one question alone; `WARM_UP` is described
//! in `snapshot`. Nothing is asserted: a bench that fails on a busy machine teaches nobody.

mod backlog;
mod bounds;
mod debezium;
mod latency;
mod replay;
mod sample;
mod snapshot;
mod tables;
mod trips;

use rowcast_test_support as support;
use support::kafka::KafkaNode;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == bounds::FLAG) {
        return bounds::run(&arguments[2..]);
    }
    // `cargo bench` passes its own flags, and `cargo test --benches` must not start a long run.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let node = KafkaNode::start_for_speed().unwrap_or_else(|reason| panic!("no Kafka: {reason}"));
    runtime.block_on(async {
        let (rows, rounds) = (setting("ROWS", 1_000_000), setting("ROUNDS", 3));
        if asks("backlog") {
            backlog::run(&node, rows, rounds).await;
        }
        if asks("latency") {
            latency::run(&node, setting("SECONDS", 20)).await;
        }
        if asks("snapshot") {
            snapshot::run(&node, rows, rounds).await;
        }
        if asks("tables") {
            tables::run(&node, setting("TABLES", 2_000), rounds).await;
        }
    });
}

/// Whether a question is asked: all are, or one alone.
fn asks(question: &str) -> bool {
    std::env::var("ONLY").map_or(true, |only| only.is_empty() || only == question)
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}
