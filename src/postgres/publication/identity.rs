//! Predicts whether Postgres would refuse to update or delete published rows, by the server's own
//! rule.
//!
//! For a partitioned table it checks the partition that holds the row, whatever the root's setting,
//! and every publication that publishes updates of the partition or of a table above it:
//!
//! | it refuses if | because |
//! |---|---|
//! | there is no identity: no index of the kind that `REPLICA IDENTITY` names, or one that is deferrable or invalid | the old row could not be identified |
//! | a column list lacks a column of the identity, or there is a list and the identity is FULL | the old row would lack it |
//! | a row filter uses a column outside of the identity | the filter could not be applied to the old row |
//! | the identity has generated columns that are not published (PostgreSQL 18 and later) | the old row would lack them |
//!
//! `sql/tables.sql` reads the input. Pure.

use std::fmt;

use postgres_protocol::escape::escape_identifier;

use super::TableName;

/// The first version that refuses identities with generated columns that are not published.
const GENERATED_SINCE: u32 = 180_000;

/// A table that holds rows: an ordinary one, or a partition. Also a partitioned table itself, which
/// holds none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaf {
    /// Its name.
    pub table: TableName,
    /// Whether it holds rows of which changes are in the WAL.
    pub has_rows: bool,
    /// Whether it is REPLICA IDENTITY FULL.
    pub is_full: bool,
    /// The columns of the index that is its identity, if any.
    pub index: Option<Vec<String>>,
    /// Its generated columns.
    pub generated: Vec<String>,
    /// Whether some of these are virtual, which are never published.
    pub has_virtual: bool,
    /// An index that could be its identity, if any; the primary key first.
    pub usable: Option<UsableIndex>,
    /// Whether it has a primary key that is deferrable.
    pub has_deferrable_key: bool,
}

/// An index that could be an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsableIndex {
    /// Its name.
    pub name: String,
    /// Whether it is the primary key's.
    pub is_primary: bool,
}

/// What a publication has of a table, as far as this rule needs it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Part<'a> {
    /// The column list, if any.
    pub columns: Option<&'a [String]>,
    /// The columns that the row filter uses.
    pub condition: &'a [String],
    /// Whether stored generated columns are published without a list.
    pub generated: bool,
}

/// Why Postgres would refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no identity.
    NoIdentity {
        /// Because the primary key is deferrable.
        is_deferrable: bool,
    },
    /// The column list does not have a column of the identity.
    List {
        /// The column.
        column: String,
    },
    /// There is a column list, and the identity is FULL.
    ListAndFull,
    /// The row filter uses a column outside of the identity.
    Condition {
        /// The column.
        column: String,
    },
    /// The identity has a generated column that is not published.
    Generated {
        /// The column.
        column: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIdentity { is_deferrable: true } => {
                f.write_str("its primary key is deferrable, which is not a replica identity")
            }
            Self::NoIdentity { is_deferrable: false } => f.write_str("it has no replica identity"),
            Self::List { column } => {
                write!(f, "its column list lacks {column:?} of its replica identity")
            }
            Self::ListAndFull => f.write_str("it is REPLICA IDENTITY FULL and has a column list"),
            Self::Condition { column } => {
                write!(
                    f,
                    "its row filter uses {column:?}, which is outside of its replica \
                           identity"
                )
            }
            Self::Generated { column } => {
                write!(f, "its replica identity has the generated column {column:?}")
            }
        }
    }
}

impl Leaf {
    /// Why Postgres would refuse to update or delete its rows, if it would.
    #[must_use]
    pub fn refusal(&self, part: Part<'_>, server_version: u32) -> Option<Refusal> {
        if !self.has_rows {
            return None;
        }
        let checks_generated = server_version >= GENERATED_SINCE;
        if self.is_full {
            if part.columns.is_some() {
                return Some(Refusal::ListAndFull);
            }
            let hidden = checks_generated && (self.has_virtual || !part.generated);
            let column = self.generated.first().filter(|_| hidden);
            return column.map(|column| Refusal::Generated { column: column.clone() });
        }
        let Some(index) = &self.index else {
            return Some(Refusal::NoIdentity { is_deferrable: self.has_deferrable_key });
        };
        if let Some(column) = part.condition.iter().find(|column| !index.contains(column)) {
            return Some(Refusal::Condition { column: column.clone() });
        }
        match part.columns {
            Some(list) => index
                .iter()
                .find(|column| !list.contains(column))
                .map(|column| Refusal::List { column: column.clone() }),
            None => index
                .iter()
                .find(|column| {
                    checks_generated && !part.generated && self.generated.contains(column)
                })
                .map(|column| Refusal::Generated { column: column.clone() }),
        }
    }

    /// The columns that old rows have; `None` for all of them.
    #[must_use]
    pub fn identity(&self) -> Option<&[String]> {
        if self.is_full { None } else { Some(self.index.as_deref().unwrap_or_default()) }
    }

    /// What makes Postgres accept it, as SQL if that is enough. An index costs nothing extra; FULL
    /// writes complete old rows into the WAL.
    #[must_use]
    pub fn fix(&self, server_version: u32) -> String {
        let table = self.table.sql();
        match &self.usable {
            Some(UsableIndex { is_primary: true, .. }) => {
                format!("ALTER TABLE {table} REPLICA IDENTITY DEFAULT;")
            }
            Some(UsableIndex { name, .. }) => {
                let index = escape_identifier(name);
                format!("ALTER TABLE {table} REPLICA IDENTITY USING INDEX {index};")
            }
            None if server_version >= GENERATED_SINCE && !self.generated.is_empty() => {
                format!("add a primary key of columns that are not generated to {table}")
            }
            None => format!("ALTER TABLE {table} REPLICA IDENTITY FULL;"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    fn keyed(columns: &[&str]) -> Leaf {
        let index = Some(owned(columns));
        Leaf { has_rows: true, index, ..Leaf::default() }
    }

    fn judged(leaf: &Leaf, list: Option<&[&str]>, condition: &[&str], version: u32) -> String {
        let (list, condition) = (list.map(owned), owned(condition));
        let part = Part { columns: list.as_deref(), condition: &condition, ..Part::default() };
        leaf.refusal(part, version).map_or_else(String::new, |refusal| refusal.to_string())
    }

    #[test]
    fn each_rule_of_postgres_has_its_refusal() {
        let full = Leaf { is_full: true, ..keyed(&[]) };
        let bare = Leaf { index: None, ..keyed(&[]) };
        let deferrable = Leaf { has_deferrable_key: true, ..bare.clone() };
        let made = Leaf { generated: owned(&["sum"]), ..keyed(&["id", "sum"]) };
        let full_made = Leaf { generated: owned(&["sum"]), ..full.clone() };
        for (leaf, list, condition, version, refusal) in [
            (&keyed(&["id"]), None, &[][..], 140_000, ""),
            (&keyed(&["id"]), Some(&["id", "v"][..]), &["id"][..], 150_000, ""),
            (&keyed(&["id"]), Some(&["v"]), &[], 150_000, "column list lacks \"id\""),
            (&keyed(&["id"]), None, &["id", "v"], 150_000, "row filter uses \"v\""),
            (&full, None, &["v"], 150_000, ""),
            (&full, Some(&["id"]), &[], 150_000, "FULL and has a column list"),
            (&bare, None, &[], 140_000, "has no replica identity"),
            (&deferrable, None, &[], 140_000, "primary key is deferrable"),
            (&made, None, &[], 170_000, ""),
            (&made, None, &[], 180_000, "generated column \"sum\""),
            (&made, Some(&["id", "sum"]), &[], 180_000, ""),
            (&full_made, None, &[], 170_000, ""),
            (&full_made, None, &[], 180_000, "generated column \"sum\""),
        ] {
            let found = judged(leaf, list, condition, version);
            assert!(found.contains(refusal), "{leaf:?} {list:?} {condition:?}: {found}");
            assert_eq!(found.is_empty(), refusal.is_empty(), "{leaf:?} on {version}: {found}");
        }
        let root = Leaf { has_rows: false, ..bare };
        assert_eq!(judged(&root, None, &[], 180_000), "", "Postgres only checks the partitions");
    }

    #[test]
    fn generated_columns_that_are_published_are_no_obstacle_unless_virtual() {
        let part = Part { generated: true, ..Part::default() };
        let stored = Leaf { generated: owned(&["sum"]), is_full: true, ..keyed(&[]) };
        assert_eq!(stored.refusal(part, 180_000), None);
        let made = Leaf { generated: owned(&["sum"]), ..keyed(&["sum"]) };
        assert_eq!(made.refusal(part, 180_000), None);
        let in_reading = Leaf { has_virtual: true, ..stored };
        assert!(in_reading.refusal(part, 180_000).is_some());
    }

    #[test]
    fn the_fix_is_an_index_where_there_is_one() {
        let table = TableName { schema: "public".to_owned(), name: "t".to_owned() };
        let index =
            |name: &str, is_primary| Some(UsableIndex { name: name.to_owned(), is_primary });
        let leaf = |usable| Leaf { table: table.clone(), usable, ..Leaf::default() };
        let start = "ALTER TABLE \"public\".\"t\" REPLICA IDENTITY";
        assert_eq!(leaf(index("t_pkey", true)).fix(180_000), format!("{start} DEFAULT;"));
        assert_eq!(leaf(index("t_a", false)).fix(180_000), format!("{start} USING INDEX \"t_a\";"));
        assert_eq!(leaf(None).fix(180_000), format!("{start} FULL;"));
        let made = Leaf { generated: owned(&["sum"]), ..leaf(None) };
        assert_eq!(made.fix(170_000), format!("{start} FULL;"));
        assert!(made.fix(180_000).starts_with("add a primary key"));
    }
}
