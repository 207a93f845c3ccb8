//! `rowcast teardown`: removes what the bridge made in the database.

use clap::Args;

use super::{CliError, GlobalArgs, SettingArgs};
use crate::telemetry;

/// Drop the replication slot and the publication; asks first
#[derive(Debug, Args)]
#[command(after_help = "\
Changes that were not published yet are lost to Kafka: a later run starts anew. Topics stay.

Examples:
  rowcast teardown
  rowcast teardown --yes --config /etc/rowcast.toml")]
pub(super) struct TeardownArgs {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    settings: SettingArgs,
}

pub(super) async fn run(args: TeardownArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let loaded = global.load(&args.settings)?;
    telemetry::init(&loaded.config.log)?;
    tracing::debug!(yes = args.yes, "teardown asked for");
    Err(CliError::Absent { command: "teardown" })
}
