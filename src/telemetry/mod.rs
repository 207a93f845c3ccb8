//! Where log lines go, and in which form.
//!
//! Log lines go to stderr, because stdout belongs to a command's output, and a thread of their own
//! writes them, so that a blocked stderr blocks no other code (`lines`). librdkafka's own lines
//! come through `tracing` too, under the target `librdkafka`, and have a level of their own:
//! `info,librdkafka=warn`.
//!
//! If stderr is a terminal, progress bars may be drawn below the lines; the bars are cleared while
//! a line is written.
//!
//! Not here: the level's precedence. `ROWCAST_LOG` and `--log-level` are sources of `log.level`.

mod lines;
mod panics;

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use indicatif::MultiProgress;
use thiserror::Error;
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use self::lines::Lines;
pub use self::panics::end_on_panic;
use crate::config::{Log, LogFormat};

/// The only writer to stderr.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Why the log can't be started.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The level is not a valid filter; only possible for a level that was not loaded from a
    /// source.
    #[error("reading the log level: {0}")]
    Level(#[from] ParseError),
    /// A log was already started.
    #[error("starting the log: {0}")]
    Started(#[from] TryInitError),
}

/// Starts the log for the rest of the process. Returns where progress bars may be drawn if stderr
/// is a terminal.
///
/// # Errors
/// When the level is not a valid filter, or a log was already started.
pub fn init(log: &Log) -> Result<Option<MultiProgress>, TelemetryError> {
    // https://no-color.org: set and not empty means none.
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_terminal = std::io::stderr().is_terminal();
    // It draws to stderr, and nothing before the first bar.
    let bars = (is_terminal && log.format == LogFormat::Text).then(MultiProgress::new);
    let lines = LINES.get_or_init(|| {
        let bars = bars.clone();
        Lines::to_stderr(|stderr| Box::new(Beside { bars, lines: stderr }))
    });
    dispatch(log, lines.clone(), is_terminal && !unwanted)?.try_init()?;
    Ok(bars)
}

/// Writes the last message of the process to stderr, after all queued lines, and waits for it
/// briefly.
pub fn last_words(text: &str) {
    LINES.get_or_init(|| Lines::to_stderr(|stderr| Box::new(stderr))).push_last(text);
}

/// Waits a moment until all that was logged is written.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush();
    }
}

/// Writes lines next to bars.
struct Beside<M> {
    bars: Option<MultiProgress>,
    lines: M,
}

impl<'w, M: MakeWriter<'w>> MakeWriter<'w> for Beside<M> {
    type Writer = Beside<M::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Beside { bars: self.bars.clone(), lines: self.lines.make_writer() }
    }
}

impl<W: Write> Write for Beside<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &self.bars {
            Some(bars) => bars.suspend(|| self.lines.write(bytes)),
            None => self.lines.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.lines.flush()
    }
}

fn dispatch<W>(log: &Log, writer: W, colours: bool) -> Result<Dispatch, ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = filter(&log.level)?;
    let lines = fmt::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match log.format {
        LogFormat::Text => lines.with_ansi(colours).finish().into(),
        LogFormat::Json => lines.json().flatten_event(true).finish().into(),
    })
}

/// The filter of `log.level`. The SQL library is silenced unless named there: it would log every
/// server notice at every connection, and `login_notices` handles those.
fn filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    const LIBRARY: &str = "tokio_postgres";
    let quiet = format!("{level},{LIBRARY}=warn");
    EnvFilter::builder().parse(if level.contains(LIBRARY) || level == "off" {
        level
    } else {
        &quiet
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use super::*;

    /// The output of a few log calls with these settings.
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

    #[test]
    fn a_line_and_the_bars_below_it_do_not_tear_each_other() {
        use indicatif::{InMemoryTerm, ProgressBar, ProgressDrawTarget, TermLike};

        #[derive(Debug, Clone)]
        struct Screen(InMemoryTerm);
        impl Write for Screen {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let text = std::str::from_utf8(bytes).map_err(std::io::Error::other)?;
                // As a terminal's line discipline does.
                self.0.write_str(&text.replace('\n', "\r\n"))?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        let screen = Screen(InMemoryTerm::new(10, 120));
        let target = ProgressDrawTarget::term_like(Box::new(screen.0.clone()));
        let bars = MultiProgress::with_draw_target(target);
        let lines = screen.clone();
        let writer = Beside { bars: Some(bars.clone()), lines: move || lines.clone() };
        let log = Log { level: "info".to_owned(), format: LogFormat::Text };
        let bar = bars.add(ProgressBar::new(10));
        tracing::dispatcher::with_default(&dispatch(&log, writer, false).unwrap(), || {
            for n in 0..3 {
                bar.set_position(n);
                bar.force_draw();
                tracing::info!("line {n}");
            }
        });
        let shown = screen.0.contents();
        let rows: Vec<&str> = shown.lines().collect();
        assert_eq!(rows.len(), 4, "{shown}");
        for (n, row) in rows[..3].iter().enumerate() {
            assert!(row.ends_with(&format!("line {n}")), "{shown}");
        }
        assert!(rows[3].contains("2/10"), "{shown}");
    }
}
