//! Snapshot and stream together: from the records of the topics alone the tables are made again, row
//! for row, while a load goes on and the bridge is killed at any moment.
//!
//! A real PostgreSQL and a real Kafka; ten tables and one without rows ([`tables`]); a [`load`] that
//! never stops, with transactions that run across the hand-over; and SIGKILLs at moments that are
//! drawn from a seed. What the topics say in the end is replayed and held against the tables
//! ([`replay`]); [`replay_tests`] holds the checker to its word.
//!
//! | what is read | where |
//! |---|---|
//! | all that there was before the start | here |
//! | tables that come while the bridge runs | [`added`] |
//! | parts of tables that somebody asks for | [`asked`] |
//!
//! | variable | for | without it |
//! |---|---|---|
//! | `CHAOS_SEED` | the same moments and statements again | drawn, and printed |
//! | `CHAOS_FAULTS` | a round for each twenty of them, each with its own seed | one round |
//! | `SNAPSHOT_KILLS` | how many kills in a round | 3 |
//!
//! Not here: the ways in which a snapshot is read, each with its own promises: `tests/integration`.

mod added;
mod asked;
mod load;
mod replay;
mod replay_tests;
mod tables;
mod world;

use rowcast_test_support as support;
use tokio_postgres::Client;

use crate::replay::Delivery;
use crate::support::{number, report_skipped, seed};
use crate::world::{Setup, World, kills};

/// How many of the faults that `make chaos` speaks of are one round of this.
const FAULTS_A_ROUND: u64 = 20;

/// Goes as many rounds as are asked for, each with its own seed.
async fn rounds(round: impl AsyncFn(u64) -> Result<(), &'static str>) {
    let (seed, rounds) = (seed(), number("CHAOS_FAULTS").unwrap_or(0) / FAULTS_A_ROUND);
    for number in 0..rounds.max(1) {
        if let Err(reason) = round(seed.wrapping_add(number)).await {
            return report_skipped(module_path!(), reason);
        }
    }
}

/// The first snapshot under a load, with kills at any moment.
async fn initial(delivery: Delivery, seed: u64) -> Result<(), &'static str> {
    let mut world = World::start(seed, Setup::all(delivery, "initial")).await?;
    let mut random = world.moments();
    let load = world.load(seed);
    world.run();
    for _ in 0..kills() {
        world.kill_at_a_moment(&mut random).await;
    }
    world.rows_flow().await;
    println!("{} transactions were committed", load.stop().await);
    let truth = world.settle(false).await;
    assert_eq!(world.replayed.misread(&truth.still(), |_, _| delivery.times(1, 1)), None);
    assert!(truth.tells_of_seeded(), "the seed has rows that nobody wrote to");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_least_once_snapshot_and_stream_replayed_are_the_tables() {
    rounds(async |seed| initial(Delivery::AtLeastOnce, seed).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_once_snapshot_and_stream_replayed_are_the_tables_and_nothing_comes_twice() {
    rounds(async |seed| initial(Delivery::ExactlyOnce, seed).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_least_once_tables_that_come_under_load_are_replayed_as_they_are() {
    rounds(async |seed| added::round(Delivery::AtLeastOnce, seed).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_once_tables_that_come_under_load_are_replayed_as_they_are_and_nothing_comes_twice()
{
    rounds(async |seed| added::round(Delivery::ExactlyOnce, seed).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_least_once_parts_that_are_asked_for_under_load_come_and_harm_nothing() {
    rounds(async |seed| asked::round(Delivery::AtLeastOnce, seed).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_once_parts_that_are_asked_for_under_load_come_once_for_each_request() {
    rounds(async |seed| asked::round(Delivery::ExactlyOnce, seed).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn always_at_every_start_all_rows_are_read_beside_the_stream() {
    rounds(async |seed| {
        let setup = Setup::all(Delivery::ExactlyOnce, "always");
        let mut world = World::start(seed, setup).await?;
        let mut random = world.moments();
        let load = world.load(seed);
        world.run();
        let mut starts = 1;
        for _ in 0..kills() {
            world.kill_at_a_moment(&mut random).await;
            starts += 1;
        }
        world.rows_flow().await;
        println!("{} transactions were committed", load.stop().await);
        let truth = world.settle(false).await;
        assert_eq!(world.replayed.misread(&truth.still(), |_, _| 1..=starts), None);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_all_rows_are_read_once_and_the_slot_is_gone() {
    rounds(async |seed| {
        let mut world = World::start(seed, Setup::all(Delivery::ExactlyOnce, "only")).await?;
        let mut random = world.moments();
        world.run();
        for _ in 0..kills().min(2) {
            world.kill_at_a_moment(&mut random).await;
        }
        world.ends_by_itself().await;
        let client = world.client().await;
        assert_eq!(slots(&client).await, 0, "nobody would read from it");
        let truth = world.settle_ended().await;
        assert_eq!(world.replayed.misread(&truth.still(), |_, _| 1..=1), None);
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn never_no_row_is_read() {
    rounds(async |seed| {
        let mut world = World::start(seed, Setup::all(Delivery::ExactlyOnce, "never")).await?;
        let load = world.load(seed);
        world.run();
        world.rows_flow().await;
        load.stop().await;
        let truth = world.publish().await;
        let replayed = &world.replayed;
        assert_eq!(replayed.reads(), 0);
        assert_eq!(replayed.problems(), None);
        // So the other runs would see it if rows were missing.
        let missing = replayed.differences(&truth, false).expect("the seed's rows are in no topic");
        assert!(missing.contains("nothing tells of"), "{missing}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_needed_a_slot_that_was_dropped_costs_no_row() {
    rounds(async |seed| {
        let setup = Setup::all(Delivery::AtLeastOnce, "when-needed");
        let mut world = World::start(seed, setup).await?;
        let load = world.load(seed);
        world.run();
        world.rows_flow().await;
        load.stop().await;
        world.settle(false).await;
        let client = world.client().await;
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots";
        client.batch_execute(drop).await.expect("drop the slot");
        // What is written now is in no stream.
        let load = world.load(seed.wrapping_add(1));
        world.last_for_a_while().await;
        world.start_again();
        world.rows_flow().await;
        load.stop().await;
        world.settle(true).await;
        Ok(())
    })
    .await;
}

async fn slots(client: &Client) -> i64 {
    let query = "SELECT count(*) FROM pg_replication_slots";
    client.query_one(query, &[]).await.expect("ask").get(0)
}
