//! Server processes that cannot outlive the test process.
//!
//! A test may end by return, panic, Ctrl-C or SIGKILL. So each server has a watchdog beside it: a
//! shell that reads a pipe whose only write end is held here. The kernel closes that end with the
//! test process; the shell then ends the server and removes its folder. The normal end takes the
//! same path, so that it is the one that is exercised.
//!
//! A process is signalled by its own id, and only while its command line names its own folder: an
//! id that was reused by a stranger is left alone.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// Waits for the end of its input, ends the server, removes the folder and a disk that is in it.
const WATCHDOG: &str = r#"
dir=$1 signal=$2
cat >/dev/null
running() {
    pid=$(cat "$dir/pid") && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$dir"
}
if running; then
    kill "-$signal" "$pid"
    tries=0
    while running && [ $tries -lt 100 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    running && kill -KILL "$pid"
fi
[ -d "$dir/disk" ] && umount -l "$dir/disk"
rm -rf "$dir"
"#;

/// Writes its own process id before it becomes the server, so that there is no moment in which the
/// server runs and the watchdog does not know it.
const LAUNCHER: &str = r#"echo $$ >"$0" && exec "$@""#;

/// The unprivileged user that servers run as when the tests run as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

impl User {
    /// `postgres` where that exists, else `nobody`; none when the tests do not run as root.
    pub fn for_servers() -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
        let find = |name: &str| {
            let entry = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut ids = entry.split(':').skip(2).map(str::parse);
            Some(Self { uid: ids.next()?.ok()?, gid: ids.next()?.ok()? })
        };
        Some(find("postgres").or_else(|| find("nobody")).expect("a user postgres or nobody"))
    }
}

/// A folder of its own, at most one process that works in it, and the watchdog over both.
#[derive(Debug)]
pub struct Guarded {
    dir: PathBuf,
    user: Option<User>,
    child: Option<Child>,
    watchdog: Child,
    lifeline: Option<ChildStdin>,
}

impl Guarded {
    /// Makes the folder, owned by `user`. `last_signal` (`QUIT`, `KILL`, ...) is what the watchdog
    /// ends the process with.
    pub fn new(name: &str, user: Option<User>, last_signal: &str) -> Self {
        let prefix = format!("rowcast-test-{name}-");
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().expect("make a folder").keep();
        if let Some(User { uid, gid }) = user {
            std::os::unix::fs::chown(&dir, Some(uid), Some(gid)).expect("give the folder away");
        }
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&dir)
            .arg(last_signal)
            .current_dir("/")
            // Ctrl-C in a terminal goes to the whole group: the watchdog must outlive the test.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the watchdog");
        let lifeline = watchdog.stdin.take();
        Self { dir, user, child: None, watchdog, lifeline }
    }

    /// The folder. It is gone when this is dropped.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a file in the folder the server's own.
    pub fn give_away(&self, path: &Path) {
        if let Some(User { uid, gid }) = self.user {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("give a file away");
        }
    }

    /// A file system of its own in the folder, so small that it is soon full; none where this user
    /// may not mount one.
    pub fn small_disk(&self, megabytes: u32) -> Option<PathBuf> {
        let disk = self.dir.join("disk");
        fs::create_dir(&disk).expect("make a folder");
        let owner = self.user.as_ref().map(|User { uid, gid }| format!(",uid={uid},gid={gid}"));
        let options = format!("size={megabytes}m,mode=700{}", owner.unwrap_or_default());
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "rowcast-test"]).arg(&disk);
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(disk)
    }

    /// A command that runs to its end in the folder, as the server's user.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(User { uid, gid }) = self.user {
            command.uid(uid).gid(gid);
        }
        command.current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// Starts the server process; its output is appended to the log. One of `args` must name the
    /// folder.
    pub fn spawn(&mut self, program: &Path, args: &[&str], env: impl FnOnce(&mut Command)) {
        assert!(self.child.is_none(), "one process at a time");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .expect("open the log");
        let mut command = self.command(Path::new("sh"));
        command.args(["-c", LAUNCHER]).arg(self.dir.join("pid")).arg(program).args(args);
        command.process_group(0).stdout(log.try_clone().expect("share the log")).stderr(log);
        env(&mut command);
        self.child = Some(command.spawn().expect("start the server"));
    }

    /// The process id, while the process runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How the process ended, or `None` while it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("wait for a child of ours");
        if status.is_some() {
            self.child = None;
        }
        status
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the process runs");
        kill_process(Pid::from_child(child), signal).expect("signal a child of ours");
    }

    /// Waits until the process ends.
    ///
    /// # Panics
    ///
    /// When it still runs after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            let log = self.log_tail();
            assert!(started.elapsed() < deadline, "still runs after {deadline:?}; log:\n{log}");
            pause();
        }
    }

    /// All that the process wrote so far.
    pub fn log(&self) -> String {
        fs::read(self.dir.join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of the log, for failure messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.dir.display(), self.log_tail());
        }
        drop(self.lifeline.take());
        // Nothing to do about errors here, and the panic that may be under way says more.
        let _ended: io::Result<ExitStatus> = self.watchdog.wait();
        if let Some(mut child) = self.child.take() {
            let _ended: io::Result<ExitStatus> = child.wait();
        }
    }
}

/// A pause between two looks at something that has no other way to tell.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// A TCP port of 127.0.0.1 that was free just now.
///
/// Below the range that the kernel gives to outgoing connections, so that none of them takes it
/// before the server does. A server still has to be ready to find it taken.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_240;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes start apart from each other; within one, no port is given twice.
    let start = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).expect("below COUNT");
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1");
}
