//! Decides how many rows the next chunk has.
//!
//! A chunk should take about a fifth of a second: shorter ones spend their time on watermarks,
//! longer ones keep a snapshot open on the server, and more of their rows change meanwhile. A chunk
//! is in memory until its window closes, so its bytes are bounded too.

use std::time::Duration;

/// Target time for reading a chunk.
const TARGET: Duration = Duration::from_millis(200);

const FIRST_ROWS: u64 = 1_000;
const FEWEST_ROWS: u64 = 1;
const MOST_ROWS: u64 = 500_000;

/// Largest growth factor from one chunk to the next.
const GROWTH: u64 = 4;

/// Finds the right number of rows from the previous chunks.
#[derive(Debug, Clone)]
pub struct ChunkSize {
    rows: u64,
    limit_bytes: u64,
}

impl ChunkSize {
    /// For chunks of at most `limit_bytes`.
    #[must_use]
    pub const fn new(limit_bytes: u64) -> Self {
        Self { rows: FIRST_ROWS, limit_bytes }
    }

    /// The number of rows of the next chunk.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// How many bytes of rows it may have.
    #[must_use]
    pub const fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Records a chunk that was read.
    pub fn read(&mut self, rows: u64, bytes: u64, took: Duration) {
        if rows == 0 {
            return;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let target = u64::try_from(TARGET.as_micros()).unwrap_or(u64::MAX);
        let by_time = rows.saturating_mul(target) / micros;
        // Half of the bound, because rows differ in size.
        let by_bytes = rows.saturating_mul(self.limit_bytes / 2) / bytes.max(1);
        let most = MOST_ROWS.min(self.rows.saturating_mul(GROWTH));
        self.rows = by_time.min(by_bytes).clamp(FEWEST_ROWS, most);
    }

    /// The changes in a window spoiled it: the next one is shorter.
    pub fn spoiled(&mut self) {
        self.rows = (self.rows / 4).max(FEWEST_ROWS);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 4 << 20;

    #[test]
    fn it_settles_where_a_chunk_takes_its_time() {
        let mut size = ChunkSize::new(LIMIT);
        // 10 us a row, and 100 bytes.
        for _ in 0..5 {
            let rows = size.rows();
            size.read(rows, rows * 100, Duration::from_micros(rows * 10));
        }
        assert_eq!(size.rows(), 20_000);
        size.spoiled();
        assert_eq!(size.rows(), 5_000);
    }

    #[test]
    fn large_rows_are_read_few_at_a_time() {
        let mut size = ChunkSize::new(LIMIT);
        size.read(4, LIMIT, Duration::from_millis(1));
        assert_eq!(size.rows(), 2);
        size.read(1, 2 * LIMIT, Duration::from_millis(1));
        assert_eq!(size.rows(), 1, "one at least");
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_whatever_is_measured(
            chunks in proptest::collection::vec((0_u64..1 << 40, any::<u64>(), any::<u64>()), 1..50),
        ) {
            let mut size = ChunkSize::new(LIMIT);
            for (rows, bytes, micros) in chunks {
                size.read(rows, bytes, Duration::from_micros(micros));
                prop_assert!((FEWEST_ROWS..=MOST_ROWS).contains(&size.rows()));
            }
        }
    }
}
