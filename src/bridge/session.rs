//! One pass from the first connection to the end of the stream.
//!
//! 1. Kafka is reached before anything is made in Postgres: a slot that nobody drains would hold
//!    the server's WAL.
//! 2. While another reads from the slot nothing is touched: see `standby`.
//! 3. With transactions, the producer takes the transactional id over before the checkpoint is
//!    read: from then on nobody else can write under it, so what is read is the last word. Whoever had
//!    the id is fenced by that, so the checkpoint is looked at before, to see whose it is: a second
//!    pipeline of the same name ends itself, not the healthy one.
//! 4. Publication before slot: a slot made first would decode changes under a publication that
//!    did not exist for them, which the server refuses.
//! 5. The stream is opened on the reader's thread, the worker runs on another; this task waits for
//!    whichever ends first.
//! 6. Told to stop, the worker goes on to the next commit, so that no transaction is sent twice;
//!    then the brokers get their time to acknowledge, and the server hears the last position.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::ahead::Ahead;
use super::drain::{Beside, Cause, Line, Publishing};
use super::initial_snapshot::First;
use super::lookup::{ServerLookup, TopicMaker};
use super::outlet::Outlet;
use super::renames::Guard;
use super::setup::Start;
use super::{Bridge, StopOnDrop, partitions, resume_point, setup, told};
use crate::checkpoint::{Checkpoint, Ledger, SnapshotReason, Standing};
use crate::config::{Delivery, OnGap, SnapshotMode, exactly};
use crate::error::Error;
use crate::kafka::{
    self, Checkpoints, Found, Producer, Topics, checkpoint_topic, compresses, record_limit,
    transaction_timeout,
};
use crate::lsn::Lsn;
use crate::pipeline::{Checkpointing, Ended, Mode, Oversize, Policy, Stop};
use crate::postgres::{
    Catalog, ChunkReceiver, ConnectOptions, ReplicationClient, StreamOptions, StreamPhase,
    Walsender, chunk_channel, spawn_reader,
};
use crate::snapshot::incremental::coordinator::{Coordinator, Shared};
use crate::snapshot::incremental::source::Source;
use crate::snapshot::initial::Parts;
use crate::snapshot::{Command, Exchange, Request, Signals};
use crate::state::State;
use crate::worker::Worker;
use crate::{failpoint, metrics, pipeline};

/// Longest wait for the brokers to take the transactional id over, or a first record.
const INIT: Duration = Duration::from_secs(30);

/// A session that is ready to publish.
struct Opened {
    line: Line,
    received: ChunkReceiver,
    catalog: Catalog,
    outlet: Outlet,
    start: Start,
    first: Option<First>,
    /// Whether no session of this process came so far.
    is_first_stream: bool,
}

impl Bridge {
    /// Runs one session; `Ok` when it was asked to stop, or has nothing more to do.
    pub(super) async fn session(
        &self,
        mut shutdown: watch::Receiver<bool>,
        streaming_since: &mut Option<Instant>,
    ) -> Result<(), Error> {
        let opened = tokio::select! {
            opened = Box::pin(self.open()) => opened?,
            // Nothing flows yet, so there is nothing to drain.
            () = told(&mut shutdown) => {
                self.end_slot_creation().await;
                return Ok(());
            }
        };
        *streaming_since = Some(Instant::now());
        let Opened { mut line, received, catalog, outlet, mut start, first, is_first_stream } =
            opened;
        if first.is_none() && is_first_stream && self.settings.snapshot.mode == SnapshotMode::Always
        {
            let all = Request::new(vec!["*.*".to_owned()], None, SnapshotReason::First);
            self.control.ask(Command::Take(all));
        }
        if let Some(first) = first {
            let checkpointing = self.checkpointing(&start);
            let taken = self.take_first(line, first, &outlet, checkpointing, &mut shutdown).await?;
            let Some((left, checkpoint)) = taken else { return Ok(()) };
            if self.settings.snapshot.mode == SnapshotMode::Only {
                return self.end_with_the_snapshot(left, checkpoint).await;
            }
            line = left;
            start.checkpoint = checkpoint;
            start.is_new = false;
        }
        let lookup = ServerLookup {
            settings: self.settings.clone(),
            second: Arc::clone(&self.second),
            described: HashSet::new(),
            runtime: tokio::runtime::Handle::current(),
            catalog,
            ahead: Ahead::default(),
            router: outlet.router.clone(),
            topics: Arc::clone(&outlet.topics),
            guard: Arc::clone(&outlet.guard),
            stop: Arc::clone(&line.stop),
        };
        let Parts { lookup, router, encoder, policy } = outlet.parts(lookup);
        let worker = Worker::new(
            Arc::clone(&line.producer),
            lookup,
            router,
            encoder,
            policy,
            start.last_commit_lsn,
            self.checkpointing(&start),
            Arc::clone(&line.ledger),
            Arc::clone(&self.metrics),
            Arc::clone(&line.stop),
        );
        let (exchange, outcomes) = Exchange::new(self.settings.slot.clone());
        let exchange = Arc::new(exchange);
        let worker = worker.with_snapshots(
            Arc::clone(&exchange),
            Arc::clone(&self.control),
            Signals {
                token: self.settings.signal_token.clone(),
                table: self.settings.signal_table.clone(),
                conditions: self.settings.signal_conditions,
                pipeline: self.settings.name.clone(),
            },
        );
        let worker = spawn_worker(worker, received)?;
        let (heard, confirmed) = ((exchange, outcomes), line.ledger.subscribe());
        let coordinator = Coordinator::new(
            self.settings.clone(),
            Source::new(&self.conninfo, ConnectOptions::of(&self.settings)),
            Shared {
                published: Box::new(self.clone()),
                control: Arc::clone(&self.control),
                book: Arc::clone(&self.progress),
                metrics: Arc::clone(&self.metrics),
                left_out: Arc::clone(&self.left_out),
            },
            heard,
            confirmed,
            &start.checkpoint.snapshots,
        );
        let all_read = coordinator.all_read();
        // Takes snapshots for as long as the stream runs.
        line.beside =
            Some(Beside(tokio::spawn(failpoint::within("coordinator", coordinator.run()))));
        let partitions = partitions::Watch::new(self, &start.checkpoint.snapshots);
        let _watching = Beside(tokio::spawn(failpoint::within("partitions", partitions.run())));
        self.metrics.streaming.set(1);
        self.enter(State::Streaming);
        tracing::info!(
            slot = self.settings.slot,
            publication = self.settings.publication,
            from = %line.ledger.standing().confirmed,
            "streaming"
        );
        if start.checkpoint.snapshots.is_only {
            let checkpoint = start.checkpoint;
            return self.stream_until_read(line, worker, shutdown, all_read, checkpoint).await;
        }
        self.stream(line, worker, shutdown).await
    }

    async fn open(&self) -> Result<Opened, Error> {
        let settings = &self.settings;
        let client_config = self.producer_config().await?;
        let mut topics = Topics::new(client_config.clone(), &settings.topics);
        topics.reach().await?;
        self.known_topics().existing = Arc::new(topics.names().collect());
        self.await_slot().await?;
        topics.ensure_compacted(&checkpoint_topic(settings)).await?;
        let ledger = Arc::<Ledger>::default();
        let producer = Arc::new(Producer::new(
            &client_config,
            settings.memory.queue_bytes(),
            Arc::clone(&ledger),
            Arc::clone(&self.metrics),
        )?);
        let checkpoints = Checkpoints::new(&client_config, settings);
        let found = self.read_checkpoint(&producer, checkpoints).await?;
        let announce =
            async |intent: Checkpoint| self.write_checkpoint(&producer, &ledger, intent).await;
        self.remember(found.remembered);
        let mut start = setup::prepare(self, found.checkpoint.as_ref(), announce).await?;
        if !start.added.is_empty() {
            let added = start.added.iter();
            let names = added.map(|table| exactly(&table.schema, &table.name)).collect();
            let request = Request::new(names, None, SnapshotReason::Added);
            self.rows_asked(&start.added, &request.id);
            self.control.ask(Command::Take(request));
        }
        ledger.start_at(start.checkpoint.progress);
        self.metrics.follow({
            let ledger = Arc::downgrade(&ledger);
            move || {
                let Standing { in_flight, confirmed, .. } = ledger.upgrade()?.standing();
                Some(metrics::Standing { in_flight, confirmed })
            }
        });
        let stop = Arc::new(Stop::default());
        let mut catalog = Catalog::connect(&self.conninfo, &ConnectOptions::of(settings)).await?;
        let first = match start.export.take() {
            Some(export) => Some(self.plan_first(export, &mut catalog, &mut start, &stop).await?),
            None => None,
        };
        let topics = TopicMaker {
            runtime: tokio::runtime::Handle::current(),
            topics,
            seen: Arc::clone(&self.topics_seen),
            stop: Arc::clone(&stop),
            status: Arc::clone(&self.status),
        };
        let outlet = Outlet {
            settings: settings.clone(),
            database: self.conninfo.database().to_owned(),
            run_id: uuid::Uuid::now_v7().to_string(),
            policy: Policy {
                skipped: settings.skipped.clone(),
                on_error: settings.errors.on_error,
                oversize: Oversize {
                    action: settings.errors.on_oversize,
                    client_limit: record_limit(&client_config),
                    is_compressed: compresses(&client_config),
                },
                captured: start.captured.clone(),
                signals: settings.signal_table.clone(),
                left_out: Arc::clone(&self.left_out),
            },
            router: start.router.clone(),
            topics: Arc::new(Mutex::new(topics)),
            guard: Arc::new(Guard::new(self, &stop)),
        };
        let (chunks, received) = chunk_channel(settings.memory.channel_bytes());
        let phase = watch::Sender::new(StreamPhase::Streaming);
        let (opened, open_result) = oneshot::channel();
        let opener = self.opener(start.lsn, opened);
        let is_first_stream = !self.has_streamed();
        // The reader reports a failure to open as its own result.
        let mut reader = spawn_reader(opener, chunks, ledger.subscribe(), phase.subscribe())?;
        match open_result.await {
            Ok(walsender) => self.set_walsender(walsender),
            Err(_) => reader.join().await?,
        }
        let line = Line { ledger, producer, stop, phase, reader, beside: None };
        Ok(Opened { line, received, catalog, outlet, start, first, is_first_stream })
    }

    /// The last word on what is published.
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
                // It is put aside below.
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
                    "accepted: it is removed, and the stream goes on where the slot is confirmed; what \
                     was published since comes again"
                );
                checkpoints.remove_unreadable().await?;
                blocking(move || checkpoints.read()).await?
            }
            found => found?,
        };
        // Of another cluster or database the decision speaks later; nothing is written before.
        let other = found.checkpoint.as_ref().filter(|of| of.source.slot != settings.slot);
        if let Some(other) = other {
            own(other).await?;
        }
        Ok(found)
    }

    /// Whether it is a checkpoint that can't be read, which nobody needs any more.
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
        // Who no longer waits for it does not want it either.
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
                // wait_for returned because there is one.
                failed.as_ref().map_or(Ok(()), |error| Err(Error::Delivery(Arc::clone(error))))
            }
            () = tokio::time::sleep(INIT) => {
                Err(kafka::Error::CheckpointUnwritten { after: INIT }.into())
            }
        }
    }

    /// How the worker is to say how far it is.
    fn checkpointing(&self, start: &Start) -> Checkpointing {
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

    /// Opens the stream, on the reader's thread.
    fn opener(
        &self,
        start: Lsn,
        opened: oneshot::Sender<Option<Walsender>>,
    ) -> impl AsyncFnOnce() -> Result<crate::postgres::ReplicationStream, crate::postgres::Error>
    + Send
    + 'static {
        let conninfo = self.conninfo.clone();
        let options = ConnectOptions::of(&self.settings);
        let slot = self.settings.slot.clone();
        let mut publications = vec![self.settings.publication.clone()];
        if self.second.is_named() {
            publications.push(self.settings.inserts_publication.clone());
        }
        let silent_after = self.settings.watchdog.server_silent_after;
        async move || {
            let client = ReplicationClient::connect(&conninfo, &options).await?;
            let stream_options = StreamOptions { publications, messages: true, silent_after };
            let stream = client.start_replication(&slot, start, &stream_options).await?;
            // The session may have been asked to stop meanwhile.
            let _ = opened.send(stream.walsender().cloned());
            Ok(stream)
        }
    }

    pub(super) async fn stream(
        &self,
        mut line: Line,
        mut worker: Publishing<Ended>,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let cause = match self.attend(&mut line, &mut worker, &mut shutdown).await {
            // Nothing more comes because the reader has ended: it knows why.
            Cause::Worker(Ok(Ended::SourceClosed)) => Cause::Reader(line.reader.join().await),
            cause => cause,
        };
        self.metrics.streaming.set(0);
        self.drain(&mut line, &mut worker, cause).await
    }
}

/// Runs what blocks.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, kafka::Error> + Send + 'static,
) -> Result<T, Error> {
    let thread = "checkpoint";
    let read = tokio::task::spawn_blocking(read).await;
    Ok(read.map_err(|error| Error::Thread { thread, reason: error.to_string() })??)
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
