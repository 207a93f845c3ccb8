//! The tables that a request names: names are looked up, patterns are compiled once.
//!
//! A name is `schema.table`, a glob of it, or a regular expression between slashes, which has to
//! match the whole name, as Debezium's do.
//!
//! A request comes from outside, so its cost is bounded before anything is done with it.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};

use super::bounds::{MAX_GLOBS, MAX_NAME_BYTES, MAX_NAMES, SignalError};
use crate::config::TablePattern;

/// Memory limit of a compiled regular expression.
const MAX_REGEX_BYTES: usize = 128 * 1024;

/// Names and patterns of `schema.table`.
#[derive(Debug, Clone, Default)]
pub struct TableNames {
    /// By schema and table, as they were written.
    exact: BTreeMap<(String, String), String>,
    globs: Vec<TablePattern>,
    regexes: Vec<(String, Regex)>,
}

impl TableNames {
    /// Reads the names of a request.
    ///
    /// # Errors
    /// When there are none, too many, too long ones, or one that names no schema or is not a valid
    /// glob.
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
        let is_pattern = |name: &&String| is_glob(name) || regex_in(name).is_some();
        let globs = names.iter().filter(is_pattern).count();
        if globs > MAX_GLOBS {
            return Err(SignalError::TooManyGlobs { count: globs });
        }
        let mut parsed = Self::default();
        for name in names {
            if let Some(regex) = regex_in(name) {
                parsed.regexes.push((name.clone(), compile(regex)?));
                continue;
            }
            match name.split_once('.').filter(|_| !is_glob(&name)) {
                Some((schema, table)) if !schema.is_empty() && !table.is_empty() => {
                    parsed.exact.insert((schema.to_owned(), table.to_owned()), name.clone());
                }
                // That reports what is wrong with it.
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
            || self.matches_regex(schema, table)
    }

    fn matches_regex(&self, schema: &str, table: &str) -> bool {
        !self.regexes.is_empty() && {
            let name = format!("{schema}.{table}");
            self.regexes.iter().any(|(_, regex)| regex.is_match(&name))
        }
    }

    /// The first name that matches none of these tables.
    pub fn unmatched<'a>(&self, tables: impl Iterator<Item = (&'a str, &'a str)>) -> Option<&str> {
        let mut exact: BTreeMap<(&str, &str), &str> = self
            .exact
            .iter()
            .map(|((schema, table), name)| ((schema.as_str(), table.as_str()), name.as_str()))
            .collect();
        let mut globs: Vec<&TablePattern> = self.globs.iter().collect();
        let mut regexes: Vec<&(String, Regex)> = self.regexes.iter().collect();
        for (schema, table) in tables {
            exact.remove(&(schema, table));
            globs.retain(|glob| !glob.matches(schema, table));
            if !regexes.is_empty() {
                let name = format!("{schema}.{table}");
                regexes.retain(|(_, regex)| !regex.is_match(&name));
            }
        }
        let name = exact.into_values().next();
        let name = name.or_else(|| globs.first().map(|glob| glob.as_str()));
        name.or_else(|| regexes.first().map(|(name, _)| name.as_str()))
    }
}

/// The regular expression of a name between slashes; no schema's name begins with a slash.
fn regex_in(name: &str) -> Option<&str> {
    name.strip_prefix('/')?.strip_suffix('/')
}

fn compile(text: &str) -> Result<Regex, SignalError> {
    RegexBuilder::new(&format!("^(?:{text})$"))
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_BYTES)
        .build()
        .map_err(|error| SignalError::Regex {
            pattern: text.to_owned(),
            reason: match error {
                regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
                // The last line has the reason; those before show the position.
                error => error.to_string().lines().last().unwrap_or_default().to_owned(),
            },
        })
}

/// Whether a name of Debezium's has to be compiled, here or as a glob.
pub(super) fn is_pattern(name: &str) -> bool {
    unescaped(name).contains(is_special)
}

/// A Debezium name in its form for comparison: a regular expression as it is, any other without its
/// escapes. Nothing is compiled.
pub(super) fn compared(name: &str) -> String {
    let plain = unescaped(name);
    if is_regex(&plain) { name.to_owned() } else { plain }
}

/// An escaped dot is the separator of a name.
fn unescaped(name: &str) -> String {
    name.replace("\\.", ".")
}

fn is_special(c: char) -> bool {
    r"\^$|?*+()[]{}".contains(c)
}

/// Whether a name, without its escaped dots, is a regular expression instead of a plain name or a
/// whole schema.
fn is_regex(plain: &str) -> bool {
    let is_all_of_schema = plain
        .strip_suffix(".*")
        .is_some_and(|of| !of.is_empty() && !of.contains('.') && !of.contains(is_special));
    !is_all_of_schema && plain.contains(is_special)
}

/// Converts a name of Debezium's `data-collections`. In Debezium it is a regular expression, or the
/// name itself if that matches nothing.
///
/// # Errors
/// When it is neither a name, a glob nor a regular expression.
pub(super) fn of_debezium(name: &str) -> Result<String, SignalError> {
    let plain = unescaped(name);
    if !is_regex(&plain) {
        return Ok(plain);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(SignalError::LongName { bytes: name.len() });
    }
    match compile(name) {
        Ok(_) => Ok(format!("/{name}/")),
        // `*.*` is none.
        Err(_) if TablePattern::parse(name).is_ok() && !name.contains(['(', '|', '+', '^']) => {
            Ok(name.to_owned())
        }
        Err(error) => Err(error),
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
    fn a_regular_expression_matches_the_whole_name() {
        let parsed = names(&["/public\\.t.*/", "/(a|b)\\.log/"]).unwrap();
        assert!(parsed.matches("public", "trips") && parsed.matches("b", "log"));
        assert!(!parsed.matches("public", "a_t") && !parsed.matches("b", "logs"));
        assert_eq!(parsed.unmatched([("b", "log")].into_iter()), Some("/public\\.t.*/"));
        for wrong in ["/(/", "/a(?=b)/", "/(a)\\1/", "/\\w{50}\\w{50}\\w{500}/"] {
            assert!(matches!(names(&[wrong]), Err(SignalError::Regex { .. })), "{wrong}");
        }
    }

    #[test]
    fn names_of_debezium_mean_what_they_mean_there() {
        for (name, here) in [
            ("public.trips", "public.trips"),
            ("public\\.trips", "public.trips"),
            ("public.*", "public.*"),
            ("public\\..*", "/public\\..*/"),
            ("public.t.*", "/public.t.*/"),
            ("(public|audit).trips", "/(public|audit).trips/"),
            ("public.trips_?", "/public.trips_?/"),
            (".*", "/.*/"),
            ("*.*", "*.*"),
        ] {
            assert_eq!(of_debezium(name).unwrap(), here, "{name}");
        }
        for wrong in ["public.t(", "public.(?!a).*", "*+"] {
            assert!(matches!(of_debezium(wrong), Err(SignalError::Regex { .. })), "{wrong}");
        }
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
