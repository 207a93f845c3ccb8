//! Logging in to a walsender, or to a session of ours.
//!
//! Own code because the SQL library cannot ask for replication, nor hand out COPY as it came. Must hold: a password crosses a
//! network readable only inside TLS; a login that should be bound to the TLS channel is never
//! silently done without; the server proves by SCRAM that it knows the password too.
//!
//! Flow: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use std::collections::BTreeMap;
use std::io;

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite};

use super::conninfo::ChannelBinding;
use super::server_error::ServerError;
use super::wire::{Body, LOGIN_BYTES, Message, Wire};
use super::{Error, login_notices, search_path};
use crate::config::Secret;

/// Settings under which text values have one form, whatever the server, the database or the role
/// prefer.
pub(crate) const TEXT_SETTINGS: [(&str, &str); 5] = [
    ("DateStyle", "ISO"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
];

/// The role may have limits for its queries; the stream is a query that never ends, and a large
/// table one that takes hours.
const NO_LIMITS: [(&str, &str); 2] =
    [("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0")];

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A walsender's commands, and its stream.
    Replication,
    /// SQL that reads whole tables.
    Reading,
}

/// What must hold while tables are read, whatever the role has set: no row is left out because of
/// who asks (the server refuses instead), a lock is waited for, and nothing is made ready for a
/// query longer than it runs.
const READING: [(&str, &str); 4] = [
    ("row_security", "off"),
    ("lock_timeout", "0"),
    ("jit", "off"),
    ("max_parallel_workers_per_gather", "0"),
];

impl Purpose {
    const fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Replication => &[("replication", "database"), ("search_path", search_path::PATH)],
            // Its path is set by its first statement, which keeps the role's own for conditions.
            Self::Reading => &READING,
        }
    }
}

/// Who logs in, and how far that is to be trusted to the network.
#[derive(Debug)]
pub(crate) struct Login<'a> {
    pub(crate) purpose: Purpose,
    pub(crate) user: &'a str,
    pub(crate) database: &'a str,
    pub(crate) application_name: &'a str,
    /// The user's own server options, in command-line form.
    pub(crate) options: Option<&'a str>,
    pub(crate) password: Option<&'a Secret>,
    pub(crate) channel_binding: ChannelBinding,
    /// The TLS channel's value to bind to, if there is one.
    pub(crate) end_point: Option<&'a [u8]>,
    /// Whether nobody on the way can read what is sent.
    pub(crate) is_private: bool,
    pub(crate) is_tls: bool,
}

/// What the server reported about itself, by name (`server_version`, ...).
pub(crate) type Parameters = BTreeMap<String, String>;

/// Logs in and reads on until the server is ready.
pub(crate) async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    login: &Login<'_>,
) -> Result<Parameters, Error> {
    let mut settings = vec![
        ("user", login.user),
        ("database", login.database),
        ("client_encoding", "UTF8"),
        ("application_name", login.application_name),
    ];
    settings.extend(login.options.map(|options| ("options", options)));
    settings.extend(TEXT_SETTINGS);
    settings.extend(NO_LIMITS);
    settings.extend(login.purpose.settings());
    frontend::startup_message(settings, &mut wire.outgoing).map_err(encoding)?;
    wire.allow(Some(LOGIN_BYTES));
    wire.flush().await?;
    authenticate(wire, login).await?;
    let mut parameters = Parameters::new();
    loop {
        let message = expect(wire).await?;
        match message.tag {
            b'S' => {
                let mut body = Body(&message.body);
                let name = body.text()?.to_owned();
                parameters.insert(name, body.text()?.to_owned());
            }
            // The key to cancel with, and a word on protocol versions: nothing here needs them.
            b'K' | b'v' => {}
            b'Z' => {
                wire.allow(None);
                return Ok(parameters);
            }
            tag => return Err(Error::Unexpected { tag: char::from(tag), doing: "logging in" }),
        }
    }
}

/// The next message; notices of the server are noted, and an ErrorResponse is an error.
async fn expect<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<Message, Error> {
    loop {
        let message = wire.message().await?;
        match message.tag {
            b'E' => return Err(Error::from(ServerError::parse(&message.body))),
            b'N' => login_notices::note(&message.body),
            _ => return Ok(message),
        }
    }
}

const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    login: &Login<'_>,
) -> Result<(), Error> {
    let message = request(wire).await?;
    let mut body = Body(&message.body);
    let method = body.i32()?;
    // Only a login that proves both sides know the channel may pass when binding is required.
    if login.channel_binding == ChannelBinding::Require && method != SASL {
        return Err(Error::ChannelBinding { why: "the server asked for another login" });
    }
    match method {
        OK => return Ok(()),
        CLEARTEXT if !login.is_private => return Err(Error::CleartextRefused),
        CLEARTEXT => {
            let password = password(login)?.expose().as_bytes();
            frontend::password_message(password, &mut wire.outgoing).map_err(encoding)?;
            wire.flush().await?;
        }
        MD5 => {
            let salt = body.array()?;
            let password = password(login)?.expose().as_bytes();
            let hash = md5_hash(login.user.as_bytes(), password, salt);
            frontend::password_message(hash.as_bytes(), &mut wire.outgoing).map_err(encoding)?;
            wire.flush().await?;
        }
        SASL => scram(wire, login, &mut body).await?,
        other => return Err(Error::AuthMethod { method: method_name(other) }),
    }
    let message = request(wire).await?;
    match Body(&message.body).i32()? {
        OK => Ok(()),
        _ => Err(Error::Malformed { what: "the server asks for a second login" }),
    }
}

/// The server's next authentication request.
async fn request<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<Message, Error> {
    let message = expect(wire).await?;
    match message.tag {
        b'R' => Ok(message),
        // A server newer than the protocol version asked for says which it speaks.
        b'v' => Err(Error::Malformed { what: "the server refuses protocol version 3.0" }),
        tag => Err(Error::Unexpected { tag: char::from(tag), doing: "logging in" }),
    }
}

fn password<'a>(login: &Login<'a>) -> Result<&'a Secret, Error> {
    login.password.ok_or_else(|| Error::PasswordMissing { user: login.user.to_owned() })
}

fn method_name(code: i32) -> String {
    match code {
        2 => "Kerberos".to_owned(),
        7 => "GSSAPI".to_owned(),
        9 => "SSPI".to_owned(),
        other => format!("number {other}"),
    }
}

async fn scram<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    login: &Login<'_>,
    offered: &mut Body<'_>,
) -> Result<(), Error> {
    let mut plain = false;
    let mut bound = false;
    // The list of mechanisms ends with an empty one.
    loop {
        match offered.text()? {
            "" => break,
            "SCRAM-SHA-256" => plain = true,
            "SCRAM-SHA-256-PLUS" => bound = true,
            _ => {}
        }
    }
    let password = password(login)?.expose().as_bytes();
    let (mechanism, binding) = choose(login, plain, bound)?;
    let mut scram = ScramSha256::new(password, binding);
    frontend::sasl_initial_response(mechanism, scram.message(), &mut wire.outgoing)
        .map_err(encoding)?;
    wire.flush().await?;

    let message = request(wire).await?;
    let mut body = Body(&message.body);
    if body.i32()? != SASL_CONTINUE {
        return Err(Error::Malformed { what: "the server cuts the SCRAM exchange short" });
    }
    scram.update(body.0).map_err(|source| Error::Scram { source })?;
    frontend::sasl_response(scram.message(), &mut wire.outgoing).map_err(encoding)?;
    wire.flush().await?;

    let message = request(wire).await?;
    let mut body = Body(&message.body);
    if body.i32()? != SASL_FINAL {
        return Err(Error::Malformed { what: "the server cuts the SCRAM exchange short" });
    }
    // Here the server proves itself: without the password it cannot have signed this.
    scram.finish(body.0).map_err(|source| Error::Scram { source })
}

/// Which mechanism, and what the client says of channel binding in it.
///
/// | wanted | TLS value | server offers PLUS | mechanism, flag |
/// |---|---|---|---|
/// | disable | any | any | plain, "cannot" |
/// | prefer, require | yes | yes | PLUS, bound |
/// | prefer | yes | no | plain, "could, but the server cannot" (reveals a downgrade) |
/// | prefer | no | any | plain, "cannot" |
/// | require | yes or no | otherwise | refused |
fn choose(
    login: &Login<'_>,
    plain: bool,
    bound: bool,
) -> Result<(&'static str, sasl::ChannelBinding), Error> {
    let required = login.channel_binding == ChannelBinding::Require;
    let wanted = login.channel_binding != ChannelBinding::Disable;
    match login.end_point.filter(|_| wanted) {
        Some(value) if bound => {
            let binding = sasl::ChannelBinding::tls_server_end_point(value.to_vec());
            Ok(("SCRAM-SHA-256-PLUS", binding))
        }
        _ if required && !login.is_tls => {
            Err(Error::ChannelBinding { why: "the connection is not encrypted" })
        }
        None if required => {
            Err(Error::ChannelBinding { why: "the server's certificate cannot be bound to" })
        }
        _ if required => Err(Error::ChannelBinding { why: "the server does not offer it" }),
        _ if !plain => Err(Error::AuthMethod { method: "SASL without SCRAM-SHA-256".to_owned() }),
        Some(_) => Ok(("SCRAM-SHA-256", sasl::ChannelBinding::unrequested())),
        None => Ok(("SCRAM-SHA-256", sasl::ChannelBinding::unsupported())),
    }
}

/// Only a zero byte in a text, or a message above 2 GiB, cannot be encoded.
fn encoding(source: io::Error) -> Error {
    Error::Io { doing: "encoding the login", source }
}
