//! Admits readers for one range each, and keeps them out while a Kafka transaction is committed.
//!
//! A transaction can't be committed while a reader sends, and its checkpoint lists complete ranges:
//! so each range is between two closings. Closing has priority: no reader is admitted after it
//! began to wait, so it waits for one range at most.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::pipeline::{ROOM, Stop};

/// The gate.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    inside: usize,
    is_closed: bool,
}

/// A reader that is inside, until this is dropped.
#[derive(Debug)]
pub(crate) struct Inside<'a>(&'a Gate);

/// The gate is closed and no reader is inside, until this is dropped.
#[derive(Debug)]
pub(crate) struct Closed<'a>(&'a Gate);

impl Gate {
    /// Enters once the gate is open; `None` if asked to stop before.
    pub(crate) fn enter(&self, stop: &Stop) -> Option<Inside<'_>> {
        let mut state = self.wait_while(stop, |state| state.is_closed)?;
        state.inside += 1;
        Some(Inside(self))
    }

    /// Admits no reader any more, and waits until none is inside; `None` if asked to stop before.
    pub(crate) fn close(&self, stop: &Stop) -> Option<Closed<'_>> {
        self.lock().is_closed = true;
        // From here on dropping the guard opens it again.
        let closed = Closed(self);
        let nobody = self.wait_while(stop, |state| state.inside > 0)?;
        drop(nobody);
        Some(closed)
    }

    fn wait_while(
        &self,
        stop: &Stop,
        is_in_the_way: impl Fn(&Inner) -> bool,
    ) -> Option<MutexGuard<'_, Inner>> {
        let mut state = self.lock();
        while is_in_the_way(&state) {
            if stop.is_now() {
                return None;
            }
            // The stop does not notify this condition variable.
            let woken = self.changed.wait_timeout(state, ROOM);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(state)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        self.0.changed.notify_all();
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.lock().is_closed = false;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn nobody_is_inside_while_it_is_closed_and_who_closes_always_comes_to_it() {
        let (gate, stop) = (Gate::default(), Stop::default());
        let (inside, ranges) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    // Without a pause: one reader after the other is inside, often several.
                    while !is_over.load(Ordering::Acquire) {
                        let _inside = gate.enter(&stop).expect("no stop is requested");
                        inside.fetch_add(1, Ordering::AcqRel);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::AcqRel);
                        ranges.fetch_add(1, Ordering::AcqRel);
                    }
                });
            }
            for _ in 0..200 {
                let before = ranges.load(Ordering::Acquire);
                let closed = gate.close(&stop).expect("no stop is requested");
                for _ in 0..10 {
                    assert_eq!(inside.load(Ordering::Acquire), 0);
                    std::thread::yield_now();
                }
                drop(closed);
                while ranges.load(Ordering::Acquire) == before {
                    std::thread::yield_now();
                }
            }
            is_over.store(true, Ordering::Release);
        });
    }

    #[test]
    fn told_to_stop_neither_waits_on() {
        let (gate, stop) = (Gate::default(), Stop::default());
        let reader = gate.enter(&stop).expect("it is open");
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| gate.close(&stop).is_none());
            let entering = scope.spawn(|| {
                while !gate.lock().is_closed && !stop.is_now() {
                    std::thread::yield_now();
                }
                gate.enter(&stop).is_none()
            });
            let started = Instant::now();
            stop.now();
            assert!(closing.join().expect("no panic"), "a reader is inside");
            // It may find the gate open again, because the closer has given up.
            let _ = entering.join().expect("no panic");
            assert!(started.elapsed() < Duration::from_secs(5));
        });
        drop(reader);
    }
}
