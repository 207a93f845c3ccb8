//! Entry points for `fuzz/`, which only sees the public API: behind a feature of its own.
//!
//! What a server sends is parsed by private modules, over a stream that only they should create.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::conninfo::ChannelBinding;
use super::startup::{self, Login, Purpose};
use super::wire::{self, Wire};
use super::{Error, ReplicationStream, StreamPhase, chunk_channel};
use crate::config::Secret;
use crate::lsn::Lsn;

/// How far a connection can be trusted.
#[derive(Clone, Copy, Debug)]
pub struct Trust {
    /// Whether no one on the network can read it.
    pub is_private: bool,
    /// Whether it is encrypted.
    pub is_tls: bool,
    /// Whether a password is set: `hunter2`.
    pub has_password: bool,
    /// Whether the login must be bound to the channel.
    pub must_bind: bool,
}

/// Logs in to a server that sends `said` and closes the connection, runs a query, and streams from
/// it.
///
/// # Errors
/// Almost always; the server would have to send the right bytes.
pub async fn converse(said: &[u8], piece_bytes: usize, trust: Trust) -> Result<(), Error> {
    let mut wire = Wire::new(Said { rest: said.to_vec(), piece_bytes });
    let password = trust.has_password.then(|| Secret::from("hunter2".to_owned()));
    let login = Login {
        purpose: Purpose::Replication,
        user: "fuzz",
        database: "fuzz",
        application_name: "fuzz",
        options: None,
        password: password.as_ref(),
        channel_binding: match trust.must_bind {
            true => ChannelBinding::Require,
            false => ChannelBinding::Prefer,
        },
        end_point: trust.is_tls.then_some(b"end point"),
        is_private: trust.is_private,
        is_tls: trust.is_tls,
    };
    let logged_in = startup::log_in(&mut wire, &login).await;
    let asked = wire::query(&mut wire, "IDENTIFY_SYSTEM").await;
    let timeout = Some(Duration::from_secs(1));
    let stream = ReplicationStream::new(wire, "s".to_owned(), Lsn::ZERO, Duration::ZERO, timeout);
    let (sender, mut chunks) = chunk_channel(1 << 20);
    let (_confirmed, confirmed) = watch::channel(Lsn::ZERO);
    let (_phase, phase) = watch::channel(StreamPhase::Streaming);
    let streamed = stream.run(sender, confirmed, phase).await;
    while let Some(chunk) = chunks.try_recv() {
        for frame in chunk.frames() {
            // The stream forwards only complete messages, whatever is in them.
            let _ = frame;
        }
    }
    logged_in.map(drop).and(asked.map(drop)).and(streamed)
}

/// Returns the given bytes, a piece per read; accepts all writes.
#[derive(Debug)]
struct Said {
    rest: Vec<u8>,
    piece_bytes: usize,
}

impl AsyncRead for Said {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let piece = self.piece_bytes.min(buffer.remaining()).min(self.rest.len());
        buffer.put_slice(&self.rest.drain(..piece).collect::<Vec<_>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
