//! Logs the client's connection errors, with repeats folded: an outage causes a hundred lines a
//! minute, four in five of them the same.
//!
//! The first error of each kind is logged. After that all kinds together are one line per half
//! minute, with the number of those that were not logged. While records wait, the watchdog writes
//! that line, which says what the outage means and includes the number ([`folded`]). After a minute
//! without errors this starts over.
//!
//! One per process: there is one Kafka cluster, however many clients connect to it.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rdkafka::error::KafkaError;

use crate::backoff::Repeats;

/// Most kinds that are distinguished; the client has fewer.
const KINDS: usize = 32;

static TROUBLE: Mutex<Trouble> = Mutex::new(Trouble::new());

/// The errors since the outage began.
#[derive(Debug)]
struct Trouble {
    kinds: Vec<String>,
    last: Option<Instant>,
    repeats: Repeats,
}

impl Trouble {
    const fn new() -> Self {
        Self { kinds: Vec::new(), last: None, repeats: Repeats::new() }
    }

    /// An error of this kind. Returns how many were not logged before, if this one is to be.
    fn said(&mut self, kind: &str, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) >= 2 * Repeats::APART) {
            self.kinds.clear();
        }
        self.last = Some(now);
        let is_new = self.kinds.len() < KINDS && self.kinds.iter().all(|known| known != kind);
        if is_new {
            self.kinds.push(kind.to_owned());
            return Some(self.repeats.told(now));
        }
        self.repeats.again(now)
    }
}

/// Whether to log an error of this kind; returns how many were not logged since the last.
pub(super) fn said(kind: &str) -> Option<u64> {
    TROUBLE.lock().unwrap_or_else(PoisonError::into_inner).said(kind, Instant::now())
}

/// Logs a failed connection, or all of them. The client tries again.
pub(super) fn connection(error: &KafkaError, reason: &str) {
    let kind =
        error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
    match said(&kind) {
        Some(0) => tracing::warn!(error = %error, reason, "kafka connection"),
        Some(folded) => tracing::warn!(error = %error, reason, folded, "kafka connection"),
        None => tracing::debug!(error = %error, reason, "kafka connection"),
    }
}

/// Takes the number of lines that were not logged; the caller logs the outage instead.
#[must_use]
pub fn folded() -> u64 {
    TROUBLE.lock().unwrap_or_else(PoisonError::into_inner).repeats.told(Instant::now())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_kind_is_logged_at_first_and_then_one_line_a_half_minute() {
        let start = Instant::now();
        let mut trouble = Trouble::new();
        let mut said = |at: u64, kind: &str| trouble.said(kind, start + Duration::from_secs(at));
        assert_eq!(said(0, "refused"), Some(0));
        assert_eq!(said(1, "refused"), None);
        assert_eq!(said(2, "all down"), Some(1));
        let lines =
            (3..122).filter(|at| said(*at, ["refused", "all down"][(at % 2) as usize]).is_some());
        assert_eq!(lines.collect::<Vec<_>>(), [32, 62, 92]);
        assert_eq!(said(200, "all down"), Some(29), "it had ended");
        assert_eq!(said(201, "refused"), Some(0));
    }
}
