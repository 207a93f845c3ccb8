//! Under which name, and by which settings, a table was captured: kept in the topic of the
//! checkpoints, so that a table that is renamed is known again after a restart.
//!
//! One record a table, under a key of pipeline and OID, so that it is as small as the table's
//! settings and compaction keeps the newest. An OID has a meaning only in one database of one
//! cluster, so a record names both.
//!
//! Not here: what follows from it (`renames`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::record::{RecordError, VERSION};
use crate::config::Hiding;
use crate::lsn::Lsn;

/// A table's own name, and that of the partitioned table it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// What it is a partition of, at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
}

/// A partitioned table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Root {
    /// Its OID.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
}

impl Identity {
    /// Schema and name under which its rows are published.
    #[must_use]
    pub fn published(&self, via_root: bool) -> (&str, &str) {
        match &self.root {
            Some(root) if via_root => (&root.schema, &root.table),
            _ => (&self.schema, &self.table),
        }
    }
}

/// A database of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseId {
    /// The cluster's own number.
    pub system_identifier: String,
    /// The database.
    pub database: String,
}

/// What is remembered of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The version of its form.
    pub version: u32,
    /// Where it is.
    #[serde(flatten)]
    pub place: DatabaseId,
    /// Its OID.
    pub oid: u32,
    /// What it was called.
    #[serde(flatten)]
    pub identity: Identity,
    /// What it was called before, as far as settings still name it so.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub formers: BTreeSet<(String, String)>,
    /// What was kept back of it.
    #[serde(default, skip_serializing_if = "Hiding::is_open")]
    pub hiding: Hiding,
    /// What its columns were called, by number, where something is kept back of columns.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<i16, String>,
    /// Those of these columns that were dropped, each before this point of the WAL.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped_columns: BTreeMap<i16, Lsn>,
    /// Whether changes of it were left out since, so that its rows must be read again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_behind: bool,
    /// It was dropped before this point of the WAL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Lsn>,
}

/// The key of a record.
#[derive(Serialize, Deserialize)]
struct Key<T> {
    pipeline: T,
    table: u32,
}

impl Remembered {
    /// A table as it is now.
    #[must_use]
    pub fn new(
        place: DatabaseId,
        oid: u32,
        identity: Identity,
        hiding: Hiding,
        columns: BTreeMap<i16, String>,
    ) -> Self {
        let columns = if hiding.has_column_rules() { columns } else { BTreeMap::new() };
        let (is_behind, gone_at) = (false, None);
        let formers = BTreeSet::new();
        Self {
            version: VERSION,
            place,
            oid,
            identity,
            formers,
            hiding,
            columns,
            dropped_columns: BTreeMap::new(),
            is_behind,
            gone_at,
        }
    }

    /// Whether both say the same, but for changes that were left out.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        *self == Self { is_behind: self.is_behind, ..other.clone() }
    }

    /// The record's key.
    #[must_use]
    pub fn key(pipeline: &str, oid: u32) -> String {
        serde_json::to_string(&Key { pipeline, table: oid }).unwrap_or_default()
    }

    /// The OID in a record's key, if it is one of this pipeline's.
    #[must_use]
    pub fn oid_of_key(pipeline: &str, key: &[u8]) -> Option<u32> {
        // Most keys are names of pipelines.
        if key.first() != Some(&b'{') {
            return None;
        }
        let key: Key<String> = serde_json::from_slice(key).ok()?;
        (key.pipeline == pipeline).then_some(key.table)
    }

    /// The record's value.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads one back.
    ///
    /// # Errors
    /// When it is newer than we are, or none.
    pub fn read(json: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct VersionOnly {
            version: u32,
        }
        let malformed = |source| RecordError::Malformed { source };
        let VersionOnly { version: found } = serde_json::from_slice(json).map_err(malformed)?;
        if found > VERSION {
            return Err(RecordError::Newer { found, of: None });
        }
        serde_json::from_slice(json).map_err(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Table, TableFilter, TableSettings};

    /// What is in the topics of users: it must be read for ever.
    const GOLDEN: &str = r#"{"version":1,"system_identifier":"7448211963417423982","database":"taxi","oid":16401,"schema":"public","table":"cards_1","root":{"oid":16400,"schema":"public","table":"cards"},"hiding":{"exclude_columns":["pan"],"mask":{"name":3}},"columns":{"1":"id","2":"pan"},"is_behind":true,"gone_at":"0/10"}"#;

    fn golden() -> Remembered {
        let table = Table {
            exclude_columns: Some(vec!["pan".to_owned()]),
            mask: Some([("name".to_owned(), 3)].into()),
            ..Table::default()
        };
        let tables = TableSettings::parse(&[("*.*".to_owned(), table)].into()).unwrap();
        let captured = TableFilter::parse(&["*.*".to_owned()], &[]).unwrap();
        let (schema, table) = ("public".to_owned(), "cards".to_owned());
        let root = Some(Root { oid: 16_400, schema: schema.clone(), table });
        let identity = Identity { schema, table: "cards_1".to_owned(), root };
        let place = DatabaseId {
            system_identifier: "7448211963417423982".to_owned(),
            database: "taxi".to_owned(),
        };
        let hiding = Hiding::of(&captured, &tables, "public", "cards");
        let columns = [(1, "id".to_owned()), (2, "pan".to_owned())].into();
        let remembered = Remembered::new(place, 16_401, identity, hiding, columns);
        Remembered { is_behind: true, gone_at: Some(Lsn::from(16)), ..remembered }
    }

    #[test]
    fn a_record_is_what_it_was() {
        assert_eq!(String::from_utf8(golden().write()).unwrap(), GOLDEN);
        assert_eq!(Remembered::read(GOLDEN.as_bytes()).unwrap(), golden());
    }

    #[test]
    fn a_newer_record_and_what_is_none_are_refused() {
        let newer = GOLDEN.replace("\"version\":1", "\"version\":2");
        assert!(matches!(
            Remembered::read(newer.as_bytes()),
            Err(RecordError::Newer { found: 2, .. })
        ));
        for text in ["", "{}", "[]", r#"{"version":1}"#] {
            let read = Remembered::read(text.as_bytes());
            assert!(matches!(read, Err(RecordError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn a_key_is_found_by_its_pipeline_alone() {
        for pipeline in ["taxi", "a\"b", "{", "{\"pipeline\":\"x\",\"table\":1}"] {
            let key = Remembered::key(pipeline, 16_401);
            assert_eq!(Remembered::oid_of_key(pipeline, key.as_bytes()), Some(16_401));
            assert_eq!(Remembered::oid_of_key("another", key.as_bytes()), None);
            assert_eq!(Remembered::oid_of_key(pipeline, pipeline.as_bytes()), None);
        }
    }
}
