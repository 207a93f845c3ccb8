//! One event as one line for people.
//!
//! ```text
//! 18:04:05.123 rides[1]@42 {"ride_id":7} update status requested→in_progress driver_id null→17
//! ```
//!
//! Colours show the operation; the line is cut at the terminal's width, never in the middle of a
//! character. Control characters are escaped: what a record holds must not steer the terminal.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::envelope::{Content, Envelope, Row, content};
use super::follow::Event;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// With ANSI colours.
    pub color: bool,
    /// Cut to so many columns. `None`: whole.
    pub width: Option<usize>,
}

const DIM: Style = Style::new().dimmed();
const KEY: Style = AnsiColor::Cyan.on_default();
const CREATE: Style = AnsiColor::Green.on_default().bold();
const UPDATE: Style = AnsiColor::Yellow.on_default().bold();
const DELETE: Style = AnsiColor::Red.on_default().bold();
const OTHER: Style = AnsiColor::Magenta.on_default().bold();
const PLAIN: Style = Style::new();

/// The line, without its end.
#[must_use]
pub fn line(event: &Event, look: Look) -> String {
    let mut pieces = vec![
        (DIM, time(event.timestamp_ms)),
        (DIM, format!("{}[{}]@{}", escaped(&event.topic), event.partition, event.offset)),
        (KEY, event.key.as_deref().map_or_else(|| "-".to_owned(), raw)),
    ];
    match event.value.as_deref() {
        None => pieces.push((DELETE, "tombstone".to_owned())),
        Some(value) => describe(value, &mut pieces),
    }
    for (name, value) in &event.headers {
        let value = value.as_deref().map_or_else(|| "null".to_owned(), raw);
        pieces.push((DIM, format!("{}:{value}", escaped(name))));
    }
    join(&pieces, look)
}

fn describe(value: &[u8], pieces: &mut Vec<(Style, String)>) {
    match content(value) {
        Content::Change(envelope) => change(&envelope, pieces),
        Content::Object(row) => columns(&row, pieces),
        Content::Json(_) | Content::Text(_) | Content::Bytes(_) => {
            pieces.push((PLAIN, raw(value)));
        }
    }
}

fn change(envelope: &Envelope, pieces: &mut Vec<(Style, String)>) {
    let (style, word) = match envelope.op.as_str() {
        "c" => (CREATE, "create"),
        "r" => (CREATE, "read"),
        "u" => (UPDATE, "update"),
        "d" => (DELETE, "delete"),
        "t" => (DELETE, "truncate"),
        "m" => (OTHER, "message"),
        other => (OTHER, other),
    };
    pieces.push((style, escaped(word)));
    match (&envelope.before, &envelope.after) {
        (Some(before), Some(after)) => differences(before, after, pieces),
        (Some(row), None) | (None, Some(row)) => columns(row, pieces),
        (None, None) => {}
    }
}

/// What an update changed; the whole row when the row before is not wholly known.
fn differences(before: &Row, after: &Row, pieces: &mut Vec<(Style, String)>) {
    if after.0.iter().any(|(name, _)| before.column(name).is_none()) {
        return columns(after, pieces);
    }
    for (name, new) in &after.0 {
        if let Some(old) = before.column(name).filter(|old| *old != new) {
            let text = format!("{} {}→{}", escaped(name), short(old), short(new));
            pieces.push((PLAIN, text));
        }
    }
}

fn columns(row: &Row, pieces: &mut Vec<(Style, String)>) {
    for (name, value) in row.0.iter().filter(|(_, value)| !value.is_null()) {
        pieces.push((PLAIN, format!("{}={}", escaped(name), short(value))));
    }
}

/// A value as short as it stays clear: text without quotes where it is one word.
fn short(value: &Value) -> String {
    match value {
        Value::String(text)
            if !text.is_empty()
                && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"') =>
        {
            text.clone()
        }
        other => other.to_string(),
    }
}

/// Bytes as text where they are text.
fn raw(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok("") => "\"\"".to_owned(),
        Ok(text) => escaped(text),
        Err(_) => format!("base64:{}", STANDARD.encode(bytes)),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Time of day, in UTC, to the millisecond.
fn time(timestamp_ms: Option<i64>) -> String {
    timestamp_ms
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| "--:--:--.---".to_owned(), |at| at.strftime("%H:%M:%S%.3f").to_string())
}

/// The pieces with spaces between, coloured, cut to the width.
fn join(pieces: &[(Style, String)], look: Look) -> String {
    let width = look.width.unwrap_or(usize::MAX);
    let total = pieces.iter().map(|(_, text)| columns_of(text)).sum::<usize>() + pieces.len() - 1;
    // One column is kept for the mark that says something is cut off.
    let mut left = if total > width { width.saturating_sub(1) } else { width };
    let mut out = String::new();
    for (at, (style, text)) in pieces.iter().enumerate() {
        if at > 0 && left > 0 {
            out.push(' ');
            left -= 1;
        }
        let part = cut(text, left);
        left -= columns_of(part);
        if look.color && *style != PLAIN && !part.is_empty() {
            let _ = write!(out, "{style}{part}{style:#}");
        } else {
            out.push_str(part);
        }
        if part.len() < text.len() {
            break;
        }
    }
    if total > width && width > 0 {
        out.push('…');
    }
    out
}

/// The longest start of `text` that takes at most `width` columns.
fn cut(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += columns_of_char(c);
        if used > width {
            return &text[..at];
        }
    }
    text
}

fn columns_of(text: &str) -> usize {
    text.chars().map(columns_of_char).sum()
}

/// Columns a character takes in a terminal: two for East Asian and emoji, none for combining marks.
/// Only the blocks that are common in data; a rare one elsewhere makes a line a column longer.
fn columns_of_char(c: char) -> usize {
    match u32::from(c) {
        0x0300..=0x036F | 0x200B..=0x200F | 0xFE00..=0xFE0F => 0,
        0x1100..=0x115F
        | 0x2E80..=0x303E
        | 0x3041..=0xA4CF
        | 0xAC00..=0xD7A3
        | 0xF900..=0xFAFF
        | 0xFE30..=0xFE6F
        | 0xFF00..=0xFF60
        | 0xFFE0..=0xFFE6
        | 0x1F300..=0x1F64F
        | 0x1F680..=0x1FAFF
        | 0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(key: &str, value: Option<&[u8]>) -> Event {
        Event {
            topic: "rides".to_owned(),
            partition: 1,
            offset: 42,
            timestamp_ms: Some(1_767_610_800_123),
            key: Some(key.as_bytes().to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        }
    }

    fn plain(key: &str, value: &str) -> String {
        line(&event(key, Some(value.as_bytes())), Look::default())
    }

    #[test]
    fn a_create_shows_the_columns_in_their_order_without_nulls() {
        assert_eq!(
            plain(
                r#"{"ride_id":7}"#,
                r#"{"before":null,"after":{"ride_id":7,"vendor":"Curb Mobility","fare":"16.50","tip":null,"a":[1]},"op":"c"}"#
            ),
            r#"11:00:00.123 rides[1]@42 {"ride_id":7} create ride_id=7 vendor="Curb Mobility" fare=16.50 a=[1]"#
        );
    }

    #[test]
    fn an_update_shows_what_changed() {
        assert_eq!(
            plain(
                "7",
                r#"{"before":{"id":7,"s":"a","t":null},"after":{"id":7,"s":"b","t":"x y"},"op":"u"}"#
            ),
            r#"11:00:00.123 rides[1]@42 7 update s a→b t null→"x y""#
        );
    }

    #[test]
    fn an_update_whose_row_before_is_partly_known_shows_the_row_after() {
        assert_eq!(
            plain("7", r#"{"before":{"id":6},"after":{"id":7,"s":"b"},"op":"u"}"#),
            "11:00:00.123 rides[1]@42 7 update id=7 s=b"
        );
    }

    #[test]
    fn a_delete_shows_the_row_before_and_a_tombstone_is_named() {
        assert_eq!(
            plain("7", r#"{"before":{"id":7},"after":null,"op":"d"}"#),
            "11:00:00.123 rides[1]@42 7 delete id=7"
        );
        assert_eq!(
            line(&event("7", None), Look::default()),
            "11:00:00.123 rides[1]@42 7 tombstone"
        );
    }

    #[test]
    fn an_envelope_with_its_schema_is_understood() {
        assert_eq!(
            plain(
                "7",
                r#"{"schema":{"type":"struct"},"payload":{"before":null,"after":{"id":7},"op":"r"}}"#
            ),
            "11:00:00.123 rides[1]@42 7 read id=7"
        );
    }

    #[test]
    fn a_flat_row_text_and_bytes_are_shown_as_they_are() {
        assert_eq!(plain("7", r#"{"id":7,"b":true}"#), "11:00:00.123 rides[1]@42 7 id=7 b=true");
        assert_eq!(plain("7", "hello\nworld"), "11:00:00.123 rides[1]@42 7 hello\\nworld");
        assert_eq!(
            line(&event("7", Some(&[0xFF, 0x00])), Look::default()),
            "11:00:00.123 rides[1]@42 7 base64:/wA="
        );
    }

    #[test]
    fn no_record_can_steer_the_terminal() {
        let shown = plain("\u{1b}[2J", "{\"a\u{1b}\":1}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
        let shown = plain("k", "{\"op\":\"\\u001b[2J\",\"after\":{\"a\":\"\\u001b[2J\"}}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }

    #[test]
    fn headers_follow_the_value() {
        let mut with = event("7", Some(b"x"));
        with.headers = vec![("a".to_owned(), Some(b"1".to_vec())), ("b".to_owned(), None)];
        assert_eq!(line(&with, Look::default()), "11:00:00.123 rides[1]@42 7 x a:1 b:null");
    }

    #[test]
    fn a_line_is_cut_to_the_width_between_characters() {
        let event = event("7", Some("東京東京東京東京".as_bytes()));
        for width in 0..60 {
            let shown = line(&event, Look { color: false, width: Some(width) });
            assert!(columns_of(&shown) <= width, "{width}: {shown}");
        }
        assert_eq!(
            line(&event, Look { color: false, width: Some(32) }),
            "11:00:00.123 rides[1]@42 7 東京…"
        );
    }

    #[test]
    fn colours_add_no_columns_and_are_always_closed() {
        let event = event("7", Some(br#"{"op":"c","after":{"id":7}}"#));
        let shown = line(&event, Look { color: true, width: Some(20) });
        let visible = anstream::adapter::strip_str(&shown).to_string();
        assert_eq!(visible, line(&event, Look { color: false, width: Some(20) }));
        assert_eq!(shown.matches("\u{1b}[0m").count() * 2, shown.matches('\u{1b}').count());
    }
}
