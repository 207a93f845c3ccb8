//! What went in, what came out, and how long it took on the way.
//!
//! Counts by kind; latency from commit in Postgres (`source.ts_us`) to the consumer. Both clocks are
//! this machine's, so the figure is one of the whole line: WAL, bridge, broker, consumer.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::Deserialize;

use crate::tools::generate::Progress;
use crate::tools::tail::Event;
use crate::tools::tail::envelope::SourceFields;

/// Longest latency that is distinguished, in microseconds: an hour.
const MAX_LATENCY_US: u64 = 3_600_000_000;

/// What of an envelope is needed; the rows are skipped unread.
#[derive(Deserialize)]
struct Head {
    op: String,
    #[serde(default)]
    source: Option<SourceFields>,
}

/// Rows or events by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Inserted, or `c`.
    pub inserted: u64,
    /// Updated, or `u`.
    pub updated: u64,
    /// Deleted, or `d`.
    pub deleted: u64,
    /// Tombstones; one is due for each delete.
    pub tombstones: u64,
    /// Records of another kind; none is due.
    pub other: u64,
}

impl Counts {
    /// What is due for the rows written so far.
    pub(super) fn due(progress: &Progress) -> Self {
        let deleted = progress.deleted();
        Self {
            inserted: progress.inserted(),
            updated: progress.updated(),
            deleted,
            tombstones: deleted,
            other: 0,
        }
    }

    /// Whether nothing of `due` is missing.
    pub(super) fn cover(&self, due: &Self) -> bool {
        self.inserted >= due.inserted
            && self.updated >= due.updated
            && self.deleted >= due.deleted
            && self.tombstones >= due.tombstones
    }

    fn kinds(&self) -> [(&'static str, u64); 5] {
        [
            ("inserts", self.inserted),
            ("updates", self.updated),
            ("deletes", self.deleted),
            ("tombstones", self.tombstones),
            ("others", self.other),
        ]
    }

    /// Where events differ from what was due, in words; empty when they do not.
    pub(super) fn differences(&self, due: &Self) -> String {
        let pairs = due.kinds().into_iter().zip(self.kinds());
        let apart = pairs.filter(|((_, due), (_, came))| due != came);
        let words = apart.map(|((kind, due), (_, came))| format!("{kind}: {due} due, {came} came"));
        words.collect::<Vec<_>>().join("; ")
    }
}

/// Events as they come.
pub(super) struct Received {
    pub(super) counts: Counts,
    latency_us: Histogram<u64>,
}

impl Received {
    pub(super) fn new() -> Self {
        let latency_us = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)
            .unwrap_or_else(|error| unreachable!("the bounds are constants: {error}"));
        Self { counts: Counts::default(), latency_us }
    }

    /// Counts an event that was received at `now`.
    pub(super) fn add(&mut self, event: &Event, now: SystemTime) {
        let Some(value) = event.value.as_deref() else {
            self.counts.tombstones += 1;
            return;
        };
        let head: Option<Head> = serde_json::from_slice(value).ok();
        let counter = match head.as_ref().map(|head| head.op.as_str()) {
            Some("c") => &mut self.counts.inserted,
            Some("u") => &mut self.counts.updated,
            Some("d") => &mut self.counts.deleted,
            _ => &mut self.counts.other,
        };
        *counter += 1;
        let source = head.and_then(|head| head.source);
        let committed_us =
            source.and_then(|source| source.ts_us.or_else(|| source.ts_ms?.checked_mul(1000)));
        if let Some(committed_us) = committed_us {
            let now_us = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            let latency_us = i128::try_from(now_us).unwrap_or(i128::MAX) - i128::from(committed_us);
            self.latency_us.saturating_record(u64::try_from(latency_us).unwrap_or(0));
        }
    }

    pub(super) fn latency(&self) -> Option<Latency> {
        let at = |quantile| Duration::from_micros(self.latency_us.value_at_quantile(quantile));
        (!self.latency_us.is_empty()).then(|| Latency {
            p50: at(0.50),
            p99: at(0.99),
            max: Duration::from_micros(self.latency_us.max()),
        })
    }
}

/// Time from commit to consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Half of the events were faster.
    pub p50: Duration,
    /// 99 of 100 were faster.
    pub p99: Duration,
    /// The slowest.
    pub max: Duration,
}

/// What a demo did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Events that are due for the rows that went in.
    pub due: Counts,
    /// Events that came out.
    pub events: Counts,
    /// From commit to consumer; `None` when no event came.
    pub latency: Option<Latency>,
    /// From the start of the demo until all was ready.
    pub ready: Duration,
    /// From the start of the demo to its first event.
    pub first_event: Option<Duration>,
    /// From the first row to the last event.
    pub elapsed: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:12} {:>10} {:>11}", "", "rows in", "events out")?;
        for ((kind, due), (_, came)) in self.due.kinds().into_iter().zip(self.events.kinds()) {
            match kind {
                "tombstones" => writeln!(f, "{kind:12} {:>10} {came:>11}", "")?,
                "others" if came == 0 => {}
                _ => writeln!(f, "{kind:12} {due:>10} {came:>11}")?,
            }
        }
        if let Some(Latency { p50, p99, max }) = self.latency {
            let [p50, p99, max] = [p50, p99, max].map(|time| time.as_secs_f64() * 1000.0);
            writeln!(f, "commit to consumer: p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms")?;
        }
        if let Some(first_event) = self.first_event {
            let (first, all) = (first_event.as_secs_f64(), self.elapsed.as_secs_f64());
            writeln!(f, "first event {first:.1} s after the start; all in {all:.1} s")?;
        }
        match self.events.differences(&self.due) {
            same if same.is_empty() => f.write_str("each row's change came out once\n"),
            differences => writeln!(f, "not the same: {differences}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(value: Option<&str>) -> Event {
        Event {
            topic: "rides".to_owned(),
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: None,
            value: value.map(|value| value.as_bytes().to_vec()),
            headers: Vec::new(),
        }
    }

    fn received(values: &[Option<&str>], now_us: u64) -> Received {
        let mut received = Received::new();
        for value in values {
            received.add(&event(*value), UNIX_EPOCH + Duration::from_micros(now_us));
        }
        received
    }

    #[test]
    fn events_are_counted_by_kind() {
        let came = received(
            &[
                Some(r#"{"op":"c","after":{"ride_id":1}}"#),
                Some(r#"{"op":"u"}"#),
                Some(r#"{"op":"u"}"#),
                Some(r#"{"op":"d"}"#),
                None,
                Some("no envelope"),
                Some(r#"{"op":"r"}"#),
            ],
            0,
        );
        let counts = Counts { inserted: 1, updated: 2, deleted: 1, tombstones: 1, other: 2 };
        assert_eq!(came.counts, counts);
        assert_eq!(came.latency(), None);
    }

    #[test]
    fn latency_runs_from_the_commit_to_the_consumer() {
        let values: Vec<String> = (1..=1000)
            .map(|ms| format!(r#"{{"op":"c","source":{{"ts_us":{}}}}}"#, 1_000_000 - ms * 1000))
            .collect();
        let values: Vec<Option<&str>> = values.iter().map(|value| Some(value.as_str())).collect();
        let latency = received(&values, 1_000_000).latency().unwrap();
        let about =
            |found: Duration, expected_ms: u128| found.as_millis().abs_diff(expected_ms) <= 1;
        assert!(about(latency.p50, 500), "{latency:?}");
        assert!(about(latency.p99, 990), "{latency:?}");
        assert!(about(latency.max, 1000), "{latency:?}");
    }

    #[test]
    fn a_clock_that_was_set_back_gives_no_negative_latency() {
        let later = Some(r#"{"op":"c","source":{"ts_ms":9000}}"#);
        assert_eq!(received(&[later], 1).latency().unwrap().max, Duration::ZERO);
    }

    #[test]
    fn one_event_too_few_and_one_too_many_are_both_named() {
        let due = Counts { inserted: 2, updated: 2, deleted: 1, tombstones: 1, other: 0 };
        let came = Counts { inserted: 3, updated: 1, ..due };
        assert_eq!(came.differences(&due), "inserts: 2 due, 3 came; updates: 2 due, 1 came");
        assert!(!came.cover(&due));
        assert!(Counts { updated: 2, ..came }.cover(&due));
        assert_eq!(due.differences(&due), "");
    }

    #[test]
    fn the_summary_tells_rows_events_and_latency() {
        let counts = Counts { inserted: 100, updated: 180, deleted: 5, tombstones: 5, other: 0 };
        let ms = Duration::from_millis;
        let summary = Summary {
            due: counts,
            events: counts,
            latency: Some(Latency { p50: ms(2), p99: ms(9), max: ms(12) }),
            ready: ms(900),
            first_event: Some(ms(920)),
            elapsed: ms(12_300),
        };
        let expected = "                rows in  events out
inserts             100         100
updates             180         180
deletes               5           5
tombstones                        5
commit to consumer: p50 2.0 ms, p99 9.0 ms, max 12.0 ms
first event 0.9 s after the start; all in 12.3 s
each row's change came out once
";
        assert_eq!(summary.to_string(), expected);
    }
}
