//! How the `memory` setting is divided among all buffers that hold rows.
//!
//! ```text
//!  1/16 channel     WAL that was read and waits for the worker; its buffers may be half empty
//!  3/8  queue       records that wait for the brokers' acknowledgement
//!  3/8  requests    copies of these records in batches that are being sent, whatever the brokers'
//!                   number: no more than is queued can be in flight
//!  1/16 windows     of snapshots while the stream runs: rows that were read, and keys that changed
//!                   meanwhile, of two tables at a time
//!  1/16 readers     of a first snapshot: rows that were received and wait to be published
//!  rest             the row that is being written, and what the allocator keeps for itself
//! ```
//!
//! The program itself (code, threads, connections, table descriptions) is not included, and neither
//! is a single row that is larger than a share: a row has to fit, whatever its size.
//! `docs/memory.md` has figures.

use super::size::Size;

/// What a connection that reads rows holds: received rows, and free buffer space.
const READER_BYTES: u64 = 512 * 1024;

/// The bound on memory for rows in the pipeline, by buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    total: u64,
}

impl Memory {
    /// The minimum: below it a share is smaller than one of its buffers.
    pub(super) const MIN: Size = Size::from_mb(8);
    /// The maximum: more is most likely a typo.
    pub(super) const MAX: Size = Size::from_mb(64 << 10);
    /// Holds what Kafka has not acknowledged in some hundred milliseconds at 100,000 rows a second.
    pub(super) const DEFAULT: Size = Size::from_mb(64);

    /// Divides this much memory.
    #[must_use]
    pub const fn new(total: Size) -> Self {
        Self { total: total.bytes() }
    }

    /// Bytes of WAL that may wait for the worker.
    #[must_use]
    pub fn channel_bytes(self) -> usize {
        usize::try_from(self.total / 16).unwrap_or(usize::MAX)
    }

    /// Bytes of records that may wait for the brokers, with the client's overhead.
    #[must_use]
    pub const fn queue_bytes(self) -> u64 {
        self.total / 8 * 3
    }

    /// Bytes of rows that were read while the stream runs and wait to be published; the same again
    /// for keys that change meanwhile. Two tables at a time use both.
    #[must_use]
    pub const fn window_bytes(self) -> u64 {
        self.total / 64
    }

    /// How many connections may read a first snapshot concurrently.
    #[must_use]
    pub const fn readers(self) -> u64 {
        let readers = self.total / 16 / READER_BYTES;
        if readers == 0 { 1 } else { readers }
    }

    /// The size at which a batch is sent. Five may be in flight to each broker.
    #[must_use]
    pub const fn batch_bytes(self) -> u64 {
        self.total / 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_leave_room_for_the_row_that_is_written() {
        for total in [Memory::MIN, Memory::DEFAULT, Memory::MAX] {
            let memory = Memory::new(total);
            // Half-empty buffers, and a copy of all that is queued.
            let shares = 2 * memory.channel_bytes() as u64 + 2 * memory.queue_bytes();
            assert!(shares <= total.bytes() / 8 * 7, "{total}");
            // The stream does not run while they read.
            let readers = memory.readers() * READER_BYTES;
            assert!(shares + readers <= total.bytes() / 16 * 15, "{total}");
            assert!(5 * memory.batch_bytes() <= memory.queue_bytes(), "{total}");
        }
    }
}
