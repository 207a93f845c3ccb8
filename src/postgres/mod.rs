//! The source: connections to Postgres.
//!
//! ```text
//! conninfo -> socket (+ tls) -> startup -> replication -> chunks -> the worker
//!                  |              (wire, frame, pacer)       ^ confirmed Lsn on a watch
//!                  +-> copy -> the rows of a snapshot
//!                  +-> client -> catalog, publication, slot, preflight
//! ```
//!
//! Three kinds of connection with one connection string: our own to the walsender, which no SQL
//! library can open; our own for reading tables by COPY, whose bytes are passed on as they arrive;
//! and `tokio-postgres` for all other SQL. Nothing here interprets rows.

pub mod catalog;
pub mod client;
pub mod conninfo;
pub mod copy;
#[cfg(test)]
mod copy_tests;
pub mod error;
pub mod failover;
pub mod filters;
pub mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod keys;
pub mod lineage;
mod login_notices;
mod lost_answer;
pub mod partitions;
pub mod preflight;
pub mod publication;
pub mod replication;
pub mod search_path;
pub mod server_error;
mod server_facts;
pub mod signal_table;
pub mod slot;
pub mod slot_creation;
mod sqlstate;
pub mod stream;
pub mod tls;

mod chunks;
mod defaults;
mod limits;
#[cfg(test)]
mod live_tests;
mod pacer;
mod place;
mod reselect;
mod retention;
mod session;
mod socket;
mod startup;
#[cfg(test)]
mod testing;
mod wire;

pub use self::catalog::Catalog;
pub use self::chunks::{ChunkReceiver, ChunkSender, Received, chunk_channel};
pub use self::conninfo::{ConnInfo, ConnInfoError};
pub use self::copy::{CopyChunk, CopyOut, CopyRows, CopySession};
pub use self::error::{Error, Stuck};
pub use self::frame::{Chunk, Frame, FrameError, Frames};
pub use self::login_notices::login_notices;
pub use self::place::StreamPlace;
pub use self::replication::{
    CreatedSlot, ReplicationClient, SlotOptions, SlotSnapshot, StreamOptions, SystemIdentity,
};
pub use self::retention::{Retention, retention};
pub use self::server_error::ServerError;
pub use self::server_facts::{ServerFacts, server_facts};
pub use self::session::ConnectOptions;
pub use self::slot::Walsender;
pub use self::slot_creation::Blocker;
pub use self::stream::{ReaderHandle, ReplicationStream, StreamPhase, spawn_reader};
