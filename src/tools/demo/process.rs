//! Servers that cannot outlive the demo, however it ends.
//!
//! Each server has a folder of its own and a watchdog process: a shell that reads a pipe whose only
//! write end is held here. The kernel closes that end when this process ends, by return, panic or
//! SIGKILL alike; the shell then ends the server with all its children and removes the folder. The
//! normal end takes the same path, so that it is the one that is always exercised.
//!
//! A process is signalled only while its command line names its folder: an id that was reused by a
//! stranger is left alone.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::geteuid;

use super::error::DemoError;

/// Waits for the end of its input, ends the server, removes the folder. The signal goes to the
/// server alone, which ends its own children: I/O workers of PostgreSQL 18 that receive it from
/// elsewhere hold the shutdown up for ten seconds. Only what does not end is killed with its whole
/// group.
const WATCHDOG: &str = r#"
dir=$1 signal=$2
cat >/dev/null
command_line() {
    if [ -d /proc/self ]; then tr '\0' ' ' <"/proc/$pid/cmdline"; else ps -o command= -p "$pid"; fi
}
running() { pid=$(cat "$dir/pid") && command_line | grep -qF "$dir"; }
if running; then
    kill "-$signal" "$pid"
    tries=0
    while running && [ $tries -lt 250 ]; do
        sleep 0.02
        tries=$((tries + 1))
    done
    running && kill -KILL -- "-$pid"
fi
tries=0
while ! rm -rf "$dir" && [ $tries -lt 50 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
"#;

/// Writes its own process id before it becomes the server, so that there is no moment in which the
/// server runs and the watchdog does not know it.
const LAUNCHER: &str = r#"echo $$ >"$0" && exec "$@""#;

/// Longest folder name that leaves space for a socket's name in the 104 bytes that the shortest
/// system allows for the path of a Unix socket.
const MAX_DIR_BYTES: usize = 70;
/// Lines of a log that an error shows.
const LAST_WORDS: usize = 12;
/// How often a running program is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(3);

/// Whom the servers run as when the demo runs as root, which Postgres refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    fn for_servers() -> Result<Option<Self>, DemoError> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let path = Path::new("/etc/passwd");
        let passwd = fs::read_to_string(path).map_err(|source| DemoError::Folder {
            doing: "read",
            path: path.to_owned(),
            source,
        })?;
        Self::of_passwd(&passwd).map(Some).ok_or(DemoError::NoUser)
    }

    /// `postgres` where that exists, else `nobody`.
    fn of_passwd(passwd: &str) -> Option<Self> {
        let find = |name: &str| {
            let entry = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut ids = entry.split(':').skip(2).map(str::parse);
            Some(Self { uid: ids.next()?.ok()?, gid: ids.next()?.ok()? })
        };
        find("postgres").or_else(|| find("nobody"))
    }
}

/// A folder, at most one program that works in it, and the watchdog over both.
#[derive(Debug)]
pub(super) struct Guarded {
    dir: PathBuf,
    user: Option<User>,
    child: Option<(String, Child)>,
    watchdog: Child,
    lifeline: Option<ChildStdin>,
}

impl Guarded {
    /// Makes the folder. `last_signal` (`QUIT`, `KILL`) is what the program is ended with.
    pub(super) fn new(name: &str, last_signal: &str) -> Result<Self, DemoError> {
        let user = User::for_servers()?;
        let (dir, watchdog, lifeline) = Self::folder(name, last_signal)?;
        let guarded = Self { dir, user, child: None, watchdog, lifeline };
        // From here on the watchdog removes the folder, whatever fails.
        if let Some(User { uid, gid }) = user {
            chown(&guarded.dir, Some(uid), Some(gid))
                .map_err(|source| guarded.failed("give away folder", &guarded.dir, source))?;
        }
        Ok(guarded)
    }

    fn folder(
        name: &str,
        last_signal: &str,
    ) -> Result<(PathBuf, Child, Option<ChildStdin>), DemoError> {
        let mut parent = std::env::temp_dir();
        if parent.as_os_str().len() + name.len() + "/rowcast-demo--123456".len() > MAX_DIR_BYTES {
            parent = PathBuf::from("/tmp");
        }
        let dir = tempfile::Builder::new()
            .prefix(&format!("rowcast-demo-{name}-"))
            .tempdir_in(&parent)
            .map_err(|source| DemoError::Folder {
                doing: "make a temporary folder in",
                path: parent,
                source,
            })?;
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "rowcast-watchdog"])
            .arg(dir.path())
            .arg(last_signal)
            .current_dir("/")
            // Ctrl-C in a terminal goes to the whole group: the watchdog must outlive the demo.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| DemoError::Start { program: PathBuf::from("sh"), source })?;
        let lifeline = watchdog.stdin.take();
        Ok((dir.keep(), watchdog, lifeline))
    }

    /// The folder. It is gone when this is dropped.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a file into the folder.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), DemoError> {
        let path = self.dir.join(name);
        fs::write(&path, text).map_err(|source| self.failed("write", &path, source))?;
        if let Some(User { uid, gid }) = self.user {
            chown(&path, Some(uid), Some(gid))
                .map_err(|source| self.failed("give away", &path, source))?;
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str, path: &Path, source: io::Error) -> DemoError {
        DemoError::Folder { doing, path: path.to_owned(), source }
    }

    /// Starts a program; its output is appended to the log. One of `args` must name the folder.
    pub(super) fn spawn(&mut self, program: &Path, args: &[&str]) -> Result<(), DemoError> {
        debug_assert!(self.child.is_none(), "one program at a time");
        debug_assert!(args.iter().any(|arg| arg.contains(&*self.dir.to_string_lossy())));
        let path = self.dir.join("log");
        let open = OpenOptions::new().create(true).append(true).open(&path);
        let log = open.and_then(|log| Ok((log.try_clone()?, log)));
        let (stdout, stderr) = log.map_err(|source| self.failed("open", &path, source))?;
        let mut command = Command::new("sh");
        command.args(["-c", LAUNCHER]).arg(self.dir.join("pid")).arg(program).args(args);
        command.current_dir(&self.dir).env("LC_ALL", "C").process_group(0);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        let child = command
            .spawn()
            .map_err(|source| DemoError::Start { program: program.to_owned(), source })?;
        let name = program.file_name().unwrap_or(program.as_os_str());
        self.child = Some((name.to_string_lossy().into_owned(), child));
        Ok(())
    }

    /// Runs a program to its end.
    pub(super) async fn complete(
        &mut self,
        program: &Path,
        args: &[&str],
    ) -> Result<(), DemoError> {
        self.spawn(program, args)?;
        loop {
            match self.ended() {
                None => tokio::time::sleep(LOOK).await,
                Some(DemoError::Ended { status, .. }) if status.success() => return Ok(()),
                Some(error) => return Err(error),
            }
        }
    }

    /// The id of the program, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|(_, child)| child.id())
    }

    /// That the program ended, once it did.
    pub(super) fn ended(&mut self) -> Option<DemoError> {
        let (name, child) = self.child.as_mut()?;
        let program = name.clone();
        let error = match child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => DemoError::Ended { program, status, log: self.last_words() },
            Err(source) => DemoError::Start { program: PathBuf::from(program), source },
        };
        self.child = None;
        Some(error)
    }

    /// The end of the log.
    pub(super) fn last_words(&self) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // Nothing can be done about errors here; what led here says more.
        let _ended: io::Result<ExitStatus> = self.watchdog.wait();
        if let Some((_, mut child)) = self.child.take() {
            let _ended: io::Result<ExitStatus> = child.wait();
        }
    }
}

/// A TCP port of 127.0.0.1 that was free just now; a server may still find it taken.
pub(super) fn free_port() -> Result<u16, DemoError> {
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0));
    listener.and_then(|listener| listener.local_addr()).map(|at| at.port()).map_err(DemoError::Port)
}
