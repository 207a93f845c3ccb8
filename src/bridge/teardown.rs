//! Removes what the bridge made in the database: the slot, then the publication.
//!
//! The slot first: it is what holds the server's WAL, so it must be gone even where the publication
//! can't be dropped.

use super::settle;
use super::setup::connect_options;
use crate::config::Config;
use crate::error::Error;
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
    /// Whether the slot existed.
    pub slot_dropped: bool,
    /// Whether the publication existed.
    pub publication_dropped: bool,
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
            slot_dropped: false,
            publication_dropped: false,
        })
    }
}

/// Drops the slot and the publication; what is not there is no error.
///
/// # Errors
/// When somebody reads from the slot, or the role may not drop them.
pub async fn teardown(config: &Config) -> Result<Teardown, Error> {
    let (settings, info) = settle(config)?;
    let client = postgres::client::connect(&info, &connect_options(&settings)).await?;
    let version = postgres::client::server_version(&client).await?;
    let slot_dropped = slot::drop(&client, &settings.slot).await?;
    let publication_dropped = publication::drop(&client, &settings.publication, version).await?;
    Ok(Teardown {
        database: info.database().to_owned(),
        slot: settings.slot,
        publication: settings.publication,
        slot_dropped,
        publication_dropped,
    })
}
