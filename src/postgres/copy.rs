//! Reads tables by COPY, and passes on the bytes as they arrive from the socket.
//!
//! Host order, TLS, login and time limits are those of the replication connection, and so are the
//! settings of the session: a value has the same text here as in the stream. Rows are passed on
//! many at a time, as complete CopyData messages in one buffer, so that nothing is copied and no
//! task is woken for a single row.
//!
//! Must hold: messages are passed on complete; a COPY that succeeded had every row that the server
//! counted; one that fails half-way is an error, with the server's code if it sent one; a dead
//! connection is detected, while a server that is silent because it is working or waiting for a
//! lock is waited for.
//!
//! A session that is dropped during a COPY closes its socket, and the server ends the COPY at its
//! next row, or within [`CHECK_CLIENT`] if there is none.
//!
//! Create and use a session on one thread, with a runtime of that thread, so that no other thread
//! is woken for its bytes.
//!
//! Flow: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY>

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use bytes::Bytes;
use postgres_protocol::escape::escape_literal;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Error;
use super::client::Way;
use super::conninfo::ConnInfo;
use super::lost_answer::{self, PATIENCE, Patience, Question};
use super::server_error::ServerError;
use super::session::{ConnectOptions, Session};
use super::socket::Socket;
use super::startup::Purpose;
use super::wire::{self, HEADER_BYTES, WRONG_ANSWER, Wire};

/// Buffer for one read: some thousand rows.
const READ_BYTES: usize = 256 * 1024;

/// How often the server checks whether the client of a long query is still connected.
pub const CHECK_CLIENT: &str = "5s";

const AT_WORK: &str = include_str!("../../sql/reader_at_work.sql");

/// A session that reads tables.
#[derive(Debug)]
pub struct CopySession<S = Socket> {
    wire: Wire<S>,
    server_version: u32,
    address: String,
    question: Question,
    patience: Patience,
    lifeline: Option<Lifeline>,
    /// Whether the last command's result was not read to its end.
    is_answering: bool,
}

/// How to query the server about the session.
struct Lifeline {
    way: Way,
    pid: i32,
}

impl std::fmt::Debug for Lifeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lifeline").field("pid", &self.pid).finish_non_exhaustive()
    }
}

impl CopySession {
    /// Connects to the first suitable host and logs in.
    ///
    /// # Errors
    /// When no host is suitable, or the login is refused.
    pub async fn connect(info: &ConnInfo, options: &ConnectOptions) -> Result<Self, Error> {
        let mut session = Session::open(info, options, Purpose::Reading).await?;
        session.take_bytes_as_they_are().await?;
        let server_version = session.server_version();
        let Session { wire, host, encryption, tls, .. } = session;
        let address = host.to_string();
        let mut session = Self::new(wire, server_version, address);
        let rows = session.query("SELECT pg_catalog.pg_backend_pid()").await?;
        let pid = wire::text(&rows, 0)?.parse().map_err(|_| WRONG_ANSWER)?;
        let (info, options) = (info.clone(), options.clone());
        session.lifeline =
            Some(Lifeline { way: Way { info, options, host, encryption, tls }, pid });
        let check = format!("SET client_connection_check_interval = '{CHECK_CLIENT}'");
        match session.query(&check).await {
            // A server on a system without support refuses it.
            Ok(_) | Err(Error::Server(_)) => Ok(session),
            Err(error) => Err(error),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> CopySession<S> {
    pub(super) fn new(wire: Wire<S>, server_version: u32, address: String) -> Self {
        Self {
            wire,
            server_version,
            address,
            question: Question::default(),
            patience: PATIENCE,
            lifeline: None,
            is_answering: false,
        }
    }

    #[cfg(test)]
    pub(super) fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The host that was connected to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The server's version as a number: 15.19 is 150019. Zero when it reported none.
    #[must_use]
    pub const fn server_version(&self) -> u32 {
        self.server_version
    }

    /// Runs SQL and returns the rows of its result as text; for few rows, because all are kept in
    /// memory.
    ///
    /// # Errors
    /// What the server reports, or when the connection is lost.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.settle().await?;
        self.question.heard_and_waiting();
        let answered = wire::query(&mut self.wire, sql);
        attended(answered, &self.question, self.patience, self.lifeline.as_ref()).await
    }

    /// Begins a transaction with the snapshot that another session exported.
    ///
    /// # Errors
    /// When that session has ended its transaction, or the connection is lost.
    pub async fn begin_snapshot(&mut self, name: &str) -> Result<(), Error> {
        self.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        self.query(&format!("SET TRANSACTION SNAPSHOT {}", escape_literal(name))).await.map(drop)
    }

    /// Starts a `COPY ... TO STDOUT` in text form. [`CopyOut::next`] reads its rows; rows that are
    /// not read before the next command are discarded.
    ///
    /// # Errors
    /// When the server refuses it, or the connection is lost.
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_, S>, Error> {
        self.settle().await?;
        frontend::query(sql, &mut self.wire.outgoing)
            .map_err(|source| Error::Io { doing: "writing a query", source })?;
        self.is_answering = true;
        self.question.heard_and_waiting();
        let begun = begin(&mut self.wire);
        attended(begun, &self.question, self.patience, self.lifeline.as_ref()).await?;
        Ok(CopyOut { session: self, rows: 0, is_over: false })
    }

    /// Reads the rest of a result.
    async fn settle(&mut self) -> Result<(), Error> {
        while self.is_answering {
            let read = async {
                loop {
                    self.question.heard_and_waiting();
                    match self.wire.message().await? {
                        message if message.tag == b'E' => fatal(&message.body)?,
                        message if message.tag == b'Z' => return Ok(()),
                        _ => {}
                    }
                }
            };
            attended(read, &self.question, self.patience, self.lifeline.as_ref()).await?;
            self.is_answering = false;
        }
        Ok(())
    }
}

/// Awaits `work`, unless the server reports that the session is idle.
async fn attended<T>(
    work: impl Future<Output = Result<T, Error>>,
    question: &Question,
    patience: Patience,
    lifeline: Option<&Lifeline>,
) -> Result<T, Error> {
    let is_worked_on = async || match lifeline {
        Some(Lifeline { way, pid }) => way.is_worked_on(*pid, AT_WORK).await,
        None => false,
    };
    let result = tokio::select! {
        biased;
        result = work => result,
        () = lost_answer::lost(question, patience, is_worked_on) => {
            Err(Error::Silent { after: patience.unanswered })
        }
    };
    question.heard();
    result
}

async fn begin<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> Result<(), Error> {
    wire.flush().await?;
    loop {
        let message = wire.expect().await?;
        match (message.tag, message.body.first()) {
            // Format 0 is text.
            (b'H', Some(0)) => return Ok(()),
            (b'S', _) => {}
            (tag, _) => {
                return Err(Error::Unexpected { tag: char::from(tag), doing: "starting a COPY" });
            }
        }
    }
}

/// An error after which the server sends nothing more.
fn fatal(body: &[u8]) -> Result<(), Error> {
    let error = ServerError::parse(body);
    match error.severity.as_str() {
        "FATAL" | "PANIC" => Err(error.into()),
        _ => Ok(()),
    }
}

/// A running COPY.
#[derive(Debug)]
pub struct CopyOut<'s, S = Socket> {
    session: &'s mut CopySession<S>,
    rows: u64,
    is_over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> CopyOut<'_, S> {
    /// The next rows; `None` once the server has sent all and confirmed it. Cancelling the wait
    /// loses nothing.
    ///
    /// # Errors
    /// When the server ends the COPY with an error, or the connection is lost: the rows so far are
    /// incomplete.
    pub async fn next(&mut self) -> Result<Option<CopyChunk>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let (rows, session) = (&mut self.rows, &mut *self.session);
        // Uses what the last read brought before waiting for more.
        let chunk = match take(&mut session.wire, rows)? {
            Taken::Nothing => {
                session.question.heard_and_waiting();
                let waited = wait(&mut session.wire, &session.question, rows);
                attended(waited, &session.question, session.patience, session.lifeline.as_ref())
                    .await?
            }
            taken => taken,
        };
        match chunk {
            Taken::Rows(chunk) => Ok(Some(chunk)),
            Taken::End | Taken::Nothing => {
                self.is_over = true;
                session.is_answering = false;
                Ok(None)
            }
        }
    }

    /// Rows that were returned so far.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }
}

/// What is at the front of the received bytes.
enum Taken {
    Rows(CopyChunk),
    /// The server is ready for the next command.
    End,
    Nothing,
}

async fn wait<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    question: &Question,
    rows: &mut u64,
) -> Result<Taken, Error> {
    loop {
        wire.fill(READ_BYTES).await?;
        question.heard_and_waiting();
        match take(wire, rows)? {
            Taken::Nothing => {}
            taken => return Ok(taken),
        }
    }
}

/// Takes all rows at the front, or the messages that end a COPY.
fn take<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    rows: &mut u64,
) -> Result<Taken, Error> {
    let (bytes, count) = whole_rows(wire.received())?;
    if count > 0 {
        *rows += count;
        return Ok(Taken::Rows(CopyChunk { bytes: wire.take_bytes(bytes) }));
    }
    while let Some(message) = wire.take_message()? {
        match message.tag {
            b'E' => return Err(Error::from(ServerError::parse(&message.body)).in_copy()),
            b'N' => wire::log_notice(&message.body),
            b'C' => {
                let told = counted(&message.body);
                if told.is_some_and(|told| told != *rows) {
                    return Err(Error::Malformed {
                        what: "a COPY does not have the rows that it counted",
                    });
                }
            }
            b'Z' => return Ok(Taken::End),
            // All rows are sent; the value of a setting.
            b'c' | b'S' => {}
            tag => return Err(Error::Unexpected { tag: char::from(tag), doing: "a COPY" }),
        }
    }
    Ok(Taken::Nothing)
}

/// Length and number of the complete CopyData messages at the front.
fn whole_rows(received: &[u8]) -> Result<(usize, u64), Error> {
    let (mut bytes, mut count) = (0, 0);
    loop {
        let rest = received.get(bytes..).unwrap_or_default();
        match wire::header(rest)? {
            Some((b'd', total)) if total <= rest.len() => {
                bytes += total;
                count += 1;
            }
            _ => return Ok((bytes, count)),
        }
    }
}

/// The number of rows in `COPY 5`.
fn counted(tag: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(tag).ok()?.trim_end_matches('\0');
    text.strip_prefix("COPY ")?.parse().ok()
}

/// Some rows, as complete CopyData messages.
#[derive(Clone)]
pub struct CopyChunk {
    bytes: Bytes,
}

impl CopyChunk {
    /// The rows, each a line with its newline.
    #[must_use]
    pub fn rows(&self) -> CopyRows<'_> {
        CopyRows { rest: &self.bytes }
    }

    /// Length, with the headers of the messages.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl std::fmt::Debug for CopyChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Row values must not be shown.
        f.debug_struct("CopyChunk").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// The rows of a [`CopyChunk`].
#[derive(Clone)]
pub struct CopyRows<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for CopyRows<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (header, _) = self.rest.split_first_chunk::<HEADER_BYTES>()?;
        let [_, length @ ..] = *header;
        let total = usize::try_from(u32::from_be_bytes(length)).ok()?.checked_add(1)?;
        let (message, rest) = self.rest.split_at_checked(total)?;
        self.rest = rest;
        message.get(HEADER_BYTES..)
    }
}

impl std::fmt::Debug for CopyRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyRows").field("bytes_left", &self.rest.len()).finish_non_exhaustive()
    }
}
