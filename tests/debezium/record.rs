//! Records as they are compared: parsed, and without what differs from run to run.

use crate::json::Json;
use crate::support::consume::OwnedRecord;

/// A record of a topic.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) topic: String,
    /// Where it stands in its topic; compared by itself, as most topics have one.
    pub(crate) partition: i32,
    pub(crate) key: Option<Json>,
    pub(crate) value: Option<Json>,
    pub(crate) headers: Vec<(String, Option<String>)>,
}

/// What stands for the topic prefix.
const PREFIX: &str = "taxi";

impl Record {
    /// Parses a record; its topic prefix becomes `taxi`.
    pub(crate) fn new(record: &OwnedRecord, prefix: &str) -> Self {
        let rename = |text: &mut String| {
            let rest = text.strip_prefix(prefix);
            if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with('.')) {
                *text = format!("{PREFIX}{rest}");
            }
        };
        let parse = |bytes: &Vec<u8>| {
            let mut json = Json::parse(std::str::from_utf8(bytes).expect("UTF-8"));
            json.change_texts(&rename);
            json
        };
        let mut topic = record.topic.clone();
        rename(&mut topic);
        let headers = record.headers.iter().map(|(name, value)| {
            let value = value.as_deref().map(|bytes| {
                let mut text = String::from_utf8_lossy(bytes).into_owned();
                rename(&mut text);
                text
            });
            (name.clone(), value)
        });
        Self {
            topic,
            partition: record.partition,
            headers: headers.collect(),
            key: record.key.as_ref().map(parse),
            value: record.value.as_ref().map(parse),
        }
    }

    /// Takes out what two publishers of one server cannot agree on: clocks, versions, own ids.
    pub(crate) fn forget_publisher(&mut self) {
        for (name, value) in &mut self.headers {
            if name == "__debezium.context.runId" {
                *value = value.as_ref().map(|_| "run".to_owned());
            }
        }
        if let Some(event) = self.event_mut() {
            for name in ["ts_ms", "ts_us", "ts_ns"] {
                zero(event.field_mut(name));
            }
            let in_transaction = !matches!(event.path(&["source", "txId"]), Some(Json::Null));
            if let Some(source) = event.field_mut("source") {
                set_text(source.field_mut("version"), "version");
                // A message outside of a transaction has no time but that of its arrival.
                for name in ["ts_ms", "ts_us", "ts_ns"] {
                    if !in_transaction {
                        zero(source.field_mut(name));
                    }
                }
            }
        }
    }

    /// Takes out what differs between two runs: places in the WAL, transaction ids, times.
    pub(crate) fn forget_run(&mut self) {
        self.forget_publisher();
        if let Some(key) = &mut self.key {
            let key = match key.field("payload") {
                Some(_) => key.field_mut("payload").expect("just seen"),
                None => key,
            };
            if self.topic == format!("{PREFIX}.transaction") {
                set_text(key.field_mut("id"), "0:0");
            }
        }
        let Some(event) = self.event_mut() else { return };
        if event.field("status").is_some() {
            set_text(event.field_mut("id"), "0:0");
        }
        if let Some(Json::Array(collections)) = event.field_mut("data_collections") {
            // They come out of a hash table, and a message's name ends in an address.
            for collection in &mut *collections {
                if let Some(Json::Text(name)) = collection.field_mut("data_collection") {
                    name.truncate(name.find('@').unwrap_or(name.len()));
                }
            }
            collections.sort_by_key(ToString::to_string);
        }
        if let Some(transaction) = event.field_mut("transaction") {
            set_text(transaction.field_mut("id"), "0:0");
        }
        if let Some(source) = event.field_mut("source") {
            for name in ["ts_ms", "ts_us", "ts_ns", "txId", "lsn"] {
                zero(source.field_mut(name));
            }
            set_text(source.field_mut("db"), "db");
            if let Some(Json::Text(sequence)) = source.field_mut("sequence") {
                *sequence = without_digits(sequence);
            }
        }
    }

    /// Writes `"same"` for schemas that are those of the record before, as most are.
    pub(crate) fn shorten_schemas(&mut self, last: &Self) {
        if self.topic != last.topic {
            return;
        }
        let pairs = [(&mut self.key, &last.key), (&mut self.value, &last.value)];
        for (own, last) in pairs {
            let Some(schema) = own.as_mut().and_then(|json| json.field_mut("schema")) else {
                continue;
            };
            let last = last.as_ref().and_then(|json| json.field("schema"));
            if last.is_some_and(|last| last == schema) {
                *schema = Json::Text("same".to_owned());
            }
        }
    }

    /// Shortens long texts and lists, so that golden files stay readable.
    pub(crate) fn shorten_values(&mut self) {
        for json in [&mut self.key, &mut self.value].into_iter().flatten() {
            shorten(json);
        }
    }

    /// The whole record as JSON, as it stands in a golden file.
    pub(crate) fn to_json(&self) -> Json {
        let or_null = |json: &Option<Json>| json.clone().unwrap_or(Json::Null);
        let text = |text: &str| Json::Text(text.to_owned());
        let headers = self.headers.iter().map(|(name, value)| {
            Json::Array(vec![text(name), value.as_deref().map_or(Json::Null, text)])
        });
        Json::Object(vec![
            ("topic".to_owned(), text(&self.topic)),
            ("key".to_owned(), or_null(&self.key)),
            ("value".to_owned(), or_null(&self.value)),
            ("headers".to_owned(), Json::Array(headers.collect())),
        ])
    }

    /// Reads a line of a golden file.
    pub(crate) fn from_line(line: &str) -> Self {
        let json = Json::parse(line);
        let text = |json: &Json| match json {
            Json::Text(text) => Some(text.clone()),
            _ => None,
        };
        let or_none = |name: &str| json.field(name).filter(|json| **json != Json::Null).cloned();
        let Some(Json::Array(headers)) = json.field("headers") else { panic!("headers: {line}") };
        let header = |header: &Json| {
            let Json::Array(pair) = header else { panic!("a header: {line}") };
            (text(&pair[0]).expect("a name"), text(&pair[1]))
        };
        Self {
            topic: json.field("topic").and_then(text).expect("a topic"),
            partition: 0,
            key: or_none("key"),
            value: or_none("value"),
            headers: headers.iter().map(header).collect(),
        }
    }

    /// The event, inside of its schema or alone.
    pub(crate) fn event(&self) -> Option<&Json> {
        let value = self.value.as_ref()?;
        let is_inside = value.field("schema").is_some();
        value.field("payload").filter(|_| is_inside).or(Some(value))
    }

    /// The same, to be changed.
    pub(crate) fn event_mut(&mut self) -> Option<&mut Json> {
        let value = self.value.as_mut()?;
        if value.field("schema").is_some() && value.field("payload").is_some() {
            value.field_mut("payload")
        } else {
            Some(value)
        }
    }
}

fn zero(number: Option<&mut Json>) {
    if let Some(Json::Number(digits)) = number {
        "0".clone_into(digits);
    }
}

fn set_text(text: Option<&mut Json>, to: &str) {
    if let Some(Json::Text(text)) = text {
        to.clone_into(text);
    }
}

/// `["24023119","24023128"]` becomes `["0","0"]`: which of them are null stays to be seen.
fn without_digits(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars() {
        if !c.is_ascii_digit() {
            short.push(c);
        } else if !short.ends_with('0') {
            short.push('0');
        }
    }
    short
}

/// A long text becomes its beginning, length and hash; a long list of one and the same, its item
/// and length.
fn shorten(json: &mut Json) {
    const LONG: usize = 200;
    match json {
        Json::Text(text) if text.len() > LONG => {
            let start: String = text.chars().take(20).collect();
            *text = format!("{start}... ({} bytes, {:08x})", text.len(), hash(text.as_bytes()));
        }
        Json::Array(items) if items.len() > LONG / 2 => {
            let length = items.len();
            items.iter_mut().for_each(shorten);
            items.dedup();
            items.push(Json::Text(format!("... ({length} items)")));
        }
        Json::Array(items) => items.iter_mut().for_each(shorten),
        Json::Object(fields) => fields.iter_mut().for_each(|(_, value)| shorten(value)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => {}
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
