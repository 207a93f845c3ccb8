//! What an encoder works out once per relation: codecs, escaped names, rules, the fixed parts.

use std::sync::Arc;

use super::error::EncodeError;
use super::rules::{Rule, Ruled};
use super::schema::{self, Fill, Head};
use super::{cloudevents, default, envelope};
use crate::change::{OldRow, Relation, Row};
use crate::config::{Format, KeyFormat, TypeProfile, UnchangedToast, ValueFormat};
use crate::pgoutput::Datum;
use crate::types::{Codec, Forms, SchemaOf, codec_for, write_string};

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
    /// What goes in front of a key.
    pub(super) key_head: Head,
    /// What goes in front of a value.
    pub(super) value_head: Head,
    /// Whether an unchanged TOAST value without a replacement is an error.
    fails_unchanged: bool,
    /// Places of the columns that may be cut so that a record fits.
    pub(super) cuttable: Vec<usize>,
    /// Places of the columns whose values may have characters replaced.
    pub(super) replaceable: Vec<usize>,
    /// Whether a schema says of some column that it is never null.
    pub(super) has_required: bool,
    /// Places of the columns in which nulls were met although the catalog rules them out.
    pub(super) nullable: Vec<usize>,
    /// The topic by which the schemas were named.
    pub(super) topic: Option<String>,
}

#[derive(Debug)]
pub(super) struct PlannedColumn {
    pub(super) codec: Codec,
    /// `,"name":`; the comma of an object's first column is overwritten by its brace.
    pub(super) name: Vec<u8>,
    /// The same with what stands for a null: that, or what a schema wants instead.
    pub(super) null: Vec<u8>,
    /// The same with what stands for an unchanged TOAST value, where it is not left out.
    unchanged: Option<Vec<u8>>,
    /// The same with what stands for a column that an old row does not have, where it is not left
    /// out.
    absent: Option<Vec<u8>>,
    pub(super) in_identity: bool,
    /// Whether a schema says that it is never null.
    pub(super) required: bool,
    pub(super) rule: Rule,
}

impl PlannedColumn {
    /// The column at a place, and its schema where the format has schemas.
    fn new(
        relation: &Relation,
        at: usize,
        rule: Rule,
        shape: &Shape<'_>,
    ) -> Option<(Self, Option<Vec<u8>>)> {
        let column = relation.columns.get(at)?;
        let mut name = vec![b','];
        write_string(&column.name, &mut name);
        name.push(b':');
        let codec = codec_for(column.type_oid, column.typmod, &relation.types, shape.forms);
        let named = |json: &[u8]| [&name, json].concat();
        let (mut null, mut unchanged, mut absent) = (named(b"null"), None, None);
        let (mut required, mut schema) = (false, None);
        if shape.format.unchanged_toast() == UnchangedToast::Placeholder {
            let mut placeholder = Vec::new();
            codec.write_placeholder(shape.forms.placeholder(), &mut placeholder);
            unchanged = Some(named(&placeholder));
        }
        let has_schema = shape.format.value == ValueFormat::DebeziumSchema;
        if has_schema || shape.format.types == TypeProfile::Debezium {
            let facts = relation.types.get(&column.type_oid);
            let default = column
                .default
                .as_deref()
                .and_then(|expression| default::json(&codec, column.type_oid, facts, expression));
            let is_required = column.not_null || relation.key.contains(&at);
            let optional = !is_required || shape.nullable.contains(&at);
            required = has_schema && !optional;
            let of = SchemaOf { field: Some(&column.name), optional, default: default.as_deref() };
            let fill = Fill::new(&codec, &of, shape.forms.placeholder());
            absent = Some(named(&fill.null));
            if has_schema || unchanged.is_some() {
                unchanged = Some(named(&fill.unchanged));
            }
            if has_schema {
                null = named(&fill.null);
                let mut written = Vec::new();
                codec.write_schema(&of, &mut written);
                schema = Some(written);
            }
        }
        let in_identity = column.in_identity;
        let planned = Self { codec, name, null, unchanged, absent, in_identity, required, rule };
        Some((planned, schema))
    }
}

/// What all plans of an encoder share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape<'a> {
    pub(super) format: &'a Format,
    pub(super) forms: &'a Forms,
    /// The topic prefix, with which names of schemas begin.
    pub(super) prefix: &'a str,
    /// The table's topic; where it is not known, the topic that Debezium would take.
    pub(super) topic: Option<&'a str>,
    /// Places of the columns in which nulls were met although the catalog rules them out.
    pub(super) nullable: &'a [usize],
}

impl Plan {
    /// Whether it is of this very description of its table.
    #[inline]
    pub(super) fn is_of(&self, relation: &Arc<Relation>) -> bool {
        Arc::ptr_eq(&self.relation, relation)
    }

    /// `rules` has one rule a column.
    pub(super) fn new(
        relation: &Arc<Relation>,
        rules: Vec<Rule>,
        shape: &Shape<'_>,
        collection: usize,
    ) -> Self {
        let value = shape.format.value;
        let source_table = match value {
            ValueFormat::CloudEvents => cloudevents::table_attributes,
            ValueFormat::Debezium | ValueFormat::DebeziumSchema | ValueFormat::Flat => {
                envelope::table_fields
            }
        };
        let mut plan = Self {
            columns: Vec::new(),
            source_table: source_table(&relation.schema, &relation.table),
            collection,
            key_head: Head::default(),
            value_head: Head::default(),
            cuttable: Vec::new(),
            replaceable: Vec::new(),
            has_required: false,
            nullable: shape.nullable.to_vec(),
            topic: shape.topic.map(str::to_owned),
            fails_unchanged: shape.format.unchanged_toast() == UnchangedToast::Fail,
            relation: Arc::clone(relation),
        };
        let has_schema = value == ValueFormat::DebeziumSchema;
        let mut schemas = Vec::new();
        for (at, rule) in (0..relation.columns.len()).zip(rules) {
            let Some((column, schema)) = PlannedColumn::new(relation, at, rule, shape) else {
                continue;
            };
            plan.has_required |= column.required;
            if column.codec.may_replace() {
                plan.replaceable.push(at);
            }
            plan.columns.push(column);
            schemas.extend(schema);
        }
        if has_schema {
            plan.add_heads(&schemas, shape);
        }
        plan
    }

    /// Makes what goes in front of keys and values. `schemas` has one a column.
    fn add_heads(&mut self, schemas: &[Vec<u8>], shape: &Shape<'_>) {
        // As in a topic's name, which Debezium begins the names of schemas with.
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let base = format!("{}.{}", shape.prefix, self.relation.full_name)
            .replace(|c: char| !allowed(c), "_");
        let topic = shape.topic.unwrap_or(&base);
        let is_published =
            |(column, schema): (&PlannedColumn, _)| (!column.rule.leaves_out()).then_some(schema);
        let published: Vec<&Vec<u8>> =
            self.columns.iter().zip(schemas).filter_map(is_published).collect();
        let rows = format!("{base}.Value");
        self.value_head =
            Head::of(&schema::envelope(&published, &rows, &format!("{topic}.Envelope")));

        let key = &self.relation.key;
        let mut schema = Vec::new();
        match key.as_slice() {
            [at] if shape.format.key == KeyFormat::Value => {
                if let Some(column) = self.columns.get(*at) {
                    let optional = self.nullable.contains(at);
                    let of = SchemaOf { optional, ..SchemaOf::default() };
                    column.codec.write_schema(&of, &mut schema);
                }
            }
            key => {
                let fields: Vec<&Vec<u8>> = key.iter().filter_map(|&at| schemas.get(at)).collect();
                schema::structure(&fields, false, &format!("{base}.Key"), &mut schema);
                schema.push(b'}');
            }
        }
        self.key_head = Head::of(&schema);
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

    /// A row after a change, as an object. The place of a TOAST value that did not change, and that
    /// is not known otherwise, goes into `unchanged`.
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
                if self.fails_unchanged {
                    return Err(
                        self.error(at, |table, column| EncodeError::Unchanged { table, column })
                    );
                }
                unchanged.push(at);
                out.extend_from_slice(column.unchanged.as_deref().unwrap_or_default());
            } else {
                self.write_column(at, column, datum, out)?;
            }
        }
        close_object(start, out);
        Ok(())
    }

    /// A row before a change, as an object of the columns that are known; of all, where a schema
    /// wants them, or the types are Debezium's.
    pub(super) fn write_old_row(
        &self,
        row: &OldRow<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let start = out.len();
        let whole = matches!(row, OldRow::Full(_));
        for (at, (column, datum)) in self.columns.iter().zip(row.tuple()).enumerate() {
            // The server fetches old values from TOAST; one that it does not send is not known.
            let is_known = (whole || column.in_identity) && datum != Datum::Unchanged;
            if column.rule.leaves_out() {
                continue;
            } else if is_known {
                self.write_column(at, column, datum, out)?;
            } else {
                out.extend_from_slice(column.absent.as_deref().unwrap_or_default());
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
