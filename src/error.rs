//! Classifies each failure in one place: try again, stop, or report a bug.
//!
//! Each folder has its own errors. Here, one `match` decides whether to try again, to stop so that
//! an operator acts, or to report a bug. Backoff, exit code and status page follow from that.

use std::sync::Arc;

use crate::lsn::Lsn;
use crate::{
    admin, allocation, change, checkpoint, config, encode, kafka, pgoutput, postgres, route,
    snapshot, state,
};

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// No one: the same may work when tried again.
    Retry,
    /// An operator: trying again fails until something is fixed.
    Operator,
    /// The developers: the program reached a state that should be impossible.
    Bug,
}

/// Why a session of the bridge ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection string.
    #[error("reading postgres.url: {0}")]
    ConnInfo(#[from] postgres::ConnInfoError),
    /// The configuration is not usable.
    #[error(transparent)]
    Resolve(#[from] config::ResolveError),
    /// A secret for the brokers can't be read.
    #[error(transparent)]
    Secret(#[from] config::SecretError),
    /// The database.
    #[error(transparent)]
    Postgres(#[from] postgres::Error),
    /// The brokers.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The brokers refuse a request because a permission is missing.
    #[error("{}", told(.source.as_ref()))]
    Unauthorized {
        /// The refused request.
        source: Box<Error>,
        /// The commands that grant all needed permissions, one per line.
        acls: String,
    },
    /// A failure that the producer reported, shared with its other waiters.
    #[error(transparent)]
    Delivery(Arc<kafka::Error>),
    /// Changes were lost: never published and no longer readable.
    #[error(transparent)]
    Gap(Box<checkpoint::Gap>),
    /// A table that can't be given its topic.
    #[error(transparent)]
    Route(Box<route::Refusal>),
    /// The admin endpoint.
    #[error(transparent)]
    Admin(#[from] admin::Error),
    /// A message of the stream with undocumented framing.
    #[error("reading the replication stream: {0}")]
    Frame(#[from] postgres::FrameError),
    /// A message that is not valid pgoutput.
    #[error("decoding the message at {lsn}: {source}")]
    Decode {
        /// The message's position in the WAL.
        lsn: Lsn,
        /// What is wrong with it.
        source: pgoutput::DecodeError,
    },
    /// Messages in an order that the protocol forbids.
    #[error(transparent)]
    Assemble(#[from] change::AssembleError),
    /// A relation that can't be used as configured.
    #[error(transparent)]
    Relation(#[from] change::RelationError),
    /// A relation whose settings do not fit it.
    #[error(transparent)]
    Rules(#[from] encode::RuleError),
    /// A value that can't be published.
    #[error(
        "encoding the change at {lsn}, number {} of the transaction that commits at {}: {source}",
        position.ordinal,
        position.commit_lsn
    )]
    Encode {
        /// The change's position in the WAL.
        lsn: Lsn,
        /// Its place in the order of all changes.
        position: change::Position,
        /// Table, column and cause.
        source: encode::EncodeError,
    },
    /// A value that a snapshot read can't be published.
    #[error("encoding a row that the snapshot read: {0}")]
    EncodeRow(#[source] encode::EncodeError),
    /// A snapshot's row is not in COPY's format.
    #[error(transparent)]
    SnapshotRow(#[from] snapshot::RowError),
    /// A table was rewritten between the plan of a first snapshot and its reading.
    #[error("the table {table} was rewritten while the first snapshot was taken")]
    Rewritten {
        /// The table, or a partition.
        table: String,
    },
    /// A table was dropped between the plan of a first snapshot and its reading.
    #[error("a table was dropped while the first snapshot was taken: {}", server.message)]
    Dropped {
        /// The server's error.
        server: Box<postgres::ServerError>,
    },
    /// Pages of a table were published in part, in a Kafka transaction that must not be committed.
    #[error(
        "pages of a table were read in part while the stream waited: a new session begins, and they \
         are read again"
    )]
    PagesCutOff,
    /// A snapshot can't be planned.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// The slot held more WAL than its limit and was dropped.
    #[error(
        "the slot {slot:?} held {retained_bytes} bytes of WAL, more than postgres.slot_wal_limit \
         ({limit}), and was dropped: the changes it held are not published"
    )]
    SlotGivenUp {
        /// The slot.
        slot: String,
        /// Bytes of WAL held.
        retained_bytes: u64,
        /// The limit.
        limit: config::Size,
    },
    /// The system refuses the memory that a row needs.
    #[error("{}", allocation::refused(*bytes))]
    Memory {
        /// Its size.
        bytes: usize,
    },
    /// A thread could not be started, or panicked.
    #[error("the {thread} thread: {reason}")]
    Thread {
        /// The thread's name.
        thread: &'static str,
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// The error without the server's text if that text may hold row values.
    #[must_use]
    pub fn without_text(self) -> Self {
        match self {
            Self::Postgres(error) => Self::Postgres(error.without_text()),
            Self::Snapshot(snapshot::Error::Postgres(error)) => {
                Self::Snapshot(snapshot::Error::Postgres(error.without_text()))
            }
            Self::Dropped { server } => Self::Dropped { server: Box::new(server.without_text()) },
            error => error,
        }
    }

    /// Who has to act.
    #[must_use]
    pub fn severity(&self) -> Severity {
        let retry_if = |transient| if transient { Severity::Retry } else { Severity::Operator };
        match self {
            Self::Postgres(postgres::Error::ReaderPanicked) => Severity::Bug,
            Self::Kafka(kafka::Error::Panicked { .. }) => Severity::Bug,
            Self::Delivery(error) if matches!(**error, kafka::Error::Panicked { .. }) => {
                Severity::Bug
            }
            Self::Secret(error) => retry_if(error.is_transient()),
            Self::Admin(error) => retry_if(error.is_held()),
            Self::Unauthorized { source, .. } => source.severity(),
            Self::Postgres(error) => retry_if(error.is_transient()),
            Self::Kafka(error) => retry_if(error.is_transient()),
            Self::Delivery(error) => retry_if(error.is_transient()),
            Self::Snapshot(snapshot::Error::Postgres(error)) => retry_if(error.is_transient()),
            Self::Rewritten { .. } | Self::Dropped { .. } | Self::PagesCutOff => Severity::Retry,
            Self::Snapshot(snapshot::Error::Relation(_)) => Severity::Operator,
            Self::ConnInfo(_)
            | Self::Resolve(_)
            | Self::Gap(_)
            | Self::Route(_)
            | Self::Relation(_)
            | Self::Rules(_)
            | Self::SlotGivenUp { .. }
            | Self::Memory { .. }
            | Self::Encode { .. }
            | Self::EncodeRow(_) => Severity::Operator,
            Self::Frame(_)
            | Self::Decode { .. }
            | Self::Assemble(_)
            | Self::SnapshotRow(_)
            | Self::Snapshot(snapshot::Error::Decode(_) | snapshot::Error::Row(_))
            | Self::Thread { .. } => Severity::Bug,
        }
    }

    /// What an operator can do about it, if known.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Unauthorized { source, acls } => {
                let first = source.fix().unwrap_or_default();
                Some(format!(
                    "# {first}; all that this pipeline needs (where the brokers ask for TLS or SASL, \
                     add --command-config FILE):\n{acls}"
                ))
            }
            Self::Secret(error) => Some(error.fix()),
            Self::Postgres(error) => error.fix(),
            Self::Kafka(error) => error.fix(),
            Self::Delivery(error) => error.fix(),
            Self::Gap(gap) => Some(gap.fix()),
            Self::Route(refusal) => Some(refusal.fix()),
            Self::Admin(_) => {
                Some("set admin.listen to a free address, or admin.enabled = false".to_owned())
            }
            Self::Snapshot(snapshot::Error::Postgres(error)) => error.fix(),
            Self::Rewritten { .. } | Self::Dropped { .. } | Self::PagesCutOff => None,
            Self::Relation(_) | Self::Snapshot(snapshot::Error::Relation(_)) => {
                Some("correct `key` of the table in [tables]".to_owned())
            }
            Self::Rules(error) => Some(error.fix()),
            Self::Encode { source, .. } | Self::EncodeRow(source) => source.fix().or_else(|| {
                let fix = "leave the column out by exclude_columns, or set errors.on_error = \
                           \"skip-with-dead-letter\" to go on without the row";
                Some(fix.to_owned())
            }),
            Self::Frame(_)
            | Self::Decode { .. }
            | Self::Assemble(_)
            | Self::SnapshotRow(_)
            | Self::Snapshot(snapshot::Error::Decode(_) | snapshot::Error::Row(_))
            | Self::Thread { .. } => {
                Some("please report this, with the log and the server's version".to_owned())
            }
            Self::SlotGivenUp { .. } => Some(
                "fix what kept rowcast from publishing, then set postgres.on_gap = \"snapshot\" \
                 to read all rows again. Only if the changes may be lost: rowcast run \
                 --accept-gap"
                    .to_owned(),
            ),
            Self::Memory { .. } => Some(allocation::FIX.to_owned()),
            Self::ConnInfo(_) | Self::Resolve(_) => None,
        }
    }

    /// Adds all permissions that the pipeline needs if the brokers refuse one: they name one at a
    /// time.
    #[must_use]
    pub fn with_rights(self, settings: &config::Resolved, database: &str) -> Self {
        let is_unauthorized = match &self {
            Self::Kafka(error) => error.is_unauthorized(),
            Self::Delivery(error) => error.is_unauthorized(),
            _ => false,
        };
        if !is_unauthorized {
            return self;
        }
        Self::Unauthorized { source: Box::new(self), acls: kafka::acls(settings, database) }
    }

    /// Whether a server refused our credentials.
    #[must_use]
    pub fn is_refused_login(&self) -> bool {
        match self {
            Self::Postgres(error) | Self::Snapshot(snapshot::Error::Postgres(error)) => {
                matches!(error, postgres::Error::AuthFailed(_))
            }
            Self::Kafka(error) => error.is_refused_login(),
            Self::Delivery(error) => error.is_refused_login(),
            _ => false,
        }
    }

    /// Whether another copy of the bridge has taken over.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        let is = |error: &kafka::Error| matches!(error, kafka::Error::Fenced { .. });
        match self {
            Self::Kafka(error) => is(error),
            Self::Delivery(error) => is(error),
            _ => false,
        }
    }

    /// The failure with all its causes, on one line.
    #[must_use]
    pub fn told(&self) -> String {
        told(self)
    }

    /// The failure in the form that the status page shows.
    #[must_use]
    pub fn failure(&self) -> state::Failure {
        state::Failure { error: self.told(), fix: self.fix() }
    }
}

/// An error and those of its causes that add something, on one line.
#[must_use]
pub fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_that_loses_nothing_comes_before_the_one_that_may() {
        let slot = || "s".to_owned();
        let source = || Box::<postgres::ServerError>::default();
        let limit = config::Size::from_mb(1);
        for error in [
            Error::SlotGivenUp { slot: slot(), retained_bytes: 9, limit },
            postgres::Error::WalRemoved { slot: slot(), source: source() }.into(),
            postgres::Error::SlotMissing { slot: slot(), source: source() }.into(),
            postgres::Error::SlotGone { slot: slot() }.into(),
        ] {
            let fix = error.fix().expect("a fix");
            let safe = fix.find("postgres.on_gap = \"snapshot\"").expect("the safe way");
            assert!(safe < fix.find("--accept-gap").expect("the other one"), "{fix}");
        }
    }

    #[test]
    fn a_cause_is_told_once_whether_or_not_its_parent_tells_it() {
        #[derive(Debug, thiserror::Error)]
        #[error("no route")]
        struct Inner;
        #[derive(Debug, thiserror::Error)]
        enum Outer {
            #[error("connecting")]
            Silent(#[source] Inner),
            #[error("connecting: {0}")]
            Telling(#[source] Inner),
        }
        assert_eq!(told(&Outer::Silent(Inner)), "connecting: no route");
        assert_eq!(told(&Outer::Telling(Inner)), "connecting: no route");
    }

    #[test]
    fn what_a_server_says_of_rows_is_left_out_wherever_it_stands() {
        let server = |sqlstate: &str| postgres::ServerError {
            sqlstate: sqlstate.to_owned(),
            message: "hunter2".to_owned(),
            detail: Some("hunter2".to_owned()),
            hint: Some("hunter2".to_owned()),
            ..postgres::ServerError::default()
        };
        for code in
            ["22012", "28000", "28P01", "42501", "42P01", "53300", "53400", "P0001", "XX000"]
        {
            let error = || postgres::Error::from(server(code));
            for error in [
                Error::Postgres(error()),
                Error::Snapshot(snapshot::Error::Postgres(error())),
                Error::Dropped { server: Box::new(server(code)) },
            ] {
                let error = error.without_text();
                let shown = format!("{}; {:?}; {error:?}", error.told(), error.fix());
                assert!(!shown.contains("hunter2"), "{code}: {shown}");
                assert!(shown.contains(code), "{code}: {shown}");
            }
        }
    }
}
