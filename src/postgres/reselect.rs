//! Reads columns of one row back from its table, for values that the stream does not contain.
//!
//! The row is found by its own key. The value that is read is the current one, which a later change
//! may have written: that change follows in the stream and repeats it. A row is not found if it is
//! gone, if no key identifies it, or if the table of that name is now another one than in the
//! stream. It uses the simple protocol, whose values have the same text as the stream.

use std::collections::BTreeMap;

use postgres_protocol::escape::{escape_identifier, escape_literal};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use super::catalog::Equality;
use super::{Catalog, Error};
use crate::change::{Relation, Reselected, Row};
use crate::pgoutput::Datum;

impl Catalog {
    /// The current values of some columns of a row; `None` if the row can't be found.
    ///
    /// # Errors
    /// When the role may not read the table, or the connection is lost.
    pub async fn reselect(
        &mut self,
        relation: &Relation,
        row: &Row<'_>,
        columns: &[usize],
    ) -> Result<Option<Reselected>, Error> {
        let key = relation.row_key.iter().filter_map(|&at| relation.columns.get(at));
        let types: Vec<u32> = key.map(|column| column.type_oid).collect();
        self.learn_equalities(&types).await?;
        let Some(query) = query(relation, row, columns, &self.equalities) else {
            return Ok(None);
        };
        let messages = match self.client().await?.simple_query(&query).await {
            Ok(messages) => messages,
            Err(source) if source.code().is_some_and(is_of_another_table) => return Ok(None),
            Err(source) => {
                let doing = "read an unchanged large value back, for which \
                             format.unchanged_toast = \"reselect\" needs SELECT on the table";
                return Err(Error::Sql { doing, source });
            }
        };
        let mut rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let (Some(found), None) = (rows.next(), rows.next()) else { return Ok(None) };
        let value = |(place, &at): (usize, &usize)| {
            (at, found.get(place).map(|text| text.as_bytes().to_vec()))
        };
        Ok(Some(Reselected::new(columns.iter().enumerate().map(value).collect())))
    }
}

/// The query for a row; `None` if its key is not known.
///
/// Operators are looked up only in `pg_catalog`; one of another schema is qualified, with an
/// operand cast to exactly its type.
fn query(
    relation: &Relation,
    row: &Row<'_>,
    columns: &[usize],
    equalities: &BTreeMap<u32, Option<Equality>>,
) -> Option<String> {
    let name = |at: usize| Some(escape_identifier(&relation.columns.get(at)?.name));
    let table =
        format!("{}.{}", escape_identifier(&relation.schema), escape_identifier(&relation.table));
    let is_key = |&at: &usize| {
        let Datum::Text(text) = row.datum(relation, at) else { return None };
        let (name, value) = (name(at)?, escape_literal(std::str::from_utf8(text).ok()?));
        let equality = equalities.get(&relation.columns.get(at)?.type_oid).and_then(Option::as_ref);
        Some(equality.map_or_else(
            || format!("{name} = {value}"),
            |Equality { schema, type_sql }| {
                let operator = format!("OPERATOR({}.=)", escape_identifier(schema));
                format!("{name}::{type_sql} {operator} {}::{type_sql}", value.trim_start())
            },
        ))
    };
    let wanted = columns.iter().map(|&at| name(at)).collect::<Option<Vec<_>>>()?.join(", ");
    let key = relation.row_key.iter().map(is_key).collect::<Option<Vec<_>>>()?;
    if key.is_empty() {
        return None;
    }
    // Another table may have the name now.
    Some(format!(
        "SELECT {wanted} FROM {table} WHERE {}::regclass = {}::oid AND {} LIMIT 2",
        escape_literal(&table),
        relation.oid,
        key.join(" AND ")
    ))
}

/// Whether the table was dropped, renamed or altered so that the query does not match it any more.
fn is_of_another_table(code: &SqlState) -> bool {
    [
        &SqlState::UNDEFINED_TABLE,
        &SqlState::INVALID_SCHEMA_NAME,
        &SqlState::UNDEFINED_COLUMN,
        &SqlState::UNDEFINED_FUNCTION,
        &SqlState::DATATYPE_MISMATCH,
        &SqlState::INVALID_TEXT_REPRESENTATION,
        &SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        &SqlState::INVALID_DATETIME_FORMAT,
        &SqlState::DATETIME_FIELD_OVERFLOW,
    ]
    .contains(&code)
}
