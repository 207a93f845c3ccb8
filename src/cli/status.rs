//! `rowcast status`: prints the status of a running bridge; health check of its container.

use clap::Args;

use super::ask::AskArgs;
use super::{CliError, GlobalArgs};

/// Print the status of a running bridge; exit code 0 when it is ready
#[derive(Debug, Args)]
#[command(after_help = "\
Sends the request to the address in admin.listen, unless --address names another. As a container's health check:
  HEALTHCHECK CMD [\"rowcast\", \"status\"]")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    ask: AskArgs,
}

pub(super) async fn run(args: StatusArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let bridge = args.ask.bridge(global)?;
    let ready = bridge.get("/readyz").await?;
    if ready.code != 200 {
        let reason = ready.body.trim().to_owned();
        return Err(CliError::NotReady { address: bridge.address, reason });
    }
    let status = bridge.get("/status").await?;
    super::print(&format!("{}\n", status.body.trim_end()))
}
