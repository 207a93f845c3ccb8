//! Tables that come while the bridge runs: some are made under the eyes of a pattern, some come with
//! a configuration that is read again, some with one that the next start reads.
//!
//! All are written to before they come, while they are read, and after; those that are made are so
//! with their rows in one transaction, as a migration does it. Which table comes how, when, and where
//! the bridge is killed meanwhile, is drawn from the seed.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use crate::replay::Delivery;
use crate::tables::{TABLES, Table};
use crate::world::{Setup, World, with_kills};

/// Tables like others; some of them are there from the start.
const PLAIN: [&str; 5] = ["rides", "drivers", "archive", "shifts", "guests"];
/// How many of these.
const AT_START: usize = 3;

/// How a table comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A pattern waits for it, and it is made.
    Made,
    /// It is configured, and the configuration read again.
    Reloaded,
    /// It is configured, and read after a stop.
    Stopped,
    /// It is configured, and read after a kill.
    Killed,
}

impl Way {
    const ALL: [Self; 4] = [Self::Made, Self::Reloaded, Self::Stopped, Self::Killed];
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Add(&'static Table, Way),
    Kill,
}

/// What is to happen.
struct Course {
    /// `postgres.tables` at the start.
    patterns: Vec<String>,
    /// Tables that there are at the start, configured or not.
    made: Vec<&'static Table>,
    steps: Vec<Step>,
}

impl Course {
    fn draw(random: &mut StdRng) -> Self {
        let mut plain = PLAIN;
        plain.shuffle(random);
        let at_start = &plain[..AT_START];
        let mut ways = Way::ALL;
        ways.shuffle(random);
        let (first, mut coming): (Vec<&Table>, Vec<&Table>) =
            TABLES.iter().partition(|table| at_start.contains(&table.name));
        coming.shuffle(random);
        let coming: Vec<(&Table, Way)> =
            coming.into_iter().zip(ways.iter().copied().cycle()).collect();
        let awaited = coming.iter().filter(|(_, way)| *way == Way::Made);
        let awaited = awaited.map(|(table, _)| pattern(table, random.random_bool(0.7)));
        let patterns = first.iter().map(|table| table.full_name()).chain(awaited).collect();
        let is_there = |table: &&Table| {
            coming.iter().all(|(other, way)| other.name != table.name || *way != Way::Made)
        };
        let made = TABLES.iter().filter(is_there).collect();
        let mut steps: Vec<Step> =
            coming.iter().map(|&(table, way)| Step::Add(table, way)).collect();
        with_kills(&mut steps, Step::Kill, random);
        Self { patterns, made, steps }
    }
}

/// What `postgres.tables` has of a table. One without an identity must be named.
fn pattern(table: &Table, is_glob: bool) -> String {
    let Table { name, .. } = table;
    if is_glob && *name != "log" { format!("public.{}*", &name[..3]) } else { table.full_name() }
}

/// From the start to the verdict.
pub(crate) async fn round(delivery: Delivery, seed: u64) -> Result<(), &'static str> {
    let mut random = <StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let Course { patterns, made, steps } = Course::draw(&mut random);
    println!("at the start: {patterns:?}");
    let setup = Setup { patterns, tables: made, memory: "16MB", ..Setup::all(delivery, "initial") };
    let mut world = World::start(seed, setup).await?;
    let load = world.load(seed);
    world.run();
    // Else the first come while the others are read.
    if random.random_bool(0.7) {
        world.streams().await;
    }
    for step in steps {
        let pause = random.random_range(0..600);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match step {
            Step::Kill => world.kill_beside_the_stream(&mut random).await,
            Step::Add(table, way) => {
                println!("{}: {way:?}", table.name);
                add(&mut world, table, way).await;
            }
        }
    }
    world.all_read().await;
    world.rows_flow().await;
    println!("{} transactions were committed", load.stop().await);
    let client = world.client().await;
    // It came without rows; so what shows that it came?
    let write = "INSERT INTO vacant VALUES (1, 0, 'the first')";
    client.batch_execute(write).await.expect("insert");
    let truth = world.settle(false).await;
    let misread = world.replayed.misread(&truth.still(), |_, _| delivery.times(1, 1));
    assert_eq!(misread, None, "{}", world.told());
    assert!(truth.tells_of_seeded(), "the seed has rows that nobody wrote to");
    Ok(())
}

async fn add(world: &mut World, table: &'static Table, way: Way) {
    if way == Way::Made {
        let script = format!("BEGIN; {} COMMIT", table.script());
        world.client().await.batch_execute(&script).await.expect("make a table");
        return world.written.add(table);
    }
    let pattern = pattern(table, false);
    world.configure(pattern);
    match way {
        Way::Reloaded => world.hang_up().await,
        Way::Stopped => world.end_and_start_again().await,
        _ => {
            world.kill();
            world.start_again();
        }
    }
}
