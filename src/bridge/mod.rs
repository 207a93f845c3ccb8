//! Builds the stages and connects them; the only place that knows all of them.
//!
//! ```text
//!   Preflight -> Streaming -> Draining -> Stopped
//!    ^  ^            |
//!    |  +- Backoff <-+        a temporary failure; any other ends the bridge
//!    v
//!   Standby                   another copy reads from the slot: waiting until it is free
//! ```
//!
//! In each state the slot is guarded (`slot_guard`) and tables are checked (`discovery`). After a
//! configuration reload (`reload`) the session drains as at the end, and the next one begins with
//! the new settings.
//!
//! A session is one pass from Preflight to the end of its streaming (`session`). What a failed
//! session had published and not yet confirmed is published again by the next.

mod ahead;
mod batches;
mod check;
mod checkpointing;
mod discovery;
mod drain;
mod failover;
mod first_start;
mod initial_snapshot;
mod limits;
mod lookup;
mod outlet;
mod partitions;
mod preconditions;
mod recurring;
mod reload;
mod renames;
mod resume_point;
mod second;
mod session;
mod setup;
mod signal_table;
mod slot_creation;
mod slot_guard;
mod snapshot_requests;
mod standby;
mod teardown;
mod topics;
mod watchdog;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use self::first_start::CreatedSlot;
use self::recurring::Recurring;
pub use self::reload::Reload;
use self::reload::{Configured, Run};
use self::second::Second;
pub use self::teardown::{Outcome, Scope, Step, Teardown, teardown};
use crate::admin::Observed;
use crate::backoff::Backoff;
use crate::config::resolved::world_readable;
use crate::config::{Config, Resolved, Warning};
use crate::error::{Error, Severity};
use crate::metrics::Metrics;
use crate::pipeline::Stop;
use crate::postgres::{self, ConnInfo, Walsender};
use crate::snapshot::Control;
use crate::snapshot::progress::Book;
use crate::state::{LeftOutList, State, Status};
use crate::{failpoint, kafka};

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A session that streamed this long was healthy: the next failure is a new one.
const HEALTHY: Duration = Duration::from_secs(60);

/// How long a password change may take to reach both sides.
const ROTATION: Duration = Duration::from_secs(300);

/// The bridge from one database to one Kafka cluster. Clones share it.
#[derive(Clone)]
pub struct Bridge {
    settings: Resolved,
    conninfo: ConnInfo,
    /// The configuration of the next session.
    configured: Arc<watch::Sender<Arc<Configured>>>,
    status: Arc<watch::Sender<Status>>,
    metrics: Arc<Metrics>,
    /// Progress of snapshots, over all sessions.
    progress: Arc<Book>,
    /// The server process of the last stream, or that creates a slot.
    walsender: Arc<Mutex<Option<Walsender>>>,
    has_streamed: Arc<AtomicBool>,
    /// Whether the walsender is creating a slot.
    is_making_slot: Arc<AtomicBool>,
    /// The topics that were ensured.
    topics_seen: Arc<Mutex<HashSet<Arc<str>>>>,
    control: Arc<Control>,
    /// The tables that are left out.
    left_out: Arc<LeftOutList>,
    topics_known: Arc<Mutex<topics::Known>>,
    /// The slot that a start of this process created, until that start has failed.
    created: Arc<Mutex<Option<CreatedSlot>>>,
    /// Whether the stream names the publication for inserts.
    second: Arc<Second>,
    /// Whether this process has set up the publications, so that they are maintained in each state.
    guards: Arc<AtomicBool>,
    /// Held while publications are planned and altered; counts how often that was done. Its holder
    /// never waits for Kafka, nor long for a lock.
    altering: Arc<tokio::sync::Mutex<u64>>,
    /// Held while a producer takes over the transactional id.
    taking_over: Arc<tokio::sync::Mutex<()>>,
    /// What was logged about the signal table.
    signals_found: Arc<Mutex<signal_table::Found>>,
    /// What is known of tables, by OID.
    known: renames::Shared,
    /// Whether the server reported missing WAL that the slot needs, whatever the slot's status.
    is_wal_lost: Arc<AtomicBool>,
    /// The largest batch that the brokers accept, once they refused one; zero before.
    batch_limit: Arc<AtomicUsize>,
}

impl Bridge {
    /// Resolves the configuration; does not connect to a server.
    ///
    /// # Errors
    /// When the connection string or the configuration can't be used.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let (settings, conninfo) = settle(config)?;
        let status = Status {
            name: settings.name.clone(),
            database: conninfo.database().to_owned(),
            slot: settings.slot.clone(),
            publication: settings.publication.clone(),
            ..Status::default()
        };
        let status = Arc::new(watch::Sender::new(status));
        let configured = Configured {
            config: config.clone(),
            settings: settings.clone(),
            conninfo: conninfo.clone(),
        };
        let metrics = Arc::new(Metrics::default());
        let progress = Arc::new(Book::new(Arc::clone(&metrics)));
        let left_out = Arc::new(LeftOutList::new(Arc::clone(&metrics)));
        Ok(Self {
            progress,
            settings,
            conninfo,
            configured: Arc::new(watch::Sender::new(Arc::new(configured))),
            status,
            metrics,
            walsender: Arc::default(),
            has_streamed: Arc::default(),
            is_making_slot: Arc::default(),
            topics_seen: Arc::default(),
            control: Arc::default(),
            left_out,
            topics_known: Arc::default(),
            created: Arc::default(),
            second: Arc::default(),
            guards: Arc::default(),
            altering: Arc::default(),
            taking_over: Arc::default(),
            signals_found: Arc::default(),
            known: Arc::default(),
            is_wal_lost: Arc::default(),
            batch_limit: Arc::default(),
        })
    }

    /// The bridge's status, metrics and progress, now and later.
    #[must_use]
    pub fn observe(&self) -> Observed {
        Observed {
            status: self.status.subscribe(),
            metrics: Arc::clone(&self.metrics),
            progress: Arc::clone(&self.progress),
            left_out: Arc::clone(&self.left_out),
        }
    }

    /// Where snapshots are requested.
    #[must_use]
    pub fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control)
    }

    /// The resolved configuration.
    #[must_use]
    pub const fn settings(&self) -> &Resolved {
        &self.settings
    }

    /// How long a session may take to end on request, by the current configuration.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.configured.borrow().settings.kafka.drain_timeout
    }

    /// Streams until `shutdown` turns true, then drains and confirms. Dropping the future stops the
    /// bridge without draining: its threads end, and the next run publishes again what was not
    /// confirmed.
    ///
    /// # Errors
    /// A failure that a retry does not fix.
    pub async fn run(&self, shutdown: watch::Receiver<bool>) -> Result<(), Error> {
        // The future holds a clone of the bridge, which is large.
        let run = Box::pin(self.run_reloading(shutdown));
        let outcome = failpoint::within("bridge", run).await;
        self.enter(State::Stopped);
        outcome
    }

    /// Streams with the current configuration until `shutdown` turns true or there is `another`
    /// configuration.
    async fn run_configured(
        &self,
        mut shutdown: watch::Receiver<bool>,
        another: impl Future<Output = ()>,
    ) -> Result<Run, Error> {
        for warning in &self.settings.warnings {
            warn(warning);
        }
        // Another configuration may name other publications.
        self.set_guards(false);
        let stop = watch::Sender::new(false);
        let mut sessions = std::pin::pin!(self.sessions(stop.subscribe()));
        let overrun = tokio::select! {
            outcome = &mut sessions => return outcome.map(|()| Run::Stopped),
            overrun = self.guard_slot() => overrun,
            never = Box::pin(self.discover()) => match never {},
            never = Box::pin(self.watch_failover_slot()) => match never {},
            () = told(&mut shutdown) => {
                stop.send_replace(true);
                return sessions.await.map(|()| Run::Stopped);
            }
            () = another => {
                stop.send_replace(true);
                let ended = sessions.await;
                if *shutdown.borrow() {
                    return ended.map(|()| Run::Stopped);
                }
                reload::session_ended(ended)?;
                return Ok(Run::Reconfigured);
            }
        };
        stop.send_replace(true);
        if tokio::time::timeout(slot_guard::SESSION_END, sessions).await.is_err() {
            tracing::warn!("the session does not end; dropping the slot anyway");
        }
        Err(self.give_up_slot(overrun).await)
    }

    /// Runs one session after the other.
    async fn sessions(&self, mut shutdown: watch::Receiver<bool>) -> Result<(), Error> {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let (mut refused_since, mut recurring) = (None, Recurring::default());
        loop {
            self.enter(State::Preflight);
            let mut streaming_since = None;
            let ended = Box::pin(self.session(shutdown.clone(), &mut streaming_since)).await;
            self.metrics.streaming.set(0);
            let error = match ended {
                Ok(()) => break,
                Err(error) => self.with_rights(recurring.note(error, Instant::now())).await,
            };
            self.note_lost_wal(&error);
            if self.second.was_missing(&error, &self.settings.inserts_publication)
                && !*shutdown.borrow()
            {
                tracing::info!(
                    publication = self.settings.inserts_publication,
                    "the publication did not exist yet at this point of the WAL: opening the \
                     stream again without it"
                );
                continue;
            }
            if is_held(&error) && !*shutdown.borrow() {
                // Another copy was faster. The next session waits for it.
                tokio::select! {
                    () = tokio::time::sleep(standby::POLL) => continue,
                    () = told(&mut shutdown) => break,
                }
            }
            self.status.send_modify(|status| status.failure = Some(error.failure()));
            let may_pass = error.severity() == Severity::Retry
                || self.makes_smaller_batches(&error).await
                || self.login_may_pass(&error, streaming_since, &mut refused_since);
            if !may_pass {
                self.take_back_slot(&error).await;
                return Err(error);
            }
            if *shutdown.borrow() {
                return Err(error);
            }
            if streaming_since.is_some_and(|since: Instant| since.elapsed() >= HEALTHY) {
                backoff.reset();
            }
            let wait = backoff.next_wait();
            tracing::warn!(
                error = error.told(),
                fix = error.fix(),
                tries = backoff.tries(),
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "trying again"
            );
            self.metrics.retries.inc();
            self.enter(State::Backoff);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = told(&mut shutdown) => break,
            }
        }
        Ok(())
    }

    /// Adds all permissions that the brokers have to grant if they refuse one.
    async fn with_rights(&self, error: Error) -> Error {
        // The user name may come from a file.
        let fresh = self.settings.with_fresh_properties().await;
        let settings = fresh.unwrap_or_else(|_| self.settings.clone());
        error.with_rights(&settings, self.conninfo.database())
    }

    /// Whether a refused login may be due to a password change in progress: the password is read
    /// again for every session, and the server may have the new one before or after us.
    fn login_may_pass(
        &self,
        error: &Error,
        streaming_since: Option<Instant>,
        refused_since: &mut Option<Instant>,
    ) -> bool {
        let settings = &self.settings;
        let is_read_anew =
            self.conninfo.rereads_password() || !settings.property_sources.is_empty();
        // At the first login the password is wrong.
        let has_logged_in = streaming_since.is_some() || self.has_streamed();
        if !error.is_refused_login() || !is_read_anew || !has_logged_in {
            return false;
        }
        if streaming_since.is_some() {
            *refused_since = None;
        }
        refused_since.get_or_insert_with(Instant::now).elapsed() < ROTATION
    }

    /// Sets whether the publications are maintained in each state from now on.
    fn set_guards(&self, guards: bool) {
        self.guards.store(guards, Ordering::Release);
        // Wakes those who wait for a state.
        self.status.send_modify(|_| {});
    }

    /// Notes that the server lacks WAL that the slot needs, so that the next session treats the
    /// slot as lost: the slot's own status does not show a segment that was removed by hand.
    fn note_lost_wal(&self, error: &Error) {
        if matches!(error, Error::Postgres(postgres::Error::WalRemoved { .. })) {
            self.is_wal_lost.store(true, Ordering::Release);
        }
    }

    fn stand_by(&self, reason: String) {
        self.set_guards(false);
        self.enter(State::Standby);
        self.status.send_modify(|status| status.reason = Some(reason));
    }

    /// Takes the server process of the last stream, or one that creates a slot.
    fn take_walsender(&self) -> Option<Walsender> {
        self.walsender.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a session of this process has read from the slot.
    fn has_streamed(&self) -> bool {
        self.has_streamed.load(Ordering::Acquire)
    }

    fn set_walsender(&self, walsender: Option<Walsender>) {
        self.has_streamed.store(true, Ordering::Release);
        self.keep_walsender(walsender);
    }

    fn keep_walsender(&self, walsender: Option<Walsender>) {
        *self.walsender.lock().unwrap_or_else(PoisonError::into_inner) = walsender;
    }

    fn enter(&self, state: State) {
        self.metrics.standby.set(u64::from(state == State::Standby));
        self.status.send_if_modified(|status| {
            let changed = status.state != state;
            status.state = state;
            status.reason = None;
            if state == State::Streaming {
                status.failure = None;
            }
            changed
        });
    }
}

/// Whether another copy took the slot between the check and the start of the stream.
const fn is_held(error: &Error) -> bool {
    matches!(error, Error::Postgres(postgres::Error::SlotActive { .. }))
}

/// Requests a stop when dropped, because no one waits any more.
struct StopOnDrop(Option<Arc<Stop>>);

impl StopOnDrop {
    fn new(stop: &Arc<Stop>) -> Self {
        Self(Some(Arc::clone(stop)))
    }

    /// It has ended; no stop is needed.
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(stop) = &self.0 {
            stop.now();
        }
    }
}

/// Completes once the receiver's value is true; never if its sender is gone.
async fn told(shutdown: &mut watch::Receiver<bool>) {
    if shutdown.wait_for(|told| *told).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves the configuration and its connection string, which depend on each other.
fn settle(config: &Config) -> Result<(Resolved, ConnInfo), Error> {
    let url = config.postgres.url.as_ref().map_or("", |url| url.expose());
    let mut conninfo = ConnInfo::parse(url, &|name| std::env::var(name).ok())?;
    let mut settings = config.resolve(conninfo.database())?;
    if let Some(password) = &settings.password {
        conninfo.set_password_source(password.clone());
    }
    if let Some(certificate) = &conninfo.client_certificate {
        settings.warnings.extend(world_readable("sslkey", &certificate.key));
    }
    Ok((settings, conninfo))
}

/// The client's settings, with the current secrets from files and commands.
async fn fresh_client_config(settings: &Resolved) -> Result<kafka::ClientConfig, Error> {
    Ok(kafka::client_config(&settings.with_fresh_properties().await?)?)
}

fn warn(warning: &Warning) {
    tracing::warn!("{warning}");
}
