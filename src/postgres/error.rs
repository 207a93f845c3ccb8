//! Errors of Postgres, distinguished by what someone has to do about them.
//!
//! The bridge retries if [`Error::is_transient`]; all other errors stop it, and [`Error::fix`] is
//! shown to the operator.

mod decoding;
mod fix;
mod text;

use std::io;
use std::time::Duration;

use self::decoding::Meaning;
pub use self::decoding::Stuck;
use super::frame::FrameError;
use super::place::StreamPlace;
use super::preflight::Shortfall;
use super::server_error::ServerError;
use super::sqlstate::passes;
use super::tls::TlsError;
use crate::allocation;
use crate::config::SecretError;

/// An error of Postgres.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection to a host.
    #[error("cannot connect to {address}")]
    Connect {
        /// The host and port, or the socket file.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// None of several hosts is suitable.
    #[error("none of the hosts can be used: {}", list(attempts))]
    Hosts {
        /// Each host with what went wrong there.
        attempts: Vec<(String, Error)>,
    },
    /// The server is not of the requested kind.
    #[error("{address} is not {wanted}, as target_session_attrs requires")]
    WrongTarget {
        /// The host.
        address: String,
        /// The requested kind of server.
        wanted: &'static str,
    },
    /// The connection broke.
    #[error("the connection to the server is lost while {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The server closed the connection without an error.
    #[error("the server closed the connection")]
    Closed,
    /// The server did not respond in time.
    #[error("the server did not respond to {doing} within {} ms", after.as_millis())]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// The time waited.
        after: Duration,
    },
    /// The server was asked to reply and sent nothing: the connection is dead.
    #[error("the server sent nothing for {} ms although it was asked to reply: the connection is \
             dead", after.as_millis())]
    Silent {
        /// The time waited.
        after: Duration,
    },
    /// A table is altered while it is being read.
    #[error("{table} is being altered or locked by another session")]
    Altered {
        /// The table.
        table: String,
    },
    /// The bytes do not follow the protocol.
    #[error("the server does not follow the protocol: {what}")]
    Malformed {
        /// What is wrong with them.
        what: &'static str,
    },
    /// The system refuses the memory that a row needs.
    #[error("{}", allocation::refused(*bytes))]
    Memory {
        /// Its size.
        bytes: usize,
    },
    /// A message that is not allowed at this point.
    #[error("the server does not follow the protocol: message {tag:?} while {doing}")]
    Unexpected {
        /// Its tag.
        tag: char,
        /// What was being done.
        doing: &'static str,
    },
    /// A message of the stream is not a walsender's.
    #[error("the server does not follow the protocol")]
    Frame(#[from] FrameError),
    /// TLS cannot be prepared.
    #[error("cannot prepare TLS for {address}")]
    Tls {
        /// The host.
        address: String,
        /// The cause.
        source: TlsError,
    },
    /// TLS was tried and failed.
    #[error("the TLS handshake with {address} fails: {source}")]
    TlsHandshake {
        /// The host.
        address: String,
        /// The cause; if a certificate is not accepted, the reason.
        source: io::Error,
    },
    /// The server has no TLS.
    #[error("{address} does not offer TLS, which sslmode requires")]
    NoTls {
        /// The host.
        address: String,
    },
    /// The password can't be read.
    #[error("reading the password: {0}")]
    Password(#[from] SecretError),
    /// The server wants a password and there is none.
    #[error("the server requests the password of {user:?} and none is set")]
    PasswordMissing {
        /// The role.
        user: String,
    },
    /// The server requests the password in clear text on an open network.
    #[error("the server asks for the password in clear text over a connection without TLS")]
    CleartextRefused,
    /// An authentication method that is not supported.
    #[error("the server requests authentication by {method}, which is not supported")]
    AuthMethod {
        /// The method.
        method: String,
    },
    /// The login cannot be bound to the TLS channel.
    #[error("channel_binding=require cannot be met: {why}")]
    ChannelBinding {
        /// Why.
        why: &'static str,
    },
    /// The SCRAM exchange fails on our side: the server does not know the password either.
    #[error("the server fails to prove that it knows the password")]
    Scram {
        /// The cause.
        source: io::Error,
    },
    /// The server refuses the login.
    #[error("the server refuses the login: {0}")]
    AuthFailed(Box<ServerError>),
    /// Another process reads from the slot.
    #[error("the replication slot {slot:?} is in use{}", by_pid(*pid))]
    SlotActive {
        /// The slot.
        slot: String,
        /// The server process that holds it.
        pid: Option<i32>,
        /// The server's error; `None` if found before trying.
        source: Option<Box<ServerError>>,
    },
    /// There is no such slot.
    #[error("the replication slot {slot:?} does not exist")]
    SlotMissing {
        /// The slot.
        slot: String,
        /// As reported.
        source: Box<ServerError>,
    },
    /// The slot existed and was used, and is gone.
    #[error("the replication slot {slot:?} is gone: it was dropped, or lost in a failover")]
    SlotGone {
        /// The slot.
        slot: String,
    },
    /// The slot already exists.
    #[error("the replication slot {slot:?} already exists")]
    SlotExists {
        /// The slot.
        slot: String,
        /// As reported.
        source: Box<ServerError>,
    },
    /// The slot lost the WAL it needs.
    #[error("the WAL that the replication slot {slot:?} needs is gone: {source}")]
    WalRemoved {
        /// The slot.
        slot: String,
        /// As reported.
        source: Box<ServerError>,
    },
    /// The server fails to decode for a slot, or to read a table. It may be temporary.
    #[error("{}: {}", .0.doing(), .0.source)]
    Decoding(Box<Stuck>),
    /// The same, and it is not temporary.
    #[error("{}: {}; {}", .0.doing(), .0.cause(), .0.source)]
    Stuck(Box<Stuck>),
    /// The server is a standby, which is not suitable.
    #[error("the server of postgres.url is a standby{}", match is_too_old {
        true => ", and changes can be read from one only from version 16 on",
        false => ", where no publication can be created or altered, and postgres.manage is true",
    })]
    Standby {
        /// Whether its version can't decode on a standby.
        is_too_old: bool,
        /// Whether this process has streamed: then it may be about to be promoted.
        has_streamed: bool,
    },
    /// A publication is gone.
    #[error("a publication does not exist: {0}")]
    PublicationMissing(#[source] Box<ServerError>),
    /// All walsenders are in use.
    #[error("the server has no free walsender: {0}")]
    TooManyWalsenders(#[source] Box<ServerError>),
    /// All slots are in use.
    #[error("the server has no free replication slot: {0}")]
    TooManySlots(#[source] Box<ServerError>),
    /// Any other refusal.
    #[error("the server reports: {0}")]
    Server(Box<ServerError>),
    /// An SQL query failed.
    #[error("cannot {doing}: {}", sql_cause(source))]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// The server or the role does not meet a requirement.
    #[error("the database can't be used as it is set up: {}", causes(shortfalls))]
    Preflight {
        /// Every requirement that is not met.
        shortfalls: Vec<Shortfall>,
    },
    /// The thread of the reader cannot be started.
    #[error("the thread that reads the stream can't be started")]
    Thread(#[source] io::Error),
    /// The thread of the reader ended in a panic.
    #[error("the reader thread ended in a panic")]
    ReaderPanicked,
}

fn causes(shortfalls: &[Shortfall]) -> String {
    shortfalls.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        let class = error.sqlstate.get(..2).unwrap_or_default();
        match error.sqlstate.as_str() {
            // The setting's name is never translated.
            "53300" if error.message.contains("max_wal_senders") => {
                Self::TooManyWalsenders(Box::new(error))
            }
            "53400" => Self::TooManySlots(Box::new(error)),
            _ if class == "28" => Self::AuthFailed(Box::new(error)),
            _ => Self::Server(Box::new(error)),
        }
    }
}

impl Error {
    /// A failed login of the SQL library, classified like those of our own.
    ///
    /// The library has no codes for what it refuses itself, so this is inferred from what was
    /// missing.
    #[must_use]
    pub(crate) fn logging_in(
        source: tokio_postgres::Error,
        user: &str,
        has_password: bool,
        must_bind: bool,
    ) -> Self {
        if let Some(error) = source.as_db_error() {
            return ServerError::from(error).into();
        }
        match io_cause(&source).map(io::Error::kind) {
            // Only our own socket returns this.
            Some(io::ErrorKind::PermissionDenied) => Self::CleartextRefused,
            None if !source.is_closed() && !has_password => {
                Self::PasswordMissing { user: user.to_owned() }
            }
            None if !source.is_closed() && must_bind => {
                Self::ChannelBinding { why: "the connection or the server has none" }
            }
            _ => Self::Sql { doing: "log in", source },
        }
    }

    /// Classifies an error that a command about `slot` returned.
    #[must_use]
    pub(crate) fn about_slot(self, slot: &str) -> Self {
        let Self::Server(source) = self else { return self };
        let slot = slot.to_owned();
        match source.sqlstate.as_str() {
            "55006" => {
                let pid = last_number(&source.message);
                Self::SlotActive { slot, pid, source: Some(source) }
            }
            "42704" => Self::SlotMissing { slot, source },
            "42710" => Self::SlotExists { slot, source },
            _ => Self::decoding(slot, StreamPlace::default(), 0, source),
        }
    }

    /// Classifies an error in the stream of `slot`, after `place`.
    #[must_use]
    pub(crate) fn in_stream_of(self, slot: &str, place: StreamPlace, server_version: u32) -> Self {
        let Self::Server(source) = self else { return self };
        match source.sqlstate.as_str() {
            // The slot is held by then; only a publication can still be undefined.
            "42704" => Self::PublicationMissing(source),
            _ => Self::decoding(slot.to_owned(), place, server_version, source),
        }
    }

    fn decoding(
        slot: String,
        place: StreamPlace,
        server_version: u32,
        source: Box<ServerError>,
    ) -> Self {
        match decoding::meaning(&source) {
            Meaning::Lost => Self::WalRemoved { slot, source },
            Meaning::Stuck => {
                let slot = Some(slot);
                Self::Decoding(Box::new(Stuck { slot, place, server_version, source }))
            }
            Meaning::Other => Self::Server(source),
        }
    }

    /// What identifies a failure that may be permanent: retrying it would hold WAL back forever.
    #[must_use]
    pub(crate) fn may_be_stuck(&self) -> Option<String> {
        match self {
            Self::Decoding(stuck)
                if stuck.source.sqlstate == "XX000" || decoding::is_too_large(&stuck.source) =>
            {
                Some(format!("{:?} {}", stuck.place, stuck.source))
            }
            _ => None,
        }
    }

    /// Whether it is due to a row that is too large to be sent, which a retry does not change.
    #[must_use]
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self, Self::Decoding(stuck) if decoding::is_too_large(&stuck.source))
    }

    /// The failure once it is known to be permanent.
    #[must_use]
    pub(crate) fn into_stuck(self) -> Self {
        match self {
            Self::Decoding(stuck) => Self::Stuck(stuck),
            error => error,
        }
    }

    /// Classifies an error while rows were read.
    #[must_use]
    pub(crate) fn in_copy(self) -> Self {
        match self {
            // No decoding is involved, which might succeed the next time.
            Self::Server(source) if decoding::is_too_large(&source) => {
                let place = StreamPlace::default();
                Self::Stuck(Box::new(Stuck { slot: None, place, server_version: 0, source }))
            }
            error => error,
        }
    }

    /// Says of a lock that was not free in time which table it is on.
    #[must_use]
    pub(crate) fn locking(self, table: impl std::fmt::Display) -> Self {
        match self {
            // lock_not_available
            Self::Server(source) if source.sqlstate == "55P03" => {
                Self::Altered { table: table.to_string() }
            }
            error => error,
        }
    }

    /// The server's SQLSTATE, if it sent one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::AuthFailed(error)
            | Self::PublicationMissing(error)
            | Self::TooManyWalsenders(error)
            | Self::TooManySlots(error)
            | Self::Server(error)
            | Self::SlotActive { source: Some(error), .. }
            | Self::SlotMissing { source: error, .. }
            | Self::SlotExists { source: error, .. }
            | Self::WalRemoved { source: error, .. } => Some(&error.sqlstate),
            Self::Decoding(stuck) | Self::Stuck(stuck) => Some(&stuck.source.sqlstate),
            Self::Sql { source, .. } => source.code().map(tokio_postgres::error::SqlState::code),
            _ => None,
        }
    }

    /// Whether a later retry may succeed without anyone acting.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Closed
            | Self::Timeout { .. }
            | Self::Silent { .. }
            | Self::WrongTarget { .. }
            | Self::SlotActive { .. }
            // Another copy created it meanwhile.
            | Self::SlotExists { .. }
            // The next session decides from the slot's state and what is published.
            | Self::WalRemoved { .. }
            | Self::Decoding(_)
            | Self::TooManyWalsenders(_)
            // The other session's lock ends at some time.
            | Self::Altered { .. } => true,
            Self::Standby { has_streamed, .. } => *has_streamed,
            Self::Password(source) => source.is_transient(),
            Self::Io { source, .. } => !is_refused_by_tls(source),
            Self::Hosts { attempts } => attempts.iter().any(|(_, error)| error.is_transient()),
            Self::TlsHandshake { source, .. } => source.kind() != io::ErrorKind::InvalidData,
            Self::Sql { source, .. } => match source.code() {
                Some(code) => passes(code.code()),
                // Without an error of the server, the connection broke.
                None => match io_cause(source) {
                    Some(cause) => !is_refused_by_tls(cause),
                    None => source.is_closed(),
                },
            },
            Self::Server(error) => passes(&error.sqlstate),
            _ => false,
        }
    }
}

/// Whether TLS ended a connection that seemed established: in version 1.3 the server checks the
/// client's certificate only after the client has finished its handshake.
fn is_refused_by_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

fn io_cause(error: &tokio_postgres::Error) -> Option<&io::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

fn sql_cause(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} (SQLSTATE {})", error.message(), error.code().code()),
        None => error.to_string(),
    }
}

fn by_pid(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" by server process {pid}"))
}

/// The process id is the last number of the message, in every language.
fn last_number(message: &str) -> Option<i32> {
    let mut runs = message.rsplit(|c: char| !c.is_ascii_digit());
    runs.find(|run| !run.is_empty())?.parse().ok()
}

fn list(attempts: &[(String, Error)]) -> String {
    let attempt = |(address, error): &(String, Error)| match std::error::Error::source(error) {
        Some(cause) => format!("{address}: {error}: {cause}"),
        None => format!("{address}: {error}"),
    };
    attempts.iter().map(attempt).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
