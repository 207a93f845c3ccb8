//! Messages of the wire protocol over any stream of bytes.
//!
//! Must hold: whatever the peer sends, it is a message or an error, never a panic; memory grows
//! with the bytes that arrived, never with a length that was merely announced; reading can be
//! cancelled at any await and loses nothing. `startup` and `replication` interpret the messages.
//!
//! Format: <https://www.postgresql.org/docs/current/protocol-message-formats.html>

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Error;
use super::server_error::ServerError;
use crate::allocation;

/// No server sends more: a message's parts are limited to 1 GiB less a byte by its allocator.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// Buffer space before a read: what one read can bring, unless more is announced.
const READ_STEP_BYTES: usize = 8 * 1024;

/// Most bytes that a server may send until a login is done. A real one sends a few thousand:
/// parameters and notices. Before that the peer is not authenticated.
pub(crate) const LOGIN_BYTES: usize = 256 * 1024;

/// The error for a server that sends more.
pub(crate) const LONG_LOGIN: &str = "it sends more than a login needs";

/// Tag and length.
pub(crate) const HEADER_BYTES: usize = 5;

/// One message: its tag and what follows the length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// The message type.
    pub(crate) tag: u8,
    /// Its content.
    pub(crate) body: Bytes,
}

/// The protocol's framing over a stream, with what was read ahead and what waits to be sent.
pub(crate) struct Wire<S> {
    stream: S,
    received: BytesMut,
    /// Bytes that may still arrive; `None` for no limit.
    allowance: Option<usize>,
    /// Bytes to send at the next [`Wire::flush`].
    pub(crate) outgoing: BytesMut,
}

impl<S: std::fmt::Debug> std::fmt::Debug for Wire<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Passwords and row values must not be shown.
        f.debug_struct("Wire")
            .field("stream", &self.stream)
            .field("received_bytes", &self.received.len())
            .field("outgoing_bytes", &self.outgoing.len())
            .finish()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        let (received, outgoing) = (BytesMut::new(), BytesMut::new());
        Self { stream, received, allowance: None, outgoing }
    }

    /// No more than `allowance` bytes may arrive from here on; `None` lifts that.
    pub(crate) fn allow(&mut self, allowance: Option<usize>) {
        self.allowance = allowance;
    }

    /// Sends what waits in `outgoing`.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        let sent = async {
            while !self.outgoing.is_empty() {
                let written = self.stream.write(&self.outgoing).await?;
                if written == 0 {
                    return Err(io::Error::from(io::ErrorKind::WriteZero));
                }
                self.outgoing.advance(written);
            }
            self.stream.flush().await
        };
        sent.await.map_err(|source| Error::Io { doing: "sending to the server", source })
    }

    /// Reads once, with space for at least `room` bytes. Returns the number of bytes that arrived.
    pub(crate) async fn fill(&mut self, room: usize) -> Result<usize, Error> {
        let spare = self.received.capacity() - self.received.len();
        if spare < room / 2 || spare == 0 {
            self.grow(room)?;
        }
        let read = self.stream.read_buf(&mut self.received).await;
        match read.map_err(|source| Error::Io { doing: "reading from the server", source })? {
            0 => Err(Error::Closed),
            count => {
                if let Some(allowance) = &mut self.allowance {
                    let left = allowance.checked_sub(count);
                    *allowance = left.ok_or(Error::Malformed { what: LONG_LOGIN })?;
                }
                Ok(count)
            }
        }
    }

    /// Grows the buffer by at least `room` bytes; it doubles, so that it is rarely copied.
    fn grow(&mut self, room: usize) -> Result<(), Error> {
        let received = self.received.len();
        if received >= allocation::LARGE && !allocation::fits(2 * received + room) {
            let bytes = header(&self.received)?.map_or(received, |(_, total)| total);
            return Err(Error::Memory { bytes });
        }
        self.received.reserve(room);
        Ok(())
    }

    /// The next message, reading as far as needed.
    pub(crate) async fn message(&mut self) -> Result<Message, Error> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(message);
            }
            self.fill(READ_STEP_BYTES).await?;
        }
    }

    /// The next message, if it has arrived completely.
    pub(crate) fn take_message(&mut self) -> Result<Option<Message>, Error> {
        let Some((tag, total)) = header(&self.received)? else { return Ok(None) };
        if self.received.len() < total {
            return Ok(None);
        }
        let mut body = self.received.split_to(total).freeze();
        body.advance(HEADER_BYTES);
        Ok(Some(Message { tag, body }))
    }

    /// What was read and not taken yet.
    pub(crate) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Takes the first `count` bytes of [`Wire::received`]; all of them when there are fewer.
    pub(crate) fn take_bytes(&mut self, count: usize) -> Bytes {
        let count = count.min(self.received.len());
        self.received.split_to(count).freeze()
    }

    /// Like [`Wire::message`], but a notice is logged and an ErrorResponse is an error.
    pub(crate) async fn expect(&mut self) -> Result<Message, Error> {
        loop {
            let message = self.message().await?;
            match message.tag {
                b'E' => return Err(Error::from(ServerError::parse(&message.body))),
                b'N' => log_notice(&message.body),
                _ => return Ok(message),
            }
        }
    }
}

/// Tag and total length of the message that starts here, once its header has arrived.
pub(crate) fn header(bytes: &[u8]) -> Result<Option<(u8, usize)>, Error> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let [tag, length @ ..] = *header;
    let length = u32::from_be_bytes(length);
    // The length counts itself but not the tag.
    let total = usize::try_from(length).ok().and_then(|length| length.checked_add(1));
    match total {
        Some(total) if total < HEADER_BYTES => {
            Err(Error::Malformed { what: "a message is shorter than its header" })
        }
        Some(total) if total <= MAX_MESSAGE_BYTES => Ok(Some((tag, total))),
        _ => Err(Error::Malformed { what: "a message claims more than 1 GiB" }),
    }
}

/// Logs a notice of the server.
pub(crate) fn log_notice(body: &[u8]) {
    let notice = ServerError::parse(body);
    tracing::debug!(severity = notice.severity, sqlstate = notice.sqlstate, "{}", notice.message);
}

/// Reads values from the front of a message's body.
#[derive(Debug)]
pub(crate) struct Body<'a>(pub(crate) &'a [u8]);

impl<'a> Body<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (value, rest) = self.0.split_first_chunk::<N>().ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(*value)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Error> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (value, rest) = self.0.split_at_checked(count).ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(value)
    }

    /// A text that a zero byte ends.
    pub(crate) fn text(&mut self) -> Result<&'a str, Error> {
        let end = memchr::memchr(0, self.0).ok_or(CUT_OFF)?;
        let text = self.take(end)?;
        self.take(1)?;
        utf8(text)
    }
}

const CUT_OFF: Error = Error::Malformed { what: "a message ends before its last field" };

pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::Malformed { what: "a text is not UTF-8" })
}

/// The columns of a DataRow, as text.
pub(crate) fn row(body: &[u8]) -> Result<Vec<Option<String>>, Error> {
    let mut body = Body(body);
    let count = body.u16()?;
    let mut columns = Vec::new();
    for _ in 0..count {
        // -1 stands for null.
        let column = match usize::try_from(body.i32()?) {
            Ok(length) => Some(utf8(body.take(length)?)?.to_owned()),
            Err(_) => None,
        };
        columns.push(column);
    }
    Ok(columns)
}

/// A column of the first row of a result.
pub(crate) fn text(rows: &[Vec<Option<String>>], column: usize) -> Result<&str, Error> {
    rows.first().and_then(|row| row.get(column)?.as_deref()).ok_or(WRONG_ANSWER)
}

/// The error for a result of an unexpected form.
pub(crate) const WRONG_ANSWER: Error =
    Error::Malformed { what: "a command has an unexpected result" };

/// Sends one simple query and returns the rows of its result, read up to ReadyForQuery.
pub(crate) async fn query<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    text: &str,
) -> Result<Vec<Vec<Option<String>>>, Error> {
    postgres_protocol::message::frontend::query(text, &mut wire.outgoing)
        .map_err(|source| Error::Io { doing: "writing a query", source })?;
    wire.flush().await?;
    let mut rows = Vec::new();
    let mut refused = None;
    loop {
        let message = wire.message().await?;
        match message.tag {
            b'D' => rows.push(row(&message.body)?),
            // The server may send more, and is not ready before it says so.
            b'E' => {
                let error = ServerError::parse(&message.body);
                if error.severity == "FATAL" || error.severity == "PANIC" {
                    return Err(Error::from(error));
                }
                refused = Some(error);
            }
            b'N' => log_notice(&message.body),
            b'Z' => return refused.map_or(Ok(rows), |error| Err(Error::from(error))),
            // Row description, command complete, empty query, parameter status.
            b'T' | b'C' | b'I' | b'S' => {}
            tag => return Err(Error::Unexpected { tag: char::from(tag), doing: "a query" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short");
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(future)
    }

    /// The result of `query` when the server sends `bytes` and then closes the connection.
    fn answer(bytes: &[u8]) -> Result<Vec<Vec<Option<String>>>, Error> {
        block_on(async {
            let (client, mut server) = tokio::io::duplex(1 << 20);
            server.write_all(bytes).await.expect("room");
            let mut wire = Wire::new(client);
            let asked = async {
                let mut question = [0; 1024];
                while server.read(&mut question).await.is_ok_and(|count| count == 0) {}
                server.shutdown().await.expect("open");
            };
            tokio::join!(query(&mut wire, "SELECT 1"), asked).0
        })
    }

    fn two_rows() -> Vec<u8> {
        [
            frame(b'T', b"\0\x01x\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"),
            frame(b'D', b"\0\x02\0\0\0\x01a\xff\xff\xff\xff"),
            frame(b'N', b"SNOTICE\0Mhello\0\0"),
            frame(b'D', b"\0\0"),
            frame(b'C', b"SELECT 2\0"),
            frame(b'Z', b"I"),
        ]
        .concat()
    }

    #[test]
    fn rows_come_back_with_their_nulls() {
        let rows = answer(&two_rows()).expect("well-formed");
        assert_eq!(rows, [vec![Some("a".to_owned()), None], vec![]]);
    }

    #[test]
    fn an_error_is_given_once_the_server_is_ready_again() {
        let refusal = frame(b'E', b"VERROR\0C42704\0Mno\0\0");
        let bytes = [refusal, frame(b'Z', b"I")].concat();
        assert!(matches!(answer(&bytes), Err(Error::Server(error)) if error.sqlstate == "42704"));
    }

    #[test]
    fn a_connection_cut_at_any_byte_is_an_error() {
        let whole = two_rows();
        for end in 0..whole.len() {
            assert!(matches!(answer(&whole[..end]), Err(Error::Closed)), "cut at {end}");
        }
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut wire = Wire::new(tokio::io::empty());
        wire.received.extend_from_slice(&[b'd', 0x3f, 0xff, 0xff, 0xff, 1]);
        assert_eq!(wire.take_message().expect("not too long"), None);
        assert!(wire.received.capacity() < 1024);
        wire.received[1] = 0x40;
        assert!(matches!(wire.take_message(), Err(Error::Malformed { .. })));
        wire.received[1..5].copy_from_slice(&[0, 0, 0, 3]);
        assert!(matches!(wire.take_message(), Err(Error::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn a_message_fed_in_pieces_arrives_whole(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8),
            piece in 1_usize..64,
        ) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|body| frame(b'x', body)).collect();
            let messages = block_on(async {
                let (client, mut server) = tokio::io::duplex(piece);
                let mut wire = Wire::new(client);
                let read = async {
                    let mut messages = Vec::new();
                    while messages.len() < bodies.len() {
                        messages.push(wire.message().await.expect("well-formed").body.to_vec());
                    }
                    messages
                };
                let (messages, sent) = tokio::join!(read, server.write_all(&bytes));
                sent.expect("open");
                messages
            });
            prop_assert_eq!(messages, bodies);
        }

        #[test]
        fn no_answer_panics(bytes: Vec<u8>) {
            prop_assert!(answer(&bytes).is_err());
        }

        #[test]
        fn no_row_panics(bytes: Vec<u8>) {
            let _ = row(&bytes);
        }
    }
}
