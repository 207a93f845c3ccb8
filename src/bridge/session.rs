//! One pass from the first connection to the end of the stream.
//!
//! 1. Kafka is reached before anything is made in Postgres: a slot that nobody drains would hold
//!    the server's WAL.
//! 2. While another reads from the slot nothing is touched: see `standby`.
//! 3. With transactions, the producer takes the transactional id over before the checkpoint is
//!    read: from then on nobody else can write under it, so what is read is the last word.
//! 4. Publication before slot: a slot made first would decode changes under a publication that
//!    did not exist for them, which the server refuses.
//! 5. The stream is opened on the reader's thread, the worker runs on another; this task waits for
//!    whichever ends first.
//! 6. Told to stop, the worker goes on to the next commit, so that no transaction is sent twice;
//!    then the brokers get their time to acknowledge, and the server hears the last position.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::lookup::ServerLookup;
use super::setup::Start;
use super::snapshot::Coordinator;
use super::{Bridge, setup, told};
use crate::admin::State;
use crate::checkpoint::{Checkpoint, Ledger, SnapshotReason};
use crate::config::{Delivery, exactly};
use crate::encode::{EncodeOptions, Encoder, SourceIdentity, ValueRules};
use crate::error::Error;
use crate::kafka::{
    Checkpoints, Producer, Topics, checkpoint_topic, client_config, compresses, record_limit,
};
use crate::lsn::Lsn;
use crate::postgres::{
    Catalog, ReaderHandle, ReplicationClient, StreamOptions, StreamPhase, Walsender, chunk_channel,
    spawn_reader,
};
use crate::route::Router;
use crate::snapshot::{Command, Exchange, Request};
use crate::worker::{Checkpointing, Ended, Mode, Oversize, Policy, Stop, Worker};

/// Longest wait for the brokers to take the transactional id over, or to abort a transaction.
const INIT: Duration = Duration::from_secs(30);
const ABORT: Duration = Duration::from_secs(2);

/// What runs while rows flow.
struct Running {
    ledger: Arc<Ledger>,
    producer: Arc<Producer>,
    stop: Arc<Stop>,
    phase: watch::Sender<StreamPhase>,
    reader: ReaderHandle,
    worker: oneshot::Receiver<Result<Ended, Error>>,
    /// Takes snapshots beside the stream, for as long as it is held.
    _snapshots: Beside,
}

/// A task that ends when this is dropped.
struct Beside(JoinHandle<()>);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What ended the streaming.
enum Cause {
    Told,
    Reader(Result<(), crate::postgres::Error>),
    Worker(Result<Ended, Error>),
    Delivery(Error),
}

impl Bridge {
    /// Runs one session; `Ok` when it was told to stop.
    pub(super) async fn session(
        &self,
        mut shutdown: watch::Receiver<bool>,
        streaming_since: &mut Option<Instant>,
    ) -> Result<(), Error> {
        let running = tokio::select! {
            running = self.start() => running?,
            // Nothing flows yet, so there is nothing to drain.
            () = told(&mut shutdown) => {
                self.end_slot_creation().await;
                return Ok(());
            }
        };
        *streaming_since = Some(Instant::now());
        self.metrics.streaming.set(1);
        self.enter(State::Streaming);
        tracing::info!(
            slot = self.settings.slot,
            publication = self.settings.publication,
            from = %running.ledger.standing().confirmed,
            "streaming"
        );
        self.stream(running, shutdown).await
    }

    async fn start(&self) -> Result<Running, Error> {
        let settings = &self.settings;
        let client_config = client_config(settings)?;
        let mut topics = Topics::new(client_config.clone(), &settings.topics);
        topics.reach().await?;
        self.await_slot().await?;
        topics.ensure_compacted(&checkpoint_topic(settings)).await?;
        let (ledger, metrics) = (Arc::<Ledger>::default(), Arc::clone(&self.metrics));
        let producer = Arc::new(Producer::new(
            &client_config,
            settings.memory.queue_bytes(),
            Arc::clone(&ledger),
            Arc::clone(&metrics),
        )?);
        let found = read_checkpoint(&producer, Checkpoints::new(&client_config, settings)).await?;
        let start = setup::prepare(self, found.as_ref()).await?;
        let checkpointing = self.checkpointing(&start);
        let Start { lsn: start, checkpoint, last_commit_lsn, captured, added, .. } = start;
        if !added.is_empty() {
            let names = added.iter().map(|table| exactly(&table.schema, &table.name)).collect();
            let request = Request::new(names, None, SnapshotReason::Added);
            self.control.ask(Command::Take(request));
        }
        ledger.start_at(checkpoint.progress);
        let stands = Arc::clone(&checkpoint.snapshots);
        let (exchange, outcomes) = Exchange::new(settings.slot.clone());
        let exchange = Arc::new(exchange);
        let stop = Arc::new(Stop::default());
        let (chunks, received) = chunk_channel(settings.memory.channel_bytes());
        let phase = watch::Sender::new(StreamPhase::Streaming);
        let lookup = ServerLookup {
            settings: settings.clone(),
            described: HashSet::new(),
            runtime: tokio::runtime::Handle::current(),
            catalog: Catalog::connect(&self.conninfo, &setup::connect_options(settings)).await?,
            topics,
            topics_seen: Arc::clone(&self.topics_seen),
            stop: Arc::clone(&stop),
        };
        let encoder = Encoder::new(&EncodeOptions {
            format: &settings.format,
            source: SourceIdentity {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                name: settings.prefix.clone(),
                database: self.conninfo.database().to_owned(),
                run_id: uuid::Uuid::now_v7().to_string(),
            },
        })
        .with_rules(ValueRules::new(settings));
        let worker = Worker::new(
            Arc::clone(&producer),
            lookup,
            Router::new(settings, self.conninfo.database()),
            encoder,
            Policy {
                skipped: settings.skipped.clone(),
                on_error: settings.errors.on_error,
                oversize: Oversize {
                    action: settings.errors.on_oversize,
                    client_limit: record_limit(&client_config),
                    is_compressed: compresses(&client_config),
                },
                captured,
            },
            last_commit_lsn,
            checkpointing,
            Arc::clone(&ledger),
            metrics,
            Arc::clone(&stop),
        )
        .with_snapshots(Arc::clone(&exchange), Arc::clone(&self.control));
        let (opened, open_result) = oneshot::channel();
        let reader = spawn_reader(
            self.opener(start, opened),
            chunks,
            ledger.subscribe(),
            phase.subscribe(),
        )?;
        // The reader reports a failure to open as its own result.
        let mut reader = reader;
        match open_result.await {
            Ok(walsender) => self.set_walsender(walsender),
            Err(_) => reader.join().await?,
        }
        let worker = spawn_worker(worker, received)?;
        let heard = (exchange, outcomes);
        let coordinator = Coordinator::new(self, heard, ledger.subscribe(), &stands);
        let _snapshots = Beside(tokio::spawn(coordinator.run()));
        Ok(Running { ledger, producer, stop, phase, reader, worker, _snapshots })
    }

    /// How the worker is to say how far it is.
    fn checkpointing(&self, start: &Start) -> Checkpointing {
        let settings = &self.settings;
        let kafka = &settings.kafka;
        Checkpointing {
            topic: settings.topics.checkpoints.as_str().into(),
            pipeline: settings.name.clone(),
            start: start.checkpoint.clone(),
            is_new: start.is_new,
            mode: match settings.delivery {
                Delivery::AtLeastOnce => Mode::AtLeastOnce,
                Delivery::ExactlyOnce => Mode::ExactlyOnce {
                    commit_interval: kafka.commit_interval,
                    max_transaction_bytes: kafka.max_transaction_bytes,
                },
            },
            idle_limit: settings.status_interval,
            drain_limit: kafka.drain_timeout / 2,
        }
    }

    /// Opens the stream, on the reader's thread.
    fn opener(
        &self,
        start: Lsn,
        opened: oneshot::Sender<Option<Walsender>>,
    ) -> impl AsyncFnOnce() -> Result<crate::postgres::ReplicationStream, crate::postgres::Error>
    + Send
    + 'static {
        let conninfo = self.conninfo.clone();
        let options = setup::connect_options(&self.settings);
        let slot = self.settings.slot.clone();
        let publications = vec![self.settings.publication.clone()];
        let silent_after = self.settings.watchdog.server_silent_after;
        async move || {
            let client = ReplicationClient::connect(&conninfo, &options).await?;
            let stream_options = StreamOptions { publications, messages: true, silent_after };
            let stream = client.start_replication(&slot, start, &stream_options).await?;
            // The session may have been told to stop meanwhile.
            let _ = opened.send(stream.walsender().cloned());
            Ok(stream)
        }
    }

    async fn stream(
        &self,
        mut running: Running,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let mut failure = running.producer.failure();
        let mut confirmed = running.ledger.subscribe();
        let ledger = Arc::clone(&running.ledger);
        let mut watch = std::pin::pin!(self.watch(&ledger));
        let cause = loop {
            tokio::select! {
                biased;
                Ok(failed) = failure.wait_for(Option::is_some) => {
                    // wait_for returned because there is one.
                    if let Some(error) = failed.as_ref() {
                        break Cause::Delivery(Error::Delivery(Arc::clone(error)));
                    }
                }
                result = &mut running.worker => break Cause::Worker(worker_result(result)),
                result = running.reader.join() => break Cause::Reader(result),
                () = told(&mut shutdown) => break Cause::Told,
                Ok(()) = confirmed.changed() => {
                    confirmed.mark_unchanged();
                    self.observe_standing(&running.ledger);
                }
                error = &mut watch => break Cause::Delivery(error),
            }
        };
        self.forget_stalled();
        let cause = match cause {
            // Nothing more comes because the reader has ended: it knows why.
            Cause::Worker(Ok(Ended::SourceClosed)) => Cause::Reader(running.reader.join().await),
            cause => cause,
        };
        self.metrics.streaming.set(0);
        self.enter(State::Draining);
        let outcome = self.drain(&mut running, cause).await;
        self.observe_standing(&running.ledger);
        outcome
    }

    /// Brings what is in flight to its end, as far as that can be, and confirms it.
    async fn drain(&self, running: &mut Running, cause: Cause) -> Result<(), Error> {
        let limit = self.settings.kafka.drain_timeout;
        let started = Instant::now();
        let error = match cause {
            Cause::Told => {
                tracing::info!("told to stop: draining");
                running.finish_transaction(limit / 2).await
            }
            Cause::Delivery(error) => {
                running.stop.now();
                Some(error)
            }
            Cause::Worker(result) => result.err(),
            Cause::Reader(result) => {
                // Without a stream there is no commit to wait for.
                running.stop.now();
                Some(match result {
                    Ok(()) => crate::postgres::Error::Closed.into(),
                    Err(error) => error.into(),
                })
            }
        };
        // The reader drops its end of the channel, and the worker that waits on it ends.
        running.phase.send_replace(StreamPhase::Draining);
        running.join_worker().await;
        let left = limit.saturating_sub(started.elapsed());
        let producer = Arc::clone(&running.producer);
        let flushed = tokio::task::spawn_blocking(move || {
            let flushed = producer.flush(left);
            producer.abort(ABORT);
            flushed
        });
        let flushed = flushed.await;
        let standing = running.ledger.standing();
        if !flushed.unwrap_or(false) {
            tracing::warn!(
                in_flight = standing.in_flight,
                limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                "the brokers did not acknowledge everything in time; it will be published again"
            );
        }
        running.phase.send_replace(StreamPhase::Finished);
        if let Err(error) = running.reader.join().await {
            tracing::debug!(error = crate::error::told(&error), "the stream ended");
        }
        tracing::info!(confirmed = %standing.confirmed, "stream ended");
        error.map_or(Ok(()), Err)
    }

    fn observe_standing(&self, ledger: &Ledger) {
        let standing = ledger.standing();
        self.metrics.in_flight.set(standing.in_flight);
        self.metrics.confirmed_lsn.set(standing.confirmed.as_u64());
    }
}

impl Running {
    /// Lets the worker go on to the next commit. A transaction that is longer than `limit` is cut;
    /// it will be published again from its start.
    async fn finish_transaction(&mut self, limit: Duration) -> Option<Error> {
        self.stop.at_commit();
        if self.ledger.in_transaction() {
            match tokio::time::timeout(limit, &mut self.worker).await {
                Ok(result) => return worker_result(result).err(),
                Err(_) => tracing::warn!("the open transaction is too long to be finished now"),
            }
        }
        self.stop.now();
        None
    }

    /// Waits for the worker, which was told to end, unless it has ended already.
    async fn join_worker(&mut self) {
        if !self.worker.is_terminated()
            && let Err(error) = worker_result((&mut self.worker).await)
        {
            tracing::debug!(error = error.told(), "the worker ended");
        }
    }
}

/// The last word on what is published.
async fn read_checkpoint(
    producer: &Arc<Producer>,
    checkpoints: Checkpoints,
) -> Result<Option<Checkpoint>, Error> {
    let producer = Arc::clone(producer);
    let read = tokio::task::spawn_blocking(move || {
        producer.init_transactions(INIT)?;
        checkpoints.read()
    });
    let thread = "checkpoint";
    let read = read.await.map_err(|error| Error::Thread { thread, reason: error.to_string() })?;
    Ok(read?)
}

fn worker_result(
    result: Result<Result<Ended, Error>, oneshot::error::RecvError>,
) -> Result<Ended, Error> {
    result.unwrap_or_else(|_| {
        Err(Error::Thread { thread: "worker", reason: "it ended without a result".to_owned() })
    })
}

fn spawn_worker(
    worker: Worker<Producer, ServerLookup>,
    mut received: crate::postgres::ChunkReceiver,
) -> Result<oneshot::Receiver<Result<Ended, Error>>, Error> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("worker".to_owned())
        .spawn(move || {
            // Nobody listens once the bridge is gone.
            let _ = sender.send(worker.run(&mut received));
        })
        .map_err(|error| Error::Thread { thread: "worker", reason: error.to_string() })?;
    Ok(receiver)
}
