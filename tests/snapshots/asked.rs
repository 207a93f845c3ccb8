//! Parts of tables that somebody asks for while the stream goes on: on the command line, over HTTP,
//! and by a message in a transaction, which may come to nothing. Snapshots are paused and go on, and
//! the bridge is killed meanwhile.
//!
//! A request that came by a transaction that was committed is carried out, whatever happens. One by
//! the other ways is so once the bridge has noted it; whether it had when it was killed, its log
//! says.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rowcast::snapshot::{SnapshotState, SnapshotStatus};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::replay::{Delivery, Truth};
use crate::support::{PATIENCE, eventually};
use crate::tables::{TABLES, Table};
use crate::world::{Setup, World, with_kills};

/// How a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Http,
    CommandLine,
    /// In a transaction that is committed.
    Signal,
    /// In one that is not.
    SignalRolledBack,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Ask(&'static Table, Way),
    Pause,
    Resume,
    Kill,
}

/// A request.
#[derive(Debug)]
struct Asked {
    id: String,
    table: &'static Table,
    condition: Option<String>,
    way: Way,
}

/// What is to happen.
fn draw(random: &mut StdRng) -> Vec<Step> {
    let mut tables: Vec<&Table> = TABLES.iter().collect();
    tables.shuffle(random);
    let mut ways = [Way::Http, Way::CommandLine, Way::Signal, Way::Signal];
    ways.shuffle(random);
    let ask = tables.into_iter().zip(ways.into_iter().cycle());
    let mut steps: Vec<Step> = ask.map(|(table, way)| Step::Ask(table, way)).collect();
    // Several of one table at a time, and one that is not to be.
    for way in [Way::Http, Way::Signal, Way::SignalRolledBack] {
        let table = TABLES.choose(random).expect("there are some");
        steps.push(Step::Ask(table, way));
    }
    steps.extend([Step::Pause, Step::Pause, Step::Resume]);
    steps.shuffle(random);
    with_kills(&mut steps, Step::Kill, random);
    steps
}

/// From the start to the verdict.
pub(crate) async fn round(delivery: Delivery, seed: u64) -> Result<(), &'static str> {
    let setup = Setup { memory: "16MB", ..Setup::all(delivery, "initial") };
    let mut world = World::start(seed, setup).await?;
    let mut random = world.moments();
    let load = world.load(seed);
    world.run();
    // So that each row is read once before anyone asks.
    world.streams().await;
    let mut all = Vec::new();
    for step in draw(&mut random) {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        match step {
            Step::Ask(table, way) => {
                let condition = condition(table, &mut random);
                let name = format!("asked-{}", all.len());
                println!("{name}: {}, {way:?}, where {condition:?}", table.name);
                let id = ask(&mut world, table, condition.as_deref(), (way, name)).await;
                // Else it may be lost with the bridge.
                if matches!(way, Way::Http | Way::CommandLine) && random.random_bool(0.5) {
                    eventually(PATIENCE * 2, "a request to be noted", async || {
                        world.assert_runs();
                        is_noted(&world.log(), &id).then_some(())
                    })
                    .await;
                }
                all.push(Asked { id, table, condition, way });
            }
            Step::Pause => change(&mut world, "pause", &mut random).await,
            Step::Resume => change(&mut world, "resume", &mut random).await,
            Step::Kill => world.kill_beside_the_stream(&mut random).await,
        }
    }
    world.rows_flow().await;
    all_go_on(&mut world).await;
    world.all_read().await;
    println!("{} transactions were committed", load.stop().await);
    let truth = world.settle(false).await;
    judge(&mut world, &all, &truth).await;
    Ok(())
}

/// Any condition; none is for all rows.
fn condition(table: &Table, random: &mut StdRng) -> Option<String> {
    match random.random_range(0..6) {
        0 => None,
        1 => Some("length(body) < 100".to_owned()),
        2 => Some("version < 3 -- few are older".to_owned()),
        _ => Some(table.part_of(random.random_range(0..5))),
    }
}

/// Asks until it is taken; gives the request's ID.
async fn ask(
    world: &mut World,
    table: &Table,
    condition: Option<&str>,
    (way, name): (Way, String),
) -> String {
    let tables = [table.full_name()];
    match way {
        Way::Http => {
            let body = match condition {
                Some(condition) => json!({"tables": tables, "where": condition}),
                None => json!({"tables": tables}),
            };
            eventually(PATIENCE * 2, "a request to be taken", async || {
                let (code, answer) = world.ask("POST", "/snapshots", &body)?;
                assert!([202, 503].contains(&code), "{code}: {answer}");
                (code == 202).then(|| answer["id"].as_str().expect("an ID").to_owned())
            })
            .await
        }
        Way::CommandLine => {
            eventually(PATIENCE * 2, "a request to be taken", async || {
                world.assert_runs();
                let mut command = Command::new(env!("CARGO_BIN_EXE_rowcast"));
                command.args(["snapshot", "--address", &world.admin_address()]).args(&tables);
                command.args(condition.map(|condition| ["--where", condition]).iter().flatten());
                command.env("ROWCAST_ADMIN__TOKEN_FILE", world.token_file());
                command.current_dir(std::env::temp_dir());
                let output = block_in_place(|| command.output()).expect("run it");
                let told = String::from_utf8_lossy(&output.stdout);
                // "snapshot ID of TABLE"
                output
                    .status
                    .success()
                    .then(|| told.split_whitespace().nth(1).expect("it tells the ID").to_owned())
            })
            .await
        }
        Way::Signal | Way::SignalRolledBack => {
            let signal = json!({"type": "snapshot", "id": name, "tables": tables});
            let mut signal: serde_json::Map<String, Value> =
                signal.as_object().expect("an object").clone();
            if let Some(condition) = condition {
                signal.insert("where".to_owned(), condition.into());
            }
            let end = if way == Way::Signal { "COMMIT" } else { "ROLLBACK" };
            emit(world, &Value::Object(signal), end).await;
            name
        }
    }
}

/// A message in a transaction that ends so.
async fn emit(world: &World, signal: &Value, end: &str) {
    let client = world.client().await;
    client.batch_execute("BEGIN").await.expect("begin");
    let sql = "SELECT pg_logical_emit_message(true, 'rowcast.signal', $1)";
    client.execute(sql, &[&crate::support::bridge::signal(signal)]).await.expect("emit");
    client.batch_execute(end).await.expect("end");
}

/// Pauses a snapshot that is under way, or has one go on; or all of them, by a message.
async fn change(world: &mut World, action: &str, random: &mut StdRng) {
    if random.random_bool(0.4) {
        println!("{action} all");
        return emit(world, &json!({"type": action}), "COMMIT").await;
    }
    let open = |status: &SnapshotStatus| !status.state.is_end();
    let mut ids: Vec<String> = Vec::new();
    for status in world.snapshots().unwrap_or_default().into_iter().filter(open) {
        ids.push(status.id);
    }
    let Some(id) = ids.choose(random) else { return println!("nothing to {action}") };
    let answer = world.ask("POST", &format!("/snapshots/{id}/{action}"), &Value::Null);
    println!("{action} {id}: {:?}", answer.map(|(code, _)| code));
}

/// Has every snapshot go on that is paused, until none is.
async fn all_go_on(world: &mut World) {
    eventually(PATIENCE * 4, "no snapshot to be paused", async || {
        let snapshots = world.snapshots()?;
        let mut is_done = true;
        for status in snapshots.iter().filter(|status| !status.state.is_end()) {
            is_done = false;
            if status.state == SnapshotState::Paused {
                let path = format!("/snapshots/{}/resume", status.id);
                world.ask("POST", &path, &Value::Null)?;
            }
        }
        is_done.then_some(())
    })
    .await;
}

/// Whether the bridge had noted a request, and so was to carry it out.
fn is_noted(log: &str, id: &str) -> bool {
    let id = format!("id={id:?}");
    let mut begun = log.lines().filter(|line| {
        line.contains("snapshot started while") || line.contains("snapshot resumed")
    });
    begun.any(|line| line.contains(&id))
}

/// Whether each row that nobody wrote to was read once, and once more for each request that asks for
/// it; and no other more often than that.
async fn judge(world: &mut World, all: &[Asked], truth: &Truth) {
    let (log, delivery, client) = (world.log(), world.setup.delivery, world.client().await);
    let mut carried_out: Vec<(&Table, BTreeSet<String>)> = Vec::new();
    for Asked { id, table, condition, way } in all {
        let is_noted = is_noted(&log, id);
        match way {
            Way::Signal => assert!(is_noted, "{id} was committed; {}", world.told()),
            Way::SignalRolledBack => assert!(!is_noted, "{id} was rolled back; {}", world.told()),
            Way::Http | Way::CommandLine => {}
        }
        println!(
            "{id}, {}: {}",
            table.name,
            if is_noted { "noted" } else { "lost with the bridge" }
        );
        if is_noted {
            let condition = condition.as_deref().unwrap_or("true");
            carried_out.push((table, Truth::keys_where(&client, table, condition).await));
        }
    }
    let times = |name: &str, is_asked: &dyn Fn(&BTreeSet<String>) -> bool| {
        let of_it = carried_out.iter().filter(|(table, _)| table.name == name);
        1 + of_it.filter(|(_, keys)| is_asked(keys)).count()
    };
    let expected = |name: &str, key: &str| {
        let times = times(name, &|keys| keys.contains(key));
        delivery.times(times, times)
    };
    assert_eq!(world.replayed.misread(&truth.still(), expected), None, "{}", world.told());
    for table in &TABLES {
        let (most, reads) = (times(table.name, &|_| true), world.replayed.most_reads(table.name));
        assert!(delivery.times(0, most).contains(&reads), "{}: {reads} times", table.name);
    }
}
