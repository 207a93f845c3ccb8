//! Warns about a failover slot that is not synchronised to any standby, while the primary still
//! runs: after a failover it would be too late, because the new primary would not have the slot.

use std::convert::Infallible;
use std::time::Duration;

use super::Bridge;
use crate::error;
use crate::postgres::ConnectOptions;
use crate::postgres::failover::{self, Kept};
use crate::state::State;

/// Time between two checks while all is well.
const INTERVAL: Duration = Duration::from_secs(60);

/// Time between two checks otherwise. Two must have the same result: a standby may just be
/// starting.
const AGAIN: Duration = Duration::from_secs(10);

/// Longest wait for one check.
const ANSWER: Duration = Duration::from_secs(30);

impl Bridge {
    /// Checks periodically.
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
                    tracing::debug!(
                        error = error::told(&error),
                        "checking which standbys have the slot"
                    );
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
        Kept::Yes => tracing::info!(
            slot,
            "a standby has a synchronised copy of the slot: a failover keeps it"
        ),
        Kept::Nowhere => tracing::warn!(
            slot,
            fix = "on the standby, set sync_replication_slots = on, hot_standby_feedback = on, \
                   primary_slot_name, and a dbname in primary_conninfo",
            "postgres.failover is on, but no standby has a synchronised copy of the slot: a \
             failover would lose it"
        ),
        Kept::NoFailover => tracing::warn!(
            slot,
            fix = format!(
                "stop rowcast, and run: psql \"dbname=... replication=database\" -c \
                 'ALTER_REPLICATION_SLOT \"{slot}\" (FAILOVER true)'"
            ),
            "postgres.failover is on, but the slot was created without it: a failover would lose \
             it"
        ),
        Kept::LeftOver { host } => tracing::warn!(
            slot,
            host,
            fix = format!("on that standby: SELECT pg_drop_replication_slot({literal});"),
            "a standby has a slot of this name that is not a copy of the primary's, as an \
             earlier switchover leaves behind: it prevents the slot from being copied, and a \
             failover would lose it"
        ),
    }
}
