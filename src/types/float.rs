//! Floating point numbers as Java prints them, which is what Debezium's JSON holds.
//!
//! The fewest digits that read back as the same number, as Postgres, but always a fraction, and an
//! exponent below 10^-3 and from 10^7 on: `1.0`, `1.0E7`. NaN and the infinities are in quotes.
//! Grammar: `Double.toString` of Java 19 and later; earlier ones print more digits for some
//! numbers.

use std::io::Write as _;

use super::ValueError;

/// Longest text of a number by `{:e}`: 17 digits, a sign, a point, an exponent of `e-324`.
const MAX_TEXT: usize = 32;

/// A number as Java prints it.
pub(super) fn write<F: Float>(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    write_java(parse::<F>(wire)?, out);
    Ok(())
}

/// A number that Java can print.
pub(super) trait Float: Copy + std::fmt::LowerExp + std::str::FromStr {
    fn is_finite(self) -> bool;
    fn is_nan(self) -> bool;
    fn is_sign_negative(self) -> bool;
}

macro_rules! float {
    ($($float:ty),+) => {$(
        impl Float for $float {
            fn is_finite(self) -> bool {
                <$float>::is_finite(self)
            }
            fn is_nan(self) -> bool {
                <$float>::is_nan(self)
            }
            fn is_sign_negative(self) -> bool {
                <$float>::is_sign_negative(self)
            }
        }
    )+};
}

float!(f32, f64);

fn parse<F: Float>(wire: &[u8]) -> Result<F, ValueError> {
    let error = |offset| ValueError {
        type_name: "float",
        offset,
        expected: "a decimal number, NaN or Infinity",
    };
    if !matches!(wire, b"NaN" | b"Infinity" | b"-Infinity") {
        super::number::check_number(wire).map_err(error)?;
    }
    std::str::from_utf8(wire).ok().and_then(|text| text.parse().ok()).ok_or_else(|| error(0))
}

/// Appends the number as a JSON number, or in quotes where JSON has none.
pub(super) fn write_java(number: impl Float, out: &mut Vec<u8>) {
    if number.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if !number.is_finite() {
        let infinity: &[u8] =
            if number.is_sign_negative() { b"\"-Infinity\"" } else { b"\"Infinity\"" };
        out.extend_from_slice(infinity);
    } else {
        write_finite(number, out);
    }
}

fn write_finite(number: impl Float, out: &mut Vec<u8>) {
    let mut space = [0; MAX_TEXT];
    let mut text = format(&mut space, |space| write!(space, "{number:e}"));
    let mut again = [0; MAX_TEXT];
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    if unsigned.get(1) == Some(&b'e') {
        // Of one digit and two that both read back as the number, Java takes the closer.
        text = format(&mut again, |space| write!(space, "{number:.1e}"));
    }
    let (negative, unsigned) = match text.strip_prefix(b"-") {
        Some(unsigned) => (true, unsigned),
        None => (false, text),
    };
    let at = unsigned.iter().position(|&byte| byte == b'e').unwrap_or(unsigned.len());
    let (digits, exponent) = unsigned.split_at(at);
    let exponent = std::str::from_utf8(exponent.get(1..).unwrap_or_default());
    let exponent = exponent.ok().and_then(|text| text.parse::<i32>().ok()).unwrap_or_default();
    let (first, fraction) = digits.split_at(1);
    let fraction = fraction.strip_prefix(b".").unwrap_or_default();
    let fraction = if fraction == b"0" { b"" } else { fraction };
    if negative {
        out.push(b'-');
    }
    layout(first, fraction, exponent, out);
}

/// Writes `first.fraction` times ten to the exponent.
fn layout(first: &[u8], fraction: &[u8], exponent: i32, out: &mut Vec<u8>) {
    let or_zero = |digits: &[u8], out: &mut Vec<u8>| {
        out.extend_from_slice(if digits.is_empty() { b"0" } else { digits });
    };
    match exponent {
        0..7 => {
            let whole = usize::try_from(exponent).unwrap_or_default();
            let (shifted, rest) = fraction.split_at(whole.min(fraction.len()));
            out.extend_from_slice(first);
            out.extend_from_slice(shifted);
            out.extend(std::iter::repeat_n(b'0', whole - shifted.len()));
            out.push(b'.');
            or_zero(rest, out);
        }
        -3..0 => {
            let zeros = usize::try_from(-1 - exponent).unwrap_or_default();
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', zeros));
            out.extend_from_slice(first);
            out.extend_from_slice(fraction);
        }
        _ => {
            out.extend_from_slice(first);
            out.push(b'.');
            or_zero(fraction, out);
            out.push(b'E');
            out.extend_from_slice(itoa::Buffer::new().format(exponent).as_bytes());
        }
    }
}

/// What `write` puts into the space.
fn format(
    space: &mut [u8; MAX_TEXT],
    write: impl FnOnce(&mut &mut [u8]) -> std::io::Result<()>,
) -> &[u8] {
    let mut free = space.as_mut_slice();
    // Cannot fail: no number is longer than the space.
    let written = write(&mut free);
    debug_assert!(written.is_ok());
    let length = MAX_TEXT - free.len();
    space.split_at(length).0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn java(wire: &str) -> String {
        let mut out = Vec::new();
        write::<f64>(wire.as_bytes(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_look_as_java_prints_them() {
        // Each as `Double.toString` returns it.
        for (wire, text) in [
            ("0", "0.0"),
            ("-0", "-0.0"),
            ("1", "1.0"),
            ("100", "100.0"),
            ("1.5", "1.5"),
            ("1234567.25", "1234567.25"),
            ("9999999", "9999999.0"),
            ("10000000", "1.0E7"),
            ("12345678.5", "1.23456785E7"),
            ("0.001", "0.001"),
            ("0.00099", "9.9E-4"),
            ("1e+20", "1.0E20"),
            ("1e+23", "1.0E23"),
            ("1.7976931348623157e+308", "1.7976931348623157E308"),
            ("5e-324", "4.9E-324"),
            ("2.2250738585072014e-308", "2.2250738585072014E-308"),
            ("-3.14", "-3.14"),
            ("NaN", "\"NaN\""),
            ("Infinity", "\"Infinity\""),
            ("-Infinity", "\"-Infinity\""),
        ] {
            assert_eq!(java(wire), text, "{wire}");
        }
        let mut out = Vec::new();
        write::<f32>(b"3.4028235e+38", &mut out).unwrap();
        write::<f32>(b"1e-45", &mut out).unwrap();
        write::<f32>(b"16777216", &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "3.4028235E381.4E-451.6777216E7");
    }

    #[test]
    fn text_that_is_no_number_is_refused_by_place() {
        for (wire, offset) in [("", 0), ("inf", 0), ("1.", 2), ("1f", 1), ("0x10", 1), ("-", 1)] {
            let error = write::<f64>(wire.as_bytes(), &mut Vec::new()).unwrap_err();
            assert_eq!(error.offset, offset, "{wire}");
        }
    }

    proptest! {
        #[test]
        fn any_number_reads_back_as_itself(bits: u64) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            let mut out = Vec::new();
            write_java(number, &mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
            // Only as JSON: its numbers are not read back to the last bit there.
            serde_json::from_str::<f64>(&text).unwrap();
        }

        #[test]
        fn any_short_number_reads_back_as_itself(bits: u32) {
            let number = f32::from_bits(bits);
            prop_assume!(number.is_finite());
            let mut out = Vec::new();
            write_java(number, &mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(text.parse::<f32>().unwrap().to_bits(), bits);
        }
    }
}
