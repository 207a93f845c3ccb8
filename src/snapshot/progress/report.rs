//! What is said of progress, in the same words in `/status`, the log and the terminal.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the reading of a table stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its rows are being read.
    Reading,
    /// Its turn has not come.
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

/// How far one table is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableReport {
    /// The request that it belongs to.
    pub snapshot: String,
    /// Schema and name.
    pub table: String,
    /// Where it stands.
    pub phase: Phase,
    /// Rows published.
    pub rows: u64,
    /// Bytes read.
    pub bytes: u64,
    /// How much of it that is, of a hundred; below that until it is done. None where nobody knows
    /// how large it is.
    pub percent: Option<f64>,
    /// Rows a second in the last half minute.
    pub rows_per_second: u64,
    /// Seconds left at this rate; none where there is no rate.
    pub eta_seconds: Option<u64>,
}

/// How far all tables are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether there is a table that is not done.
    pub running: bool,
    /// How many tables there are.
    pub tables_total: usize,
    /// How many of them are not done.
    pub tables_left: usize,
    /// Rows published.
    pub rows: u64,
    /// Bytes read.
    pub bytes: u64,
    /// How much of all that is, of a hundred, weighed by the tables' sizes. None where nobody knows
    /// how large one of them is.
    pub percent: Option<f64>,
    /// Rows a second in the last half minute.
    pub rows_per_second: u64,
    /// Bytes a second in the last half minute.
    pub bytes_per_second: u64,
    /// Seconds since the first of these tables was begun.
    pub elapsed_seconds: u64,
    /// Seconds left at this rate; none where there is no rate.
    pub eta_seconds: Option<u64>,
    /// Single tables, those that are read first; at most [`super::LISTED`].
    pub tables: Vec<TableReport>,
}

/// For a person: `1.2 GB`.
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

/// For a person: `1h 2m`, two units at most.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// One line of all.
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
