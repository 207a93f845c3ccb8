//! `rowcast generate`: realistic changes for a database to have.

use clap::{Args, ValueEnum};

use super::settings::secret;
use super::{CliError, GlobalArgs};
use crate::config::Secret;

/// Write realistic row changes into a database, to try things with
#[derive(Debug, Args)]
#[command(after_help = "\
Rides are inserted, updated at drop-off, and now and then cancelled, which deletes them.

Examples:
  rowcast generate --database-url postgres:///taxi --rate 100
  rowcast generate --count 1000 --rate 0 --seed 7")]
pub(super) struct GenerateArgs {
    /// Connection string of the database that is written to. Other users of the machine can read
    /// it: a password belongs in the environment
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", value_parser = secret)]
    database_url: Option<Secret>,
    /// Rows a second; 0 for as fast as possible
    #[arg(long, default_value_t = 10.0, value_name = "ROWS_PER_SECOND", value_parser = rate)]
    rate: f64,
    /// Rides (or orders) to make [default: no end]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Seed; the same one gives the same rows [default: a new one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// What to make
    #[arg(long, value_enum, default_value_t = Template::Taxi)]
    template: Template,
    /// Expect the tables to be there, instead of making those that are missing
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

/// A rate that time can pass at.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("expected a number of rows a second, 0 or more".to_owned()),
    }
}

pub(super) async fn run(args: GenerateArgs, _global: &GlobalArgs) -> Result<(), CliError> {
    tracing::debug!(?args, "generate asked for");
    Err(CliError::Absent { command: "generate" })
}
