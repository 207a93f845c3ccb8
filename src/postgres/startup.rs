//! Logs in to a walsender, or to an SQL session of our own.
//!
//! Our own code, because the SQL library can't request replication, nor return COPY data as it
//! arrives. Must hold: a clear-text password crosses a network only inside TLS; a login that should
//! be bound to the TLS channel is never silently unbound; the server proves by SCRAM that it knows
//! the password too.
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

/// Settings that fix the text form of values, whatever the server, the database or the role set.
pub(crate) const TEXT_SETTINGS: [(&str, &str); 5] = [
    ("DateStyle", "ISO"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
];

/// The role may have limits for queries; the stream is a query that never ends, and reading a large
/// table takes hours.
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

/// Settings for reading tables, whatever the role has set: no row is hidden by row security (the
/// server refuses instead), locks are waited for, and no time is spent on compiling a query.
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

/// Who logs in, and how secure the connection is.
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
    /// The TLS channel binding value, if any.
    pub(crate) end_point: Option<&'a [u8]>,
    /// Whether no one on the network can read what is sent.
    pub(crate) is_private: bool,
    pub(crate) is_tls: bool,
}

/// What the server reported about itself, by name (`server_version`, ...).
pub(crate) type Parameters = BTreeMap<String, String>;

/// Logs in and reads until the server is ready.
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
            // The cancel key and the protocol version: not needed here.
            b'K' | b'v' => {}
            b'Z' => {
                wire.allow(None);
                return Ok(parameters);
            }
            tag => return Err(Error::Unexpected { tag: char::from(tag), doing: "logging in" }),
        }
    }
}

/// The next message; notices of the server are recorded, and an ErrorResponse is an error.
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
    // If binding is required, only a login that proves the channel to both sides may pass.
    if login.channel_binding == ChannelBinding::Require && method != SASL {
        return Err(Error::ChannelBinding {
            why: "the server requested another authentication method",
        });
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
        _ => Err(Error::Malformed { what: "the server requests a second login" }),
    }
}

/// The server's next authentication request.
async fn request<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<Message, Error> {
    let message = expect(wire).await?;
    match message.tag {
        b'R' => Ok(message),
        // A server that does not support the requested protocol version reports its own.
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
        return Err(Error::Malformed { what: "the server ended the SCRAM exchange early" });
    }
    scram.update(body.0).map_err(|source| Error::Scram { source })?;
    frontend::sasl_response(scram.message(), &mut wire.outgoing).map_err(encoding)?;
    wire.flush().await?;

    let message = request(wire).await?;
    let mut body = Body(&message.body);
    if body.i32()? != SASL_FINAL {
        return Err(Error::Malformed { what: "the server ended the SCRAM exchange early" });
    }
    // This authenticates the server: without the password it can't have signed this.
    scram.finish(body.0).map_err(|source| Error::Scram { source })
}

/// Chooses the mechanism, and the client's channel binding flag.
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
