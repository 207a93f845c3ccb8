//! `[tables."schema.table"]`: settings of single tables, and which settings apply to a table.
//!
//! If several patterns match a table, one of them applies as a whole. Settings that hide values
//! must not get lost that way: if a pattern that does not apply hides something, the bridge does
//! not start, instead of publishing what was meant to be hidden.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::columns::{ColumnPattern, ColumnRules, RuleKey};
use super::fault::Fault;
use super::pattern::TablePattern;

/// Settings of one table, or of all that match a glob.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Table {
    /// The topic, instead of the name from `topics.template`.
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
    /// Rows to read in a snapshot, in addition to `where`: an SQL condition, which the server
    /// checks. It does not affect the stream. A snapshot request with a condition of its own uses
    /// that instead.
    pub snapshot_where: Option<String>,
    /// Text columns, as globs, whose values are replaced by that many asterisks: `{ card_number =
    /// 12 }`.
    pub mask: Option<BTreeMap<String, u32>>,
    /// Text columns, as globs, whose values are replaced by a SHA-256 hash of `format.hash_salt`
    /// and the value, as Debezium's `column.mask.hash.v2`.
    pub hash: Option<Vec<String>>,
    /// Text columns, as globs, whose values are cut to that many characters: `{ notes = 100 }`.
    pub truncate: Option<BTreeMap<String, u32>>,
    /// Text columns, as globs, whose values are cut if the record is larger than Kafka accepts, to
    /// the length at which it fits.
    pub truncate_oversize: Option<Vec<String>>,
    /// Former names of this table (`schema.table`) and of its columns. A renamed table keeps hiding
    /// what was hidden under its former name, or is left out with an error; listing that name here
    /// confirms the settings of the new name although they hide less. See
    /// [filters](filters.md#tables-and-columns-that-are-renamed).
    pub renamed_from: Option<Vec<String>>,
    /// Partitions of the topic when it is created, instead of `topics.partitions`.
    pub partitions: Option<i32>,
    /// Replicas of the topic when it is created, instead of `topics.replication_factor`.
    pub replication_factor: Option<i32>,
    /// Topic settings when it is created; they override those of `topics.settings`.
    pub settings: BTreeMap<String, String>,
}

impl Table {
    /// The keys that hide something, and whether each is set.
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
                // More characters than fit into memory are no bound.
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

/// A setting that hides values and does not apply to a table that its pattern matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// The setting.
    pub key: &'static str,
    /// Its pattern.
    pub pattern: String,
    /// The pattern that applies instead and does not set it.
    pub applied: String,
}

impl Hidden {
    /// The fix.
    #[must_use]
    pub fn fix(&self) -> String {
        let open = match self.key {
            "columns" => "[\"*\"] publishes all of them",
            "where" => "\"true\" publishes every row",
            "mask" | "truncate" => "{} hides nothing",
            _ => "[] hides nothing",
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

    /// The rules for this table's columns; `None` if all are published unchanged.
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
    /// keys that hides something, if any.
    pub fn exact(&self) -> impl Iterator<Item = (&TablePattern, Option<&'static str>)> {
        self.patterns.iter().filter(|of| of.pattern.is_exact()).map(|of| {
            let mut keys = of.table.keeps_back().into_iter();
            (&of.pattern, keys.find_map(|(key, is_set)| is_set.then_some(key)))
        })
    }

    /// The key of a hash setting, if any table has one.
    #[must_use]
    pub fn hash_key(&self) -> Option<String> {
        let asks =
            |compiled: &&Compiled| compiled.table.hash.as_ref().is_some_and(|h| !h.is_empty());
        let found = self.patterns.iter().find(asks)?;
        Some(format!("tables.\"{}\".hash", found.pattern.as_str()))
    }

    /// Whether some table has a configured key.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.patterns.iter().any(|compiled| compiled.table.key.is_some())
    }

    /// The topics that single tables set.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().filter_map(|compiled| compiled.table.topic.as_deref())
    }

    /// The key that sets this topic for a table, if any.
    #[must_use]
    pub fn topic_key(&self, topic: &str) -> Option<String> {
        let gives = |compiled: &&Compiled| compiled.table.topic.as_deref() == Some(topic);
        let found = self.patterns.iter().find(gives)?;
        Some(format!("tables.\"{}\".topic", found.pattern.as_str()))
    }

    /// A setting that would hide something of this table if another pattern did not apply first.
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
