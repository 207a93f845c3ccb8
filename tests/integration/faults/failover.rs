//! A primary that dies and a standby that takes its place, with the slot on it.

use std::time::Duration;

use super::{all_arrive, create_table, metric, readyz, start_again, stop, walsender, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, connect};
use crate::support::{PATIENCE, eventually, report_skipped, unique};

/// The first version whose standbys keep logical slots.
const SYNCED_SLOTS_SINCE: u32 = 17;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_from_the_promoted_standby_and_nothing_is_lost() {
    let kafka = kafka_or_skip!();
    if Binaries::newest().major < SYNCED_SLOTS_SINCE {
        return report_skipped(module_path!(), "no PostgreSQL of version 17 or later");
    }
    let mut primary = PostgresServer::start(Binaries::newest(), &[]);
    let client = connect(&primary.tcp_url("postgres")).await;
    create_table(&client).await;
    drop(client);
    let standby = primary.standby("standby").await;
    let client = connect(&primary.tcp_url("postgres")).await;
    let set = "ALTER SYSTEM SET synchronized_standby_slots = 'standby'";
    client.batch_execute(set).await.expect("wait for the standby");
    client.batch_execute("SELECT pg_reload_conf()").await.expect("reload");

    let (name, brokers) = (unique("failover"), kafka.brokers());
    let hosts = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        primary.port(),
        standby.port()
    );
    let config = "[postgres]\nfailover = true\n";
    let mut bridge = Bridge::start_ready(&name, &hosts, &brokers, config, PATIENCE);
    write(&client, 1..=500).await;
    all_arrive(&brokers, &name, &client).await;
    let on_standby = connect(&standby.tcp_url("postgres")).await;
    let synced = format!(
        "SELECT FROM pg_replication_slots
         WHERE slot_name = 'rowcast_{name}' AND synced AND NOT temporary"
    );
    eventually(PATIENCE, "the slot to be on the standby", async || {
        // A slot is kept there once its primary's has moved on.
        write_nothing(&client).await;
        (!on_standby.query(&synced, &[]).await.expect("ask").is_empty()).then_some(())
    })
    .await;

    write(&client, 501..=1_000).await;
    let end: String =
        client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.expect("ask").get(0);
    let received = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'::pg_lsn");
    eventually(PATIENCE, "the standby to have it all", async || {
        on_standby.query_one(&received, &[]).await.expect("ask").get::<_, bool>(0).then_some(())
    })
    .await;
    primary.kill();
    let failed = std::time::Instant::now();
    on_standby.batch_execute("SELECT pg_promote()").await.expect("promote");
    let client = connect(&standby.tcp_url("postgres")).await;
    eventually(PATIENCE, "the stream from the new primary", async || {
        walsender(&client, &name).await.map(drop)
    })
    .await;
    println!("streams from the new primary after {:?}", failed.elapsed());
    write(&client, 1_001..=1_500).await;
    let repeats = all_arrive(&brokers, &name, &client).await;
    println!("{repeats} repeats");
    readyz(&bridge, 200, "streaming").await;
    assert!(metric(&bridge, "rowcast_retries_total") >= 1);
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_slot_that_no_standby_keeps_is_warned_of_before_it_matters() {
    let kafka = kafka_or_skip!();
    if Binaries::newest().major < SYNCED_SLOTS_SINCE {
        return report_skipped(module_path!(), "no PostgreSQL of version 17 or later");
    }
    let database = TestDatabase::create().await;
    create_table(&database.client().await).await;
    let (name, brokers) = (unique("alone"), kafka.brokers());
    let config = "[postgres]\nfailover = true\n";
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, config, PATIENCE);
    logs(&bridge, "no standby has a synchronised copy of the slot").await;
    assert!(bridge.log().contains("sync_replication_slots = on"), "log:\n{}", bridge.log());
    stop(&mut bridge);

    // Created before the setting was.
    let (name, config) = (unique("before"), "[postgres]\nfailover = false\n");
    let mut bridge = Bridge::start_ready(&name, &database.tcp_url, &brokers, config, PATIENCE);
    stop(&mut bridge);
    bridge.configure("[postgres]\nfailover = true\n");
    start_again(&mut bridge);
    logs(&bridge, "the slot was created without").await;
    stop(&mut bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_an_earlier_switchover_left_on_a_standby_is_warned_of_until_it_is_dropped() {
    let kafka = kafka_or_skip!();
    if Binaries::newest().major < SYNCED_SLOTS_SINCE {
        return report_skipped(module_path!(), "no PostgreSQL of version 17 or later");
    }
    let mut primary = PostgresServer::start(Binaries::newest(), &[]);
    let client = connect(&primary.tcp_url("postgres")).await;
    create_table(&client).await;
    drop(client);
    let standby = primary.standby("standby").await;
    let client = connect(&primary.tcp_url("postgres")).await;
    let on_standby = connect(&standby.tcp_url("postgres")).await;
    let (name, brokers) = (unique("leftover"), kafka.brokers());
    let left = format!("SELECT pg_create_logical_replication_slot('rowcast_{name}', 'pgoutput')");
    let mut making = std::pin::pin!(on_standby.batch_execute(&left));
    loop {
        // A standby makes a slot once it hears which transactions run.
        write_nothing(&client).await;
        if let Ok(made) = tokio::time::timeout(STEP, &mut making).await {
            break made.expect("leave a slot on the standby");
        }
    }
    let hosts = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        primary.port(),
        standby.port()
    );
    let config = "[postgres]\nfailover = true\n";
    let mut bridge = Bridge::start_ready(&name, &hosts, &brokers, config, PATIENCE);
    logs(&bridge, "as an earlier switchover leaves").await;
    let log = bridge.log();
    let fix = format!("SELECT pg_drop_replication_slot('rowcast_{name}');");
    assert!(log.contains(&fix), "log:\n{log}");
    assert!(log.contains(&format!("host=\"127.0.0.1:{}\"", standby.port())), "log:\n{log}");

    on_standby.batch_execute(&fix).await.expect("it runs as printed");
    eventually(2 * PATIENCE, "the slot to be copied", async || {
        write_nothing(&client).await;
        bridge.log().contains("a standby has a synchronised copy of the slot").then_some(())
    })
    .await;
    stop(&mut bridge);
}

/// Time between two steps that a standby waits for.
const STEP: Duration = Duration::from_millis(200);

/// Waits until the bridge logs this.
async fn logs(bridge: &Bridge, text: &str) {
    eventually(PATIENCE, text, async || bridge.log().contains(text).then_some(())).await;
}

/// Moves the WAL on.
async fn write_nothing(client: &tokio_postgres::Client) {
    let emit = "SELECT pg_log_standby_snapshot()";
    client.batch_execute(emit).await.expect("write WAL");
}
