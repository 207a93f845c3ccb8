//! Realistic rows for trying things out: taxi rides, or the orders of a shop.
//!
//! A simulator (`taxi`, `orders`) says what happens next, pure and repeatable by seed; `write`
//! brings it to Postgres; this file keeps the pace. Each step of a simulator is one transaction
//! when a pace is asked for, as an application would write it; at full speed many steps share one.
//!
//! Not here: connecting, and what reads the rows.

pub mod change;
mod fare;
pub mod orders;
pub mod taxi;
mod write;

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tokio_postgres::Client;

use self::change::{Ids, Kind, RowChange, Step, Target};
use self::orders::Orders;
use self::taxi::{Taxi, Zone};
use self::write::Writer;

/// The schema of taxi rides; it may be run again.
pub const TAXI_SQL: &str = include_str!("../../../sql/taxi.sql");
/// The schema of the shop; it may be run again.
pub const ORDERS_SQL: &str = include_str!("../../../sql/orders.sql");

/// Where seeded runs begin: Monday 2026-01-05, 06:00 in New York, so that they repeat.
const SEEDED_START_S: i64 = 1_767_610_800;
/// Rows of a transaction at full speed: a commit's cost is spread, a lock is still short.
const FULL_SPEED_ROWS: usize = 500;
/// How far a paced run may fall behind before it stops trying to catch up.
const MAX_DEBT: Duration = Duration::from_secs(1);

static TAXI_TABLES: [&Target; 1] = [&taxi::RIDES];
static ORDERS_TABLES: [&Target; 3] = [&orders::CUSTOMERS, &orders::ORDERS, &orders::ORDER_ITEMS];

/// What is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Template {
    /// Rides of a New York taxi company.
    #[default]
    Taxi,
    /// Customers, orders and their items.
    Orders,
}

impl Template {
    /// Its schema; it may be run again.
    #[must_use]
    pub fn schema_sql(self) -> &'static str {
        match self {
            Self::Taxi => TAXI_SQL,
            Self::Orders => ORDERS_SQL,
        }
    }

    /// The tables it writes to, a table after those it refers to.
    #[must_use]
    pub fn tables(self) -> &'static [&'static Target] {
        match self {
            Self::Taxi => &TAXI_TABLES,
            Self::Orders => &ORDERS_TABLES,
        }
    }
}

/// What to generate, and how fast.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is generated.
    pub template: Template,
    /// Rows (inserted, updated or deleted) a second; 0 is as fast as possible.
    pub rate: f64,
    /// Rides (or orders) to begin; each is brought to its end. `None`: until stopped.
    pub count: Option<u64>,
    /// The same seed generates the same rows, except identity values. `None`: other rows each time.
    pub seed: Option<u64>,
    /// Make the tables where they are missing.
    pub create_schema: bool,
    /// Rows of a transaction, about. `None`: as the application would (one step), and 500 at full
    /// speed.
    pub batch_rows: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            template: Template::Taxi,
            rate: 10.0,
            count: None,
            seed: None,
            create_schema: true,
            batch_rows: None,
        }
    }
}

/// Rows written so far; readable while a run goes on.
#[derive(Debug, Default)]
pub struct Progress {
    inserted: AtomicU64,
    updated: AtomicU64,
    deleted: AtomicU64,
}

impl Progress {
    /// Rows inserted.
    #[must_use]
    pub fn inserted(&self) -> u64 {
        self.inserted.load(Ordering::Relaxed)
    }

    /// Rows updated.
    #[must_use]
    pub fn updated(&self) -> u64 {
        self.updated.load(Ordering::Relaxed)
    }

    /// Rows deleted.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        self.deleted.load(Ordering::Relaxed)
    }

    /// All rows written.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.inserted() + self.updated() + self.deleted()
    }

    fn count(&self, kind: Kind) {
        let counter = match kind {
            Kind::Insert => &self.inserted,
            Kind::Update => &self.updated,
            Kind::Delete => &self.deleted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a run wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Why rows could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The rate is no number of rows.
    #[error("rate {rate} is not a number of rows a second; use 0 for full speed, or more")]
    Rate {
        /// As given.
        rate: f64,
    },
    /// The schema could not be made.
    #[error("create the tables of the {template:?} template: {source}")]
    Schema {
        /// Which.
        template: Template,
        /// Why.
        source: Box<tokio_postgres::Error>,
    },
    /// The zones could not be read.
    #[error("read table zones: {source}")]
    Zones {
        /// Why.
        source: Box<tokio_postgres::Error>,
    },
    /// There are no zones to drive between.
    #[error("table zones is empty; load sql/taxi.sql, which fills it")]
    NoZones,
    /// A statement could not be prepared.
    #[error("prepare to write table {table}: {source}")]
    Prepare {
        /// Which table.
        table: &'static str,
        /// Why.
        source: Box<tokio_postgres::Error>,
    },
    /// Keys could not be taken from the table's sequence.
    #[error("take keys from the identity sequence of table {table}: {source}")]
    Ids {
        /// Which table.
        table: &'static str,
        /// Why.
        source: Box<tokio_postgres::Error>,
    },
    /// Rows could not be written.
    #[error("{kind:?} {rows} row(s), table {table}: {source}")]
    Write {
        /// What was being done.
        kind: Kind,
        /// Where.
        table: &'static str,
        /// To how many rows.
        rows: usize,
        /// Why not.
        source: Box<tokio_postgres::Error>,
    },
    /// Rows that the generator wrote are gone, or were held back by a rule or trigger.
    #[error(
        "{kind:?} {rows} row(s), table {table}: only {written} took effect; does something else write this table?"
    )]
    RowsMissing {
        /// What was being done.
        kind: Kind,
        /// Where.
        table: &'static str,
        /// To how many rows.
        rows: usize,
        /// How many it took effect on.
        written: u64,
    },
    /// A transaction could not be opened or committed.
    #[error("{command} of a transaction: {source}")]
    Transaction {
        /// Which of the two.
        command: &'static str,
        /// Why.
        source: Box<tokio_postgres::Error>,
    },
}

enum Simulator {
    Taxi(Box<Taxi>),
    Orders(Box<Orders>),
}

impl Simulator {
    fn step(&mut self, ids: &mut Ids) -> Option<Step> {
        match self {
            Self::Taxi(taxi) => taxi.step(ids),
            Self::Orders(orders) => orders.step(ids),
        }
    }
}

/// Makes a template's tables where they are missing.
///
/// # Errors
///
/// When Postgres refuses, for lack of rights for instance.
pub async fn create_schema(client: &Client, template: Template) -> Result<(), GenerateError> {
    client
        .batch_execute(template.schema_sql())
        .await
        .map_err(|source| GenerateError::Schema { template, source: Box::new(source) })
}

/// Writes rows until the count is reached and all is brought to its end, or `stop` completes; a
/// transaction that was begun is finished.
///
/// # Errors
///
/// When the tables are missing or Postgres refuses a row; what was committed stays.
pub async fn run(
    client: &Client,
    options: Options,
    progress: &Progress,
    stop: impl Future<Output = ()>,
) -> Result<Summary, GenerateError> {
    if !options.rate.is_finite() || options.rate < 0.0 {
        return Err(GenerateError::Rate { rate: options.rate });
    }
    if options.create_schema {
        create_schema(client, options.template).await?;
    }
    let mut simulator = simulator(client, &options).await?;
    let tables = options.template.tables();
    let writer = Writer::prepare(client, tables).await?;
    let at_full_speed = options.rate == 0.0;
    let batch_rows = options.batch_rows.unwrap_or(if at_full_speed { FULL_SPEED_ROWS } else { 1 });

    let began = Instant::now();
    let mut stop = pin!(stop);
    let mut ids = Ids::default();
    let mut pace = Pace::new(options.rate, began);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            () = wait_until(pace.due) => {}
        }
        let mut changes: Vec<RowChange> = Vec::new();
        while changes.len() < batch_rows.max(1) {
            if !ids.suffice(tables) {
                writer.refill(&mut ids).await?;
            }
            let Some(step) = simulator.step(&mut ids) else { break };
            changes.extend(step);
        }
        if changes.is_empty() {
            break;
        }
        writer.write(&changes, progress).await?;
        pace.spend(changes.len(), Instant::now());
    }
    Ok(Summary {
        inserted: progress.inserted(),
        updated: progress.updated(),
        deleted: progress.deleted(),
        elapsed: began.elapsed(),
    })
}

async fn simulator(client: &Client, options: &Options) -> Result<Simulator, GenerateError> {
    let start_s = match options.seed {
        Some(_) => SEEDED_START_S,
        None => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| i64::try_from(since.as_secs()).ok())
            .unwrap_or(SEEDED_START_S),
    };
    let seed = options.seed.unwrap_or_else(rand::random);
    Ok(match options.template {
        Template::Taxi => {
            let zones = zones(client).await?;
            Simulator::Taxi(Box::new(Taxi::new(zones, seed, start_s, options.count)))
        }
        Template::Orders => Simulator::Orders(Box::new(Orders::new(seed, start_s, options.count))),
    })
}

/// The zones, in one order whatever the server's.
async fn zones(client: &Client) -> Result<Vec<Zone>, GenerateError> {
    let zones: Vec<Zone> = client
        .query("SELECT zone_id, borough, name FROM zones ORDER BY zone_id", &[])
        .await
        .map_err(|source| GenerateError::Zones { source: Box::new(source) })?
        .iter()
        .map(|row| Zone { zone_id: row.get(0), borough: row.get(1), name: row.get(2) })
        .collect();
    if zones.is_empty() { Err(GenerateError::NoZones) } else { Ok(zones) }
}

/// When the next row may be written.
///
/// The timer ticks in milliseconds, so rows above 1,000 a second go out in small bursts: what counts
/// is the time at which a row was due, not when the one before was written.
struct Pace {
    row: Duration,
    due: Instant,
}

impl Pace {
    fn new(rate: f64, now: Instant) -> Self {
        let row = if rate > 0.0 {
            Duration::from_secs_f64((1.0 / rate).min(86_400.0))
        } else {
            Duration::ZERO
        };
        Self { row, due: now }
    }

    fn spend(&mut self, rows: usize, now: Instant) {
        let cost = self.row * u32::try_from(rows).unwrap_or(u32::MAX);
        // A debt that grows without bound would become an endless burst when the server recovers.
        let oldest = now.checked_sub(MAX_DEBT).unwrap_or(self.due);
        self.due = (self.due + cost).max(oldest);
    }
}

/// Does not yield when the time has come, so that full speed is not slowed by the scheduler.
async fn wait_until(due: Instant) {
    if due > Instant::now() {
        tokio::time::sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time it takes to write `rows`, one by one, on a clock that stands still while writing.
    fn time_for(rows: usize, pace: &mut Pace, mut now: Instant) -> Duration {
        let began = now;
        for _ in 0..rows {
            now = now.max(pace.due);
            pace.spend(1, now);
        }
        now - began
    }

    #[test]
    fn two_thousand_rows_at_a_thousand_a_second_take_two_seconds() {
        let began = Instant::now();
        let mut pace = Pace::new(1000.0, began);
        assert_eq!(time_for(2001, &mut pace, began), Duration::from_secs(2));
    }

    #[test]
    fn a_stall_is_caught_up_by_a_second_of_rows_at_most() {
        let began = Instant::now();
        let mut pace = Pace::new(100.0, began);
        let resumed = began + Duration::from_secs(60);
        let took = time_for(201, &mut pace, resumed);
        assert!(took >= Duration::from_millis(980), "{took:?}");
    }

    #[test]
    fn a_rate_of_zero_never_waits() {
        let began = Instant::now();
        let mut pace = Pace::new(0.0, began);
        assert_eq!(time_for(10_000, &mut pace, began), Duration::ZERO);
    }
}
