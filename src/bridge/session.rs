//! One pass from the first connection to the end of the stream.
//!
//! 1. Kafka is contacted before anything is created in Postgres: a slot without a working reader
//!    would hold back the server's WAL.
//! 2. While another copy reads from the slot nothing is changed: see `standby`.
//! 3. With transactions, the producer takes over the transactional id before the checkpoint is
//!    read: from then on no other producer can write with it, so what is read is final. This fences
//!    the former holder, so the checkpoint's owner is checked before: a second pipeline of the same
//!    name ends itself, not the healthy one.
//! 4. Publication before slot: a slot created first would decode changes under a publication that
//!    did not exist for them, which is an error of the server.
//! 5. The stream is opened on the reader's thread, the worker runs on another; this task waits for
//!    whichever ends first.
//! 6. When asked to stop, the worker continues to the next commit, so that no transaction is sent
//!    twice; then the brokers get time to acknowledge, and the last position is confirmed to the
//!    server.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rdkafka::ClientConfig;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};

use super::ahead::Ahead;
use super::drain::{ActiveSession, Background, Cause, Publishing};
use super::initial_snapshot::First;
use super::lookup::{ServerLookup, TopicMaker};
use super::outlet::Outlet;
use super::renames::Guard;
use super::setup::Start;
use super::{Bridge, partitions, setup, told};
use crate::checkpoint::{Checkpoint, Ledger, SnapshotReason, Standing};
use crate::config::{SnapshotMode, exactly};
use crate::error::Error;
use crate::kafka::{Checkpoints, Producer, Topics, checkpoint_topic, compresses, record_limit};
use crate::lsn::Lsn;
use crate::pipeline::send::Out;
use crate::pipeline::{Ended, Oversize, Policy, Stop};
use crate::postgres::publication::TableName;
use crate::postgres::{
    Catalog, ChunkReceiver, ConnectOptions, ReplicationClient, StreamOptions, StreamPhase,
    Walsender, chunk_channel, spawn_reader,
};
use crate::snapshot::incremental::connections::Connections;
use crate::snapshot::incremental::coordinator::{Coordinator, Shared};
use crate::snapshot::incremental::orders::Outcome;
use crate::snapshot::{Command, Exchange, Request, Signals};
use crate::state::State;
use crate::worker::Worker;
use crate::{failpoint, metrics};

/// A session that is ready to publish.
struct Opened {
    active: ActiveSession,
    received: ChunkReceiver,
    catalog: Catalog,
    outlet: Outlet,
    start: Start,
    first: Option<First>,
    /// Whether this is the first session of this process that streams.
    is_first_stream: bool,
}

impl Bridge {
    /// Runs one session; `Ok` if it was asked to stop or has nothing more to do.
    pub(super) async fn session(
        &self,
        mut shutdown: watch::Receiver<bool>,
        streaming_since: &mut Option<Instant>,
    ) -> Result<(), Error> {
        let opened = tokio::select! {
            opened = Box::pin(self.open()) => opened?,
            // Nothing is in flight yet, so there is nothing to drain.
            () = told(&mut shutdown) => {
                self.end_slot_creation().await;
                return Ok(());
            }
        };
        *streaming_since = Some(Instant::now());
        let Some(opened) = self.first_snapshot(opened, &mut shutdown).await? else {
            return Ok(());
        };
        let Opened { mut active, received, catalog, outlet, start, .. } = opened;
        let (exchange, outcomes) = Exchange::new(self.settings.slot.clone());
        let exchange = Arc::new(exchange);
        let worker = self.worker(&active, catalog, &outlet, &start, &exchange);
        let worker = spawn_worker(worker, received)?;
        let coordinator = self.coordinator(&active, &start, (exchange, outcomes));
        let all_read = coordinator.all_read();
        // Takes snapshots for as long as the stream runs.
        active.coordinator =
            Some(Background(tokio::spawn(failpoint::within("coordinator", coordinator.run()))));
        let partitions = partitions::Watch::new(self, &start.checkpoint.snapshots);
        let _watching = Background(tokio::spawn(failpoint::within("partitions", partitions.run())));
        self.metrics.streaming.set(1);
        self.enter(State::Streaming);
        tracing::info!(
            slot = self.settings.slot,
            publication = self.settings.publication,
            from = %active.ledger.standing().confirmed,
            "streaming"
        );
        if start.checkpoint.snapshots.is_only {
            let checkpoint = start.checkpoint;
            return self.stream_until_read(active, worker, shutdown, all_read, checkpoint).await;
        }
        self.stream(active, worker, shutdown).await
    }

    /// Reads the rows that come before the stream, if any. Returns what the stream goes on with; none
    /// where nothing is to be streamed.
    async fn first_snapshot(
        &self,
        mut opened: Opened,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<Option<Opened>, Error> {
        let mode = self.settings.snapshot.mode;
        let Some(first) = opened.first.take() else {
            if opened.is_first_stream && mode == SnapshotMode::Always {
                let all = Request::new(vec!["*.*".to_owned()], None, SnapshotReason::First);
                self.control.ask(Command::Take(all));
            }
            return Ok(Some(opened));
        };
        let checkpointing = self.checkpointing(&opened.start);
        let Opened { active, outlet, .. } = &mut opened;
        let Some(checkpoint) =
            self.take_first(active, first, outlet, checkpointing, shutdown).await?
        else {
            return Ok(None);
        };
        if mode == SnapshotMode::Only {
            self.end_with_the_snapshot(opened.active, checkpoint).await?;
            return Ok(None);
        }
        opened.start.checkpoint = checkpoint;
        opened.start.is_new = false;
        Ok(Some(opened))
    }

    /// What turns the stream into records.
    fn worker(
        &self,
        active: &ActiveSession,
        catalog: Catalog,
        outlet: &Outlet,
        start: &Start,
        exchange: &Arc<Exchange>,
    ) -> Worker<Producer, ServerLookup> {
        let publisher = outlet.publisher(ServerLookup {
            settings: self.settings.clone(),
            second: Arc::clone(&self.second),
            described: HashSet::new(),
            runtime: tokio::runtime::Handle::current(),
            catalog,
            ahead: Ahead::default(),
            router: outlet.router.clone(),
            topics: Arc::clone(&outlet.topics),
            guard: Arc::clone(&outlet.guard),
            stop: Arc::clone(&active.stop),
        });
        let out = Out::new(
            Arc::clone(&active.producer),
            Arc::clone(&active.ledger),
            Arc::clone(&self.metrics),
            Arc::clone(&active.stop),
            self.checkpointing(start),
        );
        let signals = Signals {
            token: self.settings.signal_token.clone(),
            table: self.settings.signal_table.clone(),
            conditions: self.settings.signal_conditions,
            pipeline: self.settings.name.clone(),
        };
        Worker::new(publisher, out, start.last_commit_lsn).with_snapshots(
            Arc::clone(exchange),
            Arc::clone(&self.control),
            signals,
        )
    }

    /// What takes snapshots while the stream runs.
    fn coordinator(
        &self,
        active: &ActiveSession,
        start: &Start,
        heard: (Arc<Exchange>, UnboundedReceiver<Outcome>),
    ) -> Coordinator {
        Coordinator::new(
            self.settings.clone(),
            Connections::new(&self.conninfo, ConnectOptions::of(&self.settings)),
            Shared {
                published: Box::new(self.clone()),
                control: Arc::clone(&self.control),
                book: Arc::clone(&self.progress),
                metrics: Arc::clone(&self.metrics),
                left_out: Arc::clone(&self.left_out),
            },
            heard,
            active.ledger.subscribe(),
            &start.checkpoint.snapshots,
        )
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
        self.ask_for_rows(&start.added);
        ledger.start_at(start.checkpoint.progress);
        self.measure(&ledger);
        let stop = Arc::new(Stop::default());
        let mut catalog = Catalog::connect(&self.conninfo, &ConnectOptions::of(settings)).await?;
        let first = match start.export.take() {
            Some(export) => Some(self.plan_first(export, &mut catalog, &mut start, &stop).await?),
            None => None,
        };
        let outlet = self.outlet(&start, topics, &client_config, &stop);
        let (chunks, received) = chunk_channel(settings.memory.channel_bytes());
        let phase = watch::Sender::new(StreamPhase::Streaming);
        let (opened, open_result) = oneshot::channel();
        let opener = self.opener(start.lsn, opened);
        let is_first_stream = !self.has_streamed();
        // The reader returns a failure to open as its result.
        let mut reader = spawn_reader(opener, chunks, ledger.subscribe(), phase.subscribe())?;
        match open_result.await {
            Ok(walsender) => self.set_walsender(walsender),
            Err(_) => reader.join().await?,
        }
        let active = ActiveSession { ledger, producer, stop, phase, reader, coordinator: None };
        Ok(Opened { active, received, catalog, outlet, start, first, is_first_stream })
    }

    /// Has the rows of tables read that came to the publication at this start.
    fn ask_for_rows(&self, added: &[TableName]) {
        if added.is_empty() {
            return;
        }
        let names = added.iter().map(|table| exactly(&table.schema, &table.name)).collect();
        let request = Request::new(names, None, SnapshotReason::Added);
        self.rows_asked(added, &request.id);
        self.control.ask(Command::Take(request));
    }

    /// Has the metrics of what is in flight read from this ledger.
    fn measure(&self, ledger: &Arc<Ledger>) {
        let ledger = Arc::downgrade(ledger);
        self.metrics.follow(move || {
            let Standing { in_flight, confirmed, .. } = ledger.upgrade()?.standing();
            Some(metrics::Standing { in_flight, confirmed })
        });
    }

    /// What the publishers of this session share.
    fn outlet(
        &self,
        start: &Start,
        topics: Topics,
        client_config: &ClientConfig,
        stop: &Arc<Stop>,
    ) -> Outlet {
        let settings = &self.settings;
        let topics = TopicMaker {
            runtime: tokio::runtime::Handle::current(),
            topics,
            seen: Arc::clone(&self.topics_seen),
            stop: Arc::clone(stop),
            status: Arc::clone(&self.status),
        };
        let policy = Policy {
            skipped: settings.skipped.clone(),
            on_error: settings.errors.on_error,
            oversize: Oversize {
                action: settings.errors.on_oversize,
                client_limit: record_limit(client_config),
                is_compressed: compresses(client_config),
            },
            captured: start.captured.clone(),
            signals: settings.signal_table.clone(),
            left_out: Arc::clone(&self.left_out),
        };
        Outlet {
            settings: settings.clone(),
            database: self.conninfo.database().to_owned(),
            run_id: uuid::Uuid::now_v7().to_string(),
            policy,
            router: start.router.clone(),
            topics: Arc::new(Mutex::new(topics)),
            guard: Arc::new(Guard::new(self, stop)),
        }
    }

    /// Returns what opens the stream, on the reader's thread.
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
        mut active: ActiveSession,
        mut worker: Publishing<Ended>,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        let cause = match self.attend(&mut active, &mut worker, &mut shutdown).await {
            // Nothing more arrives because the reader has ended: its result says why.
            Cause::Worker(Ok(Ended::SourceClosed)) => Cause::Reader(active.reader.join().await),
            cause => cause,
        };
        self.metrics.streaming.set(0);
        self.drain(&mut active, &mut worker, cause).await
    }
}

fn spawn_worker(
    worker: Worker<Producer, ServerLookup>,
    mut received: crate::postgres::ChunkReceiver,
) -> Result<oneshot::Receiver<Result<Ended, Error>>, Error> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("worker".to_owned())
        .spawn(move || {
            // The receiver is gone once the bridge has ended.
            let _ = sender.send(worker.run(&mut received));
        })
        .map_err(|error| Error::Thread { thread: "worker", reason: error.to_string() })?;
    Ok(receiver)
}
