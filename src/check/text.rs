//! A report for people: a line a precondition, then the blocks to paste.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::{Finding, Level, Report, is_for_brokers, is_sql};

/// The report, with colors that a stream without a terminal strips.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    for Finding { check, level, found, fix } in &report.findings {
        let (word, style) = word(*level);
        let _ = writeln!(out, "{style}{word:<5}{style:#} {check:<24} {found}");
        if *level != Level::Ok {
            for line in fix.iter().flat_map(|fix| fix.lines()) {
                // What is in a block below is not printed twice.
                let is_below = *level == Level::Error && (is_sql(line) || is_for_brokers(line));
                if !is_below {
                    let _ = writeln!(out, "      {:<24} fix: {line}", "");
                }
            }
        }
    }
    for (block, place) in [
        (&report.sql, "In the database, as a role that may do so:"),
        (&report.kafka, "On the brokers, as an administrator:"),
    ] {
        if !block.is_empty() {
            let _ = write!(out, "\n{place}\n\n{block}\n");
        }
    }
    let count = |level| report.findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    let _ = match (errors, warnings) {
        (0, 0) => writeln!(out, "\nAll is well: rowcast can run."),
        (0, n) => writeln!(out, "\nrowcast can run; {n} of these may surprise later."),
        (n, 0) => writeln!(out, "\nrowcast can't run yet: {n} to fix."),
        (n, more) => writeln!(out, "\nrowcast can't run yet: {n} to fix, and {more} to look at."),
    };
    out
}

const fn word(level: Level) -> (&'static str, Style) {
    match level {
        Level::Ok => ("ok", AnsiColor::Green.on_default()),
        Level::Warning => ("warn", AnsiColor::Yellow.on_default()),
        Level::Error => ("ERROR", AnsiColor::Red.on_default().bold()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_is_printed_once_where_it_can_be_pasted_or_read() {
        let fix = "set postgres.slot to another name\nALTER ROLE r REPLICATION;";
        let report = Report::new(vec![
            Finding::ok("postgres.connection", "it answers".to_owned()),
            Finding::error("postgres.role", "it may not".to_owned(), Some(fix.to_owned())),
        ]);
        let text = anstream::adapter::strip_str(&text(&report)).to_string();
        assert_eq!(
            text,
            "ok    postgres.connection      it answers\n\
             ERROR postgres.role            it may not\n\
             \u{20}                              fix: set postgres.slot to another name\n\
             \n\
             In the database, as a role that may do so:\n\
             \n\
             ALTER ROLE r REPLICATION;\n\
             \n\
             rowcast can't run yet: 1 to fix.\n"
        );
    }
}
