//! bit and varbit as Debezium writes them: a single bit as a boolean, more as bytes in base64.
//!
//! The last bit is the lowest, the first byte holds the eight lowest bits, and there are as many
//! bytes as the highest bit that is set needs: `bit(16)` of `0000000000000101` is one byte, 05, and
//! of zeros none.

use super::ValueError;
use super::bytea::write_iter;
use crate::config::BinaryMode;

pub(super) fn write_boolean(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let text: &[u8] = match wire {
        b"0" => b"false",
        b"1" => b"true",
        // Of varbit(1) alone: neither of the two, and null in Debezium's events too.
        b"" => b"null",
        _ => return Err(ValueError { type_name: "bit", offset: 0, expected: "0 or 1" }),
    };
    out.extend_from_slice(text);
    Ok(())
}

pub(super) fn write_bytes(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    if let Some(offset) = wire.iter().position(|bit| !matches!(bit, b'0' | b'1')) {
        return Err(ValueError { type_name: "bit", offset, expected: "0 or 1" });
    }
    let highest = wire.iter().position(|&bit| bit == b'1').unwrap_or(wire.len());
    let significant = wire.split_at(highest).1;
    let bytes = significant
        .rchunks(8)
        .map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | (bit - b'0')));
    write_iter(bytes, BinaryMode::Bytes, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn bytes(wire: &str) -> Result<String, usize> {
        let mut out = Vec::new();
        write_bytes(wire.as_bytes(), &mut out).map_err(|error| error.offset)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_lowest_bits_come_first_and_zeros_above_are_left_out() {
        for (wire, base64) in [
            ("", "\"\""),
            ("00", "\"\""),
            ("11", "\"Aw==\""),
            ("101", "\"BQ==\""),
            ("0000000000000101", "\"BQ==\""),
            ("100000001", "\"AQE=\""),
        ] {
            assert_eq!(bytes(wire).as_deref(), Ok(base64), "{wire}");
        }
        assert_eq!(bytes("012"), Err(2));
    }

    #[test]
    fn a_single_bit_is_a_boolean() {
        let mut out = Vec::new();
        write_boolean(b"1", &mut out).unwrap();
        write_boolean(b"0", &mut out).unwrap();
        write_boolean(b"", &mut out).unwrap();
        assert_eq!(out, b"truefalsenull");
        for wire in [b"2".as_slice(), b"10", b"t"] {
            assert_eq!(write_boolean(wire, &mut out).unwrap_err().offset, 0);
        }
    }

    proptest! {
        #[test]
        fn any_bits_are_the_little_endian_bytes_of_their_number(number: u128, zeros in 0_usize..40) {
            let mut little = number.to_le_bytes().to_vec();
            while little.last() == Some(&0) {
                little.pop();
            }
            let wire = format!("{}{number:b}", "0".repeat(zeros));
            prop_assert_eq!(bytes(&wire), Ok(format!("\"{}\"", STANDARD.encode(little))));
        }
    }
}
