//! Creates the slot and reports what it waits for: in the log, `/readyz`, `/status` and the
//! metrics.
//!
//! A walsender that is abandoned while it waits would still create the slot in the end, and no one
//! would read from it: so giving up includes ending that walsender, now or at the next try
//! (`standby`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Bridge;
use super::standby::end_ours;
use crate::error::Error;
use crate::postgres::{self, Blocker, ConnectOptions, CreatedSlot, ReplicationClient, SlotOptions};

/// Time between two log lines.
const TELL: Duration = Duration::from_secs(10);

/// A shorter wait is not logged.
const SHORT: Duration = Duration::from_secs(2);

/// Longest wait for the walsender to end when the bridge is asked to stop.
const END: Duration = Duration::from_secs(3);

impl Bridge {
    /// Creates a slot on a connection without an open transaction, and reports what it waits for.
    ///
    /// # Errors
    /// When the server refuses it; when the connection is dead.
    pub(super) async fn create_slot(
        &self,
        client: &mut ReplicationClient,
        name: &str,
        slot: SlotOptions,
    ) -> Result<CreatedSlot, Error> {
        let options = ConnectOptions::of(&self.settings);
        let walsender = client.walsender().await?;
        self.keep_walsender(Some(walsender.clone()));
        self.is_making_slot.store(true, Ordering::Release);
        let mut told_at: Option<Duration> = None;
        let waits = |blocker: Option<Blocker>, waited: Duration| {
            if waited < SHORT {
                return;
            }
            let is_due = told_at.is_none_or(|at| waited.saturating_sub(at) >= TELL);
            if told_at.is_none() {
                self.metrics.slot_creation_waits.inc();
            }
            self.slot_waits(name, blocker.as_ref(), waited, is_due);
            if is_due {
                told_at = Some(waited);
            }
        };
        let way = (&self.conninfo, &options);
        let created = client.create_slot_in_time(name, slot, &walsender, way, waits).await;
        self.is_making_slot.store(false, Ordering::Release);
        self.metrics.slot_creation_waiting.set(0);
        self.status.send_modify(|status| status.reason = None);
        // After a failure it may still be creating the slot: the next check of the slot needs its
        // name.
        let created = created?;
        self.keep_walsender(None);
        Ok(created)
    }

    fn slot_waits(&self, slot: &str, blocker: Option<&Blocker>, waited: Duration, is_due: bool) {
        let waits_for = blocker.map_or_else(|| "the server".to_owned(), ToString::to_string);
        self.metrics.slot_creation_waiting.set(1);
        if is_due {
            tracing::warn!(
                slot,
                waited_s = waited.as_secs(),
                waits_for,
                fix = blocker.map(Blocker::fix),
                "the slot is created once every transaction has ended that was running when its \
                 creation began"
            );
        }
        let reason = format!("creating the slot {slot:?} waits for {waits_for}");
        self.status.send_modify(|status| status.reason = Some(reason));
    }

    /// Ends the walsender that creates a slot which is not needed any more.
    pub(super) async fn end_slot_creation(&self) {
        if !self.is_making_slot.swap(false, Ordering::AcqRel) {
            return;
        }
        let Some(walsender) = self.take_walsender() else { return };
        let ending = async {
            let options = ConnectOptions::of(&self.settings);
            let client = postgres::client::connect(&self.conninfo, &options).await?;
            end_ours(&client, &walsender).await;
            Ok::<_, postgres::Error>(())
        };
        if !matches!(tokio::time::timeout(END, ending).await, Ok(Ok(()))) {
            tracing::warn!(
                slot = self.settings.slot,
                pid = walsender.pid,
                "cancelling the creation of the slot failed: once it is created, rowcast \
                 teardown removes it"
            );
        }
    }
}
