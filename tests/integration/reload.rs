//! SIGHUP: a changed configuration holds at once, a wrong one changes nothing.

use tokio_postgres::Client;

use crate::support::bridge::Bridge;
use crate::support::consume::{at_least, consume};
use crate::support::kafka::{Brokers, kafka_or_skip};
use crate::support::postgres::TestDatabase;
use crate::support::{PATIENCE, eventually, unique};

const NARROW: &str = "[postgres]\ntables = [\"public.rides\"]\n";

async fn database() -> (TestDatabase, Client) {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let tables = "CREATE TABLE rides (id int PRIMARY KEY); CREATE TABLE zones (id int PRIMARY KEY)";
    client.batch_execute(tables).await.expect("make tables");
    (database, client)
}

async fn logged(bridge: &Bridge, times: usize, what: &str) {
    let seen = async || (bridge.log().matches(what).count() >= times).then_some(());
    eventually(PATIENCE, what, seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_widened_by_sighup_flow_and_nothing_of_the_others_is_lost_or_repeated() {
    let kafka = kafka_or_skip!();
    let (database, client) = database().await;
    let name = unique("widened");
    let mut bridge =
        Bridge::start_ready(&name, &database.unix_url, &kafka.brokers(), NARROW, PATIENCE);
    let pid = bridge.pid();

    // Rows are written all along, also while one session ends and the next begins.
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writer = tokio::spawn(async move {
        let mut written = 0_i32;
        while stopped.try_recv().is_err() || written < 100 {
            client.execute("INSERT INTO rides VALUES ($1)", &[&written]).await.expect("insert");
            written += 1;
        }
        (client, written)
    });
    bridge.configure("[postgres]\ntables = [\"public.*\"]\n");
    bridge.hang_up();
    logged(&bridge, 1, "SIGHUP: configuration reloaded").await;
    logged(&bridge, 2, "streaming slot=").await;
    stop.send(()).expect("it writes");
    let (client, written) = writer.await.expect("it wrote");

    client.execute("INSERT INTO zones VALUES (7)", &[]).await.expect("insert");
    let zones =
        consume(&kafka.brokers(), &[&format!("{name}.public.zones")], at_least(1), PATIENCE).await;
    assert_eq!(zones[0].key_text(), Some("{\"id\":7}"));
    assert_eq!(bridge.pid(), pid, "it is the same process");
    assert!(bridge.terminate(PATIENCE).success());

    let wanted = usize::try_from(written).expect("a count");
    let rides =
        consume(&kafka.brokers(), &[&format!("{name}.public.rides")], at_least(wanted), PATIENCE)
            .await;
    let mut ids: Vec<i64> = rides
        .iter()
        .map(|record| record.json().expect("a value")["after"]["id"].as_i64().expect("a number"))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..i64::from(written)).collect::<Vec<_>>(), "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_told_with_key_and_line_and_changes_nothing() {
    let brokers = Brokers::any();
    let (database, client) = database().await;
    let name = unique("wrong");
    let bootstrap = brokers.bootstrap();
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, NARROW, PATIENCE);
    for (toml, told) in [
        ("[postgres]\ntabels = [\"public.*\"]\n", "rowcast.toml:2: postgres.tabels: unknown key"),
        ("[postgres]\npassword_file = \"/nowhere\"\n", "postgres.password_file"),
        ("[[[", "rowcast.toml:1"),
    ] {
        bridge.configure(toml);
        bridge.hang_up();
        logged(&bridge, 1, told).await;
    }
    logged(&bridge, 3, "SIGHUP: nothing is changed").await;
    client.execute("INSERT INTO rides VALUES (1)", &[]).await.expect("insert");
    let rides =
        consume(&bootstrap, &[&format!("{name}.public.rides")], at_least(1), PATIENCE).await;
    assert_eq!(rides[0].key_text(), Some("{\"id\":1}"));
    let log = bridge.log();
    assert_eq!(log.matches("streaming slot=").count(), 1, "the session goes on:\n{log}");
    assert!(bridge.terminate(PATIENCE).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_a_restart_is_named_and_the_rest_holds() {
    let brokers = Brokers::any();
    let (database, client) = database().await;
    let name = unique("fixed");
    let bootstrap = brokers.bootstrap();
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, NARROW, PATIENCE);
    bridge.configure(
        "[postgres]\nslot = \"another\"\ntables = [\"public.zones\"]\n[log]\nformat = \"json\"\n",
    );
    bridge.hang_up();
    logged(&bridge, 1, "SIGHUP: postgres.slot stays as it is until a restart").await;
    logged(&bridge, 1, "SIGHUP: log stays as it is until a restart").await;
    logged(&bridge, 2, "streaming slot=").await;
    client.execute("INSERT INTO zones VALUES (1)", &[]).await.expect("insert");
    let zones =
        consume(&bootstrap, &[&format!("{name}.public.zones")], at_least(1), PATIENCE).await;
    assert_eq!(zones.len(), 1);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'another'";
    let made: i64 = client.query_one(slots, &[]).await.expect("ask").get(0);
    assert_eq!(made, 0);
    assert!(bridge.terminate(PATIENCE).success());
}
