//! How far everything is acknowledged, and what of it is safe to confirm to Postgres, as a pure
//! structure.
//!
//! A ticket stands for one record, a marker for a progress that the records before it amount to:
//! the end of a transaction, a part of one, idle WAL. Acknowledged tickets are bits in a ring, so a
//! record in flight costs one bit and an acknowledgement out of order costs nothing more. What is
//! delivered is the last marker within the unbroken run of acknowledged tickets; what is confirmed
//! is what a durable checkpoint says.
//!
//! The invariants are listed in the parent module; a property test holds this structure against a
//! model that is too slow to be wrong.

use std::collections::VecDeque;

use super::progress::Progress;
use crate::change::Position;
use crate::lsn::Lsn;

/// Stands for one record on its way to the broker.
///
/// Tickets count up from zero in the order in which records were handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// The ticket as the number that travels with a record through the Kafka client.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl From<u64> for Ticket {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

/// What is delivered once all records before it are acknowledged.
#[derive(Debug)]
struct Marker {
    /// The first ticket after it.
    tickets_end: u64,
    progress: Progress,
}

/// Keeps account of tickets, commits and acknowledgements.
#[derive(Debug)]
pub struct Tracker {
    /// Number of tickets issued so far, and so the next ticket.
    issued: u64,
    /// All tickets below this one are acknowledged.
    acked_run: u64,
    /// One bit a ticket from `words_start` on, set when acknowledged.
    words: VecDeque<u64>,
    /// The ticket of the first word's lowest bit.
    words_start: u64,
    acked: u64,
    markers: VecDeque<Marker>,
    in_transaction: bool,
    /// The first record that the broker refused. Never acknowledged, so nothing passes it.
    rejected: Option<Ticket>,
    sent: Progress,
    delivered: Progress,
    confirmed: Lsn,
}

impl Tracker {
    /// Starts with everything that `progress` covers delivered and confirmed, and nothing in
    /// flight.
    #[must_use]
    pub fn new(progress: Progress) -> Self {
        Self {
            issued: 0,
            acked_run: 0,
            words: VecDeque::new(),
            words_start: 0,
            acked: 0,
            markers: VecDeque::new(),
            in_transaction: false,
            rejected: None,
            sent: progress,
            delivered: progress,
            confirmed: progress.through_lsn,
        }
    }

    /// A transaction begins: until its commit, nothing after the previous one may be confirmed.
    pub fn begin(&mut self) {
        self.in_transaction = true;
    }

    /// A record is about to be handed to the producer.
    pub fn issue(&mut self) -> Ticket {
        let ticket = Ticket(self.issued);
        if self.issued == self.words_end() {
            self.words.push_back(0);
        }
        self.issued += 1;
        ticket
    }

    /// All records of the changes up to this one were issued; of its transaction more may come.
    pub fn mark(&mut self, position: Position) {
        self.sent.position = self.sent.position.max(position);
        self.push_marker();
    }

    /// The transaction whose last record was just issued ends at `end_lsn`, with this position.
    pub fn commit(&mut self, end_lsn: Lsn, position: Position) {
        self.in_transaction = false;
        self.sent = self.sent.max(Progress { through_lsn: end_lsn, position });
        self.push_marker();
    }

    /// The broker has the record. A repeated acknowledgement, or one of a ticket never issued,
    /// changes nothing.
    pub fn ack(&mut self, ticket: Ticket) {
        debug_assert!(ticket.0 < self.issued, "ticket {} was never issued", ticket.0);
        if ticket.0 < self.acked_run || ticket.0 >= self.issued || self.rejected == Some(ticket) {
            return;
        }
        let (index, mask) = self.place(ticket.0);
        let Some(word) = self.words.get_mut(index) else { return };
        if *word & mask != 0 {
            return;
        }
        *word |= mask;
        self.acked += 1;
        if ticket.0 == self.acked_run {
            self.extend_run();
            self.advance();
        }
    }

    /// The broker refused the record permanently: the stream stops before its transaction.
    pub fn reject(&mut self, ticket: Ticket) {
        self.rejected = Some(self.rejected.map_or(ticket, |first| first.min(ticket)));
    }

    /// The server has sent everything before `wal_end`. Within a transaction this changes nothing.
    ///
    /// The caller must have seen all that the server sent before this keepalive.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        if !self.in_transaction {
            self.sent.through_lsn = self.sent.through_lsn.max(wal_end);
            self.push_marker();
        }
    }

    /// A checkpoint with this progress is durable, so Postgres need not remember what it covers.
    pub fn confirm(&mut self, progress: Progress) {
        self.confirmed = self.confirmed.max(progress.through_lsn);
    }

    /// What the records issued so far amount to.
    #[must_use]
    pub const fn sent(&self) -> Progress {
        self.sent
    }

    /// What the records amount to that are acknowledged without a hole.
    #[must_use]
    pub const fn delivered(&self) -> Progress {
        self.delivered
    }

    /// Up to here Postgres may discard its WAL.
    #[must_use]
    pub const fn confirmed(&self) -> Lsn {
        self.confirmed
    }

    /// Records handed over and not acknowledged.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.issued - self.acked
    }

    /// Records issued so far.
    #[must_use]
    pub const fn issued(&self) -> u64 {
        self.issued
    }

    /// All records issued before the one with this number are acknowledged.
    #[must_use]
    pub const fn acknowledged(&self) -> u64 {
        self.acked_run
    }

    /// Whether a transaction was begun and not committed.
    #[must_use]
    pub const fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    fn push_marker(&mut self) {
        let (tickets_end, progress) = (self.issued, self.sent);
        match self.markers.back_mut() {
            // Nothing was issued between the two, so the later one says all.
            Some(last) if last.tickets_end == tickets_end => last.progress = progress,
            _ => self.markers.push_back(Marker { tickets_end, progress }),
        }
        self.advance();
    }

    fn words_end(&self) -> u64 {
        self.words_start + 64 * self.words.len() as u64
    }

    fn place(&self, ticket: u64) -> (usize, u64) {
        let distance = ticket - self.words_start;
        let index = usize::try_from(distance / 64).unwrap_or(usize::MAX);
        (index, 1 << (distance % 64))
    }

    /// Moves the end of the unbroken run over every bit that is set, a word at a time.
    fn extend_run(&mut self) {
        while self.acked_run < self.issued {
            let (index, _) = self.place(self.acked_run);
            let Some(&word) = self.words.get(index) else { break };
            let offset = (self.acked_run - self.words_start) % 64;
            let run = u64::from((!(word >> offset)).trailing_zeros()).min(64 - offset);
            self.acked_run += run;
            if offset + run < 64 {
                break;
            }
        }
        while self.acked_run >= self.words_start + 64 && self.words.pop_front().is_some() {
            self.words_start += 64;
        }
    }

    fn advance(&mut self) {
        while let Some(marker) = self.markers.front() {
            if marker.tickets_end > self.acked_run {
                break;
            }
            self.delivered = marker.progress;
            self.markers.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
