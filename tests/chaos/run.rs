//! A run from its seed to its verdict.

use std::collections::BTreeMap;

use crate::check::{Mode, check, check_state};
use crate::evidence;
use crate::load::{self, Load, TABLES};
use crate::schedule::schedule;
use crate::support::consume::{OwnedRecord, read_whole};
use crate::support::{PATIENCE, eventually, report_skipped};
use crate::truth;
use crate::watch::Watcher;
use crate::world::World;

/// Problems that are printed of those that were found.
const PRINTED: usize = 20;

/// A variable of the environment, as a number.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Runs all of it.
pub(crate) async fn run(mode: Mode) {
    if std::env::var("CHAOS_MODE").is_ok_and(|only| only != mode.word()) {
        return;
    }
    let seed = number("CHAOS_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let faults = usize::try_from(number("CHAOS_FAULTS").unwrap_or(20)).expect("a count");
    let name = format!("{}-{seed}", mode.word());
    println!("CHAOS_MODE={} CHAOS_SEED={seed} CHAOS_FAULTS={faults}", mode.word());
    let mut world = match World::start(mode, &name).await {
        Ok(world) => world,
        Err(reason) => return report_skipped(module_path!(), reason),
    };
    let watcher = Watcher::start(world.kafka.brokers(), world.topics());
    let load = Load::start(&world.database.unix_url, seed);
    world.recover(&watcher).await;
    for (number, step) in schedule(seed, faults).iter().enumerate() {
        world.suffer(number + 1, step).await;
        if step.then_recover {
            world.recover(&watcher).await;
        }
    }
    world.recover(&watcher).await;
    let committed = load.stop().await;
    let client = world.client().await;
    finish(&mut world, &client, &watcher).await;

    let records: Vec<OwnedRecord> = world
        .topics()
        .iter()
        .flat_map(|topic| read_whole(&world.kafka.brokers(), topic, PATIENCE))
        .collect();
    eventually(PATIENCE, "the watcher to have seen all", async || {
        (watcher.count() >= records.len()).then_some(())
    })
    .await;
    let watched = watcher.stop();
    let expected = truth::tell(&client).await;
    let mut findings = check(mode, &expected, &records, &[]);
    for table in &TABLES {
        let rows = load::rows(&client, table).await;
        findings.problems.extend(check_state(table.name, &expected, &records, &rows));
    }
    world.tell(&format!(
        "{committed} transactions acknowledged to the load, {} with changes; {} records demanded, \
        {} seen, {} of them repeats",
        findings.transactions,
        expected.len(),
        records.len(),
        findings.repeats
    ));
    let is_same = by_partition(&watched) == by_partition(&records);
    if findings.problems.is_empty() && is_same {
        return;
    }
    let folder = world.keep_evidence();
    let lines = |records: &[OwnedRecord]| {
        records.iter().map(|record| format!("{record:?}\n")).collect::<String>()
    };
    evidence::keep(&folder, "records", &lines(&records));
    evidence::keep(&folder, "watched", &lines(&watched));
    let demanded: String = expected.iter().map(|expected| format!("{expected:?}\n")).collect();
    evidence::keep(&folder, "expected", &demanded);
    let problems: Vec<String> = findings.problems.iter().map(ToString::to_string).collect();
    evidence::keep(&folder, "problems", &problems.join("\n"));
    let first = problems.iter().take(PRINTED).map(String::as_str).collect::<Vec<_>>().join("\n");
    panic!(
        "seed {seed}: {} problems, and who watched saw {} who came later:\n{first}",
        problems.len(),
        if is_same { "the same as" } else { "something else than" }
    );
}

/// Commits a last row, waits until it is seen, and ends the bridge.
async fn finish(world: &mut World, client: &tokio_postgres::Client, watcher: &Watcher) {
    let writing = async {
        // Something must come after what is waited for.
        loop {
            let last = "INSERT INTO rides VALUES (-1, 1, 'last') \
                ON CONFLICT (id) DO UPDATE SET version = rides.version + 1";
            client.batch_execute(last).await.expect("write");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = world.recover(watcher) => {}
        () = writing => {}
    }
    world.end();
}

/// A partition's records, with what a reader sees of them.
type Sights<'a> = Vec<(i64, Option<&'a [u8]>, Option<&'a [u8]>)>;

fn by_partition(records: &[OwnedRecord]) -> BTreeMap<(&str, i32), Sights<'_>> {
    let mut partitions: BTreeMap<_, Sights<'_>> = BTreeMap::new();
    for record in records {
        let sight = (record.offset, record.key.as_deref(), record.value.as_deref());
        partitions.entry((record.topic.as_str(), record.partition)).or_default().push(sight);
    }
    partitions
}
