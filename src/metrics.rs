//! The bridge's metrics, in Prometheus' format.
//!
//! Counters are incremented where the event happens, at most once per chunk of WAL on the hot path.
//! Gauges are set by the code that owns the state. Names follow Prometheus' rules: base units,
//! `_total` for counters (which the encoder appends).

use std::sync::atomic::AtomicU64;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::lsn::Lsn;

/// Label: what bounds the slot's WAL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BoundLabel {
    /// Its name.
    pub bound: &'static str,
}

/// Label: a stage of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StageLabel {
    /// Its name.
    pub stage: &'static str,
}

/// Label: why a table is left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// The reason.
    pub reason: &'static str,
}

/// Label: a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TableLabel {
    /// Schema and name.
    pub table: String,
}

type Count = Counter<u64, AtomicU64>;
type Level = Gauge<u64, AtomicU64>;

/// Counts log lines that could not be written, of the whole process, because the log is one per
/// process.
#[must_use]
pub fn log_lines_dropped() -> &'static Counter<u64, AtomicU64> {
    static DROPPED: LazyLock<Count> = LazyLock::new(Count::default);
    &DROPPED
}

/// How far the records of the current session are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Records handed over and not acknowledged.
    pub in_flight: u64,
    /// The position up to which Postgres may discard WAL.
    pub confirmed: Lsn,
}

type Ask = Box<dyn Fn() -> Option<Standing> + Send + Sync>;

/// Reports how far records are; returns nothing once the session has ended.
#[derive(Default)]
struct StandingSource(Mutex<Option<Ask>>);

impl std::fmt::Debug for StandingSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StandingSource")
    }
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    source: StandingSource,
    /// Bytes of WAL messages received.
    pub received_bytes: Count,
    /// Transactions received completely.
    pub transactions: Count,
    /// Row changes decoded.
    pub changes: Count,
    /// Records handed to the producer.
    pub records_sent: Count,
    /// Bytes of keys and values handed to the producer.
    pub sent_bytes: Count,
    /// Records acknowledged by the brokers.
    pub records_acked: Count,
    /// Times the worker waited because the producer's queue was full.
    pub queue_full: Count,
    /// Sessions that ended in an error and were started again.
    pub retries: Count,
    /// Unchanged large values that were left out.
    pub unchanged_omitted: Count,
    /// Unchanged large values replaced by a placeholder.
    pub unchanged_placeholders: Count,
    /// Unchanged large values that were read back.
    pub unchanged_reselected: Count,
    /// Unchanged large values that could not be read back, and were left out.
    pub unchanged_not_found: Count,
    /// Rows that could not be published and went to the dead letter topic.
    pub dead_letters: Count,
    /// Lone surrogates in JSON that were published as U+FFFD.
    pub json_replaced: Count,
    /// Rows whose record was larger than Kafka accepts.
    pub oversize: Count,
    /// Rows whose values were cut so that their record fits.
    pub truncated: Count,
    /// Changes skipped because they were published before a restart.
    pub covered: Count,
    /// Records handed over and not acknowledged.
    pub in_flight: Level,
    /// The position up to which Postgres may discard WAL, as confirmed.
    pub confirmed_lsn: Level,
    /// The last position received.
    pub received_lsn: Level,
    /// Tables whose description is in memory.
    pub tables_described: Level,
    /// 1 while rows stream, else 0.
    pub streaming: Level,
    /// Bytes of WAL that the slot holds back.
    pub slot_retained_bytes: Level,
    /// Bytes that it may hold in addition, by bound; no value if unknown.
    pub slot_room_bytes: Family<BoundLabel, Level>,
    /// Seconds until these are used up at the current rate; no value if the slot does not grow.
    pub slot_room_seconds: Family<BoundLabel, Level>,
    /// Slots whose creation had to wait for transactions.
    pub slot_creation_waits: Count,
    /// 1 while the creation of a slot waits for a transaction, else 0.
    pub slot_creation_waiting: Level,
    /// 1 while another copy reads from the slot, else 0.
    pub standby: Level,
    /// 1 for a stage that makes no progress while there is work, else 0.
    pub stalled: Family<StageLabel, Level>,
    /// Captured tables of which nothing is published, by reason.
    pub tables_left_out: Family<ReasonLabel, Level>,
    /// Tables of which only inserts are captured.
    pub tables_insert_only: Level,
    /// Tables in which Postgres refuses updates or deletes because these are published.
    pub tables_refused: Level,
    /// Rows that snapshots published.
    pub snapshot_rows: Count,
    /// Bytes that snapshots read.
    pub snapshot_bytes: Count,
    /// Tables whose snapshots failed.
    pub snapshots_failed: Count,
    /// Signals that failed or are not allowed.
    pub signals_refused: Count,
    /// Tables of unfinished snapshots.
    pub snapshot_tables_left: Level,
    /// 1 while a snapshot is unfinished, else 0.
    pub snapshot_running: Level,
    /// Rows published per table, while it is being read.
    pub snapshot_table_rows: Family<TableLabel, Level>,
    /// The published share of the table, from 0 to 1.
    pub snapshot_table_ratio: Family<TableLabel, Gauge<f64, AtomicU64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("rowcast"),
            source: StandingSource::default(),
            received_bytes: Count::default(),
            transactions: Count::default(),
            changes: Count::default(),
            records_sent: Count::default(),
            sent_bytes: Count::default(),
            records_acked: Count::default(),
            queue_full: Count::default(),
            retries: Count::default(),
            unchanged_omitted: Count::default(),
            unchanged_placeholders: Count::default(),
            unchanged_reselected: Count::default(),
            unchanged_not_found: Count::default(),
            dead_letters: Count::default(),
            json_replaced: Count::default(),
            oversize: Count::default(),
            truncated: Count::default(),
            covered: Count::default(),
            in_flight: Level::default(),
            confirmed_lsn: Level::default(),
            tables_described: Level::default(),
            received_lsn: Level::default(),
            streaming: Level::default(),
            slot_retained_bytes: Level::default(),
            slot_room_bytes: Family::default(),
            slot_room_seconds: Family::default(),
            slot_creation_waits: Count::default(),
            slot_creation_waiting: Level::default(),
            standby: Level::default(),
            stalled: Family::default(),
            tables_left_out: Family::default(),
            tables_insert_only: Level::default(),
            tables_refused: Level::default(),
            snapshot_rows: Count::default(),
            snapshot_bytes: Count::default(),
            snapshots_failed: Count::default(),
            signals_refused: Count::default(),
            snapshot_tables_left: Level::default(),
            snapshot_running: Level::default(),
            snapshot_table_rows: Family::default(),
            snapshot_table_ratio: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// Sets the source that reports how far records are.
    pub fn follow(&self, source: impl Fn() -> Option<Standing> + Send + Sync + 'static) {
        *self.source() = Some(Box::new(source));
    }

    /// Updates the gauges that are derived from other state.
    pub fn refresh(&self) {
        let standing = self.source().as_ref().and_then(|source| source());
        // Without a session nothing is in flight, and the confirmed position remains.
        self.in_flight.set(standing.map_or(0, |standing| standing.in_flight));
        if let Some(standing) = standing {
            self.confirmed_lsn.set(standing.confirmed.as_u64());
        }
    }

    /// The position up to which Postgres may discard WAL, as it is now.
    #[must_use]
    pub fn confirmed(&self) -> Lsn {
        self.refresh();
        Lsn::from(self.confirmed_lsn.get())
    }

    fn source(&self) -> MutexGuard<'_, Option<Ask>> {
        self.source.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them in Prometheus' text form.
    #[must_use]
    pub fn render(&self) -> String {
        self.refresh();
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Sets the gauges that follow from two positions.
    pub fn set_lsn(&self, received: Lsn, confirmed: Lsn) {
        self.received_lsn.set(received.as_u64());
        self.confirmed_lsn.set(confirmed.as_u64());
    }

    /// Sets how much more WAL the slot may hold by one bound, and for how long that lasts.
    pub fn set_slot_room(&self, bound: &'static str, bytes: Option<u64>, seconds: Option<u64>) {
        let label = BoundLabel { bound };
        for (family, value) in [(&self.slot_room_bytes, bytes), (&self.slot_room_seconds, seconds)]
        {
            match value {
                Some(value) => drop(family.get_or_create(&label).set(value)),
                None => drop(family.remove(&label)),
            }
        }
    }

    /// Sets whether a stage is stalled.
    pub fn set_stalled(&self, stage: &'static str, stalled: bool) {
        self.stalled.get_or_create(&StageLabel { stage }).set(u64::from(stalled));
    }

    /// Sets how many tables are left out for a reason.
    pub fn set_tables_left_out(&self, reason: &'static str, count: u64) {
        self.tables_left_out.get_or_create(&ReasonLabel { reason }).set(count);
    }

    /// Sets how much of a snapshot's table is published: rows, and their share if known.
    pub fn set_snapshot_table(&self, table: &str, rows: u64, ratio: Option<f64>) {
        let label = TableLabel { table: table.to_owned() };
        self.snapshot_table_rows.get_or_create(&label).set(rows);
        if let Some(ratio) = ratio {
            self.snapshot_table_ratio.get_or_create(&label).set(ratio);
        }
    }

    /// The table is not read any more.
    pub fn forget_snapshot_table(&self, table: &str) {
        let label = TableLabel { table: table.to_owned() };
        self.snapshot_table_rows.remove(&label);
        self.snapshot_table_ratio.remove(&label);
    }

    #[expect(clippy::too_many_lines, reason = "a table: name and help of each metric")]
    fn register(&mut self) {
        let registry = &mut self.registry;
        for (name, help, counter) in [
            ("received_bytes", "Bytes of WAL messages received", &self.received_bytes),
            ("transactions", "Transactions received whole", &self.transactions),
            ("changes", "Row changes decoded", &self.changes),
            ("records_sent", "Records handed to the producer", &self.records_sent),
            ("sent_bytes", "Bytes of keys and values handed to the producer", &self.sent_bytes),
            ("records_acked", "Records acknowledged by the brokers", &self.records_acked),
            ("queue_full", "Waits for free space in the producer's queue", &self.queue_full),
            ("dead_letters", "Rows sent to the dead letter topic", &self.dead_letters),
            (
                "json_surrogates_replaced",
                "Lone surrogates in JSON published as U+FFFD",
                &self.json_replaced,
            ),
            ("oversize", "Rows and messages larger than Kafka accepts", &self.oversize),
            ("truncated", "Rows cut so that Kafka accepts them", &self.truncated),
            (
                "changes_covered",
                "Changes skipped because they were published before",
                &self.covered,
            ),
            ("snapshot_rows", "Rows that snapshots published", &self.snapshot_rows),
            ("snapshot_bytes", "Bytes that snapshots read", &self.snapshot_bytes),
            ("snapshots_failed", "Tables whose snapshots failed", &self.snapshots_failed),
            ("signals_refused", "Signals that were not carried out", &self.signals_refused),
            (
                "slot_creation_waits",
                "Slots whose creation waited for transactions",
                &self.slot_creation_waits,
            ),
            (
                "log_lines_dropped",
                "Log lines that could not be written to stderr",
                log_lines_dropped(),
            ),
            ("retries", "Sessions that ended in an error and were tried again", &self.retries),
            ("unchanged_omitted", "Unchanged large values left out", &self.unchanged_omitted),
            (
                "unchanged_placeholders",
                "Unchanged large values replaced by a placeholder",
                &self.unchanged_placeholders,
            ),
            (
                "unchanged_reselected",
                "Unchanged large values read back",
                &self.unchanged_reselected,
            ),
            (
                "unchanged_not_found",
                "Unchanged large values left out because their row was not found",
                &self.unchanged_not_found,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        for (name, help, gauge) in [
            ("records_in_flight", "Records not yet acknowledged", &self.in_flight),
            ("confirmed_lsn", "Position up to which WAL may be discarded", &self.confirmed_lsn),
            ("received_lsn", "Last position received", &self.received_lsn),
            ("tables_described", "Tables whose description is in memory", &self.tables_described),
            ("streaming", "1 while rows stream, else 0", &self.streaming),
            ("slot_retained_bytes", "Bytes of WAL the slot holds back", &self.slot_retained_bytes),
            (
                "slot_creation_waiting",
                "1 while the creation of a slot waits for a transaction",
                &self.slot_creation_waiting,
            ),
            ("standby", "1 while another copy reads from the slot", &self.standby),
            ("snapshot_tables_left", "Tables of unfinished snapshots", &self.snapshot_tables_left),
            (
                "tables_insert_only",
                "Tables of which only inserts are captured",
                &self.tables_insert_only,
            ),
            (
                "tables_refused",
                "Tables whose updates Postgres refuses because they are published",
                &self.tables_refused,
            ),
            ("snapshot_running", "1 while a snapshot is unfinished", &self.snapshot_running),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, family) in [
            (
                "slot_room_bytes",
                "Bytes of WAL the slot may hold in addition",
                &self.slot_room_bytes,
            ),
            (
                "slot_room_seconds",
                "Seconds until that WAL is written, at the current rate",
                &self.slot_room_seconds,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
        let help = "1 for a stage that makes no progress while there is work";
        registry.register("stalled", help, self.stalled.clone());
        let help = "Captured tables of which nothing is published";
        registry.register("tables_left_out", help, self.tables_left_out.clone());
        let help = "Rows published of a table that a snapshot is reading";
        registry.register("snapshot_table_rows", help, self.snapshot_table_rows.clone());
        let help = "The published share of such a table, from 0 to 1";
        registry.register("snapshot_table_ratio", help, self.snapshot_table_ratio.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered_under_its_name() {
        let metrics = Metrics::default();
        metrics.changes.inc_by(3);
        let standing = std::sync::Arc::new(Standing { in_flight: 7, confirmed: Lsn::from(9) });
        let session = std::sync::Arc::downgrade(&standing);
        metrics.follow(move || session.upgrade().map(|standing| *standing));
        let during = metrics.render();
        assert!(during.contains("rowcast_records_in_flight 7"), "{during}");
        drop(standing);
        let text = metrics.render();
        assert!(text.contains("rowcast_changes_total 3"), "{text}");
        assert!(text.contains("rowcast_records_in_flight 0"), "the session has ended: {text}");
        assert!(text.contains("rowcast_confirmed_lsn 9"), "that remains: {text}");
    }
}
