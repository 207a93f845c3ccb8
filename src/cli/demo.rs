//! `rowcast demo`: the whole line on one machine, with nothing to set up.

use clap::{Args, ValueEnum};

use super::generate::rate;
use super::{CliError, GlobalArgs};

/// Start a private Postgres and a broker, and watch taxi rides go through
#[derive(Debug, Args)]
#[command(after_help = "\
Ctrl-C leaves nothing behind. With --rides it ends by itself, with a summary.

Examples:
  rowcast demo
  rowcast demo --rides 100
  rowcast demo --brokers localhost:9092")]
pub(super) struct DemoArgs {
    /// End after this many rides, with a summary [default: no end]
    #[arg(long, value_name = "N")]
    rides: Option<u64>,
    /// Rows a second; 0 for as fast as possible
    #[arg(long, default_value_t = 10.0, value_name = "ROWS_PER_SECOND", value_parser = rate)]
    rate: f64,
    /// Use a Kafka that runs already, instead of starting a broker
    #[arg(long, value_name = "BROKERS", conflicts_with = "broker")]
    brokers: Option<String>,
    /// The broker to start
    #[arg(long, value_enum, default_value_t = Broker::Embedded)]
    broker: Broker,
    /// Seed; the same one gives the same rides [default: a new one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print events as JSON, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Broker {
    /// In this process, with no download
    Embedded,
    /// Apache Kafka, which any client can look into
    Kafka,
}

pub(super) async fn run(args: DemoArgs, _global: &GlobalArgs) -> Result<(), CliError> {
    tracing::debug!(?args, "demo asked for");
    Err(CliError::Absent { command: "demo" })
}
