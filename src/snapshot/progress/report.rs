//! Progress reports, in the same words for `/status`, the log and the terminal.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The phase of reading a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its rows are being read.
    Reading,
    /// It waits for its turn.
    #[default]
    Waiting,
    /// All of its rows are published.
    Done,
}

impl Phase {
    /// The word for logs and pages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Waiting => "waiting",
            Self::Done => "done",
        }
    }
}

/// Progress of one table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableReport {
    /// Its request.
    pub snapshot: String,
    /// Schema and name.
    pub table: String,
    /// Its phase.
    pub phase: Phase,
    /// Rows published.
    pub rows: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The percentage published; below 100 until it is done. `None` if its size is unknown.
    pub percent: Option<f64>,
    /// Rows per second in the last half minute.
    pub rows_per_second: u64,
    /// Seconds left at this rate; `None` without a rate.
    pub eta_seconds: Option<u64>,
}

/// Progress of all tables.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether any table is unfinished.
    pub running: bool,
    /// The number of tables.
    pub tables_total: usize,
    /// The number of unfinished tables.
    pub tables_left: usize,
    /// Rows published.
    pub rows: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The percentage published, weighted by the tables' sizes. `None` if one of the sizes is
    /// unknown.
    pub percent: Option<f64>,
    /// Rows per second in the last half minute.
    pub rows_per_second: u64,
    /// Bytes per second in the last half minute.
    pub bytes_per_second: u64,
    /// Seconds since the first of these tables was started.
    pub elapsed_seconds: u64,
    /// Seconds left at this rate; `None` without a rate.
    pub eta_seconds: Option<u64>,
    /// Single tables, those being read first; at most [`super::LISTED`].
    pub tables: Vec<TableReport>,
}

/// For humans: `1.2 GB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut scaled = super::window::as_f64(bytes);
    while scaled >= 999.95 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    match UNITS[unit] {
        "B" => format!("{bytes} B"),
        unit => format!("{scaled:.1} {unit}"),
    }
}

/// For humans: `1h 2m`, two units at most.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// The total on one line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, tables_left, tables_total, .. } = self;
        if let Some(percent) = self.percent {
            write!(f, "{percent:.1} %, ")?;
        }
        write!(f, "{rows} rows, {}", bytes(self.bytes))?;
        write!(f, ", {} of {tables_total} tables done", tables_total - tables_left)?;
        if !self.running {
            return write!(f, ", in {}", duration(self.elapsed_seconds));
        }
        if self.bytes_per_second > 0 {
            let (rows, bytes) = (self.rows_per_second, bytes(self.bytes_per_second));
            write!(f, ", {rows} rows/s, {bytes}/s")?;
        }
        match self.eta_seconds {
            Some(left) => write!(f, ", {} left", duration(left)),
            None => Ok(()),
        }
    }
}
