//! Two pipelines of one name, by mistake: neither a start nor a teardown of one harms the other. And
//! a teardown removes what it may and what is its own, or nothing.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use tokio_postgres::Client;

use crate::support::bridge::Bridge;
use crate::support::consume::{at_least, checkpoint, consume};
use crate::support::kafka::{Brokers, kafka_or_skip};
use crate::support::postgres::{
    Binaries, PostgresServer, TestDatabase, connect, for_each_postgres,
};
use crate::support::{PATIENCE, unique};

/// How `rowcast teardown` ended, with this on its standard input.
struct Torn {
    code: Option<i32>,
    text: String,
}

fn teardown(name: &str, url: &str, brokers: &str, args: &[&str], input: &str) -> Torn {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rowcast"))
        .args(["teardown", "--name", name])
        .args(args)
        .envs([("DATABASE_URL", url), ("KAFKA_BROKERS", brokers)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run rowcast");
    let mut stdin = child.stdin.take().expect("a pipe");
    // One that does not ask does not read either.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    Torn { code: status.code(), text }
}

async fn count(client: &Client, query: &str, name: &str) -> i64 {
    client.query_one(query, &[&name]).await.expect("ask").get(0)
}

const SLOTS: &str = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
const PUBLICATIONS: &str = "SELECT count(*) FROM pg_publication WHERE pubname = $1";

async fn has_checkpoint(brokers: &str, name: &str) -> bool {
    let (brokers, name) = (brokers.to_owned(), name.to_owned());
    let read = tokio::task::spawn_blocking(move || checkpoint(&brokers, &name).is_some());
    read.await.expect("reading does not panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pipeline_of_the_same_name_ends_itself_and_not_the_healthy_one() {
    let kafka = kafka_or_skip!();
    for_each_postgres(async |server| {
        let (healthy, other) = (server.database().await, server.database().await);
        let client = healthy.client().await;
        let table = "CREATE TABLE rides (id int PRIMARY KEY)";
        client.batch_execute(table).await.expect("make a table");
        other.client().await.batch_execute(table).await.expect("make a table");
        let (name, brokers) = (unique("namesake"), kafka.brokers());
        let config = "delivery = \"exactly-once\"\n";
        let mut bridge = Bridge::start_ready(&name, &healthy.unix_url, &brokers, config, PATIENCE);

        let other_slot = format!("{config}[postgres]\nslot = \"{name}_other\"\n");
        for (url, config) in [
            (&other.unix_url, config),
            (&other.unix_url, &other_slot),
            (&healthy.unix_url, &other_slot),
        ] {
            let mut second = Bridge::start(&name, url, &brokers, config);
            let status = second.wait(PATIENCE);
            let log = second.log();
            assert_eq!(status.code(), Some(65), "log:\n{log}");
            assert!(log.contains("set `name` to a name of its own"), "log:\n{log}");
        }
        client.execute("INSERT INTO rides VALUES (1)", &[]).await.expect("insert");
        let topic = format!("{name}.public.rides");
        consume(&brokers, &[&topic], at_least(1), PATIENCE).await;
        assert_eq!(bridge.exited(), None, "log:\n{}", bridge.log());
        assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teardown_leaves_the_checkpoint_of_another_clusters_pipeline_alone() {
    let kafka = kafka_or_skip!();
    let [one, two] = [(); 2].map(|()| PostgresServer::start(Binaries::newest(), &[]));
    let (name, brokers) = (unique("app"), kafka.brokers());
    let [one, two] = [&one, &two].map(|server| server.unix_url("postgres"));
    let client = connect(&one).await;
    client.batch_execute("CREATE TABLE rides (id int PRIMARY KEY)").await.expect("make a table");
    let mut bridge = Bridge::start_ready(&name, &one, &brokers, "", PATIENCE);
    assert!(bridge.terminate(PATIENCE).success());

    // A database, a slot and a publication of the same names are there, and nothing else is.
    let torn = teardown(&name, &two, &brokers, &["--yes"], "");
    assert_eq!(torn.code, Some(0), "{}", torn.text);
    assert!(torn.text.contains("kept: it is of another pipeline of this name"), "{}", torn.text);
    assert!(has_checkpoint(&brokers, &name).await, "it is not this one's to remove");

    // So the first notices when its slot is lost.
    let lose = format!("SELECT pg_drop_replication_slot('rowcast_{name}')");
    client.batch_execute(&lose).await.expect("drop the slot");
    bridge.start_again();
    assert_eq!(bridge.wait(PATIENCE).code(), Some(65), "log:\n{}", bridge.log());

    let torn = teardown(&name, &one, &brokers, &["--yes"], "");
    assert_eq!(torn.code, Some(0), "{}", torn.text);
    assert!(!has_checkpoint(&brokers, &name).await, "this one is its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teardown_drops_nothing_that_a_dba_made_unless_it_is_named_and_all_or_nothing() {
    let brokers = Brokers::any();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let (name, role) = (unique("theirs"), unique("torn_role"));
    let own = format!("rowcast_{name}");
    client
        .batch_execute(&format!(
            "CREATE TABLE rides (id int PRIMARY KEY); CREATE PUBLICATION {own} FOR TABLE rides
                 WITH (publish = 'insert, update, delete', publish_via_partition_root);
             CREATE ROLE {role} LOGIN REPLICATION; GRANT SELECT ON rides TO {role}"
        ))
        .await
        .expect("set up");
    let (admin, bootstrap) = (&database.unix_url, brokers.bootstrap());
    let url = admin.replace("postgres@", &format!("{role}@"));
    let mut bridge = Bridge::start_ready(&name, &url, &bootstrap, "", PATIENCE);
    let torn =
        |url: &str, args: &[&str], input: &str| teardown(&name, url, &bootstrap, args, input);
    let there =
        async || (count(&client, SLOTS, &own).await, count(&client, PUBLICATIONS, &own).await);

    let busy = torn(&url, &["--yes"], "");
    assert_eq!((busy.code, there().await), (Some(1), (1, 1)), "it is read: {}", busy.text);
    assert!(bridge.terminate(PATIENCE).success());
    let refused = torn(&url, &[], "n\n");
    assert_eq!((refused.code, there().await), (Some(0), (1, 1)), "{}", refused.text);
    assert!(refused.text.contains("nothing was dropped"), "{}", refused.text);
    let nobody = torn(&url, &[], "");
    assert_eq!((nobody.code, there().await), (Some(64), (1, 1)), "{}", nobody.text);
    let misnamed = torn(&url, &["--yes", "--publication", "rowcast"], "");
    assert_eq!((misnamed.code, there().await), (Some(64), (1, 1)), "{}", misnamed.text);
    // Its own slot it could drop, the publication it may not: then neither.
    let powerless = torn(&url, &["--yes", "--publication", &own], "");
    assert_eq!((powerless.code, there().await), (Some(69), (1, 1)), "{}", powerless.text);
    assert!(!powerless.text.contains("removed"), "{}", powerless.text);
    let done = torn(&url, &["--yes"], "");
    assert_eq!((done.code, there().await), (Some(0), (0, 1)), "{}", done.text);
    for text in [
        format!("replication slot {own}: removed\n"),
        format!("publication {own}: kept: it belongs to \"postgres\""),
        format!("--publication {own} drops it too"),
        "checkpoint in rowcast.checkpoints: removed\n".to_owned(),
    ] {
        assert!(done.text.contains(&text), "no {text:?} in: {}", done.text);
    }
    let named = torn(admin, &["--yes", "--publication", &own], "");
    assert_eq!((named.code, there().await), (Some(0), (0, 0)), "{}", named.text);
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.expect("drop");
}
