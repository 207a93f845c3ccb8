//! What a process used, read from /proc until it ends.
//!
//! Sampled from outside, so that every contestant is measured in the same way; what a process uses
//! in its last hundredth of a second is missed.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a process had used when it was last seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time in seconds.
    pub(crate) cpu_s: f64,
    /// Highest resident memory in MiB.
    pub(crate) peak_mib: f64,
}

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

/// What the process has used, while it exists.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let numbers = numbers(pid)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak_kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    Some(Usage {
        cpu_s: time_s(&numbers, 11..13),
        // A process that has ended has no memory left to tell of.
        peak_mib: peak_kib.map(|kib: f64| kib / 1024.0)?,
    })
}

/// User and system time in seconds of a process and its children, the ended ones that it waited for
/// among them.
pub(crate) fn family_cpu_s(pid: u32) -> f64 {
    let children = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let child = entry.ok()?.file_name().to_str()?.parse::<u32>().ok()?;
        let numbers = numbers(child)?;
        (numbers.get(1).copied() == Some(f64::from(pid))).then(|| time_s(&numbers, 11..13))
    });
    let own = numbers(pid).map_or(0.0, |numbers| time_s(&numbers, 11..15));
    own + children.sum::<f64>()
}

/// What `/proc/PID/stat` says after the process's name, which may hold spaces and stands in
/// parentheses; its state as not a number.
fn numbers(pid: u32) -> Option<Vec<f64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let numbers = stat.rsplit_once(')')?.1.split_whitespace();
    Some(numbers.map(|text| text.parse().unwrap_or(f64::NAN)).collect())
}

/// Linux counts in hundredths of a second whatever its own clock does.
fn time_s(numbers: &[f64], at: std::ops::Range<usize>) -> f64 {
    numbers.get(at).map_or(0.0, |ticks| ticks.iter().sum::<f64>() / 100.0)
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
