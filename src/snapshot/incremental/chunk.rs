//! Rows of one table that were read while the stream runs, in the order of a key, until their window
//! closes.
//!
//! They are kept as the server's lines: a line is parsed only when its row is published.

use std::sync::Arc;

use crate::change::Relation;
use crate::snapshot::visibility::Visibility;

/// Rows as they were read.
#[derive(Debug)]
pub struct Chunk {
    /// The table as it was when they were read, with the columns in the lines' order.
    pub relation: Arc<Relation>,
    /// What the reader saw.
    pub visibility: Visibility,
    /// Transactions that may have committed before the window without being visible, long ago or
    /// before this run.
    pub suspects: Vec<u32>,
    /// When they were read, in microseconds since the Unix epoch.
    pub time_us: i64,
    lines: Vec<u8>,
    /// Where each line ends.
    ends: Vec<usize>,
}

impl Chunk {
    /// A chunk without rows.
    #[must_use]
    pub const fn new(relation: Arc<Relation>, visibility: Visibility, time_us: i64) -> Self {
        Self {
            relation,
            visibility,
            suspects: Vec::new(),
            time_us,
            lines: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Another chunk without rows, with the same reader's snapshot.
    #[must_use]
    pub fn another(&self, time_us: i64) -> Self {
        let another = Self::new(Arc::clone(&self.relation), self.visibility.clone(), time_us);
        Self { suspects: self.suspects.clone(), ..another }
    }

    /// Adds a line in COPY's text format, including its newline.
    pub fn push(&mut self, line: &[u8]) {
        self.lines.extend_from_slice(line);
        self.ends.push(self.lines.len());
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Bytes of all lines.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.lines.len() as u64
    }

    /// The lines in their order.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, &end)| self.lines.get(start..end))
    }

    /// The last line.
    #[must_use]
    pub fn last(&self) -> Option<&[u8]> {
        self.lines().last()
    }
}
