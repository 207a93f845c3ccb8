//! Watches what the slot holds back, so that a bridge that makes no progress never stops the database.
//!
//! A slot keeps WAL until it was published. While Kafka is unavailable that grows, until the server
//! invalidates the slot or the disk is full. The guard checks every ten seconds, on a connection of
//! its own and independently of the sessions: during backoffs too, because that is when it grows.
//! It reports by metrics, status and warnings. Above `postgres.slot_wal_limit`, if that is set, it
//! ends the session, drops the slot and ends the bridge with an error of its own kind.
//!
//! Must hold: without that setting it changes nothing. It never drops a slot that another copy
//! reads from.

pub(crate) mod concern;
pub(crate) mod trend;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use self::concern::{Concern, Teller, judge};
use self::trend::Trend;
use super::Bridge;
use crate::config::Size;
use crate::error::Error;
use crate::postgres::{self, ConnectOptions, Retention, client, slot};
use crate::state::{SlotRoom, SlotWal, State};

/// Time between two checks.
const INTERVAL: Duration = Duration::from_secs(10);

/// Longest wait for one response of the server.
const ANSWER: Duration = Duration::from_secs(10);

/// Longest wait for a session to end before the slot is dropped anyway.
pub(super) const SESSION_END: Duration = Duration::from_secs(15);

/// Longest wait for the server to release the slot.
const RELEASE: Duration = Duration::from_secs(30);

/// Time between two tries to drop a slot that is still read from.
const RETRY: Duration = Duration::from_millis(200);

/// The slot holds more than its limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overrun {
    retained_bytes: u64,
    limit: Size,
}

impl Bridge {
    /// Checks periodically; returns only when the slot has to be dropped.
    pub(super) async fn guard_slot(&self) -> Overrun {
        crate::failpoint::reach("guard");
        let started = Instant::now();
        let (mut trend, mut teller) = (Trend::default(), Teller::default());
        let mut connected = None;
        loop {
            let looked = tokio::time::timeout(ANSWER, self.look(&mut connected)).await;
            match looked {
                Ok(Ok(Some(retention))) => {
                    trend.look(started.elapsed(), retention.retained_bytes);
                    let wal = self.observe_slot(&retention, &trend);
                    let concern = judge(wal.retained_bytes, &wal.status, &wal.room);
                    if teller.is_due(started.elapsed(), concern) {
                        warn(&self.settings.slot, concern, &wal);
                    }
                    if let Some(overrun) = self.overrun(&retention) {
                        return overrun;
                    }
                }
                Ok(Ok(None)) => {
                    trend.forget();
                    self.forget_slot();
                }
                // The session has the same problem, and reports it.
                Ok(Err(error)) => {
                    connected = None;
                    tracing::debug!(error = crate::error::told(&error), "checking the slot");
                }
                Err(_) => connected = None,
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn look(
        &self,
        connected: &mut Option<Client>,
    ) -> Result<Option<Retention>, postgres::Error> {
        let client = match connected.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => client::connect(&self.conninfo, &ConnectOptions::of(&self.settings)).await?,
        };
        let client = connected.insert(client);
        postgres::retention(client, &self.settings.slot).await
    }

    fn overrun(&self, retention: &Retention) -> Option<Overrun> {
        let limit = self.settings.slot_wal_limit?;
        let retained_bytes = retention.retained_bytes;
        let is_ours = !retention.is_active || self.reads_from_slot();
        (is_ours && retained_bytes > limit.bytes()).then_some(Overrun { retained_bytes, limit })
    }

    /// Whether the slot's reader or creator is a session of this process.
    fn reads_from_slot(&self) -> bool {
        match self.status.borrow().state {
            State::Snapshot | State::Streaming | State::Draining => true,
            _ => self.is_making_slot.load(Ordering::Acquire),
        }
    }

    /// Updates metrics and status.
    fn observe_slot(&self, retention: &Retention, trend: &Trend) -> SlotWal {
        let Retention { retained_bytes, wal_status, keep_size_room, disk_room, .. } = retention;
        let limit = self.settings.slot_wal_limit;
        let limit_room = limit.map(|limit| limit.bytes().saturating_sub(*retained_bytes));
        let rooms = [
            ("max_slot_wal_keep_size", *keep_size_room),
            ("disk", *disk_room),
            ("slot_wal_limit", limit_room),
        ];
        self.metrics.slot_retained_bytes.set(*retained_bytes);
        let mut room = Vec::new();
        for (bound, bytes) in rooms {
            let left = bytes.and_then(|bytes| trend.time_to_fill(bytes));
            let seconds_left = left.map(|left| left.as_secs());
            self.metrics.set_slot_room(bound, bytes, seconds_left);
            room.extend(bytes.map(|bytes| SlotRoom {
                bound: bound.to_owned(),
                bytes,
                seconds_left,
            }));
        }
        let wal = SlotWal { retained_bytes: *retained_bytes, status: wal_status.clone(), room };
        self.status.send_if_modified(|status| {
            status.slot_wal = Some(wal.clone());
            // No one waits for it.
            false
        });
        wal
    }

    fn forget_slot(&self) {
        self.metrics.slot_retained_bytes.set(0);
        for bound in ["max_slot_wal_keep_size", "disk", "slot_wal_limit"] {
            self.metrics.set_slot_room(bound, None, None);
        }
        self.status.send_if_modified(|status| {
            status.slot_wal = None;
            false
        });
    }

    /// Drops the slot. Returns the failure that the bridge ends with.
    pub(super) async fn give_up_slot(&self, overrun: Overrun) -> Error {
        let Overrun { retained_bytes, limit } = overrun;
        let name = &self.settings.slot;
        let dropped = tokio::time::timeout(RELEASE, self.drop_slot()).await;
        let error = match dropped {
            Ok(Ok(())) => Error::SlotGivenUp { slot: name.clone(), retained_bytes, limit },
            Ok(Err(error)) => error.into(),
            Err(_) => {
                postgres::Error::Timeout { doing: "dropping the slot", after: RELEASE }.into()
            }
        };
        tracing::error!(
            slot = name,
            retained_bytes,
            limit_bytes = limit.bytes(),
            error = error.told(),
            fix = error.fix(),
            "the slot held more WAL than postgres.slot_wal_limit"
        );
        self.forget_slot();
        self.status.send_modify(|status| {
            status.failure = Some(error.failure());
            status.state = State::Stopped;
        });
        error
    }

    async fn drop_slot(&self) -> Result<(), postgres::Error> {
        let client = client::connect(&self.conninfo, &ConnectOptions::of(&self.settings)).await?;
        let name = &self.settings.slot;
        loop {
            match slot::drop(&client, name).await {
                Ok(_) => return Ok(()),
                Err(postgres::Error::Sql { source, .. })
                    if source.code() == Some(&SqlState::OBJECT_IN_USE) => {}
                Err(error) => return Err(error),
            }
            // Our session has ended, but its server process may still wait on a dead connection.
            slot::end_reader(&client, name).await?;
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn warn(slot: &str, concern: Concern, wal: &SlotWal) {
    let nearest =
        wal.room.iter().min_by_key(|room| (room.seconds_left.unwrap_or(u64::MAX), room.bytes));
    let fix = match nearest.map(|room| room.bound.as_str()) {
        None => {
            "it is unbounded: ALTER SYSTEM SET max_slot_wal_keep_size, or set \
             postgres.slot_wal_limit, so that a full disk does not stop the database"
        }
        Some("max_slot_wal_keep_size") => {
            "bring Kafka back, or raise max_slot_wal_keep_size: when it is reached, the server \
             invalidates the slot and changes are lost"
        }
        Some("disk") => {
            "bring Kafka back, free space on the disk of pg_wal, or drop the slot with rowcast \
             teardown: the server stops when the disk is full"
        }
        Some(_) => {
            "bring Kafka back, or raise postgres.slot_wal_limit: when it is reached, the slot is \
             dropped and changes are lost"
        }
    };
    tracing::warn!(
        slot,
        retained_bytes = wal.retained_bytes,
        wal_status = wal.status,
        room_bytes = nearest.map(|room| room.bytes),
        room_of = nearest.map(|room| room.bound.as_str()),
        seconds_left = nearest.and_then(|room| room.seconds_left),
        fix,
        "{}",
        match concern {
            Concern::Critical => "the slot is about to exceed its WAL bound",
            Concern::Filling | Concern::None => "the slot holds back much WAL",
        }
    );
}
