//! Dates and times as numbers: days since 1970-01-01, microseconds since midnight.
//!
//! The calendar is Gregorian in all years, as in Postgres and in Java's `java.time`. Years count as
//! astronomers do: 1 BC is year 0.

use super::ValueError;
use super::scan::Scanner;

pub(super) const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_MINUTE: i64 = 60 * MICROS_PER_SECOND;
const MICROS_PER_HOUR: i64 = 60 * MICROS_PER_MINUTE;
/// Microseconds of a day.
pub(super) const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

/// A value that may have no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounded<T> {
    Finite(T),
    Infinity,
    MinusInfinity,
}

/// Days since the epoch of a date of the session with `DateStyle=ISO`.
pub(super) fn parse_date(wire: &[u8]) -> Result<Bounded<i64>, ValueError> {
    bounded("date", wire, |text, before_christ| text.date(before_christ))
}

/// Days since the epoch and microseconds of the day, of a timestamp taken for UTC.
pub(super) fn parse_timestamp(wire: &[u8]) -> Result<Bounded<(i64, i64)>, ValueError> {
    bounded("timestamp", wire, |text, before_christ| {
        let days = text.date(before_christ)?;
        text.expect(b' ', "a space and a time (DateStyle must be ISO)")?;
        Ok((days, text.clock()?))
    })
}

/// Microseconds since midnight; `24:00:00` is a whole day.
pub(super) fn parse_time(wire: &[u8]) -> Result<i64, ValueError> {
    let mut text = Scanner::new("time", wire);
    let micros = text.clock()?;
    text.end()?;
    Ok(micros)
}

/// Microseconds since midnight, and the offset from UTC in microseconds.
pub(super) fn parse_timetz(wire: &[u8]) -> Result<(i64, i64), ValueError> {
    let mut text = Scanner::new("timetz", wire);
    let micros = text.clock()?;
    let offset = text.offset()?;
    text.end()?;
    Ok((micros, offset))
}

/// Reads the value without its ` BC`, or infinity.
fn bounded<'a, T>(
    type_name: &'static str,
    wire: &'a [u8],
    read: impl FnOnce(&mut Scanner<'a>, bool) -> Result<T, ValueError>,
) -> Result<Bounded<T>, ValueError> {
    match wire {
        b"infinity" => return Ok(Bounded::Infinity),
        b"-infinity" => return Ok(Bounded::MinusInfinity),
        _ => {}
    }
    let before_christ = wire.strip_suffix(b" BC");
    let mut text = Scanner::new(type_name, before_christ.unwrap_or(wire));
    let value = read(&mut text, before_christ.is_some())?;
    text.end()?;
    Ok(Bounded::Finite(value))
}

impl Scanner<'_> {
    /// `YYYY-MM-DD` as days since the epoch.
    #[inline]
    fn date(&mut self, before_christ: bool) -> Result<i64, ValueError> {
        const EXPECTED: &str = "YYYY-MM-DD (DateStyle must be ISO)";
        let start = *self;
        let year = self.digits();
        let (year, length) = (std::str::from_utf8(year).unwrap_or_default(), year.len());
        // Postgres ends at 5874897.
        let Some(year) = year.parse::<i64>().ok().filter(|_| matches!(length, 4..=7)) else {
            return Err(start.error(EXPECTED));
        };
        if year == 0 {
            return Err(start.error("a year of at least 1"));
        }
        let year = if before_christ { 1 - year } else { year };
        self.expect(b'-', EXPECTED)?;
        let month = self.part(1, 12, "a month")?;
        self.expect(b'-', EXPECTED)?;
        let day = self.part(1, days_of_month(year, month), "a day of the month")?;
        Ok(days_since_epoch(year, month, day))
    }

    /// `HH:MM:SS[.ffffff]` as microseconds since midnight.
    #[inline]
    fn clock(&mut self) -> Result<i64, ValueError> {
        const EXPECTED: &str = "HH:MM:SS";
        let start = *self;
        let hours = self.part(0, 24, EXPECTED)?;
        self.expect(b':', EXPECTED)?;
        let minutes = self.part(0, 59, EXPECTED)?;
        self.expect(b':', EXPECTED)?;
        let seconds = self.part(0, 59, EXPECTED)?;
        let micros = hours * MICROS_PER_HOUR
            + minutes * MICROS_PER_MINUTE
            + seconds * MICROS_PER_SECOND
            + self.fraction()?;
        if micros > MICROS_PER_DAY {
            return Err(start.error("a time of at most 24:00:00"));
        }
        Ok(micros)
    }

    /// `+HH[:MM[:SS]]` in microseconds.
    fn offset(&mut self) -> Result<i64, ValueError> {
        const EXPECTED: &str = "an offset as +HH:MM";
        let negative = self.take(b'-');
        if !negative {
            self.expect(b'+', EXPECTED)?;
        }
        let mut micros = self.part(0, 23, EXPECTED)? * MICROS_PER_HOUR;
        if self.take(b':') {
            micros += self.part(0, 59, EXPECTED)? * MICROS_PER_MINUTE;
            if self.take(b':') {
                micros += self.part(0, 59, EXPECTED)? * MICROS_PER_SECOND;
            }
        }
        Ok(if negative { -micros } else { micros })
    }

    /// Two digits within bounds.
    #[inline]
    fn part(&mut self, min: i64, max: i64, expected: &'static str) -> Result<i64, ValueError> {
        let start = *self;
        let part = self.pair(expected)?;
        if part < min || part > max { Err(start.error(expected)) } else { Ok(part) }
    }
}

const fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01. Years are counted from March, so that the leap day is a year's last, and
/// in eras of 400 years, which all have the same number of days.
pub(super) const fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_PER_ERA: i64 = 146_097;
    /// From 0000-03-01 to 1970-01-01.
    const EPOCH: i64 = 719_468;
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - EPOCH
}

#[cfg(test)]
mod tests {
    use jiff::civil;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates_of_every_era_count_from_the_epoch() {
        // Each as `date - '1970-01-01'` gives it in Postgres.
        for (wire, days) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2024-02-29", 19_782),
            ("0001-01-01", -719_162),
            ("0001-12-31 BC", -719_163),
            ("4714-11-24 BC", -2_440_588),
            ("5874897-12-31", 2_145_042_905),
        ] {
            assert_eq!(parse_date(wire.as_bytes()), Ok(Bounded::Finite(days)), "{wire}");
        }
        assert_eq!(parse_date(b"infinity"), Ok(Bounded::Infinity));
        assert_eq!(parse_date(b"-infinity"), Ok(Bounded::MinusInfinity));
        for (wire, offset) in [
            ("", 0),
            ("2024-3-01", 5),
            ("2023-02-29", 8),
            ("2024-13-01", 5),
            ("2024-00-01", 5),
            ("0000-01-01", 0),
            ("99999999-01-01", 0),
            ("2024-03-01x", 10),
            ("03/01/2024", 0),
        ] {
            assert_eq!(parse_date(wire.as_bytes()).unwrap_err().offset, offset, "{wire}");
        }
    }

    #[test]
    fn timestamps_keep_their_microseconds_on_both_sides_of_the_epoch() {
        for (wire, days, micros) in [
            ("1970-01-01 00:00:00", 0, 0),
            ("1969-12-31 23:59:59.999999", -1, MICROS_PER_DAY - 1),
            ("2024-03-01 08:15:30.5", 19_783, 29_730_500_000),
            ("294276-12-31 23:59:59.999999", 106_762_939, MICROS_PER_DAY - 1),
        ] {
            let expected = Ok(Bounded::Finite((days, micros)));
            assert_eq!(parse_timestamp(wire.as_bytes()), expected, "{wire}");
        }
        for (wire, offset) in [
            ("2024-03-01", 10),
            ("2024-03-01 08:15", 16),
            ("2024-03-01 25:15:00", 11),
            ("2024-03-01 08:15:30.", 20),
            ("2024-03-01 08:15:30.1234567", 20),
            ("2024-03-01 08:15:30+00", 19),
        ] {
            assert_eq!(parse_timestamp(wire.as_bytes()).unwrap_err().offset, offset, "{wire}");
        }
    }

    #[test]
    fn a_day_ends_at_24_hours() {
        assert_eq!(parse_time(b"24:00:00"), Ok(MICROS_PER_DAY));
        assert_eq!(parse_time(b"08:15:30.000001"), Ok(29_730_000_001));
        for (wire, offset) in [("24:00:01", 0), ("8:15:30", 0), ("08:60:00", 3), ("08:15:30x", 8)] {
            assert_eq!(parse_time(wire.as_bytes()).unwrap_err().offset, offset, "{wire}");
        }
        assert_eq!(parse_timetz(b"08:00:00-03:30"), Ok((28_800_000_000, -12_600_000_000)));
        assert_eq!(parse_timetz(b"00:00:00+15:59:59"), Ok((0, 57_599_000_000)));
        assert_eq!(parse_timetz(b"00:00:00").unwrap_err().offset, 8);
    }

    proptest! {
        #[test]
        fn any_moment_is_what_an_independent_calendar_makes_of_it(
            year in -4712_i16..=9999,
            day_of_year in 1_i16..=365,
            micros in 0_i64..MICROS_PER_DAY,
        ) {
            let date = civil::date(year, 1, 1).saturating_add(jiff::Span::new().days(day_of_year - 1));
            let days = date.since((jiff::Unit::Day, civil::date(1970, 1, 1))).unwrap().get_days();
            let era = if year < 1 { " BC" } else { "" };
            let of_era = if year < 1 { 1 - year } else { year };
            let wire = format!("{of_era:04}-{:02}-{:02}", date.month(), date.day());
            let parsed = parse_date(format!("{wire}{era}").as_bytes());
            prop_assert_eq!(parsed, Ok(Bounded::Finite(i64::from(days))));

            let seconds = micros / MICROS_PER_SECOND;
            let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            let wire = format!("{wire} {clock}.{:06}{era}", micros % MICROS_PER_SECOND);
            let moment = (i64::from(days), micros);
            prop_assert_eq!(parse_timestamp(wire.as_bytes()), Ok(Bounded::Finite(moment)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(wire in "[-+0-9:. BCinfty]{0,40}") {
            let _ = parse_date(wire.as_bytes());
            let _ = parse_timestamp(wire.as_bytes());
            let _ = parse_time(wire.as_bytes());
            let _ = parse_timetz(wire.as_bytes());
        }
    }
}
