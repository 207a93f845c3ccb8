//! Removes what the bridge made: the slot, then the publication, then the checkpoint.
//!
//! The slot first: it is what holds the server's WAL, so it must be gone even where the rest can't
//! be. The checkpoint last: without the slot it says that changes are missing, which a later run
//! would have to be told to accept.

use super::settle;
use super::setup::connect_options;
use crate::config::{Config, Resolved};
use crate::error::Error;
use crate::kafka::{Checkpoints, client_config};
use crate::postgres::{self, publication, slot};

/// What there was to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Teardown {
    /// The database.
    pub database: String,
    /// The slot's name.
    pub slot: String,
    /// The publication's name.
    pub publication: String,
    /// The topic of the checkpoints.
    pub checkpoints: String,
    /// Whether the slot existed.
    pub slot_dropped: bool,
    /// Whether the publication existed.
    pub publication_dropped: bool,
    /// Whether there was a checkpoint that was removed.
    pub checkpoint_removed: bool,
}

impl Teardown {
    /// What would be removed; asks no server.
    ///
    /// # Errors
    /// When the configuration can't be used.
    pub fn planned(config: &Config) -> Result<Self, Error> {
        let (settings, info) = settle(config)?;
        Ok(Self {
            database: info.database().to_owned(),
            slot: settings.slot,
            publication: settings.publication,
            checkpoints: settings.topics.checkpoints,
            slot_dropped: false,
            publication_dropped: false,
            checkpoint_removed: false,
        })
    }
}

/// Drops the slot and the publication and, unless it is to be kept, the checkpoint; what is not
/// there is no error.
///
/// # Errors
/// When somebody reads from the slot, or the role may not drop them, or no broker answers.
pub async fn teardown(config: &Config, keep_checkpoint: bool) -> Result<Teardown, Error> {
    let (settings, info) = settle(config)?;
    let client = postgres::client::connect(&info, &connect_options(&settings)).await?;
    let version = postgres::client::server_version(&client).await?;
    let slot_dropped = slot::drop(&client, &settings.slot).await?;
    let publication_dropped = publication::drop(&client, &settings.publication, version).await?;
    let checkpoint_removed = !keep_checkpoint && remove_checkpoint(&settings).await?;
    Ok(Teardown {
        database: info.database().to_owned(),
        slot: settings.slot,
        publication: settings.publication,
        checkpoints: settings.topics.checkpoints,
        slot_dropped,
        publication_dropped,
        checkpoint_removed,
    })
}

/// Returns whether there was one.
async fn remove_checkpoint(settings: &Resolved) -> Result<bool, Error> {
    let checkpoints = Checkpoints::new(&client_config(settings)?, settings);
    let asked = checkpoints.clone();
    let thread = "checkpoint";
    let is_there = tokio::task::spawn_blocking(move || asked.is_there())
        .await
        .map_err(|error| Error::Thread { thread, reason: error.to_string() })??;
    if is_there {
        checkpoints.remove().await?;
    }
    Ok(is_there)
}
