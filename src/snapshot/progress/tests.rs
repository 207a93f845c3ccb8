//! The book against a model that remembers everything.

use proptest::prelude::*;

use super::window::SPAN;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn book() -> Book {
    Book::new(Arc::default())
}

fn planned(table: &str, pages: u64) -> Planned {
    let size = Amount { pages, ..Amount::default() };
    Planned { snapshot: "1".to_owned(), table: table.to_owned(), size, ..Planned::default() }
}

fn range(rows: u64, pages: u64) -> Amount {
    Amount { rows, bytes: rows * 100, pages }
}

#[test]
fn nothing_is_said_to_be_done_before_it_is() {
    let mut pages = Pages::default();
    let table = pages.begin(SECOND, planned("public.rides", 10));
    pages.advance(SECOND * 2, table, range(1000, 10));
    let report = pages.report(SECOND * 3);
    assert!(report.running && report.percent < Some(100.0), "{report}");
    // It grew while it was read, or the estimate was bad.
    pages.advance(SECOND * 3, table, range(1000, 10));
    assert!(pages.report(SECOND * 3).percent < Some(100.0));
    pages.finish(SECOND * 4, table);
    let report = pages.report(SECOND * 100);
    assert_eq!((report.running, report.percent, report.rows), (false, Some(100.0), 2000));
    assert_eq!(report.elapsed_seconds, 3, "the clock stops with the last table");
    assert_eq!(report.to_string(), "100.0 %, 2000 rows, 200.0 kB, 1 of 1 tables done, in 3s");
}

#[test]
fn tables_that_come_while_one_is_read_are_counted_and_few_of_them_kept() {
    let mut pages = Pages::default();
    let slow = pages.begin(SECOND, planned("public.slow", 10));
    pages.advance(SECOND, slow, range(1, 1));
    for n in 0..50_000 {
        let table = pages.begin(SECOND, planned(&format!("public.t{n}"), 1));
        pages.advance(SECOND, table, range(2, 1));
        pages.finish(SECOND, table);
        assert!(pages.entries.len() <= KEPT + 2);
    }
    let report = pages.report(SECOND * 2);
    assert_eq!((report.tables_total, report.tables_left, report.rows), (50_001, 1, 100_001));
    assert!(report.percent > Some(99.0) && report.percent < Some(100.0), "{report}");
}

#[test]
fn the_time_left_is_that_of_the_present_pace() {
    let mut pages = Pages::default();
    let table = pages.begin(Duration::ZERO, planned("public.rides", 1000));
    for second in 1..=50 {
        pages.advance(SECOND * second, table, range(100, 10));
    }
    let report = pages.report(SECOND * 50);
    assert_eq!((report.rows_per_second, report.eta_seconds), (100, Some(50)), "{report}");
    assert_eq!(report.tables[0].eta_seconds, Some(50));
    assert_eq!(
        report.to_string(),
        "50.0 %, 5000 rows, 500.0 kB, 0 of 1 tables done, 100 rows/s, 10.0 kB/s, 50s left"
    );
    // Half of the pace, and half a minute later nothing else counts.
    for second in 51..=100 {
        pages.advance(SECOND * second, table, range(50, 5));
    }
    let report = pages.report(SECOND * 100);
    assert_eq!((report.rows_per_second, report.eta_seconds), (50, Some(50)), "{report}");
    let stalled = pages.report(SECOND * 200);
    assert_eq!((stalled.rows_per_second, stalled.eta_seconds), (0, None), "it stands still");
}

#[test]
fn what_a_session_before_has_done_counts_and_is_no_speed() {
    let mut pages = Pages::default();
    let done = range(9000, 90);
    let table = pages.begin(Duration::ZERO, Planned { done, ..planned("public.rides", 100) });
    let report = pages.report(SECOND);
    assert_eq!((report.rows, report.percent, report.rows_per_second), (9000, Some(90.0), 0));
    pages.advance(SECOND * 2, table, range(20, 1));
    assert_eq!(pages.report(SECOND * 2).rows_per_second, 10);
}

#[test]
fn where_nobody_knows_how_large_a_table_is_there_are_rows_and_a_rate_and_no_per_cent() {
    let mut pages = Pages::default();
    let size = Amount { pages: 90, ..Amount::default() };
    let of = |table: &str| Planned { size, measure: Measure::Rows, ..planned(table, 0) };
    let rides = pages.begin(Duration::ZERO, of("public.rides"));
    for second in [5, 10] {
        pages.advance(SECOND * second, rides, range(500, 0));
    }
    let report = pages.report(SECOND * 10);
    assert_eq!((report.percent, report.eta_seconds, report.rows_per_second), (None, None, 100));
    let told = "1000 rows, 100.0 kB, 0 of 1 tables done, 100 rows/s, 10.0 kB/s";
    assert_eq!(report.to_string(), told);
    let table = &report.tables[0];
    assert_eq!((table.percent, table.eta_seconds, table.rows_per_second), (None, None, 100));
    // Beside it the share of another says nothing of all.
    let zones = pages.begin(SECOND * 10, planned("public.zones", 10));
    pages.advance(SECOND * 20, zones, range(10, 5));
    let report = pages.report(SECOND * 20);
    assert_eq!((report.percent, report.eta_seconds), (None, None));
    assert_eq!(report.tables.iter().find_map(|table| table.percent), Some(50.0));
    pages.finish(SECOND * 20, rides);
    let report = pages.report(SECOND * 20);
    assert!(report.percent.is_some_and(|percent| percent > 90.0), "{report}");
}

#[test]
fn a_table_that_begins_again_replaces_its_entry_and_a_new_round_forgets_the_last() {
    let mut pages = Pages::default();
    let first = pages.begin(Duration::ZERO, planned("public.rides", 10));
    pages.advance(SECOND, first, range(10, 5));
    let again = pages.begin(SECOND, planned("public.rides", 10));
    assert!(pages.advance(SECOND, first, range(10, 5)).is_none(), "its session is over");
    assert_eq!(pages.report(SECOND).tables_total, 1);
    pages.finish(SECOND, again);
    pages.begin(SECOND * 9, planned("public.zones", 10));
    let report = pages.report(SECOND * 10);
    assert_eq!((report.tables_total, report.elapsed_seconds), (1, 1));
    assert_eq!(report.tables[0].table, "public.zones");
}

#[test]
fn those_that_are_read_are_listed_first_and_the_list_is_bounded() {
    let mut pages = Pages::default();
    let ids: Vec<TableId> =
        (0..250).map(|n| pages.begin(SECOND, planned(&format!("t.t{n}"), 1))).collect();
    pages.finish(SECOND, ids[0]);
    pages.advance(SECOND, ids[249], range(1, 0));
    let report = pages.report(SECOND);
    assert_eq!((report.tables.len(), report.tables_total, report.tables_left), (LISTED, 250, 249));
    assert_eq!(report.tables[0].table, "t.t249");
    assert!(report.tables.iter().all(|table| table.phase != Phase::Done));
}

#[test]
fn few_tables_have_gauges_and_only_while_they_are_read() {
    let book = book();
    let ids: Vec<TableId> =
        (0..30).map(|n| book.begin_table(planned(&format!("t.t{n}"), 2))).collect();
    for id in &ids {
        book.advance(*id, range(7, 1));
    }
    let text = book.metrics.render();
    assert_eq!(text.matches("rowcast_snapshot_table_rows{").count(), MEASURED, "{text}");
    assert!(text.contains("rowcast_snapshot_table_rows{table=\"t.t0\"} 7"), "{text}");
    assert!(text.contains("rowcast_snapshot_rows_total 210"), "{text}");
    assert!(text.contains("rowcast_snapshot_tables_left 30"), "{text}");
    for id in &ids[1..] {
        book.finish(*id);
    }
    book.remove(ids[0]);
    let text = book.metrics.render();
    assert!(!text.contains("{table="), "{text}");
    assert!(text.contains("rowcast_snapshot_running 0"), "{text}");
}

#[test]
fn sizes_and_times_read_well() {
    let told = [0, 999, 1000, 999_949, 999_999, 1_500_000_000].map(bytes);
    assert_eq!(told, ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.5 GB"]);
    assert_eq!([0, 59, 3725, 90_061].map(duration), ["0s", "59s", "1h 2m", "1day 1h"]);
}

#[derive(Debug, Clone)]
enum Step {
    Begin { pages: u64, rows: u64, measure: Measure },
    Advance { table: usize, rows: u64, pages: u64 },
    Finish { table: usize },
    Wait { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let measure = prop_oneof![Just(Measure::Pages), Just(Measure::Rows)];
    prop_oneof![
        1 => (0..1000_u64, 0..1000_u64, measure)
            .prop_map(|(pages, rows, measure)| Step::Begin { pages, rows, measure }),
        6 => (0..8_usize, 0..500_u64, 0..50_u64)
            .prop_map(|(table, rows, pages)| Step::Advance { table, rows, pages }),
        1 => (0..8_usize).prop_map(|table| Step::Finish { table }),
        4 => (0..5000_u64).prop_map(|millis| Step::Wait { millis }),
    ]
}

proptest! {
    #[test]
    fn sums_and_rates_are_those_of_a_model_that_forgets_nothing(
        steps in prop::collection::vec(step(), 1..200)
    ) {
        let mut pages = Pages::default();
        let mut now = Duration::ZERO;
        // A table that is never done keeps the round going.
        let mut tables = vec![pages.begin(now, planned("t.keeps", 10))];
        let mut log: Vec<(Duration, u64)> = Vec::new();
        let mut percent_of = vec![0.0_f64; 1];
        for step in steps {
            match step {
                Step::Begin { pages: of, rows, measure } => {
                    let size = Amount { rows, pages: of, bytes: 0 };
                    let name = format!("t.t{}", tables.len());
                    let planned = Planned { size, measure, ..planned(&name, 0) };
                    tables.push(pages.begin(now, planned));
                    percent_of.push(0.0);
                }
                Step::Advance { table, rows, pages: of } => {
                    if let Some(&table) = tables.get(table)
                        && pages.advance(now, table, range(rows, of)).is_some()
                    {
                        log.push((now, rows));
                    }
                }
                Step::Finish { table } => {
                    if let Some(&table) = tables.get(table).filter(|_| table > 0) {
                        pages.finish(now, table);
                    }
                }
                Step::Wait { millis } => now += Duration::from_millis(millis),
            }
            let report = pages.report(now);
            prop_assert_eq!(report.rows, log.iter().map(|(_, rows)| rows).sum::<u64>());
            prop_assert!(report.percent.is_none_or(|percent| (0.0..100.0).contains(&percent)));
            prop_assert_eq!(report.tables_total, tables.len());
            // Marks stand a second apart: what came within one after the span began may be left out.
            let since = |from: Duration| -> f64 {
                as_f64(log.iter().filter(|(at, _)| *at > from).map(|(_, rows)| rows).sum())
            };
            let from = now.saturating_sub(SPAN);
            if now >= SECOND {
                let span = (now - from).as_secs_f64();
                let rate = as_f64(report.rows_per_second);
                prop_assert!(rate <= since(from) / span + 0.5, "{}", report);
                prop_assert!(rate >= since(from + SECOND) / span - 0.5, "{}", report);
            }
            for (entry, before) in pages.entries.values().zip(&mut percent_of) {
                let percent = entry.report(now).percent.unwrap_or(*before);
                prop_assert!(percent >= *before, "per cent never fall");
                *before = percent;
            }
        }
        prop_assert!(pages.window.len() <= 32, "what is remembered is bounded");
    }
}
