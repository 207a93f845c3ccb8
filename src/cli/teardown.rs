//! `rowcast teardown`: removes what the bridge made in the database.

use clap::Args;

use super::{CliError, GlobalArgs, SettingArgs};
use crate::bridge::{Teardown, teardown};
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
    let planned = Teardown::planned(&loaded.config)?;
    if !args.yes && !confirmed(&planned)? {
        return Err(CliError::NotConfirmed);
    }
    let done = teardown(&loaded.config).await?;
    let said = |dropped| if dropped { "dropped" } else { "was not there" };
    super::print(&format!(
        "replication slot {}: {}\npublication {}: {}\n",
        done.slot,
        said(done.slot_dropped),
        done.publication,
        said(done.publication_dropped)
    ))
}

/// Asks on the terminal; where there is none, nobody says yes.
fn confirmed(planned: &Teardown) -> Result<bool, CliError> {
    super::print(&format!(
        "Drop the replication slot {} and the publication {} in database {}?\nChanges that were \
         not published yet are lost to Kafka. [y/N] ",
        planned.slot, planned.publication, planned.database
    ))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(CliError::Input)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
