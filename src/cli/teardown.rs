//! `rowcast teardown`: removes what the bridge created in the database, and its checkpoint.

use clap::Args;

use super::{CliError, GlobalArgs, SettingArgs};
use crate::bridge::{Scope, Step, Teardown, teardown};
use crate::telemetry;

/// Drop the replication slot, the publication and the checkpoint, after asking
#[derive(Debug, Args)]
#[command(after_help = "\
Changes that are not published yet will never reach Kafka: a later run starts from scratch. Topics are \
kept. With
--keep-checkpoint a later run stops and reports the missing changes.

What does not belong to this pipeline is kept: a publication that rowcast did not create, unless \
--publication names it, and the checkpoint of another cluster's pipeline of the same name.

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
    /// Drop the pipeline's publication of this name although rowcast did not create it
    #[arg(long, value_name = "NAME")]
    publication: Option<String>,
    #[command(flatten)]
    settings: SettingArgs,
}

/// The operator's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    /// No terminal to ask on.
    None,
}

pub(super) async fn run(args: TeardownArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let loaded = global.load(&args.settings)?;
    telemetry::init(&loaded.config.log)?;
    let planned = Teardown::planned(&loaded.config)?;
    if let Some(named) = args.publication.as_ref().filter(|named| **named != planned.publication) {
        let (named, publication) = (named.clone(), planned.publication);
        return Err(CliError::OtherPublication { named, publication });
    }
    if !args.yes {
        match ask(&planned, args.keep_checkpoint)? {
            Answer::Yes => {}
            Answer::No => return super::print("nothing was dropped\n"),
            Answer::None => return Err(CliError::NotConfirmed),
        }
    }
    let scope = Scope {
        keep_checkpoint: args.keep_checkpoint,
        any_publication: args.publication.is_some(),
    };
    let mut printed = Ok(());
    let report = |step: Step| {
        let line = super::print(&format!("{step}\n"));
        if printed.is_ok() {
            printed = line;
        }
    };
    teardown(&loaded.config, scope, report).await?;
    printed
}

/// Asks on the terminal.
fn ask(planned: &Teardown, keep_checkpoint: bool) -> Result<Answer, CliError> {
    let checkpoint = match keep_checkpoint {
        true => String::new(),
        false => format!(", and the checkpoint in the topic {}", planned.checkpoints),
    };
    super::print(&format!(
        "Drop the replication slot {} and the publications {} and {} in database {}{checkpoint}?\nChanges \
         that were not published yet are lost to Kafka. [y/N] ",
        planned.slot, planned.publication, planned.inserts_publication, planned.database
    ))?;
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer).map_err(CliError::Input)?;
    Ok(match (read, answer.trim()) {
        (0, _) => Answer::None,
        (_, "y" | "Y" | "yes") => Answer::Yes,
        _ => Answer::No,
    })
}
