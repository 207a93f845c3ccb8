//! From a connection string to one logged-in connection: which host, in which order, for how long.
//!
//! Hosts are tried in order, as libpq does: a host that cannot be reached or is of the wrong kind
//! gives way to the next, a refused login does not, because the same user and password go to all.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::Error;
use super::conninfo::{ConnInfo, Host, SslMode, TargetSessionAttrs};
use super::socket::{Encryption, encryption_attempts};
use super::tls;

/// One way to one host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) host: &'a Host,
    pub(crate) encryption: Encryption,
    /// The kind of server that will do.
    pub(crate) target: TargetSessionAttrs,
    /// Whether the next candidate is this host again with another encryption.
    pub(crate) has_fallback: bool,
}

/// All ways, in order. `prefer-standby` goes round twice: first for a standby, then for any.
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

/// Collects what went wrong on the way to the first host that will do.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Vec<(String, Error)>);

impl Attempts {
    /// Notes a failure; gives it back when the hosts after it are not to be tried.
    pub(crate) fn note(&mut self, candidate: &Candidate<'_>, error: Error) -> Result<(), Error> {
        // A server may refuse one encryption in pg_hba.conf and take the other.
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

    /// The error when no host would do.
    pub(crate) fn into_error(mut self) -> Error {
        match self.0.len() {
            1 => self.0.remove(0).1,
            _ => Error::Hosts { attempts: self.0 },
        }
    }
}

/// The TLS configuration, where any host needs one.
pub(crate) fn tls_config(info: &ConnInfo) -> Result<Arc<ClientConfig>, Error> {
    let failed = |source| {
        let address = info.hosts().first().map_or_else(String::new, ToString::to_string);
        Error::Tls { address, source }
    };
    if info.ssl_mode == SslMode::Disable {
        // Files that a connection without TLS would not read are no reason to refuse it.
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

/// Asks what kind of server this is: in recovery, and read-only, each `t` or `f`.
pub(crate) const TARGET_QUERY: &str = include_str!("../../sql/server_kind.sql");

/// Whether a server of this kind will do.
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
