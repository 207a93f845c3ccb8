//! Holds `docs/configuration.md` to the code.
//!
//! The page is generated: each key's meaning is the doc comment of its field, its default comes
//! from the struct, its variable and its type from the table of keys. The test compares, and
//! `UPDATE_GOLDEN=1` rewrites. The text above the first generated line is written by hand.

use std::path::PathBuf;

use serde_json::Value;

use super::keys::{KEYS, Key, Kind, TABLE_KEYS};
use super::{Config, Sources, Table, listing, load};

const MARK: &str = "<!-- Generated from src/config by its tests; UPDATE_GOLDEN=1 rewrites. -->";

/// The source of each section, whose doc comments are the manual.
const SECTIONS: &[(&str, &str)] = &[
    ("", include_str!("mod.rs")),
    ("postgres", include_str!("postgres.rs")),
    ("kafka", include_str!("kafka.rs")),
    ("topics", include_str!("topics.rs")),
    ("format", include_str!("format.rs")),
    ("errors", include_str!("errors.rs")),
    ("tables", include_str!("tables.rs")),
    ("snapshot", include_str!("snapshot.rs")),
    ("watchdog", include_str!("watchdog.rs")),
    ("admin", include_str!("admin.rs")),
    ("log", include_str!("log.rs")),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The doc comment of a field, as one paragraph.
fn meaning(source: &str, field: &str) -> String {
    // A field whose name is a Rust keyword is written with `r#`.
    let heads = [format!("pub {field}: "), format!("pub r#{field}: ")];
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let at = lines
        .iter()
        .position(|line| heads.iter().any(|head| line.starts_with(head)))
        .expect("a field of that name");
    let above = lines[..at].iter().rev();
    let mut doc: Vec<&str> = above
        .skip_while(|line| line.starts_with("#["))
        .map_while(|line| line.strip_prefix("///"))
        .map(str::trim)
        .collect();
    doc.reverse();
    doc.join(" ").replace('|', "\\|")
}

fn form(kind: Kind) -> String {
    match kind {
        Kind::Text(_) | Kind::Secret => "text".to_owned(),
        Kind::Boolean => "boolean".to_owned(),
        Kind::Integer { min, max, or } => {
            let or = or.map_or_else(String::new, |other| format!(", or {other}"));
            format!("integer, {min} to {max}{or}")
        }
        Kind::Duration { min, max } => format!(
            "duration, {} to {}",
            humantime::format_duration(min),
            humantime::format_duration(max)
        ),
        Kind::Size { min, max } => format!("size, {min} to {max}"),
        Kind::Path => "file name".to_owned(),
        Kind::OneOf(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(" or ")
        }
        Kind::Address => "IP address and port".to_owned(),
        Kind::Patterns { .. } => "list of patterns".to_owned(),
        Kind::ColumnPatterns { .. } => "list of column patterns".to_owned(),
        Kind::Counts { max } => format!("table of integers, 0 to {max}"),
        Kind::Operations => "list of operations".to_owned(),
        Kind::Columns => "list of columns".to_owned(),
        Kind::Command => "list of a program and its arguments".to_owned(),
        Kind::PropertyCommands => "table of lists of a program and its arguments".to_owned(),
        Kind::Hosts => "list of host names".to_owned(),
        Kind::Names => "list of names".to_owned(),
        Kind::Texts | Kind::Properties => "table of texts".to_owned(),
        Kind::PropertyFiles => "table of file names".to_owned(),
        Kind::Tables => "tables".to_owned(),
    }
}

fn default(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Object(_) => "`{}`".to_owned(),
        value => format!("`{}`", listing::toml_value(value).replace('|', "\\|")),
    }
}

fn generated() -> String {
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let mut page = format!("{MARK}\n");
    for (section, source) in SECTIONS {
        let (title, keys, defaults) = match *section {
            "" => ("Top level".to_owned(), KEYS, &defaults),
            "tables" => ("`[tables.\"schema.table\"]`".to_owned(), TABLE_KEYS, &table_defaults()),
            section => (format!("`[{section}]`"), KEYS, &defaults[section]),
        };
        page.push_str(&format!("\n## {title}\n\n"));
        page.push_str("| key | type | default | environment | meaning |\n|---|---|---|---|---|\n");
        for key in keys.iter().filter(|key| key.section == *section) {
            page.push_str(&row(key, source, &defaults[key.name]));
        }
    }
    page
}

fn table_defaults() -> Value {
    serde_json::to_value(Table::default()).unwrap()
}

fn row(key: &Key, source: &str, value: &Value) -> String {
    let variable =
        if key.section == "tables" { "-".to_owned() } else { format!("`{}`", key.variable()) };
    format!(
        "| `{}` | {} | {} | {variable} | {} |\n",
        key.name,
        form(key.kind),
        default(value),
        meaning(source, key.name)
    )
}

#[test]
fn the_manual_says_what_the_code_does() {
    let path = root().join("docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, _) = page.split_once(MARK).expect("the mark of the generated part");
    let expected = format!("{head}{}", generated());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(page == expected, "docs/configuration.md is behind the code; run with UPDATE_GOLDEN=1");
}

/// Every example, with the keys that it sets.
fn examples() -> Vec<(String, super::Loaded)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("rowcast.") && name.ends_with(".toml") {
            let sources = Sources { file: Some(path), ..Sources::default() };
            let loaded = load(&sources).unwrap_or_else(|error| panic!("{name}: {error}"));
            found.push((name, loaded));
        }
    }
    found
}

#[test]
fn every_example_loads() {
    let mut names: Vec<String> = examples().into_iter().map(|(name, _)| name).collect();
    names.sort();
    let expected = ["confluent-cloud", "full", "minimal", "sidecar"]
        .map(|name| format!("rowcast.{name}.toml"));
    assert_eq!(names, expected);
}

#[test]
fn the_full_example_sets_every_key_and_keeps_every_default() {
    let (_, full) = examples().into_iter().find(|(name, _)| name == "rowcast.full.toml").unwrap();
    let set = |path: &[&str]| {
        let prefix: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
        full.origins.0.keys().any(|key| key.starts_with(&prefix))
    };
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let values = serde_json::to_value(&full.config).unwrap();
    for key in KEYS {
        let path: Vec<&str> =
            [key.section, key.name].into_iter().filter(|p| !p.is_empty()).collect();
        assert!(set(&path), "{} is missing", key.dotted());
        let of = |values: &Value| path.iter().fold(values, |value, part| &value[part]).clone();
        let default = of(&defaults);
        if !default.is_null() && !default.is_object() {
            assert_eq!(of(&values), default, "{}", key.dotted());
        }
    }
    for key in TABLE_KEYS {
        assert!(set(&["tables", "public.rides", key.name]), "tables: {} is missing", key.name);
    }
}
