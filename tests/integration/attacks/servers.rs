//! Servers that lie before the login, and secrets: what a stranger in a server's place can take, and
//! how a password changes under load without a restart or a lost row.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rowcast::postgres::{self, ConnInfo, ConnectOptions, ReplicationClient};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_postgres::Client;

use crate::faults::{all_arrive, create_table, write};
use crate::memory::assert_within;
use crate::support::bridge::Bridge;
use crate::support::kafka::{Brokers, KafkaNode, kafka_or_skip};
use crate::support::postgres::{Binaries, PostgresServer, TestDatabase, connect};
use crate::support::{PATIENCE, eventually, report_skipped, unique};

/// What a liar may get rid of: the login's bound, and what the system's buffers take on the way.
const TAKEN: usize = 32 << 20;

/// A message of the server's: tag, length, body.
fn message(tag: u8, length: usize, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).expect("a length of the protocol");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// The ways to lie, each what is sent first and what is sent after that, again and again.
fn lies() -> [(&'static str, Vec<u8>, Vec<u8>); 4] {
    let ok = message(b'R', 8, &[0; 4]);
    let parameter = |n: usize| {
        let body = format!("parameter_{n}\0{}\0", "x".repeat(1000));
        message(b'S', 4 + body.len(), body.as_bytes())
    };
    let parameters: Vec<u8> = (0..500).flat_map(parameter).collect();
    let notice = "SWARNING\0VWARNING\0C01000\0Mit is not what it seems\0\0";
    let notice = message(b'N', 4 + notice.len(), notice.as_bytes()).repeat(1000);
    [
        ("a huge length", message(b'R', 0x3fff_ffff, &[]), vec![0; 1 << 20]),
        ("a huge error", message(b'E', 0x3fff_ffff, b"SFATAL\0M"), vec![b'x'; 1 << 20]),
        ("parameters without end", ok.clone(), parameters),
        ("notices without end", ok, notice),
    ]
}

/// A server that lies, to everybody who comes.
struct Liar {
    port: u16,
    sent: Arc<AtomicUsize>,
    deceived: Arc<AtomicUsize>,
}

impl Liar {
    async fn start(first: Vec<u8>, again: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (sent, deceived) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, finished) = (Arc::clone(&sent), Arc::clone(&deceived));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (first, again) = (first.clone(), again.clone());
                let (counted, finished) = (Arc::clone(&counted), Arc::clone(&finished));
                tokio::spawn(async move {
                    let mut greeting = [0; 4096];
                    let _ = stream.read(&mut greeting).await;
                    let mut lie = first;
                    while stream.write_all(&lie).await.is_ok() {
                        counted.fetch_add(lie.len(), Ordering::Relaxed);
                        lie.clone_from(&again);
                    }
                    finished.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Self { port, sent, deceived }
    }

    fn url(&self) -> String {
        format!("postgres://u:pw@127.0.0.1:{}/d?sslmode=disable", self.port)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lies_before_the_login_gets_rid_of_little_on_either_connection() {
    for (lie, first, again) in lies() {
        for is_replication in [false, true] {
            let liar = Liar::start(first.clone(), again.clone()).await;
            let info = ConnInfo::parse(&liar.url(), &|_| None).expect("a connection string");
            let options = ConnectOptions::default();
            let refused = if is_replication {
                ReplicationClient::connect(&info, &options).await.err()
            } else {
                postgres::client::connect(&info, &options).await.err()
            };
            assert!(refused.is_some(), "{lie}");
            let sent = liar.sent.load(Ordering::Relaxed);
            assert!(sent < TAKEN, "{lie}, replication {is_replication}: {sent} bytes were taken");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_lied_to_stays_within_its_memory() {
    for (lie, first, again) in lies() {
        let liar = Liar::start(first, again).await;
        let (name, brokers) = (unique("deceived"), Brokers::embedded());
        let config = "memory = \"16MB\"\n";
        let mut bridge = Bridge::start(&name, &liar.url(), &brokers.bootstrap(), config);
        eventually(PATIENCE, "a second try", async || {
            (liar.deceived.load(Ordering::Relaxed) >= 2).then_some(())
        })
        .await;
        assert_within(&bridge, 16, lie);
        assert!(bridge.terminate(PATIENCE).success(), "{lie}; log:\n{}", bridge.log());
    }
}

/// A server on which the role `rotating` needs a password, over TCP.
async fn guarded_server() -> (PostgresServer, Client) {
    let mut server = PostgresServer::start(Binaries::newest(), &[]);
    let client = connect(&server.unix_url("postgres")).await;
    let role = "CREATE ROLE rotating LOGIN REPLICATION PASSWORD 'pw-first'; CREATE DATABASE rotated OWNER rotating";
    for statement in role.split("; ") {
        client.batch_execute(statement).await.expect("make a role and its database");
    }
    server.put_file(
        "pg_hba.conf",
        "local all postgres trust\nhost all rotating 127.0.0.1/32 scram-sha-256\n",
    );
    server.stop();
    server.start_again();
    let client = connect(&server.unix_url("rotated")).await;
    client.batch_execute("SET ROLE rotating").await.expect("be the owner");
    create_table(&client).await;
    client.batch_execute("RESET ROLE").await.expect("be a superuser again");
    (server, client)
}

fn put_secret(path: &Path, secret: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, secret).expect("write a secret");
    let only_ours = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&next, only_ours).expect("chmod");
    std::fs::rename(&next, path).expect("replace a secret");
}

/// Writes rows until it is asked to stop, and gives the last.
fn write_on(url: String, from: i32, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<i32> {
    let stop = Arc::clone(stop);
    tokio::spawn(async move {
        let client = connect(&url).await;
        let mut id = from;
        while !stop.load(Ordering::Relaxed) {
            write(&client, id..=id).await;
            id += 1;
        }
        id
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_a_file_that_nobody_named_is_of_no_use_and_no_reason_to_end() {
    let database = TestDatabase::create().await;
    create_table(&database.client().await).await;
    let folder = tempfile::tempdir().expect("a folder");
    // Root reads any file, but no text that is none.
    let file = folder.path().join(".pgpass");
    std::fs::write(&file, [0xff]).expect("write");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    let key = folder.path().join("key");
    std::fs::write(&key, "no key, and not used on a socket").expect("write");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    let home = folder.path().display().to_string();
    let (name, brokers) = (unique("pgpass"), Brokers::any());
    let join = if database.unix_url.contains('?') { '&' } else { '?' };
    let key = key.display();
    let url = format!("{}{join}sslmode=disable&sslcert={key}&sslkey={key}", database.unix_url);
    let with_home = (None, &[("HOME", home.as_str())][..]);
    let mut bridge = Bridge::start_telling(&name, &url, &brokers.bootstrap(), "", with_home);
    bridge.wait_until_ready(PATIENCE).expect("it goes on without it");
    let log = bridge.log();
    assert!(log.contains("the password file can't be read"), "{log}");
    let warned = format!("every user can read {key}, which sslkey names; run: chmod o-r {key}");
    assert!(log.contains(&warned), "{log}");
    assert!(bridge.terminate(PATIENCE).success(), "{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_changes_under_load_in_a_file_or_by_a_command_and_no_row_is_lost() {
    let kafka = kafka_or_skip!();
    let (server, client) = guarded_server().await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret: PathBuf = folder.path().join("password");
    let put = |password: &str| {
        put_secret(&secret, &format!("{password}\n"));
        put_secret(&folder.path().join(".pgpass"), &format!("*:*:*:rotating:{password}\n"));
    };
    put("pw-first");
    let url = format!("postgres://rotating@127.0.0.1:{}/rotated?sslmode=disable", server.port());
    let file = format!("[postgres]\npassword_file = {secret:?}\n");
    let command = format!("[postgres]\npassword_command = [\"cat\", {secret:?}]\n");
    let (name, brokers) = (unique("rotated"), kafka.brokers());
    let home = folder.path().display().to_string();
    let with_home = (None, &[("HOME", home.as_str())][..]);
    let mut bridge = Bridge::start_telling(&name, &url, &brokers, &file, with_home);
    bridge.wait_until_ready(PATIENCE).expect("it streams");
    let pid = bridge.pid();
    let mut from = 1;
    // The last is found in ~/.pgpass, which nobody named.
    let (command, none) = (Some(command.as_str()), Some(""));
    for (password, config) in [("pw-second", None), ("pw-third", command), ("pw-fourth", none)] {
        if let Some(config) = config {
            bridge.configure(config);
            let sessions = bridge.log().matches("streaming slot=").count();
            bridge.hang_up();
            eventually(PATIENCE, "a new session", async || {
                (bridge.log().matches("streaming slot=").count() > sessions).then_some(())
            })
            .await;
        }
        let stop = Arc::<AtomicBool>::default();
        let writing = write_on(server.unix_url("rotated"), from, &stop);
        let change = format!("ALTER ROLE rotating PASSWORD '{password}'");
        client.batch_execute(&change).await.expect("change the password");
        let (refused, sessions) = {
            let log = bridge.log();
            (log.matches("28P01").count(), log.matches("streaming slot=").count())
        };
        let end =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotating'";
        client.query(end, &[]).await.expect("end its sessions");
        // The server has the new password before the file does.
        eventually(PATIENCE, "the old one to be refused", async || {
            (bridge.log().matches("28P01").count() > refused).then_some(())
        })
        .await;
        put(password);
        eventually(PATIENCE, "rows to flow with the new one", async || {
            (bridge.log().matches("streaming slot=").count() > sessions).then_some(())
        })
        .await;
        stop.store(true, Ordering::Relaxed);
        from = writing.await.expect("it writes");
        all_arrive(&brokers, &name, &client).await;
    }
    assert_eq!(bridge.pid(), pid, "it is the same process");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
    assert!(!bridge.log().contains("pw-"), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_the_brokers_changes_under_load_and_no_row_is_lost() {
    let mut kafka = match KafkaNode::start_guarded() {
        Ok(node) => node,
        Err(reason) => return report_skipped(module_path!(), reason),
    };
    let database = TestDatabase::create().await;
    let client = database.client().await;
    create_table(&client).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (password, user) = (folder.path().join("password"), folder.path().join("user"));
    put_secret(&password, "secret\n");
    put_secret(&user, "bridge\n");
    let all = ["--add", "--operation", "All", "--topic", "*", "--group", "*", "--cluster"];
    kafka.allow(&all);
    let config = format!(
        "[kafka.properties]\n\"security.protocol\" = \"SASL_PLAINTEXT\"\n\
         \"sasl.mechanism\" = \"PLAIN\"\n[kafka.property_files]\n\"sasl.username\" = {user:?}\n\
         [kafka.property_commands]\n\"sasl.password\" = [\"cat\", {password:?}]\n"
    );
    let (name, brokers) = (unique("sasl"), kafka.guarded_brokers());
    let url = &database.unix_url;
    let mut bridge = Bridge::start_ready(&name, url, &brokers, &config, PATIENCE);
    let pid = bridge.pid();
    let stop = Arc::<AtomicBool>::default();
    let writing = write_on(url.clone(), 1, &stop);

    kafka.stop();
    let settings = kafka.dir().join("server.properties");
    let text = std::fs::read_to_string(&settings).expect("its settings");
    std::fs::write(&settings, text.replace("\"secret\"", "\"rotated\"")).expect("change them");
    kafka.start_again();
    let sessions = bridge.log().matches("streaming slot=").count();
    eventually(Duration::from_secs(60), "the old one to be refused", async || {
        bridge.log().contains("uthentication").then_some(())
    })
    .await;
    put_secret(&password, "rotated\n");
    eventually(Duration::from_secs(60), "rows to flow with the new one", async || {
        (bridge.log().matches("streaming slot=").count() > sessions).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    writing.await.expect("it writes");
    all_arrive(&kafka.brokers(), &name, &client).await;
    assert_eq!(bridge.pid(), pid, "it is the same process");
    assert!(bridge.terminate(PATIENCE).success(), "log:\n{}", bridge.log());
    assert!(!bridge.log().contains("rotated"), "log:\n{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_warns_of_at_a_login_is_logged_once_and_stays_in_the_status() {
    const WARNING: &str = "your password expires in 3 days";
    let server = PostgresServer::shared();
    if server.major() < 17 {
        return;
    }
    let database = TestDatabase::create().await;
    let client = database.client().await;
    // Later servers say such things by themselves.
    client
        .batch_execute(&format!(
            "CREATE TABLE rides (id int PRIMARY KEY);
             CREATE FUNCTION warn() RETURNS event_trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE WARNING '{WARNING}' USING HINT = 'change it'; END $$;
             CREATE EVENT TRIGGER warn ON login EXECUTE FUNCTION warn();
             ALTER EVENT TRIGGER warn ENABLE ALWAYS"
        ))
        .await
        .expect("warn");
    let (name, brokers) = (unique("warned"), Brokers::any());
    let url = &database.unix_url;
    let mut bridge = Bridge::start_ready(&name, url, &brokers.bootstrap(), "", PATIENCE);
    let log = bridge.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(WARNING)).collect();
    // At no level more than once: the SQL library would repeat it at each connection.
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("change it"), "{lines:?}");
    let (_, status) = bridge.get("/status").expect("it answers");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["login_warnings"], serde_json::json!([WARNING]));
    assert!(bridge.terminate(PATIENCE).success());
}
