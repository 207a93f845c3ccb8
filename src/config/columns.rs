//! Which columns of a table are published (those that match `columns` and not `exclude_columns`),
//! and the rules for their values.
//!
//! Column names are compared as Postgres stores them: `riderId` is not `riderid`. Not here: columns
//! that must be sent whatever a filter says (keys, replica identities); only a server knows them.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

use super::fault::Fault;

/// A glob of column names.
#[derive(Debug, Clone)]
pub struct ColumnPattern {
    text: String,
    matcher: GlobMatcher,
}

impl ColumnPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is not a valid glob.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let glob = GlobBuilder::new(text).build().map_err(|error| Fault::NoGlob {
            pattern: text.to_owned(),
            reason: error.kind().to_string(),
        })?;
        Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher() })
    }

    /// Whether it matches this column.
    #[must_use]
    pub fn matches(&self, column: &str) -> bool {
        self.matcher.is_match(column)
    }

    /// Whether it can only match the one column that it names.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.text.contains(['*', '?', '[', '{', '\\'])
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The rules for a table's columns.
#[derive(Debug, Clone, Default)]
pub struct ColumnRules {
    /// `None` means every column.
    pub(super) include: Option<Vec<ColumnPattern>>,
    pub(super) exclude: Vec<ColumnPattern>,
    /// Rules for values with their numbers, the strictest first.
    pub(super) values: Vec<(ColumnPattern, RuleKey, usize)>,
    /// Columns that may be cut so that a record fits.
    pub(super) oversize: Vec<ColumnPattern>,
}

/// A rule for the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleKey {
    /// That many asterisks.
    Mask,
    /// A salted hash.
    Hash,
    /// At most that many characters.
    Truncate,
    /// As many characters as fit.
    TruncateOversize,
}

impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mask => "mask",
            Self::Hash => "hash",
            Self::Truncate => "truncate",
            Self::TruncateOversize => "truncate_oversize",
        })
    }
}

impl ColumnRules {
    /// Whether this column is to be published.
    #[must_use]
    pub fn publishes(&self, column: &str) -> bool {
        let any = |list: &[ColumnPattern]| list.iter().any(|pattern| pattern.matches(column));
        self.include.as_deref().is_none_or(any) && !any(&self.exclude)
    }

    /// The rule for the values of this column, with its number (0 for a hash).
    #[must_use]
    pub fn rule(&self, column: &str) -> Option<(RuleKey, usize)> {
        let found = self.values.iter().find(|(pattern, ..)| pattern.matches(column));
        found.map(|&(_, rule, count)| (rule, count))
    }

    /// Whether the values of this column may be cut so that a record fits.
    #[must_use]
    pub fn cuts_oversize(&self, column: &str) -> bool {
        self.oversize.iter().any(|pattern| pattern.matches(column))
    }

    /// Whether it publishes every column of every table unchanged.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.include.is_none()
            && self.exclude.is_empty()
            && self.values.is_empty()
            && self.oversize.is_empty()
    }

    /// Exact names that match none of these columns and should hide something, each with its key.
    pub fn unknown_hidden<'a>(
        &'a self,
        columns: &'a [String],
    ) -> impl Iterator<Item = (String, &'a str)> {
        let excluded = self.exclude.iter().map(|pattern| ("exclude_columns".to_owned(), pattern));
        let values = self.values.iter().map(|(pattern, rule, _)| (rule.to_string(), pattern));
        excluded
            .chain(values)
            .filter(|(_, pattern)| {
                pattern.is_exact() && !columns.iter().any(|c| pattern.matches(c))
            })
            .map(|(key, pattern)| (key, pattern.as_str()))
    }

    /// Exact names that match none of these columns: most likely typos.
    pub fn unknown<'a>(&'a self, columns: &'a [String]) -> impl Iterator<Item = &'a str> {
        self.include
            .iter()
            .flatten()
            .chain(&self.exclude)
            .chain(self.values.iter().map(|(pattern, ..)| pattern))
            .chain(&self.oversize)
            .filter(|pattern| pattern.is_exact() && !columns.iter().any(|c| pattern.matches(c)))
            .map(ColumnPattern::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &[&str]) -> Vec<ColumnPattern> {
        list.iter().map(|text| ColumnPattern::parse(text).unwrap()).collect()
    }

    fn filter(include: Option<&[&str]>, exclude: &[&str]) -> ColumnRules {
        let include = include.map(patterns);
        ColumnRules { include, exclude: patterns(exclude), ..ColumnRules::default() }
    }

    #[test]
    fn exclusions_win_over_inclusions() {
        let both = filter(Some(&["id", "card_*"]), &["card_number"]);
        let published: Vec<bool> =
            ["id", "card_type", "card_number", "name"].map(|c| both.publishes(c)).to_vec();
        assert_eq!(published, [true, true, false, false]);
        assert!(filter(None, &["card_*"]).publishes("id"));
        assert!(filter(None, &[]).is_open() && !both.is_open());
        assert!(!filter(None, &["Card"]).is_open());
        assert!(filter(None, &["Card"]).publishes("card"), "names are compared as they are stored");
    }

    #[test]
    fn only_names_without_globs_count_as_slips() {
        let columns = ["id".to_owned(), "email".to_owned()];
        let typo = filter(Some(&["id", "emial", "x*"]), &["phone"]);
        assert_eq!(typo.unknown(&columns).collect::<Vec<_>>(), ["emial", "phone"]);
    }
}
