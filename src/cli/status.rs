//! `rowcast status`: asks a running bridge how it is; the health check of its container.

use clap::Args;

use super::ask::AskArgs;
use super::{CliError, GlobalArgs};

/// Ask a running bridge how it is; exit code 0 when it is ready
#[derive(Debug, Args)]
#[command(after_help = "\
Asks the address in admin.listen, unless told otherwise. As a container's health check:
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
