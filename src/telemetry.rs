//! Where log lines go, and in which form.
//!
//! To stderr, so that stdout belongs to what a command prints. librdkafka's own lines come through
//! `tracing` too, under the target `librdkafka`, and can be set apart: `info,librdkafka=warn`.
//!
//! Not here: the level's precedence. `ROWCAST_LOG` and `--log-level` are sources of `log.level`.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{Log, LogFormat};

/// Why nothing can be logged.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The level is no filter; only with a level that was not loaded from a source.
    #[error("reading the log level: {0}")]
    Level(#[from] ParseError),
    /// Log lines go somewhere already.
    #[error("starting the log: {0}")]
    Started(#[from] TryInitError),
}

/// Starts the log for the rest of the process.
///
/// # Errors
/// When the level is no filter, or a log was started before.
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(&log.level)?;
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        // https://no-color.org: set and not empty means none.
        LogFormat::Text => {
            let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colours = std::io::stderr().is_terminal() && !unwanted;
            lines.with_ansi(colours).finish().try_init()?;
        }
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}
