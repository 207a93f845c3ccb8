//! Requests for snapshots, from those who may not make any: messages in the stream, HTTP without a token,
//! conditions that are SQL of another kind, what the server says of them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::memory::assert_within;
use crate::support::bridge::{Bridge, TOKEN, TRUSTING, signal};
use crate::support::consume::{at_least, consume, read_whole};
use crate::support::kafka::Brokers;
use crate::support::postgres::{
    Binaries, PostgresServer, TestDatabase, connect, until_confirmed, wal_end,
};
use crate::support::{PATIENCE, eventually, unique};

const TABLES: &str = "
    CREATE TABLE public.rides (id int PRIMARY KEY, fare int);
    INSERT INTO public.rides SELECT n, n FROM generate_series(1, 100) n;
    CREATE TABLE public.secrets (pw text);
    INSERT INTO public.secrets VALUES ('hunter2');";
const RIDES: &str = "[postgres]\ntables = [\"public.rides\"]\n[snapshot]\nmode = \"never\"\n";

pub(super) struct Scene {
    pub(super) database: TestDatabase,
    pub(super) client: Client,
    pub(super) bridge: Bridge,
    pub(super) name: String,
    pub(super) brokers: Brokers,
}

pub(super) async fn scene(server: &PostgresServer, config: &str) -> Scene {
    scene_with(server, "", config).await
}

/// As above, with more in the database.
pub(super) async fn scene_with(server: &PostgresServer, more: &str, config: &str) -> Scene {
    let database = server.database().await;
    let client = database.client().await;
    client.batch_execute(&format!("{TABLES}{more}")).await.expect("make tables");
    let (name, brokers) = (unique("strangers"), Brokers::any());
    let bootstrap = brokers.bootstrap();
    let bridge = Bridge::start_ready(&name, &database.unix_url, &bootstrap, config, PATIENCE);
    Scene { database, client, bridge, name, brokers }
}

impl Scene {
    /// Waits until the bridge has seen all that was written.
    pub(super) async fn seen(&self) {
        let end = wal_end(&self.client).await;
        let message = "SELECT pg_logical_emit_message(true, 'rowcast.test', '')";
        self.client.query(message, &[]).await.expect("write a message");
        until_confirmed(&self.client, &self.name, end, PATIENCE * 2).await;
    }

    pub(super) fn listed(&self) -> Value {
        let (_, list) = self.bridge.ask("GET", "/snapshots", "", &Value::Null).expect("an answer");
        list["snapshots"].clone()
    }

    /// How a snapshot ended.
    pub(super) async fn ended(&self, id: &str) -> Value {
        eventually(PATIENCE, "the snapshot to end", async || {
            let listed = self.listed();
            let own = listed.as_array()?.iter().find(|listed| listed["id"] == id)?.clone();
            let state = own["state"].as_str()?.to_owned();
            ["done", "failed", "stopped"].contains(&state.as_str()).then_some(own)
        })
        .await
    }

    pub(super) fn post(&self, body: &Value) -> (u16, Value) {
        self.bridge.ask("POST", "/snapshots", "", body).expect("an answer in JSON")
    }

    async fn emit(&self, client: &Client, content: &str) {
        let sql = "SELECT pg_logical_emit_message(true, 'rowcast.signal', $1)";
        client.execute(sql, &[&content]).await.expect("emit");
        self.seen().await;
    }

    /// Checkpoints that were written for this pipeline.
    fn checkpoints(&self) -> usize {
        let records = read_whole(&self.brokers.bootstrap(), "rowcast.checkpoints", PATIENCE);
        records.iter().filter(|record| record.key_text() == Some(&self.name)).count()
    }

    /// Nothing of the secret is anywhere where others look.
    fn assert_no_secret(&self) {
        let (_, status) = self.bridge.get("/status").expect("an answer");
        let pages = format!("{}{}{status}", self.bridge.log(), self.listed());
        assert!(!pages.contains("hunter2"), "{pages}");
    }
}

/// Does this while `/livez` is asked all the time: each answer must come soon.
fn alive_during<T>(bridge: &Bridge, work: impl FnOnce() -> T) -> T {
    const SOON: Duration = Duration::from_secs(5);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = 0;
            while !is_done.load(Ordering::Acquire) {
                let asked = Instant::now();
                let answer = bridge.get("/livez").map(|(code, _)| code);
                assert!(answer.is_none_or(|code| code == 200), "{answer:?}");
                assert!(asked.elapsed() < SOON, "late by {:?}", asked.elapsed());
                answers += usize::from(answer.is_some());
            }
            answers
        });
        let done = work();
        is_done.store(true, Ordering::Release);
        assert!(asking.join().expect("every answer comes soon") > 0, "there were answers");
        done
    })
}

/// A function that runs a command of the operating system, for who may.
struct Program {
    sql: String,
    call: String,
    /// What the command creates.
    file: PathBuf,
}

impl Program {
    fn new(server: &PostgresServer, schema: &str) -> Self {
        let file = server.data_dir().join(unique("ran"));
        let sql = format!(
            "CREATE FUNCTION {schema}.run() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
                 COPY (SELECT 1) TO PROGRAM 'cat > {}'; RETURN true; END $$",
            file.display()
        );
        Self { sql, call: format!("{schema}.run()"), file }
    }

    fn has_run(&self) -> bool {
        self.file.exists()
    }
}

/// What somebody who may only connect wrote into the stream.
fn attacks(victim: &str, program: &str) -> Vec<String> {
    let snapshot = |condition: String| {
        json!({"type": "snapshot", "tables": ["public.rides"], "where": condition}).to_string()
    };
    let names: Vec<String> = (0..60_000).map(|n| format!("public.t{n}*")).collect();
    vec![
        snapshot(format!("(select true from pg_drop_replication_slot('{victim}'))")),
        snapshot("(select string_agg(pw,',') from public.secrets)::int = 1".to_owned()),
        snapshot(program.to_owned()),
        snapshot(format!("id = {}", "1".repeat(2_000_000))),
        json!({"type": "snapshot", "tables": names}).to_string(),
        json!({"type": "stop"}).to_string(),
        json!({"type": "stop-snapshot", "data": {}}).to_string(),
        json!({"type": "stop", "token": "guessed"}).to_string(),
        "hunter2, as it is".to_owned(),
    ]
}

/// `memory`, where nothing else is set.
pub(super) const MEMORY_MB: u64 = 64;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_somebody_who_may_only_connect_does_nothing() {
    let server = PostgresServer::start(Binaries::newest(), &[]);
    for (config, reason) in [
        (RIDES.to_owned(), "signals by message are not enabled"),
        (format!("{TRUSTING}{RIDES}"), "it does not have the token"),
    ] {
        let scene = scene(&server, &config).await;
        let role = unique("stranger");
        let victim = unique("victim");
        for setup in [
            format!("CREATE ROLE {role} LOGIN"),
            format!("SELECT pg_create_logical_replication_slot('{victim}', 'pgoutput')"),
        ] {
            scene.client.batch_execute(&setup).await.expect("make a stranger");
        }
        let url = scene.database.unix_url.replace("postgres@", &format!("{role}@"));
        let stranger = connect(&url).await;
        let own = format!("CREATE SCHEMA {role} AUTHORIZATION {role}");
        scene.client.batch_execute(&own).await.expect("a schema of the stranger's own");
        let program = Program::new(&server, &role);
        stranger.batch_execute(&program.sql).await.expect("a function of its own");
        for attack in attacks(&victim, &program.call) {
            scene.emit(&stranger, &attack).await;
        }
        assert!(!program.has_run(), "a program of a stranger's has run");
        let call = format!("SELECT {}", program.call);
        scene.client.batch_execute(&call).await.expect("run it as a superuser");
        assert!(program.has_run(), "where a superuser calls it, it runs");
        assert_eq!(scene.listed(), json!([]), "nothing was taken up");
        scene.assert_no_secret();
        let log = scene.bridge.log();
        assert_eq!(log.matches("ignoring a signal").count(), 1, "said once: {log}");
        assert!(log.contains(reason), "{log}");
        let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
        let left = scene.client.query_one(slots, &[&victim]).await.expect("ask");
        assert_eq!(left.get::<_, i64>(0), 1, "the slot is still there");
        assert_within(&scene.bridge, MEMORY_MB, "messages of a stranger");
        // Rows go on to come.
        scene.client.execute("INSERT INTO rides VALUES (101, 1)", &[]).await.expect("insert");
        let topic = format!("{}.public.rides", scene.name);
        consume(&scene.brokers.bootstrap(), &[&topic], at_least(1), PATIENCE).await;
        drop(stranger);
        let end = format!("SELECT pg_drop_replication_slot('{victim}')");
        scene.client.batch_execute(&end).await.expect("drop the slot");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_with_the_token_is_for_the_pipeline_it_names_and_has_a_condition_only_if_allowed()
{
    let server = PostgresServer::shared();
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), TOKEN).expect("write the token");
    let config = format!("signal_token_file = \"{}\"\n", token.path().display());
    let scene = scene(server, &RIDES.replace("[snapshot]", &(config + "[snapshot]"))).await;
    let take = |id: &str, more: Value| {
        let mut content = json!({"type": "snapshot", "id": id, "tables": ["public.rides"]});
        for (key, value) in more.as_object().expect("an object") {
            content[key] = value.clone();
        }
        signal(&content)
    };
    scene.emit(&scene.client, &take("other", json!({"pipeline": "another"}))).await;
    scene.emit(&scene.client, &take("where", json!({"where": "fare > 1"}))).await;
    scene.emit(&scene.client, &take("own", json!({"pipeline": scene.name}))).await;
    assert_eq!(scene.ended("own").await["state"], "done");
    let listed = scene.listed();
    assert_eq!(listed.as_array().expect("a list").len(), 1, "{listed}");
    let log = scene.bridge.log();
    assert!(log.contains("set postgres.signal_conditions = true"), "{log}");
    assert!(!log.contains(TOKEN), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_a_condition_needs_the_token_and_requests_are_bounded() {
    let scene = scene(PostgresServer::shared(), RIDES).await;
    let body = json!({"tables": ["public.rides"], "where": "fare > 1"});
    let (code, answer) = scene.post(&body);
    assert_eq!(code, 403, "{answer}");
    assert!(answer["fix"].as_str().is_some_and(|fix| fix.contains("admin.token_file")));
    let names = |count: usize| -> Vec<String> { (0..count).map(|n| format!("a.t{n}")).collect() };
    let (code, answer) = scene.post(&json!({"tables": names(1_001)}));
    assert_eq!(code, 413, "{answer}");
    let globs: Vec<String> = names(51).into_iter().map(|name| name + "*").collect();
    assert_eq!(scene.post(&json!({"tables": globs})).0, 413);
    let body = json!({"tables": names(140_000)});
    alive_during(&scene.bridge, || {
        for _ in 0..4 {
            // The whole of it is not even taken in, so the connection may end before it is sent.
            let answer = scene.bridge.ask("POST", "/snapshots", "", &body);
            assert!(answer.is_none_or(|(code, _)| code == 413 || code == 400));
        }
    });
    assert_within(&scene.bridge, MEMORY_MB, "requests of 140,000 names");
    assert_eq!(scene.post(&json!({"tables": ["public.rides"]})).0, 202, "without one as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_small_requests_is_bounded_and_what_waits_is_noted_together() {
    const SENDERS: usize = 8;
    const EACH: usize = 125;
    let scene = scene(PostgresServer::shared(), RIDES).await;
    let lock = scene.database.client().await;
    // No chunk is read meanwhile, so what is taken up is not done at once.
    lock.batch_execute("BEGIN; LOCK TABLE rides IN ACCESS EXCLUSIVE MODE").await.expect("lock");
    let body = json!({"tables": ["public.rides"]});
    let send = || -> Vec<u16> {
        let ask = || scene.bridge.ask("POST", "/snapshots", "", &body);
        (0..EACH).filter_map(|_| ask()).map(|(code, _)| code).collect()
    };
    let codes: Vec<u16> = alive_during(&scene.bridge, || {
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..SENDERS).map(|_| scope.spawn(send)).collect();
            senders.into_iter().flat_map(|sender| sender.join().expect("it sends")).collect()
        })
    });
    let taken = codes.iter().filter(|code| **code == 202).count();
    assert!(codes.iter().all(|code| [202, 429, 503].contains(code)), "{codes:?}");
    assert!(codes.len() > SENDERS * EACH / 2, "{} answers", codes.len());
    assert!(taken > 0, "{codes:?}");
    assert_within(&scene.bridge, MEMORY_MB, "a flood of requests");
    let count = |text: &str| scene.bridge.log().matches(text).count();
    eventually(PATIENCE * 2, "all of them to be noted", async || {
        let noted = count("snapshot started while the stream runs") + count("snapshot refused");
        (noted >= taken).then_some(())
    })
    .await;
    let written = scene.checkpoints();
    assert!(written < taken / 4 + 5, "{written} checkpoints for {taken} requests");
    lock.batch_execute("COMMIT").await.expect("let it go");
    // Each that was accepted comes to its end, for they do not wait for a checkpoint each.
    eventually(PATIENCE * 2, "all of them to end", async || {
        let ended = count("snapshot done") + count("snapshot refused");
        (ended >= taken).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_of_a_condition_is_for_nobody() {
    let scene = scene(PostgresServer::shared(), &format!("{TRUSTING}{RIDES}")).await;
    for (condition, code) in [
        ("(select string_agg(pw,',') from public.secrets)::int = 1", "22P02"),
        ("(select pg_drop_replication_slot('none')) IS NULL", "42704"),
    ] {
        let (status, accepted) =
            scene.post(&json!({"tables": ["public.rides"], "where": condition}));
        assert_eq!(status, 202, "{accepted}");
        let end = scene.ended(accepted["id"].as_str().expect("an ID")).await;
        assert_eq!(end["state"], "failed", "{end}");
        assert!(end["note"].as_str().is_some_and(|note| note.contains(code)), "{end}");
    }
    for condition in
        ["false) UNION ALL SELECT 1, 2 WHERE (true", "id = $1", "true; DROP TABLE rides"]
    {
        let (status, answer) = scene.post(&json!({"tables": ["public.rides"], "where": condition}));
        assert_eq!(status, 422, "{condition}: {answer}");
    }
    scene.assert_no_secret();
}

/// The set-up of docs/security.md, as it is pasted.
fn documented() -> Vec<&'static str> {
    let manual = include_str!("../../../docs/security.md");
    let mut blocks = manual.split("```").skip(1).step_by(2);
    let (sql, toml) = (blocks.next().expect("SQL"), blocks.next().expect("TOML"));
    vec![sql.strip_prefix("sql\n").expect("SQL"), toml.strip_prefix("toml\n").expect("TOML")]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_rights_of_the_manual_are_enough_and_a_condition_has_only_those_of_its_role() {
    let [sql, toml] = documented()[..] else { panic!("two blocks") };
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let database = server.database().await;
    let client = database.client().await;
    client.batch_execute(TABLES).await.expect("make tables");
    // One at a time, as a terminal sends them: a slot is made in a transaction of its own.
    for statement in sql.split_inclusive(';') {
        client.batch_execute(statement).await.expect("the set-up of the manual");
    }
    let url = database.unix_url.replace("postgres@", "rowcast@");
    let brokers = Brokers::any();
    let config = format!("{TRUSTING}{toml}");
    let bootstrap = brokers.bootstrap();
    let bridge = Bridge::start_ready("taxi", &url, &bootstrap, &config, PATIENCE);
    let scene = Scene { database, client, bridge, name: "taxi".to_owned(), brokers };
    scene.client.execute("INSERT INTO rides VALUES (101, 1)", &[]).await.expect("insert");
    let topic = "taxi.public.rides";
    consume(&bootstrap, &[topic], at_least(1), PATIENCE).await;
    let program = Program::new(&server, "public");
    scene.client.batch_execute(&program.sql).await.expect("a function that anybody may call");
    for (condition, state) in [
        ("fare > 97", "done"),
        (program.call.as_str(), "failed"),
        ("(select count(*) from public.secrets) >= 0", "failed"),
        ("pg_drop_replication_slot('rowcast_taxi') IS NULL", "failed"),
    ] {
        let (status, accepted) =
            scene.post(&json!({"tables": ["public.rides"], "where": condition}));
        assert_eq!(status, 202, "{accepted}");
        let end = scene.ended(accepted["id"].as_str().expect("an ID")).await;
        assert_eq!(end["state"], state, "{condition}: {end}");
    }
    consume(&bootstrap, &[topic], at_least(4), PATIENCE).await;
    scene.assert_no_secret();
    assert!(!program.has_run());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_runs_no_program_for_a_superuser_who_has_a_snapshot_role() {
    let server = PostgresServer::start(Binaries::newest(), &[]);
    let role = unique("reader");
    let toml = RIDES.replace("[snapshot]", &format!("snapshot_role = \"{role}\"\n[snapshot]"));
    let reader = format!("CREATE ROLE {role}; GRANT SELECT ON public.rides TO {role};");
    let scene = scene_with(&server, &reader, &format!("{TRUSTING}{toml}")).await;
    let program = Program::new(&server, "public");
    scene.client.batch_execute(&program.sql).await.expect("a function that anybody may call");
    for (condition, state) in [(program.call.as_str(), "failed"), ("fare > 97", "done")] {
        let (status, accepted) =
            scene.post(&json!({"tables": ["public.rides"], "where": condition}));
        assert_eq!(status, 202, "{accepted}");
        let end = scene.ended(accepted["id"].as_str().expect("an ID")).await;
        assert_eq!(end["state"], state, "{condition}: {end}");
    }
    assert!(!program.has_run());
}
