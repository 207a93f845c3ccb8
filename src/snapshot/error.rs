//! Errors while a snapshot is planned and read.

use super::row::RowError;
use crate::change::RelationError;
use crate::pgoutput::DecodeError;
use crate::postgres;

/// Why a snapshot can't continue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// A table that can't be captured as configured.
    #[error(transparent)]
    Relation(#[from] RelationError),
    /// The description of a table that we wrote ourselves.
    #[error("describing a table from the catalog: {0}")]
    Decode(#[from] DecodeError),
    /// A row that is not in COPY's format.
    #[error(transparent)]
    Row(#[from] RowError),
}
