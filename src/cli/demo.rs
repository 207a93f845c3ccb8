//! `rowcast demo`: the whole pipeline on one machine, with nothing to set up.

use clap::{Args, ValueEnum};

use super::generate::rate;
use super::run::told_to_stop;
use super::tail::{Color, look};
use super::{CliError, GlobalArgs};
use crate::bridge::Bridge;
use crate::config::{self, Config, Secret, Table};
use crate::state::State;
use crate::telemetry;
use crate::tools::demo::{self, Endpoints};

/// Start a private Postgres and a broker, and watch taxi rides go through
#[derive(Debug, Args)]
#[command(after_help = "\
Ctrl-C leaves nothing behind. With --rides it ends after that many rides and prints a summary.

Examples:
  rowcast demo
  rowcast demo --rides 100
  rowcast demo --brokers localhost:9092")]
pub(super) struct DemoArgs {
    /// End after this many rides, with a summary [default: no end]
    #[arg(long, value_name = "N")]
    rides: Option<u64>,
    /// Rows per second; 0 for as fast as possible
    #[arg(long, default_value_t = 10.0, value_name = "ROWS_PER_SECOND", value_parser = rate)]
    rate: f64,
    /// Use a running Kafka instead of starting a broker
    #[arg(long, value_name = "BROKERS", conflicts_with = "broker")]
    brokers: Option<String>,
    /// The broker to start
    #[arg(long, value_enum, default_value_t = Broker::Embedded)]
    broker: Broker,
    /// Seed; the same seed generates the same rides [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print events as JSON, one object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Broker {
    /// In this process, nothing to download
    Embedded,
    /// Apache Kafka, readable by any client
    Kafka,
}

pub(super) async fn run(args: DemoArgs, global: &GlobalArgs) -> Result<(), CliError> {
    // The demo prints events; the bridge's routine log lines would only interrupt them.
    let level = global.log_level.clone().unwrap_or_else(|| "warn".to_owned());
    telemetry::init(&config::Log { level, ..config::Log::default() })?;
    let look = look(Color::Auto);
    let options = demo::Options {
        rides: args.rides,
        rate: args.rate,
        brokers: args.brokers,
        broker: match args.broker {
            Broker::Embedded => demo::Broker::Embedded,
            Broker::Kafka => demo::Broker::Kafka,
        },
        seed: args.seed,
        json: args.json,
        color: look.color,
        width: look.width,
    };
    let mut stop = told_to_stop();
    let stopped = async move {
        // The sender is never dropped.
        let _ = stop.wait_for(|told| *told).await;
    };
    let mut out = std::io::stdout();
    demo::run(options, &mut out, stopped, |endpoints| Box::pin(bridge(endpoints))).await?;
    Ok(())
}

/// The bridge, as a user would configure it for this one table.
async fn bridge(
    endpoints: Endpoints,
) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
    let Endpoints { database_url, brokers, create_topics, ready, stop } = endpoints;
    let mut config = Config::default();
    config.postgres.url = Some(Secret::from(database_url));
    config.postgres.tables = vec!["public.rides".to_owned()];
    config.kafka.brokers = Some(brokers);
    config.topics.create = create_topics;
    // Only the embedded broker comes with topics, and it does not answer requests for their
    // settings.
    config.topics.describe = create_topics;
    let mut rides =
        Table { topic: Some("rides".to_owned()), partitions: Some(2), ..Table::default() };
    if create_topics {
        rides.settings.insert("retention.ms".to_owned(), "86400000".to_owned());
    }
    config.tables.insert("public.rides".to_owned(), rides);
    let bridge = Bridge::new(&config).map_err(Box::new)?;
    let mut status = bridge.observe().status;
    let told = async move {
        // A bridge that ended has logged why.
        if status.wait_for(|status| status.state == State::Streaming).await.is_ok() {
            let _ = ready.send(());
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = bridge.run(stop) => Ok(ended.map_err(Box::new)?),
        () = told => Ok(()),
    }
}
