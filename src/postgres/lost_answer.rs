//! Detects a query whose answer was lost.
//!
//! A query may take long for a good reason: a table is locked for a migration. But if a proxy or a
//! broken network lost it, or its answer, the connection remains open, its bytes are acknowledged,
//! and the answer never arrives; no keepalive distinguishes the two cases. The server can: queried
//! on another connection, it reports whether this session is active. If the session waits for us
//! while we wait for it, a message was lost.
//!
//! Not here: the replication connection, on which a healthy server is never silent for long.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How long an answer may take before the server is queried about it.
    pub(super) unanswered: Duration,
    /// Time between two checks.
    pub(super) look: Duration,
    /// Time for an answer that was in transit during the check.
    pub(super) grace: Duration,
}

/// Much longer than the catalog takes on a busy machine.
pub(super) const PATIENCE: Patience = Patience {
    unanswered: Duration::from_secs(10),
    look: Duration::from_secs(2),
    grace: Duration::from_secs(1),
};

/// When the last unanswered query was sent.
#[derive(Debug, Default)]
pub(super) struct Question {
    asked: Mutex<Option<Instant>>,
}

impl Question {
    /// Bytes were sent.
    pub(super) fn sent(&self) {
        self.asked().get_or_insert_with(Instant::now);
    }

    /// Bytes arrived, and more are expected.
    pub(super) fn heard_and_waiting(&self) {
        *self.asked() = Some(Instant::now());
    }

    /// Bytes arrived.
    pub(super) fn heard(&self) {
        *self.asked() = None;
    }

    /// Since when it is unanswered.
    fn open_since(&self) -> Option<Instant> {
        *self.asked()
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // Nothing panics while it is held.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns once a query is unanswered for too long and `is_worked_on` is false.
pub(super) async fn lost<Answer: Future<Output = bool>>(
    question: &Question,
    patience: Patience,
    is_worked_on: impl Fn() -> Answer,
) {
    loop {
        tokio::time::sleep(patience.look).await;
        let Some(since) = question.open_since() else { continue };
        if since.elapsed() < patience.unanswered || is_worked_on().await {
            continue;
        }
        tokio::time::sleep(patience.grace).await;
        if question.open_since() == Some(since) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use super::*;

    const SHORT: Patience = Patience {
        unanswered: Duration::from_millis(20),
        look: Duration::from_millis(1),
        grace: Duration::from_millis(5),
    };

    #[tokio::test]
    async fn a_question_that_is_worked_on_is_waited_for_and_one_that_is_not_is_lost() {
        let question = Question::default();
        let asked = Cell::new(0);
        question.sent();
        let started = Instant::now();
        let worked_on = || {
            asked.set(asked.get() + 1);
            ready(asked.get() < 5)
        };
        lost(&question, SHORT, worked_on).await;
        assert_eq!(asked.get(), 5);
        assert!(started.elapsed() >= SHORT.unanswered + SHORT.grace);
    }

    #[tokio::test]
    async fn an_answer_that_comes_while_the_server_is_asked_is_in_time() {
        let question = Question::default();
        let asked = Cell::new(0);
        question.sent();
        let answered = || {
            asked.set(asked.get() + 1);
            question.heard();
            ready(false)
        };
        let waiting = lost(&question, SHORT, answered);
        let ended = tokio::time::timeout(20 * SHORT.unanswered, waiting).await;
        assert!(ended.is_err(), "the answer arrived");
        assert_eq!(asked.get(), 1);
    }
}
