//! `rowcast run`: the bridge itself.

use clap::Args;

use super::{CliError, GlobalArgs, SettingArgs};
use crate::telemetry;

/// Run the bridge: publish every row change to Kafka until told to stop
#[derive(Debug, Args)]
#[command(after_help = "\
The publication and the replication slot are made on the first run. SIGTERM and SIGINT end it after \
what is in flight has been acknowledged, for at most kafka.drain_timeout.

Examples:
  DATABASE_URL=postgres:///taxi KAFKA_BROKERS=localhost:9092 rowcast run
  rowcast run --tables 'public.*' --name taxi")]
pub(super) struct RunArgs {
    #[command(flatten)]
    settings: SettingArgs,
}

pub(super) async fn run(args: RunArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let loaded = global.load(&args.settings)?;
    telemetry::init(&loaded.config.log)?;
    Err(CliError::Absent { command: "run" })
}
