//! Parses the CopyData messages of the replication stream, and writes status updates.
//!
//! Pure: bytes in, values out. A chunk holds complete CopyData messages as they arrived from the
//! socket, and its frames borrow from it, so that a row is not copied between the socket and the
//! decoder. `data` is parsed by `pgoutput`.
//!
//! Layout: <https://www.postgresql.org/docs/current/protocol-replication.html>

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

use bytes::{BufMut, Bytes, BytesMut};

use crate::lsn::Lsn;

/// Length of a CopyData header: the tag and four bytes of length.
const HEADER_BYTES: usize = 5;

/// One message of the walsender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A piece of the stream; with pgoutput, exactly one of its messages.
    XLogData {
        /// The data's position in the WAL.
        wal_start: Lsn,
        /// The end of WAL on the server when it was sent.
        wal_end: Lsn,
        /// The server's clock, microseconds since 2000-01-01 UTC.
        sent_at_us: i64,
        /// The output plugin's bytes.
        data: &'a [u8],
    },
    /// A keepalive.
    Keepalive {
        /// How far the server has read the WAL; everything before it was sent.
        wal_end: Lsn,
        /// The server's clock, microseconds since 2000-01-01 UTC.
        sent_at_us: i64,
        /// Whether the server requests a status update at once.
        reply_requested: bool,
    },
}

/// Bytes that are not a frame of the replication stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Ends before its last field.
    #[error("a message of the replication stream ends before its last field")]
    CutOff,
    /// A tag no walsender sends.
    #[error("a message of the replication stream has the unknown tag {tag:#04x}")]
    UnknownTag {
        /// The tag.
        tag: u8,
    },
}

impl<'a> Frame<'a> {
    /// Reads the payload of one CopyData message.
    ///
    /// # Errors
    /// When it is cut off or of an unknown kind.
    pub fn parse(payload: &'a [u8]) -> Result<Self, FrameError> {
        let (tag, rest) = payload.split_first().ok_or(FrameError::CutOff)?;
        match tag {
            b'w' => {
                let (wal_start, rest) = take_u64(rest)?;
                let (wal_end, rest) = take_u64(rest)?;
                let (sent_at, data) = take_u64(rest)?;
                Ok(Self::XLogData {
                    wal_start: Lsn::from(wal_start),
                    wal_end: Lsn::from(wal_end),
                    sent_at_us: sent_at.cast_signed(),
                    data,
                })
            }
            b'k' => {
                let (wal_end, rest) = take_u64(rest)?;
                let (sent_at, rest) = take_u64(rest)?;
                let reply = rest.first().ok_or(FrameError::CutOff)?;
                Ok(Self::Keepalive {
                    wal_end: Lsn::from(wal_end),
                    sent_at_us: sent_at.cast_signed(),
                    reply_requested: *reply != 0,
                })
            }
            tag => Err(FrameError::UnknownTag { tag: *tag }),
        }
    }
}

fn take_u64(bytes: &[u8]) -> Result<(u64, &[u8]), FrameError> {
    let (value, rest) = bytes.split_first_chunk().ok_or(FrameError::CutOff)?;
    Ok((u64::from_be_bytes(*value), rest))
}

/// The frames of a sequence of CopyData messages. After an error it returns nothing more.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Frames of `bytes`, which hold complete CopyData messages, headers included.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    fn take(&mut self) -> Result<Frame<'a>, FrameError> {
        let (header, _) = self.rest.split_first_chunk().ok_or(FrameError::CutOff)?;
        let [tag, length @ ..]: [u8; HEADER_BYTES] = *header;
        if tag != b'd' {
            return Err(FrameError::UnknownTag { tag });
        }
        let total = usize::try_from(u32::from_be_bytes(length)).map_err(|_| FrameError::CutOff)?;
        let total = total.checked_add(1).ok_or(FrameError::CutOff)?;
        let payload = self.rest.get(HEADER_BYTES..total).ok_or(FrameError::CutOff)?;
        self.rest = self.rest.get(total..).unwrap_or_default();
        Frame::parse(payload)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, FrameError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let frame = self.take();
        if frame.is_err() {
            self.rest = &[];
        }
        Some(frame)
    }
}

/// Appends a Standby Status Update, as a CopyData message, that confirms everything before
/// `confirmed`. Written, flushed and applied are the same to us: what Kafka has acknowledged.
pub fn put_status_update(confirmed: Lsn, now_us: i64, reply_requested: bool, out: &mut BytesMut) {
    const LENGTH: u32 = 4 + 1 + 4 * 8 + 1;
    out.put_u8(b'd');
    out.put_u32(LENGTH);
    out.put_u8(b'r');
    for _ in ["written", "flushed", "applied"] {
        out.put_u64(confirmed.as_u64());
    }
    out.put_i64(now_us);
    out.put_u8(reply_requested.into());
}

/// Appends one CopyData message with XLogData. For tests and benches, which act as the server.
pub fn put_xlog_data(
    wal_start: Lsn,
    wal_end: Lsn,
    sent_at_us: i64,
    data: &[u8],
    out: &mut BytesMut,
) {
    let mut payload = BytesMut::with_capacity(25 + data.len());
    payload.put_u8(b'w');
    payload.put_u64(wal_start.as_u64());
    payload.put_u64(wal_end.as_u64());
    payload.put_i64(sent_at_us);
    payload.put_slice(data);
    put_copy_data(&payload, out);
}

/// Appends one CopyData message with a keepalive. For tests and benches, which act as the server.
pub fn put_keepalive(wal_end: Lsn, sent_at_us: i64, reply_requested: bool, out: &mut BytesMut) {
    let mut payload = BytesMut::with_capacity(18);
    payload.put_u8(b'k');
    payload.put_u64(wal_end.as_u64());
    payload.put_i64(sent_at_us);
    payload.put_u8(reply_requested.into());
    put_copy_data(&payload, out);
}

fn put_copy_data(payload: &[u8], out: &mut BytesMut) {
    out.put_u8(b'd');
    // The protocol cannot express more than 4 GiB; such a message is cut off for its reader.
    out.put_u32(u32::try_from(payload.len() + 4).unwrap_or(u32::MAX));
    out.put_slice(payload);
}

/// Complete CopyData messages in one buffer; its space in the channel is freed when it is dropped.
#[derive(Debug)]
pub struct Chunk {
    bytes: Bytes,
    is_backlog: bool,
    _room: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl Chunk {
    pub(super) const fn new(
        bytes: Bytes,
        is_backlog: bool,
        room: tokio::sync::OwnedSemaphorePermit,
    ) -> Self {
        Self { bytes, is_backlog, _room: Some(room) }
    }

    /// A chunk outside of a channel.
    #[must_use]
    pub const fn from_bytes(bytes: Bytes) -> Self {
        Self { bytes, is_backlog: false, _room: None }
    }

    /// Whether rows arrived faster than they could be read one by one, so that more follow at once.
    #[must_use]
    pub const fn is_backlog(&self) -> bool {
        self.is_backlog
    }

    /// Its frames, in the order they were sent.
    #[must_use]
    pub fn frames(&self) -> Frames<'_> {
        Frames::new(&self.bytes)
    }

    /// Size in bytes, headers included.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> BytesMut {
        let mut bytes = BytesMut::new();
        put_xlog_data(Lsn::from(1), Lsn::from(2), -3, b"row", &mut bytes);
        put_keepalive(Lsn::from(4), 5, true, &mut bytes);
        put_xlog_data(Lsn::from(6), Lsn::from(7), 8, b"", &mut bytes);
        bytes
    }

    #[test]
    fn frames_come_back_as_they_were_sent() {
        let chunk = Chunk::from_bytes(example().freeze());
        let frames: Result<Vec<_>, _> = chunk.frames().collect();
        let data = |wal_start, wal_end, sent_at_us, data| Frame::XLogData {
            wal_start: Lsn::from(wal_start),
            wal_end: Lsn::from(wal_end),
            sent_at_us,
            data,
        };
        let keepalive =
            Frame::Keepalive { wal_end: Lsn::from(4), sent_at_us: 5, reply_requested: true };
        let expected = vec![data(1, 2, -3, &b"row"[..]), keepalive, data(6, 7, 8, b"")];
        assert_eq!(frames, Ok(expected));
    }

    #[test]
    fn a_chunk_cut_anywhere_but_between_frames_is_an_error() {
        let bytes = example();
        let boundaries = [0, 33, 56, 86];
        for end in 0..=bytes.len() {
            let whole = Frames::new(&bytes[..end]).all(|frame| frame.is_ok());
            assert_eq!(whole, boundaries.contains(&end), "cut at {end}");
        }
    }

    #[test]
    fn a_status_update_says_one_position_three_times() {
        let mut bytes = BytesMut::new();
        put_status_update(Lsn::from(0x0102_0304_0506_0708), 9, true, &mut bytes);
        let lsn = [1, 2, 3, 4, 5, 6, 7, 8];
        let expected =
            [&[b'd', 0, 0, 0, 38, b'r'][..], &lsn, &lsn, &lsn, &[0, 0, 0, 0, 0, 0, 0, 9, 1]]
                .concat();
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_all_end(bytes: Vec<u8>) {
            prop_assert!(Frames::new(&bytes).count() <= bytes.len());
        }
    }
}
