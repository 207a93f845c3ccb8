//! Transaction metadata, as Debezium's `provide.transaction.metadata`: how many events of which
//! tables a transaction has, in its rows and in the two records around them.
//!
//! Nothing of a transaction is kept but its counts. They are the same on every replay, because a
//! replay starts at a transaction's beginning. An event is counted when it is written: what is not
//! published has no place in the order, and neither has a tombstone.
//!
//! An ID is `<xid>:<lsn of what carries it>`, as Debezium makes it: it differs between the records
//! of one transaction, and only the part before the colon joins them.
//! Records: <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-transaction-metadata>

use std::collections::{HashMap, HashSet};

use super::digits::write_number;
use crate::change::Transaction;
use crate::lsn::Lsn;
use crate::types::write_string;

/// What logical messages are counted under. Debezium counts each under a name of its own, which
/// holds the address of a Java object.
const MESSAGES: &str = "LOGICAL_DECODING_MESSAGE";

/// Place of [`MESSAGES`] among the collections.
pub(super) const MESSAGES_AT: usize = 0;

/// The events of the transaction that is open, counted by table.
#[derive(Debug)]
pub(super) struct Counts {
    total: u64,
    /// Every table that is known; those without events in this transaction have a zero.
    collections: Vec<Collection>,
    places: HashMap<String, usize>,
    /// Places of tables that are gone.
    free: Vec<usize>,
    /// Places of the tables with events in this transaction, in the order of their first.
    touched: Vec<usize>,
}

#[derive(Debug)]
struct Collection {
    /// `{"data_collection":"public.trips","event_count":`.
    head: Vec<u8>,
    events: u64,
}

/// An event's place in its transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct TransactionBlock {
    xid: u32,
    lsn: Lsn,
    total_order: u64,
    collection_order: u64,
}

impl Counts {
    pub(super) fn new() -> Self {
        let mut counts = Self {
            total: 0,
            collections: Vec::new(),
            places: HashMap::new(),
            free: Vec::new(),
            touched: Vec::new(),
        };
        counts.place(MESSAGES);
        counts
    }

    /// The place of a table's count, the same for as long as these counts live.
    pub(super) fn place(&mut self, name: &str) -> usize {
        if let Some(&at) = self.places.get(name) {
            return at;
        }
        let mut head = b"{\"data_collection\":".to_vec();
        write_string(name, &mut head);
        head.extend_from_slice(b",\"event_count\":");
        let new = Collection { head, events: 0 };
        let free = self.free.pop();
        let at = match free.and_then(|at| Some((at, self.collections.get_mut(at)?))) {
            Some((at, collection)) => {
                *collection = new;
                at
            }
            None => {
                self.collections.push(new);
                self.collections.len() - 1
            }
        };
        self.places.insert(name.to_owned(), at);
        at
    }

    /// Events of these tables alone are counted from here on. Not within a transaction.
    pub(super) fn keep<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.reset();
        let mut names: HashSet<&str> = names.collect();
        names.insert(MESSAGES);
        let free = &mut self.free;
        self.places.retain(|name, at| {
            let is_kept = names.contains(name.as_str());
            if !is_kept {
                free.push(*at);
            }
            is_kept
        });
    }

    /// A transaction begins: none of its events was seen.
    pub(super) fn reset(&mut self) {
        self.total = 0;
        for at in self.touched.drain(..) {
            if let Some(collection) = self.collections.get_mut(at) {
                collection.events = 0;
            }
        }
    }

    /// One more event at a place.
    #[inline]
    pub(super) fn event(
        &mut self,
        transaction: &Transaction,
        lsn: Lsn,
        at: usize,
    ) -> TransactionBlock {
        self.total += 1;
        let mut collection_order = 0;
        if let Some(collection) = self.collections.get_mut(at) {
            if collection.events == 0 {
                self.touched.push(at);
            }
            collection.events += 1;
            collection_order = collection.events;
        }
        TransactionBlock { xid: transaction.xid, lsn, total_order: self.total, collection_order }
    }

    /// The events counted so far.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Takes back the last events, all at one place, down to this total: they were not written.
    pub(super) fn take_back(&mut self, total: u64, at: usize) {
        let events = self.total.saturating_sub(total);
        self.total -= events;
        let Some(collection) = self.collections.get_mut(at) else { return };
        collection.events = collection.events.saturating_sub(events);
        if events > 0 && collection.events == 0 {
            self.touched.retain(|&touched| touched != at);
        }
    }

    /// The value that says a transaction ended, with what was counted of it.
    pub(super) fn write_end(&self, transaction: &Transaction, lsn: Lsn, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"status\":\"END\",\"id\":");
        write_id(transaction.xid, lsn, out);
        out.extend_from_slice(b",\"event_count\":");
        write_number(self.total, out);
        out.extend_from_slice(b",\"data_collections\":[");
        let touched = self.touched.iter().filter_map(|&at| self.collections.get(at));
        for (count, collection) in touched.enumerate() {
            if count > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&collection.head);
            write_number(collection.events, out);
            out.push(b'}');
        }
        out.push(b']');
        write_time(transaction, out);
    }
}

/// The value that says a transaction began.
pub(super) fn write_begin(transaction: &Transaction, lsn: Lsn, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"status\":\"BEGIN\",\"id\":");
    write_id(transaction.xid, lsn, out);
    out.extend_from_slice(b",\"event_count\":null,\"data_collections\":null");
    write_time(transaction, out);
}

/// The key of both.
pub(super) fn write_key(transaction: &Transaction, lsn: Lsn, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":");
    write_id(transaction.xid, lsn, out);
    out.push(b'}');
}

fn write_time(transaction: &Transaction, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"ts_ms\":");
    write_number(transaction.commit_time_us.div_euclid(1_000), out);
    out.push(b'}');
}

fn write_id(xid: u32, lsn: Lsn, out: &mut Vec<u8>) {
    out.push(b'"');
    write_number(xid, out);
    out.push(b':');
    write_number(lsn.as_u64(), out);
    out.push(b'"');
}

impl TransactionBlock {
    /// The block in an envelope.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        write_id(self.xid, self.lsn, out);
        out.extend_from_slice(b",\"total_order\":");
        write_number(self.total_order, out);
        out.extend_from_slice(b",\"data_collection_order\":");
        write_number(self.collection_order, out);
        out.push(b'}');
    }

    /// The same as attributes of a CloudEvent, whose numbers are texts.
    pub(super) fn write_attributes(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"iodebeziumtxid\":");
        write_id(self.xid, self.lsn, out);
        out.extend_from_slice(b",\"iodebeziumtxtotalorder\":\"");
        write_number(self.total_order, out);
        out.extend_from_slice(b"\",\"iodebeziumtxdatacollectionorder\":\"");
        write_number(self.collection_order, out);
        out.push(b'"');
    }
}
