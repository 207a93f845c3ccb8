//! A run from its seed to its verdict.

use crate::check::Mode;
use crate::load;
use crate::schedule::schedule;
use crate::support::{number, report_skipped, seed};
use crate::verdict::Verdict;
use crate::watch::Watcher;
use crate::world::World;

/// Whether the modes that are asked for have this one among them.
pub(crate) fn is_asked_for(mode: Mode) -> bool {
    std::env::var("CHAOS_MODE").map_or(true, |only| only == mode.word())
}

/// Runs all of it.
pub(crate) async fn run(mode: Mode) {
    if !is_asked_for(mode) {
        return;
    }
    let seed = seed();
    let faults = usize::try_from(number("CHAOS_FAULTS").unwrap_or(20)).expect("a count");
    println!("CHAOS_MODE={} CHAOS_SEED={seed} CHAOS_FAULTS={faults}", mode.word());
    let mut world = match World::start(mode, &format!("{}-{seed}", mode.word())).await {
        Ok(world) => world,
        Err(reason) => return report_skipped(module_path!(), reason),
    };
    let watcher = Watcher::start(world.kafka.brokers(), world.topics());
    let load = load::start(&world.database.unix_url, seed);
    world.recover(&watcher).await;
    for (number, step) in schedule(seed, faults).iter().enumerate() {
        world.suffer(number + 1, step).await;
        if step.then_recover {
            world.recover(&watcher).await;
        }
    }
    world.recover(&watcher).await;
    let committed = load.stop().await;
    world.tell(&format!("{committed} transactions were acknowledged to the load"));
    let client = world.client().await;
    let last = load::commit_last(&client).await;
    world.catch_up(&watcher, last).await;
    world.end();
    let (brokers, topics) = (world.kafka.brokers(), world.topics());
    let verdict = Verdict::reach(mode, &client, &brokers, &topics, watcher).await;
    world.tell(&verdict.summary());
    if let Some(problems) = verdict.problems() {
        verdict.keep(&world.keep_evidence());
        panic!("seed {seed}: {problems}");
    }
}
