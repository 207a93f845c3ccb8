//! The replication stream: receives rows, and reports the confirmed position.
//!
//! Must hold: status updates are sent on time whatever the worker does, because a server that
//! receives nothing for `wal_sender_timeout` closes the connection; a position is reported only
//! after it was confirmed; a lone row is passed on at once; a dead connection is detected.
//!
//! ```text
//! Streaming --> Draining --> Finished
//!   reads,        reads no more,    last status, CopyDone,
//!   forwards,     reports           waits for the server's end
//!   reports
//! ```
//!
//! The worker reads the frames' content; here only their boundaries matter, and whether the server
//! requests a reply.

use std::time::{Duration, Instant};

use bytes::Bytes;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Error;
use super::chunks::{ChunkSender, ReceiverGone};
use super::frame::put_status_update;
use super::pacer::Pacer;
use super::place::StreamPlace;
use super::server_error::ServerError;
use super::slot::Walsender;
use super::socket::Socket;
use super::wire::{self, HEADER_BYTES, Wire};
use crate::clock::{self, POSTGRES_EPOCH_US};
use crate::failpoint;
use crate::lsn::Lsn;

/// Buffer for one read: more than the server's send buffer brings during a pause.
const READ_BYTES: usize = 256 * 1024;

/// Shortest time between two status updates that only report progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Longest wait for the server to end the stream once we did.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for sending a status update: the socket's buffer holds thousands of them, so if one
/// does not fit, the server accepts nothing any more.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Used instead of `wal_sender_timeout` if the server has none.
const DEFAULT_SILENCE: Duration = Duration::from_secs(60);

/// The phase of the stream, set by the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPhase {
    /// Read and forward.
    Streaming,
    /// Forward nothing more, but report what is still being confirmed.
    Draining,
    /// Report once more and end.
    Finished,
}

/// A started stream.
#[derive(Debug)]
pub struct ReplicationStream<S = Socket> {
    wire: Wire<S>,
    slot: String,
    walsender: Option<Walsender>,
    status_interval: Duration,
    silence_limit: Duration,
    pacer: Pacer,
    /// The last position, for errors.
    place: StreamPlace,
    server_version: u32,
    /// How many of the received bytes are known to be complete CopyData messages.
    whole_bytes: usize,
    /// Whether a keepalive requested a status update.
    reply_due: bool,
    start: Lsn,
    reported: Lsn,
    reported_at: Instant,
    /// When bytes last arrived, or reading was resumed.
    heard_at: Instant,
}

/// What woke the loop.
enum Event {
    Read(usize),
    Room(OwnedSemaphorePermit),
    WorkerGone,
    Confirmed,
    Phase(StreamPhase),
    Timer,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ReplicationStream<S> {
    pub(crate) fn new(
        wire: Wire<S>,
        slot: String,
        start: Lsn,
        status_interval: Duration,
        wal_sender_timeout: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        let silence = wal_sender_timeout.unwrap_or(DEFAULT_SILENCE);
        Self {
            wire,
            slot,
            walsender: None,
            // Two updates may be lost before the server closes the connection.
            status_interval: status_interval.min(silence / 3).max(Duration::from_millis(10)),
            silence_limit: silence * 2,
            pacer: Pacer::new(now),
            place: StreamPlace { last: start, commit: None },
            server_version: 0,
            whole_bytes: 0,
            reply_due: false,
            start,
            reported: Lsn::ZERO,
            reported_at: now,
            heard_at: now,
        }
    }

    /// The server process of this connection.
    #[must_use]
    pub const fn walsender(&self) -> Option<&Walsender> {
        self.walsender.as_ref()
    }

    pub(crate) fn served_by(self, walsender: Walsender, server_version: u32) -> Self {
        Self { walsender: Some(walsender), server_version, ..self }
    }

    /// Classifies an error of the server for the stream.
    fn error(&self, body: &[u8]) -> Error {
        let error = Error::from(ServerError::parse(body));
        error.in_stream_of(&self.slot, self.place, self.server_version)
    }

    /// Sets another limit on the server's silence. An idle server is asked to reply at least twice
    /// within it.
    pub(crate) fn with_silence(self, limit: Option<Duration>) -> Self {
        let Some(silence_limit) = limit else { return self };
        let status_interval = self.status_interval.min(silence_limit / 3);
        Self { silence_limit, status_interval, ..self }
    }

    /// Runs until the phase is [`StreamPhase::Finished`] (or its sender is gone) or the connection
    /// breaks. Reports `confirmed`, which must never be more than was published; zero means nothing
    /// yet.
    ///
    /// Pauses of a fraction of a millisecond block the thread, so this needs a thread of its own:
    /// see [`spawn_reader`].
    ///
    /// # Errors
    /// When the connection breaks, or the server ends the stream with an error.
    pub async fn run(
        mut self,
        chunks: ChunkSender,
        mut confirmed: watch::Receiver<Lsn>,
        mut phase: watch::Receiver<StreamPhase>,
    ) -> Result<(), Error> {
        let mut chunks = Some(chunks);
        let mut confirmed_open = true;
        // Bytes that arrived with the response to the command, which may be all that ever arrives.
        self.scan()?;
        loop {
            match *phase.borrow_and_update() {
                StreamPhase::Streaming => {}
                StreamPhase::Draining => chunks = None,
                StreamPhase::Finished => break,
            }
            self.report_if_due(*confirmed.borrow_and_update()).await?;
            self.check_silence(chunks.is_some())?;
            let wake_at = self.next_report_at(*confirmed.borrow());
            let event = tokio::select! {
                biased;
                changed = phase.changed() => match changed {
                    Ok(()) => Event::Phase(*phase.borrow()),
                    Err(_) => Event::Phase(StreamPhase::Finished),
                },
                changed = confirmed.changed(), if confirmed_open => {
                    confirmed_open = changed.is_ok();
                    Event::Confirmed
                }
                event = next_data(&mut self.wire, self.whole_bytes, chunks.as_ref()) => event?,
                () = tokio::time::sleep_until(wake_at.into()) => Event::Timer,
            };
            match event {
                Event::Read(count) => self.after_read(count)?,
                Event::Room(room) => {
                    let bytes = self.take_whole();
                    self.heard_at = Instant::now();
                    let is_backlog = self.pacer.is_paced();
                    if forward(chunks.as_ref(), bytes, is_backlog, room).is_err() {
                        chunks = None;
                    }
                    self.scan()?;
                }
                Event::WorkerGone => chunks = None,
                Event::Phase(StreamPhase::Finished) => break,
                Event::Confirmed | Event::Timer | Event::Phase(_) => {}
            }
        }
        drop(chunks);
        let last = *confirmed.borrow();
        let finished = self.finish(last);
        match tokio::time::timeout(FINISH_TIMEOUT, finished).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout { doing: "ending the stream", after: FINISH_TIMEOUT }),
        }
    }

    /// Records what arrived, and pauses if that lets the next read bring more.
    fn after_read(&mut self, count: usize) -> Result<(), Error> {
        let now = Instant::now();
        self.heard_at = now;
        self.scan()?;
        if let Some(pause) = self.pacer.after_read(now, count)
            // Does not delay a position to report, or a full buffer.
            && self.wire.received().len() < READ_BYTES
            && !self.reply_due
        {
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Finds the end of the last complete CopyData message, and keepalives that request a reply.
    fn scan(&mut self) -> Result<(), Error> {
        loop {
            let received = self.wire.received();
            let rest = received.get(self.whole_bytes..).unwrap_or_default();
            let Some((tag, total)) = wire::header(rest)? else { return Ok(()) };
            let Some(message) = rest.get(..total) else { return Ok(()) };
            match tag {
                b'd' => {
                    // The last byte of a keepalive requests a reply.
                    if message.get(HEADER_BYTES) == Some(&b'k') && message.last() != Some(&0) {
                        self.reply_due = true;
                    }
                    self.place.see(message.get(HEADER_BYTES..).unwrap_or_default());
                    self.whole_bytes += total;
                }
                // Earlier bytes must be forwarded first.
                _ if self.whole_bytes > 0 => return Ok(()),
                _ => self.take_other()?,
            }
        }
    }

    /// Takes a message that is not CopyData from the front of the received bytes.
    fn take_other(&mut self) -> Result<(), Error> {
        let Some(message) = self.wire.take_message()? else { return Ok(()) };
        match message.tag {
            b'E' => Err(self.error(&message.body)),
            b'N' => self.take_notice(&message.body),
            b'S' => Ok(()),
            // A server that shuts down ends the stream once everything it sent was confirmed.
            b'c' | b'C' => Err(Error::Closed),
            tag => Err(Error::Unexpected { tag: char::from(tag), doing: "streaming" }),
        }
    }

    /// From version 18 on, a missing publication is only a warning, and the stream omits its
    /// tables.
    fn take_notice(&self, body: &[u8]) -> Result<(), Error> {
        let notice = ServerError::parse(body);
        if notice.tells_of_missing_publication() {
            return Err(Error::PublicationMissing(Box::new(notice)));
        }
        wire::log_notice(body);
        Ok(())
    }

    fn take_whole(&mut self) -> Bytes {
        let bytes = self.wire.take_bytes(self.whole_bytes);
        self.whole_bytes = 0;
        bytes
    }

    /// When the next status update is due if nothing else happens.
    fn next_report_at(&self, confirmed: Lsn) -> Instant {
        let wait = if self.confirmable(confirmed) > self.reported {
            PROGRESS_INTERVAL.min(self.status_interval)
        } else {
            self.status_interval
        };
        self.reported_at + wait
    }

    /// What may be reported: never less than where the stream began, because that position was
    /// confirmed before.
    fn confirmable(&self, confirmed: Lsn) -> Lsn {
        confirmed.max(self.start).max(self.reported)
    }

    async fn report_if_due(&mut self, confirmed: Lsn) -> Result<(), Error> {
        let now = Instant::now();
        if !self.reply_due && now < self.next_report_at(confirmed) {
            return Ok(());
        }
        // Requesting a reply makes an idle server show that it is alive.
        let silent = now.duration_since(self.heard_at) >= self.status_interval;
        self.report(confirmed, silent).await
    }

    async fn report(&mut self, confirmed: Lsn, reply_requested: bool) -> Result<(), Error> {
        let confirmed = self.confirmable(confirmed);
        put_status_update(confirmed, now_us(), reply_requested, &mut self.wire.outgoing);
        match tokio::time::timeout(SEND_TIMEOUT, self.wire.flush()).await {
            Ok(sent) => sent?,
            Err(_) => {
                return Err(Error::Timeout { doing: "a status update", after: SEND_TIMEOUT });
            }
        }
        self.reply_due = false;
        self.reported = confirmed;
        self.reported_at = Instant::now();
        Ok(())
    }

    /// While nothing is read, silence says nothing about the server.
    fn check_silence(&mut self, is_reading: bool) -> Result<(), Error> {
        let now = Instant::now();
        if !is_reading || self.whole_bytes > 0 {
            self.heard_at = now;
        }
        if now.duration_since(self.heard_at) <= self.silence_limit {
            return Ok(());
        }
        Err(Error::Silent { after: self.silence_limit })
    }

    /// Reports once more, ends the stream and waits for the server to do the same.
    async fn finish(mut self, confirmed: Lsn) -> Result<(), Error> {
        self.report(confirmed, false).await?;
        frontend::copy_done(&mut self.wire.outgoing);
        self.wire.flush().await?;
        loop {
            // What the server had sent already is read and discarded; it was not confirmed.
            let message = self.wire.message().await?;
            match message.tag {
                b'E' => return Err(self.error(&message.body)),
                b'C' | b'Z' => break,
                _ => {}
            }
        }
        frontend::terminate(&mut self.wire.outgoing);
        self.wire.flush().await
    }
}

/// Waits for bytes from the server or, if complete messages are waiting, for space to forward them.
/// Never ready while nothing may be forwarded.
async fn next_data<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    whole_bytes: usize,
    chunks: Option<&ChunkSender>,
) -> Result<Event, Error> {
    let Some(chunks) = chunks else { return std::future::pending().await };
    if whole_bytes == 0 {
        return wire.fill(READ_BYTES).await.map(Event::Read);
    }
    match chunks.room_for(whole_bytes).await {
        Ok(room) => Ok(Event::Room(room)),
        Err(ReceiverGone) => Ok(Event::WorkerGone),
    }
}

fn forward(
    chunks: Option<&ChunkSender>,
    bytes: Bytes,
    is_backlog: bool,
    room: OwnedSemaphorePermit,
) -> Result<(), ReceiverGone> {
    chunks.ok_or(ReceiverGone)?.send(bytes, is_backlog, room)
}

/// Our clock in the server's time format.
fn now_us() -> i64 {
    clock::now_us() - POSTGRES_EPOCH_US
}

/// The reader's thread. Awaiting it returns the stream's result.
#[derive(Debug)]
pub struct ReaderHandle {
    /// `None` once the result was taken.
    result: Option<tokio::sync::oneshot::Receiver<Result<(), Error>>>,
}

impl ReaderHandle {
    /// Waits for the stream to end; returns its result once. Cancelling the wait does not stop the
    /// stream.
    ///
    /// # Errors
    /// The stream's error, or that its thread panicked.
    pub async fn join(&mut self) -> Result<(), Error> {
        let Some(result) = &mut self.result else { return Ok(()) };
        let result = result.await;
        self.result = None;
        match result {
            Ok(result) => result,
            Err(_) => Err(Error::ReaderPanicked),
        }
    }
}

/// Opens a connection and runs its stream on a thread of its own, so that pauses between reads
/// delay nothing else. `open` runs on that thread too, because a socket belongs to the runtime that
/// created it.
///
/// # Errors
/// When the thread cannot be started.
pub fn spawn_reader<F>(
    open: F,
    chunks: ChunkSender,
    confirmed: watch::Receiver<Lsn>,
    phase: watch::Receiver<StreamPhase>,
) -> Result<ReaderHandle, Error>
where
    F: AsyncFnOnce() -> Result<ReplicationStream, Error> + Send + 'static,
{
    let (sender, result) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Thread)?;
    let run = move || {
        let result = runtime.block_on(async {
            let stream = open().await?;
            failpoint::within("reader", stream.run(chunks, confirmed, phase)).await
        });
        // The receiver is gone once the bridge has ended.
        let _ = sender.send(result);
    };
    std::thread::Builder::new().name("reader".to_owned()).spawn(run).map_err(Error::Thread)?;
    Ok(ReaderHandle { result: Some(result) })
}
