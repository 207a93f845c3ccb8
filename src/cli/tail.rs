//! `rowcast tail`: prints the events of topics as they arrive.

use std::io::IsTerminal as _;

use clap::{Args, ValueEnum};

use super::settings::key_value;
use super::{CliError, GlobalArgs};
use crate::config::{self, Secret};
use crate::telemetry;
use crate::tools::tail;

/// Print the events of topics, one per line
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rowcast tail --brokers localhost:9092
  rowcast tail 'taxi.public.*' --from beginning --count 10 --json")]
pub(super) struct TailArgs {
    /// Topics, by name or glob [default: all but internal ones]
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
    /// Kafka brokers, comma-separated host:port
    #[arg(long, env = "KAFKA_BROKERS", default_value = "localhost:9092", value_name = "BROKERS")]
    brokers: String,
    /// Where to start
    #[arg(long, value_enum, default_value_t = From::End)]
    from: From,
    /// End after this many events [default: no end]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// When to use colours
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    color: Color,
    /// Any librdkafka property, such as security.protocol=SSL; may be repeated. Other users of the
    /// machine can read it
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    property: Vec<(String, Secret)>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum From {
    /// The oldest event still in the topic
    Beginning,
    /// The next new event
    End,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Color {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

pub(super) async fn run(args: TailArgs, _global: &GlobalArgs) -> Result<(), CliError> {
    telemetry::init(&config::Log::default())?;
    let format = if args.json { tail::Format::Json } else { tail::Format::Text(look(args.color)) };
    let properties = args.property.iter();
    let options = tail::Options {
        brokers: args.brokers,
        topics: args.topics,
        from: match args.from {
            From::Beginning => tail::Start::Beginning,
            From::End => tail::Start::End,
        },
        count: args.count,
        format,
        properties: properties
            .map(|(name, value)| (name.clone(), value.expose().to_owned()))
            .collect(),
    };
    let mut stop = super::run::told_to_stop();
    let stopped = async move {
        // The sender is never dropped.
        let _ = stop.wait_for(|told| *told).await;
    };
    let mut out = std::io::stdout();
    tail::run(options, &mut out, stopped).await?;
    Ok(())
}

/// Colours and width of the terminal, if there is a terminal.
pub(super) fn look(color: Color) -> tail::Look {
    let is_terminal = std::io::stdout().is_terminal();
    // https://no-color.org: set and not empty disables colours.
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = match color {
        Color::Auto => is_terminal && !unwanted,
        Color::Always => true,
        Color::Never => false,
    };
    let width = is_terminal.then(terminal_size::terminal_size).flatten();
    tail::Look { color, width: width.map(|(width, _)| usize::from(width.0)) }
}
