//! Turns the tree of one source into settings, each checked and with its origin.
//!
//! Continues after a fault, so that all faults of a source are reported together.

use figment::value::{Dict, Value};

use super::columns::ColumnPattern;
use super::fault::{Fault, Origin, Problem};
use super::keys::{self, KEYS, Key, Kind, TABLE_KEYS, nearest};
use super::tree::{Data, Entry, Node};
use super::{check, kafka, toml};

/// One value that passed its check.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) path: Vec<String>,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// The settings of one source.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) settings: Vec<Setting>,
    pub(super) problems: Vec<Problem>,
}

/// Checks a tree; `origin` returns the origin of a line.
pub(super) fn walk(tree: &Node, origin: &dyn Fn(usize) -> Origin) -> Layer {
    let mut walker = Walker { origin, layer: Layer::default() };
    walker.top(tree);
    walker.layer
}

struct Walker<'a> {
    origin: &'a dyn Fn(usize) -> Origin,
    layer: Layer,
}

impl Walker<'_> {
    fn top(&mut self, tree: &Node) {
        let Data::Map(entries) = &tree.data else { return };
        for entry in entries {
            if let Some(key) = keys::find("", &entry.key) {
                self.key(key, vec![entry.key.clone()], entry);
            } else if keys::is_section(&entry.key) {
                self.section(entry);
            } else {
                self.unknown(std::slice::from_ref(&entry.key), entry.line);
            }
        }
    }

    fn section(&mut self, section: &Entry) {
        let Data::Map(entries) = &section.value.data else {
            let found = section.value.form();
            // An empty section sets nothing.
            if section.value.data != Data::Null {
                let fault = Fault::Form { expected: "a table of keys", found };
                self.problem(std::slice::from_ref(&section.key), section.line, fault);
            }
            return;
        };
        for entry in entries {
            let path = vec![section.key.clone(), entry.key.clone()];
            match keys::find(&section.key, &entry.key) {
                Some(key) => self.key(key, path, entry),
                None => self.unknown(&path, entry.line),
            }
        }
    }

    fn key(&mut self, key: &Key, path: Vec<String>, entry: &Entry) {
        match key.kind {
            Kind::Texts | Kind::Properties | Kind::PropertyFiles | Kind::PropertyCommands => {
                self.texts(key.kind, &path, "", entry);
            }
            Kind::Counts { max } => self.counts(max, &path, entry),
            Kind::Tables => self.tables(path, entry),
            kind => match check::accept(kind, &entry.value) {
                Ok(value) => self.setting(path, value, entry.line),
                Err(fault) => self.problem(&path, entry.line, fault),
            },
        }
    }

    /// A map from names to texts. Names contain dots, which a file may write as nested tables.
    fn texts(&mut self, kind: Kind, path: &[String], stem: &str, entry: &Entry) {
        let Some(entries) = self.entries(path, entry) else { return };
        for entry in &entries {
            let name =
                if stem.is_empty() { entry.key.clone() } else { format!("{stem}.{}", entry.key) };
            if matches!(entry.value.data, Data::Map(_)) {
                self.texts(kind, path, &name, entry);
                continue;
            }
            let full: Vec<String> = path.iter().cloned().chain([name.clone()]).collect();
            match text_entry(kind, &name, &entry.value) {
                Ok(value) => self.setting(full, value, entry.line),
                Err(fault) => self.problem(&full, entry.line, fault),
            }
        }
    }

    /// A map from column globs to numbers.
    fn counts(&mut self, max: i64, path: &[String], entry: &Entry) {
        let Some(entries) = self.entries(path, entry) else { return };
        let kind = Kind::Integer { min: 0, max, or: None };
        // Empty is not the same as not set: it overrides what another pattern sets.
        if entries.is_empty() {
            self.setting(path.to_vec(), Value::from(Dict::new()), entry.line);
        }
        for entry in &entries {
            let path = [path, std::slice::from_ref(&entry.key)].concat();
            let checked =
                ColumnPattern::parse(&entry.key).and_then(|_| check::accept(kind, &entry.value));
            match checked {
                Ok(value) => self.setting(path, value, entry.line),
                Err(fault) => self.problem(&path, entry.line, fault),
            }
        }
    }

    fn tables(&mut self, path: Vec<String>, entry: &Entry) {
        let Some(entries) = self.entries(&path, entry) else { return };
        for table in &entries {
            let is_pattern = table.key.contains('.');
            match &table.value.data {
                // `[tables.public.rides]`, where `[tables."public.rides"]` is meant.
                Data::Map(parts) if !is_pattern && is_nested(parts) => {
                    for part in parts {
                        let key = format!("{}.{}", table.key, part.key);
                        self.table(&path, &Entry { key, ..part.clone() });
                    }
                }
                _ => self.table(&path, table),
            }
        }
    }

    fn table(&mut self, path: &[String], table: &Entry) {
        let path = [path, std::slice::from_ref(&table.key)].concat();
        if let Err(fault) = super::TablePattern::parse(&table.key) {
            return self.problem(&path, table.line, fault);
        }
        let Data::Map(entries) = &table.value.data else {
            let fault = Fault::Form { expected: "a table of keys", found: table.value.form() };
            return self.problem(&path, table.line, fault);
        };
        for entry in entries {
            let path = [path.as_slice(), std::slice::from_ref(&entry.key)].concat();
            match TABLE_KEYS.iter().find(|key| key.name == entry.key) {
                Some(key) => self.key(key, path, entry),
                None => {
                    let known = TABLE_KEYS.iter().map(|key| key.name.to_owned());
                    let suggestion = nearest(&entry.key, known);
                    self.problem(&path, entry.line, Fault::UnknownKey { suggestion });
                }
            }
        }
    }

    /// The entries of a map, which a variable or flag may write as a TOML inline table.
    fn entries(&mut self, path: &[String], entry: &Entry) -> Option<Vec<Entry>> {
        let parsed = match &entry.value.data {
            Data::Raw(text) => toml::parse_value(text).ok(),
            _ => Some(entry.value.clone()),
        };
        match parsed {
            Some(Node { data: Data::Map(entries), .. }) => Some(entries),
            Some(Node { data: Data::Null, .. }) => None,
            other => {
                let expected = "a table of keys such as { \"a.b\" = \"c\" }";
                let found = other.map_or("text", |node| node.form());
                self.problem(path, entry.line, Fault::Form { expected, found });
                None
            }
        }
    }

    fn setting(&mut self, path: Vec<String>, value: Value, line: usize) {
        let origin = (self.origin)(line);
        self.layer.settings.push(Setting { path, value, origin });
    }

    fn problem(&mut self, path: &[String], line: usize, fault: Fault) {
        let origin = (self.origin)(line);
        self.layer.problems.push(Problem { origin, key: dotted(path), fault });
    }

    fn unknown(&mut self, path: &[String], line: usize) {
        let known = KEYS.iter().flat_map(|key| {
            let section = Some(key.section.to_owned()).filter(|section| !section.is_empty());
            section.into_iter().chain([key.dotted()])
        });
        let name = path.last().map_or("", String::as_str);
        // Suggests the right section for a key in the wrong one, else the most similar spelling.
        let moved = KEYS.iter().find(|key| key.name == name).map(Key::dotted);
        let suggestion = moved.or_else(|| nearest(&path.join("."), known));
        self.problem(path, line, Fault::UnknownKey { suggestion });
    }
}

/// Whether these are tables of one schema rather than the settings of one table.
fn is_nested(entries: &[Entry]) -> bool {
    !entries.is_empty()
        && entries.iter().all(|entry| {
            matches!(entry.value.data, Data::Map(_))
                && !TABLE_KEYS.iter().any(|key| key.name == entry.key)
        })
}

fn text_entry(kind: Kind, name: &str, value: &Node) -> Result<Value, Fault> {
    if !matches!(kind, Kind::Texts)
        && let Some(reason) = kafka::reserved(name)
    {
        return Err(Fault::Reserved { reason });
    }
    if matches!(kind, Kind::PropertyCommands) {
        return check::command(value);
    }
    let form = Fault::Form { expected: "text", found: value.form() };
    let text = value.scalar_text().ok_or(form)?;
    if matches!(kind, Kind::PropertyFiles) && text.trim().is_empty() {
        return Err(Fault::Empty);
    }
    Ok(Value::from(text))
}

/// The path as TOML writes it: parts with dots of their own are quoted.
pub(super) fn dotted(path: &[String]) -> String {
    let bare = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    };
    let quoted =
        path.iter().map(|part| if bare(part) { part.clone() } else { format!("{part:?}") });
    quoted.collect::<Vec<_>>().join(".")
}
