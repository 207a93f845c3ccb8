//! The admin endpoint under attack by whoever can open a connection to it: connections that never
//! finish a request, names that are not its own, requests that grow without end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio_postgres::Client;

use crate::memory::assert_within;
use crate::support::bridge::{Bridge, admin_page};
use crate::support::consume::{at_least, consume};
use crate::support::kafka::Brokers;
use crate::support::postgres::TestDatabase;
use crate::support::process::free_port;
use crate::support::{PATIENCE, eventually, unique};

/// What `docs/memory.md` gives the process.
const MEMORY_MB: u64 = 16;

/// Longest that a probe waits where nobody attacks anything.
const PROMPT: Duration = Duration::from_secs(1);

/// A bridge that streams one table, its database and the brokers.
async fn streaming(stem: &str) -> (Bridge, String, TestDatabase, Client, Brokers) {
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE rides (id int PRIMARY KEY)").await.expect("make a table");
    let (name, brokers) = (unique(stem), Brokers::embedded());
    brokers.create_topic(&format!("{name}.public.rides"), 1).await;
    let config =
        format!("memory = \"{MEMORY_MB}MB\"\n[topics]\ncreate = false\ndescribe = false\n");
    let (url, servers) = (&database.unix_url, brokers.bootstrap());
    let bridge = Bridge::start_ready(&name, url, &servers, &config, PATIENCE);
    (bridge, name, database, client, brokers)
}

fn connect(bridge: &Bridge) -> TcpStream {
    TcpStream::connect(("127.0.0.1", bridge.admin_port())).expect("the endpoint listens")
}

/// Asks for a page with this header; the status code.
fn code(bridge: &Bridge, request: &str) -> Option<u16> {
    let mut stream = connect(bridge);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    // What is refused early is closed before all of it was read: the answer may be cut off by that.
    let _ = stream.read_to_string(&mut answer);
    answer.split_whitespace().nth(1)?.parse().ok()
}

/// Whether the other side has closed it.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a mode");
    match stream.read(&mut [0; 4096]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_requests_use_up_neither_descriptors_nor_memory_and_end() {
    let (mut bridge, name, _database, client, brokers) = streaming("half").await;
    // The least that the process starts with.
    let pid = i32::try_from(bridge.pid().expect("it runs")).ok().and_then(Pid::from_raw);
    let limit = Rlimit { current: Some(256), maximum: Some(256) };
    prlimit(pid, Resource::Nofile, limit).expect("a process of our own");

    // Half headers, large half headers, and bodies that do not come.
    let padding = format!("X-Padding: {}\r\n", "x".repeat(4000)).repeat(50);
    let starts = [
        "GET /livez HT".to_owned(),
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{padding}"),
        "POST /snapshots HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{".to_owned(),
        String::new(),
    ];
    let mut held = Vec::new();
    for start in starts.iter().cycle().take(600) {
        let mut stream = connect(&bridge);
        // One that was refused half-way is refused all the same.
        let _ = stream.write_all(start.as_bytes());
        held.push(stream);
    }
    let asked = Instant::now();
    let (status, _) = bridge.get("/livez").expect("a probe is answered");
    assert_eq!(status, 200);
    assert!(asked.elapsed() < PROMPT, "after {:?}", asked.elapsed());

    // Both sides are reached again: the line is cut, and has to open all of its connections.
    let ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.query(ours, &[]).await.expect("end them");
    client.execute("INSERT INTO rides VALUES (1)", &[]).await.expect("insert");
    let topic = format!("{name}.public.rides");
    consume(&brokers.bootstrap(), &[&topic], at_least(1), PATIENCE).await;

    eventually(PATIENCE, "all of them to be closed", async || {
        held.retain_mut(|stream| !is_closed(stream));
        held.is_empty().then_some(())
    })
    .await;
    assert_within(&bridge, MEMORY_MB, "half requests");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_an_address_that_others_reach_a_bridge_without_a_token_serves_health_and_metrics_alone()
{
    let database = TestDatabase::create().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE rides (id int PRIMARY KEY)").await.expect("make a table");
    let (name, brokers, port) = (unique("public"), Brokers::any(), free_port());
    let address = format!("0.0.0.0:{port}");
    let env = [("ROWCAST_ADMIN__LISTEN", address.as_str())];
    let (url, servers) = (&database.unix_url, brokers.bootstrap());
    let mut bridge = Bridge::start_telling(&name, url, &servers, "", (None, &env));
    eventually(PATIENCE, "it to be ready", async || {
        admin_page(port, "/readyz").filter(|(code, _)| *code == 200)
    })
    .await;
    for (path, wanted) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/status", 403),
        ("/snapshots", 403),
    ] {
        let (code, answer) = admin_page(port, path).expect("it answers");
        assert_eq!(code, wanted, "{path}: {answer}");
        assert!(code == 200 || !answer.contains("rides"), "{path}: {answer}");
    }
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_under_a_foreign_name_reads_nothing_and_no_request_grows() {
    let (mut bridge, name, _database, _client, _brokers) = streaming("rebound").await;
    for path in ["/status", "/snapshots", "/metrics", "/readyz", "/livez"] {
        for host in ["evil.example", "evil.example:9464", "127.0.0.1.evil.example"] {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            assert_eq!(code(&bridge, &request), Some(421), "{path} for {host}");
        }
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(code(&bridge, &request), Some(200), "{path}");
    }
    let post = format!(
        "POST /snapshots HTTP/1.1\r\nHost: evil.example\r\nContent-Length: {}\r\n\r\n{}",
        r#"{"tables":["*.*"]}"#.len(),
        r#"{"tables":["*.*"]}"#
    );
    assert_eq!(code(&bridge, &post), Some(421));

    // Many at once: each is refused by its length, or read no further than the bound.
    let body = "x".repeat(8 << 20);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let head = "POST /snapshots HTTP/1.1\r\nHost: localhost\r\n";
                let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                let answer = code(&bridge, &request);
                assert!(matches!(answer, None | Some(413)), "{answer:?}");
            });
        }
    });
    let (_, status) = admin_page(bridge.admin_port(), "/status").expect("it answers");
    assert!(status.contains(&name), "{status}");
    assert_within(&bridge, MEMORY_MB, "large requests");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
}
