//! Relation messages, made into tables with what the catalog adds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::disagreement::Disagreement;
use super::facts::{Generated, RelationFacts};
use super::key;
use super::relation::{Column, KeyChoice, KeySource, Relation, RelationError};
use crate::pgoutput::{RelationBody, ReplicaIdentity};

/// The tables of the stream, by OID.
#[derive(Debug, Default)]
pub struct Relations {
    by_oid: HashMap<u32, Arc<Relation>>,
}

impl Relations {
    /// Compiles a Relation message and puts it in place of what was known of the table. A type that
    /// the catalog no longer knows stays as it was known before.
    ///
    /// # Errors
    ///
    /// [`RelationError`] when the configured key does not fit the table.
    pub fn insert(
        &mut self,
        body: &RelationBody<'_>,
        mut facts: RelationFacts,
        choice: &KeyChoice<'_>,
    ) -> Result<Arc<Relation>, RelationError> {
        for (&oid, known) in self.by_oid.get(&body.oid).iter().flat_map(|before| &before.types) {
            facts.types.entry(oid).or_insert_with(|| known.clone());
        }
        let relation = Arc::new(compile(body, facts, choice)?);
        self.by_oid.insert(relation.oid, Arc::clone(&relation));
        Ok(relation)
    }

    /// Nothing of this table comes any more, unless it is described again.
    pub fn forget(&mut self, oid: u32) {
        self.by_oid.remove(&oid);
    }

    /// The table with this OID, as last described.
    #[must_use]
    pub fn by_oid(&self, oid: u32) -> Option<&Arc<Relation>> {
        self.by_oid.get(&oid)
    }
}

fn compile(
    body: &RelationBody<'_>,
    facts: RelationFacts,
    choice: &KeyChoice<'_>,
) -> Result<Relation, RelationError> {
    let is_partial = body.replica_identity == ReplicaIdentity::Full && facts.has_partial_partitions;
    let replica_identity =
        if is_partial { ReplicaIdentity::Default } else { body.replica_identity };
    let columns = body.columns.iter().map(|column| {
        let known = facts.column(column.name).filter(|known| known.type_oid == column.type_oid);
        Column {
            name: column.name.to_owned(),
            type_oid: column.type_oid,
            typmod: column.typmod,
            in_identity: column.in_identity
                && (!is_partial || facts.primary_key.iter().any(|name| name == column.name)),
            not_null: known.is_some_and(|known| known.not_null),
            default: known.and_then(|known| known.default.clone()),
            generated: known.map_or(Generated::No, |known| known.generated),
        }
    });
    let mut relation = Relation {
        oid: body.oid,
        schema: body.schema.to_owned(),
        table: body.table.to_owned(),
        full_name: format!("{}.{}", body.schema, body.table),
        replica_identity,
        columns: columns.collect(),
        key: Vec::new(),
        key_source: KeySource::None,
        row_key: Vec::new(),
        types: BTreeMap::new(),
        disagreements: Vec::new(),
    };
    relation.disagreements = disagreements(&relation, &facts);
    relation.disagreements.extend(is_partial.then_some(Disagreement::PartialPartitions));
    let (own_key, own_source) = key::choose(&relation, &facts);
    (relation.key, relation.key_source) = match choice.configured {
        Some(names) => (configured_key(&relation, names)?, KeySource::Configured),
        None => (own_key.clone(), own_source),
    };
    relation.row_key = own_key;
    relation.types = facts.types;
    Ok(relation)
}

fn configured_key(relation: &Relation, names: &[String]) -> Result<Vec<usize>, RelationError> {
    if names.is_empty() {
        return Err(RelationError::EmptyKey { table: relation.full_name.clone() });
    }
    let place = |name: &String| {
        relation.place(name).ok_or_else(|| RelationError::NoSuchKeyColumn {
            table: relation.full_name.clone(),
            column: name.clone(),
            columns: relation
                .columns
                .iter()
                .map(|column| column.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })
    };
    names.iter().map(place).collect()
}

/// All differences. A column that only the catalog has is none: it is unpublished, or younger than
/// the message.
fn disagreements(relation: &Relation, facts: &RelationFacts) -> Vec<Disagreement> {
    if facts.columns.is_empty() {
        let has_columns = !relation.columns.is_empty();
        return has_columns.then_some(Disagreement::TableGone).into_iter().collect();
    }
    let columns = relation.columns.iter().filter_map(|column| of_column(column, facts));
    columns.chain(of_key(relation, facts)).collect()
}

fn of_column(column: &Column, facts: &RelationFacts) -> Option<Disagreement> {
    let name = || column.name.clone();
    match facts.column(&column.name) {
        None => Some(Disagreement::ColumnGone { column: name() }),
        Some(known) if known.type_oid != column.type_oid => Some(Disagreement::TypeChanged {
            column: name(),
            then: column.type_oid,
            now: known.type_oid,
        }),
        Some(_) => None,
    }
}

fn of_key(relation: &Relation, facts: &RelationFacts) -> Option<Disagreement> {
    let index = match relation.replica_identity {
        ReplicaIdentity::Default => &facts.primary_key,
        ReplicaIdentity::Index => &facts.identity_index,
        // Flags say nothing about a key: FULL flags every column, NOTHING none.
        ReplicaIdentity::Full | ReplicaIdentity::Nothing => return None,
    };
    let unpublished = key::unpublished_generated(relation, facts, index);
    if !unpublished.is_empty() {
        return Some(Disagreement::KeyUnpublished { columns: unpublished });
    }
    if relation.replica_identity == ReplicaIdentity::Index {
        let nullable = key::nullable(facts, index);
        return (!nullable.is_empty()).then_some(Disagreement::KeyNullable { columns: nullable });
    }
    let flagged = relation.columns.iter().filter(|column| column.in_identity);
    let then: Vec<String> = flagged.map(|column| column.name.clone()).collect();
    let is_same = then.len() == index.len() && then.iter().all(|name| index.contains(name));
    (!is_same).then(|| Disagreement::PrimaryKeyChanged { then, now: facts.primary_key.clone() })
}
