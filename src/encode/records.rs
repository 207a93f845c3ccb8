//! The records a change becomes, in buffers that are used again for the next change.
//!
//! One change has none, one, two (event and tombstone) or three records (the two halves of a key
//! change). All their bytes are in one buffer; a key that several records share is stored once.

use std::ops::Range;

/// Records of one change. Clearing keeps the memory.
#[derive(Debug, Default)]
pub struct Records {
    pub(super) buffer: Vec<u8>,
    pub(super) headers: Vec<Header>,
    pub(super) records: Vec<Record>,
    /// Values of the row that did not change and are not known.
    pub(super) unchanged: usize,
    /// Values of the row that did not change and were read back.
    pub(super) reselected: usize,
    /// Places of columns with how many of their characters were replaced.
    pub(super) replaced: Vec<(usize, u64)>,
}

#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) key: Option<Range<usize>>,
    pub(super) value: Option<Range<usize>>,
    /// Of `Records::headers`.
    pub(super) headers: Range<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) name: &'static str,
    pub(super) value: Range<usize>,
}

/// One record as it goes to Kafka.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    /// The key; none for a table without one.
    pub key: Option<&'a [u8]>,
    /// The value; none for a tombstone.
    pub value: Option<&'a [u8]>,
    headers: &'a [Header],
    buffer: &'a [u8],
}

impl Records {
    /// Number of records.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether the change has no record in the chosen format.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many values of the row did not change, were not sent, and are not known otherwise.
    #[must_use]
    pub const fn unchanged(&self) -> u64 {
        self.unchanged as u64
    }

    /// How many values of the row were read back from its table.
    #[must_use]
    pub const fn reselected(&self) -> u64 {
        self.reselected as u64
    }

    /// Places of columns with how many of their characters were replaced, as no reader takes them.
    #[must_use]
    pub fn replaced(&self) -> &[(usize, u64)] {
        &self.replaced
    }

    /// The records, in the order they must be sent.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        self.records.iter().map(|record| RecordRef {
            key: record.key.clone().map(|range| slice(&self.buffer, range)),
            value: record.value.clone().map(|range| slice(&self.buffer, range)),
            headers: self.headers.get(record.headers.clone()).unwrap_or_default(),
            buffer: &self.buffer,
        })
    }

    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.headers.clear();
        self.records.clear();
        (self.unchanged, self.reselected) = (0, 0);
        self.replaced.clear();
    }

    /// Appends with `write` and returns the range.
    #[inline]
    pub(super) fn append<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Range<usize>, E> {
        let start = self.buffer.len();
        write(&mut self.buffer)?;
        Ok(start..self.buffer.len())
    }

    pub(super) fn part(&self, range: Range<usize>) -> &[u8] {
        slice(&self.buffer, range)
    }
}

impl<'a> RecordRef<'a> {
    /// The headers, in order. A value is never null so far; Kafka allows it.
    pub fn headers(
        &self,
    ) -> impl ExactSizeIterator<Item = (&'static str, Option<&'a [u8]>)> + use<'a> {
        let buffer = self.buffer;
        self.headers
            .iter()
            .map(move |header| (header.name, Some(slice(buffer, header.value.clone()))))
    }
}

fn slice(buffer: &[u8], range: Range<usize>) -> &[u8] {
    // Every range was made by `append` on the same buffer since it was last cleared.
    buffer.get(range).unwrap_or_default()
}
