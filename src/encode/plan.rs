//! What an encoder works out once per relation: codecs, escaped names, rules, the fixed parts.

use std::sync::Arc;

use crate::change::{OldRow, Relation, Row};
use crate::config::{Format, ValueFormat};
use crate::pgoutput::Datum;
use crate::types::{Codec, Forms, codec_for, write_string};

use super::error::EncodeError;
use super::rules::{Rule, Ruled};
use super::{cloudevents, envelope};

/// A relation, ready to be written.
#[derive(Debug)]
pub(super) struct Plan {
    /// Held so that its address stays taken: an equal pointer means the plan still holds.
    pub(super) relation: Arc<Relation>,
    pub(super) columns: Vec<PlannedColumn>,
    /// The fields that name the table in what the format says of the source.
    pub(super) source_table: Vec<u8>,
    /// Where the table's events are counted.
    pub(super) collection: usize,
}

#[derive(Debug)]
pub(super) struct PlannedColumn {
    pub(super) codec: Codec,
    /// `,"name":`; the comma of an object's first column is overwritten by its brace.
    pub(super) name: Vec<u8>,
    /// The same with the null that often follows.
    pub(super) null: Vec<u8>,
    pub(super) in_identity: bool,
    pub(super) rule: Rule,
}

impl Plan {
    /// `rules` has one rule a column.
    pub(super) fn new(
        relation: &Arc<Relation>,
        rules: Vec<Rule>,
        format: &Format,
        forms: &Forms,
        collection: usize,
    ) -> Self {
        let source_table = match format.value {
            ValueFormat::CloudEvents => cloudevents::table_attributes,
            ValueFormat::Debezium | ValueFormat::Flat => envelope::table_fields,
        };
        let columns = relation.columns.iter().zip(rules).map(|(column, rule)| {
            let mut name = vec![b','];
            write_string(&column.name, &mut name);
            name.push(b':');
            PlannedColumn {
                codec: codec_for(column.type_oid, column.typmod, &relation.types, forms),
                null: [&name, b"null".as_slice()].concat(),
                name,
                in_identity: column.in_identity,
                rule,
            }
        });
        Self {
            columns: columns.collect(),
            source_table: source_table(&relation.schema, &relation.table),
            collection,
            relation: Arc::clone(relation),
        }
    }

    /// `{"before":..,"after":..`, with null for what there is not.
    #[inline]
    pub(super) fn write_rows(
        &self,
        before: Option<&OldRow<'_>>,
        after: Option<&Row<'_>>,
        unchanged: &mut Vec<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        out.extend_from_slice(b"{\"before\":");
        match before {
            Some(before) => self.write_old_row(before, out)?,
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"after\":");
        match after {
            Some(after) => self.write_row(after, unchanged, out)?,
            None => out.extend_from_slice(b"null"),
        }
        Ok(())
    }

    /// A row after a change, as an object. A TOAST value that did not change and that no old row
    /// lends is left out; its place goes into `unchanged`.
    #[inline]
    pub(super) fn write_row(
        &self,
        row: &Row<'_>,
        unchanged: &mut Vec<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        for (at, (column, sent)) in self.columns.iter().zip(row.tuple()).enumerate() {
            if column.rule.leaves_out() {
                continue;
            }
            let datum = match sent {
                Datum::Unchanged => row.unchanged(&self.relation, at),
                sent => sent,
            };
            if datum == Datum::Unchanged {
                unchanged.push(at);
            } else {
                self.write_column(at, column, datum, out)?;
            }
        }
        close_object(start, out);
        Ok(())
    }

    /// A row before a change, as an object of the columns that are known.
    pub(super) fn write_old_row(
        &self,
        row: &OldRow<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        let whole = matches!(row, OldRow::Full(_));
        for (at, (column, datum)) in self.columns.iter().zip(row.tuple()).enumerate() {
            // The server fetches old values from TOAST; one that it does not send is not known.
            let is_wanted = !column.rule.leaves_out();
            if is_wanted && (whole || column.in_identity) && datum != Datum::Unchanged {
                self.write_column(at, column, datum, out)?;
            }
        }
        close_object(start, out);
        Ok(())
    }

    #[inline]
    fn write_column(
        &self,
        at: usize,
        column: &PlannedColumn,
        datum: Datum<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let datum = match &column.rule {
            Rule::Publish => datum,
            rule => match rule.apply(&column.name, datum, out) {
                Ruled::Written => return Ok(()),
                Ruled::Publish(datum) => datum,
            },
        };
        match datum {
            Datum::Text(text) => {
                out.extend_from_slice(&column.name);
                column.codec.write_json(text, out).map_err(|source| {
                    self.error(at, |table, column| EncodeError::Value { table, column, source })
                })
            }
            Datum::Null => {
                out.extend_from_slice(&column.null);
                Ok(())
            }
            Datum::Binary(_) => {
                Err(self.error(at, |table, column| EncodeError::Binary { table, column }))
            }
            Datum::Unchanged => Ok(()),
        }
    }

    /// An error that names the table and the column.
    #[cold]
    pub(super) fn error(
        &self,
        at: usize,
        error: impl FnOnce(String, String) -> EncodeError,
    ) -> EncodeError {
        let column = self.relation.columns.get(at).map(|column| column.name.clone());
        error(self.relation.full_name.clone(), column.unwrap_or_default())
    }
}

/// Ends an object whose columns each began with a comma: the first comma becomes the brace.
#[inline]
pub(super) fn close_object(start: usize, out: &mut Vec<u8>) {
    match out.get_mut(start) {
        Some(first) => *first = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}
