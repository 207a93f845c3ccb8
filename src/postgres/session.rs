//! Opens one logged-in connection from a connection string: which host, in which order, for how
//! long.
//!
//! Hosts are tried in order, as in libpq: after a host that can't be reached or is of the wrong
//! kind, the next is tried; after a refused login it is not, because the user and password are the
//! same for all.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::conninfo::{ConnInfo, Host, SslMode, TargetSessionAttrs};
use super::socket::{self, Encryption, Socket, encryption_attempts};
use super::startup::{self, Login, Parameters, Purpose};
use super::wire::{self, Wire};
use super::{Error, limits, search_path, tls};
use crate::config::Resolved;

/// Longest wait for the response to a replication command, if `watchdog` sets none.
const ANSWER: Duration = Duration::from_secs(60);

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Longest wait for one host, if the connection string sets none.
    pub connect_timeout: Duration,
    /// Name shown in `pg_stat_activity`, if the connection string sets none.
    pub application_name: String,
    /// Longest time between two status updates. A third of the server's `wal_sender_timeout` is
    /// used if that is shorter.
    pub status_interval: Duration,
    /// Longest wait for the response to a replication command that the server answers at once.
    pub answer_timeout: Duration,
}

impl ConnectOptions {
    /// From the configuration.
    #[must_use]
    pub fn of(settings: &Resolved) -> Self {
        Self {
            connect_timeout: settings.connect_timeout,
            application_name: format!("rowcast {}", settings.name),
            status_interval: settings.status_interval,
            answer_timeout: settings.watchdog.server_silent_after.unwrap_or(ANSWER),
        }
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            application_name: "rowcast".to_owned(),
            status_interval: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(60),
        }
    }
}

/// One way to connect to one host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) host: &'a Host,
    pub(crate) encryption: Encryption,
    /// The kind of server that is acceptable.
    pub(crate) target: TargetSessionAttrs,
    /// Whether the next candidate is the same host with another encryption.
    pub(crate) has_fallback: bool,
}

/// All ways, in order. `prefer-standby` has two rounds: first for a standby, then for any.
pub(crate) fn candidates(info: &ConnInfo) -> Vec<Candidate<'_>> {
    let targets = match info.target_session_attrs {
        TargetSessionAttrs::PreferStandby => {
            vec![TargetSessionAttrs::Standby, TargetSessionAttrs::Any]
        }
        target => vec![target],
    };
    let mut candidates = Vec::new();
    for target in targets {
        for host in info.hosts() {
            let ways = encryption_attempts(info, host);
            for (index, encryption) in ways.iter().copied().enumerate() {
                let has_fallback = index + 1 < ways.len();
                candidates.push(Candidate { host, encryption, target, has_fallback });
            }
        }
    }
    candidates
}

/// A connection that is logged in.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) wire: Wire<Socket>,
    /// What the server reported about itself.
    pub(crate) parameters: Parameters,
    /// The host that was connected to.
    pub(crate) host: Host,
    /// How it was reached.
    pub(crate) encryption: Encryption,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Session {
    /// Connects to the first host that will do and logs in.
    pub(crate) async fn open(
        info: &ConnInfo,
        options: &ConnectOptions,
        purpose: Purpose,
    ) -> Result<Self, Error> {
        let info = &info.with_fresh_password().await?;
        let tls = tls_config(info)?;
        let limit = connect_timeout(info, options.connect_timeout);
        let mut attempts = Attempts::default();
        for candidate in candidates(info) {
            let connected = Self::attempt(info, options, purpose, &candidate, &tls);
            let result = match tokio::time::timeout(limit, connected).await {
                Ok(result) => result,
                Err(_) => Err(Error::Timeout { doing: "connecting", after: limit }),
            };
            match result {
                Ok(session) => return Ok(session),
                Err(error) => attempts.note(&candidate, error)?,
            }
        }
        Err(attempts.into_error())
    }

    async fn attempt(
        info: &ConnInfo,
        options: &ConnectOptions,
        purpose: Purpose,
        candidate: &Candidate<'_>,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, Error> {
        let mut socket = socket::connect(info, candidate.host, candidate.encryption, tls).await?;
        let end_point = socket.end_point.take();
        let login = Login {
            purpose,
            user: info.user(),
            database: info.database(),
            application_name: info.application_name.as_deref().unwrap_or(&options.application_name),
            options: info.options.as_deref(),
            password: info.password_for(candidate.host),
            channel_binding: info.channel_binding,
            end_point: end_point.as_deref(),
            is_private: socket.is_private(),
            is_tls: socket.is_tls(),
        };
        let mut wire = Wire::new(socket);
        let parameters = startup::log_in(&mut wire, &login).await?;
        if purpose == Purpose::Reading {
            wire::query(&mut wire, search_path::BEGIN).await?;
        }
        wire::query(&mut wire, limits::LIFT).await?;
        if candidate.target != TargetSessionAttrs::Any {
            let rows = wire::query(&mut wire, TARGET_QUERY).await?;
            let is = |column| wire::text(&rows, column).map(|text| text == "true");
            check_target(candidate, is(0)?, is(1)?)?;
        }
        let (host, encryption) = (candidate.host.clone(), candidate.encryption);
        Ok(Self { wire, parameters, host, encryption, tls: Arc::clone(tls) })
    }

    /// The server's version as a number: 15.19 is 150019. Zero when it reported none.
    pub(crate) fn server_version(&self) -> u32 {
        self.parameters.get("server_version").map_or(0, |text| version_number(text))
    }

    /// A SQL_ASCII database may contain any bytes. With client_encoding UTF-8, its server would end
    /// the stream, or a COPY, at the first row that is not valid; without conversion, the row
    /// reaches us, and we can report its position and handle it as configured.
    pub(crate) async fn take_bytes_as_they_are(&mut self) -> Result<(), Error> {
        if self.parameters.get("server_encoding").is_some_and(|encoding| encoding == "SQL_ASCII") {
            wire::query(&mut self.wire, "SET client_encoding = 'SQL_ASCII'").await?;
        }
        Ok(())
    }
}

/// `17.10 (Debian 17.10-1.pgdg12+1)` is 170010, `18beta1` is 180000, `9.6.24` is 90624.
fn version_number(text: &str) -> u32 {
    let digits = text.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
    let parts: Result<Vec<u32>, _> = digits.split('.').map(str::parse).collect();
    let part = |index| parts.as_ref().ok().and_then(|parts| parts.get(index)).copied().unwrap_or(0);
    match part(0) {
        major @ 10.. => major.saturating_mul(10_000).saturating_add(part(1)),
        major => major * 10_000 + part(1).min(99) * 100 + part(2).min(99),
    }
}

/// Collects the failures on the way to the first suitable host.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Vec<(String, Error)>);

impl Attempts {
    /// Notes a failure; returns it if the remaining hosts must not be tried.
    pub(crate) fn note(&mut self, candidate: &Candidate<'_>, error: Error) -> Result<(), Error> {
        // A server may refuse one encryption in pg_hba.conf and accept the other.
        let refused_encryption = candidate.has_fallback
            && matches!(&error, Error::AuthFailed(e) if e.sqlstate == "28000");
        let elsewhere = matches!(
            error,
            Error::Connect { .. }
                | Error::Io { .. }
                | Error::Closed
                | Error::Timeout { .. }
                | Error::WrongTarget { .. }
                | Error::NoTls { .. }
                | Error::TlsHandshake { .. }
                | Error::Server(_)
                | Error::TooManyWalsenders(_)
        );
        if refused_encryption || elsewhere {
            self.0.push((candidate.host.to_string(), error));
            return Ok(());
        }
        Err(error)
    }

    /// The error if no host is suitable.
    pub(crate) fn into_error(mut self) -> Error {
        match self.0.len() {
            1 => self.0.remove(0).1,
            _ => Error::Hosts { attempts: self.0 },
        }
    }
}

/// The TLS configuration, if any host needs one.
pub(crate) fn tls_config(info: &ConnInfo) -> Result<Arc<ClientConfig>, Error> {
    let failed = |source| {
        let address = info.hosts().first().map_or_else(String::new, ToString::to_string);
        Error::Tls { address, source }
    };
    if info.ssl_mode == SslMode::Disable {
        // A connection without TLS does not fail because of files that it would not read.
        let mut plain = info.clone();
        plain.client_certificate = None;
        return tls::client_config(&plain).map_err(failed);
    }
    tls::client_config(info).map_err(failed)
}

/// The limit on one attempt: the connection string's own, else the caller's.
pub(crate) fn connect_timeout(info: &ConnInfo, otherwise: Duration) -> Duration {
    info.connect_timeout.unwrap_or(otherwise)
}

/// Reads the kind of server: in recovery, and read-only, each `t` or `f`.
pub(crate) const TARGET_QUERY: &str = include_str!("../../sql/server_kind.sql");

/// Whether a server of this kind is acceptable.
pub(crate) fn check_target(
    candidate: &Candidate<'_>,
    in_recovery: bool,
    read_only: bool,
) -> Result<(), Error> {
    let (will_do, wanted) = match candidate.target {
        TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => (true, "any"),
        TargetSessionAttrs::ReadWrite => (!read_only, "read-write"),
        TargetSessionAttrs::ReadOnly => (read_only, "read-only"),
        TargetSessionAttrs::Primary => (!in_recovery, "a primary"),
        TargetSessionAttrs::Standby => (in_recovery, "a standby"),
    };
    if will_do {
        return Ok(());
    }
    Err(Error::WrongTarget { address: candidate.host.to_string(), wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_print_them() {
        for (text, number) in [
            ("17.10 (Debian 17.10-1.pgdg12+1)", 170_010),
            ("15.19", 150_019),
            ("18beta1", 180_000),
            ("18devel", 180_000),
            ("9.6.24", 90_624),
            ("", 0),
            ("99999999999.1", 0),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }
}
