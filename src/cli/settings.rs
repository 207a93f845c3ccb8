//! The flags that set configuration keys, and how the configuration is loaded from them.

use std::path::PathBuf;

use clap::Args;

use super::exit::CliError;
use crate::config::{self, FlagSetting, Loaded, Secret, Sources};

/// Flags that every command has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Configuration")]
pub struct GlobalArgs {
    /// Configuration file, TOML or YAML [env: ROWCAST_CONFIG] [default: rowcast.toml, rowcast.yaml
    /// or rowcast.yml in the current directory, if present]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set any key, such as topics.partitions=3; may be repeated. Other users of the machine can
    /// read it: keep secrets in files or the environment
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, Secret)>,

    /// Log level, or directives such as info,librdkafka=warn [env: ROWCAST_LOG]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Short flags for the keys that a first run needs.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Configuration")]
pub struct SettingArgs {
    /// Connection string of the database [env: DATABASE_URL]. Other users of the machine can read
    /// it: a password belongs in the environment or in postgres.password_file
    #[arg(long, value_name = "URL", value_parser = secret)]
    pub database_url: Option<Secret>,

    /// Kafka brokers, comma-separated host:port [env: KAFKA_BROKERS]
    #[arg(long, value_name = "BROKERS")]
    pub brokers: Option<String>,

    /// Tables to capture, comma-separated globs of schema.table
    #[arg(long, value_name = "PATTERNS")]
    pub tables: Option<String>,

    /// The pipeline's name [default: the database's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

impl GlobalArgs {
    /// Loads the configuration; short flags take precedence over `--set`.
    ///
    /// # Errors
    /// When the configuration is invalid.
    pub fn load(&self, settings: &SettingArgs) -> Result<Loaded, CliError> {
        let flag = |flag: &str, key: &str, value: &Secret| FlagSetting {
            flag: flag.to_owned(),
            key: key.to_owned(),
            value: value.clone(),
        };
        let mut flags: Vec<FlagSetting> =
            self.set.iter().map(|(key, value)| flag("--set", key, value)).collect();
        if let Some(url) = &settings.database_url {
            flags.push(flag("--database-url", "postgres.url", url));
        }
        for (name, key, value) in [
            ("--brokers", "kafka.brokers", &settings.brokers),
            ("--tables", "postgres.tables", &settings.tables),
            ("--name", "name", &settings.name),
            ("--log-level", "log.level", &self.log_level),
        ] {
            if let Some(value) = value {
                flags.push(flag(name, key, &Secret::from(value.clone())));
            }
        }
        Ok(config::load(&Sources::of_process(self.config.clone(), flags))?)
    }
}

/// A text that `Debug` never prints.
pub(super) fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::from(text.to_owned()))
}

/// `KEY=VALUE`, the value hidden.
pub(super) fn key_value(text: &str) -> Result<(String, Secret), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok((key.to_owned(), Secret::from(value.to_owned())))
        }
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
