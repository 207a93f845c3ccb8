//! What a process used, read from /proc until it ends.
//!
//! Sampled from outside, so that every contestant is measured in the same way; what a process uses
//! in its last hundredth of a second is missed.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) use crate::support::usage::{Usage, family_cpu_s, usage};

/// Watches one process.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Usage>,
}

impl Sampler {
    /// Starts to watch.
    pub(crate) fn watch(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let first = usage(pid).unwrap_or_default();
                let mut last = first;
                while !stop.load(Ordering::Relaxed) {
                    match usage(pid) {
                        Some(usage) => last = usage,
                        None => break,
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                last
            }
        });
        Self { stop, thread }
    }

    /// What it used up to now, or up to its end.
    pub(crate) fn finish(self) -> Usage {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sampler does not panic")
    }
}

/// What all cores together did since the machine was started: at work, and in all, in hundredths of
/// a second.
pub(crate) fn machine() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> =
        line.split_whitespace().skip(1).take(8).filter_map(|text| text.parse().ok()).collect();
    let all: f64 = ticks.iter().sum();
    // The fourth and the fifth are spent idle, and idle for want of a disk.
    (all - ticks.iter().skip(3).take(2).sum::<f64>(), all)
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
