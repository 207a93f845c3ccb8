//! Dates, times and intervals: from Postgres' ISO style to ISO 8601 proper.
//!
//! Postgres writes a space where ISO 8601 has a `T`, hours alone as an offset, and a trailing `BC`.
//! Years outside 0-9999 take ISO 8601's extended form, as Java prints them: astronomical with a
//! sign, so that 44 BC is `-0043`. Times are copied, not computed: no calendar lives here, and a
//! month or hour out of range passes as the server sent it.

use super::ValueError;

/// A text with its type's name, for errors.
#[derive(Clone, Copy)]
struct Wire<'a> {
    type_name: &'static str,
    whole: &'a [u8],
}

pub(super) fn write_date(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let wire = Wire { type_name: "date", whole: wire };
    wire.quoted(out, |out, text, bc| {
        let rest = wire.date(text, bc, out)?;
        wire.end(rest)
    })
}

#[inline]
pub(super) fn write_timestamp(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let wire = Wire { type_name: "timestamp", whole: wire };
    wire.quoted(out, |out, text, bc| {
        let rest = wire.date_and_time(text, bc, out)?;
        wire.end(rest)
    })
}

#[inline]
pub(super) fn write_timestamptz(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let wire = Wire { type_name: "timestamptz", whole: wire };
    wire.quoted(out, |out, text, bc| {
        let rest = wire.date_and_time(text, bc, out)?;
        let rest = rest
            .strip_prefix(b"+00")
            .ok_or_else(|| wire.error(rest, "+00 (the session's TimeZone must be UTC)"))?;
        out.push(b'Z');
        wire.end(rest)
    })
}

pub(super) fn write_time(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let wire = Wire { type_name: "time", whole: wire };
    out.push(b'"');
    let rest = wire.clock(wire.whole, out)?;
    wire.end(rest)?;
    out.push(b'"');
    Ok(())
}

pub(super) fn write_timetz(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let wire = Wire { type_name: "timetz", whole: wire };
    out.push(b'"');
    let rest = wire.clock(wire.whole, out)?;
    wire.offset(rest, out)?;
    out.push(b'"');
    Ok(())
}

pub(super) fn write_interval(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let wire = Wire { type_name: "interval", whole: wire };
    if !is_infinite(wire.whole) {
        let unsigned = wire.whole.strip_prefix(b"-").unwrap_or(wire.whole);
        let expected = "ISO 8601 (the session's IntervalStyle must be iso_8601)";
        if unsigned.first() != Some(&b'P') || unsigned.len() < 2 {
            return Err(wire.error(unsigned, expected));
        }
        let allowed = |byte: &u8| byte.is_ascii_digit() || b"PYMWDTHS.-".contains(byte);
        if let Some(at) = wire.whole.iter().position(|byte| !allowed(byte)) {
            return Err(ValueError { type_name: wire.type_name, offset: at, expected });
        }
    }
    out.push(b'"');
    out.extend_from_slice(wire.whole);
    out.push(b'"');
    Ok(())
}

fn is_infinite(text: &[u8]) -> bool {
    matches!(text, b"infinity" | b"-infinity")
}

impl<'a> Wire<'a> {
    /// Writes quotes around what `write` makes of the text without its `BC`, or around infinity.
    #[inline]
    fn quoted(
        self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>, &'a [u8], bool) -> Result<(), ValueError>,
    ) -> Result<(), ValueError> {
        out.push(b'"');
        if is_infinite(self.whole) {
            out.extend_from_slice(self.whole);
        } else {
            let before_christ = self.whole.strip_suffix(b" BC");
            write(out, before_christ.unwrap_or(self.whole), before_christ.is_some())?;
        }
        out.push(b'"');
        Ok(())
    }

    #[inline]
    fn date_and_time(
        self,
        text: &'a [u8],
        bc: bool,
        out: &mut Vec<u8>,
    ) -> Result<&'a [u8], ValueError> {
        let rest = self.date(text, bc, out)?;
        let Some(rest) = rest.strip_prefix(b" ") else {
            return Err(self.error(rest, "a space and a time (DateStyle must be ISO)"));
        };
        out.push(b'T');
        self.clock(rest, out)
    }

    /// `YYYY-MM-DD`; returns what follows.
    #[inline]
    fn date(self, text: &'a [u8], bc: bool, out: &mut Vec<u8>) -> Result<&'a [u8], ValueError> {
        let year_length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (year, rest) = text.split_at(year_length);
        let month_and_day = match rest.first_chunk::<6>() {
            Some(&[b'-', m1, m2, b'-', d1, d2])
                if year_length >= 4 && [m1, m2, d1, d2].iter().all(u8::is_ascii_digit) =>
            {
                [b'-', m1, m2, b'-', d1, d2]
            }
            _ => return Err(self.error(text, "YYYY-MM-DD (DateStyle must be ISO)")),
        };
        if bc {
            self.write_year_before_christ(year, out)?;
        } else {
            if year_length > 4 {
                out.push(b'+');
            }
            out.extend_from_slice(year);
        }
        out.extend_from_slice(&month_and_day);
        Ok(rest.split_at(month_and_day.len()).1)
    }

    /// Counts as astronomers do: 1 BC is the year 0000, 2 BC is -0001.
    fn write_year_before_christ(self, year: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let number = std::str::from_utf8(year).ok().and_then(|year| year.parse::<u32>().ok());
        let Some(before_zero) = number.and_then(|year| year.checked_sub(1)) else {
            return Err(self.error(self.whole, "a year of at least 1 before BC"));
        };
        if before_zero > 0 {
            out.push(b'-');
        }
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(before_zero).as_bytes();
        out.extend(std::iter::repeat_n(b'0', 4_usize.saturating_sub(digits.len())));
        out.extend_from_slice(digits);
        Ok(())
    }

    /// `HH:MM:SS[.ffffff]`; returns what follows.
    #[inline]
    fn clock(self, text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ValueError> {
        match text.first_chunk::<8>() {
            Some(&[h1, h2, b':', m1, m2, b':', s1, s2])
                if [h1, h2, m1, m2, s1, s2].iter().all(u8::is_ascii_digit) => {}
            _ => return Err(self.error(text, "HH:MM:SS")),
        }
        let mut length = 8;
        if text.get(length) == Some(&b'.') {
            let after = text.iter().skip(length + 1);
            let digits = after.take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return Err(self.error(text.split_at(length).1, "a fraction"));
            }
            length += 1 + digits;
        }
        let (clock, rest) = text.split_at(length);
        out.extend_from_slice(clock);
        Ok(rest)
    }

    /// `+HH[:MM[:SS]]` to `Z` or `+HH:MM[:SS]`, up to the end.
    fn offset(self, text: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let is_pair = |pair: &[u8]| pair.len() == 2 && pair.iter().all(u8::is_ascii_digit);
        let error = || self.error(text, "an offset as +HH:MM");
        let (sign, hours_and_on) = text.split_at_checked(1).ok_or_else(error)?;
        let pairs = hours_and_on.split(|&byte| byte == b':');
        let valid = (sign == b"+" || sign == b"-")
            && pairs.clone().count() <= 3
            && pairs.clone().all(is_pair);
        if !valid {
            return Err(error());
        }
        if hours_and_on.iter().all(|byte| matches!(byte, b'0' | b':')) {
            out.push(b'Z');
            return Ok(());
        }
        out.extend_from_slice(text);
        if pairs.count() == 1 {
            out.extend_from_slice(b":00");
        }
        Ok(())
    }

    fn end(self, rest: &[u8]) -> Result<(), ValueError> {
        if rest.is_empty() { Ok(()) } else { Err(self.error(rest, "the end of the value")) }
    }

    /// An error at `rest`, a tail of the text (a `BC` taken off does not count).
    #[cold]
    fn error(self, rest: &[u8], expected: &'static str) -> ValueError {
        let end = self.whole.strip_suffix(b" BC").unwrap_or(self.whole).len();
        let offset = end.saturating_sub(rest.len());
        ValueError { type_name: self.type_name, offset, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Write = fn(&[u8], &mut Vec<u8>) -> Result<(), ValueError>;

    fn json(write: Write, wire: &str) -> Result<String, usize> {
        let mut out = Vec::new();
        write(wire.as_bytes(), &mut out).map_err(|error| error.offset)?;
        Ok(serde_json::from_slice(&out).unwrap())
    }

    fn holds(write: Write, cases: &[(&str, &str)]) {
        for (wire, iso) in cases {
            assert_eq!(json(write, wire).as_deref(), Ok(*iso), "{wire}");
        }
    }

    #[test]
    fn dates_are_iso_8601_in_every_era() {
        holds(
            write_date,
            &[
                ("2024-03-01", "2024-03-01"),
                ("0001-01-01", "0001-01-01"),
                ("0001-12-31 BC", "0000-12-31"),
                ("0044-03-15 BC", "-0043-03-15"),
                ("4714-11-24 BC", "-4713-11-24"),
                ("5874897-12-31", "+5874897-12-31"),
                ("infinity", "infinity"),
                ("-infinity", "-infinity"),
            ],
        );
        for (wire, offset) in [
            ("", 0),
            ("2024-3-01", 0),
            ("03/01/2024", 0),
            ("2024-03-01x", 10),
            ("0000-01-01 BC", 0),
        ] {
            assert_eq!(json(write_date, wire), Err(offset), "{wire}");
        }
    }

    #[test]
    fn timestamps_have_a_t_and_their_own_digits() {
        holds(
            write_timestamp,
            &[
                ("2024-03-01 08:15:30", "2024-03-01T08:15:30"),
                ("2024-03-01 08:15:30.123456", "2024-03-01T08:15:30.123456"),
                ("0044-03-15 12:00:00.5 BC", "-0043-03-15T12:00:00.5"),
                ("294276-12-31 23:59:59.999999", "+294276-12-31T23:59:59.999999"),
                ("infinity", "infinity"),
            ],
        );
        for (wire, offset) in [
            ("2024-03-01", 10),
            ("2024-03-01 08:15", 11),
            ("2024-03-01 08:15:30.", 19),
            ("2024-03-01 08:15:30+00", 19),
        ] {
            assert_eq!(json(write_timestamp, wire), Err(offset), "{wire}");
        }
    }

    #[test]
    fn timestamps_with_time_zone_are_utc_or_refused() {
        holds(
            write_timestamptz,
            &[
                ("2024-03-01 08:15:30.1+00", "2024-03-01T08:15:30.1Z"),
                ("0001-01-01 00:00:00+00 BC", "0000-01-01T00:00:00Z"),
                ("-infinity", "-infinity"),
            ],
        );
        assert_eq!(json(write_timestamptz, "2024-03-01 08:15:30+02"), Err(19));
        assert_eq!(json(write_timestamptz, "2024-03-01 08:15:30+00:30"), Err(22));
    }

    #[test]
    fn times_keep_their_offset() {
        holds(write_time, &[("08:15:30.123456", "08:15:30.123456"), ("24:00:00", "24:00:00")]);
        assert_eq!(json(write_time, "8:15:30"), Err(0));
        holds(
            write_timetz,
            &[
                ("08:15:30+00", "08:15:30Z"),
                ("08:15:30.5+02", "08:15:30.5+02:00"),
                ("08:15:30-03:30", "08:15:30-03:30"),
                ("08:15:30+15:59:59", "08:15:30+15:59:59"),
            ],
        );
        for wire in ["08:15:30", "08:15:30+", "08:15:30+2", "08:15:30 02", "08:15:30+02:00:00:00"] {
            assert_eq!(json(write_timetz, wire), Err(8), "{wire}");
        }
    }

    #[test]
    fn intervals_are_iso_8601_or_refused() {
        for wire in ["P1Y2M3DT4H5M6.78S", "PT0S", "P-1Y-2M3DT-4H-5M-6S", "infinity"] {
            holds(write_interval, &[(wire, wire)]);
        }
        for (wire, offset) in [("", 0), ("P", 0), ("1 year", 0), ("P1Y\"", 3)] {
            assert_eq!(json(write_interval, wire), Err(offset), "{wire}");
        }
    }
}
