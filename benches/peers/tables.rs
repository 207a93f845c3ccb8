//! A first start on very many tables, and the first change of each.
//!
//! `TABLES` (2,000) sets how many. Each has five columns, a row and, as topics are by default, one
//! topic. There is no other contestant: what counts are the seconds that a user waits.

use crate::support::kafka::KafkaNode;
use crate::support::many_tables::{Took, create, start_on};
use crate::support::postgres::{Binaries, PostgresServer, connect};
use crate::support::unique;

/// Measures `rounds` starts, each on a server and under a name of its own, and prints the table.
pub(crate) async fn run(kafka: &KafkaNode, tables: u64, rounds: u64) {
    println!("\n## A start on {tables} tables\n");
    println!("| round | first start | changes of all | again | changes of all | peak memory |");
    println!("|---|---|---|---|---|---|");
    for round in 1..=rounds {
        let server = PostgresServer::start(Binaries::newest(), &[]);
        let url = server.unix_url("postgres");
        let client = connect(&url).await;
        create(&client, tables).await;
        let name = unique("tables");
        let (took, _bridge) = start_on(&client, (&name, &url, &kafka.brokers()), "", tables).await;
        let Took { to_stream, first_changes, to_stream_again, changes_again, peak_mib } = took;
        println!(
            "| {round} | {:.1} s | {:.1} s | {:.1} s | {:.1} s | {peak_mib:.0} MiB |",
            to_stream.as_secs_f64(),
            first_changes.as_secs_f64(),
            to_stream_again.as_secs_f64(),
            changes_again.as_secs_f64(),
        );
    }
}
