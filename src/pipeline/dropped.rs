//! Forgets dropped tables, so that memory does not grow if an application keeps creating and
//! dropping tables.
//!
//! The server describes a table once per session, and again only after it was altered. So a table
//! may be forgotten only when no change of it can arrive any more:
//!
//! ```text
//! described -- many are known --> queried -- it is not in the catalog ----> waits until the stream has
//!     ^                              |                                       passed the query: forgotten
//!     +-- the catalog has it, or ----+
//!         can't show it yet
//! ```
//!
//! - A snapshot describes its tables too, in the transactions of its watermarks: nothing else would
//!   record a table that only a snapshot has published.
//! - A missing table may not be visible yet: a transaction is in the WAL, and so in the stream,
//!   before others see it. So a table counts as dropped only if the query's snapshot sees the
//!   transaction that described it: it was created no later.
//! - A writer holds a lock on the table until the end of its transaction, so all changes are in
//!   transactions that committed before the drop, which is before the end of the WAL at the query.
//! - A later table with the same OID is described after the query: that one is kept.
//!
//! The catalog is queried when twice as many tables are known as remained after the last query: so
//! the cost per table is constant, and at most twice the tables of the catalog are known, plus
//! those dropped since the stream's position.

use std::collections::HashMap;

use crate::lsn::Lsn;
use crate::snapshot::Visibility;

/// Number of known tables before the first query.
const FEW: usize = 512;

/// The result of a query of the catalog.
#[derive(Debug, Clone, Default)]
pub struct Dropped {
    /// The tables that are not in it.
    pub oids: Vec<u32>,
    /// The transactions that are visible to it.
    pub sees: Visibility,
    /// The end of the WAL, read after the query.
    pub through: Lsn,
}

/// When a table was described last.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// In which transaction.
    xid: u32,
    commit_lsn: Lsn,
}

/// The tables that were described in this session, by the stream or by a snapshot.
#[derive(Debug)]
pub(crate) struct Described {
    seen: HashMap<u32, Seen>,
    /// The number of tables at which to query again.
    ask_at: usize,
    /// Dropped tables, to be forgotten once the stream has passed this position.
    waiting: Option<(Lsn, Vec<u32>)>,
}

impl Described {
    pub(crate) fn new() -> Self {
        Self { seen: HashMap::new(), ask_at: FEW, waiting: None }
    }

    /// Records the description of a table in this transaction.
    pub(crate) fn describe(&mut self, oid: u32, xid: u32, commit_lsn: Lsn) {
        self.seen.insert(oid, Seen { xid, commit_lsn });
    }

    /// The number of tables.
    pub(crate) fn count(&self) -> u64 {
        self.seen.len() as u64
    }

    /// The tables to query, if a query is due.
    pub(crate) fn to_ask(&self) -> Option<Vec<u32>> {
        let is_time = self.waiting.is_none() && self.seen.len() >= self.ask_at;
        is_time.then(|| self.seen.keys().copied().collect())
    }

    /// Takes the result of the query.
    pub(crate) fn asked(&mut self, look: Dropped) {
        let Dropped { mut oids, sees, through } = look;
        oids.retain(|oid| self.seen.get(oid).is_some_and(|of| sees.shows(of.xid)));
        if oids.is_empty() {
            self.ask_at = FEW.max(2 * self.seen.len());
        } else {
            self.waiting = Some((through, oids));
        }
    }

    /// The stream has reached `lsn`, between two transactions. Returns the tables without further
    /// changes, if any.
    #[inline]
    pub(crate) fn passed(&mut self, lsn: Lsn) -> Option<Vec<u32>> {
        let (through, _) = self.waiting.as_ref()?;
        if lsn < *through { None } else { self.forget() }
    }

    #[cold]
    fn forget(&mut self) -> Option<Vec<u32>> {
        let (through, mut oids) = self.waiting.take()?;
        oids.retain(|oid| self.seen.get(oid).is_some_and(|of| of.commit_lsn < through));
        for oid in &oids {
            self.seen.remove(oid);
        }
        self.seen.shrink_to(2 * self.seen.len());
        self.ask_at = FEW.max(2 * self.seen.len());
        (!oids.is_empty()).then_some(oids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(oids: &[u32], sees: &str, through: u64) -> Dropped {
        let sees = Visibility::parse(sees).unwrap();
        Dropped { oids: oids.to_vec(), sees, through: Lsn::from(through) }
    }

    /// `count` tables, each described in the transaction with its number.
    fn many() -> Described {
        let mut described = Described::new();
        for oid in 1..=u32::try_from(FEW).unwrap() {
            assert_eq!(described.to_ask(), None);
            described.describe(oid, oid, Lsn::from(u64::from(oid)));
        }
        assert_eq!(described.to_ask().unwrap().len(), FEW);
        described
    }

    fn passed(described: &mut Described, lsn: u64) -> Vec<u32> {
        let mut oids = described.passed(Lsn::from(lsn)).unwrap_or_default();
        oids.sort_unstable();
        oids
    }

    #[test]
    fn what_is_gone_is_forgotten_once_the_stream_has_passed_the_look_and_not_before() {
        let mut described = many();
        described.asked(look(&[3, 4], "600:600:", 700));
        assert_eq!(described.to_ask(), None, "one query at a time");
        assert_eq!(passed(&mut described, 699), [0; 0]);
        assert_eq!(passed(&mut described, 700), [3, 4]);
        assert_eq!(passed(&mut described, 701), [0; 0]);
    }

    #[test]
    fn what_is_not_visible_yet_and_what_has_the_oid_since_stay() {
        let mut described = many();
        // 5 is in the stream, and the query does not see its transaction.
        described.asked(look(&[3, 4, 5], "5:600:5", 700));
        described.describe(4, 650, Lsn::from(720));
        assert_eq!(passed(&mut described, 800), [3]);
        let mut described = many();
        described.asked(look(&[5], "5:600:5", 700));
        assert_eq!(passed(&mut described, 800), [0; 0]);
    }

    #[test]
    fn it_is_asked_again_when_there_are_twice_as_many() {
        let mut described = many();
        described.asked(look(&[], "600:600:", 700));
        assert_eq!(described.to_ask(), None);
        for oid in 1_000..1_000 + u32::try_from(FEW).unwrap() {
            assert_eq!(described.to_ask(), None);
            described.describe(oid, 601, Lsn::from(701));
        }
        assert!(described.to_ask().is_some());
        described.asked(look(&(1_000..1_500).collect::<Vec<_>>(), "602:602:", 800));
        assert_eq!(passed(&mut described, 800).len(), 500);
        assert_eq!(described.ask_at, 2 * (2 * FEW - 500));
    }

    /// Tables are created and dropped forever.
    #[test]
    fn the_number_of_tables_that_are_known_is_bounded() {
        let mut described = Described::new();
        for n in 0..50_000 {
            described.describe(n, n, Lsn::from(u64::from(n)));
            if let Some(asked) = described.to_ask() {
                let gone: Vec<u32> = asked.into_iter().filter(|oid| oid % 1_000 != 0).collect();
                described.asked(look(&gone, &format!("{0}:{0}:", n + 1), u64::from(n) + 1));
            }
            described.passed(Lsn::from(u64::from(n) + 1));
            assert!(described.seen.len() <= FEW);
        }
    }
}
