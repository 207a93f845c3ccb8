//! A Postgres of the demo's own: made, started and schema loaded in about a second.
//!
//! Nothing in it outlives the demo, so what makes it durable is switched off. What makes it fast to
//! publish is not: with `synchronous_commit=off` the WAL would reach the bridge late.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use super::error::DemoError;
use super::process::{Guarded, LOOK, free_port};
use super::programs::Places;
use crate::tools::generate::{self, Template};

/// The database of the rides.
pub(super) const DATABASE: &str = "taxi";
/// Makes an update's event carry the row before, which `tail` compares with the row after.
pub(super) const REPLICA_IDENTITY: &str = "ALTER TABLE rides REPLICA IDENTITY FULL";

/// Longest wait for the server; it needs a tenth of a second on an idle machine.
const START: Duration = Duration::from_secs(30);
/// How many ports are tried.
const PORTS: usize = 3;

const SETTINGS: &[&str] = &[
    "wal_level=logical",
    "listen_addresses=127.0.0.1",
    "fsync=off",
    "full_page_writes=off",
    // A long demo must not fill the disk with WAL.
    "max_wal_size=128MB",
    "shared_buffers=64MB",
    // Files in the data folder, which goes, instead of in /dev/shm, where a SIGKILL leaves them.
    "dynamic_shared_memory_type=mmap",
    "timezone=UTC",
    "log_timezone=UTC",
];

/// A running server.
#[derive(Debug)]
pub(super) struct Postgres {
    process: Guarded,
    port: u16,
    version: String,
}

impl Postgres {
    /// Makes a database cluster and starts its server.
    pub(super) async fn start(places: &Places) -> Result<Self, DemoError> {
        let bin = places.postgres()?;
        let mut process = Guarded::new("postgres", "QUIT")?;
        let data = process.dir().join("data").display().to_string();
        let init = ["--no-sync", "--no-instructions", "-A", "trust", "-U", "postgres"];
        let locale = ["--locale=C", "-E", "UTF8", "-D", &data];
        process.complete(&bin.join("initdb"), &[&init[..], &locale[..]].concat()).await?;
        let version = fs::read_to_string(Path::new(&data).join("PG_VERSION")).unwrap_or_default();
        let mut server = Self { process, port: 0, version: version.trim().to_owned() };
        for _ in 1..PORTS {
            match server.launch(&bin).await {
                Err(DemoError::Ended { log, .. }) if log.contains("Address already in use") => {}
                other => return other.map(|()| server),
            }
        }
        server.launch(&bin).await.map(|()| server)
    }

    async fn launch(&mut self, bin: &Path) -> Result<(), DemoError> {
        self.port = free_port()?;
        let port = self.port.to_string();
        let dir = self.process.dir().display().to_string();
        let (data, sockets) = (format!("{dir}/data"), format!("unix_socket_directories={dir}"));
        let mut args = vec!["-D", &data, "-p", &port, "-c", &sockets];
        for setting in SETTINGS {
            args.extend(["-c", setting]);
        }
        self.process.spawn(&bin.join("postgres"), &args)?;
        let began = Instant::now();
        while !self.is_ready() {
            if let Some(error) = self.process.ended() {
                return Err(error);
            }
            if began.elapsed() > START {
                let log = self.process.last_words();
                return Err(DemoError::NotReady { program: "postgres", waited: START, log });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// As `pg_ctl -w` asks: the pid file's first line says whose it is, its eighth line the state.
    fn is_ready(&self) -> bool {
        let pid_file = self.process.dir().join("data/postmaster.pid");
        let text = fs::read_to_string(pid_file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let own = self.process.pid().map(|pid| pid.to_string());
        lines.first().copied() == own.as_deref() && lines.get(7) == Some(&"ready")
    }

    /// Makes the database and its tables; returns a connection to it.
    pub(super) async fn load(&self) -> Result<Client, DemoError> {
        let failed = |doing| move |source| DemoError::Postgres { doing, source: Box::new(source) };
        let admin = connect(&self.url("postgres")).await?;
        // Copying files is faster than logging their pages, and older servers do nothing else.
        let strategy = if self.major() >= 15 { " STRATEGY file_copy" } else { "" };
        admin
            .batch_execute(&format!("CREATE DATABASE {DATABASE}{strategy}"))
            .await
            .map_err(failed("make the demo's database"))?;
        let client = connect(&self.url(DATABASE)).await?;
        generate::create_schema(&client, Template::Taxi).await?;
        client
            .batch_execute(REPLICA_IDENTITY)
            .await
            .map_err(failed("set the replica identity of table rides"))?;
        Ok(client)
    }

    /// The URL by the Unix socket: faster than TCP, and what a bridge on its database's host uses.
    pub(super) fn url(&self, database: &str) -> String {
        let dir = self.process.dir().display().to_string().replace('/', "%2F");
        format!("postgresql://postgres@{dir}:{}/{database}", self.port)
    }

    /// The URL by TCP: what every client takes.
    pub(super) fn tcp_url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// The version as people say it: `18`.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    fn major(&self) -> u32 {
        self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
    }

    /// That the server ended, once it did.
    pub(super) fn ended(&mut self) -> Option<DemoError> {
        self.process.ended()
    }

    /// Where the server works.
    #[cfg(test)]
    pub(super) fn process(&self) -> &Guarded {
        &self.process
    }
}

/// Opens a connection that lives as long as its client.
pub(super) async fn connect(url: &str) -> Result<Client, DemoError> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(|source| {
        DemoError::Postgres { doing: "connect to the demo's Postgres", source: Box::new(source) }
    })?;
    tokio::spawn(async move {
        // The client gets the error too, and says what it was doing.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the demo's postgres is gone");
        }
    });
    Ok(client)
}
