//! The effective configuration as `rowcast config` prints it: every key, its value, its origin.
//!
//! It starts from the values that the bridge would run with, so that it shows what is in effect,
//! and masks secrets.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::keys::{KEYS, Kind, TABLE_KEYS};
use super::load::{Loaded, Origins};
use super::walk::dotted;
use super::{Config, Origin, Secret, mask};

/// One key with its effective value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    path: Vec<String>,
    value: Value,
    origin: Origin,
}

/// Every key in the order of the manual; maps have one line per name.
#[must_use]
pub fn entries(loaded: &Loaded) -> Vec<Entry> {
    let values = shown(&loaded.config);
    let mut entries = Vec::new();
    for key in KEYS {
        let mut path = vec![key.name.to_owned()];
        if !key.section.is_empty() {
            path.insert(0, key.section.to_owned());
        }
        let value = path.iter().fold(&values, |value, part| &value[part]).clone();
        match key.kind {
            Kind::Tables => tables(&path, &value, &loaded.origins, &mut entries),
            _ => add(path, value, &loaded.origins, &mut entries),
        }
    }
    entries
}

fn tables(path: &[String], tables: &Value, origins: &Origins, entries: &mut Vec<Entry>) {
    let Some(tables) = tables.as_object() else { return };
    for (pattern, table) in tables {
        for key in TABLE_KEYS {
            let path = [path, &[pattern.clone(), key.name.to_owned()]].concat();
            // A key that a table does not set has the general value; a line would add nothing.
            if !table[key.name].is_null() {
                add(path, table[key.name].clone(), origins, entries);
            }
        }
    }
}

fn add(path: Vec<String>, value: Value, origins: &Origins, entries: &mut Vec<Entry>) {
    if let Value::Object(values) = value {
        for (name, value) in values {
            add([path.as_slice(), &[name]].concat(), value, origins, entries);
        }
        return;
    }
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    let origin = origins.of(&parts).clone();
    entries.push(Entry { path, value, origin });
}

/// The configuration as JSON, with the masks replaced where part of the value may be shown.
fn shown(config: &Config) -> Value {
    let Ok(mut values) = serde_json::to_value(config) else { return Value::Null };
    if let Some(url) = &config.postgres.url {
        values["postgres"]["url"] = mask::connection_string(url.expose()).into();
    }
    let property = |(name, value): (&String, &Secret)| {
        let secret = mask::is_secret_property(name);
        (name.clone(), if secret { super::secret::MASK.into() } else { value.expose().into() })
    };
    let properties: Map<String, Value> = config.kafka.properties.iter().map(property).collect();
    values["kafka"]["properties"] = properties.into();
    values
}

/// Three aligned columns, for people.
#[must_use]
pub fn text(entries: &[Entry]) -> String {
    let rows: Vec<[String; 3]> = entries
        .iter()
        .map(|entry| {
            let value =
                if entry.value.is_null() { "-".to_owned() } else { toml_value(&entry.value) };
            [dotted(&entry.path), value, entry.origin.to_string()]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    // One long pattern list must not push every origin off the screen.
    let (keys, values) = (width(0).unwrap_or(0), width(1).unwrap_or(0).min(48));
    let line =
        |[key, value, origin]: &[String; 3]| format!("{key:keys$}  {value:values$}  {origin}\n");
    rows.iter().map(line).collect()
}

/// A TOML document with the origins as comments. Keys without a value are comments, so that the
/// document can be loaded again once the secrets are filled in.
#[must_use]
pub fn toml(entries: &[Entry]) -> String {
    let line = |entry: &Entry| {
        let (key, origin) = (dotted(&entry.path), &entry.origin);
        if entry.value.is_null() {
            format!("# {key} is not set\n")
        } else {
            format!("{key} = {} # {origin}\n", toml_value(&entry.value))
        }
    };
    entries.iter().map(line).collect()
}

/// A JSON object: `{"postgres.slot": {"value": ..., "origin": "rowcast.toml:3"}}`.
#[must_use]
pub fn json(entries: &[Entry]) -> String {
    let entries: BTreeMap<String, Value> = entries
        .iter()
        .map(|entry| {
            let value = json!({ "value": entry.value, "origin": entry.origin.to_string() });
            (dotted(&entry.path), value)
        })
        .collect();
    format!("{:#}\n", json!(entries))
}

/// The value as TOML writes it.
pub(super) fn toml_value(value: &Value) -> String {
    match value {
        Value::String(text) => toml_edit::Value::from(text.as_str()).to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(toml_value).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}
