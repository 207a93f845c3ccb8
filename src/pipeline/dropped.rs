//! Forgets tables that were dropped, so that an application that creates and drops tables for ever does
//! not make the process grow for ever.
//!
//! The server describes a table once in a session, and again only after it was altered. So what is known
//! of a table may go only when no change of it can come any more:
//!
//! ```text
//! described -- many are known --> asked of -- the catalog has it no more --> waits until the stream has
//!     ^                              |                                       passed that look: forgotten
//!     +-- the catalog has it, or ----+
//!         can't show it yet
//! ```
//!
//! - A snapshot describes its tables too, in the transactions of its watermarks: of a table that only a
//!   snapshot has published, nothing else would say that it is known.
//! - A table that is missing may be one that is not visible yet: a transaction is in the WAL, and so in
//!   the stream, before others see it. So a table counts as dropped only where the look sees the
//!   transaction that described it: its creation came no later.
//! - Whoever writes to a table holds a lock on it until the end of the transaction, so all of its changes
//!   are in transactions that committed before the drop, and that is before the look's end of the WAL.
//! - An OID that a later table has is described again, after the look: that one stays.
//!
//! The catalog is asked when twice as many tables are known as were left after the last time: what a
//! table costs is the same however many there are, and at most twice the tables of the catalog are known,
//! with those that were dropped since the point that the stream is at.

use std::collections::HashMap;

use crate::lsn::Lsn;
use crate::snapshot::Visibility;

/// So many tables are known before it is asked whether they still exist.
const FEW: usize = 512;

/// A look at the catalog.
#[derive(Debug, Clone, Default)]
pub struct Dropped {
    /// The tables that it does not have.
    pub oids: Vec<u32>,
    /// The transactions that it sees.
    pub sees: Visibility,
    /// The end of the WAL, not before it was taken.
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
    /// How many there are when it is asked again.
    ask_at: usize,
    /// Tables that are gone, once the stream has passed this point.
    waiting: Option<(Lsn, Vec<u32>)>,
}

impl Described {
    pub(crate) fn new() -> Self {
        Self { seen: HashMap::new(), ask_at: FEW, waiting: None }
    }

    /// A table is described in this transaction.
    pub(crate) fn describe(&mut self, oid: u32, xid: u32, commit_lsn: Lsn) {
        self.seen.insert(oid, Seen { xid, commit_lsn });
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.seen.len() as u64
    }

    /// The tables to ask the catalog for, if it is time.
    pub(crate) fn to_ask(&self) -> Option<Vec<u32>> {
        let is_time = self.waiting.is_none() && self.seen.len() >= self.ask_at;
        is_time.then(|| self.seen.keys().copied().collect())
    }

    /// What the catalog says of them.
    pub(crate) fn asked(&mut self, look: Dropped) {
        let Dropped { mut oids, sees, through } = look;
        oids.retain(|oid| self.seen.get(oid).is_some_and(|of| sees.shows(of.xid)));
        if oids.is_empty() {
            self.ask_at = FEW.max(2 * self.seen.len());
        } else {
            self.waiting = Some((through, oids));
        }
    }

    /// The stream has come to `lsn`, between two transactions. Returns the tables of which nothing comes
    /// any more, if there are any.
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

    /// As many tables as are asked of, each described by the transaction of its number.
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
        assert_eq!(described.to_ask(), None, "one question at a time");
        assert_eq!(passed(&mut described, 699), [0; 0]);
        assert_eq!(passed(&mut described, 700), [3, 4]);
        assert_eq!(passed(&mut described, 701), [0; 0]);
    }

    #[test]
    fn what_is_not_visible_yet_and_what_has_the_oid_since_stay() {
        let mut described = many();
        // 5 is in the stream, and the look does not see its transaction.
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

    /// Tables come and go for ever.
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
