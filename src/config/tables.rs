//! `[tables."schema.table"]`: what one table does differently, and which settings apply to it.
//!
//! Of several patterns that match a table, one applies as a whole. What must not get lost that way
//! is what keeps values back: where a pattern that does not apply would have done so, the bridge
//! does not start, rather than publish what somebody meant to be hidden.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::columns::{ColumnPattern, ColumnRules, RuleKey};
use super::fault::Fault;
use super::pattern::TablePattern;

/// What one table, or all that match a glob, does differently.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Table {
    /// The topic, instead of the one from `topics.template`.
    pub topic: Option<String>,
    /// Key columns, instead of the primary key. They must be part of the replica identity, unless
    /// updates and deletes are skipped.
    pub key: Option<Vec<String>>,
    /// Columns to publish, as globs. Default: all of them. A key column stays in the key, and a
    /// column that Postgres needs for the replica identity is still sent to the bridge; neither
    /// is in the value.
    pub columns: Option<Vec<String>>,
    /// Columns to leave out although `columns` matches them, as globs.
    pub exclude_columns: Option<Vec<String>>,
    /// Rows to publish: an SQL condition, which the server checks (PostgreSQL 15 and later). Its
    /// columns must be part of the replica identity, unless updates and deletes are skipped.
    pub r#where: Option<String>,
    /// Rows to read in a snapshot, on top of `where`: an SQL condition, which the server checks. The
    /// stream has all rows. A snapshot that is asked for with a condition of its own takes that one.
    pub snapshot_where: Option<String>,
    /// Text columns, as globs, whose values become so many asterisks: `{ card_number = 12 }`.
    pub mask: Option<BTreeMap<String, u32>>,
    /// Text columns, as globs, whose values become a SHA-256 of `format.hash_salt` and the value,
    /// as Debezium's `column.mask.hash.v2`.
    pub hash: Option<Vec<String>>,
    /// Text columns, as globs, whose values are cut to so many characters: `{ notes = 100 }`.
    pub truncate: Option<BTreeMap<String, u32>>,
    /// Text columns, as globs, whose values are cut when the record is larger than Kafka takes, to the
    /// length at which it fits.
    pub truncate_oversize: Option<Vec<String>>,
    /// Former names of this table (`schema.table`) and of its columns. A table that is renamed keeps
    /// what was kept back under its former name, or is left out with an error; with that name here,
    /// the settings of the new name are meant, although they keep back less. See
    /// [filters](filters.md#tables-and-columns-that-are-renamed).
    pub renamed_from: Option<Vec<String>>,
    /// Partitions of the topic when it is made, instead of `topics.partitions`.
    pub partitions: Option<i32>,
    /// Replicas of the topic when it is made, instead of `topics.replication_factor`.
    pub replication_factor: Option<i32>,
    /// Topic settings when it is made; they are laid over `topics.settings`.
    pub settings: BTreeMap<String, String>,
}

impl Table {
    /// The keys that keep something back, and whether each is set.
    pub(super) fn keeps_back(&self) -> [(&'static str, bool); 6] {
        [
            ("mask", self.mask.is_some()),
            ("hash", self.hash.is_some()),
            ("truncate", self.truncate.is_some()),
            ("columns", self.columns.is_some()),
            ("exclude_columns", self.exclude_columns.is_some()),
            ("where", self.r#where.is_some()),
        ]
    }
}

impl Table {
    pub(super) fn column_rules(&self) -> Result<ColumnRules, Fault> {
        let patterns = |list: &[String]| -> Result<Vec<_>, Fault> {
            list.iter().map(|text| ColumnPattern::parse(text)).collect()
        };
        let none = BTreeMap::new();
        let counts = |map: &Option<BTreeMap<String, u32>>, rule: RuleKey| {
            let one = |(text, &count): (&String, &u32)| {
                // More characters than there can be memory for are no bound at all.
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                Ok((ColumnPattern::parse(text)?, rule, count))
            };
            map.as_ref().unwrap_or(&none).iter().map(one).collect::<Result<Vec<_>, Fault>>()
        };
        let hash = patterns(self.hash.as_deref().unwrap_or_default())?;
        let mut values = counts(&self.mask, RuleKey::Mask)?;
        values.extend(hash.into_iter().map(|pattern| (pattern, RuleKey::Hash, 0)));
        values.extend(counts(&self.truncate, RuleKey::Truncate)?);
        Ok(ColumnRules {
            include: self.columns.as_deref().map(patterns).transpose()?,
            exclude: patterns(self.exclude_columns.as_deref().unwrap_or_default())?,
            values,
            oversize: patterns(self.truncate_oversize.as_deref().unwrap_or_default())?,
        })
    }
}

/// Settings of single tables, by pattern.
#[derive(Debug, Clone, Default)]
pub struct TableSettings {
    /// Exact names before globs, each in alphabetical order.
    patterns: Vec<Compiled>,
}

#[derive(Debug, Clone)]
struct Compiled {
    pattern: TablePattern,
    table: Table,
    columns: ColumnRules,
}

/// A setting that keeps values back and does not apply to a table that its pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// The setting.
    pub key: &'static str,
    /// The pattern it stands under.
    pub pattern: String,
    /// The pattern that applies instead, and does not set it.
    pub applied: String,
}

impl Hidden {
    /// What fixes it.
    #[must_use]
    pub fn fix(&self) -> String {
        let open = match self.key {
            "columns" => "[\"*\"] publishes all of them",
            "where" => "\"true\" publishes every row",
            "mask" | "truncate" => "{} keeps nothing back",
            _ => "[] keeps nothing back",
        };
        format!("set {} in [tables.\"{}\"] too; {open}", self.key, self.applied)
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, pattern, applied } = self;
        write!(
            f,
            "tables.\"{pattern}\".{key} does not apply, because tables.\"{applied}\" comes first \
             and does not set it"
        )
    }
}

impl TableSettings {
    /// Reads the patterns.
    ///
    /// # Errors
    /// For the first pattern that is wrong.
    pub fn parse(tables: &BTreeMap<String, Table>) -> Result<Self, Fault> {
        let parse = |(pattern, table): (&String, &Table)| {
            Ok(Compiled {
                pattern: TablePattern::parse(pattern)?,
                columns: table.column_rules()?,
                table: table.clone(),
            })
        };
        let mut patterns = tables.iter().map(parse).collect::<Result<Vec<_>, Fault>>()?;
        patterns.sort_by_key(|compiled| !compiled.pattern.is_exact());
        Ok(Self { patterns })
    }

    /// The settings that apply to this table: the first pattern that matches.
    #[must_use]
    pub fn of(&self, schema: &str, table: &str) -> Option<&Table> {
        self.first(schema, table).map(|compiled| &compiled.table)
    }

    /// What becomes of this table's columns; none where all are published as they are.
    #[must_use]
    pub fn columns(&self, schema: &str, table: &str) -> Option<&ColumnRules> {
        let columns = &self.first(schema, table)?.columns;
        (!columns.is_open()).then_some(columns)
    }

    /// The pattern whose settings apply to this table.
    #[must_use]
    pub fn pattern(&self, schema: &str, table: &str) -> Option<&TablePattern> {
        self.first(schema, table).map(|compiled| &compiled.pattern)
    }

    /// The patterns that can only match the one table that they name, each with the first of its
    /// keys that keeps something back, if any does.
    pub fn exact(&self) -> impl Iterator<Item = (&TablePattern, Option<&'static str>)> {
        self.patterns.iter().filter(|of| of.pattern.is_exact()).map(|of| {
            let mut keys = of.table.keeps_back().into_iter();
            (&of.pattern, keys.find_map(|(key, is_set)| is_set.then_some(key)))
        })
    }

    /// The key of a hash that some table asks for.
    #[must_use]
    pub fn hash_key(&self) -> Option<String> {
        let asks =
            |compiled: &&Compiled| compiled.table.hash.as_ref().is_some_and(|h| !h.is_empty());
        let found = self.patterns.iter().find(asks)?;
        Some(format!("tables.\"{}\".hash", found.pattern.as_str()))
    }

    /// Whether some table is keyed by other columns than its own key.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.patterns.iter().any(|compiled| compiled.table.key.is_some())
    }

    /// The topics that tables have of their own.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().filter_map(|compiled| compiled.table.topic.as_deref())
    }

    /// The key that gives a table this topic, if one does.
    #[must_use]
    pub fn topic_key(&self, topic: &str) -> Option<String> {
        let gives = |compiled: &&Compiled| compiled.table.topic.as_deref() == Some(topic);
        let found = self.patterns.iter().find(gives)?;
        Some(format!("tables.\"{}\".topic", found.pattern.as_str()))
    }

    /// A setting that would keep something of this table back, were it not for the pattern that
    /// applies before it.
    #[must_use]
    pub fn hidden(&self, schema: &str, table: &str) -> Option<Hidden> {
        let mut matching =
            self.patterns.iter().filter(|later| later.pattern.matches(schema, table));
        let applied = matching.next()?;
        matching.find_map(|later| {
            let keys = later.table.keeps_back().into_iter().zip(applied.table.keeps_back());
            let ((key, _), _) = keys.into_iter().find(|((_, set), (_, own))| *set && !own)?;
            Some(Hidden {
                key,
                pattern: later.pattern.as_str().to_owned(),
                applied: applied.pattern.as_str().to_owned(),
            })
        })
    }

    fn first(&self, schema: &str, table: &str) -> Option<&Compiled> {
        self.patterns.iter().find(|compiled| compiled.pattern.matches(schema, table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(tables: &[(&str, Table)]) -> TableSettings {
        let tables = tables.iter().map(|(name, table)| ((*name).to_owned(), table.clone()));
        TableSettings::parse(&tables.collect()).unwrap()
    }

    fn excluding(columns: &[&str]) -> Table {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Table { exclude_columns: Some(columns), ..Table::default() }
    }

    #[test]
    fn an_exact_name_applies_before_a_glob() {
        let named = Table { topic: Some("rides".to_owned()), ..Table::default() };
        let settings = settings(&[("*.*", Table::default()), ("public.rides", named.clone())]);
        assert_eq!(settings.of("public", "rides"), Some(&named));
        assert_eq!(settings.of("public", "zones"), Some(&Table::default()));
    }

    #[test]
    fn a_hidden_exclusion_is_found_and_an_overridden_one_is_not() {
        let named = Table { topic: Some("rides".to_owned()), ..Table::default() };
        let everywhere = ("*.*", excluding(&["ssn"]));
        let found = settings(&[everywhere.clone(), ("public.rides", named)]);
        let hidden = Hidden {
            key: "exclude_columns",
            pattern: "*.*".to_owned(),
            applied: "public.rides".to_owned(),
        };
        assert_eq!(found.hidden("public", "rides"), Some(hidden));
        assert_eq!(found.hidden("public", "zones"), None);
        let overridden = settings(&[everywhere, ("public.rides", excluding(&[]))]);
        assert_eq!(overridden.hidden("public", "rides"), None);
        assert!(overridden.columns("public", "rides").is_none());
        assert!(!overridden.columns("public", "zones").unwrap().publishes("ssn"));
    }
}
