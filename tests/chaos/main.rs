//! The promises of delivery while everything around the bridge breaks, for as long as one likes.
//!
//! A real PostgreSQL and a real Kafka behind relays, a load that never stops, and a [`schedule`] of
//! faults drawn from a seed: the bridge is killed, connections are cut, swallowed or slowed down,
//! servers crash, a second copy is started. What was committed is what Postgres itself says
//! ([`truth`]); [`check`] holds what a consumer sees against it, and [`check_tests`] holds the
//! checker to its word.
//!
//! | variable | for | without it |
//! |---|---|---|
//! | `CHAOS_SEED` | the same schedule and statements again | drawn, and printed |
//! | `CHAOS_FAULTS` | how many faults | 20 |
//! | `CHAOS_MODE` | one mode only, as `delivery` names it | each has its test |
//! | `CHAOS_EVIDENCE` | the folder that keeps all logs of a run that failed | in `target/tmp` |
//!
//! Beside it, [`cluster`]: three brokers that die one after the other.
//!
//! Not here: what a fault looks like from inside, and how fast it is noticed: `tests/integration`.

mod bare;
mod check;
mod check_tests;
mod cluster;
mod evidence;
mod load;
mod run;
mod schedule;
mod truth;
mod verdict;
mod watch;
mod world;

use crate::check::Mode;
use rowcast_test_support as support;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn at_least_once_nothing_is_lost_and_only_positions_repeat() {
    run::run(Mode::AtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn exactly_once_every_change_is_seen_once_and_transactions_are_whole() {
    run::run(Mode::ExactlyOnce).await;
}
