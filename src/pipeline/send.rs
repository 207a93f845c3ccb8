//! Sends records: assigns each its ticket, and waits while the producer's queue is full.
//!
//! Counts are kept between chunks and added to the metrics once per chunk. Not here: what is sent.
//! Several threads may send concurrently, each with its own [`Lane`].

use std::sync::Arc;

use super::cadence::{Cadence, Checkpointing, Split};
use super::publish::Prepared;
use super::{Halt, ROOM, Stop};
use crate::change::Position;
use crate::checkpoint::Ledger;
use crate::encode::RecordRef;
use crate::kafka::{Outgoing, SendError, Sink};
use crate::metrics::Metrics;

/// More headers than any record has: four of Debezium's context, three of the position, one each of
/// a key change, of the content type, of unchanged, reselected and cut columns, and of a split
/// transaction.
const HEADERS_MAX: usize = 13;

/// What sending a record needs.
pub(crate) struct Lane<'a, S> {
    pub(crate) sink: &'a S,
    pub(crate) ledger: &'a Ledger,
    pub(crate) metrics: &'a Metrics,
    pub(crate) stop: &'a Stop,
}

impl<S: Sink> Lane<'_, S> {
    /// Sends one of the prepared records. Returns the bytes of its key and value.
    pub(crate) fn send(
        &self,
        prepared: Prepared<'_>,
        record: &RecordRef<'_>,
        split: Option<Split>,
    ) -> Result<u64, Halt> {
        let mut headers = [("", None); HEADERS_MAX];
        let all = record.headers().chain(split.map(Split::header));
        let count = headers.iter_mut().zip(all).map(|(at, header)| *at = header).count();
        let record = Outgoing {
            topic: prepared.topic,
            key: record.key,
            value: record.value,
            headers: headers.get(..count).unwrap_or_default(),
            timestamp_ms: prepared.at_ms,
            partition: prepared.partition,
        };
        let ticket = self.ledger.issue();
        loop {
            match self.sink.send(&record, ticket) {
                Ok(()) => return Ok(record.bytes() as u64),
                Err(SendError::Full { rooms_made }) => {
                    self.metrics.queue_full.inc();
                    self.sink.wait_for_room(rooms_made, ROOM);
                    if self.stop.is_now() {
                        return Err(Halt::Stopped);
                    }
                }
                Err(SendError::Refused(error)) => {
                    if matches!(error, crate::kafka::Error::TooLarge { .. }) {
                        self.metrics.oversize.inc();
                    }
                    return Err(Halt::Failed(error.into()));
                }
            }
        }
    }
}

/// Sends records, and assigns their tickets.
pub(crate) struct Out<S> {
    pub(crate) sink: Arc<S>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) checkpoints: Cadence,
    /// Since the last chunk; added to the metrics once per chunk.
    sent: u64,
    sent_bytes: u64,
    pub(crate) changes: u64,
}

impl<S: Sink> Out<S> {
    pub(crate) fn new(
        sink: Arc<S>,
        ledger: Arc<Ledger>,
        metrics: Arc<Metrics>,
        stop: Arc<Stop>,
        checkpointing: Checkpointing,
    ) -> Self {
        let checkpoints = Cadence::new(checkpointing);
        Self { sink, ledger, metrics, stop, checkpoints, sent: 0, sent_bytes: 0, changes: 0 }
    }

    /// Sends all records of one change, and ends the Kafka transaction after it if that is full.
    pub(crate) fn send_change(
        &mut self,
        position: Position,
        prepared: Prepared<'_>,
    ) -> Result<(), Halt> {
        let split = self.checkpoints.split(prepared.records);
        self.send_all(prepared, split)?;
        self.checkpoints.sent_change(position);
        if split == Some(Split::Continues) { self.cut() } else { Ok(()) }
    }

    /// Sends all records of one change, or of a transaction's begin or end.
    pub(crate) fn send_all(
        &mut self,
        prepared: Prepared<'_>,
        split: Option<Split>,
    ) -> Result<(), Halt> {
        for record in prepared.records.iter() {
            self.open_transaction()?;
            let bytes = self.lane().send(prepared, &record, split)?;
            self.sent += 1;
            self.sent_bytes += bytes;
            self.checkpoints.sent_bytes(bytes);
        }
        Ok(())
    }

    fn lane(&self) -> Lane<'_, S> {
        let Self { sink, ledger, metrics, stop, .. } = self;
        Lane { sink, ledger, metrics, stop }
    }

    /// Adds what was counted to the metrics.
    pub(crate) fn count(&mut self) {
        self.metrics.changes.inc_by(std::mem::take(&mut self.changes));
        self.metrics.records_sent.inc_by(std::mem::take(&mut self.sent));
        self.metrics.sent_bytes.inc_by(std::mem::take(&mut self.sent_bytes));
    }
}
