//! Settings that name a table exactly although no table has that name: most likely typos. If such a
//! setting hides something, that would be published under the intended name.
//!
//! A table that is created later can be named by a glob, which may match nothing yet.

use std::collections::BTreeSet;

use super::hiding::toml_text;
use super::pattern::{TableFilter, TablePattern};
use super::tables::TableSettings;

/// How many names are suggested.
const SUGGESTED: usize = 3;

/// Below this similarity, suggestions are misleading; a typo changes a short name more.
fn alike(word: &str) -> f64 {
    if word.len() < 8 { 0.6 } else { 0.75 }
}

/// A setting that names something that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmatched {
    /// Whether it would hide something.
    pub hides: bool,
    /// What is wrong.
    pub cause: String,
    /// What to write.
    pub fix: String,
}

/// The settings that name no table, and those that name no column of the table they name. `tables`
/// are all current and former names.
#[must_use]
pub fn unmatched(
    captured: &TableFilter,
    settings: &TableSettings,
    tables: &[(&str, &str)],
) -> Vec<Unmatched> {
    let (include, exclude) = captured.exact();
    let plain = |patterns: Vec<&TablePattern>, key: &'static str, hides: bool| {
        let named = move |pattern: &TablePattern| {
            (format!("{key} names {}", toml_text(pattern.as_str())), pattern.clone(), hides)
        };
        patterns.into_iter().map(named).collect::<Vec<_>>()
    };
    let mut exact = plain(include, "postgres.tables", false);
    exact.extend(plain(exclude, "postgres.exclude_tables", true));
    exact.extend(settings.exact().map(|(pattern, hiding)| {
        let key = hiding.map_or_else(String::new, |key| format!(".{key}"));
        let named = format!("tables.{}{key} names a table", toml_text(pattern.as_str()));
        (named, pattern.clone(), hiding.is_some())
    }));
    let is_missing = |pattern: &TablePattern| !tables.iter().any(|of| pattern.matches(of.0, of.1));
    let missing = exact.into_iter().filter(|(_, pattern, _)| is_missing(pattern));
    missing
        .map(|(named, pattern, hides)| {
            let names = tables.iter().map(|(schema, table)| format!("{schema}.{table}"));
            let meant = match nearest_names(pattern.as_str(), names).as_slice() {
                [] => "correct the name".to_owned(),
                names => format!("correct the name: {}", names.join(", or ")),
            };
            let fix = match hides {
                true => format!(
                    "{meant}; if the table is created later, write the name as a glob, which may \
                     match nothing yet: {}",
                    toml_text(&later(pattern.as_str()))
                ),
                false => meant,
            };
            Unmatched { hides, cause: format!("{named} that does not exist"), fix }
        })
        .collect()
}

/// The most similar names, best first.
#[must_use]
pub fn nearest_names(word: &str, known: impl Iterator<Item = String>) -> Vec<String> {
    let likeness = |name: &String| strsim::normalized_damerau_levenshtein(word, name);
    let known: BTreeSet<String> = known.collect();
    let known = known.into_iter();
    let mut alike: Vec<(f64, String)> = known
        .map(|name| (likeness(&name), name))
        .filter(|(like, _)| *like >= alike(word))
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    alike.truncate(SUGGESTED);
    alike.into_iter().map(|(_, name)| name).collect()
}

/// A glob that matches what an exact pattern names, and nothing else.
#[must_use]
pub fn later(exact: &str) -> String {
    let mut name = exact.to_owned();
    match name.pop() {
        Some(last) => format!("{name}[{last}]"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Table;

    fn found(include: &[&str], exclude: &[&str], settings: &[(&str, Table)]) -> Vec<Unmatched> {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let captured = TableFilter::parse(&owned(include), &owned(exclude)).unwrap();
        let settings = settings.iter().map(|(name, table)| ((*name).to_owned(), table.clone()));
        let settings = TableSettings::parse(&settings.collect()).unwrap();
        unmatched(&captured, &settings, &[("public", "rides"), ("public", "zones"), ("a.b", "c")])
    }

    fn excluding() -> Table {
        Table { exclude_columns: Some(vec!["ssn".to_owned()]), ..Table::default() }
    }

    #[test]
    fn a_name_that_no_table_has_is_found_with_the_names_that_are_near() {
        let typo = found(&["public.ridez"], &["public.zonse"], &[("public.ridez", excluding())]);
        assert_eq!(typo.iter().map(|of| of.hides).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(typo[0].cause, "postgres.tables names \"public.ridez\" that does not exist");
        assert_eq!(typo[0].fix, "correct the name: public.rides");
        assert!(typo[1].fix.starts_with("correct the name: public.zones"), "{}", typo[1].fix);
        assert_eq!(
            typo[2].cause,
            "tables.\"public.ridez\".exclude_columns names a table that does not exist"
        );
        assert!(typo[2].fix.contains("match nothing yet: \"public.ride[z]\""), "{}", typo[2].fix);
    }

    #[test]
    fn what_the_fix_says_is_taken_whether_the_table_is_there_or_not() {
        for name in ["public.ride[z]", "public.ride*", "public.rides", "a[.]b.c"] {
            assert_eq!(found(&[name], &[name], &[(name, excluding())]), [], "{name}");
        }
        let glob = TablePattern::parse(&later("public.ridez")).unwrap();
        assert!(glob.matches("public", "ridez") && !glob.matches("public", "rides"));
        assert!(!glob.is_exact());
    }

    #[test]
    fn settings_that_hide_nothing_are_told_as_such() {
        let topic = Table { topic: Some("t".to_owned()), ..Table::default() };
        let found = found(&["*.*"], &[], &[("public.ridez", topic)]);
        assert_eq!(found.iter().map(|of| of.hides).collect::<Vec<_>>(), [false]);
    }
}
