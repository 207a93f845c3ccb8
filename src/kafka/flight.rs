//! When queued records are sent: singly at once, in large batches while they pour.
//!
//! librdkafka sends a batch once it is full or its first record has waited for `linger.ms`. No
//! single value of that serves both ends. With 0, an idempotent producer has one batch a partition
//! under way and meanwhile wants to send the next at once: its thread then spins until the broker
//! answers, and costs the rest of a small machine a core. With a few milliseconds it rests, and
//! every lone record is late by them.
//!
//! So records linger, and [`Flight`] cuts the wait short by Nagle's rule: whenever the worker has
//! nothing more to hand over, what is queued is sent at once, unless something sent before is still
//! under way; then it is sent when that has landed. While more than a handful of records come in
//! between they are left to linger, for then they fill batches by themselves.
//!
//! Must hold: this only ever hurries. Whatever is missed here goes out after `linger.ms`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The `linger.ms` that goes with this: long enough for a batch to fill at 100,000 rows a second,
/// short enough to be no latency that anyone sees where rows come that fast.
pub(super) const LINGER: Duration = Duration::from_millis(5);

/// [`LINGER`] as the property's value.
pub(super) const LINGER_MS: &str = "5";

/// More records than this since the last flight, within [`LINGER`], are a stream.
const STREAM: u64 = 64;

/// Counts what is under way, and tells when to send what is queued.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// Records given to the client; the same number of reports will come.
    sent: AtomicU64,
    reported: AtomicU64,
    /// The number of records that had been given to the client when it was last hurried.
    end: AtomicU64,
    asked: Mutex<Asked>,
    wake: Condvar,
}

/// What the sending thread is to do.
#[derive(Debug, Default)]
struct Asked {
    send: bool,
    stop: bool,
}

impl Flight {
    /// A record is about to be given to the client.
    pub(super) fn sending(&self) {
        self.sent.fetch_add(1, Ordering::AcqRel);
    }

    /// The client did not take the record after all.
    pub(super) fn not_sent(&self) {
        self.sent.fetch_sub(1, Ordering::AcqRel);
    }

    /// The client has reported a record. Returns whether none is left to be reported.
    pub(super) fn reported(&self) -> bool {
        let reported = self.reported.fetch_add(1, Ordering::AcqRel) + 1;
        if reported == self.end.load(Ordering::Acquire) {
            let _asked = self.lock();
            self.wake.notify_all();
        }
        reported == self.sent.load(Ordering::Acquire)
    }

    /// Nothing more comes for now: what is queued is to be sent.
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

    /// Calls `send` whenever what is queued should go now, until it is stopped. Blocks.
    pub(super) fn run(&self, send: impl Fn()) {
        let mut last = Instant::now();
        while self.wait() {
            let sent = self.sent.load(Ordering::Acquire);
            let since_last = sent.saturating_sub(self.end.load(Ordering::Acquire));
            let is_queued = self.reported.load(Ordering::Acquire) < sent;
            if is_queued && !is_stream(since_last, last.elapsed()) {
                self.end.store(sent, Ordering::Release);
                last = Instant::now();
                send();
            }
        }
    }

    /// Waits until it was asked to send and the last flight has landed. Returns whether to go on.
    fn wait(&self) -> bool {
        let asked = self.lock();
        let idle = |asked: &mut Asked| !asked.stop && !asked.send;
        let asked = self.wake.wait_while(asked, idle).unwrap_or_else(PoisonError::into_inner);
        let in_air = |asked: &mut Asked| {
            !asked.stop && self.reported.load(Ordering::Acquire) < self.end.load(Ordering::Acquire)
        };
        let mut asked = self.wake.wait_while(asked, in_air).unwrap_or_else(PoisonError::into_inner);
        asked.send = false;
        !asked.stop
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether so many records in so short a time fill batches without being hurried.
fn is_stream(records: u64, elapsed: Duration) -> bool {
    records > STREAM && elapsed < LINGER
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    /// Long enough to see that nothing comes.
    const QUIET: Duration = Duration::from_millis(20);

    /// Runs `test` beside a flight; each time it sends, the channel hears of it.
    fn with_flight(test: impl FnOnce(&Flight, &Receiver<()>)) {
        let flight = Flight::default();
        let (sent, sends) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| flight.run(move || sent.send(()).expect("the test listens")));
            test(&flight, &sends);
            flight.stop();
        });
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
    fn what_comes_during_a_flight_is_sent_when_it_has_landed() {
        with_flight(|flight, sends| {
            flight.sending();
            flight.ask();
            sends.recv_timeout(PATIENCE).expect("the first flight");
            for _ in 0..3 {
                flight.sending();
                flight.ask();
            }
            assert!(sends.recv_timeout(QUIET).is_err(), "one is under way");
            flight.reported();
            sends.recv_timeout(PATIENCE).expect("the second flight");
            for _ in 0..3 {
                flight.reported();
            }
            assert!(sends.recv_timeout(QUIET).is_err(), "all three were in it");
        });
    }

    #[test]
    fn nothing_is_sent_when_nothing_is_queued() {
        with_flight(|flight, sends| {
            flight.ask();
            assert!(sends.recv_timeout(QUIET).is_err());
            flight.sending();
            flight.not_sent();
            flight.ask();
            assert!(sends.recv_timeout(QUIET).is_err());
        });
    }

    #[test]
    fn the_property_says_what_the_constant_says() {
        assert_eq!(LINGER_MS.parse(), Ok(LINGER.as_millis()));
    }

    #[test]
    fn a_stream_is_left_to_linger_and_a_transaction_after_a_rest_is_not() {
        assert!(is_stream(STREAM + 1, LINGER / 2));
        assert!(!is_stream(STREAM, LINGER / 2));
        assert!(!is_stream(1_000, LINGER));
    }
}
