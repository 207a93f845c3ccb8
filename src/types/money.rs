//! money: from `-$1,234.56` to Debezium's forms of a decimal.
//!
//! The text depends on the database's `lc_monetary`. As Debezium, this reads a symbol of one
//! character in front, commas between thousands and a point before the fraction; other forms are
//! refused, because their digits could be misread.

use super::ValueError;
use super::decimal::{Digits, Limbs};
use super::float::write_java;

/// Digits after the point (`money.fraction.digits`).
pub(super) const SCALE: i32 = 2;

/// Longest text of 64 bits with a sign and a point.
const MAX_TEXT: usize = 24;

/// The amount's sign and digits, without symbol and commas.
struct Amount {
    negative: bool,
    text: [u8; MAX_TEXT],
    /// Where the digits before and after the point end.
    whole: usize,
    end: usize,
}

fn parse(wire: &[u8]) -> Result<Amount, ValueError> {
    let error = |offset| ValueError {
        type_name: "money",
        offset,
        expected: "an amount as $1,234.56 (the database's lc_monetary has another form)",
    };
    let (negative, unsigned, closing) = match wire {
        [b'-', unsigned @ ..] => (true, unsigned, 0),
        [b'(', unsigned @ .., b')'] => (true, unsigned, 1),
        wire => (false, wire, 0),
    };
    let digits = match std::str::from_utf8(unsigned).map_err(|fault| error(fault.valid_up_to()))? {
        text if text.starts_with(|first: char| first.is_ascii_digit() || first == '.') => text,
        text => text.get(text.chars().next().map_or(0, char::len_utf8)..).unwrap_or_default(),
    };
    let mut amount = Amount { negative, text: [0; MAX_TEXT], whole: 0, end: 0 };
    let mut point = false;
    for (at, byte) in digits.bytes().enumerate() {
        let offset = wire.len() - closing - digits.len() + at;
        match byte {
            b',' if !point => continue,
            b'.' if !point && amount.end > 0 => {
                point = true;
                amount.whole = amount.end;
            }
            b'0'..=b'9' => {
                *amount.text.get_mut(amount.end).ok_or_else(|| error(offset))? = byte;
                amount.end += 1;
            }
            _ => return Err(error(offset)),
        }
    }
    if !point {
        amount.whole = amount.end;
    }
    if amount.end == 0 || (point && amount.whole == amount.end) {
        return Err(error(wire.len()));
    }
    Ok(amount)
}

impl Amount {
    fn parts(&self) -> (&[u8], &[u8]) {
        let (whole, rest) = self.text.split_at(self.whole);
        (whole, rest.split_at(self.end - self.whole).0)
    }
}

pub(super) fn write_precise(
    wire: &[u8],
    limbs: &Limbs,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let amount = parse(wire)?;
    let (whole, fraction) = amount.parts();
    let scaled = Digits::new(amount.negative, whole, fraction).scaled(SCALE).ok_or(ValueError {
        type_name: "money",
        offset: wire.len(),
        expected: "no more than two digits after the point",
    })?;
    scaled.write(limbs, out);
    Ok(())
}

pub(super) fn write_string(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let amount = parse(wire)?;
    out.push(b'"');
    amount.write(out);
    out.push(b'"');
    Ok(())
}

pub(super) fn write_double(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let amount = parse(wire)?;
    let start = out.len();
    amount.write(out);
    let number = out.get(start..).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
    out.truncate(start);
    write_java(number.unwrap_or(f64::NAN), out);
    Ok(())
}

impl Amount {
    fn write(&self, out: &mut Vec<u8>) {
        let (whole, fraction) = self.parts();
        // Zero has no sign in Java's decimals.
        if self.negative && whole.iter().chain(fraction).any(|&digit| digit != b'0') {
            out.push(b'-');
        }
        out.extend_from_slice(whole);
        if !fraction.is_empty() {
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Write = fn(&[u8], &mut Vec<u8>) -> Result<(), ValueError>;

    fn written(write: Write, wire: &str) -> Result<String, usize> {
        let mut out = Vec::new();
        write(wire.as_bytes(), &mut out).map_err(|error| error.offset)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn precise(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        write_precise(wire, &Limbs::default(), out)
    }

    #[test]
    fn amounts_lose_their_symbol_and_commas() {
        for (wire, base64, text, double) in [
            ("$16.52", "\"BnQ=\"", "\"16.52\"", "16.52"),
            ("-$1,234.56", "\"/h3A\"", "\"-1234.56\"", "-1234.56"),
            ("($0.01)", "\"/w==\"", "\"-0.01\"", "-0.01"),
            ("€5.00", "\"AfQ=\"", "\"5.00\"", "5.0"),
            ("¥7", "\"Arw=\"", "\"7\"", "7.0"),
            (
                "$92,233,720,368,547,758.07",
                "\"f/////////8=\"",
                "\"92233720368547758.07\"",
                "9.223372036854776E16",
            ),
        ] {
            assert_eq!(written(precise, wire).as_deref(), Ok(base64), "{wire}");
            assert_eq!(written(write_string, wire).as_deref(), Ok(text), "{wire}");
            assert_eq!(written(write_double, wire).as_deref(), Ok(double), "{wire}");
        }
    }

    #[test]
    fn amounts_of_other_forms_are_refused_by_place() {
        for (wire, offset) in [
            ("", 0),
            ("$", 1),
            ("1.234,56 €", 5),
            ("$1.2.3", 4),
            ("$1.", 3),
            ("US$1.00", 1),
            ("($1x)", 3),
        ] {
            assert_eq!(written(write_string, wire), Err(offset), "{wire}");
        }
        assert_eq!(written(precise, "$1.234"), Err(6));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(wire in "[-($]{0,2}[0-9.,€ ]{0,30}\\)?") {
            for write in [precise as Write, write_string, write_double] {
                if let Ok(json) = written(write, &wire) {
                    serde_json::from_str::<serde_json::Value>(&json).unwrap();
                }
            }
        }
    }
}
