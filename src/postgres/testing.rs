//! A private server for the tests of this folder.
//!
//! A real server, created for each test that needs one: on a free port of 127.0.0.1 with a socket
//! directory of its own, as another user if the tests run as root (the server refuses root),
//! stopped when dropped. The harness for whole-bridge tests is elsewhere; this one only handles
//! what connections need: `pg_hba.conf`, TLS files, settings.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::conninfo::ConnInfo;

const NO_SERVER: &str = "a PostgreSQL server: set PG_BIN_DIRS to its bin directory";

/// Debian's `nobody`.
const UNPRIVILEGED: u32 = 65_534;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    bin: PathBuf,
    /// A fetched version has only the server's programs.
    psql: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
    process: Child,
}

impl Server {
    /// Starts one with these lines in `pg_hba.conf` and these settings. `files` are written to its
    /// data directory, readable only to it.
    pub(crate) fn start(hba: &str, settings: &[&str], files: &[(&str, String)]) -> Self {
        Self::start_from(bin_directory(), hba, settings, files)
    }

    /// Starts one of the newest available version, then one of the oldest, separately.
    pub(crate) fn newest_and_oldest(hba: &str, work: impl Fn(&Self)) {
        let found = bin_directories();
        let (newest, oldest) = (found.first(), found.last());
        assert!(newest.is_some(), "{NO_SERVER}");
        for bin in newest.into_iter().chain(oldest.filter(|oldest| Some(*oldest) != newest)) {
            println!("{}", bin.display());
            work(&Self::start_from(bin.clone(), hba, &[], &[]));
        }
    }

    fn start_from(bin: PathBuf, hba: &str, settings: &[&str], files: &[(&str, String)]) -> Self {
        let directory = tempfile::tempdir().expect("temp dir");
        hand_over(directory.path());
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let data = directory.path().join("data");
        let arguments = ["-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8", "-D"];
        let made = unprivileged(&bin.join("initdb"), directory.path())
            .args(arguments)
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::write(data.join("pg_hba.conf"), hba).expect("pg_hba.conf");
        for (name, content) in files {
            let path = data.join(name);
            fs::write(&path, content).expect("file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
            hand_over(&path);
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let log = fs::File::create(directory.path().join("log")).expect("log");
        let mut command = unprivileged(&bin.join("postgres"), directory.path());
        command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k"]).arg(directory.path());
        let fixed = ["wal_level=logical", "fsync=off", "listen_addresses=127.0.0.1"];
        for setting in fixed.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("postgres starts");
        let psql = bin_directories().into_iter().map(|bin| bin.join("psql"));
        let psql = std::iter::once(bin.join("psql")).chain(psql).find(|psql| psql.exists());
        let psql = psql.unwrap_or_else(|| PathBuf::from("psql"));
        let server = Self { bin, psql, directory, port, process };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.psql("SELECT 1").status.success() {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the server does not start:\n{log}");
            std::thread::yield_now();
        }
    }

    /// Its socket directory.
    pub(crate) fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its TCP port on 127.0.0.1.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The superuser over the Unix socket.
    pub(crate) fn local(&self) -> ConnInfo {
        let directory = self.socket_directory().display();
        self.conninfo(&format!("host={directory} user=postgres"))
    }

    /// A connection string with this server's port and nothing of the environment.
    pub(crate) fn conninfo(&self, text: &str) -> ConnInfo {
        let text = format!("{text} port={}", self.port);
        ConnInfo::parse(&text, &|_| None).expect("a valid connection string")
    }

    fn psql(&self, sql: &str) -> std::process::Output {
        unprivileged(&self.psql, self.directory.path())
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-h"])
            .arg(self.directory.path())
            .args(["-p", &self.port.to_string(), "-c", sql])
            .output()
            .expect("psql runs")
    }

    /// Runs SQL as the superuser and returns its output.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let output = self.psql(sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = unprivileged(&self.bin.join("pg_ctl"), self.directory.path())
            .args(["stop", "-m", "immediate", "-w", "-D"])
            .arg(self.directory.path().join("data"))
            .output();
        if !stopped.is_ok_and(|output| output.status.success()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

fn hand_over(path: &Path) {
    if is_root() {
        chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("chown");
    }
}

fn unprivileged(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).env_remove("PGHOST").env_remove("PGPASSWORD");
    if is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command
}

/// The first directory with a server: of `PG_BIN_DIRS` (colon separated), else Debian's newest.
fn bin_directory() -> PathBuf {
    let named = std::env::var("PG_BIN_DIRS").unwrap_or_default();
    let mut directories: Vec<PathBuf> = named.split(':').map(PathBuf::from).collect();
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<_> = installed.map(|entry| entry.path().join("bin")).collect();
    installed.sort();
    directories.extend(installed.into_iter().rev());
    let found = directories.into_iter().find(|directory| directory.join("postgres").exists());
    found.expect(NO_SERVER)
}

/// Every directory with a server, the newest first: those of `PG_BIN_DIRS` in their order, else
/// fetched ones and Debian's.
fn bin_directories() -> Vec<PathBuf> {
    let has_server = |bin: &PathBuf| bin.join("postgres").exists();
    if let Ok(named) = std::env::var("PG_BIN_DIRS") {
        return named.split(':').map(PathBuf::from).filter(has_server).collect();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cache-dir");
    let cache = Command::new(script).output().expect("scripts/cache-dir runs");
    let fetched = PathBuf::from(String::from_utf8_lossy(&cache.stdout).trim()).join("postgres");
    let folders = [fetched, PathBuf::from("/usr/lib/postgresql")];
    let versions = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut found: Vec<PathBuf> =
        versions.flatten().map(|version| version.path().join("bin")).filter(has_server).collect();
    let major = |bin: &PathBuf| -> Option<u32> {
        bin.parent()?.file_name()?.to_str()?.split('.').next()?.parse().ok()
    };
    found.sort_by_key(|bin| std::cmp::Reverse(major(bin)));
    found
}
