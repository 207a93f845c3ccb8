//! Settings that a role or a database has, and servers that take no writes: what the bridge can set
//! itself does not matter, and what it can't change ends it with one sentence.

use super::{all_arrive, create_table, ends_with, stop, write};
use crate::support::bridge::Bridge;
use crate::support::kafka::kafka_or_skip;
use crate::support::postgres::{Binaries, PostgresServer, connect, for_oldest_and_newest};
use crate::support::{PATIENCE, eventually, unique};

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_and_read_only_of_a_role_end_neither_a_first_snapshot_nor_the_stream() {
    let kafka = kafka_or_skip!();
    for_oldest_and_newest(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        create_table(&client).await;
        let rows = "INSERT INTO rides SELECT n, 1 FROM generate_series(1001, 21000) n";
        client.batch_execute(rows).await.expect("fill the table");
        let (name, brokers, role) = (unique("limited"), kafka.brokers(), unique("limited"));
        let run = async |sql: &str| client.batch_execute(sql).await.expect(sql);
        run(&format!("CREATE ROLE {role} LOGIN SUPERUSER")).await;
        let timeouts = "SELECT name FROM pg_settings WHERE name ~ '_timeout$' AND unit = 'ms'
                        AND context = 'user' AND name NOT IN ('wal_sender_timeout', 'tcp_user_timeout')";
        let timeouts = client.query(timeouts, &[]).await.expect("ask");
        assert!(timeouts.len() >= 4, "{timeouts:?}");
        for timeout in &timeouts {
            let timeout: &str = timeout.get(0);
            run(&format!("ALTER ROLE {role} SET {timeout} = 250")).await;
        }
        run(&format!("ALTER ROLE {role} SET default_transaction_read_only = on")).await;
        let url = database.unix_url.replace("postgres@", &format!("{role}@"));
        // The server takes writes, whatever the role has.
        let url = format!("{url}?target_session_attrs=read-write");
        let mut bridge = Bridge::start_ready(&name, &url, &brokers, "", PATIENCE);
        write(&client, 1..=100).await;
        all_arrive(&brokers, &name, &client).await;
        stop(&mut bridge);
        run(&format!("SELECT pg_drop_replication_slot('rowcast_{name}')")).await;
        run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused_with_one_sentence_and_not_tried_for_ever() {
    let kafka = kafka_or_skip!();
    let every = Binaries::every();
    let old = every.iter().find(|binaries| binaries.major < 16);
    for binaries in [Some(Binaries::newest()), old].into_iter().flatten() {
        let mut primary = PostgresServer::start(binaries, &[]);
        let client = connect(&primary.tcp_url("postgres")).await;
        create_table(&client).await;
        drop(client);
        let standby = primary.standby("standby").await;
        let (name, url) = (unique("standby"), standby.tcp_url("postgres"));
        let mut bridge = Bridge::start(&name, &url, &kafka.brokers(), "");
        ends_with(&mut bridge, "is a standby", "name the primary in postgres.url").await;
        assert!(!bridge.log().contains("trying again"), "log:\n{}", bridge.log());
        if binaries.major < 16 {
            bridge.configure("[postgres]\nmanage = false\n");
            bridge.start_again();
            ends_with(&mut bridge, "from version 16 on", "name the primary").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_port_that_another_still_holds_is_waited_for_and_then_ends_with_1() {
    let kafka = kafka_or_skip!();
    let server = PostgresServer::shared();
    let database = server.database().await;
    create_table(&database.client().await).await;
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = held.local_addr().expect("bound").to_string();
    let config = String::new();
    let env: &[(&str, &str)] = &[("ROWCAST_ADMIN__LISTEN", &address)];
    let start = |name: &str| {
        let (url, brokers) = (&database.tcp_url, &kafka.brokers());
        Bridge::start_telling(name, url, brokers, &config, (None, env))
    };
    let mut bridge = start(&unique("held"));
    assert_eq!(bridge.wait(PATIENCE).code(), Some(1), "log:\n{}", bridge.log());
    let log = bridge.log();
    assert!(log.contains(&address) && log.contains("admin.listen"), "log:\n{log}");

    let mut bridge = start(&unique("freed"));
    eventually(PATIENCE, "it to wait for the port", async || {
        bridge.log().contains("another process still holds").then_some(())
    })
    .await;
    drop(held);
    bridge.wait_until_ready(PATIENCE).expect("it runs");
    stop(&mut bridge);
}
