//! JSON as it was written: the order of fields and the digits of numbers are kept.
//!
//! What both sides publish is compared after parsing, so the spelling of a string's escapes and of
//! a float's exponent does not count; all else does.

use std::fmt;

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// The digits as they were written.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// # Panics
    ///
    /// When this is no JSON.
    pub(crate) fn parse(text: &str) -> Self {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value();
        parser.blanks();
        assert_eq!(parser.at, text.len(), "nothing after the value: {text}");
        value
    }

    /// The field of an object.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        let Self::Object(fields) = self else { return None };
        fields.iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    /// The field of an object, to be changed.
    pub(crate) fn field_mut(&mut self, name: &str) -> Option<&mut Self> {
        let Self::Object(fields) = self else { return None };
        fields.iter_mut().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    /// The field of a field.
    pub(crate) fn path(&self, names: &[&str]) -> Option<&Self> {
        names.iter().try_fold(self, |json, name| json.field(name))
    }

    /// The item of an array.
    pub(crate) fn item(&self, place: usize) -> Option<&Self> {
        let Self::Array(items) = self else { return None };
        items.get(place)
    }

    /// The item of an array, to be changed.
    pub(crate) fn item_mut(&mut self, place: usize) -> Option<&mut Self> {
        let Self::Array(items) = self else { return None };
        items.get_mut(place)
    }

    /// The first item of an array with this text in this field.
    pub(crate) fn find(&self, name: &str, text: &str) -> Option<&Self> {
        let Self::Array(items) = self else { return None };
        items.iter().find(|item| matches!(item.field(name), Some(Self::Text(own)) if own == text))
    }

    /// Says for each place where this and `found` differ what is there, under its path.
    pub(crate) fn differences(&self, found: &Self, path: &str, out: &mut Vec<String>) {
        match (self, found) {
            (Self::Object(own), Self::Object(other)) => {
                for (name, value) in own {
                    match found.field(name) {
                        Some(found) => value.differences(found, &format!("{path}.{name}"), out),
                        None => out.push(format!("{path}.{name}: not there, expected {value}")),
                    }
                }
                for (name, value) in other.iter().filter(|(name, _)| self.field(name).is_none()) {
                    out.push(format!("{path}.{name}: not expected, found {value}"));
                }
                let names = |fields: &[(String, Self)]| {
                    fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
                };
                if own.len() == other.len() && names(own) != names(other) {
                    out.push(format!("{path}: fields in another order: {:?}", names(other)));
                }
            }
            (Self::Array(own), Self::Array(other)) if own.len() == other.len() => {
                for (place, (own, other)) in own.iter().zip(other).enumerate() {
                    own.differences(other, &format!("{path}[{place}]"), out);
                }
            }
            _ if self == found => {}
            _ => out.push(format!("{path}: expected {self}, found {found}")),
        }
    }

    /// Changes every string in it.
    pub(crate) fn change_texts(&mut self, change: &impl Fn(&mut String)) {
        match self {
            Self::Text(text) => change(text),
            Self::Array(items) => items.iter_mut().for_each(|item| item.change_texts(change)),
            Self::Object(fields) => {
                fields.iter_mut().for_each(|(_, value)| value.change_texts(change));
            }
            Self::Null | Self::Bool(_) | Self::Number(_) => {}
        }
    }
}

/// `1.0E10` and `1e10` are one number; `1.0` and `1` are not: one is a float to its readers.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => {
                let is_float = |digits: &str| digits.contains(['.', 'e', 'E']);
                let same = || a.parse::<f64>() == b.parse::<f64>();
                a == b || (is_float(a) && is_float(b) && same())
            }
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(digits) => f.write_str(digits),
            Self::Text(text) => write_text(text, f),
            Self::Array(items) => {
                f.write_str("[")?;
                for (place, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if place > 0 { "," } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Object(fields) => {
                f.write_str("{")?;
                for (place, (name, value)) in fields.iter().enumerate() {
                    f.write_str(if place > 0 { "," } else { "" })?;
                    write_text(name, f)?;
                    write!(f, ":{value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_ascii_start().len();
    }

    fn takes(&mut self, token: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn value(&mut self) -> Json {
        if self.takes("null") {
            Json::Null
        } else if self.takes("true") {
            Json::Bool(true)
        } else if self.takes("false") {
            Json::Bool(false)
        } else if self.rest().starts_with('"') {
            Json::Text(self.string())
        } else if self.takes("[") {
            Json::Array(self.list("]", Self::value))
        } else if self.takes("{") {
            Json::Object(self.list("}", |parser| {
                parser.blanks();
                let name = parser.string();
                assert!(parser.takes(":"), "a colon at byte {}: {}", parser.at, parser.text);
                (name, parser.value())
            }))
        } else {
            Json::Number(self.number())
        }
    }

    fn list<T>(&mut self, end: &str, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        if self.takes(end) {
            return items;
        }
        loop {
            items.push(item(self));
            if self.takes(end) {
                return items;
            }
            assert!(self.takes(","), "a comma at byte {}: {}", self.at, self.text);
        }
    }

    /// serde_json knows the escapes.
    fn string(&mut self) -> String {
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<String>();
        let string = values.next().expect("a string").expect("a string in JSON");
        let length = values.byte_offset();
        self.at += length;
        string
    }

    fn number(&mut self) -> String {
        let digits: String = {
            let of_number = |c: &char| c.is_ascii_digit() || "+-.eE".contains(*c);
            self.rest().chars().take_while(of_number).collect()
        };
        assert!(digits.parse::<f64>().is_ok(), "a number at byte {}: {}", self.at, self.text);
        self.at += digits.len();
        digits
    }
}
