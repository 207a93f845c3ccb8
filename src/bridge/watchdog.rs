//! Detects a pipeline that makes no progress although every connection seems well.
//!
//! | stalled | symptom | action |
//! |---|---|---|
//! | source | the server has new WAL, and none of it was processed | reported |
//! | kafka | records or a commit wait, and nothing is acknowledged | reported |
//! | kafka | records wait, and the client can reach no broker | reported, at once |
//! | the producer | the same, although the brokers have answered a new client for half of that time | the session ends, and a new one begins |
//! | the connection | no byte arrived, although the server was asked to reply | the session ends, and a new one begins; see `postgres::stream` |
//!
//! To report means: `/readyz` turns 503 with the reason, `rowcast_stalled` is set, and the log has
//! one warning, one line each half minute while Kafka accepts nothing, and one when it is over.
//! Nothing is restarted for these: both act as back-pressure on the stage before, lose nothing, and
//! end without intervention. A client with a dead connection, or one that got stuck after all
//! brokers were unavailable, may not recover: it is replaced. (In rare cases librdkafka never sends
//! again to a partition that was once reported to have no leader: confluentinc/librdkafka#5430.)
//!
//! A first snapshot may have no row for a long time, because its conditions may exclude all of
//! them, and the stream waits for it on purpose: so the source is not judged then. The snapshot's
//! connections check themselves whether the server is working: see `postgres::copy`.
//!
//! A healthy pipeline costs nothing: the end of the server's WAL is queried only if nothing was
//! processed for half of the limit. A page of WAL more than was processed may be the beginning of
//! an incomplete record, or a small commit that is held back. Then the watchdog commits an empty
//! logical message itself: if that does not arrive either, it is a stall.

mod outage;

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use self::outage::Outage;
use super::{Bridge, fresh_client_config};
use crate::checkpoint::{Ledger, Standing};
use crate::config::Watchdog;
use crate::error::Error;
use crate::kafka::{self, Producer};
use crate::lsn::Lsn;
use crate::postgres;
use crate::postgres::ConnectOptions;
use crate::state::{Stall, State};

/// If records wait for this long while no broker can be reached, it is more than a leader election.
const CUT_OFF: Duration = Duration::from_secs(2);

/// Longest wait for the end of the WAL; without a response there is no verdict.
const ANSWER: Duration = Duration::from_secs(5);

/// Bytes of WAL that a server may have flushed of an incomplete record: a page.
const WAL_PAGE_BYTES: u64 = 8192;

/// More bytes than this between two checks are more than keepalives.
const KEEPALIVES_BYTES: u64 = 4096;

/// A stage that can stall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Source,
    Kafka,
}

impl Stage {
    const ALL: [Self; 2] = [Self::Source, Self::Kafka];

    const fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Kafka => "kafka",
        }
    }
}

/// One observation.
#[derive(Debug, Clone, Copy, Default)]
struct Sight {
    /// The last position processed.
    received: Lsn,
    /// Row changes processed, and rows of snapshots.
    changes: u64,
    /// Bytes processed, keepalives too.
    bytes: u64,
    /// Records that wait for their acknowledgement.
    in_flight: u64,
    /// Whether a checkpoint waits for its acknowledgement, or for the commit that it is part of.
    is_checkpoint_due: bool,
    /// Records acknowledged, and checkpoints that became durable.
    acked: u64,
    /// Whether no broker can be reached.
    is_cut_off: bool,
    /// Whether the stream waits for the rows of a first snapshot.
    is_snapshot: bool,
}

/// The last observation, and since when it has not changed.
#[derive(Debug)]
struct Watch {
    limits: Watchdog,
    last: Sight,
    /// When something was last processed or there was nothing to process.
    processed_at: Instant,
    /// The last known end of the server's WAL, and when it was read.
    wal_end: Option<(Lsn, Instant)>,
    /// When a record was last acknowledged or none waited.
    acked_at: Instant,
    /// When the brokers answered another client during the current stall.
    answered_at: Option<Instant>,
}

impl Watch {
    fn new(limits: Watchdog, now: Instant) -> Self {
        let last = Sight::default();
        Self { limits, last, processed_at: now, wal_end: None, acked_at: now, answered_at: None }
    }

    /// Time between two checks.
    fn interval(&self) -> Duration {
        let limit = self.limits.source_stalled_after.min(self.limits.kafka_stalled_after);
        (limit / 4).clamp(Duration::from_millis(25), Duration::from_secs(1))
    }

    /// Records an observation.
    fn look(&mut self, now: Instant, sight: Sight) {
        let last = std::mem::replace(&mut self.last, sight);
        let is_processing = sight.is_snapshot
            || sight.received != last.received
            || sight.changes != last.changes
            || sight.bytes.saturating_sub(last.bytes) > KEEPALIVES_BYTES;
        if is_processing {
            self.processed_at = now;
            self.wal_end = None;
        }
        let is_waiting = sight.in_flight > 0 || sight.is_checkpoint_due;
        if !is_waiting || sight.acked != last.acked {
            self.acked_at = now;
            self.answered_at = None;
        }
    }

    /// Whether to check that the brokers respond at all.
    fn wants_answer(&self, now: Instant) -> bool {
        let half = self.limits.kafka_stalled_after / 2;
        self.answered_at.is_none() && now.duration_since(self.acked_at) >= half
    }

    /// Whether the brokers respond although no waiting record has reached them since.
    fn is_producer_stuck(&self, now: Instant) -> bool {
        let limit = self.limits.kafka_stalled_after;
        // Both are long enough for a healthy client to have sent something.
        now.duration_since(self.acked_at) >= limit
            && self.answered_at.is_some_and(|answered| now.duration_since(answered) >= limit / 2)
    }

    /// Whether to query the end of the server's WAL.
    fn wants_wal_end(&self, now: Instant) -> bool {
        let half = self.limits.source_stalled_after / 2;
        self.wal_end.is_none() && now.duration_since(self.processed_at) >= half
    }

    /// Records the end of the server's WAL. Returns whether it is unclear if there is something to
    /// process: then only a commit of our own counts, see [`probed`](Self::probed).
    fn set_wal_end(&mut self, now: Instant, end: Lsn) -> bool {
        let unread = end.as_u64().saturating_sub(self.last.received.as_u64());
        if unread > WAL_PAGE_BYTES {
            self.wal_end = Some((end, now));
        } else {
            self.processed_at = now;
        }
        (1..=WAL_PAGE_BYTES).contains(&unread)
    }

    /// Records a commit of our own, which ends at this position.
    fn probed(&mut self, now: Instant, end: Lsn) {
        if end > self.last.received {
            self.wal_end = Some((end, now));
        }
    }

    /// The stalled stage. Kafka comes first: while it is stalled, the source is stalled too.
    fn stalled(&self, now: Instant) -> Option<(Stage, String)> {
        let unacked = now.duration_since(self.acked_at);
        if unacked >= self.limits.kafka_stalled_after {
            let (records, limit) = (self.last.in_flight, told(self.limits.kafka_stalled_after));
            let reason = match records {
                0 => format!("kafka has not accepted the checkpoint for {limit}"),
                _ => {
                    format!("kafka has acknowledged none of {records} waiting records for {limit}")
                }
            };
            return Some((Stage::Kafka, reason));
        }
        if self.last.is_cut_off && unacked >= CUT_OFF {
            let records = self.last.in_flight;
            let reason = format!("no broker can be reached, and {records} records wait for one");
            return Some((Stage::Kafka, reason));
        }
        let (end, asked_at) = self.wal_end?;
        let limit = self.limits.source_stalled_after;
        // Half of the limit had passed before the server was queried.
        (now.duration_since(asked_at) >= limit / 2).then(|| {
            let (received, limit) = (self.last.received, told(limit));
            let reason = format!(
                "the server's WAL reaches {end}, and nothing after {received} was processed for \
                 {limit}"
            );
            (Stage::Source, reason)
        })
    }
}

/// The reason with its cause, if known.
fn because(reason: String, standbys: Option<String>) -> String {
    match standbys {
        Some(names) => format!(
            "{reason}: the server holds commits back for the slots of standbys that are not \
             connected ({names}): start them, or remove them from synchronized_standby_slots"
        ),
        None => reason,
    }
}

/// Logs the line that an outage has each half minute.
fn tell_outage(last: &Sight, wal: String) {
    let (waiting, folded) = (last.in_flight, kafka::folded());
    tracing::warn!(
        waiting,
        folded,
        "kafka still accepts nothing: records wait in rowcast, and later changes in the \
         database; nothing is lost; {wal}"
    );
}

fn told(limit: Duration) -> String {
    humantime::format_duration(limit).to_string()
}

impl Bridge {
    /// Watches one session until dropped; returns if the session must end.
    pub(super) async fn watch(&self, ledger: &Ledger, producer: &Producer) -> Error {
        crate::failpoint::reach("watchdog");
        self.set_stalled(None);
        let mut watch = Watch::new(self.settings.watchdog.clone(), Instant::now());
        let mut client = None;
        let mut present: Option<Stage> = None;
        let mut outage = Outage::default();
        let mut asked = None;
        loop {
            tokio::time::sleep(watch.interval()).await;
            let standing = ledger.standing();
            watch.look(Instant::now(), self.sight(standing, producer));
            if watch.wants_wal_end(Instant::now())
                && let Some(end) = self.wal_end(&mut client).await
                && watch.set_wal_end(Instant::now(), end)
                && let Some(end) = self.probe(&mut client).await
            {
                watch.probed(Instant::now(), end);
            }
            let stalled = watch.stalled(Instant::now());
            let stage = stalled.as_ref().map(|(stage, _)| *stage);
            if stage != present {
                present = stage;
                let standbys = match stage {
                    Some(Stage::Source) => self.missing_standbys(&mut client).await,
                    _ => None,
                };
                self.tell_stalled(
                    stalled.map(|(stage, reason)| (stage, because(reason, standbys))),
                );
            }
            match present {
                Some(Stage::Kafka) if outage.lasts(Instant::now()) => {
                    let end = self.wal_end(&mut client).await;
                    let confirmed = standing.confirmed.as_u64();
                    let held = end.map(|end| end.as_u64().saturating_sub(confirmed));
                    tell_outage(&watch.last, outage.wal(held));
                }
                Some(Stage::Kafka) => {}
                _ => outage.ends(),
            }
            if watch.is_producer_stuck(Instant::now()) {
                return kafka::Error::Stuck { records: watch.last.in_flight }.into();
            }
            asked = match asked {
                _ if !watch.wants_answer(Instant::now()) => None,
                None => Some(self.ask_brokers()),
                Some(answer) if !answer.is_finished() => Some(answer),
                Some(answer) => {
                    watch.answered_at = answer.await.unwrap_or(false).then(Instant::now);
                    None
                }
            };
        }
    }

    fn sight(&self, standing: Standing, producer: &Producer) -> Sight {
        let metrics = &self.metrics;
        Sight {
            received: Lsn::from(metrics.received_lsn.get()),
            changes: metrics.changes.get() + metrics.snapshot_rows.get(),
            bytes: metrics.received_bytes.get(),
            in_flight: standing.in_flight,
            is_checkpoint_due: standing.is_checkpoint_due,
            acked: metrics.records_acked.get() + standing.checkpoints,
            is_cut_off: producer.is_cut_off(),
            is_snapshot: self.status.borrow().state == State::Snapshot,
        }
    }

    /// Checks on another task whether a broker answers a new client, because that takes seconds if
    /// none does.
    fn ask_brokers(&self) -> JoinHandle<bool> {
        let settings = self.settings.clone();
        tokio::spawn(async move {
            let Ok(config) = fresh_client_config(&settings).await else { return false };
            kafka::answers(&config).await.is_ok()
        })
    }

    /// Reports what is stalled, or that nothing is any more.
    fn tell_stalled(&self, stalled: Option<(Stage, String)>) {
        match &stalled {
            Some((stage, reason)) => tracing::warn!(stage = stage.word(), "stalled: {reason}"),
            None => tracing::info!("no longer stalled"),
        }
        self.set_stalled(stalled);
    }

    /// Clears the reported stall, because its session has ended.
    pub(super) fn forget_stalled(&self) {
        self.set_stalled(None);
    }

    fn set_stalled(&self, stalled: Option<(Stage, String)>) {
        for stage in Stage::ALL {
            let is_it = stalled.as_ref().is_some_and(|(stalled, _)| *stalled == stage);
            self.metrics.set_stalled(stage.word(), is_it);
        }
        let stalled =
            stalled.map(|(stage, reason)| Stall { stage: stage.word().to_owned(), reason });
        self.status.send_modify(|status| status.stalled = stalled);
    }

    /// The end of the server's WAL; `None` if the server does not respond in time.
    async fn wal_end(&self, client: &mut Option<Client>) -> Option<Lsn> {
        self.ask(client, async |client| postgres::client::wal_end(client).await).await
    }

    /// The end of the server's WAL after an empty commit of our own.
    async fn probe(&self, client: &mut Option<Client>) -> Option<Lsn> {
        self.ask(client, async |client| {
            postgres::client::probe(client).await?;
            postgres::client::wal_end(client).await
        })
        .await
    }

    /// The standbys that the server waits for before it sends a commit, and that are not connected.
    async fn missing_standbys(&self, client: &mut Option<Client>) -> Option<String> {
        let standbys = async |client: &Client| postgres::client::missing_standbys(client).await;
        self.ask(client, standbys).await.filter(|names| !names.is_empty())
    }

    /// A query's result; `None` if the server does not respond in time.
    async fn ask<T>(
        &self,
        client: &mut Option<Client>,
        question: impl AsyncFnOnce(&Client) -> Result<T, postgres::Error>,
    ) -> Option<T> {
        let asked = async {
            if client.as_ref().is_none_or(Client::is_closed) {
                let options = ConnectOptions::of(&self.settings);
                *client = Some(postgres::client::connect(&self.conninfo, &options).await?);
            }
            let Some(client) = client else { return Ok(None) };
            question(client).await.map(Some)
        };
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::debug!(error = crate::error::told(&error), "the watchdog's query failed");
                None
            }
            Err(_) => {
                *client = None;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
