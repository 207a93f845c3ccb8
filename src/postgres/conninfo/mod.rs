//! Reads a connection string: where the database is, and how to log in.
//!
//! Our own parser, because the one of `tokio-postgres` knows neither `verify-full` nor certificate
//! files nor password files, and both connections (SQL and replication) must mean the same by the
//! same string. It follows libpq: a URL or `key=value` pairs, `PG*` variables as defaults, several
//! hosts in order. An unknown key is an error, never ignored: it is most often a misspelt one.
//!
//! Not here: sockets and certificates (`socket`, `tls`), service files, Kerberos.
//!
//! <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS>

mod parse;
mod passfile;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use self::passfile::PassFileSource;
use self::settings::Settings;
use crate::config::{Secret, SecretError, SecretSource};

/// Where the database is, and how to log in.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnInfo {
    hosts: Vec<Host>,
    user: String,
    database: String,
    password: Option<Secret>,
    /// Where the hosts' passwords are looked up at every connection, if not set elsewhere.
    password_file: Option<PassFileSource>,
    /// Where the password is read from at every connection.
    password_source: Option<SecretSource>,
    /// Whether to use TLS. Unix sockets never use it.
    pub ssl_mode: SslMode,
    /// What a server's certificate is checked against; `None` if it is not checked.
    pub ssl_roots: SslRoots,
    /// Our own certificate and key (PEM), if the server requests one.
    pub client_certificate: Option<ClientCertificate>,
    /// Whether the authentication must be bound to the TLS channel.
    pub channel_binding: ChannelBinding,
    /// Which of several servers is acceptable.
    pub target_session_attrs: TargetSessionAttrs,
    /// Longest wait for one host, if set.
    pub connect_timeout: Option<Duration>,
    /// The name shown in `pg_stat_activity`, if set.
    pub application_name: Option<String>,
    /// Server options in command-line form (`-c name=value`), if set.
    pub options: Option<String>,
    /// TCP keepalive; `None` when switched off.
    pub keepalive: Option<Keepalive>,
    /// Longest time sent data may remain unacknowledged; the system's default if `None`.
    pub tcp_user_timeout: Option<Duration>,
}

/// One server to try.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Where it listens.
    pub address: Address,
    /// Its port; for a Unix socket, a part of the file's name.
    pub port: u16,
    password: Option<Secret>,
}

/// Where libpq builds look for the server's socket: Debian's and Red Hat's directory, then
/// upstream's.
const SOCKET_DIRECTORIES: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket in this directory (one that starts with `@` is abstract).
    Unix(PathBuf),
    /// A name to resolve and to check the certificate against.
    Name(String),
    /// An IP address; the name, if any, is only checked against the certificate.
    Ip(IpAddr, Option<String>),
}

/// Whether to use TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only when the server refuses a plain connection.
    Allow,
    /// When the server offers it; the certificate is not checked.
    Prefer,
    /// Always; the certificate is checked only when there is a root certificate file.
    Require,
    /// Always, with a certificate that a root signed.
    VerifyCa,
    /// Always, with a certificate that a root signed for this host.
    VerifyFull,
}

/// What a server's certificate is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SslRoots {
    /// Nothing: any certificate is accepted.
    None,
    /// The certificates of this PEM file.
    File(PathBuf),
    /// The certificates that the operating system trusts.
    System,
}

/// Our own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Whether the authentication must be bound to the TLS channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When the server can.
    Prefer,
    /// Always: any other authentication is refused.
    Require,
}

/// Which of several servers is acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSessionAttrs {
    /// The first that responds.
    Any,
    /// One that accepts writes.
    ReadWrite,
    /// One that is read-only.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is in recovery.
    Standby,
    /// One that is in recovery or, if there is none, any.
    PreferStandby,
}

/// TCP keepalive; the system's default where `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Quiet time before the first probe.
    pub idle: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Unanswered probes before the connection counts as dead.
    pub count: Option<u32>,
}

/// A connection string that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnInfoError {
    /// Neither a URL nor pairs.
    #[error("the connection string cannot be read: {problem}")]
    Syntax {
        /// What is wrong, without the text.
        problem: &'static str,
    },
    /// A key that libpq does not have either.
    #[error("the connection string has the unknown key {key:?}")]
    UnknownKey {
        /// The key as written.
        key: String,
    },
    /// A key of libpq's that is not supported here.
    #[error("{key} (from {origin}) is not supported: {instead}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// The connection string, or the environment variable.
        origin: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// A value that its key does not accept.
    #[error("{key} (from {origin}) cannot be {value:?}: expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// The connection string, or the environment variable.
        origin: &'static str,
        /// The value; never a password.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// The password file cannot be read.
    #[error("cannot read the password file {}", path.display())]
    PassFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// No user is set, and the operating system provides none.
    #[error("no user is set: add user= to the connection string or set PGUSER")]
    NoUser,
}

impl ConnInfo {
    /// Reads a connection string. Missing values come from the `PG*` variables of `env`, then from
    /// libpq's defaults.
    ///
    /// # Errors
    /// When something can't be understood, with key and origin.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConnInfoError> {
        Settings::collect(parse::pairs(text)?, env)?.resolve(env)
    }

    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The role that logs in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The servers to try, in order.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// One of the hosts alone, required to be a standby.
    #[must_use]
    pub fn standby_at(&self, host: &Host) -> Self {
        let target_session_attrs = TargetSessionAttrs::Standby;
        Self { hosts: vec![host.clone()], target_session_attrs, ..self.clone() }
    }

    /// Reads the password from this source at every connection, whatever the string says.
    pub fn set_password_source(&mut self, source: SecretSource) {
        self.password_source = Some(source);
    }

    /// Whether the password is read again at every connection, and so may change.
    #[must_use]
    pub fn rereads_password(&self) -> bool {
        let is_in_file =
            self.password_file.is_some() && self.hosts.iter().any(|host| host.password.is_some());
        self.password_source.is_some() || is_in_file
    }

    /// The same with the current password.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) async fn with_fresh_password(&self) -> Result<Self, SecretError> {
        let mut fresh = self.clone();
        if let Some(source) = &self.password_source {
            fresh.password = Some(source.read().await?);
        } else if let (None, Some(file)) = (&fresh.password, self.password_file.clone()) {
            let mut hosts = fresh.hosts.clone();
            let looked_up = tokio::task::spawn_blocking(move || {
                file.refresh(&mut hosts);
                hosts
            });
            // It can't panic; if the runtime ends, the known password is used.
            fresh.hosts = looked_up.await.unwrap_or(fresh.hosts);
        }
        Ok(fresh)
    }

    /// Uses this password, whatever the string and the password file say.
    pub fn set_password(&mut self, password: Secret) {
        self.password = Some(password);
    }

    /// The password for one of [`ConnInfo::hosts`].
    #[must_use]
    pub fn password_for<'a>(&'a self, host: &'a Host) -> Option<&'a Secret> {
        self.password.as_ref().or(host.password.as_ref())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.address {
            Address::Unix(directory) => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
            Address::Name(name) => write!(f, "{name}:{port}"),
            Address::Ip(IpAddr::V4(ip), None) => write!(f, "{ip}:{port}"),
            Address::Ip(IpAddr::V6(ip), None) => write!(f, "[{ip}]:{port}"),
            Address::Ip(ip, Some(name)) => write!(f, "{name} ({ip}):{port}"),
        }
    }
}
