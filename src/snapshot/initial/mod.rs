//! Publishes existing rows before the stream: several concurrent readers, each with a connection,
//! an encoder and a lane to the producer.
//!
//! ```text
//! ranges --> reader --> rows --> encoder --> producer --> acknowledged
//!    ^       reader --> rows --> encoder -->     |             |
//!    |          ^ gate                           v             v
//! schedule      +------------- committer: the checkpoint says which ranges are whole
//! ```
//!
//! Rows of a snapshot have no order among each other, so they are encoded in parallel. The list of
//! the tables is durable before the first row is published. From then on, at most once a second:
//!
//! - at least once, the checkpoint lists ranges as complete once all their records are
//!   acknowledged;
//! - exactly once, it lists them in the Kafka transaction that contains them: the gate keeps
//!   readers out while it is committed, so that each range is in one transaction. Rows that were
//!   held back are released then.
//!
//! The stream waits meanwhile, at the position that the snapshot shows. Not here: connections, the
//! plan, and the stream afterwards.

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

/// A table to read.
#[derive(Debug)]
pub struct FirstTable {
    /// How its rows are published.
    pub relation: Arc<Relation>,
    /// The table itself, or its partitions.
    pub leaves: Vec<Leaf>,
    /// Its entry in the book.
    pub entry: TableId,
}

/// A file of a table to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The table's or the partition's OID.
    pub oid: u32,
    /// The file that holds it.
    pub filenode: u32,
    /// Its pages when it was planned.
    pub pages: u32,
    /// Its ranges.
    pub ranges: Vec<PageRange>,
}

/// A range of one leaf of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafRange {
    /// The index of the leaf.
    pub leaf: usize,
    /// Its pages.
    pub pages: PageRange,
}

/// What is said of every row.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The position of the stream that the snapshot shows.
    pub lsn: Lsn,
    /// When it was taken, in microseconds since the Unix epoch.
    pub time_us: i64,
    /// A transaction ID of that time.
    pub xid: Option<u64>,
}

/// Reads ranges, one after the other.
pub trait Ranges {
    /// Several rows.
    type Chunk: Lines;

    /// Reads a range of a table, by the indexes of both, and passes on its rows until there are no
    /// more, the session is asked to stop, or `take` returns false. Blocks.
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

/// Rows in COPY's format.
pub trait Lines {
    /// The rows, each a line with its newline.
    fn lines(&self) -> impl Iterator<Item = &[u8]>;
}

/// A first snapshot that is ready to run.
pub struct FirstSnapshot<S, L, R> {
    /// Where records go.
    pub sink: Arc<S>,
    /// Tracks them.
    pub ledger: Arc<Ledger>,
    /// Counts them.
    pub metrics: Arc<Metrics>,
    /// Reports progress.
    pub book: Arc<Book>,
    /// Stops it.
    pub stop: Arc<Stop>,
    /// How checkpoints are written; the first one lists the tables.
    pub checkpointing: Checkpointing,
    /// The tables, in the order in which they are read.
    pub tables: Vec<FirstTable>,
    /// What is said of every row.
    pub stamp: Stamp,
    /// The publisher for rows that were held back.
    pub(crate) own: Publisher<L>,
    /// The readers: a connection and a publisher's parts each.
    pub(crate) readers: Vec<(R, Publisher<L>)>,
}

impl<S, L, R> FirstSnapshot<S, L, R>
where
    S: Sink + Send + Sync,
    L: Lookup + Send,
    R: Ranges + Send,
{
    /// Publishes all rows. Returns the durable checkpoint that says so; `None` if asked to stop
    /// before. Blocks.
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
    /// Its number of ranges.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.ranges.len()).sum()
    }

    /// The number of existing pages of a range.
    fn pages_of(&self, LeafRange { leaf, pages: PageRange { from, to } }: LeafRange) -> u64 {
        let there_were = self.leaves.get(leaf).map_or(0, |leaf| leaf.pages);
        u64::from(to.min(there_were).saturating_sub(from))
    }

    /// The pages of a range.
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
