//! Which columns of a table are published: those that a glob of `columns` matches and none of
//! `exclude_columns` does.
//!
//! Column names are compared as Postgres stores them: `riderId` is not `riderid`. Not here: columns
//! that must be sent whatever a filter says (keys, replica identities); only a server knows them.

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
    /// When it is no glob.
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

/// The columns of a table to publish.
#[derive(Debug, Clone, Default)]
pub struct ColumnFilter {
    /// None: every column.
    include: Option<Vec<ColumnPattern>>,
    exclude: Vec<ColumnPattern>,
}

impl ColumnFilter {
    /// Reads the patterns of both lists.
    ///
    /// # Errors
    /// For the first pattern that is wrong.
    pub fn parse(include: Option<&[String]>, exclude: &[String]) -> Result<Self, Fault> {
        let parse = |list: &[String]| -> Result<Vec<_>, Fault> {
            list.iter().map(|text| ColumnPattern::parse(text)).collect()
        };
        Ok(Self { include: include.map(parse).transpose()?, exclude: parse(exclude)? })
    }

    /// Whether this column is to be published.
    #[must_use]
    pub fn publishes(&self, column: &str) -> bool {
        let any = |list: &[ColumnPattern]| list.iter().any(|pattern| pattern.matches(column));
        self.include.as_deref().is_none_or(any) && !any(&self.exclude)
    }

    /// Whether it lets every column of every table through.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }

    /// The names without any glob that are none of these columns: slips of the pen, most likely.
    pub fn unknown<'a>(&'a self, columns: &'a [String]) -> impl Iterator<Item = &'a str> {
        self.include
            .iter()
            .flatten()
            .chain(&self.exclude)
            .filter(|pattern| pattern.is_exact() && !columns.iter().any(|c| pattern.matches(c)))
            .map(ColumnPattern::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: Option<&[&str]>, exclude: &[&str]) -> ColumnFilter {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        ColumnFilter::parse(include.map(owned).as_deref(), &owned(exclude)).unwrap()
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
