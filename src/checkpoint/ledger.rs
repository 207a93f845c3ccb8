//! The tracker, shared between the thread that issues tickets and the one that receives delivery reports.
//!
//! The confirmed LSN leaves here on a `watch`: one number, which the source connection reports to
//! Postgres. It is published under the tracker's lock, so that it can't be seen to go back. It
//! moves when a checkpoint is durable, and by nothing else.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::progress::Progress;
use super::tracker::{Ticket, Tracker};
use crate::change::Position;
use crate::lsn::Lsn;

impl Default for Ledger {
    fn default() -> Self {
        Self::new(Progress::default())
    }
}

/// Shares a [`Tracker`] and publishes its confirmed LSN.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<Inner>,
    confirmed: watch::Sender<Lsn>,
}

#[derive(Debug)]
struct Inner {
    tracker: Tracker,
    /// What the checkpoint says that is under way to the broker.
    under_way: Option<Progress>,
    /// Whether a Kafka transaction is being committed, with the checkpoint in it.
    is_committing: bool,
    /// Checkpoints that became durable.
    checkpoints: u64,
}

/// The state of records, for status and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Up to here Postgres may discard its WAL.
    pub confirmed: Lsn,
    /// What is acknowledged without a hole.
    pub delivered: Progress,
    /// What was handed over.
    pub sent: Progress,
    /// Records handed over and not acknowledged.
    pub in_flight: u64,
    /// How many records were handed over.
    pub issued: u64,
    /// How many of the first of them are acknowledged without a hole.
    pub acknowledged: u64,
    /// Whether a checkpoint was handed over, or is about to be, and is not durable yet.
    pub is_checkpoint_due: bool,
    /// How many checkpoints became durable.
    pub checkpoints: u64,
}

impl Ledger {
    /// Starts with everything that `progress` covers delivered and confirmed.
    #[must_use]
    pub fn new(progress: Progress) -> Self {
        let tracker = Tracker::new(progress);
        Self {
            confirmed: watch::Sender::new(tracker.confirmed()),
            state: Mutex::new(Inner {
                tracker,
                under_way: None,
                is_committing: false,
                checkpoints: 0,
            }),
        }
    }

    /// Begins, with everything that `progress` covers delivered and confirmed; before anything is
    /// issued.
    pub fn start_at(&self, progress: Progress) {
        let mut state = self.lock();
        debug_assert_eq!(state.tracker.issued(), 0, "the ledger is in use");
        state.tracker = Tracker::new(progress);
        self.confirm_in(&mut state, progress);
    }

    /// Receives every move of the confirmed LSN.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Lsn> {
        self.confirmed.subscribe()
    }

    /// See [`Tracker::begin`].
    pub fn begin(&self) {
        self.lock().tracker.begin();
    }

    /// See [`Tracker::issue`].
    pub fn issue(&self) -> Ticket {
        self.lock().tracker.issue()
    }

    /// See [`Tracker::mark`].
    pub fn mark(&self, position: Position) {
        self.lock().tracker.mark(position);
    }

    /// See [`Tracker::commit`].
    pub fn commit(&self, end_lsn: Lsn, position: Position) {
        self.lock().tracker.commit(end_lsn, position);
    }

    /// Acknowledges a batch of tickets in one step.
    pub fn ack_all(&self, tickets: &[Ticket]) {
        let mut state = self.lock();
        for &ticket in tickets {
            state.tracker.ack(ticket);
        }
    }

    /// See [`Tracker::reject`].
    pub fn reject(&self, ticket: Ticket) {
        self.lock().tracker.reject(ticket);
    }

    /// See [`Tracker::keepalive`].
    pub fn keepalive(&self, wal_end: Lsn) {
        self.lock().tracker.keepalive(wal_end);
    }

    /// A checkpoint is handed to the producer; its acknowledgement makes it durable.
    pub fn checkpoint_sent(&self, progress: Progress) {
        self.lock().under_way = Some(progress);
    }

    /// A Kafka transaction is about to be committed; [`confirm`](Self::confirm) says that it is.
    pub fn commit_begins(&self) {
        self.lock().is_committing = true;
    }

    /// The producer's queue was full.
    pub fn checkpoint_not_sent(&self) {
        self.lock().under_way = None;
    }

    /// Whether a checkpoint is under way.
    #[must_use]
    pub fn is_checkpoint_under_way(&self) -> bool {
        self.lock().under_way.is_some()
    }

    /// The broker has the checkpoint that is under way, if one is.
    pub fn checkpoint_acknowledged(&self) {
        let mut state = self.lock();
        if let Some(progress) = state.under_way.take() {
            self.confirm_in(&mut state, progress);
        }
    }

    /// A checkpoint is durable: see [`Tracker::confirm`].
    pub fn confirm(&self, progress: Progress) {
        self.confirm_in(&mut self.lock(), progress);
    }

    /// Whether a transaction was begun and not committed.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.lock().tracker.in_transaction()
    }

    /// Records issued so far.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.lock().tracker.issued()
    }

    /// The current state.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let Inner { tracker, under_way, is_committing, checkpoints } = &*self.lock();
        Standing {
            is_checkpoint_due: *is_committing || under_way.is_some(),
            checkpoints: *checkpoints,
            confirmed: tracker.confirmed(),
            delivered: tracker.delivered(),
            sent: tracker.sent(),
            in_flight: tracker.in_flight(),
            issued: tracker.issued(),
            acknowledged: tracker.acknowledged(),
        }
    }

    fn confirm_in(&self, state: &mut Inner, progress: Progress) {
        state.is_committing = false;
        state.checkpoints += 1;
        state.tracker.confirm(progress);
        let confirmed = state.tracker.confirmed();
        self.confirmed.send_if_modified(|seen| {
            let moved = *seen != confirmed;
            *seen = confirmed;
            moved
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The tracker's methods don't panic halfway through a change, so its state is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_of_the_confirmed_lsn_is_heard_once_and_only_by_a_durable_checkpoint() {
        let ledger = Ledger::new(Progress::at(Lsn::from(1)));
        let mut heard = ledger.subscribe();
        ledger.begin();
        let ticket = ledger.issue();
        ledger.commit(Lsn::from(9), Position { commit_lsn: Lsn::from(8), ordinal: 1 });
        ledger.ack_all(&[ticket]);
        let delivered = ledger.standing().delivered;
        assert_eq!(delivered.through_lsn, Lsn::from(9));
        ledger.checkpoint_sent(delivered);
        assert!(ledger.is_checkpoint_under_way() && !heard.has_changed().unwrap());
        ledger.checkpoint_acknowledged();
        assert!(!ledger.is_checkpoint_under_way() && heard.has_changed().unwrap());
        assert_eq!(*heard.borrow_and_update(), Lsn::from(9));
        ledger.checkpoint_acknowledged();
        ledger.confirm(delivered);
        assert!(!heard.has_changed().unwrap());
        let standing = ledger.standing();
        assert_eq!((standing.confirmed, standing.in_flight), (Lsn::from(9), 0));
    }
}
