//! The bridge's state and status, in the same words for logs, `/status` and the page.
//!
//! ```text
//! Preflight -> Snapshot -> Streaming -> Draining -> Stopped
//!  ^  ^           |            |
//!  |  +- Backoff <-------------+
//!  v
//! Standby
//! ```

mod left_out;

use serde::{Deserialize, Serialize};

pub use self::left_out::{LeftOut, LeftOutList, LeftOutReason};
use crate::lsn::Lsn;
use crate::snapshot::progress::Report;

/// What the bridge is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// Connecting to the servers, and checking and creating what is needed on them.
    #[default]
    Preflight,
    /// Another copy reads from the slot: waiting until it is free.
    Standby,
    /// Existing rows are read.
    Snapshot,
    /// Changes are streamed.
    Streaming,
    /// A temporary failure: waiting before the next try.
    Backoff,
    /// Asked to stop: waiting for the brokers to acknowledge what is in flight.
    Draining,
    /// Ended.
    Stopped,
}

impl State {
    /// The word for logs and pages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Standby => "standby",
            Self::Snapshot => "snapshot",
            Self::Streaming => "streaming",
            Self::Backoff => "backoff",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// A stage of the pipeline that makes no progress while there is work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// `source` or `kafka`.
    pub stage: String,
    /// What makes no progress, since when, and what waits.
    pub reason: String,
}

/// The last failure and its fix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What failed, and why.
    pub error: String,
    /// What an operator can do, if known.
    pub fix: Option<String>,
}

/// What the slot holds back of the server's WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotWal {
    /// Bytes of WAL since the position that it needs.
    pub retained_bytes: u64,
    /// The server's word for it: `reserved`, `extended`, `unreserved` or `lost`.
    pub status: String,
    /// How much more it may hold, by each bound that is known.
    pub room: Vec<SlotRoom>,
}

/// How much more WAL may be held before a bound is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRoom {
    /// `max_slot_wal_keep_size`: the server invalidates the slot. `disk`: the disk is full.
    /// `slot_wal_limit`: rowcast drops the slot.
    pub bound: String,
    /// Bytes left.
    pub bytes: u64,
    /// Seconds left at the rate of the last minute; `None` if the slot does not grow.
    pub seconds_left: Option<u64>,
}

/// A table that is captured only in part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitedTable {
    /// Schema and name.
    pub table: String,
    /// Why Postgres refuses, or would refuse, to update or delete its rows.
    pub cause: String,
    /// The fix.
    pub fix: String,
}

/// The tables that are captured only in part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Only inserts are captured, so that the application can still update and delete.
    pub insert_only: Vec<LimitedTable>,
    /// Nothing is captured, for the same reason.
    pub left_out: Vec<LimitedTable>,
    /// All is captured and Postgres refuses updates or deletes: rowcast may not alter the
    /// publication.
    pub refused: Vec<LimitedTable>,
}

/// The response of `/status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The pipeline's name.
    pub name: String,
    /// What the bridge is doing.
    pub state: State,
    /// The database that is read.
    pub database: String,
    /// The replication slot.
    pub slot: String,
    /// The publication.
    pub publication: String,
    /// The last position received.
    pub received_lsn: Lsn,
    /// The position up to which Postgres may discard WAL.
    pub confirmed_lsn: Lsn,
    /// What the slot holds back; `None` before the first check and without a slot.
    pub slot_wal: Option<SlotWal>,
    /// Records handed to the producer and not acknowledged.
    pub records_in_flight: u64,
    /// Row changes decoded since the start.
    pub changes: u64,
    /// Records acknowledged since the start.
    pub records_acked: u64,
    /// Progress of snapshots; `None` before the first since the start.
    pub snapshot: Option<Report>,
    /// The tables that are captured and of which nothing is published, each with the reason.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// Tables of which not all that is asked for is captured.
    #[serde(default)]
    pub limits: Limits,
    /// What this state waits for, if known.
    pub reason: Option<String>,
    /// The stalled stage, if any.
    pub stalled: Option<Stall>,
    /// Warnings of servers at login, each text once, such as a password that expires soon.
    #[serde(default)]
    pub login_warnings: Vec<String>,
    /// The failure that led to the present backoff or end.
    pub failure: Option<Failure>,
}

impl Status {
    /// Whether changes are streamed and nothing is stalled.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == State::Streaming && self.stalled.is_none()
    }

    /// The state's word and, if not ready, the reason.
    #[must_use]
    pub fn line(&self) -> String {
        let stalled = self.stalled.as_ref().map(|stall| format!("stalled, {}", stall.reason));
        let failure = || match self.state {
            State::Backoff | State::Stopped => self.failure.as_ref().map(|why| why.error.clone()),
            _ => None,
        };
        let word = self.state.word();
        match stalled.or_else(|| self.reason.clone()).or_else(failure) {
            Some(reason) => format!("{word}: {reason}"),
            None => word.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ready_says_why() {
        let status = |state| Status { state, ..Status::default() };
        assert!(status(State::Streaming).is_ready());
        assert_eq!(status(State::Streaming).line(), "streaming");

        let reason = Some("the slot \"s\" is read by server process 7".to_owned());
        let standby = Status { reason, ..status(State::Standby) };
        assert!(!standby.is_ready());
        assert_eq!(standby.line(), "standby: the slot \"s\" is read by server process 7");

        let stall =
            Stall { stage: "kafka".to_owned(), reason: "nothing is acknowledged".to_owned() };
        let stalled = Status { stalled: Some(stall), ..status(State::Streaming) };
        assert!(!stalled.is_ready());
        assert_eq!(stalled.line(), "streaming: stalled, nothing is acknowledged");

        let failure = Some(Failure { error: "no broker".to_owned(), fix: None });
        let backoff = Status { failure, ..status(State::Backoff) };
        assert_eq!(backoff.line(), "backoff: no broker");
    }
}
