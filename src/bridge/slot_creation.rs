//! Making a slot while the world looks on: whom it waits for stands in the log, in `/readyz` and
//! `/status`, and in the metrics.
//!
//! A walsender that is left alone while it waits goes on waiting, makes the slot in the end, and
//! nobody reads from it: so whoever gives up ends that walsender, now or at the next try (`standby`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Bridge;
use super::standby::end_ours;
use crate::error::Error;
use crate::postgres::{self, Blocker, ConnectOptions, CreatedSlot, ReplicationClient, SlotOptions};

/// Time between two lines of the log.
const TELL: Duration = Duration::from_secs(10);

/// A wait that is shorter is not worth a word.
const SHORT: Duration = Duration::from_secs(2);

/// Longest wait for the end of a walsender, when the bridge is asked to stop.
const END: Duration = Duration::from_secs(3);

impl Bridge {
    /// Makes a slot on a connection that has no transaction open, and tells for whom that waits.
    ///
    /// # Errors
    /// What the server refuses; and when the connection is dead.
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
        // After a failure it may still be at it: the next look at the slot needs its name.
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
                "the slot is made once every transaction has ended that ran when it was begun"
            );
        }
        let reason = format!("making the slot {slot:?} waits for {waits_for}");
        self.status.send_modify(|status| status.reason = Some(reason));
    }

    /// Ends the walsender that makes a slot, as nobody waits for it any more.
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
                "the server can't be told that the slot is not wanted any more: once it is made, \
                 rowcast teardown removes it"
            );
        }
    }
}
