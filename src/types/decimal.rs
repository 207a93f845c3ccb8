//! Decimals as Debezium writes them with `decimal.handling.mode = precise`: the number without its
//! point, as the bytes of Java's `BigInteger`, in base64.
//!
//! `16.50` with two digits after the point is 1650: the bytes 06 72. Negative numbers are two's
//! complement, of the fewest bytes that keep the sign. Numbers of up to 38 digits are worked out in
//! a register; longer ones, which Postgres allows up to 147,455 digits, in space that is used again.

use std::cell::Cell;

use super::ValueError;
use super::bytea::{write_bytes, write_iter};
use super::scan::Scanner;
use crate::config::BinaryMode;

/// Digits that a `u128` always holds.
const SHORT_DIGITS: usize = 38;

/// Digits that a `u64` always holds, and ten to their number.
const CHUNK_DIGITS: u32 = 19;

/// Space for numbers that no register holds, least significant part first.
#[derive(Default)]
pub(super) struct Limbs(Cell<Vec<u64>>);

impl std::fmt::Debug for Limbs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The space holds a row's value: not to be shown.
        f.write_str("Limbs")
    }
}

/// A decimal's sign and digits.
#[derive(Clone, Copy)]
pub(super) struct Digits<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    /// Zeros that the scale asks for beyond the fraction.
    zeros: usize,
}

/// Reads `-12.50`.
fn digits<'a>(type_name: &'static str, wire: &'a [u8]) -> Result<Digits<'a>, ValueError> {
    const EXPECTED: &str = "a finite decimal number (for NaN and infinity: format.decimal_handling_mode, string or double)";
    let mut text = Scanner::new(type_name, wire);
    let negative = text.take(b'-');
    let whole = text.digits();
    if whole.is_empty() {
        return Err(text.error(EXPECTED));
    }
    let mut fraction: &[u8] = b"";
    if text.take(b'.') {
        fraction = text.digits();
        if fraction.is_empty() {
            return Err(text.error("a digit"));
        }
    }
    text.end()?;
    Ok(Digits { negative, whole, fraction, zeros: 0 })
}

impl<'a> Digits<'a> {
    pub(super) const fn new(negative: bool, whole: &'a [u8], fraction: &'a [u8]) -> Self {
        Self { negative, whole, fraction, zeros: 0 }
    }

    /// The same number with `scale` digits after the point; none where digits would be lost.
    pub(super) fn scaled(self, scale: i32) -> Option<Self> {
        let kept = usize::try_from(scale).unwrap_or(0);
        let (fraction, lost) = self.fraction.split_at(kept.min(self.fraction.len()));
        let zeros = kept - fraction.len();
        let before = usize::try_from(scale.checked_neg()?).unwrap_or(0);
        let (whole, lost_whole) = self.whole.split_at(self.whole.len().saturating_sub(before));
        let is_exact = lost.iter().chain(lost_whole).all(|&digit| digit == b'0');
        is_exact.then_some(Self { whole, fraction, zeros, ..self })
    }

    fn iter(&self) -> impl Iterator<Item = u64> {
        let digits = self.whole.iter().chain(self.fraction).map(|digit| u64::from(digit - b'0'));
        digits.chain(std::iter::repeat_n(0, self.zeros))
    }

    /// Appends the base64 of the number without its point, in quotes.
    pub(super) fn write(&self, limbs: &Limbs, out: &mut Vec<u8>) {
        if self.whole.len() + self.fraction.len() + self.zeros <= SHORT_DIGITS {
            let magnitude = self.iter().fold(0_u128, |value, digit| value * 10 + u128::from(digit));
            write_short(self.negative, magnitude, out);
        } else {
            let mut space = limbs.0.take();
            self.fill(&mut space);
            write_long(self.negative, &mut space, out);
            limbs.0.set(space);
        }
    }

    /// The number without sign and point, into limbs; those of no value are left out.
    fn fill(&self, limbs: &mut Vec<u64>) {
        limbs.clear();
        let mut flush = |factor: u64, chunk: u64| {
            let mut carry = chunk;
            for limb in &mut *limbs {
                (*limb, carry) = limb.carrying_mul(factor, carry);
            }
            if carry > 0 {
                limbs.push(carry);
            }
        };
        let (mut factor, mut chunk, mut count) = (1, 0, 0);
        for digit in self.iter() {
            chunk = chunk * 10 + digit;
            factor *= 10;
            count += 1;
            if count == CHUNK_DIGITS {
                flush(factor, chunk);
                (factor, chunk, count) = (1, 0, 0);
            }
        }
        if count > 0 {
            flush(factor, chunk);
        }
    }
}

fn write_short(negative: bool, magnitude: u128, out: &mut Vec<u8>) {
    // In two's complement, -n has the bits of n - 1, inverted.
    let negative = negative && magnitude > 0;
    let (bits, invert) = if negative { (magnitude - 1, 0xFF) } else { (magnitude, 0) };
    let length = significant_bytes(u128::BITS - bits.leading_zeros());
    let mut bytes = bits.to_be_bytes();
    for byte in &mut bytes {
        *byte ^= invert;
    }
    let start = bytes.len().saturating_sub(length);
    write_bytes(bytes.get(start..).unwrap_or_default(), BinaryMode::Bytes, out);
}

fn write_long(negative: bool, limbs: &mut [u64], out: &mut Vec<u8>) {
    let negative = negative && limbs.iter().any(|&limb| limb > 0);
    let invert = if negative { 0xFF } else { 0 };
    if negative {
        for limb in limbs.iter_mut() {
            let (less, borrow) = limb.overflowing_sub(1);
            *limb = less;
            if !borrow {
                break;
            }
        }
    }
    // The top limb may have become zero.
    let top = limbs.iter().rposition(|&limb| limb > 0).unwrap_or(0);
    let top_bits = u64::BITS - limbs.get(top).map_or(u64::BITS, |limb| limb.leading_zeros());
    let bits = u32::try_from(top).unwrap_or(u32::MAX / 64) * u64::BITS + top_bits;
    let length = significant_bytes(bits);
    let byte = |at: usize| {
        // Counted from the least significant.
        let at = length - 1 - at;
        let limb = limbs.get(at / 8).copied().unwrap_or(0);
        limb.to_le_bytes()[at % 8] ^ invert
    };
    write_iter((0..length).map(byte), BinaryMode::Bytes, out);
}

/// Bytes of a number of so many bits with its sign.
fn significant_bytes(bits: u32) -> usize {
    usize::try_from(bits / 8 + 1).unwrap_or(usize::MAX)
}

/// A numeric of fixed scale.
pub(super) fn write_decimal(
    wire: &[u8],
    scale: i32,
    limbs: &Limbs,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let scaled = digits("numeric", wire)?.scaled(scale).ok_or(ValueError {
        type_name: "numeric",
        offset: wire.len(),
        expected: "no more digits than the column's scale",
    })?;
    scaled.write(limbs, out);
    Ok(())
}

/// A numeric that has a scale of its own in each row: zeros at the fraction's end do not count.
pub(super) fn write_variable_scale(
    wire: &[u8],
    limbs: &Limbs,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    let mut digits = digits("numeric", wire)?;
    while let Some((b'0', rest)) = digits.fraction.split_last() {
        digits.fraction = rest;
    }
    out.extend_from_slice(b"{\"scale\":");
    out.extend_from_slice(itoa::Buffer::new().format(digits.fraction.len()).as_bytes());
    out.extend_from_slice(b",\"value\":");
    digits.write(limbs, out);
    out.push(b'}');
    Ok(())
}

/// A numeric as Debezium's `string` mode has it: Java's names for what is no number.
pub(super) fn write_string(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let special: &[u8] = match wire {
        b"NaN" => b"\"NAN\"",
        b"Infinity" => b"\"POSITIVE_INFINITY\"",
        b"-Infinity" => b"\"NEGATIVE_INFINITY\"",
        _ => return super::number::write_numeric(wire, out),
    };
    out.extend_from_slice(special);
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use num_bigint::BigInt;
    use proptest::prelude::*;

    use super::*;

    fn decimal(wire: &str, scale: i32) -> Result<String, usize> {
        let mut out = Vec::new();
        write_decimal(wire.as_bytes(), scale, &Limbs::default(), &mut out)
            .map_err(|error| error.offset)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn variable(wire: &str) -> Result<String, usize> {
        let mut out = Vec::new();
        write_variable_scale(wire.as_bytes(), &Limbs::default(), &mut out)
            .map_err(|error| error.offset)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn quoted(unscaled: &str) -> String {
        let number: BigInt = unscaled.parse().unwrap();
        format!("\"{}\"", STANDARD.encode(number.to_signed_bytes_be()))
    }

    #[test]
    fn decimals_are_the_bytes_of_javas_big_integer() {
        for (wire, scale, base64) in [
            ("16.52", 2, "\"BnQ=\""),
            ("0.00", 2, "\"AA==\""),
            ("1.27", 2, "\"fw==\""),
            ("1.28", 2, "\"AIA=\""),
            ("-1.28", 2, "\"gA==\""),
            ("-1.29", 2, "\"/38=\""),
            ("-0.01", 2, "\"/w==\""),
            ("5", 2, "\"AfQ=\""),
            ("1200", -2, "\"DA==\""),
            ("0", -2, "\"AA==\""),
        ] {
            assert_eq!(decimal(wire, scale).as_deref(), Ok(base64), "{wire}");
        }
    }

    #[test]
    fn a_scale_of_its_own_leaves_out_zeros_at_the_end() {
        for (wire, json) in [
            ("2.5", "{\"scale\":1,\"value\":\"GQ==\"}"),
            ("2.500", "{\"scale\":1,\"value\":\"GQ==\"}"),
            ("100", "{\"scale\":0,\"value\":\"ZA==\"}"),
            ("0.000", "{\"scale\":0,\"value\":\"AA==\"}"),
            ("-0.001", "{\"scale\":3,\"value\":\"/w==\"}"),
        ] {
            assert_eq!(variable(wire).as_deref(), Ok(json), "{wire}");
        }
    }

    #[test]
    fn what_is_no_finite_number_or_does_not_fit_is_refused_by_place() {
        for (wire, offset) in
            [("NaN", 0), ("-Infinity", 1), ("", 0), ("-", 1), ("1.", 2), ("1e5", 1), (".5", 0)]
        {
            assert_eq!(decimal(wire, 2), Err(offset), "{wire}");
            assert_eq!(variable(wire), Err(offset), "{wire}");
        }
        assert_eq!(decimal("1.234", 2), Err(5));
        assert_eq!(decimal("1250", -2), Err(4));
        assert_eq!(decimal("1.230", 2), Ok(quoted("123")));
    }

    #[test]
    fn text_mode_has_javas_names_for_what_is_no_number() {
        for (wire, json) in [
            ("16.50", "\"16.50\""),
            ("NaN", "\"NAN\""),
            ("Infinity", "\"POSITIVE_INFINITY\""),
            ("-Infinity", "\"NEGATIVE_INFINITY\""),
        ] {
            let mut out = Vec::new();
            write_string(wire.as_bytes(), &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), json);
        }
    }

    #[test]
    fn numbers_next_to_powers_of_two_keep_their_sign() {
        let mut power = BigInt::from(1);
        for _ in 0..300 {
            for number in [&power - 1, power.clone(), &power + 1] {
                for number in [number.clone(), -number] {
                    let text = number.to_string();
                    assert_eq!(decimal(&text, 0), Ok(quoted(&text)), "{text}");
                }
            }
            power *= 2;
        }
    }

    proptest! {
        #[test]
        fn any_number_is_what_an_independent_model_makes_of_it(
            text in "-?(0|[1-9][0-9]{0,200})(\\.[0-9]{1,60})?",
        ) {
            let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
            let scale = i32::try_from(fraction.len()).unwrap();
            prop_assert_eq!(decimal(&text, scale), Ok(quoted(&text.replace('.', ""))));
        }

        #[test]
        fn any_bytes_are_a_number_or_an_error(wire: Vec<u8>) {
            let mut out = Vec::new();
            let limbs = Limbs::default();
            if write_decimal(&wire, 2, &limbs, &mut out).is_ok() {
                serde_json::from_slice::<String>(&out).unwrap();
            }
            out.clear();
            if write_variable_scale(&wire, &limbs, &mut out).is_ok() {
                serde_json::from_slice::<serde_json::Value>(&out).unwrap();
            }
        }
    }
}
