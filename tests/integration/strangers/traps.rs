//! Functions, operators, types and views of a stranger's, in schemas where names are looked up.
//!
//! On PostgreSQL 14, and in every later database whose `public` schema still lets everybody create,
//! any user can put an operator there that fits the bridge's own queries better than the system's. It
//! would run with the bridge's rights. The names are not listed here: they are every word and every
//! operator in the queries and in the code, as far as the server has something of that name.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::support::bridge::Bridge;
use crate::support::consume::{at_least, consume};
use crate::support::kafka::Brokers;
use crate::support::postgres::{PostgresServer, for_each_postgres};
use crate::support::{PATIENCE, eventually, unique};

/// What is written as a word and means an operator.
const WORDS_FOR_OPERATORS: [&str; 9] = ["~~", "!~~", "~~*", "!~~*", "=", "<>", "<", ">=", "<="];

/// Every word, and every run of characters of operators, in the queries and in the code.
fn words() -> BTreeSet<String> {
    let mut words: BTreeSet<String> = WORDS_FOR_OPERATORS.map(str::to_owned).into();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("sql"), root.join("src")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if !path.extension().is_some_and(|ending| ending == "rs" || ending == "sql") {
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).expect("text");
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let is_operator = |c: char| "+-*/<>=~!@#%^&|`?".contains(c);
            let split = |is: &dyn Fn(char) -> bool| -> Vec<String> {
                text.split(|c| !is(c)).filter(|part| !part.is_empty()).map(str::to_owned).collect()
            };
            words.extend(split(&is_word));
            words.extend(split(&is_operator));
        }
    }
    assert!(files > 100, "{files} files read");
    words
}

/// Tables whose keys are of types for which a stranger's operator fits best, one without a key, one
/// of partitions; in a schema that is nobody else's.
const TABLES: &str = "
    CREATE SCHEMA shop;
    CREATE TYPE shop.mood AS ENUM ('bad', 'good');
    CREATE TABLE shop.orders (id varchar(20), mood shop.mood, note text, extra int, PRIMARY KEY (id, mood));
    ALTER TABLE shop.orders ALTER note SET STORAGE EXTERNAL;
    INSERT INTO shop.orders SELECT n, 'good', repeat('x', 3000) FROM generate_series(1, 50) n;
    CREATE TABLE shop.log (line name);
    ALTER TABLE shop.log REPLICA IDENTITY FULL;
    INSERT INTO shop.log SELECT n FROM generate_series(1, 50) n;
    CREATE TABLE shop.parts (id name, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    INSERT INTO shop.parts SELECT n, '2024-05-05' FROM generate_series(1, 50) n;";

/// Plants the traps, as anybody could. The role of the bridge looks in `public` before all else.
async fn plant(client: &Client, role: &str) {
    client.batch_execute(TABLES).await.expect("make tables");
    let words: Vec<String> = words().into_iter().map(|word| format!("'{word}'")).collect();
    let words = format!("ARRAY[{}]", words.join(","));
    let traps = include_str!("traps.sql").replace("$WORDS", &words);
    client.batch_execute(&traps).await.expect("plant traps");
    let role = format!(
        "CREATE ROLE {role} LOGIN SUPERUSER; ALTER ROLE {role} SET search_path = public, pg_catalog"
    );
    client.batch_execute(&role).await.expect("make a role");
    let planted = "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
        (SELECT count(*) FROM pg_operator WHERE oprnamespace = 'public'::regnamespace),
        (SELECT count(*) FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'd'),
        (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace)";
    let row = client.query_one(planted, &[]).await.expect("count");
    let counts: Vec<i64> = (0..4).map(|at| row.get(at)).collect();
    assert!(counts[0] > 1_000 && counts[1] > 300 && counts[2] > 10 && counts[3] > 10, "{counts:?}");
}

/// What was sprung in a database, by the server's log.
fn sprung(server: &PostgresServer, database: &str) -> BTreeSet<String> {
    let log = server.log();
    let of_database = log.lines().filter(|line| line.contains(&format!("] {database} ")));
    of_database
        .filter_map(|line| line.split_once("LOG:  sprung: ").map(|(_, what)| what.to_owned()))
        .collect()
}

/// Whether all snapshots are at their end.
async fn until_done(bridge: &Bridge, id: &str) {
    eventually(PATIENCE, "the snapshot to end", async || {
        let (_, list) = bridge.ask("GET", "/snapshots", "", &Value::Null)?;
        let own = list["snapshots"].as_array()?.iter().filter(|listed| listed["id"] == id);
        let states: Vec<String> = own.map(|listed| listed["state"].to_string()).collect();
        (!states.is_empty() && states.iter().all(|state| state == "\"done\"")).then_some(())
    })
    .await;
}

fn teardown(name: &str, url: &str, brokers: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_rowcast"))
        .args(["teardown", "--yes", "--name", name])
        .env("DATABASE_URL", url)
        .env("KAFKA_BROKERS", brokers)
        .current_dir(std::env::temp_dir())
        .output()
        .expect("run it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_strangers_is_called_by_a_query_of_ours() {
    for_each_postgres(async |server| {
        let database = server.database().await;
        let client = database.client().await;
        let role = unique("keeper");
        plant(&client, &role).await;
        let url = database.unix_url.replace("postgres://postgres@", &format!("postgres://{role}@"));
        let (name, brokers) = (unique("traps"), Brokers::any());
        let config = "[postgres]\ntables = [\"shop.*\"]\ndiscover_interval = \"200ms\"\n\
             [format]\nunchanged_toast = \"reselect\"\n[tables.\"shop.orders\"]\nexclude_columns = [\"extra\"]\n";
        let bootstrap = brokers.bootstrap();
        let mut bridge = Bridge::start_ready(&name, &url, &bootstrap, config, PATIENCE);
        let topics: Vec<String> =
            ["orders", "log", "parts"].iter().map(|t| format!("{name}.shop.{t}")).collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        consume(&bootstrap, &topics, at_least(150), PATIENCE).await;

        // A table that comes up; a large value that is read back; all of it once more on demand.
        client
            .batch_execute(
                "CREATE TABLE shop.later (id varchar PRIMARY KEY);
                 INSERT INTO shop.later VALUES ('1');
                 UPDATE shop.orders SET mood = mood WHERE id = '7'",
            )
            .await
            .expect("change tables");
        consume(&bootstrap, &[&format!("{name}.shop.later")], at_least(1), PATIENCE).await;
        consume(&bootstrap, &topics, at_least(151), PATIENCE).await;
        let body = json!({"tables": ["shop.*"]});
        let (status, accepted) =
            bridge.ask("POST", "/snapshots", "", &body).expect("an answer in JSON");
        assert_eq!(status, 202, "{accepted}");
        until_done(&bridge, accepted["id"].as_str().expect("an ID")).await;
        consume(&bootstrap, &topics, at_least(301), PATIENCE).await;
        assert!(bridge.terminate(PATIENCE).success());
        teardown(&name, &url, &bootstrap);

        let found = sprung(server, &database.name);
        assert!(found.is_empty(), "sprung: {found:?}");
        // They do work: whoever looks there is caught.
        let caught = crate::support::postgres::connect(&url).await;
        for walk_in in [
            "SELECT 'a'::pg_catalog.name !~~ 'b'::pg_catalog.name",
            "SELECT '7'::oid",
            "SELECT unnest('{1}'::pg_catalog._int2)",
        ] {
            caught.simple_query(walk_in).await.expect(walk_in);
        }
        let found = sprung(server, &database.name);
        let wanted = ["operator !~~", "type", "function unnest"];
        assert!(wanted.iter().all(|what| found.contains(*what)), "sprung: {found:?}");
        drop(caught);
        drop(database);
        let admin = crate::support::postgres::connect(&server.unix_url("postgres")).await;
        admin.batch_execute(&format!("DROP ROLE {role}")).await.expect("drop the role");
    })
    .await;
}
