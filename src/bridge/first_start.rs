//! A start that creates the slot: checks all that can be checked before, and drops the slot again
//! if no row was published from it.
//!
//! A slot holds the server's WAL from the moment it is created. So everything that could be refused
//! later is tried first: topics that can't be created, keys and rules that do not fit their tables.
//! What can't be tried (the permission to write to a topic, a value that can't be published) fails
//! later; then, if no row was acknowledged, the slot is dropped again:
//!
//! ```text
//! failed, not to be tried again -> intent in the checkpoint topic -> slot dropped
//! ```
//!
//! If another copy has taken over, nothing is changed. A kill between the two steps leaves a slot
//! with an intent, which the next start replaces like any slot of a start that published no row. If
//! the slot can't be dropped, the log names it and the command that drops it. Once a row was
//! acknowledged, the slot remains.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use super::topics::Assignment;
use super::{Bridge, fresh_client_config};
use crate::change::KeyChoice;
use crate::checkpoint::{Checkpoint, Ledger};
use crate::encode::{EncodeOptions, Encoder, SourceIdentity, ValueRules};
use crate::error::Error;
use crate::kafka::{Checkpoints, Producer, rehearse};
use crate::postgres::publication::{Published, TableName};
use crate::postgres::slot::{self, SlotState};
use crate::postgres::{self, Catalog, ConnectOptions};
use crate::snapshot::relation::Description;

/// Longest wait for a slot to be dropped again, with all steps before.
const TAKE_BACK: Duration = Duration::from_secs(20);

/// A slot that this process created.
#[derive(Debug, Clone, Copy)]
pub(super) struct CreatedSlot {
    /// Records that were acknowledged when it was created.
    acknowledged: u64,
    /// Whether nothing was ever published, so that nothing is lost with it.
    is_first: bool,
}

impl Bridge {
    /// Checks what would fail at a table's first row, before there is a slot.
    ///
    /// # Errors
    /// The first failure.
    pub(super) async fn rehearse(&self, assignment: &Assignment) -> Result<(), Error> {
        let config = fresh_client_config(&self.settings).await?;
        rehearse(&config, self.settings.topics.create, &assignment.plans()).await?;
        Ok(())
    }

    /// Checks whether the keys and rules of tables fit them.
    ///
    /// # Errors
    /// The first that does not.
    pub(super) async fn check_rules(
        &self,
        client: &Client,
        server_version: u32,
        assignment: &Assignment,
        published: &BTreeMap<TableName, Published>,
    ) -> Result<(), Error> {
        let settings = &self.settings;
        let mut catalog = Catalog::connect(&self.conninfo, &ConnectOptions::of(settings)).await?;
        let source = SourceIdentity::default();
        let encoder = Encoder::new(&EncodeOptions { format: &settings.format, source });
        let mut encoder = encoder.with_rules(ValueRules::new(settings));
        for table in assignment.placed() {
            let (schema, name) = (&table.schema, &table.name);
            if settings.tables.of(schema, name).is_none() {
                continue;
            }
            let of = TableName { schema: schema.clone(), name: name.clone() };
            let columns = published.get(&of).and_then(|part| part.columns.as_deref());
            let described = Description::read(client, server_version, table.oid, columns).await?;
            // The table was dropped meanwhile.
            let Some(description) = described else { continue };
            let facts = catalog.relation(table.oid, description.types()).await?;
            let choice = KeyChoice { configured: assignment.router.key_columns(schema, name) };
            let relation = description.relation(facts, &choice)?;
            encoder.announce(&relation, &assignment.router.name(schema, name))?;
        }
        Ok(())
    }

    /// Notes that this start created a slot: the first, one after a slot that published no row, or
    /// one that replaces a slot that did.
    pub(super) fn slot_created(&self, is_first: bool) {
        let created = CreatedSlot { acknowledged: self.metrics.records_acked.get(), is_first };
        *self.created_slot() = Some(created);
    }

    /// After a start that failed and is not tried again: drops the slot that it created if no row
    /// was published, or logs its name.
    pub(super) async fn take_back_slot(&self, error: &Error) {
        let Some(created) = self.created_slot().take() else { return };
        // The slot, the transactional id and the checkpoint belong to another copy by now.
        if error.is_fenced() {
            return;
        }
        let slot = self.settings.slot.as_str();
        if self.metrics.records_acked.get() != created.acknowledged {
            return;
        }
        if created.is_first {
            match tokio::time::timeout(TAKE_BACK, self.drop_created_slot()).await {
                Ok(Ok(true)) => {
                    tracing::info!(
                        slot,
                        "no row was published: dropped the slot that this start created"
                    );
                    return;
                }
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::debug!(error = error.told(), "dropping the slot"),
                Err(_) => tracing::debug!("dropping the slot: timeout"),
            }
        }
        tracing::warn!(
            slot,
            fix = "start it again once that is fixed: it continues from the slot; or run rowcast \
                   teardown, which drops the slot, the publication and the checkpoint",
            "the slot that this start created remains, and holds back the server's WAL"
        );
    }

    /// Returns whether there was a slot.
    async fn drop_created_slot(&self) -> Result<bool, Error> {
        let settings = &self.settings;
        let options = ConnectOptions::of(settings);
        let client = postgres::client::connect(&self.conninfo, &options).await?;
        match slot::state(&client, &settings.slot, self.conninfo.database()).await? {
            SlotState::Idle { .. } => {}
            SlotState::Absent => return Ok(false),
            // A copy that was in standby reads from it and must not be disturbed.
            SlotState::Active { pid, .. } => {
                let (slot, pid) = (settings.slot.clone(), Some(pid));
                return Err(postgres::Error::SlotActive { slot, pid, source: None }.into());
            }
            SlotState::Lost { .. } | SlotState::Foreign { .. } => return Ok(false),
        }
        let config = fresh_client_config(settings).await?;
        let ledger = Arc::<Ledger>::default();
        let queue = settings.memory.queue_bytes();
        let metrics = Arc::clone(&self.metrics);
        let producer = Arc::new(Producer::new(&config, queue, Arc::clone(&ledger), metrics)?);
        // With transactions, this aborts what the failed session left open.
        let checkpoints = Checkpoints::new(&config, settings);
        let found = self.read_checkpoint(&producer, checkpoints).await?;
        if let Some(found) = found.checkpoint.filter(|found| !found.is_intent()) {
            let intent = Checkpoint::intent(found.source, found.generation + 1);
            self.write_checkpoint(&producer, &ledger, intent).await?;
        }
        Ok(slot::drop(&client, &settings.slot).await?)
    }

    fn created_slot(&self) -> std::sync::MutexGuard<'_, Option<CreatedSlot>> {
        self.created.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
