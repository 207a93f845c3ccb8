//! How a snapshot is asked for: over HTTP, by the command line, in the stream, by a new table.

use std::process::Command;

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::bridge::{Bridge, TRUSTING, signal};
use crate::support::consume::{OwnedRecord, at_least, consume};
use crate::support::kafka::{Brokers, kafka_or_skip};
use crate::support::postgres::TestDatabase;
use crate::support::{PATIENCE, eventually, unique};

/// Status and body of a request to the admin endpoint.
fn ask(bridge: &Bridge, method: &str, path: &str, headers: &str, body: &Value) -> (u16, Value) {
    bridge.ask(method, path, headers, body).expect("an answer in JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_is_refused_at_once_with_the_cause_and_the_fix() {
    let brokers = Brokers::any();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let tables = "CREATE TABLE rides (id int PRIMARY KEY); CREATE TABLE zones (id int PRIMARY KEY)";
    client.batch_execute(tables).await.expect("make tables");
    let name = unique("refused");
    let config = &format!("{TRUSTING}[postgres]\ntables = [\"public.rides\"]\n");
    let bootstrap = brokers.bootstrap();
    let bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, config, PATIENCE);
    for (body, code, error, fix) in [
        (json!({"tables": ["public.zones"]}), 404, "matches \"public.zones\"", "has public.rides;"),
        (json!({"tables": ["public.ride"]}), 404, "matches \"public.ride\"", "public.rides"),
        (json!({"tables": ["rides"]}), 400, "write \"public.rides\"", ""),
        (json!({"tables": []}), 400, "no table is named", ""),
        (
            json!({"tables": ["public.rides"], "were": "id > 1"}),
            400,
            "unknown field `were`",
            "send",
        ),
        (
            json!({"tables": ["public.rides"], "where": "fare > 1"}),
            422,
            "column \"fare\" does not exist",
            "follow WHERE",
        ),
        (
            json!({"tables": ["public.rides"], "where": "true); DROP TABLE zones; SELECT (true"}),
            422,
            "closes a bracket",
            "",
        ),
    ] {
        let (status, answer) = ask(&bridge, "POST", "/snapshots", "", &body);
        assert_eq!(status, code, "{body}: {answer}");
        assert!(answer["error"].as_str().expect("a cause").contains(error), "{body}: {answer}");
        let told = answer["fix"].as_str().unwrap_or_default();
        assert!(told.contains(fix), "{body}: {answer}");
    }
    let (status, answer) = ask(&bridge, "POST", "/snapshots/7/pause", "", &Value::Null);
    assert_eq!((status, &answer["error"]), (404, &json!("there is no snapshot \"7\"")));
    let (status, answer) = ask(&bridge, "POST", "/snapshots/7/pose", "", &Value::Null);
    assert_eq!((status, &answer["fix"]), (404, &json!("use pause, resume or stop")));
    let (_, list) = ask(&bridge, "GET", "/snapshots", "", &Value::Null);
    let asked = |listed: &&Value| listed["reason"] == "asked";
    assert_eq!(list["snapshots"].as_array().expect("a list").iter().filter(asked).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_from_elsewhere_without_the_token() {
    let brokers = Brokers::any();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE rides (id int PRIMARY KEY)").await.expect("make a table");
    let name = unique("token");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "s3cret\n").expect("write the token");
    let config = format!("[admin]\ntoken_file = \"{}\"\n", file.path().display());
    let bootstrap = brokers.bootstrap();
    let bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, &config, PATIENCE);
    let body = json!({"tables": ["public.none"]});
    let asked = |headers: &str| ask(&bridge, "POST", "/snapshots", headers, &body).0;
    assert_eq!(asked(""), 401);
    assert_eq!(asked("Authorization: Bearer wrong\r\n"), 401);
    assert_eq!(
        asked("Authorization: Bearer s3cret\r\n"),
        404,
        "let in, and there is no such table"
    );
    assert_eq!(asked("Authorization: Bearer s3cret\r\nOrigin: http://localhost\r\n"), 403);
    assert_eq!(bridge.get("/status").expect("an answer").0, 200, "to look is free");
    assert_eq!(bridge.get("/snapshots").expect("an answer").0, 200);
}

/// A bridge on a database with two tables of a hundred rows, of which only `rides` is published.
async fn scene(
    kafka: &str,
    stem: &str,
    top: &str,
    more: &str,
) -> (TestDatabase, Client, String, Bridge) {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE rides (id int PRIMARY KEY, fare int);
             CREATE TABLE zones (id int PRIMARY KEY, fare int);
             INSERT INTO rides SELECT n, n FROM generate_series(1, 100) n;
             INSERT INTO zones SELECT n, n FROM generate_series(1, 100) n",
        )
        .await
        .expect("make tables");
    let name = unique(stem);
    let config = format!("{TRUSTING}{top}{RIDES}{more}");
    let bridge = Bridge::start_ready(&name, &database.unix_url, kafka, &config, PATIENCE);
    (database, client, name, bridge)
}

/// What is published at first, and looked for again soon.
const RIDES: &str = "[postgres]\ntables = [\"public.rides\"]\ndiscover_interval = \"200ms\"\n";
/// The same with every table.
const ALL: &str = "[postgres]\ntables = [\"public.*\"]\ndiscover_interval = \"200ms\"\n";
const NEVER: &str = "[snapshot]\nmode = \"never\"\n";

/// Reads a topic until so many rows have come by this operation; gives their IDs, sorted.
async fn ids(kafka: &str, topic: &str, op: &'static str, count: usize) -> Vec<i64> {
    let is_op = move |record: &OwnedRecord| record.json().is_some_and(|json| json["op"] == op);
    let enough = move |records: &[OwnedRecord]| {
        records.iter().filter(|record| is_op(record)).count() >= count
    };
    let records = consume(kafka, &[topic], enough, PATIENCE).await;
    let mut ids: Vec<i64> = records
        .iter()
        .filter(|record| is_op(record))
        .map(|record| record.json().expect("a value")["after"]["id"].as_i64().expect("a number"))
        .collect();
    ids.sort_unstable();
    ids
}

async fn logged(bridge: &Bridge, what: &str) {
    let seen = async || bridge.log().contains(what).then_some(());
    eventually(PATIENCE, what, seen).await;
}

/// The states of a request's tables, once all of them are at their end.
async fn ended(bridge: &Bridge, id: &str) -> Vec<String> {
    eventually(PATIENCE, "the snapshot to end", async || {
        let (_, list) = ask(bridge, "GET", "/snapshots", "", &Value::Null);
        let own = list["snapshots"].as_array()?.iter().filter(|listed| listed["id"] == id);
        let states: Vec<String> =
            own.map(|listed| listed["state"].as_str().expect("a state").to_owned()).collect();
        let end = |state: &String| ["done", "stopped", "failed"].contains(&state.as_str());
        (!states.is_empty() && states.iter().all(end)).then_some(states)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_table_is_asked_for_over_http_and_on_the_command_line() {
    let kafka = kafka_or_skip!().brokers();
    let (_database, _client, name, bridge) = scene(&kafka, "asked", "", NEVER).await;
    let topic = format!("{name}.public.rides");
    let body = json!({"tables": ["public.ride*"], "where": "fare > 90"});
    let (code, accepted) = ask(&bridge, "POST", "/snapshots", "", &body);
    assert_eq!((code, &accepted["tables"]), (202, &json!(["public.rides"])), "{accepted}");
    assert_eq!(ids(&kafka, &topic, "r", 10).await, (91..=100).collect::<Vec<_>>());
    let id = accepted["id"].as_str().expect("an ID");
    assert_eq!(ended(&bridge, id).await, ["done"]);

    let address = format!("127.0.0.1:{}", bridge.admin_port());
    let rowcast = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_rowcast"))
            .args(["snapshot", "--address", &address])
            .args(arguments)
            .env("ROWCAST_ADMIN__TOKEN_FILE", bridge.token_file().expect("a token"))
            .current_dir(std::env::temp_dir())
            .output()
            .expect("run it");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, told, errors) = rowcast(&["public.rides", "--where", "fare <= 5", "--follow"]);
    assert_eq!(code, Some(0), "{told}{errors}");
    assert!(told.contains("public.rides  done  100.0 %  5 rows"), "{told}");
    let all = ids(&kafka, &topic, "r", 15).await;
    assert_eq!(all, (1..=5).chain(91..=100).collect::<Vec<_>>());
    let (code, _, errors) = rowcast(&["public.zones"]);
    assert_eq!(code, Some(64));
    assert!(errors.contains("the publication") && errors.contains("has public.rides"), "{errors}");
    let (_, list, _) = rowcast(&["--list"]);
    assert!(list.contains("(asked) where fare > 90\n  public.rides  done"), "{list}");
    let (code, _, errors) = rowcast(&["--pause", id]);
    assert_eq!(code, Some(64), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_in_the_stream_are_obeyed_once_and_a_wrong_one_is_told_and_harms_nothing() {
    let kafka = kafka_or_skip!().brokers();
    let exactly_once = "delivery = \"exactly-once\"\n";
    let (_database, client, name, mut bridge) = scene(&kafka, "signal", exactly_once, NEVER).await;
    let topic = format!("{name}.public.rides");
    let emit = async |content: &str| {
        let sql = "SELECT pg_logical_emit_message(true, 'rowcast.signal', $1)";
        let content = match serde_json::from_str(content) {
            Ok(content) => signal(&content),
            Err(_) => content.to_owned(),
        };
        client.execute(sql, &[&content]).await.expect("emit");
    };
    emit(r#"{"type":"snapshot","tables":["rides"]}"#).await;
    logged(&bridge, "write \"public.rides\"").await;
    emit("no JSON").await;
    emit(r#"{"type":"snapshot","tables":["public.rides"],"where":"fare > 97"}"#).await;
    assert_eq!(ids(&kafka, &topic, "r", 3).await, [98, 99, 100]);
    emit(
        r#"{"id":"ad-hoc","type":"execute-snapshot","data":{"data-collections":["public.rides"],
        "type":"incremental","additional-conditions":[
        {"data-collection":"public.rides","filter":"fare < 3"}]}}"#,
    )
    .await;
    assert_eq!(ended(&bridge, "ad-hoc").await, ["done"]);
    // Killed right behind a signal: it is obeyed all the same, and none of them twice.
    emit(r#"{"type":"snapshot","id":"last","tables":["public.rides"],"where":"fare = 50"}"#).await;
    bridge.kill();
    bridge.start_again();
    bridge.wait_until_ready(PATIENCE).expect("it runs");
    client.execute("INSERT INTO rides VALUES (101, 101)", &[]).await.expect("insert");
    ids(&kafka, &topic, "c", 1).await;
    assert_eq!(ids(&kafka, &topic, "r", 6).await, [1, 2, 50, 98, 99, 100]);
    assert!(bridge.terminate(PATIENCE).success());
    assert_eq!(ids(&kafka, &topic, "r", 6).await, [1, 2, 50, 98, 99, 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_by_a_glob_outlives_a_kill_before_its_tables_are_known() {
    let kafka = kafka_or_skip!().brokers();
    let (database, client, name, mut bridge) = scene(&kafka, "glob", "", NEVER).await;
    let holder = database.client().await;
    // Whoever tries the condition on the table waits for this.
    let lock = "BEGIN; LOCK TABLE rides IN ACCESS EXCLUSIVE MODE";
    holder.batch_execute(lock).await.expect("lock the table");
    let asked = json!({"type": "snapshot", "id": "glob", "tables": ["public.ri*"],
                       "where": "fare > 97"});
    let emit = "SELECT pg_logical_emit_message(true, 'rowcast.signal', $1)";
    client.execute(emit, &[&signal(&asked)]).await.expect("emit");
    super::all_published(&client, &name).await;
    bridge.kill();
    holder.batch_execute("COMMIT").await.expect("let it go");
    bridge.start_again();
    assert_eq!(ids(&kafka, &format!("{name}.public.rides"), "r", 3).await, [98, 99, 100]);
    assert_eq!(ended(&bridge, "glob").await, ["done"]);
    assert!(bridge.terminate(PATIENCE).success());

    // It is answered: the next start knows nothing of it.
    bridge.start_again();
    bridge.wait_until_ready(PATIENCE).expect("it runs");
    let (_, list) = ask(&bridge, "GET", "/snapshots", "", &Value::Null);
    assert_eq!(list["snapshots"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_comes_up_is_published_with_the_rows_that_it_has() {
    let kafka = kafka_or_skip!().brokers();
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let name = unique("comes");
    let mut bridge = Bridge::start_ready(&name, &database.unix_url, &kafka, ALL, PATIENCE);
    // In one transaction, as a migration does it: its rows were never in the stream.
    client
        .batch_execute(
            "BEGIN; CREATE TABLE zones (id int PRIMARY KEY);
             INSERT INTO zones SELECT generate_series(1, 50); COMMIT",
        )
        .await
        .expect("make a table");
    let topic = format!("{name}.public.zones");
    assert_eq!(ids(&kafka, &topic, "r", 50).await, (1..=50).collect::<Vec<_>>());
    client.execute("INSERT INTO zones VALUES (51)", &[]).await.expect("insert");
    assert_eq!(ids(&kafka, &topic, "c", 1).await, [51]);
    assert!(bridge.terminate(PATIENCE).success());

    // And one that came up while nobody looked.
    client
        .batch_execute("CREATE TABLE drivers (id int PRIMARY KEY); INSERT INTO drivers VALUES (7)")
        .await
        .expect("make a table");
    bridge.start_again();
    assert_eq!(ids(&kafka, &format!("{name}.public.drivers"), "r", 1).await, [7]);
    // What cannot be published without harm is named, and left.
    client.batch_execute("CREATE TABLE keyless (n int)").await.expect("make a table");
    logged(&bridge, "insert-only: Postgres would refuse updates and deletes").await;
    client
        .batch_execute("INSERT INTO keyless VALUES (1); UPDATE keyless SET n = 2")
        .await
        .expect("update");
    assert!(bridge.terminate(PATIENCE).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_mode_never_a_table_that_comes_up_is_only_published() {
    let kafka = kafka_or_skip!().brokers();
    let config = format!("{ALL}{NEVER}");
    let database = TestDatabase::create().await;
    let client = database.client().await;
    let name = unique("never");
    let bridge = Bridge::start_ready(&name, &database.unix_url, &kafka, &config, PATIENCE);
    client
        .batch_execute("CREATE TABLE zones (id int PRIMARY KEY); INSERT INTO zones VALUES (1)")
        .await
        .expect("make a table");
    logged(&bridge, "new tables added to the publication").await;
    client.execute("INSERT INTO zones VALUES (2)", &[]).await.expect("insert");
    let records = consume(&kafka, &[&format!("{name}.public.zones")], at_least(1), PATIENCE).await;
    assert_eq!(records[0].key_text(), Some("{\"id\":2}"));
    drop(bridge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_added_by_sighup_comes_with_the_rows_that_it_has() {
    let kafka = kafka_or_skip!().brokers();
    let (_database, client, name, mut bridge) = scene(&kafka, "added", "", "").await;
    let topic = |table: &str| format!("{name}.public.{table}");
    bridge.configure(ALL);
    bridge.hang_up();
    assert_eq!(ids(&kafka, &topic("zones"), "r", 100).await, (1..=100).collect::<Vec<_>>());
    client.execute("INSERT INTO zones VALUES (101, 1)", &[]).await.expect("insert");
    assert_eq!(ids(&kafka, &topic("zones"), "c", 1).await, [101]);
    assert!(bridge.terminate(PATIENCE).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_waits_while_it_is_paused_and_ends_when_it_is_stopped() {
    let kafka = kafka_or_skip!().brokers();
    let (_database, client, _name, bridge) = scene(&kafka, "paused", "", NEVER).await;
    client
        .batch_execute("INSERT INTO rides SELECT n, n FROM generate_series(1000, 300000) n")
        .await
        .expect("insert");
    let body = json!({"tables": ["public.rides"]});
    let (_, accepted) = ask(&bridge, "POST", "/snapshots", "", &body);
    let id = accepted["id"].as_str().expect("an ID").to_owned();
    let act =
        |action: &str| ask(&bridge, "POST", &format!("/snapshots/{id}/{action}"), "", &json!({}));
    let state = || {
        let (_, list) = ask(&bridge, "GET", "/snapshots", "", &Value::Null);
        let own = list["snapshots"].as_array()?.iter().find(|listed| listed["id"] == *id)?.clone();
        Some((own["state"].as_str()?.to_owned(), own["rows"].as_u64()?))
    };
    assert_eq!(act("pause").0, 202);
    let is = async |wanted: &str| {
        eventually(PATIENCE, wanted, async || state().filter(|(state, _)| state == wanted)).await
    };
    let (_, rows) = is("paused").await;
    assert!(rows < 299_101, "it was paused before its end");
    // While other rows come and go, it does not move.
    client.execute("INSERT INTO rides VALUES (0, 0)", &[]).await.expect("insert");
    assert_eq!(is("paused").await.1, rows);
    assert_eq!(act("resume").0, 202);
    let goes_on = async || state().filter(|(state, now)| state == "done" || *now > rows);
    eventually(PATIENCE, "it to go on", goes_on).await;
    let (code, _) = act("stop");
    if code == 202 {
        let end = ended(&bridge, &id).await;
        assert!(["stopped", "done"].contains(&end[0].as_str()), "{end:?}");
    } else {
        assert_eq!(code, 409, "it was done already");
    }
    assert_eq!(act("resume").0, 409, "it is at its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_before_its_snapshot_is_one_line_at_info() {
    let kafka = kafka_or_skip!().brokers();
    let database = TestDatabase::create().await;
    let (client, name) = (database.client().await, unique("dropped"));
    let bridge = Bridge::start_ready(&name, &database.unix_url, &kafka, ALL, PATIENCE);
    // What puts the new table into the publication waits for this transaction.
    let create = "CREATE TABLE doomed (id int PRIMARY KEY); INSERT INTO doomed VALUES (1); COMMIT;
                  BEGIN; LOCK TABLE doomed IN SHARE ROW EXCLUSIVE MODE";
    client.batch_execute(create).await.expect("create a table, and lock it");
    let waits = "SELECT FROM pg_locks l WHERE NOT l.granted AND l.relation = 'doomed'::regclass";
    eventually(PATIENCE, "the publication to be altered", async || {
        client.query_opt(waits, &[]).await.expect("ask")
    })
    .await;
    client.batch_execute("DROP TABLE doomed; COMMIT").await.expect("drop it");
    logged(&bridge, "the table was dropped").await;
    // Another is taken up behind it.
    let next = "CREATE TABLE next (id int PRIMARY KEY); INSERT INTO next VALUES (1)";
    client.batch_execute(next).await.expect("create a table");
    eventually(PATIENCE, "the next table", async || {
        let log = bridge.log();
        let done = |line: &str| line.contains("snapshot done") && line.contains("public.next");
        log.lines().any(done).then_some(())
    })
    .await;
    let log = bridge.log();
    let mut told = log
        .lines()
        .filter(|line| line.contains("doomed"))
        .skip_while(|line| line.contains("new tables") || line.contains("snapshot started"));
    let line = told.next().expect("a line");
    assert!(line.contains(" INFO ") && line.contains("dropped"), "{line}");
    assert_eq!(told.next(), None);
}
