//! Shows the progress of snapshots: bars on a terminal, log lines elsewhere.
//!
//! Bars are drawn below the log lines: one for each table that is being read or waits, up to half
//! the screen, and one for the total. They are removed when all tables are done; the log remains.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::snapshot::progress::{Book, Phase, Report, TableReport, duration};

/// Time between two updates.
const LOOK: Duration = Duration::from_millis(200);

/// Time between two log lines.
const LINE: Duration = Duration::from_secs(10);

/// Height of a terminal that does not report its size.
const ROWS: usize = 24;

/// Length of a bar in steps.
const WHOLE: u64 = 1000;

/// Shows the book's progress until the task is dropped.
pub(super) async fn show(book: Arc<Book>, bars: Option<MultiProgress>) {
    let mut drawn = bars.map(Bars::new);
    let mut lines = Lines::default();
    loop {
        crate::failpoint::reach("progress");
        tokio::time::sleep(LOOK).await;
        let report = book.snapshot();
        if let Some(bars) = &mut drawn {
            bars.draw(&report, rows() / 2);
            continue;
        }
        lines.look(&report, Instant::now());
    }
}

/// Progress as log lines.
#[derive(Default)]
struct Lines {
    /// When the last line was written; before the first, when progress began.
    since: Option<Instant>,
}

impl Lines {
    /// Logs a report if a line is due.
    fn look(&mut self, report: &Report, now: Instant) {
        if !report.running {
            self.since = None;
        } else if now.duration_since(*self.since.get_or_insert(now)) >= LINE {
            self.since = Some(now);
            tell(report);
        }
    }
}

fn tell(report: &Report) {
    let Report { rows, bytes, percent, rows_per_second, bytes_per_second, .. } = report;
    let (tables_left, tables_total) = (report.tables_left, report.tables_total);
    let left = report.eta_seconds.map(duration);
    tracing::info!(
        percent = *percent,
        rows,
        bytes,
        rows_per_second,
        bytes_per_second,
        tables_left,
        tables_total,
        left,
        "snapshot goes on"
    );
}

fn rows() -> usize {
    terminal_size::terminal_size_of(std::io::stderr()).map_or(ROWS, |(_, rows)| rows.0.into())
}

/// Progress as bars.
struct Bars {
    screen: MultiProgress,
    tables: Vec<ProgressBar>,
    all: Option<ProgressBar>,
}

impl Bars {
    const fn new(screen: MultiProgress) -> Self {
        Self { screen, tables: Vec::new(), all: None }
    }

    /// Draws a report with at most `most` bars for tables.
    fn draw(&mut self, report: &Report, most: usize) {
        if !report.running {
            return self.clear();
        }
        let unfinished = report.tables.iter().filter(|table| table.phase != Phase::Done);
        let shown: Vec<&TableReport> = unfinished.take(most.max(1)).collect();
        while self.tables.len() > shown.len() {
            if let Some(bar) = self.tables.pop() {
                bar.finish_and_clear();
                self.screen.remove(&bar);
            }
        }
        while self.tables.len() < shown.len() {
            self.tables.push(self.screen.insert(self.tables.len(), bar()));
        }
        for (bar, table) in self.tables.iter().zip(&shown) {
            bar.set_prefix(table.table.clone());
            set(bar, table.percent, &of_table(table));
        }
        let all = self.all.get_or_insert_with(|| self.screen.add(bar()));
        all.set_prefix("all");
        set(all, report.percent, &report.to_string());
    }

    fn clear(&mut self) {
        for bar in self.tables.drain(..).chain(self.all.take()) {
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
    }
}

fn bar() -> ProgressBar {
    // The template is constant, and a test draws it.
    let style = ProgressStyle::with_template("{prefix:24!} {bar:20} {wide_msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(WHOLE).with_style(style.progress_chars("=> "))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 100, in tenths"
)]
fn set(bar: &ProgressBar, percent: Option<f64>, message: &str) {
    bar.set_message(message.to_owned());
    bar.set_position((percent.unwrap_or(0.0) * 10.0) as u64);
}

fn of_table(table: &TableReport) -> String {
    if table.phase == Phase::Waiting {
        return table.phase.word().to_owned();
    }
    let percent = table.percent.map(|percent| format!("{percent:.1} %, "));
    let mut text = format!("{}{} rows", percent.unwrap_or_default(), table.rows);
    if table.rows_per_second > 0 {
        text += &format!(", {} rows/s", table.rows_per_second);
    }
    if let Some(left) = table.eta_seconds {
        text += &format!(", {} left", duration(left));
    }
    text
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    use super::*;
    use crate::snapshot::progress::{Amount, Planned};

    #[test]
    fn the_log_has_a_line_every_ten_seconds_for_as_long_as_a_snapshot_goes_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer: Arc<std::fs::File> = Arc::new(file.reopen().unwrap());
        let log = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).finish();
        let book = Book::new(Arc::default());
        let (mut lines, start) = (Lines::default(), Instant::now());
        let mut told_at = Vec::new();
        tracing::subscriber::with_default(log, || {
            let size = Amount { pages: 100, ..Amount::default() };
            let mut table = None;
            for step in 0..320 {
                match step {
                    // Nothing is read for five seconds, then a table for forty, then another for ten.
                    25 | 250 => {
                        table = Some(book.begin_table(Planned { size, ..Planned::default() }));
                    }
                    226 | 300 => table.iter().for_each(|table| book.finish(*table)),
                    _ => {}
                }
                if step == 60 {
                    let read = Amount { rows: 500, bytes: 50_000, pages: 25 };
                    table.iter().for_each(|table| book.advance(*table, read));
                }
                lines.look(&book.snapshot(), start + LOOK * step);
                let text = std::fs::read_to_string(file.path()).unwrap();
                if text.lines().count() > told_at.len() {
                    told_at.push(step);
                }
            }
        });
        let text = std::fs::read_to_string(file.path()).unwrap();
        // The second table was done before its first line was due.
        assert_eq!(told_at, [75, 125, 175, 225], "{text}");
        let fields = "snapshot goes on percent=25.0 rows=500 bytes=50000 rows_per_second=0 \
                      bytes_per_second=0 tables_left=1 tables_total=1";
        assert!(text.contains(fields), "{text}");
    }

    fn drawn(terminal: &InMemoryTerm) -> Vec<String> {
        terminal.contents().lines().map(|line| line.trim_end().to_owned()).collect()
    }

    #[test]
    fn a_bar_a_table_and_one_for_all_are_drawn_within_the_screen_and_taken_away() {
        let terminal = InMemoryTerm::new(12, 100);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let mut bars = Bars::new(MultiProgress::with_draw_target(target));
        let book = Book::new(Arc::default());
        let size = Amount { pages: 100, ..Amount::default() };
        let tables: Vec<_> = (0..9)
            .map(|n| {
                let table = format!("public.t{n}");
                book.begin_table(Planned { table, size, ..Planned::default() })
            })
            .collect();
        book.advance(tables[3], Amount { rows: 500, bytes: 50_000, pages: 50 });
        bars.draw(&book.snapshot(), 4);
        // Drawing is rate limited; only the last state counts.
        std::iter::once(&bars.all).flatten().chain(&bars.tables).for_each(ProgressBar::force_draw);
        let rows = drawn(&terminal);
        assert_eq!(rows.len(), 5, "{rows:#?}");
        let first = "public.t3                ==========>          50.0 %, 500 rows";
        assert_eq!(rows[0], first, "{rows:#?}");
        assert!(rows[1].starts_with("public.t0") && rows[1].ends_with("waiting"), "{rows:#?}");
        assert!(rows[4].starts_with("all ") && rows[4].contains("0 of 9 tables done"), "{rows:#?}");
        for table in tables {
            book.finish(table);
        }
        bars.draw(&book.snapshot(), 4);
        assert!(drawn(&terminal).iter().all(String::is_empty), "{:#?}", drawn(&terminal));
    }
}
