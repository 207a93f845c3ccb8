//! What is broken in the database.

use super::Check;
use crate::support::bridge::Bridge;
use crate::support::kafka::Brokers;
use crate::support::postgres::{
    Binaries, PostgresServer, TestDatabase, connect, for_oldest_and_newest,
};
use crate::support::relay::{Line, Relay};
use crate::support::{PATIENCE, unique};

#[tokio::test(flavor = "multi_thread")]
async fn a_set_up_that_works_passes_and_nothing_is_created_by_asking() {
    let brokers = Brokers::any();
    for_oldest_and_newest(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        client.batch_execute("CREATE TABLE rides (id int PRIMARY KEY)").await.expect("a table");
        let check = Check::new(&database.unix_url, &brokers.bootstrap(), "");
        let said = check.passes("all is well");
        for name in
            ["postgres.connection", "postgres.tables", "postgres.publication", "kafka.topics"]
        {
            assert_eq!(said.of(name, "ok").len(), 1, "{name}:\n{}", said.text);
        }
        let made = "SELECT (SELECT count(*) FROM pg_publication)
                         + (SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'rowcast_checked%')";
        let made: i64 = client.query_one(made, &[]).await.expect("ask").get(0);
        assert_eq!(made, 0, "a check creates nothing");
    })
    .await;
}

/// A role without rights on a table of somebody else, in one database.
struct Weak {
    database: TestDatabase,
    client: tokio_postgres::Client,
    role: String,
    check: Check,
}

async fn weak(rights: &str, toml: &str) -> Weak {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let role = unique("weak");
    client
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN {rights}; CREATE TABLE rides (id int PRIMARY KEY)"
        ))
        .await
        .expect("a role and a table");
    let url = database.unix_url.replace("postgres@", &format!("{role}@"));
    let check = Check::new(&url, &Brokers::any().bootstrap(), toml);
    Weak { database, client, role, check }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_rights_that_a_role_lacks_are_one_block_that_gives_them() {
    let Weak { client, check, database: _database, .. } = weak("", "").await;
    let said = check.fails("postgres.rights", "may not replicate");
    assert!(!said.of("postgres.reading", "error").is_empty(), "{}", said.text);
    assert!(!said.of("postgres.rights", "error").is_empty(), "{}", said.text);
    said.paste(&client).await;
    check.passes("with all rights");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_another_and_a_publication_of_another_are_named_with_what_a_dba_runs() {
    let Weak { client, check, database: _database, .. } = weak("REPLICATION", "").await;
    let said = check.fails("postgres.rights", "may publish it");
    said.paste(&client).await;
    check.passes("with a publication that a DBA created");

    let Weak { client, check, role, database: _database } = weak("REPLICATION", "").await;
    let name = check.name.clone();
    client
        .batch_execute(&format!(
            "GRANT SELECT ON rides TO {role};
             CREATE PUBLICATION rowcast_{name}; CREATE TABLE zones (id int PRIMARY KEY)"
        ))
        .await
        .expect("a publication of somebody else");
    let said = check.fails("postgres.rights", "belongs to");
    said.paste(&client).await;
    check.passes("once its tables are as configured");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_lacks_is_named_with_its_setting() {
    let binaries = Binaries::newest();
    for (setting, value, check, words) in [
        ("wal_level", "replica", "postgres.rights", "wal_level is replica"),
        ("max_wal_senders", "0", "postgres.rights", "max_wal_senders is 0"),
        ("max_replication_slots", "0", "postgres.rights", "slots of the server are taken"),
    ] {
        if setting == "wal_level" && binaries.major >= 19 {
            continue;
        }
        let mut server = PostgresServer::start(binaries, &[(setting, value)]);
        let client = connect(&server.unix_url("postgres")).await;
        client.batch_execute("CREATE TABLE rides (id int PRIMARY KEY)").await.expect("a table");
        let url = server.unix_url("postgres");
        let of = Check::new(&url, &Brokers::any().bootstrap(), "");
        let said = of.fails(check, words);
        if setting == "max_replication_slots" {
            continue;
        }
        said.paste(&client).await;
        // What the server was started with goes before what ALTER SYSTEM writes.
        drop(client);
        server.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_can_not_be_reached_is_named_with_its_reason() {
    let server = PostgresServer::shared();
    let database = server.database().await;
    let brokers = Brokers::any().bootstrap();
    let free = crate::support::process::free_port();
    let url = |text: &str| Check::new(text, &brokers, "");
    let wrong = database.unix_url.replace(&database.name, "no_such_database");
    for (check, words) in [
        (url(&wrong), "no_such_database"),
        (url(&format!("postgres://postgres@127.0.0.1:{free}/x")), "refused"),
        (url("postgres://postgres@no-such-host.invalid/x"), "no-such-host.invalid"),
        (url(&format!("{}?sslmode=require", server.tcp_url(&database.name))), "TLS"),
        (url(&server.tcp_url(&database.name).replace("postgres@", "nobody_here@")), "nobody_here"),
    ] {
        let said = check.fails("postgres.connection", words);
        // The brokers are asked all the same.
        assert!(!said.of("kafka.connection", "ok").is_empty(), "{}", said.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_named_within_seconds() {
    let server = PostgresServer::shared();
    let database = server.database().await;
    let relay = Relay::to(server.port()).await;
    relay.set(Line::BlackHole);
    let url = relay.url(&server.tcp_url(&database.name));
    let check = Check::new(&url, &Brokers::any().bootstrap(), "");
    check.fails("postgres.connection", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_which_not_all_is_captured_are_warnings_with_their_fix() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE keyless (n int); CREATE TABLE rides (id int PRIMARY KEY, fare int)",
        )
        .await
        .expect("tables");
    let brokers = Brokers::any().bootstrap();
    let said = Check::new(&database.unix_url, &brokers, "").passes("a table without a key");
    let found = said.of("postgres.insert_only", "warning");
    assert!(
        found.iter().any(|of| of.contains("keyless") && of.contains("REPLICA IDENTITY")),
        "{}",
        said.text
    );
    let strict = Check::new(&database.unix_url, &brokers, "").run_with(&["--strict"]);
    assert_eq!(strict.code, Some(1), "{}", strict.text);

    // Rules that do not fit are errors, each named.
    for (toml, check, words) in [
        ("[tables.\"public.rides\"]\nkey = [\"fare\"]\n", "postgres.keys", "fare"),
        ("[tables.\"public.rides\"]\nwhere = \"fare > 10\"\n", "postgres.filters", "fare"),
        ("[tables.\"public.rides\"]\nwhere = \"no_such > 10\"\n", "postgres.filters", "no_such"),
        ("[tables.\"public.ridez\"]\nexclude_columns = [\"fare\"]\n", "postgres.names", "ridez"),
    ] {
        Check::new(&database.unix_url, &brokers, toml).fails(check, words);
    }
    let toml = "[postgres]\ntables = [\"public.ridez*\"]\n";
    let said = Check::new(&database.unix_url, &brokers, toml).passes("nothing matches yet");
    let found = said.of("postgres.tables", "warning");
    assert!(found.iter().any(|of| of.contains("public.rides")), "{}", said.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_another_and_one_that_is_read_are_named() {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE rides (id int PRIMARY KEY)").await.expect("a table");
    let check = Check::new(&database.unix_url, &Brokers::any().bootstrap(), "");
    let name = format!("rowcast_{}", check.name);
    let made = format!("SELECT pg_create_logical_replication_slot('{name}', 'test_decoding')");
    client.batch_execute(&made).await.expect("a slot of another plugin");
    check.fails("postgres.slot", "test_decoding");
    client
        .batch_execute(&format!("SELECT pg_drop_replication_slot('{name}')"))
        .await
        .expect("drop it");
    check.passes("without it");

    let brokers = Brokers::any();
    let bridge =
        Bridge::start_ready(&check.name, &database.unix_url, &brokers.bootstrap(), "", PATIENCE);
    let said = check.passes("while a copy runs");
    let found = said.of("postgres.slot", "warning");
    assert!(found.iter().any(|of| of.contains("is read by the server process")), "{}", said.text);
    drop(bridge);
}
