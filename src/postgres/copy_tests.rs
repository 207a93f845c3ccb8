//! The reading session: against scripts for what no healthy server does, and against a real one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::lost_answer::Patience;
use super::testing::Server;
use super::wire::Wire;
use super::*;

const TRUST: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\n";

const SHORT: Patience = Patience {
    unanswered: Duration::from_millis(300),
    look: Duration::from_millis(50),
    grace: Duration::from_millis(200),
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("runtime").block_on(future)
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short");
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// What a server says to a COPY of these rows.
fn copied(rows: &[Vec<u8>]) -> Vec<u8> {
    let mut said = frame(b'H', b"\0\0\x01\0\0");
    said.extend(rows.iter().flat_map(|row| frame(b'd', row)));
    said.extend(frame(b'c', b""));
    said.extend(frame(b'C', format!("COPY {}\0", rows.len()).as_bytes()));
    said.extend(frame(b'Z', b"T"));
    said
}

fn session(piece_bytes: usize) -> (CopySession<DuplexStream>, DuplexStream) {
    let (client, server) = tokio::io::duplex(piece_bytes);
    (CopySession::new(Wire::new(client), 170_000, "script".to_owned()), server)
}

/// Rows of a COPY when the server says `said`, in pieces, and then hangs up.
fn rows_of(said: &[u8], piece_bytes: usize) -> Result<Vec<Vec<u8>>, Error> {
    block_on(async {
        let (mut session, mut server) = session(piece_bytes);
        let server = async {
            let mut question = [0; 64];
            // A client that has heard enough hangs up.
            let _ = server.read(&mut question).await;
            let _ = server.write_all(said).await;
            let _ = server.shutdown().await;
            while server.read(&mut question).await.is_ok_and(|count| count > 0) {}
        };
        let client = async {
            let mut rows = Vec::new();
            let mut copy = session.copy_out("COPY public.t TO STDOUT").await?;
            while let Some(chunk) = copy.next().await? {
                rows.extend(chunk.rows().map(<[u8]>::to_vec));
            }
            assert!(copy.next().await?.is_none(), "the end stays the end");
            assert_eq!(copy.rows(), u64::try_from(rows.len()).expect("few"));
            drop(session);
            Ok(rows)
        };
        tokio::join!(client, server).0
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_arrive_whole_however_the_bytes_come(
        rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20),
        piece in 1_usize..90,
    ) {
        prop_assert_eq!(rows_of(&copied(&rows), piece.max(32)).expect("well-formed"), rows);
    }

    #[test]
    fn no_answer_to_a_copy_panics(said: Vec<u8>) {
        prop_assert!(rows_of(&said, 32).is_err());
    }
}

#[test]
fn a_copy_cut_off_at_any_byte_is_an_error() {
    let whole = copied(&[b"1\ta\n".to_vec(), b"2\tb\n".to_vec()]);
    for end in 0..whole.len() {
        let cut = rows_of(&whole[..end], 64);
        assert!(matches!(cut, Err(Error::Closed)), "cut at {end}: {cut:?}");
    }
}

#[test]
fn a_copy_without_the_rows_that_the_server_counted_is_an_error() {
    let mut said = copied(&[b"1\n".to_vec(), b"2\n".to_vec()]);
    let count = said.windows(6).position(|part| part == b"COPY 2").expect("the count") + 5;
    said[count] = b'3';
    assert!(matches!(rows_of(&said, 64), Err(Error::Malformed { .. })));
    let binary = frame(b'H', b"\x01\0\x01\0\x01");
    assert!(matches!(rows_of(&binary, 64), Err(Error::Unexpected { tag: 'H', .. })));
}

#[test]
fn a_server_that_says_nothing_more_is_given_up() {
    block_on(async {
        let (session, mut server) = session(1024);
        let mut session = session.with_patience(SHORT);
        server.write_all(&copied(&[b"1\n".to_vec()])[..20]).await.expect("room");
        let mut copy = session.copy_out("COPY public.t TO STDOUT").await.expect("it begins");
        assert!(copy.next().await.expect("a row").is_some());
        let error = copy.next().await.expect_err("silence");
        assert!(matches!(error, Error::Silent { .. }) && error.is_transient(), "{error:?}");
    });
}

/// A session on a thread and a runtime of its own, as snapshots use it.
fn on_a_thread<T: Send + 'static>(
    info: ConnInfo,
    work: impl AsyncFnOnce(CopySession) -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        block_on(async {
            let session = CopySession::connect(&info, &ConnectOptions::default()).await;
            work(session.expect("connects")).await
        })
    })
}

async fn count_rows(session: &mut CopySession, sql: &str) -> Result<usize, Error> {
    let mut count = 0;
    let mut copy = session.copy_out(sql).await?;
    while let Some(chunk) = copy.next().await? {
        count += chunk.rows().count();
    }
    Ok(count)
}

#[test]
fn sessions_see_what_the_slots_snapshot_shows_and_nothing_after_it() {
    Server::newest_and_oldest(TRUST, |server| {
        server.sql("CREATE TABLE t (id int PRIMARY KEY, v text)");
        server.sql("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 5000) g");
        let info = server.local();
        block_on(async {
            let options = ConnectOptions::default();
            let mut slot = ReplicationClient::connect(&info, &options).await.expect("connects");
            let export = SlotOptions { snapshot: SlotSnapshot::Export, ..SlotOptions::default() };
            let created = slot.create_slot("s", export).await.expect("makes a slot");
            let name = created.snapshot_name.expect("exported");
            server.sql("INSERT INTO t SELECT g, 'new' FROM generate_series(5001, 6000) g");
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let name = name.clone();
                    on_a_thread(info.clone(), async move |mut session| {
                        session.begin_snapshot(&name).await.expect("it is still exported");
                        let sql = "COPY public.t TO STDOUT";
                        let first = count_rows(&mut session, sql).await.expect("all rows");
                        let again = count_rows(&mut session, sql).await.expect("all rows");
                        (session.server_version(), first, again)
                    })
                })
                .collect();
            for reader in readers {
                let (version, first, again) = reader.join().expect("no panic");
                assert!(version >= 140_000);
                assert_eq!((first, again), (5000, 5000));
            }
            drop(slot);
            let mut late = CopySession::connect(&info, &options).await.expect("connects");
            let error = late.begin_snapshot(&name).await.expect_err("it is gone");
            assert!(error.sqlstate().is_some(), "{error}");
        });
    });
}

#[test]
fn an_error_half_way_is_the_servers_and_leaves_the_session_usable() {
    Server::newest_and_oldest(TRUST, |server| {
        let work = async |mut session: CopySession| {
            session.query("BEGIN").await.expect("begins");
            let sql = "COPY (SELECT repeat('x', 100), 1 / (50000 - g) FROM generate_series(1, 60000) g) \
                   TO STDOUT";
            let error = count_rows(&mut session, sql).await.expect_err("division by zero");
            assert_eq!(error.sqlstate(), Some("22012"), "{error}");
            session.query("ROLLBACK").await.expect("the session goes on");
            let error =
                session.copy_out("COPY no_such_table TO STDOUT").await.expect_err("no table");
            assert_eq!(error.sqlstate(), Some("42P01"), "{error}");
            let mut copy = session
                .copy_out("COPY (SELECT g FROM generate_series(1, 1000000) g) TO STDOUT")
                .await
                .expect("it begins");
            assert!(copy.next().await.expect("rows").is_some());
            let rows = session.query("SELECT 'after', NULL").await.expect("the rest is let go");
            assert_eq!(rows, [vec![Some("after".to_owned()), None]]);
        };
        on_a_thread(server.local(), work).join().expect("no panic");
    });
}

#[test]
fn what_the_role_has_set_changes_no_value_and_hides_no_row() {
    Server::newest_and_oldest(TRUST, |server| {
        server.sql(
            "CREATE ROLE r LOGIN; ALTER ROLE r SET DateStyle = 'German';
         ALTER ROLE r SET bytea_output = 'escape'; ALTER ROLE r SET statement_timeout = '1ms';
         ALTER ROLE r SET TimeZone = 'Asia/Tokyo'; ALTER ROLE r SET lock_timeout = '1ms';
         CREATE TABLE t (at timestamptz, raw bytea); CREATE TABLE hidden (id int);
         INSERT INTO t VALUES ('2024-01-02 03:04:05+00', '\\x00ff');
         INSERT INTO hidden VALUES (1); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
         GRANT SELECT ON t, hidden TO r",
        );
        let info = server.conninfo(&format!(
            "host={} user=r dbname=postgres",
            server.socket_directory().display()
        ));
        let work = async |mut session: CopySession| {
            session.query("SELECT pg_sleep(0.05)").await.expect("no limit");
            let mut copy = session.copy_out("COPY public.t TO STDOUT").await.expect("it begins");
            let chunk = copy.next().await.expect("rows").expect("a row");
            let rows: Vec<_> = chunk.rows().collect();
            assert_eq!(rows, [b"2024-01-02 03:04:05+00\t\\\\x00ff\n".as_slice()]);
            let error = session.copy_out("COPY (SELECT * FROM public.hidden) TO STDOUT").await;
            let error = error.expect_err("refused rather than filtered");
            assert_eq!(error.sqlstate(), Some("42501"), "{error}");
        };
        on_a_thread(info, work).join().expect("no panic");
    });
}

#[test]
fn a_locked_table_is_waited_for_and_a_dropped_session_ends_its_copy() {
    Server::newest_and_oldest(TRUST, |server| {
        server.sql("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 10) g");
        let info = server.local();
        let active = "SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'rowcast' AND state = 'active'";
        let until = |what: &str, sql: &str, wanted: &str| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while server.sql(sql) != wanted {
                assert!(Instant::now() < deadline, "not in time: {what}");
                std::thread::yield_now();
            }
        };
        let holder = on_a_thread(info.clone(), async |mut session: CopySession| {
            session.query("BEGIN; LOCK public.t").await.expect("locks");
            session
        });
        let holder = holder.join().expect("no panic");
        let started = Instant::now();
        let reader = on_a_thread(info.clone(), async |session: CopySession| {
            let mut session = session.with_patience(SHORT);
            count_rows(&mut session, "COPY public.t TO STDOUT").await
        });
        let waited = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND clock_timestamp() - query_start > '1.5 s'";
        until("the reader waits for much longer than it has patience", waited, "1");
        drop(holder);
        assert_eq!(reader.join().expect("no panic").expect("all rows"), 10);
        assert!(started.elapsed() > 2 * SHORT.unanswered);

        let work = async |mut session: CopySession| {
            let endless =
                "COPY (SELECT repeat('x', 1000), generate_series(1, 1000000000)) TO STDOUT";
            let mut copy = session.copy_out(endless).await.expect("it begins");
            assert!(copy.next().await.expect("rows").is_some());
        };
        on_a_thread(info.clone(), work).join().expect("no panic");
        until("the server ends the COPY", active, "0");
        // One that has no row to send looks after its client by itself.
        let work = async |mut session: CopySession| {
            let silent = "COPY (SELECT pg_sleep(600)) TO STDOUT";
            let copy =
                tokio::time::timeout(Duration::from_millis(200), session.copy_out(silent)).await;
            assert!(copy.is_err(), "it waits");
        };
        on_a_thread(info, work).join().expect("no panic");
        until("the server ends a query without a client", active, "0");
    });
}

/// Carries bytes between one client at a time and the server until told to swallow what the server
/// says on connections that are open then.
fn swallowing_line(server_port: u16, swallow: &Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let swallow = Arc::clone(swallow);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a client");
            let server = TcpStream::connect(("127.0.0.1", server_port)).expect("the server");
            let is_doomed = !swallow.load(Ordering::SeqCst);
            let swallow = Arc::clone(&swallow);
            let pairs = [(&client, &server, false), (&server, &client, is_doomed)];
            for (from, to, is_doomed) in pairs {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let swallow = Arc::clone(&swallow);
                std::thread::spawn(move || {
                    let mut bytes = vec![0; 65_536];
                    while let Ok(count @ 1..) = from.read(&mut bytes) {
                        let swallows = is_doomed && swallow.load(Ordering::SeqCst);
                        if !swallows && to.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        }
    });
    port
}

#[test]
fn a_line_that_swallowed_the_rest_is_given_up_since_the_server_has_done_its_part() {
    Server::newest_and_oldest(TRUST, |server| {
        let swallow = Arc::new(AtomicBool::new(false));
        let port = swallowing_line(server.port(), &swallow);
        let text = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
        let info = ConnInfo::parse(&text, &|_| None).expect("valid");
        let work = async move |session: CopySession| {
            let mut session = session.with_patience(SHORT);
            let sql = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 20000)) TO STDOUT";
            let mut copy = session.copy_out(sql).await.expect("it begins");
            assert!(copy.next().await.expect("rows").is_some());
            swallow.store(true, Ordering::SeqCst);
            loop {
                match copy.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it is not all there"),
                    Err(error) => {
                        break assert!(matches!(error, Error::Silent { .. }), "{error:?}");
                    }
                }
            }
        };
        on_a_thread(info, work).join().expect("no panic");
    });
}
