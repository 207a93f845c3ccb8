//! A server as far as it matters: transactions that write, commit, and become visible later.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::snapshot::Visibility;

pub(super) const KEYS: u32 = 12;

/// A row: counts the writes of all rows, and a large value that an update may leave alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) version: u32,
    pub(super) large: u32,
}

pub(super) type Table = BTreeMap<u32, Stored>;

#[derive(Debug, Clone, Copy)]
pub(super) enum Write {
    /// As an insert or a whole update tells it.
    Put {
        key: u32,
        row: Stored,
        moved_from: Option<u32>,
        is_new: bool,
    },
    /// An update that leaves the large value out.
    Part {
        key: u32,
        row: Stored,
    },
    Delete {
        key: u32,
        version: u32,
    },
    Truncate {
        version: u32,
    },
}

#[derive(Debug, Clone)]
pub(super) enum Entry {
    Transaction { xid: u32, writes: Vec<Write> },
    Low { xid: u32, number: u64 },
    High { xid: u32, number: u64 },
}

#[derive(Debug)]
pub(super) struct Running {
    xid: u32,
    writes: Vec<Write>,
    locks: BTreeSet<u32>,
    is_logged: bool,
}

/// The server.
pub(super) struct Server {
    pub(super) shown: Table,
    running: Vec<Running>,
    pub(super) log: Vec<Entry>,
    next_xid: u32,
    latest_ended: u32,
    versions: u32,
}

impl Server {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let mut server = Self {
            shown: Table::new(),
            running: Vec::new(),
            log: Vec::new(),
            next_xid: 100,
            latest_ended: 99,
            versions: 0,
        };
        for key in 0..KEYS {
            if rng.random_bool(0.7) {
                server.versions += 1;
                let row = Stored { version: server.versions, large: server.versions };
                server.shown.insert(key, row);
            }
        }
        server
    }

    fn xid(&mut self) -> u32 {
        self.next_xid += 1;
        self.next_xid - 1
    }

    pub(super) fn begin(&mut self, rng: &mut StdRng) {
        let locked: BTreeSet<u32> =
            self.running.iter().flat_map(|running| running.locks.iter().copied()).collect();
        let free: Vec<u32> = (0..KEYS).filter(|key| !locked.contains(key)).collect();
        let mut table = self.shown.clone();
        let (mut writes, mut locks) = (Vec::new(), BTreeSet::new());
        if locked.is_empty() && rng.random_bool(0.05) {
            self.versions += 1;
            writes.push(Write::Truncate { version: self.versions });
            table.clear();
            locks.extend(0..KEYS);
        }
        for _ in 0..rng.random_range(1..4) {
            if free.is_empty() {
                break;
            }
            let key = free[rng.random_range(0..free.len())];
            let other = free[rng.random_range(0..free.len())];
            self.versions += 1;
            let version = self.versions;
            let put = |large| Stored { version, large };
            let write = match (table.get(&key).copied(), rng.random_range(0..4)) {
                (None, _) => Write::Put { key, row: put(version), moved_from: None, is_new: true },
                (Some(_), 0) => Write::Delete { key, version },
                (Some(before), 1) => Write::Part { key, row: put(before.large) },
                (Some(_), 2) if !table.contains_key(&other) => Write::Put {
                    key: other,
                    row: put(version),
                    moved_from: Some(key),
                    is_new: false,
                },
                (Some(_), _) => {
                    Write::Put { key, row: put(version), moved_from: None, is_new: false }
                }
            };
            apply(&mut table, write);
            locks.extend([key, other]);
            writes.push(write);
        }
        let xid = self.xid();
        self.running.push(Running { xid, writes, locks, is_logged: false });
    }

    /// A transaction writes its commit.
    pub(super) fn log_one(&mut self, rng: &mut StdRng) {
        let open: Vec<usize> =
            (0..self.running.len()).filter(|&at| !self.running[at].is_logged).collect();
        if !open.is_empty() {
            let running = &mut self.running[open[rng.random_range(0..open.len())]];
            running.is_logged = true;
            let (xid, writes) = (running.xid, running.writes.clone());
            self.log.push(Entry::Transaction { xid, writes });
        }
    }

    /// A transaction whose commit is written ends.
    pub(super) fn show_one(&mut self, rng: &mut StdRng) {
        let logged: Vec<usize> =
            (0..self.running.len()).filter(|&at| self.running[at].is_logged).collect();
        if !logged.is_empty() {
            let ended = self.running.remove(logged[rng.random_range(0..logged.len())]);
            for write in ended.writes {
                apply(&mut self.shown, write);
            }
            self.latest_ended = self.latest_ended.max(ended.xid);
        }
    }

    pub(super) fn snapshot(&self) -> Visibility {
        let xmax = u64::from(self.latest_ended) + 1;
        let running = self.running.iter().map(|running| u64::from(running.xid));
        let mut in_progress: Vec<u64> = running.filter(|xid| *xid < xmax).collect();
        in_progress.sort_unstable();
        Visibility { xmin: in_progress.first().copied().unwrap_or(xmax), xmax, in_progress }
    }

    /// Those that wait for a standby.
    pub(super) fn waiting(&self) -> Vec<u32> {
        self.running.iter().filter(|running| running.is_logged).map(|r| r.xid).collect()
    }

    /// A watermark's transaction waits for no standby.
    pub(super) fn mark(&mut self, entry: impl FnOnce(u32) -> Entry) {
        let xid = self.xid();
        self.log.push(entry(xid));
        self.latest_ended = self.latest_ended.max(xid);
    }
}

pub(super) fn apply(table: &mut Table, write: Write) {
    match write {
        Write::Put { key, row, moved_from, .. } => {
            if let Some(from) = moved_from {
                table.remove(&from);
            }
            table.insert(key, row);
        }
        Write::Part { key, row } => {
            table.insert(key, row);
        }
        Write::Delete { key, .. } => {
            table.remove(&key);
        }
        Write::Truncate { .. } => table.clear(),
    }
}
