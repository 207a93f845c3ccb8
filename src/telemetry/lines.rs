//! Writes log lines to stderr: a queue, and a thread that empties it.
//!
//! stderr may be a pipe that nobody reads, a file on a full disk, or closed. Code that logs must
//! neither wait nor fail because of that: a line goes into a bounded queue, and lines that do not
//! fit or can't be written are dropped and counted. Once writing works again, the log says how many
//! lines are missing.
//!
//! The last message of a process is always queued, and the exit waits for it briefly. If the
//! writing thread itself panics, another thread writes its message.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use crate::metrics;

/// Capacity of the queue in bytes.
const QUEUE_BYTES: usize = 1 << 20;

/// Longest wait for the queue when the process ends.
const LAST: Duration = Duration::from_secs(2);

/// Time between two tries when a write would block.
const PAUSE: Duration = Duration::from_millis(20);

/// Time between two notices of dropped lines while more are dropped all the time.
const NOTICE: Duration = Duration::from_secs(10);

/// The queue. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Notified when a line is queued or was written.
    changed: Condvar,
    /// The thread that writes.
    writer: Mutex<Option<ThreadId>>,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    is_writing: bool,
    /// Lines dropped since the log last reported it.
    dropped: u64,
}

impl Lines {
    /// Starts the thread that writes to stderr; if that fails, all lines are dropped.
    pub(super) fn to_stderr(wrap: impl FnOnce(File) -> Box<dyn Write + Send>) -> Self {
        let lines = Self::default();
        lines.start_writer("log", wrap);
        lines
    }

    fn start_writer(&self, name: &str, wrap: impl FnOnce(File) -> Box<dyn Write + Send>) {
        // A handle of our own, so that no other code waits for the standard library's lock while
        // our write blocks.
        if let Ok(stderr) = std::io::stderr().as_fd().try_clone_to_owned() {
            let (thread, out) = (self.clone(), wrap(File::from(stderr)));
            let tell = |dropped| {
                tracing::warn!(
                    dropped,
                    "log lines could not be written to stderr and are missing; it works again"
                );
            };
            let run = move || {
                *thread.writer() = Some(std::thread::current().id());
                thread.write_all(out, tell);
            };
            let _ = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        }
    }

    /// Queues a line if it fits. Does not block.
    fn push(&self, line: &[u8]) {
        let mut queue = self.lock();
        if queue.bytes + line.len() > QUEUE_BYTES {
            queue.drop_line();
        } else {
            queue.push(line);
        }
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Queues a line even if the queue is full, and waits briefly until all is written.
    pub(super) fn push_last(&self, text: &str) {
        self.lock().push(text.as_bytes());
        self.0.changed.notify_all();
        if *self.writer() == Some(std::thread::current().id()) {
            // The writing thread panicked and writes nothing any more.
            self.lock().is_writing = false;
            self.start_writer("last-words", |stderr| Box::new(stderr));
        }
        self.flush();
    }

    /// Waits briefly until all is written.
    pub(super) fn flush(&self) {
        let is_waiting = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        let _ = self.0.changed.wait_timeout_while(self.lock(), LAST, is_waiting);
    }

    /// Writes lines forever. Calls `report` with the number of missing lines once writing works
    /// again.
    fn write_all(&self, mut out: impl Write, tell: impl Fn(u64)) {
        let (mut is_torn, mut told_at) = (false, None::<Instant>);
        loop {
            let line = self.take();
            crate::failpoint::reach(std::thread::current().name().unwrap_or_default());
            let written = write(&mut out, &line, &mut is_torn);
            let mut queue = self.lock();
            queue.is_writing = false;
            if !written {
                queue.drop_line();
            }
            let is_due = queue.lines.is_empty() || told_at.is_none_or(|at| at.elapsed() >= NOTICE);
            let dropped = if written && is_due { std::mem::take(&mut queue.dropped) } else { 0 };
            drop(queue);
            self.0.changed.notify_all();
            if dropped > 0 {
                told_at = Some(Instant::now());
                tell(dropped);
            }
        }
    }

    fn take(&self) -> Vec<u8> {
        let mut queue = self.lock();
        loop {
            if let Some(line) = queue.lines.pop_front() {
                queue.bytes -= line.len();
                queue.is_writing = true;
                return line;
            }
            queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn writer(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, line: &[u8]) {
        self.bytes += line.len();
        self.lines.push_back(line.to_vec());
    }

    fn drop_line(&mut self) {
        self.dropped += 1;
        metrics::log_lines_dropped().inc();
    }
}

/// Writes a line, after ending one that was cut off. Returns whether that worked.
fn write(out: &mut impl Write, line: &[u8], is_torn: &mut bool) -> bool {
    let end: &[u8] = if *is_torn { b"\n" } else { b"" };
    for part in [end, line] {
        let mut rest = part;
        while !rest.is_empty() {
            match out.write(rest) {
                Ok(0) => return false,
                Ok(count) => {
                    rest = rest.get(count..).unwrap_or_default();
                    *is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
                Err(_) => return false,
            }
        }
    }
    out.flush().is_ok()
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Never fails: a line that can't be queued is dropped.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A writer that accepts only as many bytes as it is allowed.
    struct Slow {
        permits: Receiver<std::io::Result<usize>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let most = self.permits.recv().map_err(std::io::Error::other)??;
            let taken = &bytes[..bytes.len().min(most)];
            self.written.send(taken.to_vec()).map_err(std::io::Error::other)?;
            Ok(taken.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Lines, Sender<std::io::Result<usize>>, Receiver<Vec<u8>>) {
        let (permit, permits) = channel();
        let (written, writes) = channel();
        let (lines, out) = (Lines::default(), Slow { permits, written });
        let thread = lines.clone();
        let notice = lines.clone();
        let tell = move |dropped| notice.push(format!("{dropped} are missing\n").as_bytes());
        std::thread::spawn(move || thread.write_all(out, tell));
        (lines, permit, writes)
    }

    #[test]
    fn who_logs_never_waits_and_what_has_no_room_is_dropped_and_counted() {
        let (lines, permit, writes) = slow();
        let line = vec![b'x'; QUEUE_BYTES / 4];
        let started = Instant::now();
        for _ in 0..50 {
            lines.push(&line);
        }
        assert!(started.elapsed() < PATIENCE);
        let dropped = lines.lock().dropped;
        // The writer may already hold one.
        assert!((45..=46).contains(&dropped), "{dropped}");
        for _ in 0..50 - dropped {
            permit.send(Ok(usize::MAX)).unwrap();
            assert_eq!(writes.recv_timeout(PATIENCE).unwrap(), line);
        }
    }

    #[test]
    fn the_last_words_are_queued_whatever_waits_and_do_not_hold_the_end_up() {
        let (lines, permit, writes) = slow();
        for _ in 0..6 {
            lines.push(&[b'x'; QUEUE_BYTES / 4]);
        }
        let started = Instant::now();
        lines.push_last("error: the end\n");
        assert!(started.elapsed() < LAST * 5, "{:?}", started.elapsed());
        while let Ok(()) = permit.send(Ok(usize::MAX)) {
            if writes.recv_timeout(PATIENCE).expect("it is written") == b"error: the end\n" {
                return;
            }
        }
    }

    #[test]
    fn a_line_behind_a_torn_one_begins_at_the_left() {
        let (lines, permit, writes) = slow();
        lines.push(b"first\n");
        permit.send(Ok(3)).unwrap();
        permit.send(Err(ErrorKind::StorageFull.into())).unwrap();
        permit.send(Ok(usize::MAX)).unwrap();
        permit.send(Ok(usize::MAX)).unwrap();
        lines.push(b"second\n");
        permit.send(Ok(usize::MAX)).unwrap();
        let next = || writes.recv_timeout(PATIENCE).expect("it is written");
        assert_eq!([next(), next(), next()], [&b"fir"[..], b"\n", b"second\n"]);
        assert_eq!(next(), b"1 are missing\n", "it is said once writing works again");
    }
}
