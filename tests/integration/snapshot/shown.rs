//! The rows that the snapshot of a slot shows can be told later, by the transactions that wrote them:
//! on servers of our own, on which nobody else runs a transaction.

use rowcast::postgres::{
    ConnInfo, ConnectOptions, CopySession, ReplicationClient, SlotOptions, SlotSnapshot,
};
use rowcast::snapshot::{Visibility, shown_rows};
use tokio_postgres::Client;

use crate::support::postgres::{Binaries, PostgresServer};
use crate::support::{PATIENCE, eventually};

/// A connection with a transaction that has written a row.
async fn writer(server: &PostgresServer, n: i32) -> Client {
    let client = crate::support::postgres::connect(&server.unix_url("postgres")).await;
    let sql = format!("BEGIN; INSERT INTO log VALUES ({n})");
    client.batch_execute(&sql).await.expect("write");
    client
}

async fn pid(client: &Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.expect("ask").get(0)
}

async fn rows(session: &mut CopySession, condition: &str) -> Vec<String> {
    let sql = format!("SELECT n FROM public.log WHERE {condition} ORDER BY n");
    let rows = session.query(&sql).await.expect("read");
    rows.into_iter().flatten().flatten().collect()
}

/// Makes a slot while transactions come and go. Of the rows that its snapshot shows, and that are there
/// later, are all found by the condition, and no others.
async fn the_rows_are_found(server: &PostgresServer, is_another_heard: bool) -> Visibility {
    let url = server.unix_url("postgres");
    let client = crate::support::postgres::connect(&url).await;
    let table = "DROP TABLE IF EXISTS log; CREATE TABLE log (n int);
                 INSERT INTO log SELECT generate_series(1, 3)";
    client.batch_execute(table).await.expect("make a table");
    let (info, options) = (ConnInfo::parse(&url, &|_| None), ConnectOptions::default());
    let info = info.expect("a URL");
    let mut keeper = ReplicationClient::connect(&info, &options).await.expect("connects");
    let maker = keeper.walsender().await.expect("a process").pid;
    let waits_for = async |writer: &Client| {
        let pid = pid(writer).await;
        eventually(PATIENCE, "the slot to wait", async || {
            let query = "SELECT $2 = ANY (pg_blocking_pids($1))";
            let row = client.query_one(query, &[&maker, &pid]).await.expect("ask");
            row.get::<_, bool>(0).then_some(())
        })
        .await;
    };

    let old = writer(server, 10).await;
    let slot = SlotOptions { temporary: true, failover: false, snapshot: SlotSnapshot::Export };
    let making = tokio::spawn(async move {
        let created = keeper.create_slot("shown", slot).await.expect("makes a slot");
        (keeper, created)
    });
    waits_for(&old).await;
    // Of these two it hears only of the first, for the second has gone when it begins to listen.
    let heard = writer(server, 20).await;
    client.batch_execute("INSERT INTO log VALUES (21)").await.expect("write");
    old.batch_execute("COMMIT").await.expect("commit");
    waits_for(&heard).await;
    let left = writer(server, 30).await;
    let sql = "SAVEPOINT a; INSERT INTO log VALUES (31); RELEASE a; INSERT INTO log VALUES (32)";
    left.batch_execute(sql).await.expect("write");
    if is_another_heard {
        client.batch_execute("INSERT INTO log VALUES (40)").await.expect("write");
    }
    heard.batch_execute("COMMIT").await.expect("commit");
    let (keeper, created) = making.await.expect("no panic");

    let mut exported = CopySession::connect(&info, &options).await.expect("connects");
    let name = created.snapshot_name.expect("a snapshot");
    exported.begin_snapshot(&name).await.expect("imports it");
    let stamp = exported.query("SELECT pg_current_snapshot()::text").await.expect("ask");
    let stamp = stamp.into_iter().flatten().flatten().next().expect("a snapshot");
    let shows = Visibility::parse(&stamp).expect("a snapshot");
    let shown = rows(&mut exported, "true").await;
    drop(keeper);

    left.batch_execute("COMMIT").await.expect("commit");
    client.batch_execute("INSERT INTO log VALUES (50)").await.expect("write");
    let frozen = "VACUUM (FREEZE) log";
    for prepare in ["SELECT 1", frozen] {
        client.batch_execute(prepare).await.expect(prepare);
        let mut later = CopySession::connect(&info, &options).await.expect("connects");
        assert!(rows(&mut later, "true").await.len() > shown.len());
        assert_eq!(rows(&mut later, &shown_rows(&shows)).await, shown, "{stamp}");
    }
    shows
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slots_snapshot_shows_is_told_later_from_all_that_came_since() {
    for binaries in Binaries::found() {
        let server = PostgresServer::start(binaries, &[]);
        let shows = the_rows_are_found(&server, true).await;
        assert!(!shows.in_progress.is_empty(), "{shows:?}: somebody was in the midst of it");
        let shows = the_rows_are_found(&server, false).await;
        assert!(shows.xmin > shows.xmax, "{shows:?}: none that it heard of is as young");
    }
}
