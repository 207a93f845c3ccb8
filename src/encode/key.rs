//! A record's key: the key columns of a row, as an object or bare.
//!
//! The key decides the partition, so it must be the same bytes for the same row in every change of
//! it: a key column without a value is an error. So is a null, but where the key is the catalog's
//! of now and the row may be from before its columns could not be null: it is keyed with its nulls.

use super::error::EncodeError;
use super::plan::{Plan, close_object};
use crate::change::{OldRow, Row};
use crate::config::KeyFormat;
use crate::pgoutput::Datum;

impl Plan {
    pub(super) fn has_key(&self) -> bool {
        !self.relation.key.is_empty()
    }

    /// The key of a row after a change.
    pub(super) fn write_key(
        &self,
        row: &Row<'_>,
        format: KeyFormat,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.write_key_columns(format, out, |at| row.datum(&self.relation, at))
    }

    /// Whether the old row carries all of the key.
    pub(super) fn knows_key(&self, row: &OldRow<'_>) -> bool {
        self.relation.key.iter().all(|&at| row.has(&self.relation, at))
    }

    /// The key of a row before a change.
    pub(super) fn write_old_key(
        &self,
        row: &OldRow<'_>,
        format: KeyFormat,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if let Some(&at) = self.relation.key.iter().find(|&&at| !row.has(&self.relation, at)) {
            return Err(
                self.error(at, |table, column| EncodeError::KeyOutsideIdentity { table, column })
            );
        }
        self.write_key_columns(format, out, |at| row.tuple().datum(at).unwrap_or(Datum::Unchanged))
    }

    #[inline]
    fn write_key_columns<'a>(
        &self,
        format: KeyFormat,
        out: &mut Vec<u8>,
        datum: impl Fn(usize) -> Datum<'a>,
    ) -> Result<(), EncodeError> {
        self.key_head.around(out, |out| self.write_key_payload(format, out, datum))
    }

    #[inline]
    fn write_key_payload<'a>(
        &self,
        format: KeyFormat,
        out: &mut Vec<u8>,
        datum: impl Fn(usize) -> Datum<'a>,
    ) -> Result<(), EncodeError> {
        let bare = format == KeyFormat::Value && self.relation.key.len() == 1;
        // Behind a schema a payload is always JSON.
        let quoted = self.key_head.lengths() != (0, 0);
        let start = out.len();
        for &at in &self.relation.key {
            let Some(column) = self.columns.get(at) else { continue };
            let text = match datum(at) {
                Datum::Text(text) => text,
                Datum::Null if self.relation.key_may_be_null() => {
                    out.extend_from_slice(if bare { b"null" } else { &column.null });
                    continue;
                }
                datum => {
                    return Err(self.error(at, |table, column| without_value(datum, table, column)));
                }
            };
            if !bare {
                out.extend_from_slice(&column.name);
            }
            let written = if bare && !quoted {
                column.codec.write_bare(text, out)
            } else {
                column.codec.write_json(text, out)
            };
            written.map_err(|source| {
                self.error(at, |table, column| EncodeError::Value { table, column, source })
            })?;
        }
        if !bare {
            close_object(start, out);
        }
        Ok(())
    }
}

fn without_value(datum: Datum<'_>, table: String, column: String) -> EncodeError {
    match datum {
        Datum::Null => EncodeError::KeyNull { table, column },
        Datum::Unchanged => EncodeError::KeyUnchanged { table, column },
        Datum::Binary(_) | Datum::Text(_) => EncodeError::Binary { table, column },
    }
}
