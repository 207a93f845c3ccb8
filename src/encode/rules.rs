//! Applies a table's rules to single values: leave out, mask, hash, truncate.
//!
//! Compiled once per relation, when it is announced, so that a setting that does not fit the table
//! stops the stream before the first row. Rules touch values only, in `before` and `after` alike: a
//! key is written from the values as they are, since order and compaction hang on it.
//!
//! | rule | a value becomes | null becomes |
//! |---|---|---|
//! | leave out | nothing | nothing |
//! | mask | asterisks, as many as configured | the same |
//! | hash | hex SHA-256 of salt and text, cut to the column's length | null |
//! | truncate | its first characters | null |
//!
//! Where several match a column, the first of these applies. Mask, hash and truncate are Debezium's
//! `column.mask.with.N.chars`, `column.mask.hash.v2.SHA-256` and `column.truncate.to.N.chars`;
//! equal salts result in equal hashes.
//! <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-property-column-mask-hash>
//!
//! Columns are left out here even if the server should not send them: it applies the publication as
//! it was when a change was made, which may be long ago.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::change::{Column, Relation, TypeFacts, TypeKind};
use crate::config::{Hidden, Resolved, RuleKey, Secret, TableSettings};
use crate::pgoutput::Datum;

/// The rules of all tables.
#[derive(Debug, Clone, Default)]
pub struct ValueRules {
    tables: TableSettings,
    salt: Option<Secret>,
}

/// Settings that do not fit a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A setting that keeps values back does not apply, and nobody may have noticed.
    #[error("publishing table {table}: {hidden}")]
    Hidden {
        /// `schema.table`.
        table: String,
        /// The setting.
        hidden: Hidden,
    },
    /// A rule for text on a column that holds none.
    #[error(
        "publishing table {table}: the rule `{rule}` is for text, and column {column:?} is of type {type_name}"
    )]
    NotText {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
        /// The rule.
        rule: RuleKey,
        /// The column's type.
        type_name: String,
    },
    /// A rule that hides a value which is in the key all the same.
    #[error(
        "publishing table {table}: the rule `{rule}` would not hide column {column:?}, which is part of the key"
    )]
    InKey {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
        /// The rule.
        rule: RuleKey,
    },
}

impl RuleError {
    /// What an operator can do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Hidden { hidden, .. } => hidden.fix(),
            Self::NotText { table, column, rule, .. } => format!(
                "take {column:?} out of `{rule}` in the settings of {table}, or leave the column out \
                 by exclude_columns"
            ),
            Self::InKey { table, column, rule } => format!(
                "choose other key columns for {table} (`key`), or take {column:?} out of `{rule}`"
            ),
        }
    }
}

/// What becomes of the values of one column.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    /// Published as it is.
    Publish,
    /// Left out.
    LeaveOut,
    /// These asterisks, with their quotes.
    Mask(Vec<u8>),
    /// A hash.
    Hash(Salted),
    /// At most as many characters.
    Truncate(usize),
}

/// A hash that has taken in the salt.
#[derive(Clone)]
pub(super) struct Salted {
    state: Sha256,
    /// Longest hash the column's own type would take.
    digits_max: usize,
}

impl std::fmt::Debug for Salted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The state reveals something about the salt.
        f.debug_struct("Salted").field("digits_max", &self.digits_max).finish_non_exhaustive()
    }
}

impl Rule {
    #[inline]
    pub(super) const fn leaves_out(&self) -> bool {
        matches!(self, Self::LeaveOut)
    }

    /// Writes a value after its name, or returns the part to be written like any other value.
    pub(super) fn apply<'a>(&self, name: &[u8], datum: Datum<'a>, out: &mut Vec<u8>) -> Ruled<'a> {
        match (self, datum) {
            (_, Datum::Unchanged) | (Self::LeaveOut, _) => return Ruled::Written,
            (Self::Mask(mask), _) => {
                out.extend_from_slice(name);
                out.extend_from_slice(mask);
            }
            (Self::Hash(salted), Datum::Text(text)) => {
                out.extend_from_slice(name);
                salted.write(text, out);
            }
            (Self::Truncate(count), Datum::Text(text)) => {
                return Ruled::Publish(Datum::Text(first_characters(text, *count)));
            }
            // A binary value was not asked for, and is refused as anywhere.
            (_, datum) => return Ruled::Publish(datum),
        }
        Ruled::Written
    }
}

/// What a rule leaves to be done.
pub(super) enum Ruled<'a> {
    /// Nothing: the value is written, or left out.
    Written,
    /// To write this.
    Publish(Datum<'a>),
}

impl Salted {
    /// The hash of a text, as JSON.
    pub(super) fn write(&self, text: &[u8], out: &mut Vec<u8>) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut state = self.state.clone();
        state.update(text);
        let digest = state.finalize();
        let nibbles = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let digits = nibbles.map(|nibble| HEX[usize::from(nibble)]);
        out.push(b'"');
        out.extend(digits.take(self.digits_max));
        out.push(b'"');
    }
}

/// The first characters of a text.
pub(super) fn first_characters(text: &[u8], count: usize) -> &[u8] {
    let is_start = |byte: &u8| byte & 0b1100_0000 != 0b1000_0000;
    let starts = text.iter().enumerate().filter(|(_, byte)| is_start(byte));
    match starts.map(|(at, _)| at).nth(count) {
        Some(end) => text.get(..end).unwrap_or(text),
        None => text,
    }
}

impl ValueRules {
    /// The rules of a configuration.
    #[must_use]
    pub fn new(settings: &Resolved) -> Self {
        Self { tables: settings.tables.clone(), salt: settings.hash_salt.clone() }
    }

    /// One rule a column.
    pub(super) fn of(&self, relation: &Relation) -> Result<Vec<Rule>, RuleError> {
        let (schema, table) = (&relation.schema, &relation.table);
        if let Some(hidden) = self.tables.hidden(schema, table) {
            return Err(RuleError::Hidden { table: relation.full_name.clone(), hidden });
        }
        let Some(columns) = self.tables.columns(schema, table) else {
            return Ok(vec![Rule::Publish; relation.columns.len()]);
        };
        let rules = relation.columns.iter().enumerate().map(|(at, column)| {
            if !columns.publishes(&column.name) {
                return Ok(Rule::LeaveOut);
            }
            match columns.rule(&column.name) {
                Some((key, count)) => self.text_rule(relation, at, column, key, count),
                None => Ok(Rule::Publish),
            }
        });
        rules.collect()
    }

    /// Places of the columns that may be cut so that a record fits. One that is hidden or left out is
    /// small already.
    pub(super) fn cuttable(&self, relation: &Relation) -> Result<Vec<usize>, RuleError> {
        let Some(columns) = self.tables.columns(&relation.schema, &relation.table) else {
            return Ok(Vec::new());
        };
        let mut places = Vec::new();
        for (at, column) in relation.columns.iter().enumerate() {
            let rule = columns.rule(&column.name).map(|(rule, _)| rule);
            let is_small = matches!(rule, Some(RuleKey::Mask | RuleKey::Hash));
            if !columns.cuts_oversize(&column.name) || !columns.publishes(&column.name) || is_small
            {
                continue;
            }
            // Refused where it is not text.
            self.text_rule(relation, at, column, RuleKey::TruncateOversize, 0)?;
            places.push(at);
        }
        Ok(places)
    }

    fn text_rule(
        &self,
        relation: &Relation,
        at: usize,
        column: &Column,
        rule: RuleKey,
        count: usize,
    ) -> Result<Rule, RuleError> {
        let table = || relation.full_name.clone();
        let name = || column.name.clone();
        let Some(length) = text_length(column.type_oid, column.typmod, &relation.types) else {
            let type_name = type_name(column.type_oid, &relation.types);
            return Err(RuleError::NotText { table: table(), column: name(), rule, type_name });
        };
        if matches!(rule, RuleKey::Mask | RuleKey::Hash) && relation.key.contains(&at) {
            return Err(RuleError::InKey { table: table(), column: name(), rule });
        }
        Ok(match rule {
            RuleKey::Mask => {
                let mut mask = vec![b'*'; count + 2];
                mask[0] = b'"';
                mask[count + 1] = b'"';
                Rule::Mask(mask)
            }
            RuleKey::Hash => {
                // The configuration was refused if there is none.
                let salt = self.salt.as_ref().map_or("", Secret::expose);
                let digits_max = length.unwrap_or(usize::MAX);
                Rule::Hash(Salted { state: Sha256::new_with_prefix(salt), digits_max })
            }
            RuleKey::Truncate | RuleKey::TruncateOversize => Rule::Truncate(count),
        })
    }
}

/// The longest text the type takes, in characters, none where it has no bound; nothing where the
/// type is not one of text.
/// OIDs: <https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat>
#[expect(clippy::option_option, reason = "no text, and text without a bound, are two things")]
fn text_length(oid: u32, typmod: i32, types: &BTreeMap<u32, TypeFacts>) -> Option<Option<usize>> {
    // A length is given as itself and the four bytes of a header.
    let bound = usize::try_from(typmod - 4).ok().filter(|&length| length > 0);
    match oid {
        // text, name
        25 | 19 => Some(None),
        // bpchar, varchar
        1042 | 1043 => Some(bound),
        _ => {
            let facts = types.get(&oid)?;
            match facts.kind {
                TypeKind::Base if facts.name == "citext" => Some(None),
                // A domain is not over itself, and the catalog holds no circles.
                TypeKind::Domain { base, typmod } if base != oid => {
                    text_length(base, typmod, types)
                }
                _ => None,
            }
        }
    }
}

fn type_name(oid: u32, types: &BTreeMap<u32, TypeFacts>) -> String {
    types.get(&oid).map_or_else(|| format!("with OID {oid}"), |facts| facts.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(salt: &str, text: &str, digits_max: usize) -> String {
        let salted = Salted { state: Sha256::new_with_prefix(salt), digits_max };
        let mut out = Vec::new();
        salted.write(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_hash_is_that_of_the_salt_and_then_the_text() {
        // printf 'pepperada@example.com' | sha256sum
        let digest = "f3de2501fc91c4a9ae4d4ed50bef931c9901aabe5ea36979890a69204e7eb2b1";
        assert_eq!(hashed("pepper", "ada@example.com", usize::MAX), format!("\"{digest}\""));
        assert_eq!(hashed("pepper", "ada@example.com", 10), format!("\"{}\"", &digest[..10]));
        assert_ne!(hashed("salt", "ada@example.com", 64), hashed("pepper", "ada@example.com", 64));
    }

    proptest::proptest! {
        #[test]
        fn a_cut_text_has_the_first_characters_and_no_halves(text: String, count in 0_usize..20) {
            let expected: String = text.chars().take(count).collect();
            proptest::prop_assert_eq!(first_characters(text.as_bytes(), count), expected.as_bytes());
        }

        #[test]
        fn any_bytes_are_cut_without_a_panic(bytes: Vec<u8>, count in 0_usize..20) {
            proptest::prop_assert!(bytes.starts_with(first_characters(&bytes, count)));
        }
    }
}
