//! Two copies of a bridge, as high availability or by mistake: one streams, one waits.

use std::time::{Duration, Instant};

use super::{all_arrive, create_table, last, metric, readyz, stop, walsender, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase};
use crate::support::relay::{Line, Relay};
use crate::support::{PATIENCE, eventually, unique};

/// What is promised of a take-over.
const TAKE_OVER: Duration = Duration::from_secs(2);

async fn taken_over(bridge: &Bridge, since: Instant, what: &str) {
    readyz(bridge, 200, "streaming").await;
    let after = since.elapsed();
    println!("taken over {after:?} after {what}");
    assert!(after < TAKE_OVER, "{after:?} after {what}; log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_copy_waits_and_takes_over_when_the_first_is_killed_or_ends() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("copies"), kafka.brokers());
    let mut first = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
    let holder = walsender(&client, &name).await.expect("it streams");
    let mut second = Bridge::start(&name, &database.tcp_url, &brokers, "");
    readyz(
        &second,
        503,
        &format!("standby: the slot \"rowcast_{name}\" is read by server process {holder}"),
    )
    .await;
    assert_eq!(second.get("/livez").map(|(code, _)| code), Some(200));
    assert_eq!(second.get("/readyz?standby").map(|(code, _)| code), Some(200));
    assert_eq!(metric(&second, "rowcast_standby"), 1);
    write(&client, 1..=200).await;
    all_arrive(&brokers, &name, &client).await;
    assert_eq!(walsender(&client, &name).await, Some(holder), "the first does not notice");
    assert_eq!(metric(&first, "rowcast_retries_total"), 0);

    write(&client, 201..=400).await;
    let killed = Instant::now();
    first.kill();
    taken_over(&second, killed, "kill -9 of the first").await;
    all_arrive(&brokers, &name, &client).await;

    first.start_again();
    readyz(&first, 503, "standby: ").await;
    write(&client, 401..=600).await;
    stop(&mut second);
    taken_over(&first, Instant::now(), "the end of the second").await;
    let repeats = all_arrive(&brokers, &name, &client).await;
    println!("{repeats} repeats after a kill and a stop");

    second.start_again();
    readyz(&second, 503, "standby: ").await;
    stop(&mut second);
    stop(&mut first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_stands_still_is_not_ended_by_the_copy_that_waits() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("still"), kafka.brokers());
    let mut first = Bridge::start_ready(&name, &database.tcp_url, &brokers, "", PATIENCE);
    let holder = walsender(&client, &name).await;
    let mut second = Bridge::start(&name, &database.tcp_url, &brokers, "");
    readyz(&second, 503, "standby: ").await;
    first.freeze();
    write(&client, 1..=200).await;
    last(TAKE_OVER).await;
    readyz(&second, 503, "standby: ").await;
    assert_eq!(walsender(&client, &name).await, holder);
    first.thaw();
    all_arrive(&brokers, &name, &client).await;
    stop(&mut second);
    stop(&mut first);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walsender_of_a_dead_connection_of_our_own_is_ended_and_the_slot_taken_back() {
    let kafka = kafka_or_skip!();
    // The server would hold the slot for a minute.
    let server = PostgresServer::start(Binaries::newest(), &[("wal_sender_timeout", "60s")]);
    let database = server.database().await;
    let client = database.client().await;
    create_table(&client).await;
    let relay = Relay::to(server.port()).await;
    let url = relay.url(&database.tcp_url);
    let (name, brokers) = (unique("stale"), kafka.brokers());
    let config = "[postgres]\nconnect_timeout = \"1s\"\n[watchdog]\nserver_silent_after = \"2s\"\n";
    let mut bridge = Bridge::start_ready(&name, &url, &brokers, config, PATIENCE);
    let holder = walsender(&client, &name).await;
    write(&client, 1..=200).await;
    relay.set(Line::BlackHole);
    let broken = Instant::now();
    write(&client, 201..=400).await;
    eventually(PATIENCE, "the bridge to notice", async || {
        bridge.log().contains("the connection is dead").then_some(())
    })
    .await;
    println!("noticed after {:?}", broken.elapsed());
    relay.set(Line::Open);
    let noticed = Instant::now();
    readyz(&bridge, 200, "streaming").await;
    println!("streams again {:?} after the line is back", noticed.elapsed());
    let now = walsender(&client, &name).await;
    assert!(now.is_some() && now != holder, "{holder:?}, {now:?}");
    assert!(bridge.log().contains("ending its process"), "log:\n{}", bridge.log());
    all_arrive(&brokers, &name, &client).await;
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_no_copy_and_reads_from_the_slot_is_called_so_with_the_way_out() {
    let kafka = kafka_or_skip!();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let (name, brokers) = (unique("foreign"), kafka.brokers());
    let other = unique("other");
    let config = format!("[postgres]\nslot = \"rowcast_{name}\"\n");
    let url = &database.tcp_url;
    let _other = Bridge::start_ready(&other, url, &brokers, &config, PATIENCE);
    let mut bridge = Bridge::start(&name, url, &brokers, "");
    readyz(&bridge, 503, "standby: the slot ").await;
    readyz(&bridge, 503, "which is not a copy of this pipeline: stop that program, or set").await;
    stop(&mut bridge);
}
