//! The demo's pipeline: servers, bridge and reader, started concurrently where possible.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::banner::banner;
use super::broker::{Kafka, RunningBroker, TOPIC};
use super::error::DemoError;
use super::postgres::{DATABASE, Postgres};
use super::programs::Places;
use super::screen::Screen;
use super::{BridgeTask, Broker, Endpoints, Options};
use crate::tools::tail::{Follower, Start};

/// Longest wait for the bridge to stream.
const BRIDGE_START: Duration = Duration::from_secs(60);
/// Longest wait for the bridge to end once it is asked to.
const BRIDGE_END: Duration = Duration::from_secs(10);

type BridgeEnd = Result<Result<(), Box<dyn Error + Send + Sync>>, JoinError>;

/// All that runs. Fields are dropped in their order: readers before what they read from.
pub(super) struct Line {
    pub(super) bridge: Bridge,
    pub(super) follower: Follower,
    pub(super) client: Arc<Client>,
    postgres: Postgres,
    broker: RunningBroker,
    places: Places,
}

impl Line {
    pub(super) async fn set_up(
        options: &Options,
        screen: &mut Screen<'_>,
        start_bridge: impl FnOnce(Endpoints) -> BridgeTask,
    ) -> Result<Self, DemoError> {
        let places = Places::of_environment();
        if options.broker == Broker::Kafka && options.brokers.is_none() {
            screen.note("starting PostgreSQL and Apache Kafka, which takes some seconds\n")?;
        }
        let began = Instant::now();
        let database = async {
            let postgres = Postgres::start(&places).await?;
            let started = began.elapsed();
            let client = postgres.load().await?;
            tracing::debug!(?started, loaded = ?began.elapsed(), "postgres is ready");
            Ok::<_, DemoError>((postgres, client))
        };
        let broker = async {
            let broker = match (&options.brokers, options.broker) {
                (Some(brokers), _) => RunningBroker::Existing(brokers.clone()),
                (None, Broker::Embedded) => RunningBroker::embedded()?,
                (None, Broker::Kafka) => RunningBroker::Kafka(Kafka::start(&places).await?),
            };
            tracing::debug!(started = ?began.elapsed(), "broker is ready");
            Ok::<_, DemoError>(broker)
        };
        let ((postgres, client), broker) = tokio::try_join!(database, broker)?;

        let bridge = Bridge::start(&postgres, &broker, start_bridge).await?;
        tracing::debug!(streaming = ?began.elapsed(), "bridge is ready");
        let topics = [TOPIC.to_owned()];
        let follower = Follower::connect(&broker.brokers(), &topics, Start::End, &[]).await?;
        tracing::debug!(reading = ?began.elapsed(), "reader is ready");
        Ok(Self { bridge, follower, client: Arc::new(client), postgres, broker, places })
    }

    pub(super) fn banner(&self, endless: bool, took: Duration) -> String {
        banner(&self.postgres, &self.broker, &self.places, endless, took)
    }

    /// That one of the servers ended, once it did.
    pub(super) fn dead_server(&mut self) -> Option<DemoError> {
        self.postgres.ended().or_else(|| self.broker.ended())
    }
}

/// The bridge, which ends with this at the latest.
pub(super) struct Bridge {
    task: JoinHandle<Result<(), Box<dyn Error + Send + Sync>>>,
    stop: watch::Sender<bool>,
}

impl Bridge {
    /// Starts the bridge and waits until it streams.
    async fn start(
        postgres: &Postgres,
        broker: &RunningBroker,
        start_bridge: impl FnOnce(Endpoints) -> BridgeTask,
    ) -> Result<Self, DemoError> {
        let (ready, streams) = oneshot::channel();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(start_bridge(Endpoints {
            database_url: postgres.url(DATABASE),
            brokers: broker.brokers(),
            create_topics: broker.makes_topics(),
            ready,
            stop: stopped,
        }));
        let mut bridge = Self { task, stop };
        match timeout(BRIDGE_START, streams).await {
            Ok(Ok(())) => Ok(bridge),
            // It let go of `ready` without a word: it ended, or is about to.
            Ok(Err(_)) => {
                let end = (&mut bridge.task).await;
                Err(Self::failure(end).unwrap_or(DemoError::BridgeEnded))
            }
            Err(_) => Err(DemoError::BridgeNotReady { waited: BRIDGE_START }),
        }
    }

    /// Waits for the bridge to end, which it is not to do.
    pub(super) async fn ended(&mut self) -> DemoError {
        let end = (&mut self.task).await;
        Self::failure(end).unwrap_or(DemoError::BridgeEnded)
    }

    /// Lets the bridge publish what it has, and end. To be called once, while it runs.
    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        self.stop.send_replace(true);
        match timeout(BRIDGE_END, &mut self.task).await {
            Ok(end) => Self::failure(end).map_or(Ok(()), Err),
            Err(_) => {
                tracing::warn!(waited = ?BRIDGE_END, "bridge does not end; it is cut off");
                self.task.abort();
                Ok(())
            }
        }
    }

    fn failure(end: BridgeEnd) -> Option<DemoError> {
        match end {
            Ok(Ok(())) => None,
            Ok(Err(source)) => Some(DemoError::Bridge { source }),
            Err(source) => Some(DemoError::Task { task: "the bridge", source }),
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}
