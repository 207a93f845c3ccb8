//! `postgres.signal_table`: the table whose rows are signals.
//!
//! It is added to the publication like a captured table, but its rows are not published: they are
//! meant for rowcast, and may contain conditions. They are published only if `postgres.tables`
//! names it exactly.

use super::pattern::TableFilter;

/// The table whose rows are signals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether its rows are published too.
    pub is_published: bool,
}

impl SignalTable {
    /// The signal table of this name, and the filter of captured tables without it.
    #[must_use]
    pub fn settle(text: Option<&str>, captured: TableFilter) -> (Option<Self>, TableFilter) {
        let Some((schema, name)) = text.and_then(|text| text.split_once('.')) else {
            return (None, captured);
        };
        let is_published = captured.names_exactly(schema, name) && captured.matches(schema, name);
        let captured = match is_published {
            true => captured,
            false => captured.without(std::iter::once((schema, name))),
        };
        let (schema, name) = (schema.to_owned(), name.to_owned());
        (Some(Self { schema, name, is_published }), captured)
    }

    /// Whether this is the table.
    #[must_use]
    pub fn is(&self, schema: &str, name: &str) -> bool {
        self.schema == schema && self.name == name
    }

    /// Whether this is the table, and its rows are not published.
    #[must_use]
    pub fn hides(&self, schema: &str, name: &str) -> bool {
        !self.is_published && self.is(schema, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_rows_are_published_only_where_it_is_named_exactly() {
        let settle = |tables: &str, excluded: &[String]| {
            let captured = TableFilter::parse(&[tables.to_owned()], excluded).unwrap();
            SignalTable::settle(Some("ops.signals"), captured)
        };
        for (tables, is_published) in [("*.*", false), ("ops.*", false), ("ops.signals", true)] {
            let (table, captured) = settle(tables, &[]);
            let table = table.unwrap();
            assert_eq!(table.is_published, is_published, "{tables}");
            assert_eq!(captured.matches("ops", "signals"), is_published, "{tables}");
            assert_eq!(table.hides("ops", "signals"), !is_published, "{tables}");
            assert!(!table.is("ops", "other"), "{tables}");
        }
        let (table, _) = settle("ops.signals", &["ops.sig*".to_owned()]);
        assert!(!table.unwrap().is_published, "excluded");
        assert_eq!(SignalTable::settle(None, TableFilter::parse(&[], &[]).unwrap()).0, None);
    }
}
