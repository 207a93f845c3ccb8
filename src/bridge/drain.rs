//! Drains a session: waits for the threads of a stream or a snapshot, finishes what is in flight,
//! and confirms it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::{Bridge, told};
use crate::checkpoint::Ledger;
use crate::error::Error;
use crate::failpoint;
use crate::kafka::Producer;
use crate::pipeline::Stop;
use crate::postgres::{ReaderHandle, StreamPhase};
use crate::state::State;

/// Longest wait for the brokers to abort a transaction.
const ABORT: Duration = Duration::from_secs(2);

/// Longest wait, after `kafka.drain_timeout`, for a thread that was asked to end.
const GRACE: Duration = Duration::from_secs(2);

/// Longest wait for the server to end the stream; the reader gives up earlier on its own.
const CLOSE: Duration = Duration::from_secs(8);

/// A task that ends when this is dropped.
pub(super) struct Background(pub(super) JoinHandle<()>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The threads and tasks of a running stream. Dropping it ends them all.
pub(super) struct ActiveSession {
    pub(super) ledger: Arc<Ledger>,
    pub(super) producer: Arc<Producer>,
    pub(super) stop: Arc<Stop>,
    pub(super) phase: watch::Sender<StreamPhase>,
    pub(super) reader: ReaderHandle,
    /// The task that takes snapshots while the stream runs.
    pub(super) coordinator: Option<Background>,
}

impl Drop for ActiveSession {
    fn drop(&mut self) {
        // No one waits for the worker any more, so it must not wait either.
        self.stop.now();
    }
}

/// The result of a thread that publishes rows.
pub(super) type Publishing<T> = oneshot::Receiver<Result<T, Error>>;

/// What ended the publishing.
pub(super) enum Cause<T> {
    Told,
    Reader(Result<(), crate::postgres::Error>),
    Worker(Result<T, Error>),
    Delivery(Error),
    /// A part of the bridge that runs next to the stream has failed or can't continue.
    Concurrent(Error),
}

impl Bridge {
    /// Waits until the publishing ends or has to end.
    pub(super) async fn attend<T>(
        &self,
        active: &mut ActiveSession,
        worker: &mut Publishing<T>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Cause<T> {
        let mut failure = active.producer.failure();
        let (ledger, producer) = (Arc::clone(&active.ledger), Arc::clone(&active.producer));
        let mut watch = std::pin::pin!(self.watch(&ledger, &producer));
        let cause = loop {
            tokio::select! {
                biased;
                Ok(failed) = failure.wait_for(Option::is_some) => {
                    // `wait_for` returned because there is one.
                    if let Some(error) = failed.as_ref() {
                        break Cause::Delivery(Error::Delivery(Arc::clone(error)));
                    }
                }
                result = &mut *worker => break Cause::Worker(worker_result(result)),
                result = active.reader.join() => break Cause::Reader(result),
                error = panicked(&mut active.coordinator) => break Cause::Concurrent(error),
                () = told(shutdown) => break Cause::Told,
                error = &mut watch => break Cause::Concurrent(error),
            }
        };
        self.forget_stalled();
        cause
    }

    /// Finishes what is in flight, as far as possible, and confirms it.
    pub(super) async fn drain<T>(
        &self,
        active: &mut ActiveSession,
        worker: &mut Publishing<T>,
        cause: Cause<T>,
    ) -> Result<(), Error> {
        self.enter(State::Draining);
        let limit = self.settings.kafka.drain_timeout;
        let started = Instant::now();
        let error = match cause {
            Cause::Told => {
                tracing::info!("asked to stop: draining");
                active.finish_transaction(worker, limit / 2).await
            }
            Cause::Delivery(error) | Cause::Concurrent(error) => {
                active.stop.now();
                Some(error)
            }
            Cause::Worker(result) => result.err(),
            Cause::Reader(result) => {
                // Without a stream there is no commit to wait for.
                active.stop.now();
                Some(match result {
                    Ok(()) => crate::postgres::Error::Closed.into(),
                    Err(error) => error.into(),
                })
            }
        };
        // The reader drops its end of the channel, and the worker that waits on it ends.
        active.phase.send_replace(StreamPhase::Draining);
        let left = || limit.saturating_sub(started.elapsed());
        if tokio::time::timeout(left() + GRACE, join_worker(worker)).await.is_err() {
            tracing::error!(
                "the worker does not end; what it has not published will be published again"
            );
        }
        let left = left();
        let producer = Arc::clone(&active.producer);
        let flushed = tokio::task::spawn_blocking(move || {
            failpoint::reach("flush");
            let flushed = producer.flush(left);
            producer.abort(ABORT);
            flushed
        });
        let flushed = tokio::time::timeout(left + ABORT + GRACE, flushed).await;
        let standing = active.ledger.standing();
        if !matches!(flushed, Ok(Ok(true))) {
            tracing::warn!(
                in_flight = standing.in_flight,
                limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                "the brokers did not acknowledge everything in time; it will be published again"
            );
        }
        active.close().await;
        tracing::info!(confirmed = %standing.confirmed, "stream ended");
        // The session's ledger ends with it.
        self.metrics.refresh();
        error.map_or(Ok(()), Err)
    }
}

impl ActiveSession {
    /// Ends the stream.
    pub(super) async fn close(&mut self) {
        self.phase.send_replace(StreamPhase::Finished);
        match tokio::time::timeout(CLOSE, self.reader.join()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = crate::error::told(&error), "the stream ended");
            }
            Err(_) => {
                tracing::warn!("the reader does not end; its connection is left to the server")
            }
        }
    }

    /// Lets the worker continue to the next commit. A transaction that takes longer than `limit` is
    /// cut off; it will be published again from its start.
    async fn finish_transaction<T>(
        &mut self,
        worker: &mut Publishing<T>,
        limit: Duration,
    ) -> Option<Error> {
        self.stop.at_commit();
        if self.ledger.in_transaction() {
            match tokio::time::timeout(limit, worker).await {
                Ok(result) => return worker_result(result).err(),
                Err(_) => tracing::warn!(
                    "the open transaction is too long to finish; it will be published again from \
                     its start"
                ),
            }
        }
        self.stop.now();
        None
    }
}

/// Completes if the task panicked, which nothing else would notice.
async fn panicked(coordinator: &mut Option<Background>) -> Error {
    if let Some(Background(task)) = coordinator
        && !task.is_finished()
        && let Err(ended) = task.await
        && ended.is_panic()
    {
        return Error::Thread { thread: "snapshot", reason: "it ended in a panic".to_owned() };
    }
    std::future::pending().await
}

/// Waits for the worker, which was asked to end, unless it has ended already.
async fn join_worker<T>(worker: &mut Publishing<T>) {
    if !worker.is_terminated()
        && let Err(error) = worker_result(worker.await)
    {
        tracing::debug!(error = error.told(), "the worker ended");
    }
}

fn worker_result<T>(
    result: Result<Result<T, Error>, oneshot::error::RecvError>,
) -> Result<T, Error> {
    result.unwrap_or_else(|_| {
        Err(Error::Thread { thread: "worker", reason: "it ended without a result".to_owned() })
    })
}
