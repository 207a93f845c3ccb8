//! Looks published tables up before their first change comes, many in one query, where the stream has
//! first changes of many: after a start, or when a job writes to each table.
//!
//! The catalog speaks of now, and the stream of then. What is known of a table is used only for a
//! description in a transaction that committed before the catalog was asked, for then it is as new as
//! an answer of now would be; any other description is asked for by itself. So a stream that is not
//! behind asks for one table at a time, as ever, and one that is behind asks for more each time that
//! this would have helped.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::Client;

use crate::change::RelationFacts;
use crate::lsn::Lsn;
use crate::postgres::catalog::with_parts;
use crate::postgres::publication::{Names, streamed};
use crate::postgres::{Catalog, Error, client};

const WAL_END: &str = include_str!("../../sql/wal_end.sql");

/// Most tables that are looked up at once: bounds how long the stream waits.
const MOST: usize = 256;

/// Most tables that are known ahead: bounds the memory.
const KEPT: usize = 2048;

/// A published table: OID, schema and name.
pub(super) type Published = (u32, String, String);

/// What was looked up ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// What is known of a table, and before which commits that was asked.
    known: HashMap<u32, (Lsn, RelationFacts)>,
    /// The same of the last question.
    through: Lsn,
    /// How many other tables were asked of with the last one.
    batch: usize,
    /// Published tables that nothing was asked of so far; none before it is asked which they are.
    rest: Option<BTreeSet<Published>>,
}

impl Ahead {
    /// What is known of a table that is described in a transaction that commits at `commit_lsn`.
    pub(super) fn take(
        &mut self,
        oid: u32,
        column_types: &[u32],
        commit_lsn: Option<Lsn>,
    ) -> Option<RelationFacts> {
        let (through, facts) = self.known.remove(&oid)?;
        let is_new_enough = commit_lsn.is_some_and(|lsn| lsn < through);
        let has_types = column_types.iter().all(|oid| facts.types.contains_key(oid));
        let types = with_parts(column_types.to_vec(), &facts.types);
        (is_new_enough && has_types).then_some(RelationFacts { types, ..facts })
    }

    /// Nothing of these tables comes any more.
    pub(super) fn forget(&mut self, tables: &[u32]) {
        for oid in tables {
            self.known.remove(oid);
        }
        if let Some(rest) = &mut self.rest {
            let tables: BTreeSet<u32> = tables.iter().copied().collect();
            rest.retain(|(oid, ..)| !tables.contains(oid));
        }
    }

    /// Asks the catalog, of other tables too if that would have helped this time. Returns what it says
    /// and these other tables.
    pub(super) async fn ask(
        &mut self,
        catalog: &mut Catalog,
        (oid, column_types): (u32, &[u32]),
        commit_lsn: Option<Lsn>,
        names: Names<'_>,
    ) -> Result<(RelationFacts, Vec<Published>), Error> {
        let would_have_helped = commit_lsn.is_some_and(|lsn| lsn < self.through);
        self.batch = if would_have_helped { (self.batch * 2).clamp(1, MOST) } else { 0 };
        let client = catalog.client().await?;
        let through = wal_end(client).await?;
        if self.batch > 0 && self.rest.is_none() {
            self.rest = Some(published(client, names).await?);
        }
        let others = self.others(oid);
        let mut tables = vec![(oid, Some(column_types))];
        tables.extend(others.iter().map(|(oid, ..)| (*oid, None)));
        let mut facts = catalog.relations(&tables).await?;
        let asked = facts.remove(&oid).unwrap_or_default();
        if self.known.len() + facts.len() > KEPT {
            self.known.clear();
        }
        self.known.extend(facts.into_iter().map(|(oid, facts)| (oid, (through, facts))));
        self.through = through;
        Ok((asked, others))
    }

    /// The tables that are asked of as well: those that nothing was asked of, in the order in which
    /// they were created, from the one that follows on.
    fn others(&mut self, oid: u32) -> Vec<Published> {
        let Some(rest) = &mut self.rest else { return Vec::new() };
        rest.retain(|(other, ..)| *other != oid);
        let after = rest.range((oid, String::new(), String::new())..);
        let before = rest.iter().take_while(|(other, ..)| *other < oid);
        let others: Vec<Published> = after.chain(before).take(self.batch).cloned().collect();
        for other in &others {
            rest.remove(other);
        }
        others
    }
}

/// All that the publications publish in effect.
async fn published(client: &Client, names: Names<'_>) -> Result<BTreeSet<Published>, Error> {
    let version = client::server_version(client).await?;
    let tables = streamed::in_effect(client, names.both(), version).await?;
    Ok(tables.into_iter().map(|of| (of.oid, of.table.schema, of.table.name)).collect())
}

/// All that was committed before it is to be seen by a later question.
async fn wal_end(client: &Client) -> Result<Lsn, Error> {
    let failed = |source| Error::Sql { doing: "ask for the end of the WAL", source };
    let row = client.query_typed(WAL_END, &[]).await.map_err(failed)?;
    let end = row.first().and_then(|row| row.get::<_, Option<&str>>(0)?.parse().ok());
    Ok(end.unwrap_or(Lsn::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{TypeFacts, TypeKind};

    fn facts(types: &[u32]) -> RelationFacts {
        let kind = TypeKind::Base;
        let known = types.iter().map(|&oid| {
            let (schema, name) = ("pg_catalog".to_owned(), format!("t{oid}"));
            (oid, TypeFacts { oid, schema, name, kind: kind.clone() })
        });
        RelationFacts { types: known.collect(), ..RelationFacts::default() }
    }

    fn lsn(at: u64) -> Option<Lsn> {
        Some(Lsn::from(at))
    }

    #[test]
    fn what_is_known_holds_for_what_was_committed_before_it_was_asked_and_once() {
        let known = |types: &[u32]| Ahead {
            known: HashMap::from([(7, (Lsn::from(100), facts(types)))]),
            ..Ahead::default()
        };
        assert_eq!(known(&[20, 25]).take(7, &[20], lsn(99)), Some(facts(&[20])));
        assert_eq!(known(&[20]).take(7, &[20], lsn(100)), None, "it may have been altered since");
        assert_eq!(known(&[20]).take(7, &[20], None), None);
        assert_eq!(known(&[20]).take(7, &[20, 23], lsn(99)), None, "a column has another type");
        assert_eq!(known(&[20]).take(8, &[20], lsn(99)), None);
        let mut ahead = known(&[20]);
        assert!(ahead.take(7, &[20], lsn(99)).is_some());
        assert_eq!(ahead.take(7, &[20], lsn(99)), None, "it is described again: it was altered");
    }

    #[test]
    fn others_are_those_that_follow_and_each_is_asked_of_once() {
        let table = |oid: u32| (oid, "public".to_owned(), format!("t{oid}"));
        let rest = Some((1..=6).map(table).collect());
        let mut ahead = Ahead { rest, batch: 2, ..Ahead::default() };
        assert_eq!(ahead.others(4), [table(5), table(6)]);
        assert_eq!(ahead.others(3), [table(1), table(2)]);
        assert_eq!(ahead.others(9), []);
    }
}
