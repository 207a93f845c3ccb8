//! What the demo says before the events: how to look in from outside, and what the broker lacks.

use std::fmt::Write;
use std::time::Duration;

use super::broker::{RunningBroker, TOPIC};
use super::postgres::{Postgres, REPLICA_IDENTITY};
use super::programs::Places;

/// The header, a line's end at its end.
pub(super) fn banner(
    postgres: &Postgres,
    broker: &RunningBroker,
    places: &Places,
    endless: bool,
    took: Duration,
) -> String {
    let mut text = format!(
        "rowcast demo: PostgreSQL {} -> rowcast -> {}, ready in {:.1} s\n\n",
        postgres.version(),
        name(broker),
        took.as_secs_f64()
    );
    let url = postgres.tcp_url();
    let connect = if places.on_path("psql") { format!("psql {url}") } else { url };
    let mut lines = vec![("Postgres", connect)];
    lines.push(("", format!("{REPLICA_IDENTITY}: updates show what they change")));
    if endless {
        let update = "UPDATE rides SET tip = 5 WHERE ride_id = (SELECT max(ride_id) FROM rides)";
        lines.push(("", format!("try: {update}")));
    }
    let brokers = broker.brokers();
    lines.push(("Kafka", format!("rowcast tail {TOPIC} --brokers {brokers} --from beginning")));
    lines.push(("", format!("kcat -C -b {brokers} -t {TOPIC}")));
    match broker {
        RunningBroker::Embedded(_) => {
            let limits = [
                "this broker lives in the demo: librdkafka's clients (kcat, Python, Go, Rust) can",
                "read it, Java clients can't; no admin requests, no transactions, 5 MB a partition;",
                "--broker kafka starts Apache Kafka instead",
            ];
            lines.extend(limits.map(|line| ("", line.to_owned())));
        }
        RunningBroker::Kafka(node) => {
            let tool = "org.apache.kafka.tools.consumer.ConsoleConsumer";
            let options = format!("--bootstrap-server {brokers} --topic {TOPIC} --from-beginning");
            lines.push(("", format!("{} {tool} {options}", node.console())));
        }
        RunningBroker::Existing(_) => {
            lines.push(("", format!("topic {TOPIC} stays there when the demo ends")));
        }
    }
    for (subject, line) in lines {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {subject:<8}  {line}");
    }
    text.push_str("\n  Ctrl-C ends it and leaves nothing behind\n\n");
    text
}

fn name(broker: &RunningBroker) -> String {
    match broker {
        RunningBroker::Embedded(_) => "embedded broker".to_owned(),
        RunningBroker::Kafka(_) => "Apache Kafka".to_owned(),
        RunningBroker::Existing(brokers) => brokers.clone(),
    }
}
