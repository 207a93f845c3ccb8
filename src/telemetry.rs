//! Where log lines go, and in which form.
//!
//! To stderr, so that stdout belongs to what a command prints. librdkafka's own lines come through
//! `tracing` too, under the target `librdkafka`, and can be set apart: `info,librdkafka=warn`.
//!
//! Not here: the level's precedence. `ROWCAST_LOG` and `--log-level` are sources of `log.level`.

use std::io::IsTerminal;

use thiserror::Error;
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::{self, MakeWriter};
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
    // https://no-color.org: set and not empty means none.
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = std::io::stderr().is_terminal() && !unwanted;
    dispatch(log, std::io::stderr, colours)?.try_init()?;
    Ok(())
}

fn dispatch<W>(log: &Log, writer: W, colours: bool) -> Result<Dispatch, ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(&log.level)?;
    let lines = fmt::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match log.format {
        LogFormat::Text => lines.with_ansi(colours).finish().into(),
        LogFormat::Json => lines.json().flatten_event(true).finish().into(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use super::*;

    /// What is logged with these settings when a few lines are.
    fn logged(level: &str, format: LogFormat) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer: Arc<File> = Arc::new(file.reopen().unwrap());
        let log = Log { level: level.to_owned(), format };
        tracing::dispatcher::with_default(&dispatch(&log, writer, false).unwrap(), || {
            tracing::info!(slot = "s", "streaming");
            tracing::info!(target: "librdkafka", "connected");
            tracing::warn!(target: "librdkafka", "broker down");
        });
        std::fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn librdkafka_is_set_apart_by_its_target() {
        let text = logged("info,librdkafka=warn", LogFormat::Text);
        assert!(text.contains("streaming slot=\"s\"") && text.contains("broker down"), "{text}");
        assert!(!text.contains("connected"), "{text}");
        assert!(logged("info", LogFormat::Text).contains("connected"));
    }

    #[test]
    fn a_collector_gets_one_object_a_line_with_fields_at_its_top() {
        let text = logged("info", LogFormat::Json);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!((&lines[0]["message"], &lines[0]["slot"]), (&"streaming".into(), &"s".into()));
        assert_eq!(lines[2]["target"], "librdkafka");
    }

    #[test]
    fn a_level_that_is_no_filter_is_an_error() {
        let log = Log { level: "a=b=c".to_owned(), format: LogFormat::Text };
        assert!(dispatch(&log, std::io::stderr, false).is_err());
    }
}
