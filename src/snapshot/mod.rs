//! Snapshots: the rows that a table held before its changes were streamed.
//!
//! A row of a snapshot is a change like any other, with `op = "r"`; what is here reads it, and the
//! stages of the stream take it from there.
//!
//! # The hand-over, step by step
//!
//! 1. A replication slot is made. Postgres waits until every transaction that was running then has
//!    ended; where that is, is the *consistent point*. The stream will have every transaction that
//!    commits after it, and no other.
//! 2. With the slot comes a snapshot, exported under a name: the database as it is exactly at that
//!    point, with every transaction that the stream will not have, and no other.
//! 3. Several connections begin a transaction each and import the snapshot (`postgres::copy`). All
//!    of them see the same rows from then on, whatever is written; the connection that made the
//!    slot may go.
//! 4. The publication says which tables are read ([`plan`]), and the catalog how the stream would
//!    describe them ([`relation`]). Each connection takes pages of a table, reads them by COPY, and
//!    makes of every line ([`row`]) the tuple that the stream would have brought.
//! 5. When all rows are acknowledged, the stream is started at the consistent point. Between the
//!    last row of the snapshot and the first change there is no gap and no overlap.
//!
//! # While the stream runs
//!
//! A table that comes later, a part that is asked for, what a first snapshot that was cut off left:
//! all these are read in chunks while the stream runs (`incremental`), each between two watermarks in
//! the stream itself (`watermark`). What changes between the two is left out of the chunk (`window`),
//! the rest is published at the second, in the very transaction that moves the checkpoint there. So a
//! snapshot goes on after any of its chunks, and no row is published that is older than what came
//! before it ([`visibility`]).
//!
//! `initial` publishes a first snapshot: `schedule` says what is read next and which row of it comes
//! first and last. `control` is where snapshots are asked for and shown, `progress` is the book of how
//! far they are, `signal` how requests read.
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
