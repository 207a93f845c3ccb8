//! Sizes as a number and a unit.
//!
//! The units are those of Postgres' own settings, powers of 1024, so that a limit here and
//! `max_slot_wal_keep_size` there compare as they read. `MiB` is read as `MB`.
//!
//! Units: <https://www.postgresql.org/docs/current/config-setting.html>

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The units, the largest first.
const UNITS: [(&str, u32); 5] = [("TB", 40), ("GB", 30), ("MB", 20), ("kB", 10), ("B", 0)];

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// This many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// This many megabytes.
    #[must_use]
    pub const fn from_mb(megabytes: u64) -> Self {
        Self(megabytes << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Parses a whole number and a unit, in upper or lower case; `None` if invalid or too large.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_')?;
        let number: u64 = text[..digits].replace('_', "").parse().ok()?;
        let unit = text[digits..].trim().to_ascii_lowercase();
        let unit = if unit.len() == 3 { unit.replace("ib", "b") } else { unit };
        let (_, power) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&unit))?;
        number.checked_mul(1 << power).map(Self)
    }
}

/// In the largest unit that needs no fraction.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |&&(_, power): &&(&str, u32)| self.0 != 0 && self.0.trailing_zeros() >= power;
        let &(unit, power) = UNITS.iter().find(fits).unwrap_or(&("B", 0));
        write!(f, "{}{unit}", self.0 >> power)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a size such as \"64MB\""))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_those_of_postgres() {
        for (text, bytes) in [
            ("64MB", Some(64 << 20)),
            ("64 MB", Some(64 << 20)),
            ("64mib", Some(64 << 20)),
            ("1_024kB", Some(1 << 20)),
            ("512B", Some(512)),
            ("3GB", Some(3 << 30)),
            ("1TB", Some(1 << 40)),
            ("64", None),
            ("MB", None),
            ("1.5GB", None),
            ("-1MB", None),
            ("1ib", None),
            ("99999999999TB", None),
        ] {
            assert_eq!(Size::parse(text).map(Size::bytes), bytes, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(number in any::<u64>(), shift in 0_u32..64) {
            let size = Size::from_bytes(number >> shift << shift);
            prop_assert_eq!(Size::parse(&size.to_string()), Some(size));
        }
    }
}
