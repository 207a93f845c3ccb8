//! How far everything is acknowledged, and what of it is safe to confirm to Postgres, as a pure
//! structure.
//!
//! A ticket stands for one record, a marker for a progress that the records before it amount to:
//! the end of a transaction, a part of one, idle WAL. Acknowledged tickets are bits in a ring, so a
//! record in flight costs one bit and an acknowledgement out of order costs nothing more. What is
//! delivered is the last marker within the unbroken run of acknowledged tickets; what is confirmed
//! is what a durable checkpoint says.
//!
//! The invariants are listed in the parent module; the property test at the end holds this
//! structure against a model that is too slow to be wrong.

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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lsn(value: u64) -> Lsn {
        Lsn::from(value)
    }

    fn tracker(start: u64) -> Tracker {
        Tracker::new(Progress::at(lsn(start)))
    }

    /// The first change of the transaction whose commit stands just before its end.
    fn end(end_lsn: u64) -> (Lsn, Position) {
        (lsn(end_lsn), Position { commit_lsn: lsn(end_lsn - 1), ordinal: 1 })
    }

    fn commit(tracker: &mut Tracker, end_lsn: u64) {
        let (end_lsn, position) = end(end_lsn);
        tracker.commit(end_lsn, position);
    }

    fn delivered(tracker: &Tracker) -> Lsn {
        tracker.delivered().through_lsn
    }

    #[test]
    fn a_commit_is_delivered_only_when_its_last_record_is_acknowledged() {
        let mut tracker = tracker(10);
        tracker.begin();
        let first = tracker.issue();
        let second = tracker.issue();
        tracker.ack(first);
        tracker.ack(second);
        assert_eq!(delivered(&tracker), lsn(10), "no commit was seen yet");
        commit(&mut tracker, 20);
        assert_eq!(delivered(&tracker), lsn(20));
    }

    #[test]
    fn a_later_transaction_waits_for_an_earlier_one() {
        let mut tracker = tracker(10);
        tracker.begin();
        let early = tracker.issue();
        commit(&mut tracker, 20);
        tracker.begin();
        let late = tracker.issue();
        commit(&mut tracker, 30);
        tracker.ack(late);
        assert_eq!(delivered(&tracker), lsn(10));
        tracker.ack(early);
        assert_eq!(delivered(&tracker), lsn(30));
    }

    #[test]
    fn a_keepalive_moves_nothing_while_a_record_is_in_flight_or_a_transaction_is_open() {
        let mut tracker = tracker(10);
        tracker.begin();
        tracker.keepalive(lsn(50));
        assert_eq!(delivered(&tracker), lsn(10));
        let ticket = tracker.issue();
        commit(&mut tracker, 20);
        tracker.keepalive(lsn(50));
        assert_eq!(delivered(&tracker), lsn(10));
        tracker.ack(ticket);
        assert_eq!(delivered(&tracker), lsn(50), "it was heard after the transaction");
    }

    #[test]
    fn a_keepalive_from_the_past_moves_nothing_back() {
        let mut tracker = tracker(10);
        tracker.keepalive(lsn(5));
        assert_eq!(delivered(&tracker), lsn(10));
    }

    #[test]
    fn a_rejected_record_stops_the_line_for_good() {
        let mut tracker = tracker(10);
        tracker.begin();
        let bad = tracker.issue();
        commit(&mut tracker, 20);
        tracker.begin();
        let good = tracker.issue();
        commit(&mut tracker, 30);
        tracker.reject(bad);
        tracker.ack(good);
        tracker.ack(bad);
        tracker.keepalive(lsn(90));
        assert_eq!(delivered(&tracker), lsn(10));
    }

    #[test]
    fn a_transaction_without_records_is_delivered_at_once() {
        let mut tracker = tracker(10);
        tracker.begin();
        commit(&mut tracker, 20);
        assert_eq!(delivered(&tracker), lsn(20));
    }

    #[test]
    fn a_million_tickets_acknowledged_in_order_keep_no_memory() {
        let mut tracker = tracker(0);
        for step in 0..1_000_000_u64 {
            tracker.begin();
            let ticket = tracker.issue();
            commit(&mut tracker, step + 2);
            tracker.ack(ticket);
        }
        assert_eq!(delivered(&tracker), lsn(1_000_001));
        assert!(tracker.words.len() <= 1 && tracker.markers.is_empty());
    }

    #[test]
    fn a_part_of_a_transaction_is_delivered_but_not_its_end() {
        let mut tracker = tracker(10);
        tracker.begin();
        let first = tracker.issue();
        let part = Position { commit_lsn: lsn(19), ordinal: 1 };
        tracker.mark(part);
        let second = tracker.issue();
        tracker.mark(Position { ordinal: 2, ..part });
        assert_eq!(tracker.delivered(), Progress::at(lsn(10)));
        tracker.ack(first);
        assert_eq!(tracker.delivered(), Progress { through_lsn: lsn(10), position: part });
        assert_eq!(tracker.sent().position.ordinal, 2);
        tracker.ack(second);
        assert_eq!(tracker.delivered(), tracker.sent());
    }

    #[test]
    fn only_a_durable_checkpoint_confirms() {
        let mut tracker = tracker(10);
        tracker.begin();
        commit(&mut tracker, 20);
        assert_eq!(tracker.confirmed(), lsn(10));
        tracker.confirm(tracker.delivered());
        assert_eq!(tracker.confirmed(), lsn(20));
        tracker.confirm(Progress::at(lsn(15)));
        assert_eq!(tracker.confirmed(), lsn(20), "it never goes back");
    }

    #[test]
    fn a_replay_of_what_is_delivered_moves_nothing_back() {
        let part = Position { commit_lsn: lsn(39), ordinal: 5 };
        let start = Progress { through_lsn: lsn(30), position: part };
        let mut tracker = Tracker::new(start);
        tracker.begin();
        commit(&mut tracker, 20);
        assert_eq!((tracker.sent(), tracker.delivered()), (start, start));
        tracker.begin();
        tracker.mark(Position { ordinal: 2, ..part });
        assert_eq!(tracker.delivered(), start);
    }

    /// What the tracker must do, said as plainly as it can be.
    #[derive(Default)]
    struct Model {
        records: Vec<bool>,
        /// Of transactions and keepalives: (number of records before the end, end LSN)
        commits: Vec<(usize, u64)>,
        open: bool,
        rejected: Option<usize>,
        delivered: u64,
    }

    impl Model {
        fn settle(&mut self) {
            for &(end, lsn) in &self.commits {
                if self.records.iter().take(end).all(|acked| *acked) {
                    self.delivered = self.delivered.max(lsn);
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
            let mut tracker = tracker(0);
            let mut model = Model::default();
            let mut wal = 0_u64;
            let mut next_in_order = 0;
            for step in steps {
                wal += 1;
                let before = delivered(&tracker);
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
                            commit(&mut tracker, wal);
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
                        if !model.open {
                            model.commits.push((model.records.len(), wal));
                        }
                    }
                    Step::Ack { .. } | Step::Reject { .. } => {}
                }
                model.settle();
                prop_assert_eq!(delivered(&tracker), lsn(model.delivered));
                prop_assert!(delivered(&tracker) >= before, "what is delivered went back");
                let waiting = model.records.iter().filter(|acked| !**acked).count();
                prop_assert_eq!(tracker.in_flight(), waiting as u64);
            }
        }
    }
}
