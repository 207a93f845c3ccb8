//! Writes the SQL that reads a table in key order, a chunk at a time.
//!
//! ```sql
//! COPY (SELECT columns FROM table
//!       WHERE (a, b) > ('7'::int4, 'x'::text) AND (a, b) <= ('9'::int4, 'y'::text) AND ...
//!       ORDER BY a, b LIMIT 1000) TO STDOUT
//! ```
//!
//! with the schema in front of each type and operator.
//!
//! Row comparison follows the order of the key's index, whatever the columns' types and collations:
//! each chunk is a range of the index. Values are passed as the text that was read, cast to their
//! columns' types. The end is fixed when the snapshot begins; later rows are in the stream.

use postgres_protocol::escape::{escape_identifier, escape_literal};

/// A column of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// The type for comparison, schema-qualified, as written in SQL.
    pub type_sql: String,
    /// The schema of the operators that compare it.
    pub operators: String,
}

/// A table that is read in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyset {
    /// The table, as written in a FROM clause.
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

    /// The query for the greatest key.
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

    /// Compares the key with values, in the order of the table's index.
    ///
    /// Operators are schema-qualified, so that a better match that someone created elsewhere is not
    /// used. If they are in several schemas, a row comparison can't name them and is written out.
    fn compared(&self, operator: &str, values: &[String]) -> String {
        let is_one = self.key.windows(2).all(|pair| match pair {
            [one, other] => one.operators == other.operators,
            _ => true,
        });
        let Some(first) = self.key.first() else { return "true".to_owned() };
        let sides: Vec<(String, String, &KeyColumn)> = self
            .key
            .iter()
            .zip(values)
            .map(|(column, value)| (column.operand(), column.literal(value), column))
            .collect();
        if is_one {
            let key: Vec<&str> = sides.iter().map(|(key, ..)| key.as_str()).collect();
            let values: Vec<&str> = sides.iter().map(|(_, value, _)| value.as_str()).collect();
            let operator = first.operator(operator);
            return format!("({}) {operator} ({})", key.join(", "), values.join(", "));
        }
        written_out(operator, &sides)
    }
}

/// `a >= x AND (a > x OR a = x AND (b > y))`: the bound on the first column lets the index be used.
fn written_out(operator: &str, sides: &[(String, String, &KeyColumn)]) -> String {
    let Some(((key, value, column), rest)) = sides.split_first() else { return "true".to_owned() };
    let (strict, loose) = if operator.starts_with('>') { (">", ">=") } else { ("<", "<=") };
    let compare = |name: &str| format!("{key} {} {value}", column.operator(name));
    if rest.is_empty() {
        return compare(operator);
    }
    format!(
        "({} AND ({} OR {} AND {}))",
        compare(loose),
        compare(strict),
        compare("="),
        written_out(operator, rest)
    )
}

impl KeyColumn {
    /// The column. If its operators are not the system's, cast to exactly their type: for a column
    /// of another type (a domain), someone could create operators that match better.
    fn operand(&self) -> String {
        let name = escape_identifier(&self.name);
        if self.operators == SYSTEM { name } else { format!("{name}::{}", self.type_sql) }
    }

    fn literal(&self, value: &str) -> String {
        format!("{}::{}", escape_literal(value).trim_start(), self.type_sql)
    }

    fn operator(&self, name: &str) -> String {
        format!("OPERATOR({}.{name})", escape_identifier(&self.operators))
    }
}

/// The schema in which only the server itself can create objects.
const SYSTEM: &str = "pg_catalog";

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| escape_identifier(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyset(key: &[(&str, &str, &str)], conditions: &[&str]) -> Keyset {
        let key = key.iter().map(|(name, type_sql, operators)| KeyColumn {
            name: (*name).to_owned(),
            type_sql: (*type_sql).to_owned(),
            operators: (*operators).to_owned(),
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
            keyset(&[("id", "pg_catalog.int8", SYSTEM)], &[]).chunk(None, &texts(&["9"]), 5),
            r#"COPY (SELECT "id", "No""te" FROM ONLY "public"."rides" WHERE ("id") OPERATOR("pg_catalog".<=) ('9'::pg_catalog.int8) ORDER BY "id" LIMIT 5) TO STDOUT"#
        );
    }

    #[test]
    fn composite_keys_are_compared_as_rows_and_values_cannot_break_out() {
        let keyset = keyset(
            &[("a", "pg_catalog.numeric", SYSTEM), ("b", "pg_catalog.text", SYSTEM)],
            &["c > 5 -- cheap", "d IS NULL"],
        );
        let after = texts(&["1.50", r"it's\"]);
        let sql = keyset.chunk(Some(&after), &texts(&["2.00", ""]), 1);
        let bounds = concat!(
            r#"WHERE ("a", "b") OPERATOR("pg_catalog".>) "#,
            r#"('1.50'::pg_catalog.numeric, E'it''s\\'::pg_catalog.text) "#,
            r#"AND ("a", "b") OPERATOR("pg_catalog".<=) "#,
            r#"('2.00'::pg_catalog.numeric, ''::pg_catalog.text) "#,
            "AND (c > 5 -- cheap\n) AND (d IS NULL\n) ORDER BY"
        );
        assert!(sql.contains(bounds), "{sql}");
    }

    #[test]
    fn operators_of_several_schemas_are_named_each_by_its_own() {
        let keyset = keyset(&[("a", "pg_catalog.int4", SYSTEM), ("b", r#""x".citext"#, "x")], &[]);
        assert_eq!(
            keyset.compared(">", &texts(&["1", "y"])),
            concat!(
                r#"("a" OPERATOR("pg_catalog".>=) '1'::pg_catalog.int4 AND "#,
                r#"("a" OPERATOR("pg_catalog".>) '1'::pg_catalog.int4 OR "#,
                r#""a" OPERATOR("pg_catalog".=) '1'::pg_catalog.int4 AND "#,
                r#""b"::"x".citext OPERATOR("x".>) 'y'::"x".citext))"#
            )
        );
    }

    #[test]
    fn the_greatest_key_is_asked_for_under_the_same_conditions() {
        let key = [("a", "pg_catalog.text", SYSTEM), ("b", "pg_catalog.uuid", SYSTEM)];
        assert_eq!(
            keyset(&key, &["x"]).last(),
            "SELECT \"a\", \"b\" FROM ONLY \"public\".\"rides\" WHERE (x\n) ORDER BY \"a\" DESC, \"b\" DESC LIMIT 1"
        );
    }
}
