//! Reads the checkpoint at a start, and writes one where no row is sent: the worker writes the others.

use std::sync::Arc;
use std::time::Duration;

use super::setup::Start;
use super::{Bridge, StopOnDrop, resume_point};
use crate::checkpoint::{Checkpoint, Ledger};
use crate::config::{Delivery, OnGap};
use crate::error::Error;
use crate::kafka::{self, Checkpoints, Found, Producer, transaction_timeout};
use crate::pipeline::{self, Checkpointing, Mode, Stop};
use crate::postgres::ConnectOptions;

/// Longest wait for the brokers to initialise the transactional id, or to accept a first record.
const INIT: Duration = Duration::from_secs(30);

impl Bridge {
    /// The final statement of what is published.
    pub(super) async fn read_checkpoint(
        &self,
        producer: &Arc<Producer>,
        checkpoints: Checkpoints,
    ) -> Result<Found, Error> {
        let settings = &self.settings;
        let options = ConnectOptions::of(settings);
        let own = async |found: &Checkpoint| {
            resume_point::ensure_own(settings, &self.conninfo, &options, found).await
        };
        if settings.delivery == Delivery::ExactlyOnce {
            let glanced = checkpoints.clone();
            match blocking(move || glanced.glance()).await {
                Ok(Some(found)) => own(&found).await?,
                // It is ignored below.
                Err(error) if self.puts_aside(&error) => {}
                glanced => drop(glanced?),
            }
        }
        let takeover = Arc::clone(&self.taking_over).lock_owned().await;
        let (producer, all) = (Arc::clone(producer), checkpoints.clone());
        let read = move || {
            producer.init_transactions(INIT, takeover)?;
            all.read()
        };
        let found = match blocking(read).await {
            Err(error) if self.puts_aside(&error) => {
                tracing::warn!(
                    error = error.told(),
                    "accepted: removing the unreadable checkpoint; the stream continues from the \
                     slot's confirmed position, and what was published after that is published \
                     again"
                );
                checkpoints.remove_unreadable().await?;
                blocking(move || checkpoints.read()).await?
            }
            found => found?,
        };
        // A checkpoint of another cluster or database is handled by the decision later; nothing is
        // written before.
        let other = found.checkpoint.as_ref().filter(|of| of.source.slot != settings.slot);
        if let Some(other) = other {
            own(other).await?;
        }
        Ok(found)
    }

    /// Whether it is an unreadable checkpoint that may be removed.
    fn puts_aside(&self, error: &Error) -> bool {
        let is_unreadable = matches!(error, Error::Kafka(kafka::Error::CheckpointRecord { .. }));
        is_unreadable && self.settings.on_gap == OnGap::Accept
    }

    /// Writes a checkpoint before anything else is sent, and waits until it is durable.
    pub(super) async fn write_checkpoint(
        &self,
        producer: &Arc<Producer>,
        ledger: &Arc<Ledger>,
        checkpoint: Checkpoint,
    ) -> Result<(), Error> {
        let checkpointing = self.checkpointing_from(checkpoint, true);
        let (sink, ledger) = (Arc::clone(producer), Arc::clone(ledger));
        let (metrics, stop) = (Arc::clone(&self.metrics), Arc::new(Stop::default()));
        // The receiver may have stopped waiting.
        let _stop = StopOnDrop::new(&stop);
        let mut failure = producer.failure();
        let written = tokio::task::spawn_blocking(move || {
            pipeline::write_checkpoint(sink, ledger, metrics, stop, checkpointing)
        });
        tokio::select! {
            written = written => {
                let thread = "checkpoint";
                let failed = |error: tokio::task::JoinError| Error::Thread {
                    thread,
                    reason: error.to_string(),
                };
                written.map_err(failed)?.map(drop)
            }
            Ok(failed) = failure.wait_for(Option::is_some) => {
                // `wait_for` returned because there is one.
                failed.as_ref().map_or(Ok(()), |error| Err(Error::Delivery(Arc::clone(error))))
            }
            () = tokio::time::sleep(INIT) => {
                Err(kafka::Error::CheckpointUnwritten { after: INIT }.into())
            }
        }
    }

    /// The worker's checkpoint settings.
    pub(super) fn checkpointing(&self, start: &Start) -> Checkpointing {
        self.checkpointing_from(start.checkpoint.clone(), start.is_new)
    }

    fn checkpointing_from(&self, start: Checkpoint, is_new: bool) -> Checkpointing {
        let settings = &self.settings;
        let kafka = &settings.kafka;
        Checkpointing {
            topic: settings.topics.checkpoints.as_str().into(),
            pipeline: settings.name.clone(),
            start,
            is_new,
            mode: match settings.delivery {
                Delivery::AtLeastOnce => Mode::AtLeastOnce,
                Delivery::ExactlyOnce => Mode::ExactlyOnce {
                    commit_interval: kafka.commit_interval,
                    max_transaction_bytes: kafka.max_transaction_bytes,
                    timeout: transaction_timeout(settings),
                },
            },
            idle_limit: settings.status_interval,
            drain_limit: kafka.drain_timeout / 2,
        }
    }
}

/// Runs a blocking function that reads checkpoints.
///
/// # Errors
/// Its own; a panic in it.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, kafka::Error> + Send + 'static,
) -> Result<T, Error> {
    let thread = "checkpoint";
    let read = tokio::task::spawn_blocking(read).await;
    Ok(read.map_err(|error| Error::Thread { thread, reason: error.to_string() })??)
}
