//! What the parts of a line say of themselves, for a test that waited in vain.
//!
//! A missing record may be the bridge's fault, the server's, the broker's, the consumer's or the
//! machine's. Each is asked at the moment of giving up, for the log alone seldom tells. Whoever
//! does not answer within seconds is reported as just that.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::NoTls;

use super::bridge::{Bridge, admin_page};
use super::postgres::TestDatabase;

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The server's side: where its WAL is, what its slots hold, what its walsenders do.
const QUERIES: [(&str, &str); 4] = [
    (
        "wal",
        "SELECT to_json(w)::text FROM (SELECT pg_current_wal_insert_lsn() AS insert, \
        pg_current_wal_lsn() AS write, pg_current_wal_flush_lsn() AS flush, now() AS now) w",
    ),
    (
        "slot",
        "SELECT to_json(s)::text FROM pg_replication_slots s WHERE database = current_database()",
    ),
    ("pg_stat_replication", "SELECT to_json(r)::text FROM pg_stat_replication r"),
    (
        "walsender",
        "SELECT to_json(a)::text FROM (SELECT pid, datname, state, wait_event_type, wait_event, \
        query, backend_xmin FROM pg_stat_activity WHERE backend_type = 'walsender') a",
    ),
];

/// Knows whom to ask.
#[derive(Debug, Clone)]
pub struct Witness {
    admin_port: u16,
    database_url: String,
}

impl Witness {
    pub fn of(bridge: &Bridge, database: &TestDatabase) -> Self {
        Self { admin_port: bridge.admin_port(), database_url: database.unix_url.clone() }
    }

    /// What the bridge and the server say now. Blocks, for some seconds at most.
    pub fn statement(&self) -> String {
        let mut text = String::new();
        for path in ["/status", "/metrics"] {
            let page = admin_page(self.admin_port, path);
            let page = page.map_or("no answer".to_owned(), |(status, body)| {
                // The metrics' help is for other readers.
                let lines = body.lines().filter(|line| !line.starts_with('#'));
                format!("{status}\n{}", lines.collect::<Vec<_>>().join("\n"))
            });
            let _ = writeln!(text, "bridge, {path}: {page}");
        }
        // The caller may stand in a runtime already, which must not be blocked.
        let asked = std::thread::scope(|scope| scope.spawn(|| self.ask_the_server()).join());
        text + &asked.unwrap_or_else(|_| "server: asking it failed\n".to_owned())
    }

    fn ask_the_server(&self) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let answers = async {
            let (client, connection) = tokio_postgres::connect(&self.database_url, NoTls).await?;
            tokio::spawn(connection);
            let mut text = String::new();
            for (name, query) in QUERIES {
                for row in client.query(query, &[]).await? {
                    let _ = writeln!(text, "server, {name}: {}", row.get::<_, String>(0));
                }
            }
            Ok::<_, tokio_postgres::Error>(text)
        };
        let answers = async { tokio::time::timeout(ANSWER, answers).await };
        let answers = runtime.expect("a runtime").block_on(answers);
        match answers {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => format!("server: {error}\n"),
            Err(_) => format!("server: no answer within {ANSWER:?}\n"),
        }
    }
}

/// Whether time passed as it should while a test waited.
#[derive(Debug)]
pub struct Clocks {
    since: (Instant, SystemTime),
    last_look: Instant,
    longest_gap: Duration,
}

impl Clocks {
    pub fn start() -> Self {
        let now = Instant::now();
        Self { since: (now, SystemTime::now()), last_look: now, longest_gap: Duration::ZERO }
    }

    /// To be called at each look at what is waited for.
    pub fn look(&mut self) {
        let now = Instant::now();
        self.longest_gap = self.longest_gap.max(now - self.last_look);
        self.last_look = now;
    }

    /// A wall clock that ran otherwise than the monotonic one was set; a long gap between two looks
    /// means that this process, or the machine, stood still.
    pub fn statement(&self) -> String {
        let (monotonic, wall) = self.since;
        let monotonic = monotonic.elapsed();
        let wall = wall
            .elapsed()
            .map_or_else(|error| -error.duration().as_secs_f64(), |w| w.as_secs_f64());
        format!(
            "clocks: {:.3} s passed, {wall:.3} s by the wall clock; longest time between two looks {:.3} s\n",
            monotonic.as_secs_f64(),
            self.longest_gap.as_secs_f64()
        )
    }
}
