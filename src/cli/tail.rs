//! `rowcast tail`: shows the events of topics as they come.

use clap::{Args, ValueEnum};

use super::settings::key_value;
use super::{CliError, GlobalArgs};
use crate::config::Secret;

/// Print the events of topics, one line each
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rowcast tail --brokers localhost:9092
  rowcast tail 'taxi.public.*' --from beginning --count 10 --json")]
pub(super) struct TailArgs {
    /// Topics, by name or glob [default: all but internal ones]
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// Kafka brokers, host:port with commas between
    #[arg(long, env = "KAFKA_BROKERS", default_value = "localhost:9092", value_name = "BROKERS")]
    brokers: String,
    /// Where to start
    #[arg(long, value_enum, default_value_t = From::End)]
    from: From,
    /// End after this many events [default: no end]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Colours
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    color: Color,
    /// Any librdkafka property, such as security.protocol=SSL; may be repeated. Other users of the
    /// machine can read it
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    property: Vec<(String, Secret)>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum From {
    /// The oldest event that is still there
    Beginning,
    /// The next event to come
    End,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Color {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

pub(super) async fn run(args: TailArgs, _global: &GlobalArgs) -> Result<(), CliError> {
    tracing::debug!(?args, "tail asked for");
    Err(CliError::Absent { command: "tail" })
}
