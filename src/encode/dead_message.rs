//! The record of a logical message that can't be published.
//!
//! As that of a row (`dead_letter`): the position of the message, what is wrong with it, and its
//! content unless that is too large. A prefix that is too long for a key is given by its length.

use std::convert::Infallible;

use super::dead_letter::{HEADER_ERROR, KEY_BYTES_MAX, place, place_headers, text_header};
use super::digits::write_number;
use super::error::EncodeError;
use super::records::{Record, Records};
use super::schema::Head;
use crate::change::Change;
use crate::config::BinaryMode;
use crate::types::{write_bytes, write_string};

/// Writes the record of a message that `error` kept from being published. `head` goes in front of its
/// key.
pub(super) fn write(
    change: &Change<'_>,
    (prefix, content): (&[u8], &[u8]),
    error: &EncodeError,
    (head, with_content): (&Head, bool),
    out: &mut Records,
) {
    let short = std::str::from_utf8(prefix).ok().filter(|prefix| prefix.len() <= KEY_BYTES_MAX);
    let key = short.map(|prefix| {
        let Ok(()) = head.around(&mut out.buffer, |out| {
            out.extend_from_slice(b"{\"prefix\":");
            write_string(prefix, out);
            out.push(b'}');
            Ok::<(), Infallible>(())
        });
        0..out.buffer.len()
    });
    let reason = error.to_string();
    let start = out.buffer.len();
    value(
        change,
        (prefix, short),
        (error, &reason),
        with_content.then_some(content),
        &mut out.buffer,
    );
    if !with_content {
        out.buffer.extend_from_slice(b",\"content_bytes\":");
        write_number(content.len(), &mut out.buffer);
    }
    out.buffer.push(b'}');
    let value = Some(start..out.buffer.len());
    text_header(HEADER_ERROR, &reason, out);
    place_headers(change, out);
    out.records.push(Record { key, value, headers: 0..out.headers.len() });
}

/// The value without its end.
fn value(
    change: &Change<'_>,
    (prefix, short): (&[u8], Option<&str>),
    (error, reason): (&EncodeError, &str),
    content: Option<&[u8]>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"{\"error\":");
    write_string(reason, out);
    out.extend_from_slice(b",\"schema\":null,\"table\":null");
    place(change, out);
    if let EncodeError::MessageTooLarge { bytes, limit, .. } = error {
        for (name, number) in [(",\"bytes\":", *bytes), (",\"limit\":", *limit)] {
            out.extend_from_slice(name.as_bytes());
            write_number(number, out);
        }
    }
    match short {
        Some(prefix) => {
            out.extend_from_slice(b",\"prefix\":");
            write_string(prefix, out);
        }
        None if prefix.len() <= KEY_BYTES_MAX => {
            out.extend_from_slice(b",\"prefix\":");
            base64(prefix, out);
        }
        None => {
            out.extend_from_slice(b",\"prefix_bytes\":");
            write_number(prefix.len(), out);
        }
    }
    if let Some(content) = content {
        out.extend_from_slice(b",\"content\":");
        base64(content, out);
    }
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"base64\":");
    write_bytes(bytes, BinaryMode::Base64, out);
    out.push(b'}');
}
