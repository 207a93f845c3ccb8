//! What can go wrong with Postgres, distinguished as far as someone must act differently.
//!
//! The bridge retries what [`Error::is_transient`] says passes by itself; all else stops it and
//! [`Error::fix`] goes to the operator.

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

/// What can go wrong with Postgres.
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
    /// None of several hosts would do.
    #[error("none of the hosts can be used: {}", list(attempts))]
    Hosts {
        /// Each host with what went wrong there.
        attempts: Vec<(String, Error)>,
    },
    /// The server is of another kind than asked for.
    #[error("{address} is not {wanted}, as target_session_attrs asks")]
    WrongTarget {
        /// The host.
        address: String,
        /// The kind of server asked for.
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
    /// The server hung up without a word.
    #[error("the server closed the connection")]
    Closed,
    /// The server did not answer in time.
    #[error("the server gives no answer to {doing} within {} ms", after.as_millis())]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// The time waited.
        after: Duration,
    },
    /// The server was asked and said nothing: nobody is there, though nobody said so.
    #[error("the server sent nothing for {} ms although it was asked: the connection is dead", after.as_millis())]
    Silent {
        /// The time waited.
        after: Duration,
    },
    /// A table is altered while it is looked at.
    #[error("{table} is altered, or locked, by somebody else just now")]
    Altered {
        /// The table.
        table: String,
    },
    /// The bytes are not the protocol's.
    #[error("the server does not follow the protocol: {what}")]
    Malformed {
        /// What is wrong with them.
        what: &'static str,
    },
    /// A row that memory is refused for.
    #[error("{}", allocation::refused(*bytes))]
    Memory {
        /// Its size.
        bytes: usize,
    },
    /// A message that has no place where it came.
    #[error("the server does not follow the protocol: message {tag:?} while {doing}")]
    Unexpected {
        /// Its tag.
        tag: char,
        /// What was being done.
        doing: &'static str,
    },
    /// A message of the stream is not one of a walsender's.
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
        /// The cause; of a certificate that is not accepted, its reason.
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
    #[error("the server asks for the password of {user:?} and none is set")]
    PasswordMissing {
        /// The role.
        user: String,
    },
    /// The server wants the password readable on an open network.
    #[error("the server asks for the password in clear text over a connection without TLS")]
    CleartextRefused,
    /// A way to log in that is not known here.
    #[error("the server asks to log in by {method}, which is not supported")]
    AuthMethod {
        /// The way.
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
        /// As reported; none where it was seen before it was tried.
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
    /// There was such a slot, and it was read from.
    #[error(
        "the replication slot {slot:?} is gone: it was dropped, or a failover did not carry it over"
    )]
    SlotGone {
        /// The slot.
        slot: String,
    },
    /// There is one already.
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
    /// The server fails to decode for a slot, or to read a table. It may pass.
    #[error("{}: {}", .0.doing(), .0.source)]
    Decoding(Box<Stuck>),
    /// The same, and it does not pass.
    #[error("{}: {}; {}", .0.doing(), .0.cause(), .0.source)]
    Stuck(Box<Stuck>),
    /// The server is a standby, which can't be what it is to be.
    #[error("the server of postgres.url is a standby{}", match is_too_old {
        true => ", and changes can be read from one only from version 16 on",
        false => ", where no publication can be created or altered, and postgres.manage is true",
    })]
    Standby {
        /// Whether its version can't decode on a standby.
        is_too_old: bool,
        /// Whether this process has streamed: then it may be promoted in a moment.
        has_streamed: bool,
    },
    /// A publication is gone.
    #[error("a publication does not exist: {0}")]
    PublicationMissing(#[source] Box<ServerError>),
    /// All places for walsenders are taken.
    #[error("the server has no free walsender: {0}")]
    TooManyWalsenders(#[source] Box<ServerError>),
    /// All places for slots are taken.
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
    /// The server or the role can't do what is needed.
    #[error("the database can't be used as it is set up: {}", causes(shortfalls))]
    Preflight {
        /// Everything that does not hold.
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
    /// A login by the SQL library that failed, distinguished as those of our own are.
    ///
    /// The library has no codes for what it refuses itself, so that is told from what it lacked.
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
            // Only our own socket says this.
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

    /// Says of an error that came in answer to a command about `slot` what it means for it.
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

    /// Says of an error that came in the stream of `slot`, behind `place`, what it means.
    #[must_use]
    pub(crate) fn in_stream_of(self, slot: &str, place: StreamPlace, server_version: u32) -> Self {
        let Self::Server(source) = self else { return self };
        match source.sqlstate.as_str() {
            // The slot is held by then; what can still be undefined is a publication.
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

    /// What makes the failure the same as another, where it may be one that does not pass: trying for
    /// long would hold WAL back for ever.
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

    /// Whether it is about a row that is too large to be sent, which trying again does not change.
    #[must_use]
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self, Self::Decoding(stuck) if decoding::is_too_large(&stuck.source))
    }

    /// The failure once it is known not to pass.
    #[must_use]
    pub(crate) fn into_stuck(self) -> Self {
        match self {
            Self::Decoding(stuck) => Self::Stuck(stuck),
            error => error,
        }
    }

    /// Says of an error that came while rows were read what it means.
    #[must_use]
    pub(crate) fn in_copy(self) -> Self {
        match self {
            // There is no decoding that may do better the next time.
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

    /// The server's condition code, where the server spoke.
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

    /// Whether trying again later can help without anyone acting.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Closed
            | Self::Timeout { .. }
            | Self::Silent { .. }
            | Self::WrongTarget { .. }
            | Self::SlotActive { .. }
            // Another copy made it meanwhile.
            | Self::SlotExists { .. }
            // The next session decides by the slot's state, and what is published.
            | Self::WalRemoved { .. }
            | Self::Decoding(_)
            | Self::TooManyWalsenders(_)
            // Whoever alters it ends some time.
            | Self::Altered { .. } => true,
            Self::Standby { has_streamed, .. } => *has_streamed,
            Self::Password(source) => source.is_transient(),
            Self::Io { source, .. } => !is_refused_by_tls(source),
            Self::Hosts { attempts } => attempts.iter().any(|(_, error)| error.is_transient()),
            Self::TlsHandshake { source, .. } => source.kind() != io::ErrorKind::InvalidData,
            Self::Sql { source, .. } => match source.code() {
                Some(code) => passes(code.code()),
                // Without a word from the server it is the connection that broke.
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

/// Whether a connection that seemed to stand was ended by TLS: in version 1.3 the server looks at
/// the client's certificate only after the client thinks that all is done.
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

/// The process id stands last in the message, in every language.
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
