//! A primary that dies and a standby that takes its place, with the slot on it.

use super::{all_arrive, create_table, metric, readyz, stop, walsender, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{Binaries, PostgresServer, connect};
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
    client
        .batch_execute("SELECT pg_create_physical_replication_slot('standby', true)")
        .await
        .expect("make a slot for the standby");
    drop(client);
    let standby = primary.standby("standby");
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

/// Moves the WAL on.
async fn write_nothing(client: &tokio_postgres::Client) {
    let emit = "SELECT pg_log_standby_snapshot()";
    client.batch_execute(emit).await.expect("write WAL");
}
