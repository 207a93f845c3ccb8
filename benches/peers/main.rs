//! rowcast beside what bounds it, on one machine, in one run: `make bench`.
//!
//! Two questions. How fast is a backlog drained into Kafka, beside `pg_recvlogical` that drains the
//! same backlog to /dev/null? How much later does a consumer see a row at a steady rate, beside a
//! plain producer and consumer on the same broker? Contestants take turns, so that a machine whose
//! speed drifts drifts for all; what counts are the ratios.
//!
//! `ROWS` (default 1,000,000), `ROUNDS` (3) and `SECONDS` (20) set the sizes. Nothing is asserted:
//! a bench that fails on a busy machine teaches nobody.

#[path = "../../tests/support/mod.rs"]
mod support;

mod backlog;
mod latency;
mod sample;

use support::kafka::KafkaNode;

fn main() {
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
        backlog::run(&node, setting("ROWS", 1_000_000), setting("ROUNDS", 3)).await;
        latency::run(&node, setting("SECONDS", 20)).await;
    });
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}
