//! The channel between the reader and the worker, bounded in bytes.
//!
//! Its bound is the bridge's back-pressure on Postgres: when the worker waits for Kafka, the
//! channel fills, the reader stops reading and the walsender's TCP window fills. The reader waits
//! for space without blocking, so that status updates continue; the worker blocks its own thread.
//!
//! Must hold: space is freed when a chunk is dropped, not when it is received; a chunk larger than
//! the whole budget passes once the channel is empty.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::frame::Chunk;

/// Creates a channel that holds at most `budget_bytes`.
#[must_use]
pub fn chunk_channel(budget_bytes: usize) -> (ChunkSender, ChunkReceiver) {
    let budget = u32::try_from(budget_bytes).unwrap_or(u32::MAX).max(1);
    // A semaphore of a 32-bit system counts to 2^29 - 1.
    let budget = budget.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
    let room = Arc::new(Semaphore::new(usize::try_from(budget).unwrap_or(usize::MAX)));
    let (sender, receiver) = mpsc::unbounded_channel();
    (ChunkSender { sender, room, budget }, ChunkReceiver { receiver })
}

/// The reader's end.
#[derive(Debug)]
pub struct ChunkSender {
    sender: mpsc::UnboundedSender<Chunk>,
    room: Arc<Semaphore>,
    budget: u32,
}

/// The receiver is gone: no one will take what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceiverGone;

impl ChunkSender {
    /// Waits until `bytes` fit. Cancelling the wait loses nothing.
    pub(crate) async fn room_for(
        &self,
        bytes: usize,
    ) -> Result<OwnedSemaphorePermit, ReceiverGone> {
        let share = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.budget);
        tokio::select! {
            biased;
            () = self.sender.closed() => Err(ReceiverGone),
            room = Arc::clone(&self.room).acquire_many_owned(share) => room.map_err(|_| ReceiverGone),
        }
    }

    /// Sends `bytes` (complete CopyData messages) into space that was waited for.
    pub(crate) fn send(
        &self,
        bytes: Bytes,
        is_backlog: bool,
        room: OwnedSemaphorePermit,
    ) -> Result<(), ReceiverGone> {
        self.sender.send(Chunk::new(bytes, is_backlog, room)).map_err(|_| ReceiverGone)
    }
}

/// The worker's end.
#[derive(Debug)]
pub struct ChunkReceiver {
    receiver: mpsc::UnboundedReceiver<Chunk>,
}

impl ChunkReceiver {
    /// The next chunk; `None` once the reader has stopped and all chunks were received. Blocks the
    /// thread, which must not be one of an async runtime.
    pub fn blocking_recv(&mut self) -> Option<Chunk> {
        self.receiver.blocking_recv()
    }

    /// The next chunk, waiting until `deadline`, or forever without one. Blocks the thread, as
    /// above.
    pub fn recv_until(&mut self, deadline: Option<Instant>) -> Received {
        let received = |chunk: Option<Chunk>| chunk.map_or(Received::Closed, Received::Chunk);
        if let Ok(chunk) = self.receiver.try_recv() {
            return Received::Chunk(chunk);
        }
        let Some(deadline) = deadline else { return received(self.blocking_recv()) };
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(chunk) = self.receiver.poll_recv(&mut context) {
                return received(chunk);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Received::Nothing;
            }
            std::thread::park_timeout(left);
        }
    }

    /// The next chunk, for async callers; `None` as with [`ChunkReceiver::blocking_recv`].
    pub async fn recv(&mut self) -> Option<Chunk> {
        self.receiver.recv().await
    }

    /// Whether the next chunk would have to be waited for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// The next chunk if one is available.
    pub fn try_recv(&mut self) -> Option<Chunk> {
        self.receiver.try_recv().ok()
    }
}

/// The result of waiting.
#[derive(Debug)]
pub enum Received {
    /// A chunk.
    Chunk(Chunk),
    /// None, and none will follow: the reader has stopped and all chunks were received.
    Closed,
    /// Nothing yet.
    Nothing,
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    async fn is_ready<T>(future: impl Future<Output = T>) -> bool {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
    }

    async fn send(sender: &ChunkSender, bytes: &'static [u8]) {
        let room = sender.room_for(bytes.len()).await.expect("receiver");
        sender.send(Bytes::from_static(bytes), false, room).expect("receiver");
    }

    #[tokio::test]
    async fn room_comes_back_when_a_chunk_is_dropped() {
        let (sender, mut receiver) = chunk_channel(10);
        send(&sender, b"12345678").await;
        assert!(is_ready(sender.room_for(2)).await);
        assert!(!is_ready(sender.room_for(3)).await);
        let chunk = receiver.recv().await.expect("sent");
        assert!(!is_ready(sender.room_for(3)).await);
        drop(chunk);
        assert!(is_ready(sender.room_for(3)).await);
    }

    #[tokio::test]
    async fn a_chunk_above_the_budget_passes_alone() {
        let (sender, mut receiver) = chunk_channel(4);
        send(&sender, b"far above").await;
        assert!(!is_ready(sender.room_for(1)).await);
        assert_eq!(receiver.recv().await.expect("sent").len_bytes(), 9);
        assert!(is_ready(sender.room_for(1)).await);
    }

    #[tokio::test]
    async fn a_waiting_sender_learns_that_the_receiver_is_gone() {
        let (sender, receiver) = chunk_channel(1);
        send(&sender, b"x").await;
        drop(receiver);
        assert!(matches!(sender.room_for(1).await, Err(ReceiverGone)));
    }

    #[test]
    fn the_receiver_gets_everything_before_the_end() {
        let (sender, mut receiver) = chunk_channel(100);
        let room = Arc::clone(&sender.room);
        for _ in 0..3 {
            let permit = Arc::clone(&room).try_acquire_many_owned(1).expect("room");
            sender.send(Bytes::from_static(b"x"), false, permit).expect("receiver");
        }
        drop(sender);
        assert_eq!(std::iter::from_fn(|| receiver.blocking_recv()).count(), 3);
    }
}
