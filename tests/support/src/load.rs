//! Writers that go on beside a test until it tells them to stop.
//!
//! What they write is the test's own; here is only that they all end, and that a writer's failure is
//! the test's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

/// Tells writers whether they are to go on.
#[derive(Debug, Clone, Default)]
pub struct GoOn(Arc<AtomicBool>);

impl GoOn {
    /// Whether nobody has told them to stop.
    pub fn is_wanted(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

/// Writers that go on until they are asked to stop.
#[derive(Debug, Default)]
pub struct Load {
    go_on: GoOn,
    writers: JoinSet<u64>,
}

impl Load {
    /// Starts a writer, which gives the number of transactions that were committed.
    pub fn add<W>(&mut self, writer: impl FnOnce(GoOn) -> W)
    where
        W: Future<Output = u64> + Send + 'static,
    {
        self.writers.spawn(writer(self.go_on.clone()));
    }

    /// Stops all, and gives the number of transactions that were committed.
    ///
    /// # Panics
    ///
    /// When a writer did.
    pub async fn stop(mut self) -> u64 {
        self.go_on.0.store(true, Ordering::Relaxed);
        let mut committed = 0;
        while let Some(writer) = self.writers.join_next().await {
            committed += writer.expect("a writer does not panic");
        }
        committed
    }
}
