//! Booleans and numbers. Their text is nearly JSON already: it is checked and copied, so that every
//! digit Postgres printed arrives.

use super::ValueError;

pub(super) fn write_bool(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    match wire {
        b"t" => out.extend_from_slice(b"true"),
        b"f" => out.extend_from_slice(b"false"),
        _ => return Err(ValueError { type_name: "bool", offset: 0, expected: "t or f" }),
    }
    Ok(())
}

#[inline]
pub(super) fn write_integer(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let digits = wire.strip_prefix(b"-").unwrap_or(wire);
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let leading_zero = digits.len() > 1 && digits.first() == Some(&b'0');
    if end < digits.len() || digits.is_empty() || leading_zero {
        let offset = wire.len() - digits.len() + if leading_zero { 0 } else { end };
        return Err(ValueError { type_name: "integer", offset, expected: "a decimal integer" });
    }
    out.extend_from_slice(wire);
    Ok(())
}

/// `1 2 3` as an array.
pub(super) fn write_integer_list(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    out.push(b'[');
    let mut start = 0;
    for number in wire.split(|&byte| byte == b' ').filter(|_| !wire.is_empty()) {
        if start > 0 {
            out.push(b',');
        }
        write_integer(number, out)
            .map_err(|error| ValueError { offset: start + error.offset, ..error })?;
        start += number.len() + 1;
    }
    out.push(b']');
    Ok(())
}

pub(super) fn write_float(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    if is_special(wire) {
        write_quoted(wire, out);
        return Ok(());
    }
    check_number(wire).map_err(|offset| ValueError {
        type_name: "float",
        offset,
        expected: "a decimal number, NaN or Infinity",
    })?;
    out.extend_from_slice(wire);
    Ok(())
}

#[inline]
pub(super) fn write_numeric(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    if !is_special(wire) {
        check_number(wire).map_err(|offset| ValueError {
            type_name: "numeric",
            offset,
            expected: "a decimal number, NaN or Infinity",
        })?;
    }
    write_quoted(wire, out);
    Ok(())
}

fn is_special(wire: &[u8]) -> bool {
    matches!(wire, b"NaN" | b"Infinity" | b"-Infinity")
}

fn write_quoted(wire: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(wire);
    out.push(b'"');
}

/// Checks JSON's grammar of a number, which is also what Postgres prints; else the offset of the
/// first byte that does not belong.
#[inline]
pub(super) fn check_number(wire: &[u8]) -> Result<(), usize> {
    let rest = number_prefix(wire)?;
    if rest.is_empty() { Ok(()) } else { Err(wire.len() - rest.len()) }
}

/// Takes a number off the front and returns what follows it.
#[inline]
pub(super) fn number_prefix(wire: &[u8]) -> Result<&[u8], usize> {
    let unsigned = wire.strip_prefix(b"-").unwrap_or(wire);
    let mut rest = match unsigned.strip_prefix(b"0") {
        Some(rest) => rest,
        None => digits(wire, unsigned)?,
    };
    if let Some(fraction) = rest.strip_prefix(b".") {
        rest = digits(wire, fraction)?;
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let sign = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-"));
        rest = digits(wire, sign.unwrap_or(exponent))?;
    }
    Ok(rest)
}

/// Takes at least one digit off the front of `rest`, which is a tail of `wire`.
#[inline]
fn digits<'a>(wire: &[u8], rest: &'a [u8]) -> Result<&'a [u8], usize> {
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match rest.split_at_checked(count) {
        Some((_, after)) if count > 0 => Ok(after),
        _ => Err(wire.len() - rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Write = fn(&[u8], &mut Vec<u8>) -> Result<(), ValueError>;

    fn json(write: Write, wire: &str) -> Result<String, usize> {
        let mut out = Vec::new();
        write(wire.as_bytes(), &mut out).map_err(|error| error.offset)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn integers_keep_every_digit() {
        for wire in ["0", "-1", "42", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(json(write_integer, wire).as_deref(), Ok(wire));
        }
        for (wire, offset) in [("", 0), ("-", 1), ("1a", 1), ("+1", 0), ("01", 0), ("1.5", 1)] {
            assert_eq!(json(write_integer, wire), Err(offset), "{wire}");
        }
    }

    #[test]
    fn floats_are_numbers_unless_json_has_none() {
        for wire in ["0", "-0", "1.5", "1e+20", "1.2345678901234567e-05", "3.4028235e+38"] {
            assert_eq!(json(write_float, wire).as_deref(), Ok(wire));
            serde_json::from_str::<f64>(wire).unwrap();
        }
        assert_eq!(json(write_float, "NaN").as_deref(), Ok("\"NaN\""));
        assert_eq!(json(write_float, "-Infinity").as_deref(), Ok("\"-Infinity\""));
        for (wire, offset) in [("", 0), (".5", 0), ("1.", 2), ("1e", 2), ("1e+", 3), ("nan", 0)] {
            assert_eq!(json(write_float, wire), Err(offset), "{wire}");
        }
    }

    #[test]
    fn numerics_keep_their_scale() {
        assert_eq!(json(write_numeric, "16.50").as_deref(), Ok("\"16.50\""));
        assert_eq!(json(write_numeric, "NaN").as_deref(), Ok("\"NaN\""));
        assert_eq!(json(write_numeric, "1\""), Err(1));
    }

    #[test]
    fn lists_of_integers_are_arrays() {
        for (wire, array) in [("", "[]"), ("1", "[1]"), ("1 -2 4294967295", "[1,-2,4294967295]")] {
            assert_eq!(json(write_integer_list, wire).as_deref(), Ok(array));
        }
        for (wire, offset) in [(" ", 0), ("1 ", 2), ("1 a", 2), ("{1,2}", 0)] {
            assert_eq!(json(write_integer_list, wire), Err(offset), "{wire}");
        }
    }

    #[test]
    fn booleans_are_one_letter() {
        assert_eq!(json(write_bool, "t").as_deref(), Ok("true"));
        assert_eq!(json(write_bool, "f").as_deref(), Ok("false"));
        assert_eq!(json(write_bool, "true"), Err(0));
    }
}
