//! Orders: the reader of tables hands them to the worker, which carries each out when its watermark
//! arrives in the stream.
//!
//! ```text
//! reader   place(order) -> watermark --> Postgres --> stream --> take(watermark) -> order   worker
//!    ^                                                                                |
//!    +------------------------------- outcome, once its transaction has ended --------+
//! ```
//!
//! So every change of the snapshots' state has a position in the stream, and the checkpoint of that
//! position contains it: see [`Edit`]. An order whose watermark never arrives is withdrawn by
//! whoever placed it, or ends with the session.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::chunk::Chunk;
use super::watermark::Watermark;
use super::window::{Closed, Spoiled};
use crate::checkpoint::{LeftOutTable, SnapshotRequest, Snapshots, TableSnapshot};
use crate::lsn::Lsn;

/// What to do at a watermark.
#[derive(Debug)]
pub enum Order {
    /// The low watermark of a window: from here on the table's changes are recorded.
    Open {
        /// The table's OID in the stream.
        oid: u32,
        /// The columns that distinguish its rows.
        key: Vec<String>,
        /// How many bytes of changed keys may be held.
        limit_bytes: usize,
    },
    /// The high watermark: rows without changes are published.
    Close {
        /// The table's OID.
        oid: u32,
        /// The rows that were read.
        chunk: Box<Chunk>,
        /// The state changes once they are published.
        edits: Vec<Edit>,
    },
    /// Only the state of snapshots changes.
    Note(Vec<Edit>),
    /// The stream waits here, and publishes rows as they arrive.
    Hold(Hold),
}

/// Part of a table without a key that is read while the stream waits.
#[derive(Debug)]
pub struct Hold {
    /// The table's OID.
    pub oid: u32,
    /// Signalled once the stream waits.
    pub entered: oneshot::Sender<()>,
    /// The reader's rows.
    pub brought: Receiver<Brought>,
}

/// A message of the reader while the stream waits.
#[derive(Debug)]
pub enum Brought {
    /// Rows.
    Rows(Box<Chunk>),
    /// The end: the stream continues, with these state changes.
    End {
        /// The state changes with the end of the watermark's transaction.
        edits: Vec<Edit>,
        /// Whether they must be durable before the stream continues.
        is_durable: bool,
    },
}

/// A change of the state of snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Sets the state of a table's snapshot; a new one is appended.
    Put(TableSnapshot),
    /// The snapshot of a table has ended.
    Remove {
        /// The request.
        id: String,
        /// The table's schema.
        schema: String,
        /// The table.
        table: String,
    },
    /// A snapshot is requested; its tables are not known yet.
    Ask(SnapshotRequest),
    /// Changes of a table are left out from here on.
    LeaveOut(LeftOutTable),
    /// A table has its topic from here on and is not left out any more.
    Admit {
        /// The table's OID.
        oid: u32,
    },
    /// The request is resolved: its tables are listed, or it was refused.
    Answer(SnapshotRequest),
    /// A check of partitions saw these transactions.
    SawPartitions(String),
}

impl Edit {
    /// Removes a table's snapshot.
    #[must_use]
    pub fn remove(of: &TableSnapshot) -> Self {
        let TableSnapshot { id, schema, table, .. } = of.clone();
        Self::Remove { id, schema, table }
    }

    /// Applies the change.
    pub fn apply(self, snapshots: &mut Snapshots) {
        let Snapshots { tables, requests, left_out, partitions_seen, .. } = snapshots;
        match self {
            Self::Put(new) => {
                let is_it = |of: &&mut TableSnapshot| {
                    (&of.id, &of.schema, &of.table) == (&new.id, &new.schema, &new.table)
                };
                match tables.iter_mut().find(is_it) {
                    Some(old) => *old = new,
                    None => tables.push(new),
                }
            }
            Self::Remove { id, schema, table } => {
                tables.retain(|of| (&of.id, &of.schema, &of.table) != (&id, &schema, &table));
            }
            Self::LeaveOut(new) => {
                left_out.retain(|of| of.oid != new.oid);
                left_out.push(new);
            }
            Self::Admit { oid } => left_out.retain(|of| of.oid != oid),
            Self::Ask(new) if requests.contains(&new) => {}
            Self::Ask(new) => requests.push(new),
            Self::Answer(answered) => requests.retain(|request| *request != answered),
            Self::SawPartitions(seen) => *partitions_seen = Some(seen),
        }
    }
}

/// The outcome of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its watermark's number.
    pub number: u64,
    /// The end of the watermark's transaction: once confirmed, the order is durable.
    pub end_lsn: Lsn,
    /// The outcome of the chunk; nothing changed if it must be read again.
    pub result: Result<Closed, Spoiled>,
}

/// Orders that wait for their watermarks.
#[derive(Debug)]
pub struct Exchange {
    slot: String,
    run: String,
    orders: Mutex<Orders>,
    outcomes: UnboundedSender<Outcome>,
}

#[derive(Debug, Default)]
struct Orders {
    placed: u64,
    waiting: BTreeMap<u64, Order>,
}

impl Exchange {
    /// An exchange for one run of the pipeline that reads from this slot, and the receiver of its
    /// outcomes.
    #[must_use]
    pub fn new(slot: String) -> (Self, UnboundedReceiver<Outcome>) {
        let (outcomes, heard) = unbounded_channel();
        let run = uuid::Uuid::now_v7().to_string();
        (Self { slot, run, orders: Mutex::default(), outcomes }, heard)
    }

    /// Places an order, and returns the watermark to write for it.
    pub fn place(&self, order: Order) -> Watermark {
        let mut orders = self.lock();
        orders.placed += 1;
        let number = orders.placed;
        orders.waiting.insert(number, order);
        Watermark { slot: self.slot.clone(), run: self.run.clone(), number }
    }

    /// Withdraws an order whose watermark was apparently not written. Returns whether it was still
    /// waiting; otherwise its watermark was processed.
    pub fn withdraw(&self, number: u64) -> bool {
        self.lock().waiting.remove(&number).is_some()
    }

    /// The order of a watermark; `None` if it is another pipeline's, or was processed before.
    #[must_use]
    pub fn take(&self, content: &[u8]) -> Option<(u64, Order)> {
        let Watermark { slot, run, number } = Watermark::read(content)?;
        if (slot, run) != (self.slot.clone(), self.run.clone()) {
            return None;
        }
        Some((number, self.lock().waiting.remove(&number)?))
    }

    /// Reports the outcome of an order.
    pub fn tell(&self, outcome: Outcome) {
        // The receiver is gone once the session ends.
        let _ = self.outcomes.send(outcome);
    }

    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{SnapshotReason, TableProgress};

    #[test]
    fn an_order_is_taken_once_by_its_own_watermark() {
        let (exchange, _outcomes) = Exchange::new("ours".to_owned());
        let (other, _outcomes) = Exchange::new("ours".to_owned());
        let first = exchange.place(Order::Note(Vec::new()));
        let second = exchange.place(Order::Note(Vec::new()));
        let _ = other.place(Order::Note(Vec::new()));
        assert!(other.take(first.content().as_bytes()).is_none(), "of another run");
        let foreign = Watermark { slot: "theirs".to_owned(), ..first.clone() };
        assert!(exchange.take(foreign.content().as_bytes()).is_none());
        assert!(exchange.take(b"anything").is_none());
        assert!(exchange.withdraw(second.number) && !exchange.withdraw(second.number));
        assert!(exchange.take(second.content().as_bytes()).is_none());
        assert!(matches!(exchange.take(first.content().as_bytes()), Some((1, Order::Note(_)))));
        assert!(exchange.take(first.content().as_bytes()).is_none());
    }

    #[test]
    fn edits_find_their_table_and_keep_the_order_of_requests() {
        let of = |id: &str, table: &str, is_paused| TableSnapshot {
            partition: None,
            id: id.to_owned(),
            schema: "public".to_owned(),
            table: table.to_owned(),
            reason: SnapshotReason::Asked,
            condition: None,
            is_paused,
            progress: TableProgress::Waiting,
        };
        let mut snapshots = Snapshots::default();
        for edit in [
            Edit::Put(of("1", "a", false)),
            Edit::Put(of("1", "b", false)),
            Edit::Put(of("2", "a", false)),
            Edit::Put(of("1", "a", true)),
            Edit::remove(&of("1", "b", false)),
            Edit::remove(&of("1", "b", false)),
        ] {
            edit.apply(&mut snapshots);
        }
        assert_eq!(snapshots.tables, [of("1", "a", true), of("2", "a", false)]);
    }

    #[test]
    fn a_table_is_left_out_once_until_it_is_admitted() {
        let of = |oid: u32, table: &str| LeftOutTable {
            oid,
            schema: "public".to_owned(),
            table: table.to_owned(),
        };
        let mut snapshots = Snapshots::default();
        for edit in [
            Edit::LeaveOut(of(1, "a")),
            Edit::LeaveOut(of(2, "b")),
            Edit::LeaveOut(of(1, "c")),
            Edit::Admit { oid: 2 },
            Edit::Admit { oid: 3 },
        ] {
            edit.apply(&mut snapshots);
        }
        assert_eq!(snapshots.left_out, [of(1, "c")]);
        assert!(!snapshots.is_empty(), "the checkpoint has to keep it");
    }

    #[test]
    fn a_request_stands_once_until_it_is_answered() {
        let of = |pattern: &str| SnapshotRequest {
            partition: None,
            id: "mine".to_owned(),
            tables: vec![pattern.to_owned()],
            condition: None,
            reason: SnapshotReason::Asked,
        };
        let mut snapshots = Snapshots::default();
        for edit in [Edit::Ask(of("a.*")), Edit::Ask(of("a.*")), Edit::Ask(of("b.*"))] {
            edit.apply(&mut snapshots);
        }
        assert_eq!(snapshots.requests, [of("a.*"), of("b.*")]);
        Edit::Answer(of("a.*")).apply(&mut snapshots);
        assert_eq!(snapshots.requests, [of("b.*")], "another one under the same name");
    }
}
