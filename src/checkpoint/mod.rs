//! Tracks what has been published, and therefore what Postgres may discard.
//!
//! Confirming an LSN lets Postgres discard the WAL before it, so this number is the whole of the
//! promise that nothing is lost. Everything else may crash; this may not be wrong. The checkpoint is
//! our own durable word of what is published, in a Kafka topic. (Not to be confused with Postgres'
//! CHECKPOINT, which is about its data files.)
//!
//! Holds at all times:
//!
//! 1. A checkpoint covers nothing that has an unacknowledged record before it: what is delivered
//!    stays below every hole. In a Kafka transaction, it covers what the transaction holds.
//! 2. The slot is confirmed up to what a durable checkpoint covers, never beyond. So a slot that is
//!    found beyond its checkpoint was moved by somebody else, and something is missing.
//! 3. Neither ever goes back.
//! 4. Idle WAL, reported by keepalives, moves both as a transaction without records would; so it is
//!    never taken for a gap. A record each second would be many for nothing: idle checkpoints come
//!    ever less often while nothing else happens (see [`Pace`]).
//! 5. Tickets are issued in commit order and may be acknowledged in any order.
//! 6. A rejected record stops the stream; it never leaves a hole.
//! 7. After a restart, a change that the checkpoint covers is left out, by its position, which is
//!    the same on every replay.
//!
//! [`Tracker`] is the pure core that holds them, [`Ledger`] shares it between the thread that
//! issues tickets and the thread that receives delivery reports. [`Checkpoint`] is the record, [`decide`]
//! what a start makes of it. Not here: sockets, Kafka types, retries; clocks are handed in.
//!
//! Protocol: <https://www.postgresql.org/docs/current/protocol-replication.html>

mod decide;
mod gap;
mod ledger;
mod pace;
mod progress;
mod record;
mod remembered;
mod renames;
mod snapshots;
mod tracker;

#[cfg(test)]
mod tests;

pub use self::decide::{Decision, ServerFound, SlotFound, decide, other_source};
pub use self::gap::Gap;
pub use self::ledger::{Ledger, Standing};
pub use self::pace::Pace;
pub use self::progress::Progress;
pub use self::record::{Checkpoint, RecordError, Source, VERSION};
pub use self::remembered::{DatabaseId, Identity, Remembered, Root};
pub use self::renames::{Fate, Held, Looked, Moment, Present, Rules, look, named_in_stream};
pub use self::snapshots::{
    KeyProgress, LeafProgress, LeftOutTable, PageProgress, SnapshotReason, SnapshotRequest,
    Snapshots, TableProgress, TableSnapshot,
};
pub use self::tracker::{Ticket, Tracker};
