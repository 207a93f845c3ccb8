//! A position in the write-ahead log, as Postgres counts it.
//!
//! Every guarantee of rowcast is an order between such numbers, so they have a type of their own
//! that cannot be mistaken for a row count or a Kafka offset. The only arithmetic is the distance
//! between two positions: the bridge never uses an LSN that the server did not send.
//!
//! Text form: <https://www.postgresql.org/docs/current/datatype-pg-lsn.html>

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A log sequence number: a byte position in the server's write-ahead log.
///
/// Prints and parses as Postgres does: two hexadecimal halves, `16/B374D848`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// The invalid position, before any WAL. Postgres sends it when it has no position.
    pub const ZERO: Self = Self(0);

    /// The position as the number that travels in the protocol.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Bytes of WAL from `earlier` to `self`; zero when `earlier` is not earlier.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<u64> for Lsn {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not two hexadecimal numbers of at most 32 bits with a slash between them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an LSN: expected two hexadecimal halves such as 16/B374D848")]
pub struct ParseLsnError {
    text: String,
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseLsnError { text: text.to_owned() };
        let half = |part: &str| {
            // from_str_radix accepts a sign; Postgres never prints one.
            let digits_only = part.bytes().all(|byte| byte.is_ascii_hexdigit());
            if digits_only { u32::from_str_radix(part, 16).ok() } else { None }
        };
        let (high, low) = text.split_once('/').ok_or_else(error)?;
        let high = half(high).ok_or_else(error)?;
        let low = half(low).ok_or_else(error)?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_parses_back(value: u64) {
            let lsn = Lsn::from(value);
            prop_assert_eq!(lsn.to_string().parse::<Lsn>(), Ok(lsn));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Lsn>();
        }
    }

    #[test]
    fn text_that_postgres_would_not_print_is_refused() {
        for text in ["", "/", "1", "1/", "/1", "1/2/3", "+1/2", "1/-2", "100000000/0", "G/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
