//! The tracker, shared between the thread that issues tickets and the one that hears of deliveries.
//!
//! The confirmed LSN leaves here on a `watch`: one number, which the source connection reports to
//! Postgres. It is published under the tracker's lock, so that it can't be seen to go back.
//! A rejected record leaves as a notice that ends the session.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::tracker::{Ticket, Tracker};
use crate::lsn::Lsn;

/// Shares a [`Tracker`] and publishes its confirmed LSN.
#[derive(Debug)]
pub struct Ledger {
    tracker: Mutex<Tracker>,
    confirmed: watch::Sender<Lsn>,
}

/// How things stand, for status and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Up to here Postgres may discard its WAL.
    pub confirmed: Lsn,
    /// Records handed over and not acknowledged.
    pub in_flight: u64,
}

impl Ledger {
    /// Starts with everything up to `confirmed` delivered.
    #[must_use]
    pub fn new(confirmed: Lsn) -> Self {
        Self {
            tracker: Mutex::new(Tracker::new(confirmed)),
            confirmed: watch::Sender::new(confirmed),
        }
    }

    /// Hears of every move of the confirmed LSN.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Lsn> {
        self.confirmed.subscribe()
    }

    /// See [`Tracker::begin`].
    pub fn begin(&self) {
        self.lock().begin();
    }

    /// See [`Tracker::issue`].
    pub fn issue(&self) -> Ticket {
        self.lock().issue()
    }

    /// See [`Tracker::commit`].
    pub fn commit(&self, end_lsn: Lsn) {
        self.change(|tracker| tracker.commit(end_lsn));
    }

    /// Acknowledges a batch of tickets in one step.
    pub fn ack_all(&self, tickets: &[Ticket]) {
        self.change(|tracker| {
            for &ticket in tickets {
                tracker.ack(ticket);
            }
        });
    }

    /// See [`Tracker::reject`].
    pub fn reject(&self, ticket: Ticket) {
        self.lock().reject(ticket);
    }

    /// See [`Tracker::keepalive`].
    pub fn keepalive(&self, wal_end: Lsn) {
        self.change(|tracker| tracker.keepalive(wal_end));
    }

    /// Whether a transaction was begun and not committed.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.lock().in_transaction()
    }

    /// Records issued so far.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.lock().issued()
    }

    /// How things stand now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let tracker = self.lock();
        Standing { confirmed: tracker.confirmed(), in_flight: tracker.in_flight() }
    }

    fn change(&self, change: impl FnOnce(&mut Tracker)) {
        let mut tracker = self.lock();
        change(&mut tracker);
        let confirmed = tracker.confirmed();
        self.confirmed.send_if_modified(|seen| {
            let moved = *seen != confirmed;
            *seen = confirmed;
            moved
        });
    }

    fn lock(&self) -> MutexGuard<'_, Tracker> {
        // The tracker's methods don't panic halfway through a change, so its state stands.
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_of_the_confirmed_lsn_is_heard_once() {
        let ledger = Ledger::new(Lsn::from(1));
        let mut heard = ledger.subscribe();
        ledger.begin();
        let ticket = ledger.issue();
        ledger.commit(Lsn::from(9));
        assert!(!heard.has_changed().unwrap());
        ledger.ack_all(&[ticket]);
        assert!(heard.has_changed().unwrap());
        assert_eq!(*heard.borrow_and_update(), Lsn::from(9));
        ledger.keepalive(Lsn::from(9));
        assert!(!heard.has_changed().unwrap());
        assert_eq!(ledger.standing(), Standing { confirmed: Lsn::from(9), in_flight: 0 });
    }
}
