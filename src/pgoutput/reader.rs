//! A cursor that cannot overrun.
//!
//! Every take names its field, so that an error says what was being read and where. Lengths are
//! compared with what is left before anything is taken; the end has to be asked for with
//! [`Reader::finish`], so that no message is accepted with bytes unread.

use memchr::memchr;

use super::DecodeError;

/// A position in a message's bytes.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Self { rest: body, total: body.len() }
    }

    /// Bytes read so far.
    pub(super) const fn offset(&self) -> usize {
        self.total - self.rest.len()
    }

    pub(super) fn bytes(
        &mut self,
        length: usize,
        field: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let Some((head, tail)) = self.rest.split_at_checked(length) else {
            return Err(self.truncated(field, length));
        };
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((head, tail)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.truncated(field, N));
        };
        self.rest = tail;
        Ok(*head)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(i64::from_be_bytes)
    }

    /// A 16-bit count, which the protocol declares signed.
    pub(super) fn count16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        let offset = self.offset();
        let value = self.array(field).map(i16::from_be_bytes)?;
        u16::try_from(value).map_err(|_| DecodeError::Negative {
            field,
            offset,
            value: i64::from(value),
        })
    }

    /// A 32-bit count or length, which the protocol declares signed.
    pub(super) fn count32(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let offset = self.offset();
        let value = self.i32(field)?;
        usize::try_from(value).map_err(|_| DecodeError::Negative {
            field,
            offset,
            value: i64::from(value),
        })
    }

    /// Text up to a zero byte, which is read too.
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let offset = self.offset();
        let bytes = self.terminated(field)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8 { field, offset })
    }

    /// Bytes up to a zero byte, which is read too.
    pub(super) fn terminated(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let offset = self.offset();
        let end = memchr(0, self.rest).ok_or(DecodeError::Unterminated { field, offset })?;
        let bytes = self.bytes(end, field)?;
        self.u8(field)?;
        Ok(bytes)
    }

    /// The end must be the end.
    pub(super) const fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Trailing { offset: self.offset(), left: self.rest.len() })
    }

    const fn truncated(&self, field: &'static str, needed: usize) -> DecodeError {
        DecodeError::Truncated { field, offset: self.offset(), needed, left: self.rest.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_field_is_named_with_its_place() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u8("a"), Ok(1));
        let error = DecodeError::Truncated { field: "b", offset: 1, needed: 4, left: 2 };
        assert_eq!(reader.u32("b"), Err(error));
        assert_eq!(reader.bytes(2, "c"), Ok([2, 3].as_slice()), "a refused field is not half read");
    }

    #[test]
    fn negative_counts_are_refused() {
        let error = |value| DecodeError::Negative { field: "n", offset: 0, value };
        assert_eq!(Reader::new(&[0xFF, 0xFF]).count16("n"), Err(error(-1)));
        assert_eq!(Reader::new(&[0x80, 0, 0, 0]).count32("n"), Err(error(i64::from(i32::MIN))));
    }

    #[test]
    fn text_ends_at_its_zero_byte() {
        let mut reader = Reader::new(b"ab\0c");
        assert_eq!(reader.text("name"), Ok("ab"));
        assert_eq!(
            reader.text("name"),
            Err(DecodeError::Unterminated { field: "name", offset: 3 })
        );
        assert_eq!(
            Reader::new(b"\xFF\0").text("name"),
            Err(DecodeError::NotUtf8 { field: "name", offset: 0 })
        );
        assert_eq!(reader.finish(), Err(DecodeError::Trailing { offset: 3, left: 1 }));
    }
}
