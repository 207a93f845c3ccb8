//! Warns of a failover slot that no standby keeps, while there is a primary to be asked: after a
//! failover it would be too late, as the new primary would not have the slot.

use std::convert::Infallible;
use std::time::Duration;

use super::Bridge;
use crate::error;
use crate::postgres::ConnectOptions;
use crate::postgres::failover::{self, Kept};
use crate::state::State;

/// Time between two looks while all is well.
const INTERVAL: Duration = Duration::from_secs(60);

/// Time between two looks otherwise. Two must say the same: a standby may just be starting.
const AGAIN: Duration = Duration::from_secs(10);

/// Longest wait for one look.
const ANSWER: Duration = Duration::from_secs(30);

impl Bridge {
    /// Looks again and again.
    pub(super) async fn watch_failover_slot(&self) -> Infallible {
        if !self.settings.failover {
            return std::future::pending().await;
        }
        let mut status = self.status.subscribe();
        let (mut logged, mut last) = (Kept::Yes, Kept::Yes);
        loop {
            let flows = |status: &crate::state::Status| status.state == State::Streaming;
            if status.wait_for(flows).await.is_err() {
                return std::future::pending().await;
            }
            let (slot, options) = (&self.settings.slot, ConnectOptions::of(&self.settings));
            let look = failover::kept(&self.conninfo, &options, slot);
            let seen = match tokio::time::timeout(ANSWER, look).await {
                Ok(Ok(seen)) => seen,
                // The session has the same trouble, and reports it.
                Ok(Err(error)) => {
                    tracing::debug!(error = error::told(&error), "asking where the slot is kept");
                    Kept::Unknown
                }
                Err(_) => Kept::Unknown,
            };
            if seen != Kept::Unknown && seen == last && seen != logged {
                log(slot, &seen);
                logged = seen.clone();
            }
            let wait = if seen == Kept::Yes && last == Kept::Yes { INTERVAL } else { AGAIN };
            last = seen;
            tokio::time::sleep(wait).await;
        }
    }
}

fn log(slot: &str, kept: &Kept) {
    let literal = postgres_protocol::escape::escape_literal(slot);
    let literal = literal.trim();
    match kept {
        Kept::Unknown => {}
        Kept::Yes => tracing::info!(slot, "a standby keeps the slot: a failover carries it over"),
        Kept::Nowhere => tracing::warn!(
            slot,
            fix = "on the standby, set sync_replication_slots = on, hot_standby_feedback = on, \
                   primary_slot_name, and a dbname in primary_conninfo",
            "postgres.failover is on, and no standby keeps the slot: a failover would lose it"
        ),
        Kept::NoFailover => tracing::warn!(
            slot,
            fix = format!(
                "stop rowcast, and run: psql \"dbname=... replication=database\" -c \
                 'ALTER_REPLICATION_SLOT \"{slot}\" (FAILOVER true)'"
            ),
            "postgres.failover is on, and the slot was created without: a failover would lose it"
        ),
        Kept::LeftOver { host } => tracing::warn!(
            slot,
            host,
            fix = format!("on that standby: SELECT pg_drop_replication_slot({literal});"),
            "a standby has a slot of this name that is no copy of the primary's, as an earlier \
             switchover leaves: it keeps the slot from being copied, and a failover would lose it"
        ),
    }
}
