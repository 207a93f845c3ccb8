//! Keeps a read from holding up everything else: a pause or a stop interrupts it, and a user's
//! condition that runs while the stream waits has a time limit.
//!
//! Only the server's working time counts. Rows that wait for Kafka do not count, as they would with
//! a `statement_timeout`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::task::Failure;
use crate::postgres::Error;
use crate::snapshot::Control;

/// Interrupts one read.
pub(super) struct Interrupt {
    control: Arc<Control>,
    limit: Option<Duration>,
    used: Duration,
}

impl Interrupt {
    /// For a read without a time limit.
    pub(super) const fn by_commands(control: Arc<Control>) -> Self {
        Self { control, limit: None, used: Duration::ZERO }
    }

    /// For a read whose work on the server may take `limit` in total.
    pub(super) const fn after(control: Arc<Control>, limit: Option<Duration>) -> Self {
        Self { control, limit, used: Duration::ZERO }
    }

    /// Waits for a response of the server. The session must not be used after an error.
    pub(super) async fn wait<T>(
        &mut self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let Some(limit) = self.limit else { return self.race(answer).await };
        let started = Instant::now();
        let left = limit.saturating_sub(self.used);
        let answered = tokio::time::timeout(left, self.race(answer)).await;
        self.used += started.elapsed();
        answered.unwrap_or_else(|_| {
            Err(Failure::Never(format!(
                "its condition took longer than snapshot.condition_timeout ({limit:?}), and the \
                 stream of all tables waits for it because the table has no key: make it cheaper, \
                 or raise snapshot.condition_timeout"
            )))
        })
    }

    /// Waits for something other than the server.
    pub(super) async fn race<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure>
    where
        Failure: From<E>,
    {
        tokio::select! {
            biased;
            () = self.control.interrupted() => Err(Failure::Interrupted),
            done = work => Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Command;

    async fn lasting(time: Duration) -> Result<(), Error> {
        tokio::time::sleep(time).await;
        Ok(())
    }

    #[tokio::test]
    async fn the_time_of_all_answers_counts_together() {
        let limit = Some(Duration::from_millis(300));
        let mut interrupt = Interrupt::after(Arc::default(), limit);
        assert!(interrupt.wait(lasting(Duration::from_millis(50))).await.is_ok());
        let ended = interrupt.wait(lasting(Duration::from_mins(1))).await;
        assert!(matches!(ended, Err(Failure::Never(reason)) if reason.contains("(300ms)")));
        let ended = interrupt.wait(lasting(Duration::from_millis(50))).await;
        assert!(matches!(ended, Err(Failure::Never(_))), "nothing is left");
    }

    #[tokio::test]
    async fn a_stop_interrupts_and_a_request_does_not() {
        let control = Arc::<Control>::default();
        let mut interrupt = Interrupt::by_commands(Arc::clone(&control));
        control.ask(Command::Admit { tables: vec![1] });
        control.ask(Command::Resume { id: "a".to_owned() });
        assert!(interrupt.wait(lasting(Duration::ZERO)).await.is_ok());
        let stop = async { control.ask(Command::Stop { id: "a".to_owned() }) };
        let (ended, ()) = tokio::join!(interrupt.wait(lasting(Duration::from_mins(1))), stop);
        assert!(matches!(ended, Err(Failure::Interrupted)));
    }
}
