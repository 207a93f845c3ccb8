//! Turns keys and values into a [`ConnInfo`]: known keys, defaults of the environment, meaning.
//!
//! Each value keeps its origin, so that an error can say whether the string or a variable is wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::parse::Pairs;
use super::passfile::PassFileSource;
use super::{
    Address, ChannelBinding, ClientCertificate, ConnInfo, ConnInfoError, Host, Keepalive,
    SOCKET_DIRECTORIES, SslMode, SslRoots, TargetSessionAttrs,
};
use crate::config::Secret;
use crate::config::secret::MASK;

const STRING: &str = "the connection string";

/// Every known key, with the variable that sets its default.
const KEYS: [(&str, &str); 25] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("dbname", "PGDATABASE"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("application_name", "PGAPPNAME"),
    ("fallback_application_name", ""),
    ("options", "PGOPTIONS"),
    ("keepalives", ""),
    ("keepalives_idle", ""),
    ("keepalives_interval", ""),
    ("keepalives_count", ""),
    ("tcp_user_timeout", ""),
    ("client_encoding", ""),
    ("gssencmode", "PGGSSENCMODE"),
    ("replication", ""),
];

/// Keys of libpq's that would change guarantees, and so may not be ignored.
const UNSUPPORTED: [(&str, &str, &str); 10] = [
    ("service", "PGSERVICE", "write out the service's settings"),
    ("servicefile", "PGSERVICEFILE", "write out the service's settings"),
    ("sslcrl", "PGSSLCRL", "leave it out; revocation lists are not read"),
    ("sslcrldir", "PGSSLCRLDIR", "leave it out; revocation lists are not read"),
    ("sslpassword", "", "use a key without a passphrase"),
    ("sslnegotiation", "PGSSLNEGOTIATION", "leave it out; TLS is negotiated the usual way"),
    ("requirepeer", "PGREQUIREPEER", "leave it out; protect the socket's directory"),
    ("require_auth", "PGREQUIREAUTH", "leave it out, or use channel_binding=require"),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", "leave it out; hosts are tried in order"),
    ("krbsrvname", "PGKRBSRVNAME", "leave it out; Kerberos is not supported"),
];

struct Value {
    text: String,
    origin: &'static str,
}

/// The values, by key.
pub(super) struct Settings(BTreeMap<&'static str, Value>);

impl Settings {
    /// Validates the keys and adds defaults of the environment. An empty value counts as absent, as
    /// in libpq.
    pub(super) fn collect(
        pairs: Pairs,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConnInfoError> {
        let mut values = BTreeMap::new();
        for (key, text) in pairs {
            if let Some((key, _, instead)) = UNSUPPORTED.iter().find(|(known, ..)| *known == key) {
                return Err(ConnInfoError::Unsupported { key, origin: STRING, instead });
            }
            let Some((key, _)) = KEYS.iter().find(|(known, _)| *known == key) else {
                return Err(ConnInfoError::UnknownKey { key });
            };
            values.insert(*key, Value { text, origin: STRING });
        }
        let set = |variable: &str| env(variable).filter(|text| !text.is_empty());
        for (key, variable) in KEYS.iter().filter(|(_, variable)| !variable.is_empty()) {
            // A directory or host of the environment does not complete an address of the string.
            let other_address = *key == "hostaddr" && values.contains_key("host")
                || *key == "host" && values.contains_key("hostaddr");
            if let Some(text) = set(variable).filter(|_| !other_address) {
                values.entry(key).or_insert(Value { text, origin: variable });
            }
        }
        for (key, variable, instead) in UNSUPPORTED.iter().filter(|(_, name, _)| !name.is_empty()) {
            if set(variable).is_some() {
                return Err(ConnInfoError::Unsupported { key, origin: variable, instead });
            }
        }
        values.retain(|_, value| !value.text.is_empty());
        Ok(Self(values))
    }

    /// Interprets each value.
    pub(super) fn resolve(
        mut self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<ConnInfo, ConnInfoError> {
        self.refuse_what_cannot_be_honoured()?;
        let home = env("HOME").map(PathBuf::from);
        let user = match self.take("user") {
            Some(user) => user,
            None => operating_system_user(env).ok_or(ConnInfoError::NoUser)?,
        };
        let database = self.take("dbname").unwrap_or_else(|| user.clone());
        let mut hosts = self.hosts()?;
        let password = self.take("password").map(Secret::from);
        let password_file = match password {
            Some(_) => None,
            None => self.passwords_from_file(&mut hosts, (&database, &user), home.as_deref())?,
        };
        let ssl_mode = self.ssl_mode()?;
        let ssl_roots = self.ssl_roots(ssl_mode, home.as_deref())?;
        let client_certificate = self.client_certificate(home.as_deref())?;
        let name = self.take("application_name");
        Ok(ConnInfo {
            hosts,
            user,
            database,
            password,
            password_file,
            password_source: None,
            ssl_mode,
            ssl_roots,
            client_certificate,
            channel_binding: self
                .choice("channel_binding", &CHANNEL_BINDINGS, "disable, prefer or require")?
                .unwrap_or(ChannelBinding::Prefer),
            target_session_attrs: self
                .choice("target_session_attrs", &TARGETS, TARGETS_EXPECTED)?
                .unwrap_or(TargetSessionAttrs::Any),
            // Zero, like a negative number, means to wait forever.
            connect_timeout: self.seconds("connect_timeout")?,
            application_name: name.or_else(|| self.take("fallback_application_name")),
            options: self.take("options"),
            keepalive: self.keepalive()?,
            tcp_user_timeout: self
                .number::<u32>("tcp_user_timeout", "a number of milliseconds")?
                .filter(|ms| *ms > 0)
                .map(|ms| Duration::from_millis(ms.into())),
        })
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key).map(|value| value.text)
    }

    fn choice<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&str, T)],
        expected: &'static str,
    ) -> Result<Option<T>, ConnInfoError> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        match choices.iter().find(|(name, _)| *name == value.text) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => Err(wrong(key, value, expected)),
        }
    }

    fn number<T: FromStr>(
        &self,
        key: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, ConnInfoError> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        match value.text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(wrong(key, value, expected)),
        }
    }

    fn seconds(&self, key: &'static str) -> Result<Option<Duration>, ConnInfoError> {
        let seconds = self.number::<i32>(key, "a number of seconds")?;
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs))
    }

    fn refuse_what_cannot_be_honoured(&self) -> Result<(), ConnInfoError> {
        if let Some(value) = self.0.get("gssencmode")
            && value.text == "require"
        {
            let instead = "GSSAPI encryption is not supported; use sslmode=verify-full";
            let origin = value.origin;
            return Err(ConnInfoError::Unsupported { key: "gssencmode", origin, instead });
        }
        if let Some(value) = self.0.get("client_encoding")
            && !["utf8", "utf-8", "unicode", "auto"].contains(&value.text.to_lowercase().as_str())
        {
            return Err(wrong("client_encoding", value, "UTF8, the only encoding of the events"));
        }
        if let Some(value) = self.0.get("replication") {
            let instead = "leave it out; rowcast requests replication where it needs it";
            let origin = value.origin;
            return Err(ConnInfoError::Unsupported { key: "replication", origin, instead });
        }
        Ok(())
    }

    fn hosts(&self) -> Result<Vec<Host>, ConnInfoError> {
        let list = |key| self.0.get(key).map(|value| value.text.split(',').collect::<Vec<_>>());
        let names = list("host");
        let addresses = list("hostaddr");
        let ports = self.ports()?;
        let count = addresses.as_ref().or(names.as_ref()).map_or(1, Vec::len);
        if let (Some(names), Some(addresses)) = (&names, &addresses)
            && names.len() != addresses.len()
        {
            return Err(self.wrong_list("host", "as many hosts as hostaddr has addresses"));
        }
        if ports.len() > 1 && ports.len() != count {
            return Err(self.wrong_list("port", "one port, or as many as there are hosts"));
        }
        let mut hosts = Vec::new();
        for index in 0..count {
            let name = names.as_ref().and_then(|names| names.get(index)).map_or("", |s| s.trim());
            let ip = addresses.as_ref().and_then(|ips| ips.get(index)).map_or("", |s| s.trim());
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
            let mut push = |address| hosts.push(Host { address, port, password: None });
            if !ip.is_empty() {
                let expected = "numeric addresses";
                let ip = IpAddr::from_str(ip).map_err(|_| self.wrong_list("hostaddr", expected))?;
                push(Address::Ip(ip, Some(name.to_owned()).filter(|name| !name.is_empty())));
            } else if name.is_empty() {
                for directory in SOCKET_DIRECTORIES {
                    push(Address::Unix(directory.into()));
                }
                push(Address::Name("localhost".to_owned()));
            } else if name.starts_with(['/', '@']) {
                push(Address::Unix(name.into()));
            } else {
                let named = || Address::Name(name.to_owned());
                push(name.parse().map_or_else(|_| named(), |ip| Address::Ip(ip, None)));
            }
        }
        Ok(hosts)
    }

    fn ports(&self) -> Result<Vec<u16>, ConnInfoError> {
        let Some(value) = self.0.get("port") else { return Ok(vec![DEFAULT_PORT]) };
        let port = |text: &str| match text.trim() {
            "" => Ok(DEFAULT_PORT),
            text => match text.parse() {
                Ok(port) if port > 0 => Ok(port),
                _ => Err(self.wrong_port(text)),
            },
        };
        value.text.split(',').map(port).collect()
    }

    /// In a URL whose password contains a bare `/` or `?`, the port's text is a piece of the
    /// password; so errors repeat digits only.
    fn wrong_port(&self, text: &str) -> ConnInfoError {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let value = if is_number { text } else { MASK }.to_owned();
        let origin = self.0.get("port").map_or(STRING, |value| value.origin);
        let expected = "a number from 1 to 65535 (in a URL, write / ? @ : of a password as \
            %2F %3F %40 %3A)";
        ConnInfoError::Value { key: "port", origin, value, expected }
    }

    fn wrong_list(&self, key: &'static str, expected: &'static str) -> ConnInfoError {
        let value = self.0.get(key).map_or("", |value| value.text.as_str()).to_owned();
        let origin = self.0.get(key).map_or(STRING, |value| value.origin);
        ConnInfoError::Value { key, origin, value, expected }
    }

    fn passwords_from_file(
        &mut self,
        hosts: &mut [Host],
        (database, user): (&str, &str),
        home: Option<&Path>,
    ) -> Result<Option<PassFileSource>, ConnInfoError> {
        let named = self.take("passfile").map(PathBuf::from);
        let asked_for = named.is_some();
        let Some(path) = named.or_else(|| home.map(|home| home.join(".pgpass"))) else {
            return Ok(None);
        };
        let (database, user) = (database.to_owned(), user.to_owned());
        let mut source = PassFileSource::new(path, asked_for, database, user);
        source.fill(hosts)?;
        Ok(Some(source))
    }

    fn ssl_mode(&self) -> Result<SslMode, ConnInfoError> {
        let mode = self.choice("sslmode", &SSL_MODES, SSL_MODES_EXPECTED)?;
        let system = self.0.get("sslrootcert").is_some_and(|value| value.text == "system");
        match (mode, system) {
            (None, true) => Ok(SslMode::VerifyFull),
            (Some(mode), true) if mode != SslMode::VerifyFull => {
                Err(self.wrong_list("sslmode", "verify-full, as sslrootcert is system"))
            }
            (mode, _) => Ok(mode.unwrap_or(SslMode::Prefer)),
        }
    }

    fn ssl_roots(&mut self, mode: SslMode, home: Option<&Path>) -> Result<SslRoots, ConnInfoError> {
        if matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer) {
            return Ok(SslRoots::None);
        }
        if let Some(value) = self.0.remove("sslrootcert") {
            return match value.text.as_str() {
                "system" => Ok(SslRoots::System),
                path => Ok(SslRoots::File(path.into())),
            };
        }
        let default = home.map(|home| home.join(".postgresql/root.crt"));
        match default.filter(|path| path.exists()) {
            Some(path) => Ok(SslRoots::File(path)),
            None if mode == SslMode::Require => Ok(SslRoots::None),
            None => Err(ConnInfoError::Value {
                key: "sslrootcert",
                origin: STRING,
                value: String::new(),
                expected: "a file of root certificates, or system, as sslmode checks against it",
            }),
        }
    }

    fn client_certificate(
        &mut self,
        home: Option<&Path>,
    ) -> Result<Option<ClientCertificate>, ConnInfoError> {
        let default = |name: &str| home.map(|home| home.join(".postgresql").join(name));
        let certificate = match self.take("sslcert") {
            Some(path) => Some(PathBuf::from(path)),
            None => default("postgresql.crt").filter(|path| path.exists()),
        };
        let key = self.take("sslkey").map(PathBuf::from).or_else(|| default("postgresql.key"));
        match (certificate, key) {
            (None, _) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(ClientCertificate { certificate, key })),
            (Some(_), None) => Err(ConnInfoError::Value {
                key: "sslkey",
                origin: STRING,
                value: String::new(),
                expected: "the file of the key that belongs to sslcert",
            }),
        }
    }

    fn keepalive(&self) -> Result<Option<Keepalive>, ConnInfoError> {
        let keepalive = Keepalive {
            idle: self.seconds("keepalives_idle")?,
            interval: self.seconds("keepalives_interval")?,
            count: self
                .number("keepalives_count", "a number of probes")?
                .filter(|count| *count > 0),
        };
        let wanted = self.number::<i32>("keepalives", "0 or 1")?.unwrap_or(1) != 0;
        Ok(wanted.then_some(keepalive))
    }
}

const DEFAULT_PORT: u16 = 5432;

const CHANNEL_BINDINGS: [(&str, ChannelBinding); 3] = [
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];

const TARGETS_EXPECTED: &str = "any, read-write, read-only, primary, standby or prefer-standby";
const TARGETS: [(&str, TargetSessionAttrs); 6] = [
    ("any", TargetSessionAttrs::Any),
    ("read-write", TargetSessionAttrs::ReadWrite),
    ("read-only", TargetSessionAttrs::ReadOnly),
    ("primary", TargetSessionAttrs::Primary),
    ("standby", TargetSessionAttrs::Standby),
    ("prefer-standby", TargetSessionAttrs::PreferStandby),
];

const SSL_MODES_EXPECTED: &str = "disable, allow, prefer, require, verify-ca or verify-full";
const SSL_MODES: [(&str, SslMode); 6] = [
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

fn wrong(key: &'static str, value: &Value, expected: &'static str) -> ConnInfoError {
    let Value { text, origin } = value;
    ConnInfoError::Value { key, origin, value: text.clone(), expected }
}

/// libpq reads the user database; in a container the user is often not in it, but in `USER`.
fn operating_system_user(env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    named.or_else(|| env("USER")).or_else(|| env("LOGNAME")).filter(|name| !name.is_empty())
}
