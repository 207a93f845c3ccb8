//! The whole line on one machine, with nothing to set up: `rowcast demo`.
//!
//! ```text
//! generator -> Postgres (private) -> bridge -> broker (embedded, Kafka or yours) -> tail, summary
//! ```
//!
//! This file sets the stage, plays, and compares rows with events; `process` sees to it that
//! nothing is left behind. The caller passes in the bridge, because what wires it is above this
//! module.
//!
//! Order of the start: the replication slot must exist before the first row, or that row would not
//! be published; the reader must be at the topic's end before it too, so that what an existing
//! topic holds is not counted.

mod banner;
mod broker;
mod error;
mod line;
mod postgres;
mod process;
mod programs;
mod screen;
mod summary;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io::Write;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

pub use self::error::DemoError;
use self::line::Line;
use self::screen::Screen;
use self::summary::Received;
pub use self::summary::{Counts, Latency, Summary};
use crate::tools::generate::{self, GenerateError, Progress, Template};

/// How often the servers are looked after.
const LOOK_AFTER: Duration = Duration::from_millis(200);
/// Longest silence while events are due.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest wait for what is under way after a stop.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long an event too many is waited for.
const SURPLUS: Duration = Duration::from_millis(100);

/// What to show.
#[derive(Debug, Clone)]
pub struct Options {
    /// End after so many rides. `None`: when stopped.
    pub rides: Option<u64>,
    /// Rows a second; 0 is as fast as possible.
    pub rate: f64,
    /// Brokers that run already, `host:port`, comma separated; `broker` is then not started.
    pub brokers: Option<String>,
    /// The broker to start.
    pub broker: Broker,
    /// The same seed gives the same rides. `None`: others each time.
    pub seed: Option<u64>,
    /// Events as JSON objects, one a line; all else that is said goes to stderr.
    pub json: bool,
    /// With ANSI colours.
    pub color: bool,
    /// Lines are cut to so many columns. `None`: whole.
    pub width: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rides: None,
            rate: 10.0,
            brokers: None,
            broker: Broker::Embedded,
            seed: None,
            json: false,
            color: false,
            width: None,
        }
    }
}

/// A broker to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Broker {
    /// In this process, with nothing to install.
    #[default]
    Embedded,
    /// A node of Apache Kafka, from jars on this machine.
    Kafka,
}

/// What the bridge is between, and how the demo and it speak with each other.
#[derive(Debug)]
pub struct Endpoints {
    /// The database, by its Unix socket.
    pub database_url: String,
    /// Bootstrap brokers.
    pub brokers: String,
    /// Whether the bridge is to make topic `rides`; without, it is there with two partitions.
    pub create_topics: bool,
    /// To be told when rows written from then on are published.
    pub ready: oneshot::Sender<()>,
    /// Turns true when the bridge is to publish what it has and end.
    pub stop: watch::Receiver<bool>,
}

/// A bridge at work; it ends when it is asked to stop, or fails.
pub type BridgeTask =
    Pin<Box<dyn Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send>>;

/// Plays the demo on `out` until its rides are done or `stop` completes. `None`: stopped before
/// anything was ready.
///
/// # Errors
///
/// When a server cannot be had or does not live, the bridge fails, `out` cannot be written, or,
/// with `rides` given, the events that came are not those that were due.
pub async fn run(
    options: Options,
    out: &mut dyn Write,
    stop: impl Future<Output = ()>,
    start_bridge: impl FnOnce(Endpoints) -> BridgeTask,
) -> Result<Option<Summary>, DemoError> {
    let mut stop = pin!(stop);
    let mut screen = Screen::new(out, &options);
    let began = Instant::now();
    let mut line = tokio::select! {
        biased;
        () = &mut stop => return Ok(None),
        line = Box::pin(Line::set_up(&options, &mut screen, start_bridge)) => line?,
    };
    let ready = began.elapsed();
    screen.note(&line.banner(options.rides.is_none(), ready))?;

    let mut play = Play::start(&mut line, &options);
    let outcome = play.watch(&mut line, &mut screen, stop.as_mut()).await;
    play.end();
    let end = match outcome {
        Ok(end) => end,
        // The cause of a failure is a dead server, whoever notices first.
        Err(error) => return Err(line.dead_server().unwrap_or(error)),
    };
    line.bridge.stop().await?;
    play.take_surplus(&mut line, &mut screen).await?;

    let summary = play.summary(began, ready);
    screen.note(&format!("\n{summary}"))?;
    let differences = summary.events.differences(&summary.due);
    if end == End::Done && !differences.is_empty() {
        return Err(DemoError::Mismatch { differences });
    }
    Ok(Some(summary))
}

/// How a play came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All rides are done.
    Done,
    /// It was stopped, or nobody looks any more.
    Stopped,
}

/// Rows on their way in, events on their way out.
struct Play {
    progress: Arc<Progress>,
    stop_rows: watch::Sender<bool>,
    rows: JoinHandle<Result<generate::Summary, GenerateError>>,
    received: Received,
    began: Instant,
    first_event: Option<Instant>,
    /// When the last event came, or the last row went in if that was later.
    last_sign: Instant,
}

impl Play {
    fn start(line: &mut Line, options: &Options) -> Self {
        let progress = Arc::new(Progress::default());
        let (stop_rows, mut stopped) = watch::channel(false);
        let rows = generate::Options {
            template: Template::Taxi,
            rate: options.rate,
            count: options.rides,
            seed: options.seed,
            create_schema: false,
            batch_rows: None,
        };
        let (client, counted) = (Arc::clone(&line.client), Arc::clone(&progress));
        let rows = tokio::spawn(async move {
            let stop = async move {
                // A play that is gone has no use for rows either.
                let _told_or_gone = stopped.wait_for(|stop| *stop).await;
            };
            generate::run(&client, rows, &counted, stop).await
        });
        let began = Instant::now();
        let received = Received::new();
        Self { progress, stop_rows, rows, received, began, first_event: None, last_sign: began }
    }

    async fn watch(
        &mut self,
        line: &mut Line,
        screen: &mut Screen<'_>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<End, DemoError> {
        let mut look = interval(LOOK_AFTER);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopped: Option<Instant> = None;
        let mut all_written = false;
        loop {
            let end = if stopped.is_some() { End::Stopped } else { End::Done };
            if all_written && self.received.counts.cover(&Counts::due(&self.progress)) {
                return Ok(end);
            }
            tokio::select! {
                biased;
                () = &mut stop, if stopped.is_none() => {
                    stopped = Some(Instant::now());
                    self.stop_rows.send_replace(true);
                }
                error = line.bridge.ended() => return Err(error),
                written = &mut self.rows, if !all_written => {
                    written.map_err(|source| DemoError::Task { task: "the generator", source })??;
                    all_written = true;
                    self.last_sign = Instant::now();
                }
                event = line.follower.next() => {
                    self.receive(&event?, screen)?;
                    if screen.is_gone() {
                        return Ok(End::Stopped);
                    }
                }
                _ = look.tick() => {
                    if let Some(error) = line.dead_server() {
                        return Err(error);
                    }
                    let patient = stopped.is_none_or(|at| at.elapsed() < FAREWELL);
                    if !patient || (all_written && self.last_sign.elapsed() > SILENCE) {
                        return Ok(end);
                    }
                }
            }
        }
    }

    fn receive(
        &mut self,
        event: &crate::tools::tail::Event,
        screen: &mut Screen<'_>,
    ) -> Result<(), DemoError> {
        self.received.add(event, SystemTime::now());
        self.last_sign = Instant::now();
        self.first_event.get_or_insert(self.last_sign);
        screen.event(event)
    }

    /// Reads what came beyond all that was due, which the bridge has published by now.
    async fn take_surplus(
        &mut self,
        line: &mut Line,
        screen: &mut Screen<'_>,
    ) -> Result<(), DemoError> {
        while let Ok(event) = timeout(SURPLUS, line.follower.next()).await {
            self.receive(&event?, screen)?;
        }
        Ok(())
    }

    /// Writes no more rows.
    fn end(&self) {
        self.stop_rows.send_replace(true);
        self.rows.abort();
    }

    fn summary(&self, began: Instant, ready: Duration) -> Summary {
        Summary {
            due: Counts::due(&self.progress),
            events: self.received.counts,
            latency: self.received.latency(),
            ready,
            first_event: self.first_event.map(|at| at - began),
            elapsed: self.last_sign - self.began,
        }
    }
}
