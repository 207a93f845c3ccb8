//! The tables that a request names: names are looked up, globs are compiled once.
//!
//! A request comes from outside, so what it can cost is bounded before anything is done with it.

use std::collections::BTreeMap;

use super::bounds::{MAX_GLOBS, MAX_NAME_BYTES, MAX_NAMES, SignalError};
use crate::config::TablePattern;

/// Names and globs of `schema.table`.
#[derive(Debug, Clone, Default)]
pub struct TableNames {
    /// By schema and table, as they were written.
    exact: BTreeMap<(String, String), String>,
    globs: Vec<TablePattern>,
}

impl TableNames {
    /// Reads the names of a request.
    ///
    /// # Errors
    /// When there are none, too many, too long ones, or one that names no schema or is no glob.
    pub fn parse(names: &[String]) -> Result<Self, SignalError> {
        if names.is_empty() {
            return Err(SignalError::NoTable);
        }
        if names.len() > MAX_NAMES {
            return Err(SignalError::TooManyTables { count: names.len() });
        }
        if let Some(long) = names.iter().find(|name| name.len() > MAX_NAME_BYTES) {
            return Err(SignalError::LongName { bytes: long.len() });
        }
        let is_glob = |name: &&String| name.contains(['*', '?', '[', '{', '\\']);
        let globs = names.iter().filter(is_glob).count();
        if globs > MAX_GLOBS {
            return Err(SignalError::TooManyGlobs { count: globs });
        }
        let mut parsed = Self::default();
        for name in names {
            match name.split_once('.').filter(|_| !is_glob(&name)) {
                Some((schema, table)) if !schema.is_empty() && !table.is_empty() => {
                    parsed.exact.insert((schema.to_owned(), table.to_owned()), name.clone());
                }
                // What is wrong with it is said there.
                _ => parsed.globs.push(TablePattern::parse(name)?),
            }
        }
        Ok(parsed)
    }

    /// Whether the table is among them.
    #[must_use]
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        self.exact.contains_key(&(schema.to_owned(), table.to_owned()))
            || self.globs.iter().any(|glob| glob.matches(schema, table))
    }

    /// The first name that is none of these tables, and matches none.
    pub fn unmatched<'a>(&self, tables: impl Iterator<Item = (&'a str, &'a str)>) -> Option<&str> {
        let mut exact: BTreeMap<(&str, &str), &str> = self
            .exact
            .iter()
            .map(|((schema, table), name)| ((schema.as_str(), table.as_str()), name.as_str()))
            .collect();
        let mut globs: Vec<&TablePattern> = self.globs.iter().collect();
        for (schema, table) in tables {
            exact.remove(&(schema, table));
            globs.retain(|glob| !glob.matches(schema, table));
        }
        let name = exact.into_values().next();
        name.or_else(|| globs.first().map(|glob| glob.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Result<TableNames, SignalError> {
        TableNames::parse(&list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn names_are_looked_up_and_globs_match() {
        let parsed = names(&["public.trips", "a.b.c", "audit.*"]).unwrap();
        assert!(parsed.matches("public", "trips") && parsed.matches("a", "b.c"));
        assert!(parsed.matches("audit", "log") && !parsed.matches("public", "trip"));
        let of = [("public", "trips"), ("a", "b.c")];
        assert_eq!(parsed.unmatched(of.into_iter()), Some("audit.*"));
        assert_eq!(parsed.unmatched([("audit", "x")].into_iter()), Some("a.b.c"));
        assert_eq!(parsed.unmatched(of.into_iter().chain([("audit", "x")])), None);
    }

    #[test]
    fn too_many_and_too_long_ones_are_refused_before_anything_is_made_of_them() {
        let many: Vec<String> = (0..=MAX_NAMES).map(|n| format!("public.t{n}")).collect();
        assert!(matches!(TableNames::parse(&many), Err(SignalError::TooManyTables { .. })));
        assert!(TableNames::parse(&many[1..]).is_ok());
        let globs: Vec<String> = (0..=MAX_GLOBS).map(|n| format!("public.t{n}*")).collect();
        assert!(matches!(TableNames::parse(&globs), Err(SignalError::TooManyGlobs { .. })));
        let long = format!("public.{}", "x".repeat(MAX_NAME_BYTES));
        assert!(matches!(names(&[&long]), Err(SignalError::LongName { .. })));
        assert!(matches!(names(&["trips"]), Err(SignalError::Pattern(_))));
        assert!(matches!(names(&[]), Err(SignalError::NoTable)));
    }
}
