//! `rowcast generate`: writes realistic row changes into a database.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::settings::secret;
use super::{CliError, GlobalArgs};
use crate::config::{self, Secret};
use crate::error::Error;
use crate::postgres::{self, ConnInfo, ConnectOptions};
use crate::telemetry;
use crate::tools::generate;

/// Write realistic row changes into a database, to try things with
#[derive(Debug, Args)]
#[command(after_help = "\
Rides are inserted, updated at drop-off, and now and then cancelled, which deletes them.

Examples:
  rowcast generate --database-url postgres:///taxi --rate 100
  rowcast generate --count 1000 --rate 0 --seed 7")]
pub(super) struct GenerateArgs {
    /// Connection string of the database to write to. Other users of the machine can read it: a
    /// password belongs in the environment
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", value_parser = secret)]
    database_url: Option<Secret>,
    /// Rows per second; 0 for as fast as possible
    #[arg(long, default_value_t = 10.0, value_name = "ROWS_PER_SECOND", value_parser = rate)]
    rate: f64,
    /// Rides (or orders) to create [default: no end]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Seed; the same seed generates the same rows [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// What to generate
    #[arg(long, value_enum, default_value_t = Template::Taxi)]
    template: Template,
    /// Expect the tables to exist, instead of creating those that are missing
    #[arg(long)]
    no_create: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Template {
    /// Taxi rides in New York
    Taxi,
    /// Orders of a shop
    Orders,
}

/// Parses a rate.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("expected a number of rows per second, 0 or more".to_owned()),
    }
}

pub(super) async fn run(args: GenerateArgs, _global: &GlobalArgs) -> Result<(), CliError> {
    telemetry::init(&config::Log::default())?;
    let url = args.database_url.as_ref().map_or("", |url| url.expose());
    let conninfo = ConnInfo::parse(url, &|name| std::env::var(name).ok()).map_err(Error::from)?;
    let options = ConnectOptions {
        application_name: "rowcast generate".to_owned(),
        ..ConnectOptions::default()
    };
    let client = postgres::client::connect(&conninfo, &options).await.map_err(Error::from)?;
    // The tables are created in the user's own schema.
    postgres::search_path::restore(&client).await.map_err(Error::from)?;
    let options = generate::Options {
        template: match args.template {
            Template::Taxi => generate::Template::Taxi,
            Template::Orders => generate::Template::Orders,
        },
        rate: args.rate,
        count: args.count,
        seed: args.seed,
        create_schema: !args.no_create,
        ..generate::Options::default()
    };
    let mut stop = super::run::told_to_stop();
    let stopped = async move {
        // The sender is never dropped.
        let _ = stop.wait_for(|told| *told).await;
    };
    let progress = generate::Progress::default();
    let summary = generate::run(&client, options, &progress, stopped).await?;
    super::print(&format!(
        "{} inserted, {} updated, {} deleted in {}\n",
        summary.inserted,
        summary.updated,
        summary.deleted,
        humantime::format_duration(Duration::from_millis(
            u64::try_from(summary.elapsed.as_millis()).unwrap_or(u64::MAX)
        ))
    ))
}
