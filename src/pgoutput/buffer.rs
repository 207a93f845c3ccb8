//! A row that was not in a message, as a [`Tuple`].
//!
//! Rows that a snapshot reads have another form on the wire. Written here as a message would hold
//! them, they take the same way as all others, and no stage after it needs to know.

use super::message::Tuple;

/// The bytes of one row, reused for the next. Well-formed at all times.
#[derive(Default)]
pub struct TupleBuffer {
    count: u16,
    bytes: Vec<u8>,
}

/// The row would have more columns, or a longer value, than a message can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a row holds at most 65535 values, each of at most 4294967295 bytes")]
pub struct TupleFull;

impl TupleBuffer {
    /// Begins the next row.
    pub fn clear(&mut self) {
        self.count = 0;
        self.bytes.clear();
    }

    /// Appends a null.
    ///
    /// # Errors
    /// When the row is full.
    #[inline]
    pub fn push_null(&mut self) -> Result<(), TupleFull> {
        self.count = self.count.checked_add(1).ok_or(TupleFull)?;
        self.bytes.push(b'n');
        Ok(())
    }

    /// Appends a value by its text.
    ///
    /// # Errors
    /// When the row is full, or the text too long.
    #[inline]
    pub fn push_text(&mut self, text: &[u8]) -> Result<(), TupleFull> {
        let [a, b, c, d] = u32::try_from(text.len()).map_err(|_| TupleFull)?.to_be_bytes();
        self.count = self.count.checked_add(1).ok_or(TupleFull)?;
        self.bytes.extend_from_slice(&[b't', a, b, c, d]);
        self.bytes.extend_from_slice(text);
        Ok(())
    }

    /// The row as far as it was appended.
    #[must_use]
    #[inline]
    pub const fn tuple(&self) -> Tuple<'_> {
        Tuple { count: self.count, bytes: self.bytes.as_slice() }
    }
}

impl std::fmt::Debug for TupleBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tuple().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::Datum;

    #[test]
    fn a_row_reads_back_as_it_was_appended_and_as_no_more_than_fits() {
        let mut buffer = TupleBuffer::default();
        for _ in 0..2 {
            buffer.clear();
            assert!(buffer.tuple().is_empty());
            buffer.push_null().unwrap();
            buffer.push_text(b"a").unwrap();
            buffer.push_text(b"").unwrap();
            let values = [Datum::Null, Datum::Text(b"a"), Datum::Text(b"")];
            assert_eq!(buffer.tuple().iter().collect::<Vec<_>>(), values);
            assert_eq!(buffer.tuple().len(), 3);
        }
        buffer.clear();
        for _ in 0..u16::MAX {
            buffer.push_null().unwrap();
        }
        assert_eq!((buffer.push_null(), buffer.push_text(b"x")), (Err(TupleFull), Err(TupleFull)));
        assert_eq!(buffer.tuple().iter().count(), buffer.tuple().len());
    }
}
