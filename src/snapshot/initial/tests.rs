//! A snapshot against a broker that acknowledges in any order and whose client dies at any moment:
//! what the checkpoint says of ranges is true of the log, in either mode.
//!
//! A row's key says which row it is; the broker knows records by that and not by tickets. Everything
//! is decided by a seed, which a failure prints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::change::{KeyChoice, RelationFacts, Relations};
use crate::checkpoint::{
    LeafProgress, PageProgress, Progress, SnapshotReason, Snapshots, Source, TableProgress,
    TableSnapshot, Ticket,
};
use crate::config::{Config, Kafka};
use crate::encode::{EncodeOptions, Encoder, SourceIdentity};
use crate::kafka::{self, Outgoing, SendError};
use crate::pgoutput::{Message, decode};
use crate::pipeline::{Mode, Policy};
use crate::route::Router;
use crate::snapshot::pages::ranges;
use crate::snapshot::progress::Planned;
use crate::worker::tests::{Willing, wire};

const LSN: Lsn = Lsn::ZERO;

/// Table, leaf, page, row.
type Row = (usize, usize, u32, u32);

/// Rows of each page of each leaf of each table.
type Content = Vec<Vec<Vec<u32>>>;

/// What stands in the log, or waits to.
#[derive(Debug, Clone)]
enum Entry {
    Row {
        topic: String,
        id: Row,
        marker: String,
    },
    Checkpoint(Arc<Snapshots>),
    /// What came since the last is readable from here on.
    Commit,
}

/// The broker.
struct Broker {
    ledger: Arc<Ledger>,
    stop: Arc<Stop>,
    state: Mutex<World>,
}

struct World {
    random: StdRng,
    /// Sends until the client dies.
    lives: u32,
    is_transactional: bool,
    is_open: bool,
    in_flight: Vec<(Option<Ticket>, Entry)>,
    /// Exactly once: of the transaction that is open.
    uncommitted: Vec<Entry>,
    log: Vec<Entry>,
    commits: u32,
}

impl World {
    /// Acknowledges one that is under way.
    fn acknowledge(&mut self, ledger: &Ledger) {
        let at = self.random.random_range(0..self.in_flight.len());
        let (ticket, entry) = self.in_flight.swap_remove(at);
        match (self.is_transactional, ticket) {
            (true, _) => self.uncommitted.push(entry),
            (false, _) => self.log.push(entry),
        }
        match ticket {
            Some(ticket) => ledger.ack_all(&[ticket]),
            None => ledger.checkpoint_acknowledged(),
        }
    }

    const fn is_dead(&self) -> bool {
        self.lives == 0
    }
}

impl Broker {
    fn take(&self, ticket: Option<Ticket>, entry: Entry) -> Result<(), SendError> {
        let mut world = self.state.lock().unwrap();
        assert!(!world.is_transactional || world.is_open, "{entry:?} outside of a transaction");
        world.lives = world.lives.saturating_sub(1);
        if world.is_dead() {
            self.stop.now();
            return Ok(());
        }
        if world.in_flight.len() > 20 {
            world.acknowledge(&self.ledger);
            return Err(SendError::Full { rooms_made: 0 });
        }
        world.in_flight.push((ticket, entry));
        while !world.in_flight.is_empty() && world.random.random_ratio(1, 2) {
            world.acknowledge(&self.ledger);
        }
        Ok(())
    }
}

impl Sink for Broker {
    fn send(&self, record: &Outgoing<'_>, ticket: Ticket) -> Result<(), SendError> {
        let value: serde_json::Value = serde_json::from_slice(record.value.unwrap()).unwrap();
        let id = value["after"]["id"].as_str().unwrap();
        let parts: Vec<u32> = id.split('-').map(|part| part.parse().unwrap()).collect();
        let id = (parts[0] as usize, parts[1] as usize, parts[2], parts[3]);
        let marker = value["source"]["snapshot"].as_str().unwrap().to_owned();
        self.take(Some(ticket), Entry::Row { topic: record.topic.to_owned(), id, marker })
    }

    fn checkpoint(&self, record: &Outgoing<'_>) -> Result<(), SendError> {
        let checkpoint = Checkpoint::read(record.value.unwrap()).unwrap();
        self.take(None, Entry::Checkpoint(checkpoint.snapshots))
    }

    fn begin(&self) -> Result<(), kafka::Error> {
        let mut world = self.state.lock().unwrap();
        assert!(!std::mem::replace(&mut world.is_open, true), "one is open");
        Ok(())
    }

    fn commit(&self, limit: Duration) -> Result<bool, kafka::Error> {
        let mut world = self.state.lock().unwrap();
        if world.is_dead() {
            drop(world);
            std::thread::sleep(limit.min(Duration::from_millis(1)));
            return Ok(false);
        }
        while !world.in_flight.is_empty() {
            world.acknowledge(&self.ledger);
        }
        if world.is_transactional {
            assert!(std::mem::replace(&mut world.is_open, false), "none is open");
            let uncommitted = std::mem::take(&mut world.uncommitted);
            world.log.extend(uncommitted);
            world.log.push(Entry::Commit);
            world.commits += 1;
        }
        Ok(true)
    }

    fn send_queued(&self) {}

    fn wait_for_room(&self, _: u64, _: Duration) {}
}

/// A connection that has everything in memory, and gives it in pieces.
struct Memory {
    content: Arc<Content>,
    random: StdRng,
    /// What a range takes, beside its work.
    pause: Duration,
}

impl Lines for Vec<String> {
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.iter().map(String::as_bytes)
    }
}

impl Ranges for Memory {
    type Chunk = Vec<String>;

    fn read(
        &mut self,
        table: usize,
        LeafRange { leaf, pages }: LeafRange,
        take: &mut dyn FnMut(Vec<String>) -> bool,
    ) -> Result<(), Error> {
        std::thread::sleep(self.pause);
        let mut piece = Vec::new();
        let content = &self.content[table][leaf];
        for page in pages.from..pages.to.min(number(content.len())) {
            for row in 0..content[page as usize] {
                piece.push(format!("{table}-{leaf}-{page}-{row}\n"));
                if self.random.random_ratio(1, 3) && !take(std::mem::take(&mut piece)) {
                    return Ok(());
                }
            }
        }
        take(piece);
        Ok(())
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("few")
}

fn relation(oid: u32) -> Arc<Relation> {
    let message = wire::relation(oid, &format!("t{oid}"), b'd', &[(true, "id", 25)]);
    let Message::Relation(body) = decode(&message).unwrap() else { panic!("not a relation") };
    let facts = RelationFacts::default();
    Relations::default().insert(&body, facts, &KeyChoice::default()).unwrap()
}

fn publisher() -> Publisher<Willing> {
    let kafka = Kafka { brokers: Some("b:9092".to_owned()), ..Kafka::default() };
    let config = Config { name: Some("nyc".to_owned()), kafka, ..Config::default() };
    let settings = config.resolve("taxi").unwrap();
    let source = SourceIdentity { name: "nyc".to_owned(), ..SourceIdentity::default() };
    let encoder = Encoder::new(&EncodeOptions { format: &settings.format, source });
    Publisher::new(Willing, Router::new(&settings, "taxi"), encoder, Policy::default())
}

fn content(random: &mut StdRng) -> Content {
    let tables = random.random_range(0..4);
    let leaf = |random: &mut StdRng| {
        let pages = random.random_range(0..12);
        (0..pages).map(|_| random.random_range(0..4)).collect()
    };
    let table = |random: &mut StdRng| {
        let leaves = random.random_range(1..3);
        (0..leaves).map(|_| leaf(random)).collect()
    };
    (0..tables).map(|_| table(random)).collect()
}

fn tables(content: &Content) -> Vec<FirstTable> {
    let leaf = |oid: usize, pages: &Vec<u32>| Leaf {
        oid: number(oid),
        filenode: 1000 + number(oid),
        pages: number(pages.len()),
        ranges: ranges(number(pages.len()), 3).collect(),
    };
    let leaves =
        |leaves: &Vec<Vec<u32>>| leaves.iter().enumerate().map(|(at, p)| leaf(at, p)).collect();
    let entry = Book::new(Arc::default()).begin_table(Planned::default());
    let table = |(at, all): (usize, &Vec<Vec<u32>>)| FirstTable {
        relation: relation(number(at)),
        leaves: leaves(all),
        entry,
    };
    content.iter().enumerate().map(table).collect()
}

/// What became of one snapshot.
struct Outcome {
    finished: Option<Checkpoint>,
    log: Vec<Entry>,
    commits: u32,
}

#[expect(clippy::too_many_lines, reason = "sets up one snapshot with all it needs")]
fn take(seed: u64, content: &Arc<Content>, mode: Mode, lives: u32, pause: Duration) -> Outcome {
    let mut random = StdRng::seed_from_u64(seed);
    let ledger = Arc::new(Ledger::new(Progress::at(LSN)));
    let stop = Arc::new(Stop::default());
    let tables = tables(content);
    let listed = |table: &FirstTable| TableSnapshot {
        partition: None,
        id: "first".to_owned(),
        schema: table.relation.schema.clone(),
        table: table.relation.table.clone(),
        reason: SnapshotReason::First,
        condition: None,
        is_paused: false,
        progress: TableProgress::Pages(PageProgress { lsn: LSN, ..PageProgress::default() }),
    };
    let tables_listed = tables.iter().map(listed).collect();
    let snapshots = Arc::new(Snapshots { tables: tables_listed, ..Snapshots::default() });
    let readers = random.random_range(1..4);
    let memory = |random: &mut StdRng| Memory {
        content: Arc::clone(content),
        random: StdRng::seed_from_u64(random.random()),
        pause,
    };
    let readers = (0..readers).map(|_| (memory(&mut random), publisher())).collect();
    let world = World {
        random,
        lives,
        is_transactional: mode != Mode::AtLeastOnce,
        is_open: false,
        in_flight: Vec::new(),
        uncommitted: Vec::new(),
        log: Vec::new(),
        commits: 0,
    };
    let broker =
        Broker { ledger: Arc::clone(&ledger), stop: Arc::clone(&stop), state: Mutex::new(world) };
    let broker = Arc::new(broker);
    let snapshot = FirstSnapshot {
        sink: Arc::clone(&broker),
        ledger,
        metrics: Arc::default(),
        book: Arc::new(Book::new(Arc::default())),
        stop,
        checkpointing: Checkpointing {
            topic: "checkpoints".into(),
            pipeline: "nyc".to_owned(),
            start: Checkpoint {
                source: Source::default(),
                generation: 1,
                progress: Progress::at(LSN),
                snapshots,
            },
            is_new: true,
            mode,
            idle_limit: Duration::from_secs(10),
            drain_limit: Duration::from_secs(10),
        },
        tables,
        stamp: Stamp { lsn: LSN, time_us: 0, xid: None },
        own: publisher(),
        readers,
    };
    let finished = snapshot.run().expect("nothing fails");
    let mut world = broker.state.lock().unwrap();
    Outcome { finished, log: std::mem::take(&mut world.log), commits: world.commits }
}

/// How often each row is in the log, and the last checkpoint.
fn told(log: &[Entry]) -> (BTreeMap<Row, u32>, Option<Arc<Snapshots>>) {
    let mut rows = BTreeMap::new();
    let mut last = None;
    for entry in log {
        match entry {
            Entry::Row { topic, id, .. } => {
                assert_eq!(*topic, format!("nyc.public.t{}", id.0));
                *rows.entry(*id).or_default() += 1;
            }
            Entry::Checkpoint(snapshots) => last = Some(Arc::clone(snapshots)),
            Entry::Commit => {}
        }
    }
    (rows, last)
}

/// Whether the checkpoint says of a row that it is published.
fn is_covered(snapshots: &Snapshots, (table, leaf, page, _): Row) -> bool {
    let name = format!("t{table}");
    let Some(listed) = snapshots.tables.iter().find(|listed| listed.table == name) else {
        return true;
    };
    let TableProgress::Pages(pages) = &listed.progress else { return false };
    let found = pages.leaves.iter().find(|found| found.oid == number(leaf));
    found.is_some_and(|LeafProgress { done, filenode, .. }| {
        assert_eq!(*filenode, 1000 + number(leaf));
        assert!(done.windows(2).all(|two| two[0].1 < two[1].0), "apart and ascending: {done:?}");
        done.iter().any(|(from, to)| (*from..*to).contains(&page))
    })
}

fn all_rows(content: &Content) -> BTreeSet<Row> {
    let mut all = BTreeSet::new();
    for (table, leaves) in content.iter().enumerate() {
        for (leaf, pages) in leaves.iter().enumerate() {
            for (page, rows) in pages.iter().enumerate() {
                all.extend((0..*rows).map(|row| (table, leaf, number(page), row)));
            }
        }
    }
    all
}

const EXACTLY_ONCE: Mode = Mode::ExactlyOnce {
    commit_interval: Duration::from_millis(1),
    // As if every look found it full.
    max_transaction_bytes: 0,
    timeout: Duration::from_secs(60),
};

fn explore(mode: Mode) {
    let started = Instant::now();
    let mut cut = 0;
    let mut rounds = 0;
    while rounds < 60 || (cut < 10 && started.elapsed() < Duration::from_secs(20)) {
        rounds += 1;
        let seed = rand::random();
        let mut random = StdRng::seed_from_u64(seed);
        let content = Arc::new(content(&mut random));
        let all = all_rows(&content);
        let dies = random.random_ratio(1, 2);
        let lives = if dies { random.random_range(2..number(all.len()) + 8) } else { u32::MAX };
        let Outcome { finished, log, .. } = take(seed, &content, mode, lives, Duration::ZERO);
        let (rows, last) = told(&log);
        let told = format!("seed {seed}: {last:?}");
        match (&finished, &last) {
            (Some(checkpoint), Some(last)) => {
                assert!(checkpoint.snapshots.tables.is_empty() && last.tables.is_empty(), "{told}");
                assert_eq!(rows.keys().copied().collect::<BTreeSet<_>>(), all, "{told}");
                assert!(rows.values().all(|count| *count == 1), "{told}");
            }
            (Some(_), None) => panic!("{told}"),
            (None, Some(last)) => {
                cut += 1;
                for row in &all {
                    let count = rows.get(row).copied().unwrap_or(0);
                    match (mode, is_covered(last, *row)) {
                        (_, true) => assert_eq!(count, 1, "{row:?}, {told}"),
                        (Mode::AtLeastOnce, false) => {}
                        (Mode::ExactlyOnce { .. }, false) => {
                            assert_eq!(count, 0, "{row:?}, {told}")
                        }
                    }
                }
            }
            (None, None) => assert!(rows.is_empty(), "rows before the list; {told}"),
        }
    }
    println!("{rounds} rounds, {cut} cut off");
}

#[test]
fn at_least_once_what_the_checkpoint_covers_is_in_the_log() {
    explore(Mode::AtLeastOnce);
}

#[test]
fn exactly_once_the_log_has_what_the_checkpoint_covers_and_nothing_else() {
    explore(EXACTLY_ONCE);
}

#[test]
fn rows_and_their_ranges_are_committed_together_while_others_are_read() {
    // Long enough for several looks.
    let content = Arc::new(vec![vec![vec![2; 60]]]);
    let Outcome { finished, log, commits } =
        take(7, &content, EXACTLY_ONCE, u32::MAX, Duration::from_millis(20));
    assert!(finished.is_some() && commits > 3, "{commits} commits");
    for (at, entry) in log.iter().enumerate() {
        if matches!(entry, Entry::Commit) {
            let (rows, last) = told(&log[..at]);
            let last = last.expect("each commit has one");
            for row in all_rows(&content) {
                assert_eq!(rows.contains_key(&row), is_covered(&last, row), "{row:?}");
            }
        }
    }
}

#[test]
fn markers_say_which_rows_come_first_and_last() {
    let content = Arc::new(vec![vec![vec![3; 9]], vec![vec![1], vec![2; 5]], vec![vec![0; 3]]]);
    let Outcome { log, .. } = take(3, &content, Mode::AtLeastOnce, u32::MAX, Duration::ZERO);
    let mut markers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for entry in &log {
        if let Entry::Row { marker, id, .. } = entry {
            markers.entry(marker).or_default().push(id.0);
        }
    }
    assert_eq!((markers["first"].len(), markers["last"].len()), (1, 1));
    assert_eq!(markers["first_in_data_collection"].len(), 1);
    assert_eq!(markers["last_in_data_collection"].len(), 1);
    assert_ne!(markers["first"], markers["first_in_data_collection"]);
    assert_ne!(markers["last"], markers["last_in_data_collection"]);
    assert_eq!(markers["true"].len(), 27 + 11 - 4);
}
