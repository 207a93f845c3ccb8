//! Points, and the shapes of PostGIS, as Debezium writes them.
//!
//! `point` is an object of its coordinates with their WKB; `geometry` and `geography` are one of
//! the bytes that PostGIS prints in hexadecimal (EWKB, the flag of its SRID included) and the SRID
//! read from them. Debezium 3.6 has no form for `box`, `circle`, `line`, `lseg`, `path` and
//! `polygon`: they are text.

use super::ValueError;
use super::bytea::{byte_of, write_bytes, write_hex_digits};
use super::float::write_java;
use super::scan::Scanner;
use crate::config::BinaryMode;

/// Little-endian WKB of a point, before its coordinates.
const WKB_POINT: [u8; 5] = [1, 1, 0, 0, 0];

/// An empty collection of shapes, in EWKB: what stands for none.
pub(super) const EMPTY_GEOMETRY: &[u8] = b"010700000000000000";

pub(super) fn write_point(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    const EXPECTED: &str = "a point as (x,y)";
    let mut text = Scanner::new("point", wire);
    text.expect(b'(', EXPECTED)?;
    let x = coordinate(&mut text)?;
    text.expect(b',', EXPECTED)?;
    let y = coordinate(&mut text)?;
    text.expect(b')', EXPECTED)?;
    text.end()?;
    write_coordinates(x, y, out);
    Ok(())
}

fn coordinate(text: &mut Scanner<'_>) -> Result<f64, ValueError> {
    let start = *text;
    let number = text.decimal("a coordinate")?;
    number.parse().map_err(|_| start.error("a coordinate"))
}

/// Appends the object of a point.
pub(super) fn write_coordinates(x: f64, y: f64, out: &mut Vec<u8>) {
    let mut wkb = [0; 21];
    let parts = WKB_POINT.into_iter().chain(x.to_le_bytes()).chain(y.to_le_bytes());
    for (place, byte) in wkb.iter_mut().zip(parts) {
        *place = byte;
    }
    out.extend_from_slice(b"{\"x\":");
    write_java(x, out);
    out.extend_from_slice(b",\"y\":");
    write_java(y, out);
    out.extend_from_slice(b",\"wkb\":");
    write_bytes(&wkb, BinaryMode::Bytes, out);
    out.extend_from_slice(b",\"srid\":null}");
}

pub(super) fn write_geometry(wire: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let srid = srid(wire)?;
    out.extend_from_slice(b"{\"wkb\":");
    write_hex_digits("geometry", 0, wire, BinaryMode::Bytes, out)?;
    out.extend_from_slice(b",\"srid\":");
    match srid {
        Some(srid) => out.extend_from_slice(itoa::Buffer::new().format(srid).as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    Ok(())
}

/// The SRID, which follows the type if the type has the flag for it.
fn srid(wire: &[u8]) -> Result<Option<i32>, ValueError> {
    const HAS_SRID: u32 = 0x2000_0000;
    let error =
        |offset| ValueError { type_name: "geometry", offset, expected: "EWKB in hexadecimal" };
    let (pairs, _) = wire.as_chunks::<2>();
    let Some(head) = pairs.first_chunk::<9>() else { return Err(error(wire.len())) };
    let mut bytes = [0; 9];
    for (at, (place, pair)) in bytes.iter_mut().zip(head).enumerate() {
        *place = byte_of(*pair).ok_or_else(|| error(2 * at))?;
    }
    let [order, t1, t2, t3, t4, s1, s2, s3, s4] = bytes;
    let (kind, srid) = if order == 0 {
        (u32::from_be_bytes([t1, t2, t3, t4]), i32::from_be_bytes([s1, s2, s3, s4]))
    } else {
        (u32::from_le_bytes([t1, t2, t3, t4]), i32::from_le_bytes([s1, s2, s3, s4]))
    };
    Ok((kind & HAS_SRID != 0).then_some(srid))
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

    #[test]
    fn a_point_has_its_coordinates_and_their_wkb() {
        assert_eq!(
            written(write_point, "(1,2.5)").as_deref(),
            Ok("{\"x\":1.0,\"y\":2.5,\"wkb\":\"AQEAAAAAAAAAAADwPwAAAAAAAARA\",\"srid\":null}")
        );
        let far = written(write_point, "(1e+20,Infinity)").unwrap();
        assert!(far.starts_with("{\"x\":1.0E20,\"y\":\"Infinity\","), "{far}");
        for (wire, offset) in [("", 0), ("1,2", 0), ("(1;2)", 2), ("(1,2", 4), ("(1,2)x", 5)] {
            assert_eq!(written(write_point, wire), Err(offset), "{wire}");
        }
    }

    #[test]
    fn a_geometry_has_its_bytes_and_their_srid() {
        // ST_SetSRID(ST_MakePoint(174.9479, -36.7208), 3187)
        assert_eq!(
            written(write_geometry, "0101000020730C00001C7C613255DE6540787AA52C435C42C0")
                .as_deref(),
            Ok("{\"wkb\":\"AQEAACBzDAAAHHxhMlXeZUB4eqUsQ1xCwA==\",\"srid\":3187}")
        );
        assert_eq!(
            written(write_geometry, "010700000000000000").as_deref(),
            Ok("{\"wkb\":\"AQcAAAAAAAAA\",\"srid\":null}")
        );
        // Big-endian.
        assert_eq!(
            written(write_geometry, "0020000001000010E63FF00000000000004000000000000000")
                .map(|json| json.contains("\"srid\":4326")),
            Ok(true)
        );
        for (wire, offset) in
            [("", 0), ("0107", 4), ("0107000000000000zz", 16), ("0107000000000000000", 19)]
        {
            assert_eq!(written(write_geometry, wire), Err(offset), "{wire}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(point in "\\(?[-0-9.,eN]{0,20}\\)?", hex in "[0-9A-Fx]{0,40}") {
            for (write, wire) in [(write_point as Write, point), (write_geometry, hex)] {
                if let Ok(json) = written(write, &wire) {
                    serde_json::from_str::<serde_json::Value>(&json).unwrap();
                }
            }
        }
    }
}
