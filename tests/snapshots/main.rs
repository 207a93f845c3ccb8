//! Snapshot and stream together: from the records of the topics alone the tables are made again, row
//! for row, while a load goes on and the bridge is killed at any moment.
//!
//! A real PostgreSQL and a real Kafka; ten tables and one without rows ([`tables`]), which have rows
//! before the bridge is started; a [`load`] that never stops, with transactions that run across the
//! hand-over; and SIGKILLs at moments that are drawn from a seed. What the topics say in the end is
//! replayed and held against the tables ([`replay`]); [`replay_tests`] holds the checker to its word.
//!
//! | variable | for | without it |
//! |---|---|---|
//! | `CHAOS_SEED` | the same moments and statements again | drawn, and printed |
//! | `SNAPSHOT_KILLS` | how many kills in a run | 3 |
//!
//! Not here: the ways in which a snapshot is read, each with its own promises: `tests/integration`.

#[path = "../support/mod.rs"]
mod support;

mod load;
mod replay;
mod replay_tests;
mod tables;
mod world;

use tokio_postgres::Client;

use crate::load::Load;
use crate::replay::{Delivery, Truth};
use crate::support::report_skipped;
use crate::world::{World, kills};

macro_rules! world_or_skip {
    ($delivery:expr, $mode:literal) => {
        match World::start($delivery, $mode).await {
            Ok(world) => world,
            Err(reason) => return report_skipped(module_path!(), reason),
        }
    };
}

/// The first snapshot under a load, with kills at any moment.
async fn initial(delivery: Delivery) {
    let mut world = world_or_skip!(delivery, "initial");
    let mut random = world.moments();
    let load = Load::start(&world.database.unix_url, world.seed);
    world.run();
    for _ in 0..kills() {
        world.kill_at_a_moment(&mut random).await;
    }
    world.rows_flow().await;
    println!("{} transactions were committed", load.stop().await);
    let (replayed, truth) = world.settle(false).await;
    let (least, most) = replayed.reads_of_still(&truth.still());
    println!("rows that nobody wrote to were read {least} to {most} times");
    assert!(least == 1 || (least > 0 && delivery == Delivery::AtLeastOnce), "{least}");
    assert!(most == 1 || delivery == Delivery::AtLeastOnce, "{most}");
    assert!(tells_of_seeded(&truth), "the seed has rows that nobody wrote to");
}

fn tells_of_seeded(truth: &Truth) -> bool {
    truth.still().values().map(Vec::len).sum::<usize>() > 1_000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_least_once_snapshot_and_stream_replayed_are_the_tables() {
    initial(Delivery::AtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_once_snapshot_and_stream_replayed_are_the_tables_and_nothing_comes_twice() {
    initial(Delivery::ExactlyOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn always_at_every_start_all_rows_are_read_beside_the_stream() {
    let mut world = world_or_skip!(Delivery::ExactlyOnce, "always");
    let mut random = world.moments();
    let load = Load::start(&world.database.unix_url, world.seed);
    world.run();
    let mut starts = 1;
    for _ in 0..kills() {
        world.kill_at_a_moment(&mut random).await;
        starts += 1;
    }
    world.rows_flow().await;
    println!("{} transactions were committed", load.stop().await);
    let (replayed, truth) = world.settle(false).await;
    let (least, most) = replayed.reads_of_still(&truth.still());
    println!("rows that nobody wrote to were read {least} to {most} times");
    assert!(least >= 1 && most <= starts, "{least} to {most} times in {starts} starts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_all_rows_are_read_once_and_the_slot_is_gone() {
    let mut world = world_or_skip!(Delivery::ExactlyOnce, "only");
    let mut random = world.moments();
    world.run();
    for _ in 0..kills().min(2) {
        if world.has_ended() {
            break;
        }
        world.kill_at_a_moment(&mut random).await;
    }
    world.ends_by_itself().await;
    let client = world.client().await;
    assert_eq!(slots(&client).await, 0, "nobody would read from it");
    let (replayed, truth) = world.settle_ended().await;
    assert_eq!(replayed.reads_of_still(&truth.still()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn never_no_row_is_read() {
    let mut world = world_or_skip!(Delivery::ExactlyOnce, "never");
    let load = Load::start(&world.database.unix_url, world.seed);
    world.run();
    world.rows_flow().await;
    load.stop().await;
    let (replayed, truth) = world.published().await;
    assert_eq!(replayed.reads(), 0);
    assert_eq!(replayed.problems(), None);
    // So the other runs would see it if rows were missing.
    let missing = replayed.differences(&truth, false).expect("the seed's rows are in no topic");
    assert!(missing.contains("nothing tells of"), "{missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn when_needed_a_slot_that_was_dropped_costs_no_row() {
    let mut world = world_or_skip!(Delivery::AtLeastOnce, "when-needed");
    let load = Load::start(&world.database.unix_url, world.seed);
    world.run();
    world.rows_flow().await;
    load.stop().await;
    world.settle(false).await;
    let client = world.client().await;
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots";
    client.batch_execute(drop).await.expect("drop the slot");
    // What is written now is in no stream.
    let load = Load::start(&world.database.unix_url, world.seed + 1);
    world.last_for_a_while().await;
    world.start_again();
    world.rows_flow().await;
    load.stop().await;
    world.settle(true).await;
}

async fn slots(client: &Client) -> i64 {
    let query = "SELECT count(*) FROM pg_replication_slots";
    client.query_one(query, &[]).await.expect("ask").get(0)
}
