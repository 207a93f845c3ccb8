//! Conditions that never end: they stop no rows for longer than they may, and no command waits for
//! them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::signals::{Scene, scene_with};
use crate::support::bridge::TRUSTING;
use crate::support::consume::{at_least, consume};
use crate::support::postgres::PostgresServer;
use crate::support::{PATIENCE, eventually};

const ENDLESS: &str =
    "(SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b) > 0";

/// Longest that what must not wait for a condition may take on a busy machine.
const SOON: Duration = Duration::from_secs(15);

/// A bridge with a table with a key, and one without.
async fn scene(condition_timeout: &str, delivery: &str) -> Scene {
    let log = "CREATE TABLE public.log (n int); INSERT INTO public.log VALUES (1);";
    let config = format!(
        "{TRUSTING}delivery = \"{delivery}\"\n[postgres]\ntables = [\"public.rides\", \"public.log\"]\n\
         [snapshot]\nmode = \"never\"\ncondition_timeout = \"{condition_timeout}\"\n"
    );
    scene_with(PostgresServer::shared(), log, &config).await
}

/// Asks for a snapshot; its ID, once the server works on the condition.
async fn asked(scene: &Scene, table: &str) -> String {
    let (status, accepted) = scene.post(&json!({"tables": [table], "where": ENDLESS}));
    assert_eq!(status, 202, "{accepted}");
    let at_work = "SELECT FROM pg_stat_activity WHERE datname = current_database()
        AND state = 'active' AND query LIKE '%generate_series%' AND pid <> pg_backend_pid()";
    eventually(PATIENCE, "the condition to run", async || {
        let rows = scene.client.query(at_work, &[]).await.expect("ask");
        (!rows.is_empty()).then_some(())
    })
    .await;
    accepted["id"].as_str().expect("an ID").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_without_end_stops_the_rows_of_others_for_no_longer_than_it_may() {
    for delivery in ["at-least-once", "exactly-once"] {
        let scene = scene("1s", delivery).await;
        let id = asked(&scene, "public.log").await;
        let started = Instant::now();
        scene.client.execute("INSERT INTO rides VALUES (101, 1)", &[]).await.expect("insert");
        let topic = format!("{}.public.rides", scene.name);
        consume(&scene.brokers.bootstrap(), &[&topic], at_least(1), PATIENCE).await;
        assert!(started.elapsed() < SOON, "{delivery}: after {:?}", started.elapsed());
        let end = scene.ended(&id).await;
        assert_eq!(end["state"], "failed", "{delivery}: {end}");
        let note = end["note"].as_str().expect("a reason");
        assert!(note.contains("snapshot.condition_timeout (1s)"), "{delivery}: {note}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_stop_of_a_snapshot_nor_that_of_the_process_waits_for_a_condition() {
    let mut scene = scene("1day", "at-least-once").await;
    for table in ["public.log", "public.rides"] {
        let id = asked(&scene, table).await;
        let started = Instant::now();
        let stop = format!("/snapshots/{id}/stop");
        let (status, answer) = scene.bridge.ask("POST", &stop, "", &Value::Null).expect("JSON");
        assert!((200..300).contains(&status), "{answer}");
        assert_eq!(scene.ended(&id).await["state"], "stopped", "{table}");
        assert!(started.elapsed() < SOON, "{table}: after {:?}", started.elapsed());
    }
    asked(&scene, "public.log").await;
    let started = Instant::now();
    assert!(scene.bridge.terminate(PATIENCE).success(), "{}", scene.bridge.log());
    assert!(started.elapsed() < SOON, "after {:?}", started.elapsed());
}
