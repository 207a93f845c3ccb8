//! Numbers of the metadata, as decimal digits. Numbers of rows are for `types` to write.

/// A number.
#[inline]
pub(super) fn write_number(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Microseconds, then `name`, then the same as nanoseconds: zeros behind the same digits.
#[inline]
pub(super) fn write_micros_and_nanos(time_us: i64, name: &[u8], out: &mut Vec<u8>) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(time_us).as_bytes();
    out.extend_from_slice(digits);
    out.extend_from_slice(name);
    out.extend_from_slice(digits);
    if time_us != 0 {
        out.extend_from_slice(b"000");
    }
}
