//! `rowcast check`: says before a start whether it will work, and what fixes it where not.

use clap::Args;

use super::{CliError, GlobalArgs, SettingArgs};
use crate::bridge::Bridge;
use crate::check::{self, Level};
use crate::config::{Log, LogFormat};
use crate::telemetry;

/// Check everything that a start needs in Postgres and Kafka, and print what fixes it
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is created or altered. A line each: ok, warn (it works, and may surprise later) or ERROR \
(rowcast can't run so); then the SQL and the commands for the brokers, each as one block to paste.

Exit codes: 0 all is well, or there are warnings; 1 warnings, with --strict; 69 errors; 78 the \
configuration is wrong.

Examples:
  rowcast check --config /etc/rowcast.toml
  rowcast check --json | jq '.findings[] | select(.level == \"error\")'")]
pub(super) struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// End with exit code 1 when there are warnings
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    settings: SettingArgs,
}

pub(super) async fn run(args: CheckArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let loaded = global.load(&args.settings)?;
    // What is found is printed; the client libraries' own words would come between.
    telemetry::init(&Log { level: "off".to_owned(), format: LogFormat::Text })?;
    let bridge = Bridge::new(&loaded.config)?;
    let report = bridge.check().await;
    super::print(&match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&report).unwrap_or_default()),
        false => check::text(&report),
    })?;
    match report.level {
        Level::Error => Err(CliError::CheckFailed { errors: report.errors().count() }),
        Level::Warning if args.strict => Err(CliError::CheckWarned),
        Level::Warning | Level::Ok => Ok(()),
    }
}
