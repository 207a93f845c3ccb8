//! What is to go wrong, and when: drawn from a seed before anything starts.
//!
//! Faults come in shuffled rounds, so that a short run has most kinds and a long one has each of
//! them as often as the others. How long the servers take to come back is theirs to decide; so a
//! schedule says what happens and in which order, and the journal of a run says when.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and after a while another start.
    KillBridge,
    /// SIGTERM, and after a while another start.
    StopBridge,
    /// SIGSTOP: its connections stay.
    FreezeBridge,
    /// All connections to Postgres are closed, and new ones at once.
    CutPostgres,
    /// What is sent to and from Postgres arrives nowhere.
    SwallowPostgres,
    /// What is sent to and from Postgres arrives late.
    SlowPostgres,
    /// The server ends the bridge's walsender.
    EndWalsender,
    /// Fast shutdown, and another start.
    RestartPostgres,
    /// Immediate shutdown, and recovery.
    CrashPostgres,
    /// As [`Fault::CutPostgres`].
    CutKafka,
    /// As [`Fault::SwallowPostgres`].
    SwallowKafka,
    /// As [`Fault::SlowPostgres`].
    SlowKafka,
    /// SIGSTOP to the broker.
    FreezeKafka,
    /// SIGTERM to the broker, and another start.
    RestartKafka,
    /// SIGKILL to the broker, and recovery.
    KillKafka,
    /// Another copy of the bridge is started, and after a while SIGKILL ends one of the two.
    Twin,
}

impl Fault {
    pub(crate) const ALL: [Self; 16] = [
        Self::KillBridge,
        Self::StopBridge,
        Self::FreezeBridge,
        Self::CutPostgres,
        Self::SwallowPostgres,
        Self::SlowPostgres,
        Self::EndWalsender,
        Self::RestartPostgres,
        Self::CrashPostgres,
        Self::CutKafka,
        Self::SwallowKafka,
        Self::SlowKafka,
        Self::FreezeKafka,
        Self::RestartKafka,
        Self::KillKafka,
        Self::Twin,
    ];

    /// How often it comes in a round. The bridge's own sudden end is what most promises are about.
    const fn weight(self) -> usize {
        match self {
            Self::KillBridge => 5,
            _ => 1,
        }
    }

    /// Bounds, in milliseconds, of how long it lasts.
    const fn lasts(self) -> std::ops::Range<u64> {
        match self {
            Self::KillBridge | Self::StopBridge => 0..400,
            Self::CutPostgres | Self::CutKafka | Self::EndWalsender => 10..800,
            Self::SlowPostgres | Self::SlowKafka => 500..1_500,
            Self::FreezeBridge => 300..3_000,
            // Beyond the broker's session of 3 s, now and then.
            Self::FreezeKafka => 300..4_500,
            // Beyond what the server's patience of 2 s makes of silence, now and then.
            Self::SwallowPostgres | Self::SwallowKafka => 300..3_000,
            Self::RestartPostgres | Self::CrashPostgres => 0..500,
            Self::RestartKafka | Self::KillKafka => 0..1_000,
            Self::Twin => 500..3_000,
        }
    }
}

/// One fault of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// How long all is left alone before it.
    pub(crate) pause: Duration,
    pub(crate) fault: Fault,
    /// How long it lasts.
    pub(crate) lasts: Duration,
    /// Whether the bridge is killed in the middle of it.
    pub(crate) with_kill: bool,
    /// Whether the bridge must have caught up before the next one.
    pub(crate) then_recover: bool,
    /// Decides what the fault leaves open, such as which of two copies ends.
    pub(crate) coin: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pause, fault, lasts, with_kill, then_recover, coin } = self;
        write!(f, "after {pause:?}: {fault:?} for {lasts:?}")?;
        let marks = [(with_kill, " with a kill"), (coin, ", heads"), (then_recover, ", recovers")];
        marks.iter().filter(|(is, _)| **is).try_for_each(|(_, mark)| f.write_str(mark))
    }
}

/// The steps of a run.
pub(crate) fn schedule(seed: u64, faults: usize) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let round: Vec<Fault> =
        Fault::ALL.iter().flat_map(|&fault| std::iter::repeat_n(fault, fault.weight())).collect();
    let mut steps = Vec::with_capacity(faults);
    while steps.len() < faults {
        let mut shuffled = round.clone();
        shuffled.shuffle(&mut rng);
        steps.extend(shuffled.into_iter().map(|fault| step(fault, &mut rng)));
    }
    steps.truncate(faults);
    steps
}

fn step(fault: Fault, rng: &mut StdRng) -> Step {
    let is_the_bridges =
        matches!(fault, Fault::KillBridge | Fault::StopBridge | Fault::FreezeBridge | Fault::Twin);
    Step {
        pause: Duration::from_millis(rng.random_range(0..700)),
        fault,
        lasts: Duration::from_millis(rng.random_range(fault.lasts())),
        with_kill: rng.random_bool(0.2) && !is_the_bridges,
        then_recover: rng.random_bool(0.4),
        coin: rng.random_bool(0.5),
    }
}

#[test]
fn a_seed_always_gives_the_same_schedule_and_another_seed_another() {
    assert_eq!(schedule(7, 60), schedule(7, 60));
    assert_ne!(schedule(7, 60), schedule(8, 60));
    // A longer run begins as the shorter one does.
    assert_eq!(schedule(7, 60)[..30], schedule(7, 30));
}

#[test]
fn twenty_faults_have_every_kind() {
    for seed in 0..20 {
        let steps = schedule(seed, 20);
        for fault in Fault::ALL {
            assert!(steps.iter().any(|step| step.fault == fault), "seed {seed} lacks {fault:?}");
        }
    }
}
