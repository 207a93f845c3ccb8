//! Looks up published tables before their first change arrives, many in one query, when the stream
//! has the first changes of many tables: after a start, or when a job writes to every table.
//!
//! The catalog describes the present, and the stream a point in the past. A looked-up table is used
//! description in a transaction that others saw when the catalog was asked, for then it is as new as
//! it is then as current as a new query's result; any other description is looked up on its own. So
//! a stream that is up to date looks up one table at a time, and one that is behind looks up more
//! each time that this would have helped.
//!
//! The stream may bring a transaction before others see it: its commit is in the WAL a moment earlier, and
//! with synchronous standbys for as long as they take. Asked in between, the catalog does not have what that
//! transaction changed: a key, a NOT NULL, a name. So the question waits until it does, if the transaction
//! may have altered the table: then it holds a lock on it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::backoff::{Backoff, Repeats};
use crate::change::{RelationFacts, Transaction};
use crate::lsn::Lsn;
use crate::postgres::catalog::with_parts;
use crate::postgres::publication::{Names, streamed};
use crate::postgres::{Catalog, Error, client};
use crate::snapshot::Visibility;

const SEEN: &str = include_str!("../../sql/seen.sql");
const ALTERS: &str = include_str!("../../sql/alters.sql");

/// Most tables that are looked up at once: bounds how long the stream waits.
const MOST: usize = 256;

/// Most tables that are kept: bounds the memory.
const KEPT: usize = 2048;

/// Waits between two looks whether a transaction is to be seen.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// A wait that is shorter is not worth a word.
const SHORT: Duration = Duration::from_secs(5);

/// A published table: OID, schema and name.
pub(super) type Published = (u32, String, String);

/// What was looked up ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// What is known of a table, and what was to be seen when that was asked.
    known: HashMap<u32, (Arc<Seen>, RelationFacts)>,
    /// The same position of the last query.
    last: Arc<Seen>,
    /// How many other tables the last query included.
    batch: usize,
    /// Published tables that were not looked up so far; `None` before they are listed.
    rest: Option<BTreeSet<Published>>,
}

/// Which transactions a question sees that is asked later.
#[derive(Debug, Default)]
struct Seen {
    /// None that commits from here on.
    through: Lsn,
    shows: Visibility,
}

impl Seen {
    fn has(&self, transaction: &Transaction) -> bool {
        // A standby lists no transactions that run, but sends none that it does not show.
        transaction.commit_lsn < self.through && self.shows.shows(transaction.xid)
    }
}

impl Ahead {
    /// What is known of a table that is described in a transaction.
    pub(super) fn take(
        &mut self,
        oid: u32,
        column_types: &[u32],
        described_in: Option<&Transaction>,
    ) -> Option<RelationFacts> {
        let (seen, facts) = self.known.remove(&oid)?;
        let is_new_enough = described_in.is_some_and(|transaction| seen.has(transaction));
        let has_types = column_types.iter().all(|oid| facts.types.contains_key(oid));
        let types = with_parts(column_types.to_vec(), &facts.types);
        (is_new_enough && has_types).then_some(RelationFacts { types, ..facts })
    }

    /// Forgets tables that have no further changes.
    pub(super) fn forget(&mut self, tables: &[u32]) {
        for oid in tables {
            self.known.remove(oid);
        }
        if let Some(rest) = &mut self.rest {
            let tables: BTreeSet<u32> = tables.iter().copied().collect();
            rest.retain(|(oid, ..)| !tables.contains(oid));
        }
    }

    /// Queries the catalog, for other tables too if that would have helped this time. Returns the
    /// results and these other tables.
    pub(super) async fn ask(
        &mut self,
        catalog: &mut Catalog,
        (oid, column_types): (u32, &[u32]),
        described_in: Option<&Transaction>,
        names: Names<'_>,
    ) -> Result<(RelationFacts, Vec<Published>), Error> {
        let would_have_helped = described_in.is_some_and(|of| self.last.has(of));
        self.batch = if would_have_helped { (self.batch * 2).clamp(1, MOST) } else { 0 };
        let client = catalog.client().await?;
        let seen = Arc::new(until_seen(client, oid, described_in).await?);
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
        let of_others = facts.into_iter();
        self.known.extend(of_others.map(|(oid, facts)| (oid, (Arc::clone(&seen), facts))));
        self.last = seen;
        Ok((asked, others))
    }

    /// The other tables to include: those not looked up yet, in the order of their creation,
    /// beginning after this one.
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

/// All tables that the publications publish in effect.
async fn published(client: &Client, names: Names<'_>) -> Result<BTreeSet<Published>, Error> {
    let version = client::server_version(client).await?;
    let tables = streamed::in_effect(client, names.both(), version).await?;
    Ok(tables.into_iter().map(|of| (of.oid, of.table.schema, of.table.name)).collect())
}

/// Waits until others see what the transaction made of the table, and returns what later questions see.
async fn until_seen(client: &Client, oid: u32, of: Option<&Transaction>) -> Result<Seen, Error> {
    let (started, mut repeats) = (Instant::now(), Repeats::new());
    let mut looks = Backoff::new(FIRST_LOOK, LONGEST_LOOK);
    loop {
        let seen = seen(client).await?;
        let Some(of) = of.filter(|of| !seen.shows.shows(of.xid)) else { return Ok(seen) };
        if !alters(client, oid, of.xid).await? {
            return Ok(seen);
        }
        let now = Instant::now();
        if now.duration_since(started) >= SHORT
            && let Some(folded) = repeats.again(now)
        {
            tracing::warn!(
                commit_lsn = %of.commit_lsn,
                xid = of.xid,
                folded,
                "the catalog does not show a transaction that the stream brings: does it wait for a \
                 synchronous standby? Its rows wait, as it has altered their table"
            );
        }
        tokio::time::sleep(looks.next_wait()).await;
    }
}

async fn alters(client: &Client, oid: u32, xid: u32) -> Result<bool, Error> {
    let failed = |source| Error::Sql { doing: "ask whether a table is being altered", source };
    let xid = xid.to_string();
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&xid, Type::TEXT), (&oid, Type::OID)];
    let rows = client.query_typed(ALTERS, &parameters).await.map_err(failed)?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

async fn seen(client: &Client) -> Result<Seen, Error> {
    let failed = |source| Error::Sql { doing: "ask which transactions are to be seen", source };
    let rows = client.query_typed(SEEN, &[]).await.map_err(failed)?;
    let text = |at: usize| rows.first().and_then(|row| row.get::<_, Option<&str>>(at));
    let through = text(0).and_then(|end| end.parse().ok()).unwrap_or(Lsn::ZERO);
    let shows = text(1).and_then(Visibility::parse);
    let shows = shows.ok_or(Error::Malformed { what: "what is to be seen is no snapshot" })?;
    Ok(Seen { through, shows })
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

    fn committed(xid: u32, at: u64) -> Transaction {
        Transaction { xid, commit_lsn: Lsn::from(at), commit_time_us: 0 }
    }

    #[test]
    fn what_is_known_holds_for_what_was_seen_when_it_was_asked_and_once() {
        let shows = Visibility::parse("10:20:12").unwrap();
        let seen = Arc::new(Seen { through: Lsn::from(100), shows });
        let known = |types: &[u32]| Ahead {
            known: HashMap::from([(7, (Arc::clone(&seen), facts(types)))]),
            ..Ahead::default()
        };
        let before = committed(11, 99);
        assert_eq!(known(&[20, 25]).take(7, &[20], Some(&before)), Some(facts(&[20])));
        let since = committed(11, 100);
        assert_eq!(known(&[20]).take(7, &[20], Some(&since)), None, "it may have been altered");
        for xid in [12, 20] {
            let unseen = committed(xid, 99);
            assert_eq!(known(&[20]).take(7, &[20], Some(&unseen)), None, "nobody saw that yet");
        }
        assert_eq!(known(&[20]).take(7, &[20], None), None);
        let other = known(&[20]).take(7, &[20, 23], Some(&before));
        assert_eq!(other, None, "a column has another type");
        assert_eq!(known(&[20]).take(8, &[20], Some(&before)), None);
        let mut ahead = known(&[20]);
        assert!(ahead.take(7, &[20], Some(&before)).is_some());
        let again = ahead.take(7, &[20], Some(&before));
        assert_eq!(again, None, "it is described again: it was altered");
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
