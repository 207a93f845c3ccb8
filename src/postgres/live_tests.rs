//! The replication connection against a real server.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::testing::Server;
use super::*;
use crate::config::Secret;
use crate::lsn::Lsn;

const TRUST: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\n";

async fn connect(info: &ConnInfo) -> Result<ReplicationClient, Error> {
    ReplicationClient::connect(info, &ConnectOptions::default()).await
}

/// Waits for `condition`, off the runtime.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::task::yield_now().await;
    }
}

/// A server with a table, a publication `p` and a slot `s`.
async fn with_slot(settings: &[&str]) -> Server {
    let server = Server::start(TRUST, settings, &[]);
    server.sql("CREATE TABLE t (id int PRIMARY KEY, v text)");
    server.sql("CREATE PUBLICATION p FOR TABLE t");
    let mut client = connect(&server.local()).await.expect("connects");
    client.create_slot("s", SlotOptions::default()).await.expect("makes a slot");
    server
}

/// A running stream of `with_slot`'s slot.
struct Running {
    chunks: ChunkReceiver,
    confirmed: watch::Sender<Lsn>,
    phase: watch::Sender<StreamPhase>,
    reader: ReaderHandle,
}

fn stream(info: ConnInfo, budget_bytes: usize, publication: &str) -> Running {
    let (sender, chunks) = chunk_channel(budget_bytes);
    let (confirmed, confirmed_receiver) = watch::channel(Lsn::ZERO);
    let (phase, phase_receiver) = watch::channel(StreamPhase::Streaming);
    let options =
        StreamOptions { publications: vec![publication.to_owned()], ..StreamOptions::default() };
    let open = async move || {
        let client = connect(&info).await?;
        client.start_replication("s", Lsn::ZERO, &options).await
    };
    let reader = spawn_reader(open, sender, confirmed_receiver, phase_receiver).expect("a thread");
    Running { chunks, confirmed, phase, reader }
}

/// Receives until `commits` commits came; gives the end of the last.
async fn receive_commits(chunks: &mut ChunkReceiver, commits: usize) -> Lsn {
    let mut seen = 0;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(20), chunks.recv()).await;
        let chunk = next.expect("in time").expect("the stream goes on");
        for frame in chunk.frames() {
            let Frame::XLogData { data, .. } = frame.expect("well-formed") else { continue };
            if data[0] == b'C' {
                seen += 1;
                let end: [u8; 8] = data[10..18].try_into().expect("eight bytes");
                if seen == commits {
                    return Lsn::from(u64::from_be_bytes(end));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_confirmed_before_the_end_is_kept_by_the_slot() {
    let server = with_slot(&[]).await;
    let mut client = connect(&server.local()).await.expect("connects");
    let system = client.identify_system().await.expect("identifies");
    assert_eq!(system.database, "postgres");
    assert_eq!(system.timeline, 1);
    let version: u32 = server.sql("SHOW server_version_num").parse().expect("a number");
    assert_eq!(client.server_version(), version);

    let mut running = stream(server.local(), 1 << 20, "p");
    server.sql("INSERT INTO t SELECT g, 'x' FROM generate_series(1, 5000) g");
    server.sql("INSERT INTO t VALUES (0, 'last')");
    let end = receive_commits(&mut running.chunks, 2).await;
    running.phase.send(StreamPhase::Draining).expect("the stream runs");
    running.confirmed.send(end).expect("the stream runs");
    let moved = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = 's'"
    );
    until("the confirmed position is reported while draining", || server.sql(&moved) == "t").await;
    running.phase.send(StreamPhase::Finished).expect("the stream runs");
    running.reader.join().await.expect("ends in order");
    let exactly = moved.replace(">=", "=");
    assert_eq!(server.sql(&exactly), "t");
    assert_eq!(server.sql("SELECT active FROM pg_replication_slots"), "f");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_worker_does_not_cost_the_connection() {
    let server = with_slot(&["wal_sender_timeout=2s"]).await;
    let mut running = stream(server.local(), 64 * 1024, "p");
    server.sql("INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g");
    // Nothing is received for more than twice the time after which the server gives up.
    let pid = "SELECT active_pid FROM pg_replication_slots";
    until("the stream begins", || !server.sql(pid).is_empty()).await;
    let before = server.sql(pid);
    let stalled = "SELECT extract(epoch FROM clock_timestamp() - backend_start) > 5
        FROM pg_stat_activity WHERE backend_type = 'walsender'";
    until("five seconds pass", || server.sql(stalled) != "f").await;
    assert_eq!(server.sql(pid), before);
    receive_commits(&mut running.chunks, 1).await;
    assert_eq!(server.sql(pid), before);
    running.phase.send(StreamPhase::Finished).expect("the stream runs");
    running.reader.join().await.expect("ends in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_slot_are_told_apart() {
    let server = with_slot(&["max_replication_slots=2"]).await;
    let mut client = connect(&server.local()).await.expect("connects");
    let again = client.create_slot("s", SlotOptions::default()).await;
    assert!(matches!(again, Err(Error::SlotExists { .. })), "{again:?}");
    let export =
        SlotOptions { temporary: true, snapshot: SlotSnapshot::Export, ..SlotOptions::default() };
    let created = client.create_slot("a\"b", export).await;
    assert!(matches!(created, Err(Error::Server(_))), "a name no slot may have: {created:?}");
    let created = client.create_slot("temporary", export).await.expect("makes a slot");
    assert!(created.snapshot_name.is_some() && created.consistent_point > Lsn::ZERO);
    let full = client.create_slot("third", SlotOptions::default()).await;
    assert!(matches!(full, Err(Error::TooManySlots(_))), "{full:?}");
    let missing = client.drop_slot("none").await;
    assert!(matches!(missing, Err(Error::SlotMissing { .. })), "{missing:?}");

    let running = stream(server.local(), 1 << 20, "p");
    let pid = || server.sql("SELECT active_pid FROM pg_replication_slots WHERE slot_name = 's'");
    until("the stream begins", || !pid().is_empty()).await;
    let held = client.start_replication("s", Lsn::ZERO, &StreamOptions::default()).await;
    let holder: i32 = pid().parse().expect("a number");
    assert!(
        matches!(&held, Err(Error::SlotActive { pid: Some(pid), .. }) if *pid == holder),
        "{held:?}"
    );
    drop(running);

    until("the slot is free", || pid().is_empty()).await;
    let mut running = stream(server.local(), 1 << 20, "no_such_publication");
    server.sql("INSERT INTO t VALUES (1, 'x')");
    let result = tokio::time::timeout(Duration::from_secs(20), running.reader.join()).await;
    let result = result.expect("in time");
    assert!(matches!(result, Err(Error::PublicationMissing(_))), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one server and its settings for all ways")]
async fn every_way_to_log_in_works_and_a_wrong_password_is_named() {
    let ca_key = rcgen::KeyPair::generate().expect("key");
    let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("name");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("signed").pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("key");
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("name");
    let certificate = params.signed_by(&key, &issuer).expect("signed").pem();
    let hba = "local all postgres trust\n\
               hostssl all clear 127.0.0.1/32 password\n\
               hostnossl all open 127.0.0.1/32 password\n\
               hostnossl all plain 127.0.0.1/32 trust\n\
               host all md 127.0.0.1/32 md5\n\
               host all scram 127.0.0.1/32 scram-sha-256\n";
    let files = [("server.crt", certificate), ("server.key", key.serialize_pem())];
    let server = Server::start(hba, &["ssl=on"], &files);
    server.sql(
        "SET password_encryption = 'md5'; CREATE ROLE md LOGIN REPLICATION PASSWORD 'pw';
         SET password_encryption = 'scram-sha-256';
         CREATE ROLE clear LOGIN REPLICATION PASSWORD 'pw';
         CREATE ROLE open LOGIN REPLICATION PASSWORD 'pw';
         CREATE ROLE plain LOGIN REPLICATION;
         CREATE ROLE scram LOGIN REPLICATION PASSWORD 'pw'",
    );
    let roots = tempfile::tempdir().expect("temp dir");
    let right = roots.path().join("right.crt");
    std::fs::write(&right, ca_certificate).expect("write");
    let wrong = roots.path().join("wrong.crt");
    let other = rcgen::generate_simple_self_signed(["x".to_owned()]).expect("certificate");
    std::fs::write(&wrong, other.cert.pem()).expect("write");
    let (right, wrong) = (right.display(), wrong.display());

    let log_in = async |text: &str, password: Option<&str>| {
        let mut info = server.conninfo(&format!("dbname=postgres {text}"));
        if let Some(password) = password {
            info.set_password(Secret::from(password.to_owned()));
        }
        let walsender = connect(&info).await.map(drop);
        let reader = CopySession::connect(&info, &ConnectOptions::default()).await.map(drop);
        let same = match (&walsender, &reader) {
            (Ok(()), Ok(())) => true,
            (Err(one), Err(other)) => one.to_string() == other.to_string(),
            _ => false,
        };
        assert!(same, "{text}: {walsender:?} and {reader:?}");
        walsender
    };
    let ip = "hostaddr=127.0.0.1";
    let named = "host=localhost hostaddr=127.0.0.1";
    for way in [
        format!("{ip} user=md sslmode=disable"),
        format!("{ip} user=md sslmode=require"),
        format!("{ip} user=scram sslmode=disable"),
        format!("{ip} user=scram sslmode=require channel_binding=disable"),
        format!("{ip} user=scram sslmode=require channel_binding=require"),
        format!("{ip} user=scram sslmode=prefer"),
        format!("{ip} user=clear sslmode=allow"),
        format!("{ip} user=clear sslmode=require"),
        format!("{ip} user=plain sslmode=prefer"),
        format!("{named} user=scram sslmode=verify-full sslrootcert={right}"),
        format!("{ip} user=scram sslmode=verify-ca sslrootcert={right}"),
        format!("host={} user=postgres", server.socket_directory().display()),
    ] {
        let result = log_in(&way, Some("pw")).await;
        assert!(result.is_ok(), "{way}: {result:?}");
    }

    type Check = fn(&Error) -> bool;
    let refused: Check = |error| matches!(error, Error::AuthFailed(e) if e.sqlstate == "28P01");
    let handshake: Check = |error| matches!(error, Error::TlsHandshake { .. });
    let missing: Check = |error| matches!(error, Error::PasswordMissing { .. });
    let cleartext: Check = |error| matches!(error, Error::CleartextRefused);
    let binding: Check = |error| matches!(error, Error::ChannelBinding { .. });
    for (way, password, expected) in [
        (format!("{ip} user=scram sslmode=disable"), Some("no"), refused),
        (format!("{ip} user=scram sslmode=require"), Some("no"), refused),
        (format!("{ip} user=md sslmode=disable"), Some("no"), refused),
        (format!("{ip} user=scram sslmode=disable"), None, missing),
        (format!("{ip} user=open sslmode=disable"), Some("pw"), cleartext),
        (format!("{ip} user=md sslmode=require channel_binding=require"), Some("pw"), binding),
        (format!("{ip} user=scram sslmode=disable channel_binding=require"), Some("pw"), binding),
        (
            format!("{named} user=scram sslmode=verify-full sslrootcert={wrong}"),
            Some("pw"),
            handshake,
        ),
        (format!("{ip} user=scram sslmode=verify-ca sslrootcert={wrong}"), Some("pw"), handshake),
        (
            format!("host=else {ip} user=scram sslmode=verify-full sslrootcert={right}"),
            Some("pw"),
            handshake,
        ),
    ] {
        let error = log_in(&way, password).await.expect_err(&way);
        assert!(expected(&error), "{way}: {error:?}");
        assert!(!error.is_transient(), "{way}: {error:?}");
        assert!(error.fix().is_some(), "{way}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_down_gives_way_to_the_next() {
    let server = Server::start(TRUST, &[], &[]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("free port");
    let down = free.local_addr().expect("bound").port();
    drop(free);
    let text = |attrs: &str| {
        let port = server.port();
        let text = format!("postgres://postgres@127.0.0.1:{down},127.0.0.1:{port}/?{attrs}");
        ConnInfo::parse(&text, &|_| None).expect("valid")
    };
    for attrs in ["", "target_session_attrs=primary", "target_session_attrs=prefer-standby"] {
        let client = connect(&text(attrs)).await.expect(attrs);
        assert!(client.address().ends_with(&server.port().to_string()), "{}", client.address());
    }
    let error = connect(&text("target_session_attrs=standby")).await.expect_err("no standby");
    assert!(error.to_string().contains("not a standby") && error.is_transient(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_one_table_reads_no_other() {
    use super::publication::{Names, survey, survey_of};
    let server = Server::start(TRUST, &[], &[]);
    server.sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)");
    server.sql("CREATE PUBLICATION p FOR TABLE a, b");
    let client =
        client::connect(&server.local(), &ConnectOptions::default()).await.expect("connects");
    let version = client::server_version(&client).await.expect("a version");
    let names = Names { main: "p", inserts: "p_inserts" };
    let all = survey(&client, names, version).await.expect("a survey");
    let main = all.main.expect("a publication");
    assert_eq!((all.candidates.len(), main.tables.len()), (2, 2));
    let b = &all.candidates[1];
    let one = survey_of(&client, names, version, Some(b.oid)).await.expect("a survey");
    assert!(one.candidates.iter().eq([b]), "{:?}", one.candidates);
    let main = one.main.expect("a publication");
    assert!(main.tables.keys().eq([&b.table]), "{main:?}");
}
