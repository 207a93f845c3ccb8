//! What the settings of a table hide, and whether other settings hide as much.
//!
//! Settings apply by name, and names change: after a table or a column is renamed, other settings
//! apply to it. So what was hidden is stored with the table, and compared with what would be hidden
//! now:
//!
//! | hidden | less is hidden when |
//! |---|---|
//! | the whole table (`exclude_tables`) | it is captured |
//! | a column | it is published, masked, hashed or cut |
//! | the value of a column: `mask`, `hash`, `truncate`, the strictest first | a weaker rule, or none, applies |
//! | rows (`where`) | there is no condition, or another one, which may match other rows |
//! | a hidden column out of the key (`key`) | it may become part of the key |
//!
//! Pure. Not here: the former names of tables (`checkpoint::remembered`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::columns::{ColumnPattern, ColumnRules, RuleKey};
use super::pattern::{TableFilter, exactly};
use super::tables::{Table, TableSettings};

/// What is hidden of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hiding {
    /// Whether the whole table is excluded.
    #[serde(skip_serializing_if = "is_false")]
    pub excluded: bool,
    /// As [`Table::columns`]; `None` if that publishes every column.
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
    /// As [`Table::exclude_columns`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    exclude_columns: Vec<String>,
    /// As [`Table::mask`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    mask: BTreeMap<String, u32>,
    /// As [`Table::hash`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hash: Vec<String>,
    /// As [`Table::truncate`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    truncate: BTreeMap<String, u32>,
    /// As [`Table::r#where`]; `None` if that publishes every row.
    #[serde(skip_serializing_if = "Option::is_none")]
    r#where: Option<String>,
    /// As [`Table::key`], if columns are hidden.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Vec<String>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde requires this signature")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A column by its current name, and by the names under which it may have been hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedColumn<'a> {
    /// More than one if it is not known which column it was.
    pub formers: Vec<&'a str>,
    /// Its name.
    pub now: &'a str,
}

/// Something that was hidden and would not be any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loosened {
    /// The whole table.
    Excluded,
    /// The rows of the signal table, which are not published.
    Signals,
    /// The values of a column.
    Column {
        /// The name under which they were hidden.
        former: String,
        /// Its current name.
        now: String,
        /// The rule.
        rule: &'static str,
    },
    /// Rows.
    Rows,
    /// Hidden columns may get into the key.
    Key,
}

impl fmt::Display for Loosened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded => f.write_str("postgres.exclude_tables"),
            Self::Signals => f.write_str("postgres.signal_table, whose rows are not published"),
            Self::Column { former, now, rule } if former == now => write!(f, "{rule} of {now:?}"),
            Self::Column { former, now, rule } => {
                write!(f, "{rule} of {former:?}, which is {now:?} now")
            }
            Self::Rows => f.write_str("where"),
            Self::Key => f.write_str("key, which keeps hidden columns out of the key"),
        }
    }
}

/// How well a value is hidden; larger is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    Published,
    /// Fewer remaining characters hide more, so the order of the number is reversed.
    Cut(usize),
    Hashed,
    Masked,
    LeftOut,
}

impl Strength {
    fn of(rules: &ColumnRules, column: &str) -> Self {
        match rules.rule(column) {
            _ if !rules.publishes(column) => Self::LeftOut,
            Some((RuleKey::Mask, _)) => Self::Masked,
            Some((RuleKey::Hash, _)) => Self::Hashed,
            Some((RuleKey::Truncate, count)) => Self::Cut(usize::MAX - count),
            Some((RuleKey::TruncateOversize, _)) | None => Self::Published,
        }
    }

    const fn rule(self) -> &'static str {
        match self {
            Self::Published => "nothing",
            Self::Cut(_) => "truncate",
            Self::Hashed => "hash",
            Self::Masked => "mask",
            Self::LeftOut => "exclude_columns",
        }
    }
}

impl Hiding {
    /// What is hidden of a table of this name.
    #[must_use]
    pub fn of(captured: &TableFilter, tables: &TableSettings, schema: &str, table: &str) -> Self {
        let excluded = captured.excludes(schema, table);
        let hiding = tables.of(schema, table).map(Self::of_settings).unwrap_or_default();
        Self { excluded, ..hiding }
    }

    fn of_settings(table: &Table) -> Self {
        let is_all = |list: &Vec<String>| list.iter().any(|pattern| pattern == "*");
        let is_true = |condition: &String| condition.trim().eq_ignore_ascii_case("true");
        let mut hiding = Self {
            excluded: false,
            columns: table.columns.clone().filter(|list| !is_all(list)),
            exclude_columns: table.exclude_columns.clone().unwrap_or_default(),
            mask: table.mask.clone().unwrap_or_default(),
            hash: table.hash.clone().unwrap_or_default(),
            truncate: table.truncate.clone().unwrap_or_default(),
            r#where: table.r#where.clone().filter(|condition| !is_true(condition)),
            key: None,
        };
        if hiding.has_column_rules() {
            hiding.key.clone_from(&table.key);
        }
        hiding
    }

    /// Whether nothing is hidden.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Whether something is hidden in single columns.
    #[must_use]
    pub fn has_column_rules(&self) -> bool {
        self.columns.is_some()
            || !self.exclude_columns.is_empty()
            || !self.mask.is_empty()
            || !self.hash.is_empty()
            || !self.truncate.is_empty()
    }

    /// The rules of the columns. An invalid pattern (the text comes from a checkpoint) hides
    /// everything.
    fn rules(&self) -> ColumnRules {
        let table = Table {
            columns: self.columns.clone(),
            exclude_columns: Some(self.exclude_columns.clone()),
            mask: Some(self.mask.clone()),
            hash: Some(self.hash.clone()),
            truncate: Some(self.truncate.clone()),
            ..Table::default()
        };
        let none = || ColumnRules { include: Some(Vec::new()), ..ColumnRules::default() };
        table.column_rules().unwrap_or_else(|_| none())
    }

    /// What `self` hid of a table with these columns and `now` would not hide.
    #[must_use]
    pub fn loosened(&self, now: &Self, columns: &[NamedColumn<'_>]) -> Vec<Loosened> {
        if now.excluded {
            return Vec::new();
        }
        let mut lost = Vec::new();
        if self.excluded {
            lost.push(Loosened::Excluded);
        }
        if self.r#where.is_some() && self.r#where != now.r#where {
            lost.push(Loosened::Rows);
        }
        if !self.has_column_rules() {
            return lost;
        }
        let (before, after) = (self.rules(), now.rules());
        for NamedColumn { formers, now } in columns {
            let strengths = formers.iter().map(|former| (Strength::of(&before, former), *former));
            let Some((strength, former)) = strengths.max_by_key(|(strength, _)| *strength) else {
                continue;
            };
            if Strength::of(&after, now) < strength {
                let (former, now) = (former.to_owned(), (*now).to_owned());
                lost.push(Loosened::Column { former, now, rule: strength.rule() });
            }
        }
        if self.key.is_some() && self.key != now.key && !now.keys_by_open_columns(&after) {
            lost.push(Loosened::Key);
        }
        lost
    }

    /// Whether no column of its own key is hidden in any way.
    fn keys_by_open_columns(&self, rules: &ColumnRules) -> bool {
        let is_open = |column: &String| Strength::of(rules, column) == Strength::Published;
        self.key.as_ref().is_some_and(|key| key.iter().all(is_open))
    }

    /// What to write so that a table of this name hides what `self` did, and what its current
    /// settings hide.
    #[must_use]
    pub fn line(
        &self,
        now: &Self,
        columns: &[NamedColumn<'_>],
        (schema, table): (&str, &str),
    ) -> String {
        let name = exactly(schema, table);
        if self.excluded {
            return format!("add {} to postgres.exclude_tables", toml_text(&name));
        }
        let settings = self.kept(now, columns).settings();
        format!("write in [tables.{}]: {settings}", toml_text(&name))
    }

    /// Settings that hide what `self` did of these columns, and what `now` does.
    fn kept(&self, now: &Self, columns: &[NamedColumn<'_>]) -> Self {
        let mut kept = self.merged(now, &self.loosened(now, columns));
        // Patterns of one may publish what only the other hid.
        for _ in 0..columns.len() {
            let lost = self.loosened(&kept, columns);
            if lost.is_empty() {
                break;
            }
            kept = self.merged(&kept, &lost);
        }
        kept
    }

    /// What both hide, and what `self` hid of columns that have new names.
    fn merged(&self, now: &Self, lost: &[Loosened]) -> Self {
        let union = |a: &[String], b: &[String]| -> Vec<String> {
            let mut seen = BTreeSet::new();
            a.iter().chain(b).filter(|item| seen.insert(*item)).cloned().collect()
        };
        let least = |a: &BTreeMap<String, u32>, b: &BTreeMap<String, u32>| {
            let mut all = a.clone();
            for (pattern, count) in b {
                let least = all.entry(pattern.clone()).or_insert(*count);
                *least = (*least).min(*count);
            }
            all
        };
        let mut merged = Self {
            excluded: false,
            columns: self.columns.clone().or_else(|| now.columns.clone()),
            exclude_columns: union(&self.exclude_columns, &now.exclude_columns),
            mask: least(&self.mask, &now.mask),
            hash: union(&self.hash, &now.hash),
            truncate: least(&self.truncate, &now.truncate),
            r#where: self.r#where.clone().or_else(|| now.r#where.clone()),
            key: self.key.clone().or_else(|| now.key.clone()),
        };
        let matches = |text: &str, column: &str| {
            ColumnPattern::parse(text).is_ok_and(|pattern| pattern.matches(column))
        };
        let counts = |counts: &BTreeMap<String, u32>, column: &str| {
            let found = counts.iter().find(|(text, _)| matches(text, column));
            found.map_or(0, |(_, count)| *count)
        };
        for lost in lost {
            let Loosened::Column { former, now, rule } = lost else { continue };
            let pattern = globset::escape(now);
            match *rule {
                "mask" => drop(merged.mask.insert(pattern, counts(&self.mask, former))),
                "truncate" => {
                    let count = counts(&self.truncate, former);
                    merged.truncate.insert(pattern, count);
                    // The first pattern that matches applies.
                    let also = merged.truncate.iter_mut().filter(|(text, _)| matches(text, now));
                    also.for_each(|(_, cut)| *cut = count.min(*cut));
                }
                "hash" => merged.hash = union(&merged.hash, &[pattern]),
                _ if merged.rules().publishes(now) => {
                    merged.exclude_columns = union(&merged.exclude_columns, &[pattern]);
                }
                _ => {}
            }
        }
        merged
    }

    /// The settings, as written in a file.
    fn settings(&self) -> String {
        let list = |items: &[String]| {
            format!("[{}]", items.iter().map(|item| toml_text(item)).collect::<Vec<_>>().join(", "))
        };
        let counts = |items: &BTreeMap<String, u32>| {
            let items = items.iter().map(|(item, count)| format!("{} = {count}", toml_text(item)));
            format!("{{ {} }}", items.collect::<Vec<_>>().join(", "))
        };
        let filled = |items: &[String]| (!items.is_empty()).then(|| list(items));
        let counted = |items: &BTreeMap<String, u32>| (!items.is_empty()).then(|| counts(items));
        let settings = [
            ("key", self.key.as_deref().map(list)),
            ("columns", self.columns.as_deref().map(list)),
            ("exclude_columns", filled(&self.exclude_columns)),
            ("mask", counted(&self.mask)),
            ("hash", filled(&self.hash)),
            ("truncate", counted(&self.truncate)),
            ("where", self.r#where.as_deref().map(toml_text)),
        ];
        let settings = settings.into_iter().filter_map(|(key, value)| Some((key, value?)));
        settings.map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join("; ")
    }
}

/// A text in TOML. JSON's form is one of TOML's, but for one control character.
#[must_use]
pub fn toml_text(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.replace('\u{7f}', "\\u007F")
}

#[cfg(test)]
#[path = "hiding_tests.rs"]
mod tests;
