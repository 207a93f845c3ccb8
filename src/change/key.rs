//! The choice of a table's key.
//!
//! The key must be known for every change of a row, or order and compaction per key would break.
//! So a catalog key is used only where the message agrees that deletes will carry it:
//!
//! | replica identity | key, first that applies |
//! |---|---|
//! | any | the configured columns |
//! | DEFAULT | the columns flagged in the message (the primary key then), in the catalog's order |
//! | INDEX | the primary key if the index covers it; the index |
//! | FULL, NOTHING | the primary key; a unique index without nullable columns |
//! | DEFAULT, no column flagged | a unique index without nullable columns |
//!
//! Else there is no key. A catalog key with a column that the message does not have is passed over.
//! If such a column of the primary key or the index is generated, it was left out by the server
//! because it is generated, not because the key was another one then: what is flagged is a part of
//! the key, with which different rows would have the same key. Then there is none. Nor is there if
//! a column of the index may hold nulls, as PostgreSQL 18 allows while its NOT NULL is not
//! validated.

use super::facts::{Generated, RelationFacts};
use super::relation::{KeySource, Relation};
use crate::pgoutput::ReplicaIdentity;

/// The places of the key's columns and where it comes from, by the table above without its first
/// line.
pub(super) fn choose(relation: &Relation, facts: &RelationFacts) -> (Vec<usize>, KeySource) {
    let flagged: Vec<usize> =
        (0..relation.columns.len()).filter(|&at| relation.is_in_identity(at)).collect();
    let primary_key = places(relation, &facts.primary_key);
    let is_whole = |index: &[String]| unpublished_generated(relation, facts, index).is_empty();

    let key = match relation.replica_identity {
        ReplicaIdentity::Default if !flagged.is_empty() => {
            is_whole(&facts.primary_key).then(|| {
                let agreed = primary_key.filter(|key| is_same_set(key, &flagged));
                (agreed.unwrap_or(flagged), KeySource::PrimaryKey)
            })
        }
        ReplicaIdentity::Index if !flagged.is_empty() => primary_key
            .filter(|key| key.iter().all(|at| flagged.contains(at)))
            .map(|key| (key, KeySource::PrimaryKey))
            .or_else(|| {
                let index = &facts.identity_index;
                (is_whole(index) && nullable(facts, index).is_empty()).then(|| {
                    let agreed = places(relation, &facts.identity_index)
                        .filter(|key| is_same_set(key, &flagged));
                    (agreed.unwrap_or(flagged), KeySource::ReplicaIdentity)
                })
            }),
        ReplicaIdentity::Full | ReplicaIdentity::Nothing => primary_key
            .map(|key| (key, KeySource::PrimaryKey))
            .or_else(|| unique_index(relation, facts)),
        ReplicaIdentity::Default | ReplicaIdentity::Index => unique_index(relation, facts),
    };
    key.unwrap_or((Vec::new(), KeySource::None))
}

/// Columns of an index that are generated and that the message does not have.
pub(super) fn unpublished_generated(
    relation: &Relation,
    facts: &RelationFacts,
    index: &[String],
) -> Vec<String> {
    let is_generated =
        |name: &str| facts.column(name).is_some_and(|column| column.generated != Generated::No);
    let unpublished =
        index.iter().filter(|name| relation.place(name).is_none() && is_generated(name));
    unpublished.cloned().collect()
}

/// Columns of an index that may hold nulls, and so do not identify a row.
pub(super) fn nullable(facts: &RelationFacts, index: &[String]) -> Vec<String> {
    let may_be_null = |name: &str| facts.column(name).is_some_and(|column| !column.not_null);
    index.iter().filter(|name| may_be_null(name)).cloned().collect()
}

fn unique_index(relation: &Relation, facts: &RelationFacts) -> Option<(Vec<usize>, KeySource)> {
    let is_not_null = |&at: &usize| relation.columns.get(at).is_some_and(|column| column.not_null);
    let places = facts.unique_indexes.iter().filter_map(|index| places(relation, index));
    let mut usable = places.filter(|key| key.iter().all(is_not_null));
    usable.next().map(|key| (key, KeySource::UniqueIndex))
}

/// Places of all the names; none if there are no names or a column is gone.
fn places(relation: &Relation, names: &[String]) -> Option<Vec<usize>> {
    if names.is_empty() {
        return None;
    }
    names.iter().map(|name| relation.place(name)).collect()
}

fn is_same_set(left: &[usize], right: &[usize]) -> bool {
    left.len() == right.len() && left.iter().all(|at| right.contains(at))
}
