//! `rowcast teardown`: removes what the bridge made in the database, and its checkpoint.

use clap::Args;

use super::{CliError, GlobalArgs, SettingArgs};
use crate::bridge::{Teardown, teardown};
use crate::telemetry;

/// Drop the replication slot, the publication and the checkpoint; asks first
#[derive(Debug, Args)]
#[command(after_help = "\
Changes that were not published yet are lost to Kafka: a later run starts anew. Topics stay. With
--keep-checkpoint a later run stops, and says what is missing.

Examples:
  rowcast teardown
  rowcast teardown --yes --config /etc/rowcast.toml")]
pub(super) struct TeardownArgs {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Leave the checkpoint in its topic
    #[arg(long)]
    keep_checkpoint: bool,
    #[command(flatten)]
    settings: SettingArgs,
}

pub(super) async fn run(args: TeardownArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let loaded = global.load(&args.settings)?;
    telemetry::init(&loaded.config.log)?;
    let planned = Teardown::planned(&loaded.config)?;
    if !args.yes && !confirmed(&planned, args.keep_checkpoint)? {
        return Err(CliError::NotConfirmed);
    }
    let done = teardown(&loaded.config, args.keep_checkpoint).await?;
    let said = |dropped| if dropped { "dropped" } else { "was not there" };
    let checkpoint = match (args.keep_checkpoint, done.checkpoint_removed) {
        (true, _) => "kept",
        (false, true) => "removed",
        (false, false) => "was not there",
    };
    super::print(&format!(
        "replication slot {}: {}\npublication {}: {}\ncheckpoint in {}: {checkpoint}\n",
        done.slot,
        said(done.slot_dropped),
        done.publication,
        said(done.publication_dropped),
        done.checkpoints
    ))
}

/// Asks on the terminal; where there is none, nobody says yes.
fn confirmed(planned: &Teardown, keep_checkpoint: bool) -> Result<bool, CliError> {
    let checkpoint = match keep_checkpoint {
        true => String::new(),
        false => format!(", and the checkpoint in the topic {}", planned.checkpoints),
    };
    super::print(&format!(
        "Drop the replication slot {} and the publication {} in database {}{checkpoint}?\nChanges \
         that were not published yet are lost to Kafka. [y/N] ",
        planned.slot, planned.publication, planned.database
    ))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(CliError::Input)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
