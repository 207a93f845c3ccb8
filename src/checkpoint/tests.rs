//! The core of the promise, run through lives of crashes: [`Tracker`], [`Progress`] and [`decide`]
//! between a server that replays and a log that keeps or loses what was not acknowledged.
//!
//! Everything is decided by a seed, which a failure prints. A life feeds the stream step by step;
//! between any two steps records are acknowledged in any order, checkpoints are written, the slot
//! is confirmed, the bridge dies, or the server crashes and its slot goes back to what it had on
//! disk. In the end the log holds each change: exactly once in order, as a reader of committed
//! records sees it, or at least once without a hole.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::change::Position;
use crate::lsn::Lsn;

/// What the server sends.
#[derive(Debug, Clone, Copy)]
enum Message {
    Begin,
    Change(Position),
    /// One that belongs to no transaction.
    Lone(Position),
    Commit {
        end_lsn: Lsn,
        position: Position,
    },
    Keepalive(Lsn),
}

/// What stands in the log.
#[derive(Debug, Clone, Copy)]
enum Entry {
    Change(Position),
    Checkpoint(Progress),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    AtLeastOnce,
    ExactlyOnce,
}

/// A mistake made on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mistake {
    None,
    /// The slot is confirmed when records are acknowledged, not when a checkpoint is.
    ConfirmsEarly,
    /// What the checkpoint covers is sent again.
    SkipsNothing,
    /// A checkpoint tells of what was sent, acknowledged or not.
    TellsEarly,
}

/// What outlives the bridge.
struct World {
    random: StdRng,
    mode: Mode,
    mistake: Mistake,
    /// The stream, each with the commit position that decides whether the server sends it again.
    stream: Vec<(Lsn, Message)>,
    wal_end: Lsn,
    log: Vec<Entry>,
    confirmed: Lsn,
    /// What the slot may go back to.
    on_disk: Vec<Lsn>,
}

/// What dies with it.
struct Life {
    tracker: Tracker,
    resumed: Progress,
    /// Sent and not acknowledged; in the log only once it is.
    in_flight: Vec<(Ticket, Position)>,
    /// At least once: the checkpoint under way.
    under_way: Option<Progress>,
    /// Exactly once: the transaction that is open.
    open: Vec<Position>,
    last: Option<Position>,
}

impl World {
    fn new(seed: u64, mode: Mode, mistake: Mistake) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut stream = Vec::new();
        let mut wal = 100;
        for _ in 0..random.random_range(1..12) {
            wal += random.random_range(1..20);
            let commit_lsn = Lsn::from(wal);
            match random.random_range(0..6) {
                0 => stream.push((commit_lsn, Message::Keepalive(commit_lsn))),
                1 => {
                    let position = Position { commit_lsn, ordinal: 0 };
                    stream.push((commit_lsn, Message::Lone(position)));
                }
                _ => {
                    let changes = random.random_range(0..8);
                    stream.push((commit_lsn, Message::Begin));
                    let position = |ordinal| Position { commit_lsn, ordinal };
                    let all = (1..=changes).map(|n| (commit_lsn, Message::Change(position(n))));
                    stream.extend(all);
                    wal += random.random_range(1..5);
                    let end_lsn = Lsn::from(wal);
                    let position = position(changes);
                    stream.push((commit_lsn, Message::Commit { end_lsn, position }));
                }
            }
        }
        let start = Lsn::from(100);
        Self {
            random,
            mode,
            mistake,
            stream,
            wal_end: Lsn::from(wal),
            log: Vec::new(),
            confirmed: start,
            on_disk: vec![start],
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_ratio(1, one_in)
    }

    fn source() -> Source {
        Source { timeline: 1, ..Source::default() }
    }

    /// The newest checkpoint in the log.
    fn checkpoint(&self) -> Option<Checkpoint> {
        let progress = self.log.iter().rev().find_map(|entry| match entry {
            Entry::Checkpoint(progress) => Some(*progress),
            Entry::Change(_) => None,
        })?;
        let snapshots = Arc::default();
        Some(Checkpoint { source: Self::source(), generation: 1, progress, snapshots })
    }

    fn begin(&self) -> Life {
        let server = ServerFound { source: Self::source(), history: vec![], wal_end: self.wal_end };
        let checkpoint = self.checkpoint();
        let slot = SlotFound::Present { confirmed: self.confirmed };
        let resumed = match decide(slot, checkpoint.as_ref(), &server) {
            Decision::Continue { progress, .. } => progress,
            Decision::Adopt { confirmed } => Progress::at(confirmed),
            other => panic!("nothing is missing, but: {other:?}"),
        };
        let tracker = Tracker::new(resumed);
        let (in_flight, open) = (Vec::new(), Vec::new());
        Life { tracker, resumed, in_flight, under_way: None, open, last: None }
    }

    /// Runs the bridge until it dies; whether it came to the end of the stream and confirmed it.
    fn live(&mut self) -> bool {
        let mut life = self.begin();
        // The server leaves out what ended before the position that it is asked for, or is at.
        let from = life.resumed.through_lsn.max(self.confirmed);
        let stream = self.stream.clone();
        for (commit_lsn, message) in stream {
            if commit_lsn < from && !matches!(message, Message::Keepalive(_)) {
                continue;
            }
            self.carry(&mut life, message);
            for _ in 0..self.random.random_range(0..4) {
                if !self.act(&mut life) {
                    return false;
                }
            }
        }
        // Nothing more comes: the brokers get their time, and the last checkpoint is written.
        while !life.in_flight.is_empty() {
            self.acknowledge(&mut life);
        }
        self.settle(&mut life);
        self.settle(&mut life);
        self.confirm(&life);
        self.confirmed == life.tracker.sent().through_lsn
    }

    fn carry(&mut self, life: &mut Life, message: Message) {
        match message {
            Message::Begin => life.tracker.begin(),
            Message::Change(position) | Message::Lone(position) => {
                if life.resumed.covers(position) && self.mistake != Mistake::SkipsNothing {
                    return;
                }
                let ticket = life.tracker.issue();
                life.in_flight.push((ticket, position));
                life.open.push(position);
                life.last = Some(position);
                if matches!(message, Message::Lone(_)) {
                    life.tracker.mark(position);
                }
            }
            Message::Commit { end_lsn, position } => life.tracker.commit(end_lsn, position),
            Message::Keepalive(lsn) => life.tracker.keepalive(lsn),
        }
    }

    /// One thing that happens while the stream runs; whether the bridge lives on.
    fn act(&mut self, life: &mut Life) -> bool {
        match self.random.random_range(0..12) {
            0..5 => self.acknowledge(life),
            5..7 => self.settle(life),
            7 => self.confirm(life),
            8 => self.on_disk.push(self.confirmed),
            9 if self.mode == Mode::AtLeastOnce => {
                // A part of a transaction, at a chunk's end.
                if let Some(last) = life.last.take() {
                    life.tracker.mark(last);
                }
            }
            9 => self.cut(life),
            10 if self.chance(8) => {
                self.die(life);
                return false;
            }
            11 if self.chance(16) => {
                // The server crashes: its slot is where it was written last, or anywhere since.
                let at = self.random.random_range(0..self.on_disk.len());
                self.confirmed = self.on_disk[at];
                self.die(life);
                return false;
            }
            _ => {}
        }
        true
    }

    fn acknowledge(&mut self, life: &mut Life) {
        if life.in_flight.is_empty() {
            return;
        }
        let at = self.random.random_range(0..life.in_flight.len());
        let (ticket, position) = life.in_flight.remove(at);
        life.tracker.ack(ticket);
        if self.mode == Mode::AtLeastOnce {
            self.log.push(Entry::Change(position));
        }
    }

    /// The next step towards a durable checkpoint.
    fn settle(&mut self, life: &mut Life) {
        match (self.mode, life.under_way) {
            (Mode::AtLeastOnce, None) => {
                let tells_early = self.mistake == Mistake::TellsEarly;
                let all = if tells_early { life.tracker.sent() } else { life.tracker.delivered() };
                life.under_way = Some(all);
            }
            (Mode::AtLeastOnce, Some(progress)) => {
                self.log.push(Entry::Checkpoint(progress));
                life.under_way = None;
                life.tracker.confirm(progress);
            }
            (Mode::ExactlyOnce, _) => {
                if !life.tracker.in_transaction() {
                    self.commit(life);
                }
            }
        }
    }

    /// Ends the Kafka transaction inside of a source transaction.
    fn cut(&mut self, life: &mut Life) {
        if let Some(last) = life.last.filter(|_| life.tracker.in_transaction()) {
            life.tracker.mark(last);
            self.commit(life);
        }
    }

    /// All of the transaction counts at once: records and checkpoint.
    fn commit(&mut self, life: &mut Life) {
        while !life.in_flight.is_empty() {
            self.acknowledge(life);
        }
        let sent = life.tracker.sent();
        self.log.extend(life.open.drain(..).map(Entry::Change));
        self.log.push(Entry::Checkpoint(sent));
        // Between the two the bridge may die: see `die`, which confirms nothing.
        life.tracker.confirm(sent);
    }

    fn confirm(&mut self, life: &Life) {
        let early = self.mistake == Mistake::ConfirmsEarly;
        let delivered = life.tracker.delivered().through_lsn;
        let confirmed = if early { delivered } else { life.tracker.confirmed() };
        self.confirmed = self.confirmed.max(confirmed);
        let durable = self.checkpoint().map_or(Lsn::from(100), |last| last.progress.through_lsn);
        assert!(self.confirmed <= durable, "{} is confirmed, {durable} is told", self.confirmed);
    }

    /// Of what was not acknowledged, the log has some all the same.
    fn die(&mut self, life: &mut Life) {
        if self.mode == Mode::AtLeastOnce {
            for (_, position) in life.in_flight.drain(..) {
                if self.random.random_bool(0.5) {
                    self.log.push(Entry::Change(position));
                }
            }
            if let Some(progress) = life.under_way.filter(|_| self.random.random_bool(0.5)) {
                self.log.push(Entry::Checkpoint(progress));
            }
        }
    }

    fn verify(&self) {
        let expected: Vec<Position> = self.stream.iter().filter_map(|(_, m)| change(*m)).collect();
        let changes = self.log.iter().filter_map(|entry| match entry {
            Entry::Change(position) => Some(*position),
            Entry::Checkpoint(_) => None,
        });
        let mut published: Vec<Position> = changes.collect();
        if self.mode == Mode::AtLeastOnce {
            published.sort_unstable();
            published.dedup();
        }
        assert_eq!(published, expected);
    }
}

fn change(message: Message) -> Option<Position> {
    match message {
        Message::Change(position) | Message::Lone(position) => Some(position),
        Message::Begin | Message::Commit { .. } | Message::Keepalive(_) => None,
    }
}

/// One world from its beginning to the end of its stream.
fn run(seed: u64, mode: Mode, mistake: Mistake) {
    let mut world = World::new(seed, mode, mistake);
    let mut lives = 0;
    while !world.live() {
        lives += 1;
        assert!(lives < 1_000, "it never comes to the end");
    }
    world.verify();
}

fn fails(seed: u64, mode: Mode, mistake: Mistake) -> bool {
    std::panic::catch_unwind(|| run(seed, mode, mistake)).is_err()
}

fn explore(mode: Mode) {
    let first: u64 = rand::random();
    for seed in (0..3_000).map(|n| first.wrapping_add(n)) {
        assert!(!fails(seed, mode, Mistake::None), "seed {seed}, {mode:?}: see above");
    }
}

#[test]
fn at_least_once_no_life_leaves_a_hole_or_takes_one_for_a_gap() {
    explore(Mode::AtLeastOnce);
}

#[test]
fn exactly_once_every_change_is_committed_once_and_in_order() {
    explore(Mode::ExactlyOnce);
}

#[test]
fn the_exploration_finds_what_is_wrong() {
    std::panic::set_hook(Box::new(|_| {}));
    let finds = |mode, mistake| (0..2_000).any(|seed| fails(seed, mode, mistake));
    let found = [
        finds(Mode::AtLeastOnce, Mistake::ConfirmsEarly),
        finds(Mode::ExactlyOnce, Mistake::ConfirmsEarly),
        finds(Mode::ExactlyOnce, Mistake::SkipsNothing),
        finds(Mode::AtLeastOnce, Mistake::TellsEarly),
    ];
    let _ = std::panic::take_hook();
    assert_eq!(found, [true; 4]);
}
