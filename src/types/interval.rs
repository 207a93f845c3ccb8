//! interval: from `P1Y2M3DT4H5M6.78S` (`IntervalStyle=iso_8601`) to Debezium's forms.
//!
//! `numeric` is microseconds with 365.25 / 12 days a month, worked out in floating point as
//! Debezium does, so that even what is lost is the same. `string` names every part, zero or not.
//! Infinity (Postgres 17) has the word for itself in text, and the ends of 64 bits as a number.

use super::ValueError;
use super::calendar::MICROS_PER_SECOND;
use super::scan::Scanner;

const EXPECTED: &str = "ISO 8601 (the session's IntervalStyle must be iso_8601)";

/// The parts as Postgres keeps them apart, each with a sign of its own.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Parts {
    years: i64,
    months: i64,
    days: i64,
    hours: i64,
    minutes: i64,
    /// Seconds, in microseconds.
    micros: i64,
}

fn parse(wire: &[u8]) -> Result<Parts, ValueError> {
    let mut text = Scanner::new("interval", wire);
    let mut parts = Parts::default();
    text.expect(b'P', EXPECTED)?;
    let mut in_time = false;
    let mut count = 0;
    while text.peek().is_some() {
        if !in_time && text.take(b'T') {
            in_time = true;
            continue;
        }
        let start = text;
        let negative = text.take(b'-');
        let number = text.number(EXPECTED)?;
        let fraction = text.fraction()?;
        let sign = if negative { -1 } else { 1 };
        let unit = text.peek().unwrap_or_default();
        let part = match (in_time, unit) {
            (false, b'Y') => &mut parts.years,
            (false, b'M') => &mut parts.months,
            (false, b'D') => &mut parts.days,
            (true, b'H') => &mut parts.hours,
            (true, b'M') => &mut parts.minutes,
            (true, b'S') => &mut parts.micros,
            _ => return Err(text.error(EXPECTED)),
        };
        *part = sign
            * match number.checked_mul(MICROS_PER_SECOND) {
                Some(micros) if unit == b'S' => micros.saturating_add(fraction),
                _ if unit != b'S' && fraction == 0 => number,
                _ => return Err(start.error(EXPECTED)),
            };
        text.take(unit);
        count += 1;
    }
    if count == 0 { Err(text.error(EXPECTED)) } else { Ok(parts) }
}

pub(super) fn write_micros(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let micros = match wire {
        b"infinity" => i64::MAX,
        b"-infinity" => i64::MIN,
        wire => parse(wire)?.total_micros(),
    };
    out.extend_from_slice(itoa::Buffer::new().format(micros).as_bytes());
    Ok(())
}

pub(super) fn write_iso(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    if matches!(wire, b"infinity" | b"-infinity") {
        out.push(b'"');
        out.extend_from_slice(wire);
        out.push(b'"');
        return Ok(());
    }
    let parts = parse(wire)?;
    out.extend_from_slice(b"\"P");
    let mut digits = itoa::Buffer::new();
    for (part, unit) in [
        (parts.years, "Y"),
        (parts.months, "M"),
        (parts.days, "DT"),
        (parts.hours, "H"),
        (parts.minutes, "M"),
    ] {
        out.extend_from_slice(digits.format(part).as_bytes());
        out.extend_from_slice(unit.as_bytes());
    }
    if parts.micros < 0 {
        out.push(b'-');
    }
    let micros = parts.micros.unsigned_abs();
    let second = MICROS_PER_SECOND.unsigned_abs();
    out.extend_from_slice(digits.format(micros / second).as_bytes());
    let fraction = micros % second;
    if fraction > 0 {
        out.push(b'.');
        let digits = digits.format(fraction).as_bytes();
        out.extend(std::iter::repeat_n(b'0', 6_usize.saturating_sub(digits.len())));
        out.extend_from_slice(digits);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.extend_from_slice(b"S\"");
    Ok(())
}

impl Parts {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "Debezium's own rounding: toward zero, and the ends of 64 bits beyond them"
    )]
    fn total_micros(self) -> i64 {
        const DAYS_PER_MONTH: f64 = 365.25 / 12.0;
        let seconds = (self.micros / MICROS_PER_SECOND) as f64
            + (self.micros % MICROS_PER_SECOND) as f64 / 1e6;
        let months = (self.years.saturating_mul(12).saturating_add(self.months)) as f64;
        let days = months * DAYS_PER_MONTH + self.days as f64;
        let minutes = (days * 24.0 + self.hours as f64) * 60.0 + self.minutes as f64;
        ((minutes * 60.0 + seconds) * 1e6) as i64
    }
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
    fn a_month_has_a_twelfth_of_a_year_in_days() {
        for (wire, micros) in [
            ("PT0S", "0"),
            ("P1Y", "31557600000000"),
            ("P1M", "2629800000000"),
            ("P1Y2M3DT4H5M6.78S", "37091106780000"),
            ("P-1Y-2M3DT-4H-5M-6.78S", "-36572706780000"),
            ("PT-0.000001S", "-1"),
            ("infinity", "9223372036854775807"),
        ] {
            assert_eq!(written(wire, write_micros).as_deref(), Ok(micros), "{wire}");
        }
    }

    #[test]
    fn text_names_every_part() {
        for (wire, iso) in [
            ("PT0S", "\"P0Y0M0DT0H0M0S\""),
            ("P1Y2M3DT4H5M6.78S", "\"P1Y2M3DT4H5M6.78S\""),
            ("P-1Y-2M3DT-4H-5M-6.000001S", "\"P-1Y-2M3DT-4H-5M-6.000001S\""),
            ("PT-0.5S", "\"P0Y0M0DT0H0M-0.5S\""),
            ("PT2562047788H0.54775S", "\"P0Y0M0DT2562047788H0M0.54775S\""),
            ("-infinity", "\"-infinity\""),
        ] {
            assert_eq!(written(wire, write_iso).as_deref(), Ok(iso), "{wire}");
        }
    }

    #[test]
    fn what_is_not_iso_8601_is_refused_by_place() {
        for (wire, offset) in [
            ("", 0),
            ("P", 1),
            ("1 year", 0),
            ("P1", 2),
            ("P1H", 2),
            ("PT1Y", 3),
            ("P1.5Y", 1),
            ("PT1S ", 4),
            ("PT99999999999999999S", 2),
        ] {
            assert_eq!(written(wire, write_micros), Err(offset), "{wire}");
            assert_eq!(written(wire, write_iso), Err(offset), "{wire}");
        }
    }

    proptest! {
        #[test]
        fn any_parts_are_read_back(
            months in -2_000_000_000_i64..2_000_000_000,
            days in -2_000_000_000_i64..2_000_000_000,
            micros in -9_000_000_000_000_i64..9_000_000_000_000,
        ) {
            let second = micros % 60_000_000;
            let minus = if second < 0 { "-" } else { "" };
            let seconds = format!("{minus}{}.{:06}",
                second.abs() / MICROS_PER_SECOND, second.abs() % MICROS_PER_SECOND);
            let wire = format!("P{}Y{}M{days}DT{}H{}M{seconds}S", months / 12, months % 12,
                micros / 3_600_000_000, micros / 60_000_000 % 60);
            let parts = parse(wire.as_bytes()).unwrap();
            prop_assert_eq!(parts, Parts {
                years: months / 12,
                months: months % 12,
                days,
                hours: micros / 3_600_000_000,
                minutes: micros / 60_000_000 % 60,
                micros: second,
            });
            let text = written(&wire, write_iso).unwrap();
            prop_assert_eq!(parse(text.trim_matches('"').as_bytes()), Ok(parts));
        }

        #[test]
        fn any_text_is_read_or_refused(wire in "P?[-0-9YMDTHS.]{0,30}") {
            for write in [write_micros, write_iso] {
                let mut out = Vec::new();
                if write(wire.as_bytes(), &mut out).is_ok() {
                    serde_json::from_slice::<serde_json::Value>(&out).unwrap();
                }
            }
        }
    }
}
