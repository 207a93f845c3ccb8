//! Windows against a model: transactions that commit, and become visible later; chunks that are
//! read at any time; crashes between any two steps.
//!
//! The server writes transactions to its log in the order of their commits, and shows each at some
//! later time; until then its rows are locked. A reader takes chunks of the table as it is shown,
//! between watermarks in the same log. A worker follows the log, publishes, and keeps checkpoints.
//! At times it is killed, and begins again from the last checkpoint: with exactly-once nothing but
//! what the checkpoint covers is left of what it published; else all is left, and some comes again.
//!
//! In the end the events, replayed, give the table. And within a life, no event of a row is older
//! than one before it.

mod server;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use self::server::{Entry, KEYS, Server, Stored, Write};
use super::incremental::chunk::Chunk;
use super::incremental::window::{Spoiled, Window};
use super::row::{RowError, RowReader};
use super::visibility::RecentXids;
use crate::change::{Change, Column, Data, Generated, KeySource, OldRow, Position, Relation, Row};
use crate::lsn::Lsn;
use crate::pgoutput::{self, Message, ReplicaIdentity, Tuple};

/// One published event.
#[derive(Debug, Clone, Copy)]
enum Event {
    Row { key: u32, version: u32, large: Option<u32> },
    Gone { key: u32 },
    Emptied,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Checkpoint {
    entries: usize,
    after: Option<u32>,
    is_done: bool,
    events: usize,
}

/// Where the reader is.
enum Reading {
    Idle,
    Open { number: u64, suspects: Option<Vec<u32>> },
    Sent,
}

/// One process, from its start to its end.
struct Life {
    at: usize,
    /// Watermarks up to this one are those of a process before.
    numbers_before: u64,
    recent: RecentXids,
    window: Option<(u64, Window)>,
    chunk: Option<(u64, Chunk, Checkpoint)>,
    stands: Checkpoint,
    reading: Reading,
    seen: BTreeMap<u32, u32>,
}

impl Life {
    fn new(from: Checkpoint, numbers_before: u64) -> Self {
        Self {
            at: from.entries,
            numbers_before,
            recent: RecentXids::default(),
            window: None,
            chunk: None,
            stands: from,
            reading: Reading::Idle,
            seen: BTreeMap::new(),
        }
    }
}

struct World {
    rng: StdRng,
    seed: u64,
    server: Server,
    relation: Arc<Relation>,
    events: Vec<Event>,
    numbers: u64,
    spoiled: u32,
    checks_visibility: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let server = Server::new(&mut rng);
        Self {
            rng,
            seed,
            server,
            relation: Arc::new(relation()),
            events: Vec::new(),
            numbers: 0,
            spoiled: 0,
            checks_visibility: true,
        }
    }

    /// Runs to the end, and gives the events.
    fn run(&mut self, exactly_once: bool) {
        let mut last = Checkpoint { entries: 0, after: None, is_done: false, events: 0 };
        let mut life = Life::new(last, self.numbers);
        for step in 0..600 {
            match self.rng.random_range(0..100) {
                0..15 if step < 500 => self.server.begin(&mut self.rng),
                15..30 => self.server.log_one(&mut self.rng),
                30..40 => self.server.show_one(&mut self.rng),
                40..60 => self.read(&mut life),
                60..90 => self.follow(&mut life),
                90..98 => {
                    last =
                        Checkpoint { entries: life.at, events: self.events.len(), ..life.stands };
                }
                _ => {
                    if exactly_once {
                        self.events.truncate(last.events);
                    }
                    life = Life::new(last, self.numbers);
                }
            }
        }
        // Whatever waits ends, and the snapshot comes to its end.
        for _ in 0..100 {
            self.server.log_one(&mut self.rng);
            self.server.show_one(&mut self.rng);
        }
        for _ in 0..1_000 {
            if life.stands.is_done && life.at == self.server.log.len() {
                return;
            }
            self.read(&mut life);
            self.follow(&mut life);
        }
        panic!("seed {}: the snapshot does not come to its end", self.seed);
    }

    fn read(&mut self, life: &mut Life) {
        match &mut life.reading {
            Reading::Idle if life.stands.is_done => {}
            Reading::Idle => {
                self.numbers += 1;
                let number = self.numbers;
                self.server.mark(|xid| Entry::Low { xid, number });
                life.reading = Reading::Open { number, suspects: None };
            }
            Reading::Open { suspects: suspects @ None, .. } => {
                *suspects = Some(self.server.waiting());
            }
            Reading::Open { number, suspects: Some(suspects) } => {
                let number = *number;
                let mut chunk = Chunk::new(Arc::clone(&self.relation), self.server.snapshot(), 0);
                chunk.suspects = std::mem::take(suspects);
                let after = life.stands.after;
                let rest = self.server.shown.iter();
                let mut rest = rest.filter(|(key, _)| after.is_none_or(|after| **key > after));
                let size = self.rng.random_range(1..6);
                let mut stands = life.stands;
                for (key, row) in rest.by_ref().take(size) {
                    chunk.push(format!("{key}\t{}\t{}\n", row.version, row.large).as_bytes());
                    stands.after = Some(*key);
                }
                stands.is_done = rest.next().is_none();
                life.chunk = Some((number, chunk, stands));
                self.server.mark(|xid| Entry::High { xid, number });
                life.reading = Reading::Sent;
            }
            Reading::Sent => {}
        }
    }

    fn follow(&mut self, life: &mut Life) {
        let Some(entry) = self.server.log.get(life.at).cloned() else { return };
        life.at += 1;
        let xid = match entry {
            Entry::Transaction { xid, .. } | Entry::Low { xid, .. } | Entry::High { xid, .. } => {
                xid
            }
        };
        life.recent.push(xid);
        match entry {
            Entry::Transaction { writes, .. } => {
                for write in writes {
                    self.see(life, write);
                    self.publish_write(life, write);
                }
            }
            Entry::Low { number, .. } | Entry::High { number, .. }
                if number <= life.numbers_before => {}
            Entry::Low { number, .. } => {
                let key = vec!["key".to_owned()];
                let mark = life.recent.mark();
                let window = Window::open(key, Some(&self.relation), mark, 1 << 20);
                life.window = Some((number, window));
            }
            Entry::High { number, .. } => self.close(life, number),
        }
    }

    fn close(&mut self, life: &mut Life, number: u64) {
        let (opened, window) = life.window.take().expect("it was opened");
        let (sent, chunk, stands) = life.chunk.take().expect("it was read");
        assert_eq!((opened, sent), (number, number));
        life.reading = Reading::Idle;
        if let Err(spoiled) = window.check(&chunk, &life.recent)
            && (self.checks_visibility || !matches!(spoiled, Spoiled::Unseen { .. }))
        {
            self.spoiled += 1;
            return;
        }
        let events = &mut self.events;
        let seen = &mut life.seen;
        let seed = self.seed;
        let closed = window.close(&chunk, &mut RowReader::default(), |row| {
            let numbers: Vec<u32> = row.tuple().into_iter().map(number_of).collect();
            let [key, version, large] = numbers[..] else { panic!("three values") };
            let event = Event::Row { key, version, large: Some(large) };
            not_older(seen, key, version, seed);
            events.push(event);
            Ok::<(), RowError>(())
        });
        let closed = closed.expect("lines are rows");
        assert_eq!(closed.published + closed.left_out, chunk.rows());
        life.stands = Checkpoint { events: 0, entries: 0, ..stands };
    }

    fn see(&self, life: &mut Life, write: Write) {
        let Some((_, window)) = &mut life.window else { return };
        let (new, old) = match write {
            Write::Put { key, row, moved_from, .. } => {
                let new = [Some(key), Some(row.version), Some(row.large)];
                (message(new), moved_from.map(old_key))
            }
            Write::Part { key, row } => (message([Some(key), Some(row.version), None]), None),
            Write::Delete { key, .. } => (Vec::new(), Some(old_key(key))),
            Write::Truncate { .. } => (Vec::new(), None),
        };
        let relation = &self.relation;
        let before = old.as_deref().map(tuple).map(OldRow::Key);
        let data = match write {
            Write::Put { is_new: true, .. } => {
                Data::Insert { relation, after: Row::whole(tuple(&new)) }
            }
            Write::Put { .. } | Write::Part { .. } => {
                Data::Update { relation, before, after: Row::whole(tuple(&new)) }
            }
            Write::Delete { .. } => Data::Delete { relation, before: before.expect("a key") },
            Write::Truncate { .. } => Data::Truncate { relation },
        };
        let position = Position::default();
        let (lsn, transaction, last_commit_lsn, origin) = (Lsn::ZERO, None, None, None);
        window.saw(&Change { position, lsn, transaction, last_commit_lsn, origin, data });
    }

    fn publish_write(&mut self, life: &mut Life, write: Write) {
        let seed = self.seed;
        let mut put = |event: Event, key: u32, version: u32| {
            not_older(&mut life.seen, key, version, seed);
            self.events.push(event);
        };
        match write {
            Write::Put { key, row: Stored { version, large }, moved_from, .. } => {
                if let Some(from) = moved_from {
                    put(Event::Gone { key: from }, from, version);
                }
                put(Event::Row { key, version, large: Some(large) }, key, version);
            }
            Write::Part { key, row: Stored { version, .. } } => {
                put(Event::Row { key, version, large: None }, key, version);
            }
            Write::Delete { key, version } => put(Event::Gone { key }, key, version),
            Write::Truncate { version } => {
                for key in 0..KEYS {
                    not_older(&mut life.seen, key, version, seed);
                }
                self.events.push(Event::Emptied);
            }
        }
    }

    /// The table as the events tell it; a large value that nobody told is none.
    fn replayed(&self) -> BTreeMap<u32, (u32, Option<u32>)> {
        let mut table: BTreeMap<u32, (u32, Option<u32>)> = BTreeMap::new();
        for event in &self.events {
            match *event {
                Event::Row { key, version, large } => {
                    let large = large.or_else(|| table.get(&key).and_then(|(_, large)| *large));
                    table.insert(key, (version, large));
                }
                Event::Gone { key } => {
                    table.remove(&key);
                }
                Event::Emptied => table.clear(),
            }
        }
        table
    }

    fn table(&self) -> BTreeMap<u32, (u32, Option<u32>)> {
        self.server.shown.iter().map(|(key, row)| (*key, (row.version, Some(row.large)))).collect()
    }
}

/// Of what was published of a row within a life, the latest comes last.
fn not_older(seen: &mut BTreeMap<u32, u32>, key: u32, version: u32, seed: u64) {
    let before = seen.insert(key, version).unwrap_or_default();
    assert!(before <= version, "seed {seed}: key {key}: {version} comes after {before}");
}

fn number_of(datum: pgoutput::Datum<'_>) -> u32 {
    let pgoutput::Datum::Text(text) = datum else { panic!("a number") };
    std::str::from_utf8(text).expect("digits").parse().expect("digits")
}

fn relation() -> Relation {
    let column = |name: &str, in_identity| Column {
        name: name.to_owned(),
        type_oid: 25,
        typmod: -1,
        in_identity,
        not_null: in_identity,
        default: None,
        generated: Generated::No,
    };
    Relation {
        oid: 7,
        schema: "public".to_owned(),
        table: "t".to_owned(),
        full_name: "public.t".to_owned(),
        replica_identity: ReplicaIdentity::Default,
        columns: vec![column("key", true), column("version", false), column("large", false)],
        key: vec![0],
        key_source: KeySource::PrimaryKey,
        row_key: vec![0],
        types: BTreeMap::new(),
        disagreements: Vec::new(),
    }
}

/// An insert's message with these values; none stands for one that did not change.
fn message(values: [Option<u32>; 3]) -> Vec<u8> {
    let mut message = vec![b'I', 0, 0, 0, 7, b'N', 0, 3];
    for value in values {
        match value.map(|value| value.to_string()) {
            Some(text) => {
                message.push(b't');
                message.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
                message.extend(text.as_bytes());
            }
            None => message.push(b'u'),
        }
    }
    message
}

/// As [`message`], with the key alone.
fn old_key(key: u32) -> Vec<u8> {
    let mut message = message([Some(key), None, None]);
    for byte in message.iter_mut().rev().take(2) {
        *byte = b'n';
    }
    message
}

fn tuple(message: &[u8]) -> Tuple<'_> {
    match pgoutput::decode(message).expect("a message") {
        Message::Insert { new, .. } => new,
        _ => panic!("an insert"),
    }
}

#[test]
fn whatever_comes_between_the_events_replayed_are_the_table() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut spoiled = 0;
    for exactly_once in [true, false] {
        for at in 0..1_500 {
            let mut world = World::new(seed.wrapping_add(at));
            world.run(exactly_once);
            assert_eq!(world.replayed(), world.table(), "seed {}", world.seed);
            spoiled += world.spoiled;
        }
    }
    println!("{spoiled} chunks were read again");
    assert!(spoiled > 100, "{spoiled}: the race came up");
}

#[test]
fn without_the_look_at_what_was_seen_rows_would_go_back_in_time() {
    let went_back = (0..500).any(|seed| {
        std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.checks_visibility = false;
            world.run(true);
            assert_eq!(world.replayed(), world.table());
        })
        .is_err()
    });
    assert!(went_back, "the model has the race, so the test above can fail");
}
