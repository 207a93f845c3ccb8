//! One event as one JSON object on one line, for programs.
//!
//! ```text
//! {"topic":"rides","partition":1,"offset":42,"timestamp_ms":1767610800123,"key":{"ride_id":7},"value":{...},"headers":[["a","1"]]}
//! ```
//!
//! A key, value or header that is JSON is nested byte for byte, so numbers keep all their digits;
//! other text is a JSON string; bytes that are no text are `{"base64":"..."}`. A header's value is
//! always text (or base64), for headers carry no type. Names may repeat, so headers are a list.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;

use super::follow::Event;

/// The object, without the line's end.
#[must_use]
pub fn json(event: &Event) -> String {
    let mut out = String::from("{\"topic\":");
    quote(&event.topic, &mut out);
    out.push_str(&format!(",\"partition\":{},\"offset\":{}", event.partition, event.offset));
    out.push_str(",\"timestamp_ms\":");
    out.push_str(&event.timestamp_ms.map_or_else(|| "null".to_owned(), |ms| ms.to_string()));
    out.push_str(",\"key\":");
    nested(event.key.as_deref(), &mut out);
    out.push_str(",\"value\":");
    nested(event.value.as_deref(), &mut out);
    out.push_str(",\"headers\":[");
    for (at, (name, value)) in event.headers.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push('[');
        quote(name, &mut out);
        out.push(',');
        text(value.as_deref(), &mut out);
        out.push(']');
    }
    out.push_str("]}");
    out
}

fn nested(bytes: Option<&[u8]>, out: &mut String) {
    let as_json = bytes
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    match as_json {
        // Line ends within JSON are white space, never part of a string.
        Some(json) => out.extend(json.trim().chars().map(|c| if c.is_control() { ' ' } else { c })),
        None => text(bytes, out),
    }
}

fn text(bytes: Option<&[u8]>, out: &mut String) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => out.push_str("null"),
        Some((_, Ok(text))) => quote(text, out),
        Some((bytes, Err(_))) => {
            out.push_str("{\"base64\":\"");
            out.push_str(&STANDARD.encode(bytes));
            out.push_str("\"}");
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_nested_digit_for_digit_and_the_rest_is_text() {
        let event = Event {
            topic: "a\"b".to_owned(),
            partition: 0,
            offset: 1,
            timestamp_ms: None,
            key: Some(b"k 1".to_vec()),
            value: Some(b"{\n \"n\": 1.50000000000000000001\n}".to_vec()),
            headers: vec![
                ("h".to_owned(), Some(b"1".to_vec())),
                ("h".to_owned(), None),
                ("x".to_owned(), Some(vec![0xFF])),
            ],
        };
        let shown = json(&event);
        assert_eq!(
            shown,
            r#"{"topic":"a\"b","partition":0,"offset":1,"timestamp_ms":null,"key":"k 1","value":{  "n": 1.50000000000000000001 },"headers":[["h","1"],["h",null],["x",{"base64":"/w=="}]]}"#
        );
        assert!(serde_json::from_str::<IgnoredAny>(&shown).is_ok());
    }

    #[test]
    fn a_tombstone_has_no_value() {
        let event = Event {
            topic: "t".to_owned(),
            partition: 0,
            offset: 1,
            timestamp_ms: Some(5),
            key: None,
            value: None,
            headers: Vec::new(),
        };
        assert_eq!(
            json(&event),
            r#"{"topic":"t","partition":0,"offset":1,"timestamp_ms":5,"key":null,"value":null,"headers":[]}"#
        );
    }
}
