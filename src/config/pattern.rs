//! Patterns of table names: `public.rides`, `public.*`, `{public,audit}.rides_?`.
//!
//! A pattern has two globs, one for the schema and one for the table, split at its first dot. They
//! are matched separately, so that `*` stays within its part and a dot inside a table's name
//! changes nothing. A dot inside a schema's name is written `[.]`.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

use super::fault::Fault;

/// A glob of `schema.table`.
#[derive(Clone)]
pub struct TablePattern {
    text: String,
    schema: GlobMatcher,
    table: GlobMatcher,
}

impl TablePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it names no schema or is not a valid glob.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let (schema, table) =
            split(text).ok_or_else(|| Fault::NoSchema { pattern: text.to_owned() })?;
        let glob = |part: &str| {
            let glob = GlobBuilder::new(part).build();
            let glob = glob.map_err(|error| Fault::NoGlob {
                pattern: text.to_owned(),
                reason: error.kind().to_string(),
            })?;
            Ok(glob.compile_matcher())
        };
        Ok(Self { text: text.to_owned(), schema: glob(schema)?, table: glob(table)? })
    }

    /// Whether it matches this table.
    #[must_use]
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        self.schema.is_match(schema) && self.table.is_match(table)
    }

    /// The text of the pattern that matches this table and no other.
    #[must_use]
    pub fn exact(schema: &str, table: &str) -> String {
        let part = |part: &str, is_schema: bool| -> String {
            let is_special = |c| "*?[]{}\\".contains(c) || (is_schema && c == '.');
            let escaped = |c: char| if is_special(c) { vec!['\\', c] } else { vec![c] };
            part.chars().flat_map(escaped).collect()
        };
        format!("{}.{}", part(schema, true), part(table, false))
    }

    /// Whether it can only match the one table that it names.
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

impl PartialEq for TablePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for TablePattern {}

impl fmt::Debug for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// The tables to capture: those that match a pattern and no exclusion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFilter {
    include: Vec<TablePattern>,
    exclude: Vec<TablePattern>,
}

impl TableFilter {
    /// Reads the patterns of both lists.
    ///
    /// # Errors
    /// For the first pattern that is wrong.
    pub fn parse(include: &[String], exclude: &[String]) -> Result<Self, Fault> {
        let parse = |list: &[String]| -> Result<Vec<_>, Fault> {
            list.iter().map(|text| TablePattern::parse(text)).collect()
        };
        Ok(Self { include: parse(include)?, exclude: parse(exclude)? })
    }

    /// Whether this table is to be captured.
    #[must_use]
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        let any = |list: &[TablePattern]| list.iter().any(|p| p.matches(schema, table));
        any(&self.include) && !any(&self.exclude)
    }

    /// The same without these tables, given as schema and name.
    #[must_use]
    pub fn without<'a>(mut self, tables: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let exact = tables.map(|(schema, table)| exactly(schema, table));
        // A table's escaped name is a valid pattern.
        self.exclude.extend(exact.filter_map(|text| TablePattern::parse(&text).ok()));
        self
    }

    /// Whether this table is excluded.
    #[must_use]
    pub fn excludes(&self, schema: &str, table: &str) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(schema, table))
    }

    /// The patterns that can only match the one table that they name: those of the tables to
    /// capture, then the exclusions.
    #[must_use]
    pub fn exact(&self) -> (Vec<&TablePattern>, Vec<&TablePattern>) {
        let [include, exclude] = [&self.include, &self.exclude]
            .map(|list| list.iter().filter(|pattern| pattern.is_exact()).collect());
        (include, exclude)
    }

    /// Whether a pattern without any glob names this table.
    #[must_use]
    pub fn names_exactly(&self, schema: &str, table: &str) -> bool {
        self.include.iter().any(|pattern| pattern.is_exact() && pattern.matches(schema, table))
    }
}

/// The pattern that matches this table and no other.
#[must_use]
pub fn exactly(schema: &str, table: &str) -> String {
    // A dot would end the schema's part.
    format!("{}.{}", globset::escape(schema).replace('.', "[.]"), globset::escape(table))
}

/// The parts before and after the first dot outside of brackets and braces.
fn split(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_u32;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'.' if depth == 0 => {
                let (schema, table) = (&text[..at], &text[at + 1..]);
                return (!schema.is_empty() && !table.is_empty()).then_some((schema, table));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_table_is_called_its_own_pattern_matches_it_alone() {
        for (schema, table) in
            [("public", "rides"), ("a.b", "c.d"), ("s*", "t?"), ("[x]", "{y,z}"), ("a", "b]")]
        {
            let pattern = TablePattern::parse(&exactly(schema, table)).unwrap();
            assert!(pattern.matches(schema, table), "{schema} {table}");
            assert!(!pattern.matches("sx", "tx") && !pattern.matches("a", "b.c.d"));
        }
    }

    fn matches(pattern: &str, schema: &str, table: &str) -> bool {
        TablePattern::parse(pattern).unwrap().matches(schema, table)
    }

    #[test]
    fn a_star_stays_within_its_part() {
        assert!(matches("*.*", "public", "rides"));
        assert!(matches("public.*", "public", "rides.old"));
        assert!(matches("public.ride*", "public", "rides"));
        assert!(!matches("public.*", "public.x", "rides"));
        assert!(matches("{public,audit}.rides_?", "audit", "rides_1"));
        assert!(matches("a[.]b.t", "a.b", "t"));
        assert!(!matches("public.rides", "public", "Rides"));
    }

    #[test]
    fn the_exact_pattern_of_a_table_matches_it_and_no_other() {
        for (schema, table) in
            [("public", "rides"), ("a.b", "c.d"), ("s*", "t?{x,y}"), ("[s]", "back\\slash")]
        {
            let pattern = TablePattern::exact(schema, table);
            assert!(matches(&pattern, schema, table), "{pattern}");
            assert!(!matches(&pattern, schema, "t0{x"), "{pattern}");
            assert!(!matches(&pattern, "sx", table), "{pattern}");
        }
    }

    #[test]
    fn exclusions_win() {
        let filter = TableFilter::parse(&["public.*".into()], &["public.tmp_*".into()]).unwrap();
        assert!(filter.matches("public", "rides"));
        assert!(!filter.matches("public", "tmp_rides"));
        assert!(!filter.matches("other", "rides"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let text = |pattern: &str| TablePattern::parse(pattern).unwrap_err().to_string();
        assert_eq!(
            text("rides"),
            "\"rides\" names no schema; write \"public.rides\" or \"*.rides\""
        );
        assert_eq!(
            text("public.[rides"),
            "\"public.[rides\" is not a valid glob: unclosed character class; missing ']'"
        );
    }
}
