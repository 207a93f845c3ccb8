//! Writes checkpoints: a record on its own, or with `exactly-once` in the Kafka transaction
//! together with the records that it covers.
//!
//! ```text
//! at least once    record record record ... acknowledged --> checkpoint --> acknowledged: confirm
//! exactly once     begin, record record ... checkpoint, commit ------------------------> confirm
//! ```
//!
//! Must hold: a Kafka transaction ends where a source transaction does, or after a complete change
//! of one that is too large or too slow. During a commit nothing else is sent; the reader continues
//! to fill its channel meanwhile.

use std::time::{Duration, Instant};

use super::cadence::{Cadence, Mode, Open};
use super::send::Out;
use super::{Halt, ROOM};
use crate::checkpoint::{Checkpoint, Ledger, Progress};
use crate::clock::now_us;
use crate::kafka::{CHECKPOINT_PARTITION, Outgoing, SendError, Sink};

/// Time between two checks for acknowledgements.
const LOOK: Duration = Duration::from_millis(50);

/// Longest wait for one step of a commit before checking whether to stop.
const COMMIT: Duration = Duration::from_secs(1);

/// Longest wait for an acknowledgement before checking whether to stop.
const FLUSH: Duration = Duration::from_millis(100);

impl<S: Sink> Out<S> {
    /// Writes the checkpoint of all that was sent, and waits until it is durable. Blocks.
    pub(crate) fn settle(&mut self) -> Result<(), Halt> {
        self.settle_at(self.ledger.standing().sent)
    }

    /// The same for a checkpoint with this progress, whatever was sent.
    pub(crate) fn settle_at(&mut self, progress: Progress) -> Result<(), Halt> {
        if self.checkpoints.is_transactional() {
            return self.commit_at(progress);
        }
        let sent = self.ledger.standing().sent;
        self.flush_until(|ledger| {
            ledger.standing().delivered == sent && !ledger.is_checkpoint_under_way()
        })?;
        while !self.offer(progress)? {
            self.go_on()?;
        }
        self.flush_until(|ledger| !ledger.is_checkpoint_under_way())
    }

    fn flush_until(&self, is_done: impl Fn(&Ledger) -> bool) -> Result<(), Halt> {
        while !is_done(&self.ledger) {
            self.go_on()?;
            if self.sink.commit(FLUSH)? {
                // Another thread receives the report, or fails.
                std::thread::sleep(FLUSH / 50);
            }
        }
        Ok(())
    }

    fn go_on(&self) -> Result<(), Halt> {
        if self.stop.is_now() { Err(Halt::Stopped) } else { Ok(()) }
    }

    /// A record is about to be sent.
    pub(crate) fn open_transaction(&mut self) -> Result<(), Halt> {
        let state = &mut self.checkpoints;
        if state.open.is_none() && state.is_transactional() {
            self.sink.begin()?;
            state.open = Some(Open { since: Instant::now(), bytes: 0 });
        }
        Ok(())
    }

    /// Ends the Kafka transaction after a complete change, inside of a source transaction.
    pub(crate) fn cut(&mut self) -> Result<(), Halt> {
        self.mark();
        self.checkpoints.is_continued = true;
        self.commit()
    }

    /// A source transaction has ended and is in the ledger.
    pub(crate) fn source_ended(&mut self) -> Result<(), Halt> {
        self.checkpoints.last_change = None;
        if self.checkpoints.open.is_some() && self.checkpoints.is_due(self.ledger.standing().sent) {
            self.commit()?;
        }
        Ok(())
    }

    /// A non-transactional message may have been sent: it counts as a transaction of its own.
    pub(crate) fn message_ended(&mut self) -> Result<(), Halt> {
        if self.checkpoints.last_change.is_none() {
            return Ok(());
        }
        self.mark();
        self.source_ended()
    }

    /// Writes the checkpoint of the start if it is new: from then on a lost slot is noticed.
    pub(crate) fn begin(&mut self) -> Result<(), Halt> {
        match (self.checkpoints.told.is_new, self.checkpoints.is_transactional()) {
            (false, _) => Ok(()),
            (true, true) => self.commit(),
            (true, false) => self.offer(self.ledger.standing().delivered).map(drop),
        }
    }

    /// Writes the checkpoint if one is due. Called after each chunk, and at
    /// [`wake_at`](Self::wake_at).
    pub(crate) fn tick(&mut self, in_transaction: bool) -> Result<(), Halt> {
        if !self.checkpoints.is_transactional() {
            self.mark();
            return self.checkpoint_delivered();
        }
        let since = self.checkpoints.open.as_ref().map(|open| open.since);
        if in_transaction {
            let limit = self.checkpoints.ages().idle;
            let stalled = since.is_some_and(|since| since.elapsed() >= limit);
            return if stalled && self.checkpoints.last_change.is_some() {
                self.cut()
            } else {
                Ok(())
            };
        }
        if self.checkpoints.is_due(self.ledger.standing().sent) { self.commit() } else { Ok(()) }
    }

    /// When to [`tick`](Self::tick) if no chunk arrives before.
    pub(crate) fn wake_at(&self, in_transaction: bool) -> Option<Instant> {
        let state = &self.checkpoints;
        let sent = self.ledger.standing().sent;
        if !state.is_transactional() {
            return Some(state.due_at(sent)?.max(Instant::now() + LOOK));
        }
        match &state.open {
            Some(open) if in_transaction => {
                Some((open.since + state.ages().idle).max(Instant::now() + LOOK))
            }
            None if in_transaction => None,
            _ => state.due_at(sent),
        }
    }

    /// Ends a Kafka transaction that is too large, without a checkpoint that covers its content:
    /// that is published again if the process ends before the next one.
    pub(crate) fn commit_what_is_too_much(&mut self) -> Result<(), Halt> {
        if self.checkpoints.is_full() { self.commit() } else { Ok(()) }
    }

    /// Finishes what was sent, as far as the brokers do so in time. A Kafka transaction inside of a
    /// source transaction remains open and will be aborted.
    pub(crate) fn finish(&mut self, in_transaction: bool) -> Result<(), Halt> {
        let (limit, started) = (self.checkpoints.told.drain_limit, Instant::now());
        if !self.checkpoints.is_transactional() {
            self.mark();
            if !self.sink.commit(limit)? {
                return Ok(());
            }
            let delivered = self.ledger.standing().delivered;
            if self.checkpoints.is_news(delivered) && self.offer(delivered)? {
                self.sink.commit(limit.saturating_sub(started.elapsed()))?;
            }
            return Ok(());
        }
        let sent = self.ledger.standing().sent;
        if in_transaction || !self.checkpoints.is_news(sent) {
            return Ok(());
        }
        self.open_transaction()?;
        if self.offer(sent)? && self.sink.commit(limit)? {
            self.committed(sent);
        }
        Ok(())
    }

    /// Records the last sent change in the ledger.
    fn mark(&mut self) {
        if let Some(position) = self.checkpoints.last_change.take() {
            self.ledger.mark(position);
        }
    }

    /// Writes a checkpoint of what is acknowledged, if due.
    fn checkpoint_delivered(&mut self) -> Result<(), Halt> {
        let delivered = self.ledger.standing().delivered;
        if !self.checkpoints.is_due(delivered) || self.ledger.is_checkpoint_under_way() {
            return Ok(());
        }
        // If the queue is full, the next tick tries again.
        self.offer(delivered)?;
        Ok(())
    }

    /// Ends the Kafka transaction with a checkpoint of all that was sent.
    pub(crate) fn commit(&mut self) -> Result<(), Halt> {
        self.commit_at(self.ledger.standing().sent)
    }

    fn commit_at(&mut self, progress: Progress) -> Result<(), Halt> {
        // Includes what was sent and is not acknowledged yet.
        self.count();
        // From here on there is something to wait for, even without records.
        self.ledger.commit_begins();
        self.open_transaction()?;
        while !self.offer(progress)? {
            self.go_on()?;
        }
        while !self.sink.commit(COMMIT)? {
            self.go_on()?;
        }
        self.committed(progress);
        Ok(())
    }

    fn committed(&mut self, progress: Progress) {
        self.ledger.confirm(progress);
        self.checkpoints.open = None;
        // The duration of the commit does not count for the interval.
        self.checkpoints.written(progress);
    }

    /// Hands a checkpoint to the producer. Returns whether its queue had space.
    pub(crate) fn offer(&mut self, progress: Progress) -> Result<bool, Halt> {
        let snapshots = self.checkpoints.snapshots_at(progress);
        let Cadence { told, json, .. } = &mut self.checkpoints;
        let checkpoint = Checkpoint { progress, snapshots, ..told.start.clone() };
        checkpoint.write(json);
        let record = Outgoing {
            topic: &told.topic,
            key: Some(told.pipeline.as_bytes()),
            value: Some(json),
            headers: &[],
            timestamp_ms: now_us() / 1000,
            partition: Some(CHECKPOINT_PARTITION),
        };
        let is_transactional = matches!(told.mode, Mode::ExactlyOnce { .. });
        if !is_transactional {
            // Before it is sent: its acknowledgement may be faster than the next statement.
            self.ledger.checkpoint_sent(progress);
        }
        match self.sink.checkpoint(&record) {
            Ok(()) => {
                if !is_transactional {
                    self.checkpoints.written(progress);
                    self.sink.send_queued();
                }
                Ok(true)
            }
            Err(SendError::Full { rooms_made }) => {
                self.ledger.checkpoint_not_sent();
                self.sink.wait_for_room(rooms_made, ROOM);
                Ok(false)
            }
            Err(SendError::Refused(error)) => Err(Halt::Failed(error.into())),
        }
    }
}
