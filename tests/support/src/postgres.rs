//! PostgreSQL servers: one a version for all tests, private ones for tests that break them.
//!
//! Durability is switched off (`fsync=off`): these servers survive a kill of their processes, not
//! of the machine.
//!
//! On a shared server a new logical slot waits for the transactions that run in *any* database, so
//! a test must not hold one open for long.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use rustix::process::Signal;
use tokio_postgres::{Client, NoTls};

pub use super::binaries::Binaries;
use super::process::{Guarded, User, free_port, pause};
pub use super::slots::{confirmed, slot_active, until_confirmed, wal_end};
use super::{PATIENCE, eventually, unique};

const SETTINGS: &str = "
wal_level = logical
max_wal_senders = 100
max_replication_slots = 100
max_connections = 300
fsync = off
full_page_writes = off
shared_buffers = 64MB
listen_addresses = '127.0.0.1'
log_line_prefix = '%m [%p] %d '
logging_collector = off
";

/// A running server.
#[derive(Debug)]
pub struct PostgresServer {
    binaries: Binaries,
    process: Guarded,
    port: u16,
}

impl PostgresServer {
    /// The server of the newest version, which all tests share.
    pub fn shared() -> &'static Self {
        Self::shared_of(Binaries::newest())
    }

    /// The server of a version, which all tests share.
    pub fn shared_of(binaries: &Binaries) -> &'static Self {
        /// By major version; there will be no 64 before this is rewritten.
        static SHARED: [OnceLock<PostgresServer>; 64] = [const { OnceLock::new() }; 64];
        let major = usize::try_from(binaries.major).expect("a small number");
        SHARED[major].get_or_init(|| Self::start(binaries, &[]))
    }

    /// A private server. `settings` are laid over those of the shared ones.
    pub fn start(binaries: &Binaries, settings: &[(&str, &str)]) -> Self {
        let process = Guarded::new("postgres", User::for_servers(), "QUIT");
        let server = Self { binaries: binaries.clone(), process, port: free_port() };
        server.init(settings, &[]);
        server.started()
    }

    /// As [`PostgresServer::start`], with its WAL on a disk of so many megabytes; none where that can't
    /// be mounted.
    pub fn start_with_wal_on_small_disk(
        binaries: &Binaries,
        settings: &[(&str, &str)],
        megabytes: u32,
    ) -> Option<Self> {
        let process = Guarded::new("postgres", User::for_servers(), "QUIT");
        let disk = process.small_disk(megabytes)?.display().to_string();
        let server = Self { binaries: binaries.clone(), process, port: free_port() };
        server.init(settings, &["--wal-segsize=1", "--waldir", &disk]);
        Some(server.started())
    }

    fn started(mut self) -> Self {
        for _ in 0..3 {
            match self.launch() {
                Ok(()) => return self,
                Err(reason) if reason.contains("Address already in use") => {
                    self.port = free_port();
                }
                Err(reason) => panic!("start {}: {reason}", self.binaries),
            }
        }
        let binaries = &self.binaries;
        panic!("start {binaries}: three free ports were taken before the server had them");
    }

    fn init(&self, settings: &[(&str, &str)], args: &[&str]) {
        let output = self
            .process
            .command(&self.binaries.program("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--locale=C"])
            .args(["--encoding=UTF8", "--pgdata"])
            .arg(self.data_dir())
            .args(args)
            .output()
            .expect("run initdb");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "initdb of {}: {errors}", self.binaries);

        let conf = self.data_dir().join("postgresql.conf");
        let mut text = fs::read_to_string(&conf).expect("read what initdb wrote");
        text.push_str(SETTINGS);
        text.push_str(&format!("unix_socket_directories = '{}'\n", self.socket_dir().display()));
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{value}'\n"));
        }
        fs::write(&conf, text).expect("write the settings");
    }

    /// A standby of this server, with a physical slot of this name for it. It keeps the logical slots
    /// that are made for failover. The server is stopped for the time of a copy.
    pub async fn standby(&mut self, slot: &str) -> Self {
        let client = connect(&self.tcp_url("postgres")).await;
        let make = format!("SELECT pg_create_physical_replication_slot('{slot}', true)");
        client.batch_execute(&make).await.expect("make a slot for the standby");
        drop(client);
        self.stop();
        let process = Guarded::new("standby", User::for_servers(), "QUIT");
        let mut standby = Self { binaries: self.binaries.clone(), process, port: free_port() };
        let copied = standby
            .process
            .command(Path::new("cp"))
            .arg("-a")
            .args([self.data_dir(), standby.data_dir()])
            .status()
            .expect("run cp");
        assert!(copied.success(), "copy the data: {copied}");
        let socket_dir = standby.socket_dir().display();
        let settings = format!(
            "unix_socket_directories = '{socket_dir}'
             primary_conninfo = 'host=127.0.0.1 port={} user=postgres dbname=postgres'
             primary_slot_name = '{slot}'
             hot_standby_feedback = on
             {}
             wal_receiver_status_interval = 1s\n",
            self.port,
            if self.major() >= 17 { "sync_replication_slots = on" } else { "" }
        );
        let conf = standby.data_dir().join("postgresql.conf");
        let text = fs::read_to_string(&conf).expect("read the settings") + &settings;
        fs::write(&conf, text).expect("write the settings");
        standby.put_file("standby.signal", "");
        self.start_again();
        // A physical slot is copied too, and would hold the standby's WAL.
        drop(fs::remove_dir_all(standby.data_dir().join("pg_replslot").join(slot)));
        standby.start_again();
        standby
    }

    /// Starts the process and waits until it takes connections.
    fn launch(&mut self) -> Result<(), String> {
        let postgres = self.binaries.program("postgres");
        let data = self.data_dir().display().to_string();
        self.process.spawn(&postgres, &["-D", &data, "-p", &self.port.to_string()], |_| {});
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.exited() {
                return Err(format!("{status}; log:\n{}", self.process.log_tail()));
            }
            if self.is_ready() {
                return Ok(());
            }
            assert!(started.elapsed() < PATIENCE, "not ready; log:\n{}", self.process.log_tail());
            pause();
        }
    }

    /// As `pg_ctl -w` asks: the eighth line of the pid file is the state, the first says whose. A
    /// server that was killed leaves the file, and with it a readiness that is not its successor's.
    fn is_ready(&self) -> bool {
        let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = file.lines().map(str::trim).collect();
        let own = self.pid().map(|pid| pid.to_string());
        lines.first().copied() == own.as_deref() && lines.get(7) == Some(&"ready")
    }

    /// Starts a server that was stopped or killed; port and data are those from before.
    pub fn start_again(&mut self) {
        let started = Instant::now();
        // Backends of a killed server hold its shared memory until they notice.
        while let Err(reason) = self.launch() {
            assert!(started.elapsed() < PATIENCE, "start again: {reason}");
            pause();
        }
    }

    /// Fast shutdown: sessions are cut, the WAL is flushed and sent to the walsenders' peers.
    pub fn stop(&mut self) {
        self.process.signal(Signal::INT);
        self.process.wait(PATIENCE);
    }

    /// Immediate shutdown, as after a crash: all processes end at once, recovery at next start.
    pub fn crash(&mut self) {
        self.process.signal(Signal::QUIT);
        self.process.wait(PATIENCE);
    }

    /// SIGKILL to the postmaster.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(PATIENCE);
    }

    /// The programs that it runs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Major version: 15, 18, ...
    pub fn major(&self) -> u32 {
        self.binaries.major
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of the postmaster.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Puts a file into the data directory, readable to the server alone.
    pub fn put_file(&self, name: &str, content: &str) {
        let path = self.data_dir().join(name);
        fs::write(&path, content).expect("write a file of the server's");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, mode).expect("make it the server's alone");
        self.process.give_away(&path);
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.process.dir().join("data")
    }

    /// The folder of the Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.process.dir()
    }

    /// URL of a database, by TCP.
    pub fn tcp_url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// URL of a database, by Unix socket.
    pub fn unix_url(&self, database: &str) -> String {
        let dir = self.socket_dir().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{dir}:{}/{database}", self.port)
    }

    /// A new, empty database.
    pub async fn database(&self) -> TestDatabase {
        self.database_with("").await
    }

    /// A new, empty database, made with these options.
    pub async fn database_with(&self, options: &str) -> TestDatabase {
        let admin_url = self.unix_url("postgres");
        let name = unique("db");
        let admin = connect(&admin_url).await;
        admin
            .batch_execute(&format!("CREATE DATABASE {name} {options}"))
            .await
            .expect("create a database");
        TestDatabase {
            tcp_url: self.tcp_url(&name),
            unix_url: self.unix_url(&name),
            name,
            admin_url,
            major: self.major(),
        }
    }
}

/// Runs a test on a shared server of each version.
pub async fn for_each_postgres(test: impl AsyncFn(&'static PostgresServer)) {
    for_those(Binaries::found().iter(), test).await;
}

/// Runs a test on a shared server of the newest version and of the oldest that can be had.
pub async fn for_oldest_and_newest(test: impl AsyncFn(&'static PostgresServer)) {
    let every = Binaries::every().iter();
    for_those(every.clone().take(1).chain(every.skip(1).last()), test).await;
}

/// Runs a test on a shared server of every version that can be had, and of version 19 too: where it can't,
/// the tests that are about it alone are counted as skipped, with the reason.
pub async fn for_every_postgres(test: impl AsyncFn(&'static PostgresServer)) {
    let every = Binaries::every();
    let newer =
        Binaries::nineteen().ok().filter(|of| every.iter().all(|had| had.major != of.major));
    for_those(newer.into_iter().chain(every), test).await;
}

async fn for_those(
    versions: impl Iterator<Item = &'static Binaries>,
    test: impl AsyncFn(&'static PostgresServer),
) {
    for binaries in versions {
        let _blame = NameOnPanic(binaries);
        test(PostgresServer::shared_of(binaries)).await;
    }
}

/// Tells which version a failed assertion was made on.
struct NameOnPanic(&'static Binaries);

impl Drop for NameOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was on {}", self.0);
        }
    }
}

/// A database of one test. Dropping it ends its sessions and removes its slots and itself.
#[derive(Debug)]
pub struct TestDatabase {
    /// The database's name.
    pub name: String,
    /// URL by TCP.
    pub tcp_url: String,
    /// URL by Unix socket.
    pub unix_url: String,
    /// Major version of the server.
    pub major: u32,
    admin_url: String,
}

impl TestDatabase {
    /// A database on the shared server of the newest version.
    pub async fn create() -> Self {
        PostgresServer::shared().database().await
    }

    /// A new connection.
    pub async fn client(&self) -> Client {
        connect(&self.unix_url).await
    }

    async fn remove(&self) -> Result<(), tokio_postgres::Error> {
        let (admin, connection) = tokio_postgres::connect(&self.admin_url, NoTls).await?;
        let connection = tokio::spawn(connection);
        let slots = "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = $1";
        eventually(PATIENCE, "slots of the database to be dropped", async || {
            let rows = admin.query(slots, &[&self.name]).await.ok()?;
            for row in &rows {
                let (slot, pid): (&str, Option<i32>) = (row.get(0), row.get(1));
                // Both fail when the slot changes hands in between; the next look tells.
                let _seen = match pid {
                    Some(pid) => admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).await,
                    None => admin.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await,
                };
            }
            rows.is_empty().then_some(())
        })
        .await;
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        admin.batch_execute(&drop).await?;
        connection.abort();
        Ok(())
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // The test's own runtime cannot be waited on from here.
        let removed = std::thread::scope(|scope| {
            let work = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(self.remove())
            };
            scope.spawn(work).join()
        });
        // A private server may be down by now, and its folder goes with it.
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("remove database {}: {error}", self.name),
            Err(_) => eprintln!("remove database {}: gave up", self.name),
        }
    }
}

/// Opens a connection that lives as long as its client.
pub async fn connect(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    tokio::spawn(connection);
    client
}
