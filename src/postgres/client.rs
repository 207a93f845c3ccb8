//! The SQL connection: `tokio-postgres` over our own socket.
//!
//! Host order, TLS and time limits are those of the replication connection, because both use the
//! same code; `tokio-postgres` receives a socket that is connected, and encrypted if required. Its
//! own TLS step is set to "direct" and only passes on the channel binding of the login.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding as SqlChannelBinding, SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding as Binding, NoTls, TlsConnect, TlsStream};
use tokio_postgres::{Client, Config};

use super::conninfo::{ChannelBinding, ConnInfo, Host, TargetSessionAttrs};
use super::lost_answer::{self, Question};
use super::session::{self, Attempts, Candidate, ConnectOptions};
use super::socket::{self, Encryption, Socket};
use super::wire::{LOGIN_BYTES, LONG_LOGIN};
use super::{Error, limits, search_path};
use crate::lsn::Lsn;

/// Connects to the first suitable host; the connection ends with its client.
///
/// # Errors
/// When no host will do, or the login is refused.
pub async fn connect(info: &ConnInfo, options: &ConnectOptions) -> Result<Client, Error> {
    let info = &info.with_fresh_password().await?;
    let tls = session::tls_config(info)?;
    let limit = session::connect_timeout(info, options.connect_timeout);
    let mut attempts = Attempts::default();
    for candidate in session::candidates(info) {
        let connected = attempt(info, options, &candidate, &tls);
        let result = match tokio::time::timeout(limit, connected).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout { doing: "connecting", after: limit }),
        };
        match result {
            Ok(client) => return Ok(client),
            Err(error) => attempts.note(&candidate, error)?,
        }
    }
    Err(attempts.into_error())
}

/// The server's version as a number: 15.19 is 150019.
///
/// # Errors
/// When the query fails.
pub async fn server_version(client: &Client) -> Result<u32, Error> {
    let failed = |source| Error::Sql { doing: "read the server's version", source };
    let row = client.query_one("SHOW server_version_num", &[]).await.map_err(failed)?;
    // Digits, by definition; a server that reports anything else is treated as the oldest.
    Ok(row.get::<_, &str>(0).parse().unwrap_or(0))
}

/// Whether the server is a standby.
///
/// # Errors
/// When the query fails.
pub async fn in_recovery(client: &Client) -> Result<bool, Error> {
    let failed = |source| Error::Sql { doing: "read what kind of server this is", source };
    let row = client.query_one(session::TARGET_QUERY, &[]).await.map_err(failed)?;
    Ok(row.get::<_, &str>(0) == "true")
}

/// The end of the WAL that the server could send.
///
/// # Errors
/// When the query fails.
pub async fn wal_end(client: &Client) -> Result<Lsn, Error> {
    end_of_wal(client, include_str!("../../sql/wal_end.sql")).await
}

/// A position of the WAL after all commits that this session has seen.
///
/// # Errors
/// When the query fails.
pub async fn wal_insert(client: &Client) -> Result<Lsn, Error> {
    end_of_wal(client, include_str!("../../sql/wal_insert.sql")).await
}

async fn end_of_wal(client: &Client, query: &str) -> Result<Lsn, Error> {
    let failed = |source| Error::Sql { doing: "read the end of the WAL", source };
    let row = client.query_one(query, &[]).await.map_err(failed)?;
    let end = row.get::<_, Option<&str>>(0).and_then(|text| text.parse().ok());
    end.ok_or(Error::Malformed { what: "the end of the WAL is not a position" })
}

/// Commits an empty message that is not published.
///
/// # Errors
/// When the server refuses it, as a standby does.
pub async fn probe(client: &Client) -> Result<(), Error> {
    const PROBE: &str = include_str!("../../sql/probe.sql");
    let probed = client.batch_execute(PROBE).await;
    probed.map_err(|source| Error::Sql { doing: "commit a message", source })
}

/// The slots of standbys that the server waits for before it sends changes, and that have no
/// reader.
///
/// # Errors
/// When the query fails.
pub async fn missing_standbys(client: &Client) -> Result<String, Error> {
    const MISSING: &str = include_str!("../../sql/missing_standbys.sql");
    let failed = |source| Error::Sql { doing: "read which standbys the server waits for", source };
    Ok(client.query_one(MISSING, &[]).await.map_err(failed)?.get(0))
}

async fn attempt(
    info: &ConnInfo,
    options: &ConnectOptions,
    candidate: &Candidate<'_>,
    tls: &Arc<ClientConfig>,
) -> Result<Client, Error> {
    let way = Way {
        info: info.clone(),
        options: options.clone(),
        host: candidate.host.clone(),
        encryption: candidate.encryption,
        tls: Arc::clone(tls),
    };
    let (client, running, question) = way.log_in(info).await?;
    // Until the server has reported the session's process id, the limit of the attempt applies.
    let pid: i32 = client
        .query_one("SELECT pg_catalog.pg_backend_pid()", &[])
        .await
        .map_err(|source| Error::Sql { doing: "read which session this is", source })?
        .get(0);
    tokio::spawn(way.watch(running, question, pid));
    if candidate.target != TargetSessionAttrs::Any {
        let row = client
            .query_one(session::TARGET_QUERY, &[])
            .await
            .map_err(|source| Error::Sql { doing: "read what kind of server this is", source })?;
        let is = |column| row.get::<_, &str>(column) == "true";
        session::check_target(candidate, is(0), is(1))?;
    }
    Ok(client)
}

/// How a server was reached, to connect to it again.
pub(super) struct Way {
    pub(super) info: ConnInfo,
    pub(super) options: ConnectOptions,
    pub(super) host: Host,
    pub(super) encryption: Encryption,
    pub(super) tls: Arc<ClientConfig>,
}

/// The query whether a session is active, by its process id.
const AT_WORK: &str = include_str!("../../sql/session_at_work.sql");

/// The part of a connection that moves bytes, until its client is dropped.
type Running = JoinHandle<()>;

impl Way {
    async fn log_in(&self, info: &ConnInfo) -> Result<(Client, Running, Arc<Question>), Error> {
        let Self { options, host, encryption, tls, .. } = self;
        let socket = socket::connect(info, host, *encryption, tls).await?;
        let mut config = Config::new();
        config.user(info.user()).dbname(info.database()).application_name(
            info.application_name.as_deref().unwrap_or(&options.application_name),
        );
        if let Some(options) = &info.options {
            config.options(options);
        }
        if let Some(password) = info.password_for(host) {
            config.password(password.expose());
        }
        config.channel_binding(match info.channel_binding {
            ChannelBinding::Disable => SqlChannelBinding::Disable,
            ChannelBinding::Prefer => SqlChannelBinding::Prefer,
            ChannelBinding::Require => SqlChannelBinding::Require,
        });
        let refused = |source| {
            let must_bind = info.channel_binding == ChannelBinding::Require;
            let has_password = info.password_for(host).is_some();
            Error::logging_in(source, info.user(), has_password, must_bind)
        };
        let is_tls = socket.is_tls();
        let socket = SqlSocket::new(socket);
        let (question, is_logged_in) =
            (Arc::clone(&socket.question), Arc::clone(&socket.is_logged_in));
        // Errors at the connection's end are also reported by its client.
        let (client, running) = if is_tls {
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
            let (client, connection) =
                config.connect_raw(socket, AlreadySecure).await.map_err(refused)?;
            is_logged_in.store(true, Ordering::Release);
            (client, tokio::spawn(async { drop(connection.await) }))
        } else {
            config.ssl_mode(SslMode::Disable);
            let (client, connection) = config.connect_raw(socket, NoTls).await.map_err(refused)?;
            is_logged_in.store(true, Ordering::Release);
            (client, tokio::spawn(async { drop(connection.await) }))
        };
        let failed = |source| Error::Sql { doing: "set the search_path of a connection", source };
        client.batch_execute(search_path::BEGIN).await.map_err(failed)?;
        let failed = |source| Error::Sql { doing: "lift the limits of a connection", source };
        client.batch_execute(limits::LIFT).await.map_err(failed)?;
        Ok((client, running, question))
    }

    /// Ends the connection if its session is idle while a response is missing.
    async fn watch(self, mut running: Running, question: Arc<Question>, pid: i32) {
        tokio::select! {
            _ = &mut running => {}
            () = lost_answer::lost(&question, lost_answer::PATIENCE, || self.is_worked_on(pid, AT_WORK)) => {
                let after = lost_answer::PATIENCE.unanswered.as_millis();
                tracing::warn!(
                    host = %self.host,
                    after_ms = u64::try_from(after).unwrap_or(u64::MAX),
                    "the network has lost a query or its result: closing the connection"
                );
                running.abort();
            }
        }
    }

    /// Whether the session is active on the server: then `at_work` finds it. If the server can't be
    /// queried, it is not.
    pub(super) async fn is_worked_on(&self, pid: i32, at_work: &str) -> bool {
        let asked = async {
            let info = self.info.with_fresh_password().await?;
            let (client, running, _) = self.log_in(&info).await?;
            let found = client.query_opt(at_work, &[&pid]).await;
            running.abort();
            found.map_err(|source| Error::Sql { doing: "read whether a session is active", source })
        };
        let limit = session::connect_timeout(&self.info, self.options.connect_timeout);
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(found)) => found.is_some(),
            // It responds, but accepts no more connections.
            Ok(Err(Error::Server(_) | Error::AuthFailed(_) | Error::TooManyWalsenders(_))) => true,
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

/// Takes the place of the TLS step of `tokio-postgres`.
struct AlreadySecure;

impl TlsConnect<SqlSocket> for AlreadySecure {
    type Stream = SqlSocket;
    type Error = Infallible;
    type Future = Ready<Result<SqlSocket, Infallible>>;

    fn connect(self, socket: SqlSocket) -> Self::Future {
        ready(Ok(socket))
    }
}

/// Our socket as `tokio-postgres` uses it.
///
/// It holds the channel binding of the login. It breaks the connection if a server requests the
/// password in clear text where others could read it, which the library would answer; and if the
/// server sends more than a login needs, all of which the library would keep.
struct SqlSocket {
    socket: Socket,
    end_point: Option<Vec<u8>>,
    /// The first bytes from the server, until its request for a login is known; `None` after.
    request: Option<Vec<u8>>,
    /// Bytes that may still arrive until the login is done.
    allowance: usize,
    is_logged_in: Arc<AtomicBool>,
    question: Arc<Question>,
}

/// An authentication request for the password as it is: tag, length, code 3.
const CLEARTEXT_REQUEST: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];

impl SqlSocket {
    fn new(mut socket: Socket) -> Self {
        let request = (!socket.is_private()).then(Vec::new);
        Self {
            end_point: socket.end_point.take(),
            socket,
            request,
            allowance: LOGIN_BYTES,
            is_logged_in: Arc::default(),
            question: Arc::default(),
        }
    }

    fn look_at(&mut self, received: &[u8]) -> std::io::Result<()> {
        if !self.is_logged_in.load(Ordering::Acquire) {
            let left = self.allowance.checked_sub(received.len());
            self.allowance = left.ok_or_else(|| std::io::Error::other(LONG_LOGIN))?;
        }
        let Some(request) = &mut self.request else { return Ok(()) };
        let missing = CLEARTEXT_REQUEST.len() - request.len();
        request.extend(received.iter().take(missing));
        if *request == CLEARTEXT_REQUEST {
            return Err(std::io::Error::new(
                std::io::ErrorKind::PermissionDenied,
                "the server requests the password in clear text over a connection without TLS",
            ));
        }
        if request.len() == CLEARTEXT_REQUEST.len() {
            self.request = None;
        }
        Ok(())
    }
}

impl TlsStream for SqlSocket {
    fn channel_binding(&self) -> Binding {
        self.end_point.clone().map_or_else(Binding::none, Binding::tls_server_end_point)
    }
}

impl AsyncRead for SqlSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        self.question.heard();
        let received = buffer.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.look_at(received))
    }
}

impl AsyncWrite for SqlSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.question.sent();
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
