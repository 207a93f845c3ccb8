//! Why a demo ends before its end, and what to do about it.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::tools::generate::GenerateError;
use crate::tools::tail::TailError;

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There are no server binaries of Postgres.
    #[error(
        "find the PostgreSQL server: no folder of {searched} has `postgres` and `initdb`; install \
         it (Debian, Ubuntu: apt-get install postgresql), run scripts/fetch-postgres, or name \
         its folder in PG_BIN_DIRS"
    )]
    NoPostgres {
        /// Where they were looked for.
        searched: String,
    },
    /// The jars of Kafka are not there.
    #[error(
        "find Apache Kafka: no jars in {}; run scripts/fetch-kafka, or leave out --broker kafka",
        cache.display()
    )]
    NoKafka {
        /// Where they were looked for.
        cache: PathBuf,
    },
    /// There is no Java.
    #[error(
        "run {}: {source}; Apache Kafka needs Java 17 or later (Debian, Ubuntu: apt-get install \
         default-jre-headless)",
        program.display()
    )]
    NoJava {
        /// What was run.
        program: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// As root, servers run as another user, and there is none to take.
    #[error(
        "choose a user for the servers, which refuse to run as root: /etc/passwd has neither \
         `postgres` nor `nobody`; run the demo as another user than root"
    )]
    NoUser,
    /// A temporary folder or a file in it cannot be made.
    #[error("{doing} {}: {source}", path.display())]
    Folder {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program cannot be started.
    #[error("start {}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// No port of 127.0.0.1 can be had.
    #[error("take a free port of 127.0.0.1: {0}")]
    Port(#[source] io::Error),
    /// A program ended that should have gone on, or ended badly.
    #[error("{program} ended ({status}); its last words:\n{log}")]
    Ended {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A server does not become ready.
    #[error("wait for {program}: not ready after {waited:?}; its last words:\n{log}")]
    NotReady {
        /// The server.
        program: &'static str,
        /// How long it was given.
        waited: Duration,
        /// The end of its log.
        log: String,
    },
    /// The demo's own connection to its Postgres fails.
    #[error("{doing}: {source}")]
    Postgres {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: Box<tokio_postgres::Error>,
    },
    /// The embedded broker fails.
    #[error("{doing}: {source}")]
    Broker {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: rdkafka::error::KafkaError,
    },
    /// The bridge failed.
    #[error("run the bridge: {source}")]
    Bridge {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The bridge ended without a reason, before it was asked to.
    #[error("run the bridge: it ended before it was asked to; this is a bug in rowcast")]
    BridgeEnded,
    /// The bridge does not begin to stream.
    #[error("wait for the bridge to stream: not ready after {waited:?}")]
    BridgeNotReady {
        /// How long it was given.
        waited: Duration,
    },
    /// Rows could not be written.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Events could not be read.
    #[error(transparent)]
    Tail(#[from] TailError),
    /// What the demo has to say cannot be written.
    #[error("write to the output: {0}")]
    Output(#[source] io::Error),
    /// A task of the demo panicked.
    #[error("run {task}: {source}; this is a bug in rowcast")]
    Task {
        /// Which.
        task: &'static str,
        /// What became of it.
        source: tokio::task::JoinError,
    },
    /// What came out is not what went in.
    #[error(
        "compare rows and events: {differences}; rows that you changed by hand are counted as \
         events too many, anything else is a bug in rowcast"
    )]
    Mismatch {
        /// Kind by kind.
        differences: String,
    },
}
