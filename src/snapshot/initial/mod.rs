//! Publishes the rows that were there before the stream: several readers concurrently, each with a
//! connection, an encoder and its place in the producer's queue.
//!
//! ```text
//! ranges --> reader --> rows --> encoder --> producer --> acknowledged
//!    ^       reader --> rows --> encoder -->     |             |
//!    |          ^ gate                           v             v
//! schedule      +------------- committer: the checkpoint says which ranges are whole
//! ```
//!
//! Rows of a snapshot need no order among each other, so they are encoded in parallel. The list of
//! the tables is durable before the first row is published. From then on, at most each second:
//!
//! - at least once, the checkpoint says of ranges that they are whole once all their records are
//!   acknowledged;
//! - exactly once, it says so in the Kafka transaction that holds them: the gate keeps readers out
//!   while it is committed, so that each range lies in one transaction. A row that was held back is
//!   let go then.
//!
//! The stream stands still meanwhile, at the point that the snapshot shows. Not here: connections,
//! the plan, and what comes after.

mod committer;
pub(crate) mod connection;
mod gate;
mod reader;
pub mod schedule;
mod shared;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::committer::Committer;
use self::reader::{Reader, Rows};
use self::shared::Desk;
use crate::change::Relation;
use crate::checkpoint::{Checkpoint, Ledger};
use crate::error::Error;
use crate::kafka::Sink;
use crate::lsn::Lsn;
use crate::metrics::Metrics;
use crate::pipeline::publish::Publisher;
use crate::pipeline::{Checkpointing, Lookup, Stop};
use crate::snapshot::PageRange;
use crate::snapshot::progress::{Book, TableId};

pub(crate) const STAMP: &str = include_str!("../../../sql/snapshot_stamp.sql");

/// A table that is read.
#[derive(Debug)]
pub struct FirstTable {
    /// How its rows are published.
    pub relation: Arc<Relation>,
    /// The table itself, or its partitions.
    pub leaves: Vec<Leaf>,
    /// Where the book has it.
    pub entry: TableId,
}

/// A file of a table that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The table's or the partition's OID.
    pub oid: u32,
    /// The file that holds it.
    pub filenode: u32,
    /// Pages in it when it was looked at.
    pub pages: u32,
    /// Its ranges.
    pub ranges: Vec<PageRange>,
}

/// A range of one leaf of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafRange {
    /// The place of the leaf.
    pub leaf: usize,
    /// Its pages.
    pub pages: PageRange,
}

/// What is said of every row.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The point of the stream that the snapshot shows.
    pub lsn: Lsn,
    /// When it was taken, in microseconds since the Unix epoch.
    pub time_us: i64,
    /// A transaction of that time.
    pub xid: Option<u64>,
}

/// Reads ranges, one after the other.
pub trait Ranges {
    /// Several rows.
    type Chunk: Lines;

    /// Reads a range of a table, by the places of both, and hands out its rows, until there are no
    /// more, the session is asked to stop, or `take` says false. Blocks.
    ///
    /// # Errors
    /// When it can't be read to its end.
    fn read(
        &mut self,
        table: usize,
        place: LeafRange,
        take: &mut dyn FnMut(Self::Chunk) -> bool,
    ) -> Result<(), Error>;
}

/// Rows as COPY writes them.
pub trait Lines {
    /// The rows, each a line with its newline.
    fn lines(&self) -> impl Iterator<Item = &[u8]>;
}

/// A first snapshot, ready to be taken.
pub struct FirstSnapshot<S, L, R> {
    /// Where records go.
    pub sink: Arc<S>,
    /// Keeps account of them.
    pub ledger: Arc<Ledger>,
    /// Counts them.
    pub metrics: Arc<Metrics>,
    /// Tells how far it is.
    pub book: Arc<Book>,
    /// Ends it.
    pub stop: Arc<Stop>,
    /// How the checkpoint is written; the one at the start lists the tables.
    pub checkpointing: Checkpointing,
    /// The tables, in the order in which they are read.
    pub tables: Vec<FirstTable>,
    /// What is said of every row.
    pub stamp: Stamp,
    /// For the rows that were held back.
    pub(crate) own: Publisher<L>,
    /// The readers: a connection and what else each needs.
    pub(crate) readers: Vec<(R, Publisher<L>)>,
}

impl<S, L, R> FirstSnapshot<S, L, R>
where
    S: Sink + Send + Sync,
    L: Lookup + Send,
    R: Ranges + Send,
{
    /// Publishes all rows. Returns the checkpoint that says so and is durable; none when it was told
    /// to stop before. Blocks.
    ///
    /// # Errors
    /// The first failure. What is not in a checkpoint by then is published again.
    pub fn run(self) -> Result<Option<Checkpoint>, Error> {
        let Self { sink, ledger, metrics, book, stop, checkpointing, tables, stamp, own, readers } =
            self;
        let tables: Arc<[FirstTable]> = tables.into();
        let ranges = tables.iter().map(FirstTable::ranges);
        let desk = Desk::new(sink, ledger, metrics, book, stop, ranges);
        let rows = |publisher| Rows::new(publisher, stamp, Arc::clone(&tables));
        let mut committer = Committer::new(&desk, rows(own), checkpointing);
        let readers = readers.into_iter().map(|(source, own)| Reader { rows: rows(own), source });
        committer.run(&tables, readers.collect())
    }
}

impl FirstTable {
    /// How many ranges it has.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.ranges.len()).sum()
    }

    /// How many pages a range has, of those that there were.
    fn pages_of(&self, LeafRange { leaf, pages: PageRange { from, to } }: LeafRange) -> u64 {
        let there_were = self.leaves.get(leaf).map_or(0, |leaf| leaf.pages);
        u64::from(to.min(there_were).saturating_sub(from))
    }

    /// Which pages a range has.
    #[must_use]
    pub fn place(&self, mut range: usize) -> Option<LeafRange> {
        for (leaf, Leaf { ranges, .. }) in self.leaves.iter().enumerate() {
            match ranges.get(range) {
                Some(&pages) => return Some(LeafRange { leaf, pages }),
                None => range -= ranges.len(),
            }
        }
        None
    }
}
