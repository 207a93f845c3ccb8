//! Reports an outage of Kafka each half minute: records wait, nothing is lost, and how much WAL the
//! database keeps.

use std::fmt;
use std::time::Instant;

use crate::backoff::Repeats;

/// An ongoing outage.
#[derive(Debug, Default)]
pub(super) struct Outage {
    told_at: Option<Instant>,
    /// The WAL that the slot held at the last log line.
    held: Option<u64>,
}

impl Outage {
    /// Notes that Kafka accepts nothing. Returns whether to log it again; not at once, because its
    /// beginning was logged.
    pub(super) fn lasts(&mut self, now: Instant) -> bool {
        let told_at = *self.told_at.get_or_insert(now);
        let is_due = now.duration_since(told_at) >= Repeats::APART;
        if is_due {
            self.told_at = Some(now);
        }
        is_due
    }

    /// Notes that it is over.
    pub(super) fn ends(&mut self) {
        *self = Self::default();
    }

    /// The text about the WAL that the slot holds.
    pub(super) fn wal(&mut self, held: Option<u64>) -> String {
        let before = self.held.replace(held.unwrap_or_default()).filter(|_| held.is_some());
        match (held, before) {
            (None, _) => "the amount of WAL that the server keeps is unknown".to_owned(),
            (Some(held), None) => format!("the server keeps {} of WAL meanwhile", Bytes(held)),
            (Some(held), Some(before)) => {
                let grown = Bytes(held.saturating_sub(before));
                format!(
                    "the server keeps {} of WAL meanwhile, {grown} more than last time",
                    Bytes(held)
                )
            }
        }
    }
}

/// A number of bytes for humans.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..1_024 => write!(f, "{bytes} B"),
            bytes @ 1_024..1_048_576 => write!(f, "{} kB", bytes >> 10),
            bytes => write!(f, "{} MB", bytes >> 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_logged_each_half_minute_with_what_the_wal_has_grown_by() {
        let start = Instant::now();
        let mut outage = Outage::default();
        let at = |seconds| start + Duration::from_secs(seconds);
        let due: Vec<u64> = (0..100).filter(|seconds| outage.lasts(at(*seconds))).collect();
        assert_eq!(due, [30, 60, 90]);
        let first = outage.wal(Some(3 << 20));
        assert_eq!(first, "the server keeps 3 MB of WAL meanwhile");
        let second = outage.wal(Some((5 << 20) + 7));
        assert!(second.ends_with("5 MB of WAL meanwhile, 2 MB more than last time"), "{second}");
        assert!(outage.wal(None).contains("is unknown"));
        outage.ends();
        assert!(!outage.lasts(at(200)));
    }
}
