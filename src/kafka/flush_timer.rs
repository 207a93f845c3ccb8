//! Decides when queued records are sent: single records at once, many in large batches.
//!
//! librdkafka sends a batch once it is full or its first record has waited for `linger.ms`. An
//! idempotent producer has one batch per partition in flight; as long as the next has waited longer
//! than `linger.ms`, its thread spins until the broker responds, and costs a small machine a core.
//! So no single value is right: a short one spins, and a long one delays a lone record.
//!
//! So `linger.ms` is longer than a record ever waits: on its own the client sends only full batches
//! and sleeps in between, and [`FlushTimer`] ends the wait early:
//!
//! - whenever the worker has nothing more to hand over, queued records are sent at once, unless
//!   earlier ones are still in flight (Nagle's rule); then they are sent once those are
//!   acknowledged. If more than a few records arrive in between, they collect for [`LINGER`];
//! - other queued records are sent when nothing has been reported for [`LINGER`], and every
//!   [`PATROL`] while full batches are sent continuously: a partition with few records must not
//!   wait for those with many.
//!
//! Must hold: no record that could be sent waits for longer than [`PATROL`] plus the time that the
//! client's thread needs to wake up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long records collect while more arrive: long enough for a batch to fill at 100,000 rows per
/// second, short enough to be negligible latency at that rate.
const LINGER: Duration = Duration::from_millis(5);

/// The matching `linger.ms`, longer than any record waits that can be sent.
pub(super) const LINGER_MS: &str = "60000";

/// Longest wait of a record while others are sent in full batches. Sending a batch before it is
/// full makes the client's thread spin briefly, so this is rare.
const PATROL: Duration = Duration::from_millis(50);

/// The shortest possible flush, about ten times what the client's thread needs to wake up.
pub(super) const MOMENT: Duration = Duration::from_millis(1);

/// A flush that follows another lasts for this fraction of the pause after it.
const MOMENTS: u32 = 5;

/// More records than this since the last flush, within [`LINGER`], are a stream.
const STREAM: u64 = 64;

/// Counts records in flight, and decides when to send queued ones.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// Records handed to the client; the same number of reports will arrive.
    sent: AtomicU64,
    reported: AtomicU64,
    /// The number of records that had been handed to the client at the last flush.
    end: AtomicU64,
    asked: Mutex<Asked>,
    wake: Condvar,
    /// Whether the sending thread sleeps, because nothing is in flight.
    is_at_rest: AtomicBool,
}

/// What the sending thread has to do.
#[derive(Debug, Default)]
struct Asked {
    send: bool,
    stop: bool,
}

impl Flight {
    /// A record is about to be handed to the client.
    pub(super) fn sending(&self) {
        self.sent.fetch_add(1, Ordering::SeqCst);
        if self.is_at_rest.load(Ordering::SeqCst) {
            let _asked = self.lock();
            self.wake.notify_all();
        }
    }

    /// The client did not accept the record.
    pub(super) fn not_sent(&self) {
        self.sent.fetch_sub(1, Ordering::SeqCst);
    }

    /// The client has reported a record. Returns whether it was the last one in flight.
    pub(super) fn reported(&self) -> bool {
        let reported = self.reported.fetch_add(1, Ordering::SeqCst) + 1;
        if reported == self.end.load(Ordering::SeqCst) {
            let _asked = self.lock();
            self.wake.notify_all();
        }
        reported == self.sent.load(Ordering::SeqCst)
    }

    /// No more records follow for now: send what is queued.
    pub(super) fn ask(&self) {
        let mut asked = self.lock();
        if !asked.send {
            asked.send = true;
            self.wake.notify_all();
        }
    }

    /// Ends [`run`](Self::run).
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_all();
    }

    /// Calls `send` whenever queued records should be sent now, with the time that the flush may
    /// last, until it is stopped. Blocks.
    pub(super) fn run(&self, send: impl Fn(Duration)) {
        let mut rhythm = Rhythm::new(Instant::now());
        while self.wait(&mut rhythm) {
            let counts = self.counts();
            self.end.store(counts.sent, Ordering::SeqCst);
            send(rhythm.begins(counts, Instant::now()));
        }
    }

    /// Whether all records of the last flush were reported.
    pub(super) fn has_landed(&self) -> bool {
        self.counts().has_landed()
    }

    /// Waits until the next flush is due. Returns whether to continue.
    fn wait(&self, rhythm: &mut Rhythm) -> bool {
        let mut asked = self.lock();
        while !asked.stop {
            let (counts, now) = (self.counts(), Instant::now());
            asked = match rhythm.due(counts, asked.send, now) {
                Some(due) if due <= now => {
                    asked.send = false;
                    return true;
                }
                Some(due) => {
                    let woken = self.wake.wait_timeout(asked, due - now);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.rest(asked),
            };
        }
        false
    }

    /// Waits until there is something to wait for.
    fn rest<'a>(&'a self, mut asked: MutexGuard<'a, Asked>) -> MutexGuard<'a, Asked> {
        asked.send = false;
        self.is_at_rest.store(true, Ordering::SeqCst);
        // A sender increments the count first and then checks whether to wake this thread, so one
        // of the two sees the other.
        let is_idle = |asked: &mut Asked| !asked.stop && !asked.send && !self.counts().is_any_out();
        let asked = self.wake.wait_while(asked, is_idle).unwrap_or_else(PoisonError::into_inner);
        self.is_at_rest.store(false, Ordering::SeqCst);
        asked
    }

    fn counts(&self) -> Counts {
        // Reports are read first, so that none is missed for records sent meanwhile.
        let reported = self.reported.load(Ordering::SeqCst);
        let end = self.end.load(Ordering::SeqCst);
        Counts { sent: self.sent.load(Ordering::SeqCst), reported, end }
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers of records sent, of those reported, and of those sent when the last flush began.
#[derive(Debug, Clone, Copy)]
struct Counts {
    sent: u64,
    reported: u64,
    end: u64,
}

impl Counts {
    const fn is_any_out(self) -> bool {
        self.reported < self.sent
    }

    const fn has_landed(self) -> bool {
        self.reported >= self.end
    }

    /// Whether so few were sent since the last flush that none should wait for a batch to fill.
    const fn are_few(self) -> bool {
        self.sent.saturating_sub(self.end) <= STREAM
    }
}

/// When the next flush is due. Pure.
#[derive(Debug)]
struct Rhythm {
    /// When the last flush began.
    last: Instant,
    /// How long to wait for its reports before flushing again: it may have ended before the
    /// client's thread woke up, or may have found a batch in flight.
    pause: Duration,
    is_in_air: bool,
    /// Since when something is in flight; `None` while nothing is.
    out_since: Option<Instant>,
    /// Reports that were counted, and since when there are no more.
    reported: u64,
    quiet_since: Instant,
}

impl Rhythm {
    const fn new(now: Instant) -> Self {
        Self {
            last: now,
            pause: LINGER,
            is_in_air: false,
            out_since: None,
            reported: 0,
            quiet_since: now,
        }
    }

    /// A flush begins. Returns how long it may last. Under load it is brief: the client's thread
    /// spins meanwhile if batches are in flight, and the next full batch wakes it anyway. With few
    /// records it lasts until they are acknowledged, and the more flushes had no effect the longer,
    /// because on a busy machine that thread may need more time to wake up.
    fn begins(&mut self, counts: Counts, now: Instant) -> Duration {
        let is_again = std::mem::replace(&mut self.is_in_air, true);
        self.pause = if is_again { PATROL.min(2 * self.pause) } else { LINGER };
        (self.last, self.quiet_since) = (now, now);
        match (counts.are_few(), is_again) {
            (false, _) => MOMENT,
            (true, false) => LINGER,
            (true, true) => self.pause / MOMENTS,
        }
    }

    /// When the next flush is due; `None` while nothing is in flight.
    fn due(&mut self, counts: Counts, is_asked: bool, now: Instant) -> Option<Instant> {
        let reported = counts.reported;
        self.is_in_air &= !counts.has_landed();
        if !counts.is_any_out() {
            self.out_since = None;
            return None;
        }
        if self.out_since.is_none() || reported != self.reported {
            (self.reported, self.quiet_since) = (reported, now);
        }
        let out_since = *self.out_since.get_or_insert(now);
        Some(if self.is_in_air {
            self.last + self.pause
        } else if !is_asked {
            (self.quiet_since + LINGER).min(self.last.max(out_since) + PATROL)
        } else if counts.are_few() {
            now
        } else {
            self.last + LINGER
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const MS: Duration = Duration::from_millis(1);

    /// Runs `test` with a timer; each flush is sent to the channel.
    fn with_flight(test: impl FnOnce(&Flight, &Receiver<()>)) {
        let flight = Flight::default();
        let (sent, sends) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| flight.run(move |_| sent.send(()).expect("the test listens")));
            test(&flight, &sends);
            flight.stop();
        });
    }

    const fn counts(sent: u64, reported: u64, end: u64) -> Counts {
        Counts { sent, reported, end }
    }

    #[test]
    fn a_lone_record_is_sent_when_nothing_follows() {
        with_flight(|flight, sends| {
            flight.sending();
            flight.ask();
            sends.recv_timeout(PATIENCE).expect("it is sent");
            assert!(flight.reported(), "none is left");
        });
    }

    #[test]
    fn what_nobody_asks_for_is_sent_all_the_same() {
        with_flight(|flight, sends| {
            for _ in 0..3 {
                flight.sending();
                sends.recv_timeout(PATIENCE).expect("it is sent");
                assert!(flight.reported(), "none is left");
            }
        });
    }

    #[test]
    fn what_comes_during_a_flight_is_sent_when_it_has_landed() {
        with_flight(|flight, sends| {
            flight.sending();
            flight.ask();
            sends.recv_timeout(PATIENCE).expect("the first flush");
            flight.sending();
            flight.ask();
            flight.reported();
            sends.recv_timeout(PATIENCE).expect("the second flush");
        });
        let now = Instant::now();
        let mut rhythm = Rhythm::new(now);
        rhythm.begins(counts(1, 0, 0), now);
        assert_eq!(rhythm.due(counts(4, 0, 1), true, now + MS), Some(now + LINGER));
        assert_eq!(rhythm.due(counts(4, 1, 1), true, now + 2 * MS), Some(now + 2 * MS));
    }

    #[test]
    fn nothing_is_sent_while_nothing_is_queued() {
        let now = Instant::now();
        let mut rhythm = Rhythm::new(now);
        assert_eq!(rhythm.due(counts(0, 0, 0), true, now + PATROL), None);
        let flight = Flight::default();
        flight.sending();
        flight.not_sent();
        assert!(!flight.counts().is_any_out());
    }

    #[test]
    fn a_stream_is_left_to_gather_and_a_transaction_after_a_rest_is_not() {
        let now = Instant::now();
        let mut rhythm = Rhythm::new(now);
        assert_eq!(rhythm.due(counts(STREAM + 1, 0, 0), true, now + MS), Some(now + LINGER));
        assert_eq!(rhythm.due(counts(STREAM, 0, 0), true, now + MS), Some(now + MS));
        let later = now + 2 * LINGER;
        let due = Rhythm::new(now).due(counts(1_000, 0, 0), true, later);
        assert!(due.is_some_and(|due| due <= later), "{due:?}");
    }

    #[test]
    fn full_batches_that_come_and_go_are_not_hurried_but_now_and_then() {
        let now = Instant::now();
        let mut rhythm = Rhythm::new(now);
        let mut at = now;
        for reported in 0..12 {
            at = now + 4 * MS * u32::try_from(reported).unwrap();
            let due = rhythm.due(counts(1_000_000, 1_000 * reported, 0), false, at);
            assert_eq!(due, Some((at + LINGER).min(now + PATROL)), "{reported}");
        }
        let quiet = rhythm.due(counts(1_000_000, 11_000, 0), false, at + 2 * MS);
        assert_eq!(quiet, Some(at + LINGER));
    }

    #[test]
    fn a_flight_of_few_hurries_until_it_lands_and_one_of_many_for_a_moment() {
        let now = Instant::now();
        assert_eq!(Rhythm::new(now).begins(counts(STREAM, 0, 0), now), LINGER);
        let mut many = Rhythm::new(now);
        for _ in 0..3 {
            assert_eq!(many.begins(counts(STREAM + 1, 0, 0), now), MOMENT);
        }
    }

    #[test]
    fn a_flight_that_does_not_land_is_sent_after_ever_longer_and_ever_more_seldom() {
        let now = Instant::now();
        let mut rhythm = Rhythm::new(now);
        let (mut at, mut times, mut pauses) = (now, Vec::new(), Vec::new());
        for _ in 0..7 {
            times.push(rhythm.begins(counts(2, 1, 1), at));
            let due = rhythm.due(counts(2, 1, 2), false, at + MS).unwrap();
            pauses.push(due - at);
            at = due;
        }
        assert_eq!(times, [5, 2, 4, 8, 10, 10, 10].map(Duration::from_millis));
        assert_eq!(pauses, [5, 10, 20, 40, 50, 50, 50].map(Duration::from_millis));
        // The next one is expected to be acknowledged again.
        rhythm.due(counts(2, 2, 2), false, at);
        assert_eq!(rhythm.begins(counts(2, 2, 1), at), LINGER);
    }

    proptest! {
        #[test]
        fn no_record_is_left_for_longer_than_a_patrol(
            steps in prop::collection::vec((0_u32..40, 0_u64..200, 0_u64..200, any::<bool>()), 1..60),
        ) {
            let start = Instant::now();
            let mut rhythm = Rhythm::new(start);
            let (mut now, mut at) = (start, counts(0, 0, 0));
            // Since when the oldest record waits without a flush.
            let mut waits = None;
            for (pause, sent, reported, is_asked) in steps {
                now += pause * MS;
                at.sent += sent;
                at.reported = at.sent.min(at.reported + reported);
                if at.sent > at.end && at.reported < at.sent {
                    waits = waits.or(Some(now));
                }
                match rhythm.due(at, is_asked, now) {
                    Some(due) if due <= now => {
                        rhythm.begins(at, now);
                        (at.end, waits) = (at.sent, None);
                    }
                    Some(due) => prop_assert!(waits.is_none_or(|since| due <= since + PATROL)),
                    None => {
                        prop_assert_eq!(at.reported, at.sent);
                        waits = None;
                    }
                }
            }
        }
    }
}
