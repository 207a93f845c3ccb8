//! What watermarks stand for: handed over here, from the one who reads tables to the worker, and
//! carried out when their watermark comes by in the stream.
//!
//! ```text
//! reader   place(order) -> watermark --> Postgres --> stream --> take(watermark) -> order   worker
//!    ^                                                                                |
//!    +------------------------------- outcome, once its transaction has ended --------+
//! ```
//!
//! So whatever changes the state of snapshots has a place in the stream, and the checkpoint of that
//! place holds it: see [`Edit`]. An order whose watermark never comes is taken back by whoever placed
//! it, or ends with the session.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::chunk::Chunk;
use super::watermark::Watermark;
use super::window::{Closed, Spoiled};
use crate::checkpoint::{LeftOutTable, SnapshotRequest, Snapshots, TableSnapshot};
use crate::lsn::Lsn;

/// What a watermark stands for.
#[derive(Debug)]
pub enum Order {
    /// The low watermark of a window: from here on the changes of the table are minded.
    Open {
        /// The table's OID, as the stream names it.
        oid: u32,
        /// The columns that distinguish its rows.
        key: Vec<String>,
        /// How much may be held of what changes, in bytes.
        limit_bytes: usize,
    },
    /// The high watermark: what the stream has not told of is published.
    Close {
        /// The table's OID.
        oid: u32,
        /// The rows that were read.
        chunk: Box<Chunk>,
        /// What holds once they are published.
        edits: Vec<Edit>,
    },
    /// Only the state of snapshots changes.
    Note(Vec<Edit>),
    /// The stream waits here, and publishes what comes.
    Hold(Hold),
}

/// Something of a table without a key that is done while the stream waits.
#[derive(Debug)]
pub struct Hold {
    /// The table's OID.
    pub oid: u32,
    /// Told once the stream waits.
    pub entered: oneshot::Sender<()>,
    /// What the reader brings.
    pub brought: Receiver<Brought>,
}

/// What a reader brings while the stream waits.
#[derive(Debug)]
pub enum Brought {
    /// Rows.
    Rows(Box<Chunk>),
    /// That is all: the stream goes on, and this holds.
    End {
        /// What holds from the end of the watermark's transaction on.
        edits: Vec<Edit>,
        /// Whether that must be durable before the stream goes on.
        is_durable: bool,
    },
}

/// A change of the state of snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The snapshot of a table stands so; it is put at the end if it is new.
    Put(TableSnapshot),
    /// The snapshot of a table is at its end.
    Remove {
        /// The request.
        id: String,
        /// The table's schema.
        schema: String,
        /// The table.
        table: String,
    },
    /// A snapshot is asked for; which tables that means is not known yet.
    Ask(SnapshotRequest),
    /// Changes of a table are left out from here on.
    LeaveOut(LeftOutTable),
    /// A table has its topic from here on, and is not left out any more.
    Admit {
        /// The table's OID.
        oid: u32,
    },
    /// The request is answered: its tables stand on their own, or nothing comes of it.
    Answer(SnapshotRequest),
    /// A look at partitions saw these transactions.
    SawPartitions(String),
}

impl Edit {
    /// Takes the snapshot of a table out.
    #[must_use]
    pub fn remove(of: &TableSnapshot) -> Self {
        let TableSnapshot { id, schema, table, .. } = of.clone();
        Self::Remove { id, schema, table }
    }

    /// Carries it out.
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

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its watermark's number.
    pub number: u64,
    /// Where the watermark's transaction ends: confirmed, what was ordered is durable.
    pub end_lsn: Lsn,
    /// What became of the chunk; nothing changed where it must be read again.
    pub result: Result<Closed, Spoiled>,
}

/// Where orders wait for their watermarks.
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
    /// An exchange for one run of the pipeline that reads from this slot, and where its outcomes
    /// come out.
    #[must_use]
    pub fn new(slot: String) -> (Self, UnboundedReceiver<Outcome>) {
        let (outcomes, heard) = unbounded_channel();
        let run = uuid::Uuid::now_v7().to_string();
        (Self { slot, run, orders: Mutex::default(), outcomes }, heard)
    }

    /// Leaves an order, and gives the watermark that is to be written for it.
    pub fn place(&self, order: Order) -> Watermark {
        let mut orders = self.lock();
        orders.placed += 1;
        let number = orders.placed;
        orders.waiting.insert(number, order);
        Watermark { slot: self.slot.clone(), run: self.run.clone(), number }
    }

    /// Takes an order back whose watermark was not written, as far as anyone knows. Returns whether it
    /// was still here; else its watermark was heard.
    pub fn withdraw(&self, number: u64) -> bool {
        self.lock().waiting.remove(&number).is_some()
    }

    /// The order of a watermark; none for one that is another's, or was heard before.
    #[must_use]
    pub fn take(&self, content: &[u8]) -> Option<(u64, Order)> {
        let Watermark { slot, run, number } = Watermark::read(content)?;
        if (slot, run) != (self.slot.clone(), self.run.clone()) {
            return None;
        }
        Some((number, self.lock().waiting.remove(&number)?))
    }

    /// Tells what became of an order.
    pub fn tell(&self, outcome: Outcome) {
        // Nobody listens once the session ends.
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
