//! The SQL that reads a table in the order of a key, a chunk at a time.
//!
//! ```sql
//! COPY (SELECT columns FROM table
//!       WHERE (a, b) > ('7'::integer, 'x'::text) AND (a, b) <= ('9'::integer, 'y'::text) AND ...
//!       ORDER BY a, b LIMIT 1000) TO STDOUT
//! ```
//!
//! The comparison of rows is the order of the key's index, whatever the columns' types and
//! collations: each chunk is a range of the index. Values come back in as the text that came out,
//! cast to their columns' types. The end is fixed when the snapshot begins; what comes after it is
//! in the stream.

use postgres_protocol::escape::{escape_identifier, escape_literal};

/// A column of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// Its type, as it stands in SQL.
    pub type_sql: String,
}

/// A table that is read in the order of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyset {
    /// The table, as it stands in a FROM clause.
    pub from: String,
    /// The columns to read.
    pub columns: Vec<String>,
    /// The key, in its order; at least one column, none of which can be null.
    pub key: Vec<KeyColumn>,
    /// SQL conditions that rows must meet.
    pub conditions: Vec<String>,
}

impl Keyset {
    /// Reads the next chunk: the rows after a key, up to and including another.
    #[must_use]
    pub fn chunk(&self, after: Option<&[String]>, last: &[String], rows: u64) -> String {
        let bounds = after
            .map(|after| self.compared(">", after))
            .into_iter()
            .chain([self.compared("<=", last)]);
        format!(
            "COPY (SELECT {} FROM {}{} ORDER BY {} LIMIT {rows}) TO STDOUT",
            names(self.columns.iter()),
            self.from,
            self.filtered(bounds),
            names(self.key.iter().map(|column| &column.name)),
        )
    }

    /// Asks for the greatest key.
    #[must_use]
    pub fn last(&self) -> String {
        let key = self.key.iter().map(|column| &column.name);
        let order: Vec<String> =
            key.clone().map(|name| format!("{} DESC", escape_identifier(name))).collect();
        format!(
            "SELECT {} FROM {}{} ORDER BY {} LIMIT 1",
            names(key),
            self.from,
            self.filtered([]),
            order.join(", "),
        )
    }

    fn filtered(&self, bounds: impl IntoIterator<Item = String>) -> String {
        // The line break ends a comment that a condition may end with.
        let conditions = self.conditions.iter().map(|condition| format!("({condition}\n)"));
        let all: Vec<String> = bounds.into_iter().chain(conditions).collect();
        if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) }
    }

    fn compared(&self, operator: &str, values: &[String]) -> String {
        let key = names(self.key.iter().map(|column| &column.name));
        let values: Vec<String> = self
            .key
            .iter()
            .zip(values)
            .map(|(column, value)| {
                format!("{}::{}", escape_literal(value).trim_start(), column.type_sql)
            })
            .collect();
        format!("({key}) {operator} ({})", values.join(", "))
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| escape_identifier(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyset(key: &[(&str, &str)], conditions: &[&str]) -> Keyset {
        let key = key.iter().map(|(name, type_sql)| KeyColumn {
            name: (*name).to_owned(),
            type_sql: (*type_sql).to_owned(),
        });
        Keyset {
            from: r#"ONLY "public"."rides""#.to_owned(),
            columns: vec!["id".to_owned(), "No\"te".to_owned()],
            key: key.collect(),
            conditions: conditions.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn the_first_chunk_has_no_lower_bound() {
        assert_eq!(
            keyset(&[("id", "bigint")], &[]).chunk(None, &texts(&["9"]), 5),
            r#"COPY (SELECT "id", "No""te" FROM ONLY "public"."rides" WHERE ("id") <= ('9'::bigint) ORDER BY "id" LIMIT 5) TO STDOUT"#
        );
    }

    #[test]
    fn composite_keys_are_compared_as_rows_and_values_cannot_break_out() {
        let keyset =
            keyset(&[("a", "numeric(5,2)"), ("b", "text")], &["c > 5 -- cheap", "d IS NULL"]);
        let after = texts(&["1.50", r"it's\"]);
        let sql = keyset.chunk(Some(&after), &texts(&["2.00", ""]), 1);
        let bounds = concat!(
            r#"WHERE ("a", "b") > ('1.50'::numeric(5,2), E'it''s\\'::text) "#,
            r#"AND ("a", "b") <= ('2.00'::numeric(5,2), ''::text) "#,
            "AND (c > 5 -- cheap\n) AND (d IS NULL\n) ORDER BY"
        );
        assert!(sql.contains(bounds), "{sql}");
    }

    #[test]
    fn the_greatest_key_is_asked_for_under_the_same_conditions() {
        assert_eq!(
            keyset(&[("a", "text"), ("b", "uuid")], &["x"]).last(),
            "SELECT \"a\", \"b\" FROM ONLY \"public\".\"rides\" WHERE (x\n) ORDER BY \"a\" DESC, \"b\" DESC LIMIT 1"
        );
    }
}
