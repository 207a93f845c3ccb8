//! What can go wrong with Postgres, told apart as far as someone must act differently.
//!
//! The bridge retries what [`Error::is_transient`] says passes by itself; all else stops it and
//! [`Error::fix`] goes to the operator.

use std::io;
use std::time::Duration;

use super::condition::{self, passes};
use super::frame::FrameError;
use super::preflight::{self, Shortfall};
use super::server_error::ServerError;
use super::tls::TlsError;
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
    /// A login by the SQL library that failed, told apart as those of our own are.
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
            // Invalidated, or a segment that is no longer there.
            "55000" | "58P01" => Self::WalRemoved { slot, source },
            _ => Self::Server(source),
        }
    }

    /// Says of an error that came in the stream of `slot` what it means.
    #[must_use]
    pub(crate) fn in_stream_of(self, slot: &str) -> Self {
        let Self::Server(source) = self else { return self };
        match source.sqlstate.as_str() {
            // The slot is held by then; what can still be undefined is a publication.
            "42704" => Self::PublicationMissing(source),
            // Invalidated while it is read, or a segment that is no longer there.
            "55000" | "58P01" => Self::WalRemoved { slot: slot.to_owned(), source },
            _ => Self::Server(source),
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
            | Self::TooManyWalsenders(_) => true,
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

    /// What an operator can do about it, where that is known.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::Connect { .. } => {
                "check host and port of postgres.url, and that the server runs and listens there"
            }
            Self::Hosts { attempts } => return attempts.iter().find_map(|(_, error)| error.fix()),
            Self::Preflight { shortfalls } => {
                return Some(preflight::fix(shortfalls));
            }
            Self::Password(source) => return Some(source.fix()),
            Self::PasswordMissing { .. } => {
                "set postgres.password_file, PGPASSWORD, or the password in postgres.url"
            }
            Self::CleartextRefused => {
                "set sslmode=verify-full in postgres.url, or scram-sha-256 in pg_hba.conf"
            }
            Self::NoTls { .. } => "set ssl = on in postgresql.conf, or sslmode=prefer",
            Self::TlsHandshake { .. } => {
                "check sslrootcert, and for verify-full that the certificate's subject alternative \
                 names hold the host"
            }
            Self::Io { source, .. } if is_refused_by_tls(source) => FIX_CLIENT_CERTIFICATE,
            Self::Sql { source, .. } if io_cause(source).is_some_and(is_refused_by_tls) => {
                FIX_CLIENT_CERTIFICATE
            }
            Self::AuthMethod { .. } => "use scram-sha-256, md5 or cert in pg_hba.conf",
            Self::ChannelBinding { .. } => "use TLS and scram-sha-256, or channel_binding=prefer",
            Self::AuthFailed(_) => {
                "check user and password, and that pg_hba.conf lets this host connect to the \
                 database"
            }
            Self::SlotActive { slot, pid, .. } => return Some(fix_active(slot, *pid)),
            Self::WalRemoved { slot, source } => {
                let limit = match source.to_string().contains("idle_timeout") {
                    true => "idle_replication_slot_timeout, or set it to 0",
                    false => "max_slot_wal_keep_size",
                };
                return Some(format!(
                    "the changes since are lost to the slot {slot:?}: {FIX_LOST}. Raise {limit}"
                ));
            }
            Self::PublicationMissing(_) => {
                "what was written since is in no stream, whatever is made later: rowcast teardown, \
                 then rowcast run, which reads all rows again"
            }
            Self::TooManyWalsenders(_) => "raise max_wal_senders in postgresql.conf and restart",
            Self::TooManySlots(_) => {
                "drop an unused slot (SELECT slot_name FROM pg_replication_slots WHERE NOT active) \
                 or raise max_replication_slots and restart"
            }
            Self::WrongTarget { .. } => {
                "name all hosts in postgres.url, so that the one of this kind can be found"
            }
            Self::SlotMissing { slot, .. } | Self::SlotGone { slot } => {
                return Some(format!(
                    "what was written since the slot {slot:?} was dropped can't be read any more: \
                     {FIX_LOST}"
                ));
            }
            Self::Server(error) => {
                return error.hint.clone().or_else(|| fix_of(&error.sqlstate));
            }
            Self::Sql { source, .. } => return source.code().and_then(|code| fix_of(code.code())),
            _ => return None,
        };
        Some(fix.to_owned())
    }
}

fn fix_active(slot: &str, pid: Option<i32>) -> String {
    let slot = postgres_protocol::escape::escape_literal(slot);
    let held = pid.map_or_else(
        || format!("SELECT active_pid FROM pg_replication_slots WHERE slot_name = {slot}"),
        |pid| format!("SELECT * FROM pg_stat_activity WHERE pid = {pid}"),
    );
    format!("stop the other reader, or wait for it: {held}")
}

/// How to go on where changes can't be read any more.
const FIX_LOST: &str = "set postgres.on_gap = \"snapshot\", and all rows are read again. Only where \
                        the changes may be lost: rowcast run --accept-gap goes on without them";

const FIX_CLIENT_CERTIFICATE: &str =
    "check sslcert and sslkey, and that the server's ssl_ca_file holds who signed the certificate";

/// Whether a connection that seemed to stand was ended by TLS: in version 1.3 the server looks at
/// the client's certificate only after the client thinks that all is done.
fn is_refused_by_tls(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

fn fix_of(sqlstate: &str) -> Option<String> {
    condition::find(sqlstate)?.fix.map(str::to_owned)
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
