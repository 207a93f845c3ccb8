//! What a process used so far, as /proc tells it: for tests that bound it and benches that compare it.

use std::fs;

/// What a process had used when it was last seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time in seconds.
    pub cpu_s: f64,
    /// Highest resident memory in MiB.
    pub peak_mib: f64,
}

/// What the process has used, while it exists.
pub fn usage(pid: u32) -> Option<Usage> {
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
pub fn family_cpu_s(pid: u32) -> f64 {
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
