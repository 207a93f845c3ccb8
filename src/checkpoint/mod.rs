//! What has been delivered, and therefore what Postgres may forget.
//!
//! Confirming an LSN lets Postgres discard the WAL before it, so this number is the whole of the
//! at-least-once promise. Everything else may crash; this may not be wrong. (Not to be confused
//! with Postgres' own CHECKPOINT, which is about its data files.)
//!
//! Holds at all times:
//!
//! 1. The confirmed LSN stays below the end LSN of every transaction that has an unacknowledged
//!    record or no commit yet.
//! 2. It never goes back.
//! 3. It moves over idle WAL by keepalive only when nothing is in flight.
//! 4. Tickets are issued in commit order and may be acknowledged in any order.
//! 5. A rejected record stops the line; it never leaves a hole.
//!
//! [`Tracker`] is the pure core that holds them, [`Ledger`] shares it between the thread that
//! issues tickets and the thread that hears of deliveries. Not here: sockets, Kafka types, clocks,
//! retries.
//!
//! Protocol: <https://www.postgresql.org/docs/current/protocol-replication.html>

mod ledger;
mod tracker;

pub use self::ledger::{Ledger, Standing};
pub use self::tracker::{Ticket, Tracker};
