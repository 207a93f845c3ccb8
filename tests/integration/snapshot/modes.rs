//! When the rows are read that were there before, by the mode and by what is found.

use serde_json::json;

use crate::scenario::{Scenario, short};
use crate::support::postgres::PostgresServer;
use crate::support::{PATIENCE, eventually};

const SETUP: &str = "CREATE TABLE rides (id int PRIMARY KEY, note text);
                     INSERT INTO rides VALUES (1, 'before')";

async fn scenario(mode: &str) -> Scenario {
    let server = PostgresServer::shared();
    let config = format!("[snapshot]\nmode = \"{mode}\"\n");
    Scenario::prepare(server, &config, SETUP, &["public.rides"]).await
}

fn event(op: &str, id: i32, note: &str) -> serde_json::Value {
    json!([{"id": id}, op, null, {"id": id, "note": note}])
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_reads_at_the_first_start_and_not_at_the_next() {
    let mut scenario = scenario("initial").await;
    scenario.run();
    scenario.sql("INSERT INTO rides VALUES (2, 'while it ran')").await;
    let expected = json!([event("r", 1, "before"), event("c", 2, "while it ran")]);
    assert_eq!(short(&scenario.events("public.rides").await), expected);
    scenario.stop();
    scenario.sql("INSERT INTO rides VALUES (3, 'while it was down')").await;
    scenario.run();
    let events = scenario.events("public.rides").await;
    assert_eq!(short(&events[2..]), json!([event("c", 3, "while it was down")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn always_reads_at_every_start_and_beside_the_stream_from_the_second_on() {
    let mut scenario = scenario("always").await;
    scenario.run();
    assert_eq!(short(&scenario.events("public.rides").await), json!([event("r", 1, "before")]));
    scenario.stop();
    scenario.sql("INSERT INTO rides VALUES (2, 'while it was down')").await;
    scenario.run();
    let mut events = Vec::new();
    eventually(PATIENCE, "all rows to be read again", async || {
        events = scenario.events("public.rides").await;
        (events.len() >= 4).then_some(())
    })
    .await;
    let mut expected = vec![event("c", 2, "while it was down"), event("r", 1, "before")];
    expected.push(event("r", 2, "while it was down"));
    assert_eq!(short(&events[1..]), json!(expected));
    let marker = &events[2].value.as_ref().expect("a row")["source"]["snapshot"];
    assert_eq!(marker, "incremental");
}

/// The snapshots while the stream runs that are listed: table, reason and state.
fn listed(scenario: &Scenario) -> Vec<[String; 3]> {
    let bridge = scenario.bridge.as_ref().expect("a bridge");
    let (_, page) = bridge.get("/snapshots").expect("it answers");
    let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    let listed = page["snapshots"].as_array().expect("a list").iter();
    let text = |of: &serde_json::Value, key| of[key].as_str().expect("a text").to_owned();
    listed.map(|of| ["table", "reason", "state"].map(|key| text(of, key))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn for_always_a_reload_is_no_start_and_only_a_table_that_it_adds_is_read() {
    let server = PostgresServer::shared();
    let setup = format!(
        "{SETUP}; CREATE TABLE zones (id int PRIMARY KEY, note text);
                         INSERT INTO zones VALUES (7, 'before')"
    );
    for before in ["always", "initial"] {
        let of = |mode: &str, tables: &str| {
            format!("[snapshot]\nmode = \"{mode}\"\n[postgres]\ntables = [\"public.{tables}\"]\n")
        };
        let tables = ["public.rides", "public.zones"];
        let mut scenario = Scenario::prepare(server, &of(before, "rides"), &setup, &tables).await;
        scenario.run();
        assert_eq!(short(&scenario.events("public.rides").await), json!([event("r", 1, "before")]));
        scenario.configure(&of("always", "*"));
        scenario.bridge.as_ref().expect("a bridge").hang_up();
        eventually(PATIENCE, "the rows of the table that is added", async || {
            let is_done = |of: &[String; 3]| of[0] == "public.zones" && of[2] == "done";
            listed(&scenario).iter().any(is_done).then_some(())
        })
        .await;
        // What a start asks for would stand there too, before all else.
        let others: Vec<_> =
            listed(&scenario).into_iter().filter(|of| of[0] != "public.zones").collect();
        assert!(others.is_empty(), "{before}: {others:?}");
        assert_eq!(short(&scenario.events("public.zones").await), json!([event("r", 7, "before")]));
        assert_eq!(scenario.events("public.rides").await.len(), 1);
        scenario.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn always_goes_on_with_what_the_start_before_left_and_does_not_begin_it_twice() {
    let mut scenario = scenario("always").await;
    scenario.run();
    assert_eq!(scenario.events("public.rides").await.len(), 1);
    scenario.stop();
    // Whoever reads the table waits for this.
    let holder = scenario.connect().await;
    let lock = "BEGIN; LOCK TABLE rides IN ACCESS EXCLUSIVE MODE";
    holder.batch_execute(lock).await.expect("lock the table");
    let waiting = ["public.rides", "first", "waiting"].map(str::to_owned);
    scenario.run();
    eventually(PATIENCE, "the table to be noted", async || {
        (listed(&scenario) == [waiting.clone()]).then_some(())
    })
    .await;
    scenario.bridge.as_mut().expect("a bridge").kill();
    scenario.run();
    let known = ["*.*", "first", "stopped"].map(str::to_owned);
    eventually(PATIENCE, "the second to be known", async || {
        (listed(&scenario) == [known.clone(), waiting.clone()]).then_some(())
    })
    .await;
    holder.batch_execute("COMMIT").await.expect("let it go");
    let done = ["public.rides", "first", "done"].map(str::to_owned);
    eventually(PATIENCE, "the table to be read", async || {
        (listed(&scenario) == [known.clone(), done.clone()]).then_some(())
    })
    .await;
    let expected = json!([event("r", 1, "before"), event("r", 1, "before")]);
    assert_eq!(short(&scenario.events("public.rides").await), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn never_reads_nothing() {
    let mut scenario = scenario("never").await;
    scenario.run();
    scenario.sql("INSERT INTO rides VALUES (2, 'while it ran')").await;
    let events = scenario.events("public.rides").await;
    assert_eq!(short(&events), json!([event("c", 2, "while it ran")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_slot_is_streamed_from_and_nothing_is_read() {
    let mut scenario = scenario("initial").await;
    scenario.make_slot_and_publication("rides").await;
    scenario.sql("INSERT INTO rides VALUES (2, 'since the slot')").await;
    scenario.run();
    let events = scenario.events("public.rides").await;
    assert_eq!(short(&events), json!([event("c", 2, "since the slot")]));
    assert!(scenario.log().contains("existing rows are not read"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_reads_drops_its_slot_and_ends_and_does_the_same_when_started_again() {
    let mut scenario = scenario("only").await;
    scenario.launch();
    assert_eq!(scenario.ended(), Some(0), "log:\n{}", scenario.log());
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
    let slot = scenario.slot();
    let left = scenario.client.query_one(slots, &[&slot]).await.expect("ask");
    assert_eq!(left.get::<_, i64>(0), 0, "the slot is dropped");
    let events = scenario.all_events("public.rides").await;
    assert_eq!(short(&events), json!([event("r", 1, "before")]));
    assert_eq!(events[0].value.as_ref().expect("a row")["source"]["snapshot"], "last");

    scenario.sql("UPDATE rides SET note = 'after'").await;
    scenario.launch();
    assert_eq!(scenario.ended(), Some(0), "log:\n{}", scenario.log());
    let events = scenario.all_events("public.rides").await;
    assert_eq!(short(&events[1..]), json!([event("r", 1, "after")]));
}

/// One that was killed while it read its only table, of which a row was written since.
async fn only_cut_off() -> Scenario {
    let config = "[snapshot]\nmode = \"only\"\n[tables.\"public.rides\"]\n\
                  snapshot_where = \"pg_advisory_xact_lock_shared(7) IS NOT NULL\"\n";
    let server = PostgresServer::shared();
    let mut scenario = Scenario::prepare(server, config, SETUP, &["public.rides"]).await;
    // Whoever reads the table waits for this.
    let holder = scenario.connect().await;
    holder.batch_execute("SELECT pg_advisory_lock(7)").await.expect("lock");
    scenario.launch();
    let waiting = "SELECT FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event = 'advisory'";
    eventually(PATIENCE, "the rows to be read", async || {
        let rows = scenario.client.query(waiting, &[]).await.expect("ask");
        (!rows.is_empty()).then_some(())
    })
    .await;
    scenario.bridge.as_mut().expect("a bridge").kill();
    scenario.sql("INSERT INTO rides VALUES (2, 'since it began')").await;
    holder.batch_execute("SELECT pg_advisory_unlock(7)").await.expect("unlock");
    scenario
}

#[tokio::test(flavor = "multi_thread")]
async fn only_that_was_cut_off_goes_on_beside_the_stream_and_ends_when_all_is_read() {
    let mut scenario = only_cut_off().await;
    scenario.launch();
    assert_eq!(scenario.ended(), Some(0), "log:\n{}", scenario.log());
    let slots = "SELECT FROM pg_replication_slots WHERE slot_name = $1";
    let slots = scenario.client.query(slots, &[&scenario.slot()]).await.expect("ask");
    assert_eq!(slots.len(), 0, "the slot is dropped");
    let mut events = scenario.all_events("public.rides").await;
    events[1..].sort_by_key(|event| event.short().to_string());
    let written = "since it began";
    let expected = json!([event("c", 2, written), event("r", 1, "before"), event("r", 2, written)]);
    assert_eq!(short(&events), expected);

    // And the next start is a first one again.
    scenario.launch();
    assert_eq!(scenario.ended(), Some(0), "log:\n{}", scenario.log());
    assert_eq!(scenario.all_events("public.rides").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_that_was_cut_off_becomes_a_stream_when_the_next_start_is_to_stream() {
    let mut scenario = only_cut_off().await;
    scenario.configure("[snapshot]\nmode = \"initial\"\n");
    scenario.run();
    let done = ["public.rides", "first", "done"].map(str::to_owned);
    eventually(PATIENCE, "the table to be read", async || {
        (listed(&scenario) == [done.clone()]).then_some(())
    })
    .await;
    scenario.sql("INSERT INTO rides VALUES (3, 'streamed')").await;
    let events = scenario.events("public.rides").await;
    assert_eq!(short(&events[3..]), json!([event("c", 3, "streamed")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_only_the_next_mode_begins_with_all_rows() {
    let mut scenario = scenario("only").await;
    scenario.launch();
    assert_eq!(scenario.ended(), Some(0), "log:\n{}", scenario.log());
    scenario.configure("[snapshot]\nmode = \"initial\"\n");
    scenario.run();
    scenario.sql("INSERT INTO rides VALUES (2, 'streamed')").await;
    let events = scenario.events("public.rides").await;
    let expected =
        json!([event("r", 1, "before"), event("r", 1, "before"), event("c", 2, "streamed")]);
    assert_eq!(short(&events), expected);
}

/// Whoever asks for rows after a gap gets all that are there.
async fn assert_heals_a_gap(config: &str) {
    let server = PostgresServer::shared();
    let mut scenario = Scenario::prepare(server, config, SETUP, &["public.rides"]).await;
    scenario.run();
    scenario.sql("INSERT INTO rides VALUES (2, 'streamed')").await;
    assert_eq!(scenario.events("public.rides").await.len(), 2);
    scenario.stop();
    scenario
        .sql("INSERT INTO rides VALUES (3, 'in the gap'); DELETE FROM rides WHERE id = 1")
        .await;
    let slot = scenario.slot();
    scenario.sql(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    scenario.run();
    scenario.sql("INSERT INTO rides VALUES (4, 'after')").await;
    let events = scenario.events("public.rides").await;
    let mut read = events[2..4].to_vec();
    read.sort_by_key(|event| event.short().to_string());
    let expected = json!([event("r", 2, "streamed"), event("r", 3, "in the gap")]);
    assert_eq!(short(&read), expected);
    assert_eq!(short(&events[4..]), json!([event("c", 4, "after")]));
    let log = scenario.log();
    assert!(log.contains("for rows that were deleted meanwhile"), "log:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_needed_reads_all_rows_after_a_gap() {
    assert_heals_a_gap("[snapshot]\nmode = \"when-needed\"\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_gap_snapshot_reads_all_rows_after_a_gap() {
    assert_heals_a_gap("[postgres]\non_gap = \"snapshot\"\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_read_is_told_so_before_anything_is_made() {
    let mut scenario = scenario("initial").await;
    let role = crate::support::unique("reader");
    scenario
        .sql(&format!(
            "CREATE ROLE {role} LOGIN REPLICATION; CREATE ROLE {role}_owner;
             GRANT {role}_owner TO {role}; ALTER TABLE rides OWNER TO {role}_owner;
             GRANT CREATE ON DATABASE {} TO {role};
             REVOKE SELECT ON rides FROM {role}_owner",
            scenario.database_name()
        ))
        .await;
    scenario.launch_as(&role);
    assert_eq!(scenario.ended(), Some(69), "log:\n{}", scenario.log());
    let log = scenario.log();
    assert!(log.contains("may not read public.rides"), "log:\n{log}");
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1";
    let left = scenario.client.query_one(slots, &[&scenario.slot()]).await.expect("ask");
    assert_eq!(left.get::<_, i64>(0), 0, "no slot was made");
}
