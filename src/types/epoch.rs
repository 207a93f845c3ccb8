//! Dates and times as Debezium writes them: numbers since the epoch or midnight, and its forms of
//! ISO 8601.
//!
//! | form | unit | text |
//! |---|---|---|
//! | days since the epoch | day | `2024-03-01Z` |
//! | since midnight | ms, us or ns; a fraction of the unit is dropped | `08:15:30.5Z` |
//! | timestamp, taken for UTC | ms, us or ns, rounded down | `2024-03-01T08:15:30.5Z` |
//! | timestamptz | | `2024-03-01T08:15:30.500000Z`, digits by the column's precision |
//! | timetz | | `06:15:30.5Z`, in UTC; 24:00 is 00:00 |
//!
//! Infinity is a number far outside of what Postgres can hold: what becomes of the sentinels of
//! Postgres' JDBC driver. Only timestamptz has words for it.

use super::calendar::{
    Bounded, MICROS_PER_DAY, MICROS_PER_SECOND, days_since_epoch, parse_date, parse_time,
    parse_timestamp, parse_timetz,
};
use super::{ValueError, time};

/// What a time is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticks {
    /// Milliseconds, under Connect's own schema.
    ConnectMillis,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// `java.time.LocalDate.parse("-5877611-06-21")`, which stands for infinity there.
const INFINITE_DAY: i64 = days_since_epoch(-5_877_611, 6, 21);
/// The day after it, for minus infinity.
const MINUS_INFINITE_DAY: i64 = days_since_epoch(-5_877_611, 6, 22);
/// `PGStatement.DATE_POSITIVE_INFINITY` of the JDBC driver.
const INFINITE_MICROS: i64 = 9_223_372_036_825_200_000;
/// `PGStatement.DATE_NEGATIVE_INFINITY`.
const MINUS_INFINITE_MICROS: i64 = -9_223_372_036_832_400_000;

fn write_number(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(super) fn write_days(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let days = match parse_date(wire)? {
        Bounded::Finite(days) => days,
        Bounded::Infinity => INFINITE_DAY,
        Bounded::MinusInfinity => MINUS_INFINITE_DAY,
    };
    write_number(days, out);
    Ok(())
}

pub(super) fn write_time(wire: &[u8], ticks: Ticks, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let micros = parse_time(wire)?;
    // A day has too few nanoseconds to overflow.
    write_number(since_epoch(0, micros, ticks).unwrap_or(i64::MAX), out);
    Ok(())
}

pub(super) fn write_timestamp(
    wire: &[u8],
    ticks: Ticks,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let infinite =
        |micros: i64| (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
    let (days, micros) = match (parse_timestamp(wire)?, ticks) {
        (Bounded::Infinity, Ticks::Nanos) => {
            write_number(i64::MAX, out);
            return Ok(());
        }
        (Bounded::MinusInfinity, Ticks::Nanos) => {
            write_number(i64::MIN, out);
            return Ok(());
        }
        (Bounded::Finite(moment), _) => moment,
        (Bounded::Infinity, _) => infinite(INFINITE_MICROS),
        (Bounded::MinusInfinity, _) => infinite(MINUS_INFINITE_MICROS),
    };
    let number = since_epoch(days, micros, ticks).ok_or(ValueError {
        type_name: "timestamp",
        offset: 0,
        expected: "a time that 64 bits of the unit can hold (for all times: \
                   format.time_precision_mode, isostring)",
    })?;
    write_number(number, out);
    Ok(())
}

fn since_epoch(days: i64, micros: i64, ticks: Ticks) -> Option<i64> {
    let (per_day, within) = match ticks {
        Ticks::ConnectMillis | Ticks::Millis => (MICROS_PER_DAY / 1_000, micros / 1_000),
        Ticks::Micros => (MICROS_PER_DAY, micros),
        Ticks::Nanos => (MICROS_PER_DAY * 1_000, micros * 1_000),
    };
    // Wider, for the first day that fits begins before the first moment that does.
    let ticks = i128::from(days) * i128::from(per_day) + i128::from(within);
    i64::try_from(ticks).ok()
}

pub(super) fn write_iso_date(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    match wire {
        b"infinity" => out.extend_from_slice(b"\"-5877611-06-21Z\""),
        b"-infinity" => out.extend_from_slice(b"\"-5877611-06-22Z\""),
        _ => {
            time::write_date(wire, out)?;
            close_in_utc(out);
        }
    }
    Ok(())
}

pub(super) fn write_iso_time(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    if parse_time(wire)? == MICROS_PER_DAY {
        out.extend_from_slice(b"\"00:00:00Z\"");
        return Ok(());
    }
    time::write_time(wire, out)?;
    close_in_utc(out);
    Ok(())
}

pub(super) fn write_iso_timestamp(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    match wire {
        b"infinity" => out.extend_from_slice(b"\"+294247-01-10T04:00:25.2Z\""),
        b"-infinity" => out.extend_from_slice(b"\"-290308-12-21T19:59:27.6Z\""),
        _ => {
            time::write_timestamp(wire, out)?;
            close_in_utc(out);
        }
    }
    Ok(())
}

/// Puts a Z before the quote that ends `out`.
fn close_in_utc(out: &mut Vec<u8>) {
    out.pop();
    out.extend_from_slice(b"Z\"");
}

/// A timestamptz with this many digits of a second; with as many as it has for 0.
#[inline]
pub(super) fn write_zoned_timestamp(
    wire: &[u8],
    digits: usize,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let start = out.len();
    time::write_timestamptz(wire, out)?;
    if digits > 0 && out.ends_with(b"Z\"") {
        let written = out.get(start..).unwrap_or_default();
        let fraction = written.iter().rposition(|&byte| byte == b'.');
        let has = fraction.map_or(0, |point| written.len() - point - 3);
        out.truncate(out.len() - 2);
        if fraction.is_none() {
            out.push(b'.');
        }
        out.extend(std::iter::repeat_n(b'0', digits.saturating_sub(has)));
        out.extend_from_slice(b"Z\"");
    }
    Ok(())
}

/// A timetz in UTC. 24:00 is 00:00 of the next day there.
pub(super) fn write_zoned_time(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let (micros, offset) = parse_timetz(wire)?;
    let in_utc = (micros - offset).rem_euclid(MICROS_PER_DAY);
    let seconds = in_utc / MICROS_PER_SECOND;
    out.push(b'"');
    for (unit, after) in [(seconds / 3600, b':'), (seconds / 60 % 60, b':'), (seconds % 60, b'.')] {
        write_padded(unit, 2, out);
        out.push(after);
    }
    let fraction = in_utc % MICROS_PER_SECOND;
    if fraction > 0 {
        write_padded(fraction, 6, out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    } else {
        out.pop();
    }
    out.extend_from_slice(b"Z\"");
    Ok(())
}

fn write_padded(number: i64, width: usize, out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number).as_bytes();
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.len())));
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(
        wire: &str,
        write: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), ValueError>,
    ) -> Result<String, usize> {
        let mut out = Vec::new();
        write(wire.as_bytes(), &mut out).map_err(|error| error.offset)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn timestamps_are_numbers_of_their_unit_rounded_down() {
        for (wire, [millis, micros, nanos]) in [
            (
                "2024-03-01 08:15:30.123456",
                ["1709280930123", "1709280930123456", "1709280930123456000"],
            ),
            ("1969-12-31 23:59:59.999999", ["-1", "-1", "-1000"]),
            ("infinity", ["9223372036825200", "9223372036825200000", "9223372036854775807"]),
            ("-infinity", ["-9223372036832400", "-9223372036832400000", "-9223372036854775808"]),
        ] {
            let as_unit = |unit| written(wire, |wire, out| write_timestamp(wire, unit, out));
            assert_eq!(as_unit(Ticks::Millis).as_deref(), Ok(millis), "{wire}");
            assert_eq!(as_unit(Ticks::Micros).as_deref(), Ok(micros), "{wire}");
            assert_eq!(as_unit(Ticks::Nanos).as_deref(), Ok(nanos), "{wire}");
        }
        // Postgres' last year has more microseconds than fit.
        let last = |ticks| {
            written("294276-12-31 23:59:59.999999", |w, out| write_timestamp(w, ticks, out))
        };
        assert_eq!(last(Ticks::Millis).as_deref(), Ok("9224318015999999"));
        assert_eq!(last(Ticks::Micros), Err(0));
        let late = |unit| written("2300-01-01 00:00:00", |w, out| write_timestamp(w, unit, out));
        assert_eq!(late(Ticks::Nanos), Err(0));
        assert_eq!(late(Ticks::Micros).as_deref(), Ok("10413792000000000"));
    }

    #[test]
    fn dates_are_days_and_infinity_is_far_outside() {
        for (wire, days, iso) in [
            ("2024-03-01", "19783", "\"2024-03-01Z\""),
            ("0044-03-15 BC", "-735160", "\"-0043-03-15Z\""),
            ("infinity", "-2147472692", "\"-5877611-06-21Z\""),
            ("-infinity", "-2147472691", "\"-5877611-06-22Z\""),
        ] {
            assert_eq!(written(wire, write_days).as_deref(), Ok(days), "{wire}");
            assert_eq!(written(wire, write_iso_date).as_deref(), Ok(iso), "{wire}");
        }
    }

    #[test]
    fn times_of_day_reach_24_hours() {
        let as_unit =
            |wire: &str, unit| written(wire, |wire, out| write_time(wire, unit, out)).unwrap();
        assert_eq!(as_unit("24:00:00", Ticks::Micros), "86400000000");
        assert_eq!(as_unit("08:15:30.123456", Ticks::Millis), "29730123");
        assert_eq!(as_unit("08:15:30.123456", Ticks::Nanos), "29730123456000");
        assert_eq!(written("24:00:00", write_iso_time).as_deref(), Ok("\"00:00:00Z\""));
        assert_eq!(written("08:15:30.5", write_iso_time).as_deref(), Ok("\"08:15:30.5Z\""));
    }

    #[test]
    fn iso_timestamps_end_in_utc() {
        for (wire, iso) in [
            ("2024-03-01 08:15:30.5", "\"2024-03-01T08:15:30.5Z\""),
            ("10000-01-01 00:00:00", "\"+10000-01-01T00:00:00Z\""),
            ("infinity", "\"+294247-01-10T04:00:25.2Z\""),
        ] {
            assert_eq!(written(wire, write_iso_timestamp).as_deref(), Ok(iso), "{wire}");
        }
    }

    #[test]
    fn timestamps_with_time_zone_have_the_digits_of_the_column() {
        for (wire, digits, iso) in [
            ("2024-03-01 08:15:30+00", 6, "\"2024-03-01T08:15:30.000000Z\""),
            ("2024-03-01 08:15:30.5+00", 6, "\"2024-03-01T08:15:30.500000Z\""),
            ("2024-03-01 08:15:30.123456+00", 6, "\"2024-03-01T08:15:30.123456Z\""),
            ("2024-03-01 08:15:30.5+00", 3, "\"2024-03-01T08:15:30.500Z\""),
            ("2024-03-01 08:15:30+00", 0, "\"2024-03-01T08:15:30Z\""),
            ("4714-11-24 00:00:00+00 BC", 6, "\"-4713-11-24T00:00:00.000000Z\""),
            ("infinity", 6, "\"infinity\""),
            ("-infinity", 6, "\"-infinity\""),
        ] {
            let iso_of = written(wire, |wire, out| write_zoned_timestamp(wire, digits, out));
            assert_eq!(iso_of.as_deref(), Ok(iso), "{wire}");
        }
    }

    #[test]
    fn times_with_time_zone_are_moved_to_utc() {
        for (wire, iso) in [
            ("13:51:30.123789+02", "\"11:51:30.123789Z\""),
            ("13:51:02+02", "\"11:51:02Z\""),
            ("01:00:00.5+03:30", "\"21:30:00.5Z\""),
            ("23:00:00-02", "\"01:00:00Z\""),
            ("24:00:00+00", "\"00:00:00Z\""),
            ("24:00:00-02", "\"02:00:00Z\""),
            ("24:00:00+01", "\"23:00:00Z\""),
        ] {
            assert_eq!(written(wire, write_zoned_time).as_deref(), Ok(iso), "{wire}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_json(wire in "[-+0-9:. BCinfty]{0,40}") {
            for write in [write_days, write_iso_date, write_iso_time, write_iso_timestamp,
                write_zoned_time]
            {
                let mut out = Vec::new();
                if write(wire.as_bytes(), &mut out).is_ok() {
                    serde_json::from_slice::<serde_json::Value>(&out).unwrap();
                }
            }
            let mut out = Vec::new();
            if write_zoned_timestamp(wire.as_bytes(), 6, &mut out).is_ok() {
                serde_json::from_slice::<String>(&out).unwrap();
            }
        }
    }
}
