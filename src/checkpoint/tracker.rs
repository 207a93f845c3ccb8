//! The highest LSN that is safe to confirm to Postgres, as a pure structure.
//!
//! A ticket stands for one record, a commit marker for one transaction. Acknowledged tickets are
//! bits in a ring, so a record in flight costs one bit and an acknowledgement out of order costs
//! nothing more. The confirmed LSN is the end of the last transaction whose marker lies within the
//! unbroken run of acknowledged tickets.
//!
//! The invariants are listed in the parent module; the property test at the end holds this
//! structure against a model that is too slow to be wrong.

use std::collections::VecDeque;

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

/// A transaction that ended, waiting for its records.
#[derive(Debug)]
struct Marker {
    /// The first ticket after this transaction.
    tickets_end: u64,
    end_lsn: Lsn,
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
    confirmed: Lsn,
}

impl Tracker {
    /// Starts with everything up to `confirmed` delivered and nothing in flight.
    #[must_use]
    pub fn new(confirmed: Lsn) -> Self {
        Self {
            issued: 0,
            acked_run: 0,
            words: VecDeque::new(),
            words_start: 0,
            acked: 0,
            markers: VecDeque::new(),
            in_transaction: false,
            rejected: None,
            confirmed,
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

    /// The transaction whose last record was just issued ends at `end_lsn`.
    pub fn commit(&mut self, end_lsn: Lsn) {
        self.in_transaction = false;
        self.markers.push_back(Marker { tickets_end: self.issued, end_lsn });
        self.advance();
    }

    /// The broker has the record. An acknowledgement that was heard before, or of a ticket never
    /// issued, changes nothing.
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

    /// The broker refused the record for good: the line stops before its transaction.
    pub fn reject(&mut self, ticket: Ticket) {
        self.rejected = Some(self.rejected.map_or(ticket, |first| first.min(ticket)));
    }

    /// The server has sent everything before `wal_end`.
    ///
    /// The caller must have seen all that the server sent before this keepalive.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        if self.is_idle() {
            self.confirm(wal_end);
        }
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

    /// Whether a transaction was begun and not committed.
    #[must_use]
    pub const fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    fn is_idle(&self) -> bool {
        !self.in_transaction && self.in_flight() == 0
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
            let end_lsn = marker.end_lsn;
            self.markers.pop_front();
            self.confirm(end_lsn);
        }
    }

    fn confirm(&mut self, lsn: Lsn) {
        self.confirmed = self.confirmed.max(lsn);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lsn(value: u64) -> Lsn {
        Lsn::from(value)
    }

    #[test]
    fn a_commit_is_confirmed_only_when_its_last_record_is_acknowledged() {
        let mut tracker = Tracker::new(lsn(10));
        tracker.begin();
        let first = tracker.issue();
        let second = tracker.issue();
        tracker.ack(first);
        tracker.ack(second);
        assert_eq!(tracker.confirmed(), lsn(10), "no commit was seen yet");
        tracker.commit(lsn(20));
        assert_eq!(tracker.confirmed(), lsn(20));
    }

    #[test]
    fn a_later_transaction_waits_for_an_earlier_one() {
        let mut tracker = Tracker::new(lsn(10));
        tracker.begin();
        let early = tracker.issue();
        tracker.commit(lsn(20));
        tracker.begin();
        let late = tracker.issue();
        tracker.commit(lsn(30));
        tracker.ack(late);
        assert_eq!(tracker.confirmed(), lsn(10));
        tracker.ack(early);
        assert_eq!(tracker.confirmed(), lsn(30));
    }

    #[test]
    fn a_keepalive_moves_nothing_while_a_record_is_in_flight_or_a_transaction_is_open() {
        let mut tracker = Tracker::new(lsn(10));
        tracker.begin();
        tracker.keepalive(lsn(50));
        assert_eq!(tracker.confirmed(), lsn(10));
        let ticket = tracker.issue();
        tracker.commit(lsn(20));
        tracker.keepalive(lsn(50));
        assert_eq!(tracker.confirmed(), lsn(10));
        tracker.ack(ticket);
        tracker.keepalive(lsn(50));
        assert_eq!(tracker.confirmed(), lsn(50));
    }

    #[test]
    fn a_keepalive_from_the_past_moves_nothing_back() {
        let mut tracker = Tracker::new(lsn(10));
        tracker.keepalive(lsn(5));
        assert_eq!(tracker.confirmed(), lsn(10));
    }

    #[test]
    fn a_rejected_record_stops_the_line_for_good() {
        let mut tracker = Tracker::new(lsn(10));
        tracker.begin();
        let bad = tracker.issue();
        tracker.commit(lsn(20));
        tracker.begin();
        let good = tracker.issue();
        tracker.commit(lsn(30));
        tracker.reject(bad);
        tracker.ack(good);
        tracker.ack(bad);
        tracker.keepalive(lsn(90));
        assert_eq!(tracker.confirmed(), lsn(10));
    }

    #[test]
    fn a_transaction_without_records_is_confirmed_at_once() {
        let mut tracker = Tracker::new(lsn(10));
        tracker.begin();
        tracker.commit(lsn(20));
        assert_eq!(tracker.confirmed(), lsn(20));
    }

    #[test]
    fn a_million_tickets_acknowledged_in_order_keep_no_memory() {
        let mut tracker = Tracker::new(Lsn::ZERO);
        for step in 0..1_000_000_u64 {
            tracker.begin();
            let ticket = tracker.issue();
            tracker.commit(lsn(step + 1));
            tracker.ack(ticket);
        }
        assert_eq!(tracker.confirmed(), lsn(1_000_000));
        assert!(tracker.words.len() <= 1 && tracker.markers.is_empty());
    }

    /// What the tracker must do, said as plainly as it can be.
    #[derive(Default)]
    struct Model {
        records: Vec<bool>,
        /// (number of records before the end, end LSN)
        commits: Vec<(usize, u64)>,
        open: bool,
        rejected: Option<usize>,
        confirmed: u64,
    }

    impl Model {
        fn settle(&mut self) {
            for &(end, lsn) in &self.commits {
                if self.records.iter().take(end).all(|acked| *acked) {
                    self.confirmed = self.confirmed.max(lsn);
                } else {
                    break;
                }
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Records of the next transaction, and how many of them come before a keepalive.
        Transaction {
            records: u8,
            commits: bool,
        },
        Ack {
            pick: prop::sample::Index,
        },
        Reject {
            pick: prop::sample::Index,
        },
        Keepalive,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0_u8..100, prop::bool::weighted(0.9))
                .prop_map(|(records, commits)| Step::Transaction { records, commits }),
            60 => any::<prop::sample::Index>().prop_map(|pick| Step::Ack { pick }),
            1 => any::<prop::sample::Index>().prop_map(|pick| Step::Reject { pick }),
            4 => Just(Step::Keepalive),
        ];
        prop::collection::vec(step, 0..600)
    }

    proptest! {
        #[test]
        fn it_does_what_the_model_does(steps in steps(), in_order: bool) {
            let mut tracker = Tracker::new(Lsn::ZERO);
            let mut model = Model::default();
            let mut wal = 0_u64;
            let mut next_in_order = 0;
            for step in steps {
                wal += 1;
                let before = tracker.confirmed();
                match step {
                    Step::Transaction { records, commits } => {
                        if !model.open {
                            tracker.begin();
                            model.open = true;
                        }
                        for _ in 0..records {
                            let ticket = tracker.issue();
                            prop_assert_eq!(ticket.as_u64(), model.records.len() as u64);
                            model.records.push(false);
                        }
                        if commits {
                            tracker.commit(lsn(wal));
                            model.commits.push((model.records.len(), wal));
                            model.open = false;
                        }
                    }
                    Step::Ack { pick } if !model.records.is_empty() => {
                        let record = if in_order && next_in_order < model.records.len() {
                            next_in_order
                        } else {
                            pick.index(model.records.len())
                        };
                        next_in_order = record + 1;
                        tracker.ack(Ticket(record as u64));
                        if model.rejected != Some(record) {
                            model.records[record] = true;
                        }
                    }
                    Step::Reject { pick } if !model.records.is_empty() => {
                        // The broker rejects a record once and never acknowledges it too.
                        let record = pick.index(model.records.len());
                        if model.rejected.is_none() && !model.records[record] {
                            tracker.reject(Ticket(record as u64));
                            model.rejected = Some(record);
                        }
                    }
                    Step::Keepalive => {
                        tracker.keepalive(lsn(wal));
                        if !model.open && model.records.iter().all(|acked| *acked) {
                            model.confirmed = wal;
                        }
                    }
                    Step::Ack { .. } | Step::Reject { .. } => {}
                }
                model.settle();
                prop_assert_eq!(tracker.confirmed(), lsn(model.confirmed));
                prop_assert!(tracker.confirmed() >= before, "the confirmed LSN went back");
                let waiting = model.records.iter().filter(|acked| !**acked).count();
                prop_assert_eq!(tracker.in_flight(), waiting as u64);
            }
        }
    }
}
