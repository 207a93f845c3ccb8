//! `rowcast config`: prints the effective configuration.

use clap::{Args, ValueEnum};

use super::{CliError, GlobalArgs, SettingArgs};
use crate::config::listing;

/// Print the effective configuration and where each value was set, secrets masked
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is connected to. A wrong configuration ends with exit code 78 and every problem listed, so \
this command also checks a configuration before it is deployed.

Examples:
  rowcast config
  rowcast config --config staging.toml --format json")]
pub(super) struct ConfigArgs {
    /// Form of the listing
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
    #[command(flatten)]
    settings: SettingArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// Aligned columns: key, value, origin
    Text,
    /// A TOML document with origins as comments
    Toml,
    /// A JSON object by key
    Json,
}

pub(super) fn run(args: &ConfigArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let entries = listing::entries(&global.load(&args.settings)?);
    super::print(&match args.format {
        Form::Text => listing::text(&entries),
        Form::Toml => listing::toml(&entries),
        Form::Json => listing::json(&entries),
    })
}
