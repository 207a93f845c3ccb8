//! A text that is read from the front, with the place for errors.
//!
//! Types whose text is copied check it as they copy; this is for those that have to be understood.

use super::ValueError;

/// A value's text and how far it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanner<'a> {
    type_name: &'static str,
    text: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(type_name: &'static str, text: &'a [u8]) -> Self {
        Self { type_name, text, at: 0 }
    }

    /// What is still to be read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Takes this byte if it comes next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Takes this text if it comes next.
    pub(super) fn take_text(&mut self, text: &[u8]) -> bool {
        let found = self.rest().starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    /// Takes this byte.
    #[inline]
    pub(super) fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), ValueError> {
        if self.take(byte) { Ok(()) } else { Err(self.error(expected)) }
    }

    /// Takes bytes as long as they fit.
    #[inline]
    pub(super) fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let end = rest.iter().position(|&byte| !fits(byte)).unwrap_or(rest.len());
        self.at += end;
        rest.split_at(end).0
    }

    /// Takes the digits that come next, maybe none.
    #[inline]
    pub(super) fn digits(&mut self) -> &'a [u8] {
        self.take_while(|byte| byte.is_ascii_digit())
    }

    /// Takes a number of at least one and at most 18 digits.
    #[inline]
    pub(super) fn number(&mut self, expected: &'static str) -> Result<i64, ValueError> {
        let start = self.at;
        let digits = self.digits();
        if matches!(digits.len(), 1..=18) {
            return Ok(value_of(digits));
        }
        self.at = start;
        Err(self.error(expected))
    }

    /// Takes a number of exactly two digits.
    #[inline]
    pub(super) fn pair(&mut self, expected: &'static str) -> Result<i64, ValueError> {
        match self.rest() {
            &[tens, ones, ..] if tens.is_ascii_digit() && ones.is_ascii_digit() => {
                self.at += 2;
                Ok(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
            }
            _ => Err(self.error(expected)),
        }
    }

    /// Takes `.ffffff` if it comes next: one to six digits, as a number of millionths.
    #[inline]
    pub(super) fn fraction(&mut self) -> Result<i64, ValueError> {
        if !self.take(b'.') {
            return Ok(0);
        }
        let start = self.at;
        let digits = self.digits();
        if !matches!(digits.len(), 1..=6) {
            self.at = start;
            return Err(self.error("one to six digits of a fraction"));
        }
        let missing = digits.len()..6;
        Ok(missing.fold(value_of(digits), |millionths, _| millionths * 10))
    }

    /// Takes a number as JSON, and Postgres, write it.
    pub(super) fn decimal(&mut self, expected: &'static str) -> Result<&'a str, ValueError> {
        let fits = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
        let start = self.at;
        for special in [b"NaN".as_slice(), b"Infinity", b"-Infinity"] {
            if self.take_text(special) {
                return Ok(std::str::from_utf8(special).unwrap_or_default());
            }
        }
        let text = std::str::from_utf8(self.take_while(fits)).unwrap_or_default();
        if let Err(within) = super::number::check_number(text.as_bytes()) {
            self.at = start + within;
            return Err(self.error(expected));
        }
        Ok(text)
    }

    /// Ends the reading.
    #[inline]
    pub(super) fn end(&self) -> Result<(), ValueError> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.error("the end of the value")) }
    }

    /// An error at the current position.
    #[cold]
    pub(super) const fn error(&self, expected: &'static str) -> ValueError {
        ValueError { type_name: self.type_name, offset: self.at, expected }
    }
}

/// The value of at most 18 digits.
#[inline]
fn value_of(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'))
}
