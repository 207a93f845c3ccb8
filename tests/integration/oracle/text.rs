//! The text that a JSON value of an event stands for, as a consumer would make it to put the value
//! into a database again.

use base64::Engine as _;
use serde_json::value::RawValue;

use super::values::{Form, Scalar};

/// The text of a value of `scalar`, or of an array of it; `None` is NULL.
pub(super) fn text_of(json: &RawValue, scalar: &Scalar, is_array: bool) -> Option<String> {
    if json.get() == "null" {
        return None;
    }
    // A type that has no codec as an array is its text.
    if is_array && json.get().starts_with('[') {
        return Some(array(json, scalar));
    }
    if is_array { string(json) } else { Some(of_scalar(json, scalar.form)) }
}

fn string(json: &RawValue) -> Option<String> {
    serde_json::from_str::<String>(json.get()).ok()
}

fn of_scalar(json: &RawValue, form: Form) -> String {
    // Kept to the digit; a number or a boolean is its own text.
    let text = string(json).unwrap_or_else(|| json.get().to_owned());
    match form {
        Form::Plain => text,
        Form::Json => json.get().to_owned(),
        Form::Bytea => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(&text).expect("base64");
            bytes.iter().fold("\\x".to_owned(), |hex, byte| hex + &format!("{byte:02x}"))
        }
        Form::Date => date(&text),
        Form::Vector => text.replace(['[', ']'], "").replace(',', " "),
    }
}

/// Postgres has no year 0 and takes no sign.
fn date(iso: &str) -> String {
    let (sign, digits) = match iso.as_bytes() {
        [b'-', b'0'..=b'9', ..] => (-1, &iso[1..]),
        [b'+', ..] => (1, &iso[1..]),
        _ => (1, iso),
    };
    let Some((year, rest)) = digits.split_once('-').filter(|(year, _)| !year.is_empty()) else {
        return iso.to_owned();
    };
    let Ok(year) = year.parse::<i64>() else { return iso.to_owned() };
    match year * sign {
        year @ 1.. => format!("{year:04}-{rest}"),
        year => format!("{:04}-{rest} BC", 1 - year),
    }
}

fn array(json: &RawValue, scalar: &Scalar) -> String {
    let elements: Vec<Box<RawValue>> = serde_json::from_str(json.get()).expect("an array");
    let element = |json: &RawValue| match json.get().as_bytes() {
        b"null" => "NULL".to_owned(),
        // Where values are arrays themselves there is one dimension.
        [b'[', ..] if !scalar.nests() => array(json, scalar),
        _ => {
            let text = of_scalar(json, scalar.form);
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }
    };
    let elements: Vec<String> = elements.iter().map(|json| element(json)).collect();
    format!("{{{}}}", elements.join(&scalar.delimiter.to_string()))
}
