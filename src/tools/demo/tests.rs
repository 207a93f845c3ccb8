//! The demo by its promises, on real servers, with a bridge of its own making: a trigger notes what
//! happens to `rides`, and a task turns the notes into events.
//!
//! What must hold after a SIGKILL can only be seen from outside: those tests start this test binary
//! once more, as the demo that is to be killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;
use tokio_postgres::Client;

use super::postgres::{DATABASE, Postgres, connect};
use super::programs::Places;
use super::*;

const PATIENCE: Duration = Duration::from_secs(60);
/// Set in a process that is to be the demo which the test in it looks at from outside.
const ROLE: &str = "ROWCAST_TEST_DEMO_ROLE";

const NOTES: &str = "
CREATE TABLE notes (id bigserial PRIMARY KEY, op text, key bigint, before text, after text, us bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO notes (op, key, before, after, us) VALUES (
        CASE TG_OP WHEN 'INSERT' THEN 'c' WHEN 'UPDATE' THEN 'u' ELSE 'd' END,
        CASE TG_OP WHEN 'DELETE' THEN OLD.ride_id ELSE NEW.ride_id END,
        CASE TG_OP WHEN 'INSERT' THEN 'null' ELSE row_to_json(OLD)::text END,
        CASE TG_OP WHEN 'DELETE' THEN 'null' ELSE row_to_json(NEW)::text END,
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON rides FOR EACH ROW EXECUTE FUNCTION note()";
const TAKE: &str = "
WITH taken AS (DELETE FROM notes RETURNING *)
SELECT op, key, before, after, us FROM taken ORDER BY id";

/// What is wrong with the bridge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It publishes each update twice.
    Repeats,
    /// It fails before it is ready.
    Fails,
}

fn bridge(fault: Fault) -> impl FnOnce(Endpoints) -> BridgeTask {
    move |endpoints| Box::pin(publish(endpoints, fault))
}

async fn publish(endpoints: Endpoints, fault: Fault) -> Result<(), Box<dyn Error + Send + Sync>> {
    if fault == Fault::Fails {
        return Err("slot rowcast is taken".into());
    }
    let client = connect(&endpoints.database_url).await?;
    client.batch_execute(NOTES).await?;
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", &endpoints.brokers).create()?;
    let _nobody_waits = endpoints.ready.send(());
    loop {
        let told = *endpoints.stop.borrow();
        forward(&client, &producer, fault).await?;
        if told {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn forward(
    client: &Client,
    producer: &FutureProducer,
    fault: Fault,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    for row in client.query(TAKE, &[]).await? {
        let (op, key): (&str, i64) = (row.get(0), row.get(1));
        let (before, after, us): (&str, &str, i64) = (row.get(2), row.get(3), row.get(4));
        let key = format!(r#"{{"ride_id":{key}}}"#);
        let value = format!(
            r#"{{"before":{before},"after":{after},"source":{{"ts_us":{us}}},"op":"{op}"}}"#
        );
        let times = if fault == Fault::Repeats && op == "u" { 2 } else { 1 };
        for _ in 0..times {
            let record = FutureRecord::to("rides").key(&key).payload(&value);
            producer.send(record, PATIENCE).await.map_err(|(error, _)| error)?;
        }
        if op == "d" {
            let tombstone: FutureRecord<'_, String, [u8]> = FutureRecord::to("rides").key(&key);
            producer.send(tombstone, PATIENCE).await.map_err(|(error, _)| error)?;
        }
    }
    Ok(())
}

fn options(rides: Option<u64>) -> Options {
    Options { rides, rate: 0.0, seed: Some(7), ..Options::default() }
}

async fn never() {
    std::future::pending().await
}

/// Processes whose command line names `dir`.
fn processes_of(dir: &Path) -> Vec<String> {
    let name = dir.to_string_lossy().into_owned();
    let command_line = |entry: fs::DirEntry| {
        let bytes = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
    };
    let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
    entries.filter_map(command_line).filter(|line| line.contains(&name)).collect()
}

fn is_gone(dir: &Path) -> bool {
    !dir.exists() && processes_of(dir).is_empty()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "still not so after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rides_end_with_a_summary_that_counts_each_row_once() {
    let mut out = Vec::new();
    let summary = run(options(Some(50)), &mut out, never(), bridge(Fault::None)).await;
    let summary = summary.unwrap().expect("it was not stopped");
    assert_eq!(summary.due.inserted, 50);
    assert!(summary.due.updated >= 50, "{summary:?}");
    assert_eq!(summary.events, summary.due);
    assert!(summary.latency.expect("events came").max < PATIENCE);
    assert!(summary.first_event.is_some_and(|first| first >= summary.ready), "{summary:?}");

    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("postgresql://postgres@127.0.0.1:"), "{out}");
    assert!(out.contains("kcat -C -b 127.0.0.1:"), "{out}");
    assert!(out.contains(r#"{"ride_id":1} create"#), "{out}");
    assert!(out.contains("status requested→in_progress"), "an update tells what changed: {out}");
    assert!(out.ends_with("each row's change came out once\n"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_too_many_is_an_error_that_names_it() {
    let mut out = Vec::new();
    let error = run(options(Some(5)), &mut out, never(), bridge(Fault::Repeats)).await.unwrap_err();
    assert!(error.to_string().starts_with("compare rows and events: updates: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_fails_ends_the_demo_with_its_reason() {
    let error = run(options(Some(5)), &mut Vec::new(), never(), bridge(Fault::Fails)).await;
    assert_eq!(error.unwrap_err().to_string(), "run the bridge: slot rowcast is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_events_stand_alone_on_the_output() {
    let mut out = Vec::new();
    let options = Options { json: true, ..options(Some(5)) };
    run(options, &mut out, never(), bridge(Fault::None)).await.unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(out.lines().count() >= 10, "{out}");
    for line in out.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["topic"], "rides", "{line}");
    }
}

/// Tells the folder of Postgres as the bridge gets to know it, then bridges.
fn telling_bridge(
    tell: impl FnOnce(PathBuf) + Send + 'static,
) -> impl FnOnce(Endpoints) -> BridgeTask {
    |endpoints| {
        let url = endpoints.database_url.replace("%2F", "/");
        let (_, dir) = url.split_once('@').expect("a URL with a user");
        let dir = PathBuf::from(dir.split(':').next().expect("a host"));
        assert!(!processes_of(&dir).is_empty(), "postgres works in {}", dir.display());
        tell(dir);
        bridge(Fault::None)(endpoints)
    }
}

/// A screen that tells when the first event is on it.
struct UntilEvent {
    shown: Option<oneshot::Sender<()>>,
}

impl Write for UntilEvent {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if String::from_utf8_lossy(bytes).contains("create")
            && let Some(shown) = self.shown.take()
        {
            // The demo may have ended for another reason.
            let _ = shown.send(());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_an_endless_demo_and_leaves_nothing_behind() {
    let (told, dir) = oneshot::channel();
    let telling = telling_bridge(move |dir| told.send(dir).expect("the test waits"));
    let options = Options { rate: 200.0, ..options(None) };
    let (shown, event) = oneshot::channel();
    let mut out = UntilEvent { shown: Some(shown) };
    let stop = async { event.await.expect("an event is shown") };
    let summary = run(options, &mut out, stop, telling).await.unwrap().expect("it was ready");
    assert!(summary.events.inserted > 0, "{summary:?}");
    assert_eq!(summary.events, summary.due);
    let dir = dir.await.expect("the bridge was started");
    assert!(is_gone(&dir), "{:?}", processes_of(&dir));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_the_servers_start_leaves_nothing_behind() {
    let before = folders();
    let stop = tokio::time::sleep(Duration::from_millis(150));
    let ended = run(options(None), &mut Vec::new(), stop, bridge(Fault::None)).await.unwrap();
    // On a machine that starts it all in less, there would be a summary instead.
    assert!(ended.is_none_or(|summary| summary.ready < Duration::from_millis(150)));
    let of_this_process = |dir: &PathBuf| !before.contains(dir) && processes_of(dir).is_empty();
    eventually("new folders are gone or another demo's", || !folders().iter().any(of_this_process));
}

fn folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(std::env::temp_dir()).expect("read the temporary folder");
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| path.to_string_lossy().contains("rowcast-demo-")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_leaves_nothing_behind() {
    let panicking = tokio::spawn(async {
        let server = Postgres::start(&Places::of_environment()).await.unwrap();
        let client = server.load().await.unwrap();
        let row = client.query_one("SELECT count(*) FROM zones", &[]).await.unwrap();
        assert!(row.get::<_, i64>(0) > 20);
        std::panic::panic_any(server.process().dir().to_owned());
    });
    let dir = panicking.await.unwrap_err().into_panic().downcast::<PathBuf>().expect("a folder");
    assert!(is_gone(&dir), "{:?}", processes_of(&dir));
}

/// This test binary once more, for one test, with a role in it; and the folder that it prints.
fn another_self(test: &str) -> (Child, PathBuf) {
    let told = tempfile::tempdir().unwrap();
    let file = told.path().join("dir");
    // The runner's names of tests are without the crate's.
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{test}")])
        .env(ROLE, &file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut dir = String::new();
    eventually("the demo tells its folder", || {
        assert!(child.try_wait().unwrap().is_none(), "the demo runs on");
        dir = fs::read_to_string(&file).unwrap_or_default();
        dir.ends_with('\n')
    });
    (child, PathBuf::from(dir.trim()))
}

async fn be_the_demo(file: PathBuf) {
    let telling = telling_bridge(move |dir| {
        fs::write(file, format!("{}\n", dir.display())).expect("tell the folder");
    });
    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .expect("hear of interrupts");
    let stop = async move {
        interrupts.recv().await;
    };
    run(options(None), &mut std::io::sink(), stop, telling).await.expect("the demo plays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_demo_takes_its_servers_and_folders_with_it() {
    if let Some(file) = std::env::var_os(ROLE) {
        return be_the_demo(file.into()).await;
    }
    let (mut demo, dir) = another_self("a_killed_demo_takes_its_servers_and_folders_with_it");
    assert!(!processes_of(&dir).is_empty());
    kill_process(Pid::from_child(&demo), Signal::KILL).unwrap();
    demo.wait().unwrap();
    eventually("server, watchdog and folder are gone", || is_gone(&dir));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_demo_ends_well_and_leaves_nothing_behind() {
    if let Some(file) = std::env::var_os(ROLE) {
        return be_the_demo(file.into()).await;
    }
    let (mut demo, dir) = another_self("an_interrupted_demo_ends_well_and_leaves_nothing_behind");
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    let status = demo.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(is_gone(&dir), "{:?}", processes_of(&dir));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_is_named_with_its_last_words() {
    let (told, dir) = oneshot::channel::<PathBuf>();
    let telling = telling_bridge(move |dir| told.send(dir).expect("the test waits"));
    let killer = tokio::spawn(async move {
        let dir = dir.await.expect("the bridge was started");
        let pid: i32 = fs::read_to_string(dir.join("pid")).unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::QUIT).unwrap();
    });
    let mut out = Vec::new();
    let error = run(options(None), &mut out, never(), telling).await.unwrap_err();
    killer.await.unwrap();
    // Killed while the bridge connects, it is the bridge that has the word.
    let text = error.to_string();
    assert!(matches!(error, DemoError::Ended { .. } | DemoError::Bridge { .. }), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_the_one_that_the_url_names() {
    let server = Postgres::start(&Places::of_environment()).await.unwrap();
    let _loaded = server.load().await.unwrap();
    for url in [server.url(DATABASE), server.tcp_url()] {
        let client = connect(&url).await.unwrap();
        let query = "SELECT current_setting('wal_level'), relreplident::text
                     FROM pg_class WHERE oid = 'rides'::regclass";
        let row = client.query_one(query, &[]).await.unwrap();
        assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("logical", "f"));
    }
}
