//! Snapshots: the rows that a table held before its changes were streamed.
//!
//! A row of a snapshot is a change like any other, with `op = "r"`; this folder reads it, and the
//! stages of the stream publish it.
//!
//! # The hand-over, step by step
//!
//! 1. A replication slot is created. Postgres waits until every running transaction has ended; that
//!    position is the *consistent point*. The stream will contain exactly the transactions that
//!    commit after it.
//! 2. The slot exports a snapshot under a name: the database exactly at that point, with all
//!    transactions that the stream will not contain, and no others.
//! 3. Several connections begin a transaction each and import the snapshot (`postgres::copy`). All
//!    of them see the same rows from then on, whatever is written; the connection that created the
//!    slot may end.
//! 4. The publication determines which tables are read ([`plan`]), and the catalog how the stream
//!    would describe them ([`relation`]). Each connection takes pages of a table, reads them by
//!    COPY, and converts every line ([`row`]) to the tuple that the stream would contain.
//! 5. When all rows are acknowledged, the stream is started at the consistent point. Between the
//!    last row of the snapshot and the first change there is no gap and no overlap.
//!
//! # While the stream runs
//!
//! New tables, requested rows, and the rest of an interrupted first snapshot are read in chunks
//! while the stream runs (`incremental`), each between two watermarks in the stream itself
//! (`watermark`). Rows that change between the two are left out of the chunk (`window`), the rest
//! is published at the second, in the same transaction that moves the checkpoint there. So a
//! snapshot can continue after any of its chunks, and no row is published that is older than an
//! event before it ([`visibility`]).
//!
//! `initial` publishes a first snapshot: `schedule` decides what is read next and which rows are
//! first and last. `control` holds requests and status, `progress` tracks progress, `signal` parses
//! requests.
//!
//! Not here: publishing a row (`pipeline`), and when a snapshot is taken (`bridge`).

pub mod bounds;
mod control;
mod error;
pub(crate) mod incremental;
pub mod initial;
pub mod names;
pub mod pages;
pub mod plan;
pub mod progress;
pub mod relation;
pub mod row;
pub mod signal;
pub mod signal_row;
pub mod signals;
pub mod table;
pub mod visibility;

#[cfg(test)]
mod tests;

pub use self::bounds::SignalError;
pub use self::control::{Action, Command, Control, Full, Request, SnapshotState, SnapshotStatus};
pub use self::error::Error;
pub use self::incremental::chunk::Chunk;
pub use self::incremental::chunk_size::ChunkSize;
pub use self::incremental::orders::{Edit, Exchange, Order, Outcome};
pub use self::incremental::remaining_rows::shown_rows;
pub use self::incremental::watermark::Watermark;
pub use self::incremental::window::{Closed, Spoiled, Window};
pub use self::names::TableNames;
pub use self::pages::{DonePages, PageRange};
pub use self::plan::{Plan, Scope, Skipped};
pub use self::relation::Description;
pub use self::row::{RowError, RowReader};
pub use self::signal::{Asked, Signal};
pub use self::signals::{Admitted, Signals};
pub use self::visibility::{Mark, RecentXids, Visibility};
