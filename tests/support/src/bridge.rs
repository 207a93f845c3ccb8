//! The built `rowcast` binary as a process: started, waited for, ended, its log kept.
//!
//! Endpoints, the pipeline's name and the admin port are set by environment, the rest by a file, so
//! that a test writes only the settings it is about.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::process::{Guarded, free_port, pause};
use super::rowcast;

/// Longest wait for a page of the admin endpoint.
const ANSWER: Duration = Duration::from_secs(5);

/// What a configuration begins with by which a bridge takes snapshots with conditions, over HTTP and as
/// messages in the stream, from whoever has [`TOKEN`].
pub const TRUSTING: &str = "# takes requests from whoever has the token of the tests\n";

/// The token of a bridge that is [`TRUSTING`].
pub const TOKEN: &str = "s3cret-of-the-tests";

/// A signal with the token, as a logical message has it.
pub fn signal(content: &Value) -> String {
    let mut content = content.clone();
    content["token"] = TOKEN.into();
    content.to_string()
}

/// A running bridge. Its log is printed when the test that owns it fails.
#[derive(Debug)]
pub struct Bridge {
    process: Guarded,
    admin_port: u16,
    env: Vec<(String, String)>,
}

/// A bridge that ended before it was ready.
#[derive(Debug)]
pub struct EndedEarly {
    /// How it ended.
    pub status: ExitStatus,
    /// All that it logged.
    pub log: String,
}

impl Bridge {
    /// Starts `rowcast run` with this configuration file (TOML), and does not wait.
    pub fn start(name: &str, database_url: &str, brokers: &str, toml: &str) -> Self {
        let mut bridge = Self::prepare(name, database_url, brokers, toml);
        bridge.launch(&[], None);
        bridge
    }

    fn prepare(name: &str, database_url: &str, brokers: &str, toml: &str) -> Self {
        let process = Guarded::new("bridge", None, "KILL");
        let admin_port = free_port();
        let admin = format!("127.0.0.1:{admin_port}");
        let env = [
            ("DATABASE_URL", database_url),
            ("KAFKA_BROKERS", brokers),
            ("ROWCAST_NAME", name),
            ("ROWCAST_ADMIN__LISTEN", &admin),
        ];
        let mut env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        if toml.starts_with(TRUSTING) {
            let token = process.dir().join("token");
            fs::write(&token, TOKEN).expect("write the token");
            let alone = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(&token, alone).expect("make it the user's alone");
            let token = token.display().to_string();
            env.push(("ROWCAST_ADMIN__TOKEN_FILE".to_owned(), token.clone()));
            env.push(("ROWCAST_POSTGRES__SIGNAL_TOKEN_FILE".to_owned(), token));
            env.push(("ROWCAST_POSTGRES__SIGNAL_CONDITIONS".to_owned(), "true".to_owned()));
        }
        fs::write(process.dir().join("rowcast.toml"), toml).expect("write the configuration");
        Self { process, admin_port, env }
    }

    /// Starts it with its standard error at this end, instead of its log, and more of the environment;
    /// does not wait.
    pub fn start_telling(
        name: &str,
        database_url: &str,
        brokers: &str,
        toml: &str,
        (stderr, env): (Option<Stdio>, &[(&str, &str)]),
    ) -> Self {
        let mut bridge = Self::prepare(name, database_url, brokers, toml);
        let more = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        bridge.env.extend(more);
        bridge.launch(&[], stderr);
        bridge
    }

    /// Starts it and waits until it streams.
    ///
    /// # Panics
    ///
    /// When it ends before, or `deadline` passes.
    pub fn start_ready(
        name: &str,
        database_url: &str,
        brokers: &str,
        toml: &str,
        deadline: Duration,
    ) -> Self {
        let mut bridge = Self::start(name, database_url, brokers, toml);
        bridge.wait_until_ready(deadline).unwrap_or_else(|EndedEarly { status, log }| {
            panic!("the bridge ended before it was ready: {status}; log:\n{log}")
        });
        bridge
    }

    fn launch(&mut self, flags: &[&str], stderr: Option<Stdio>) {
        let config = self.process.dir().join("rowcast.toml").display().to_string();
        let env = self.env.clone();
        let program = rowcast();
        let args = [&["run", "--config", &config], flags].concat();
        self.process.spawn(&program, &args, |command: &mut Command| {
            // What the developer has set for other purposes is not what this test is about.
            for (name, _) in std::env::vars_os() {
                let text = name.to_string_lossy();
                if text.starts_with("ROWCAST_") || text.starts_with("PG") {
                    command.env_remove(&name);
                }
            }
            command.envs(env);
            if let Some(stderr) = stderr {
                command.stderr(stderr);
            }
        });
    }

    /// Replaces its configuration file, for the next start; who reads it just now reads it whole.
    pub fn configure(&self, toml: &str) {
        let (next, file) = ("rowcast.toml.next", "rowcast.toml");
        let [next, file] = [next, file].map(|name| self.process.dir().join(name));
        fs::write(&next, toml).expect("write the configuration");
        fs::rename(next, file).expect("replace the configuration");
    }

    /// Starts it again after it ended; everything is as before, the log goes on.
    pub fn start_again(&mut self) {
        self.launch(&[], None);
    }

    /// As [`Bridge::start_again`], this once with `--accept-gap`.
    pub fn start_again_accepting_the_gap(&mut self) {
        self.launch(&["--accept-gap"], None);
    }

    /// Waits until it streams: `/readyz` says so, or its log.
    ///
    /// # Errors
    ///
    /// When it ended instead.
    ///
    /// # Panics
    ///
    /// When it still runs and is not ready after `deadline`.
    pub fn wait_until_ready(&mut self, deadline: Duration) -> Result<(), EndedEarly> {
        let seen_before = self.log().matches("streaming").count();
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.exited() {
                return Err(EndedEarly { status, log: self.log() });
            }
            let ready = self.get("/readyz").is_some_and(|(status, _)| status == 200);
            if ready || self.log().matches("streaming").count() > seen_before {
                return Ok(());
            }
            let log = self.process.log_tail();
            assert!(started.elapsed() < deadline, "not ready after {deadline:?}; log:\n{log}");
            pause();
        }
    }

    /// Status and body of a page of the admin endpoint; `None` while nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        admin_page(self.admin_port, path)
    }

    /// Status and body of the answer to a request to the admin endpoint; `None` while nobody
    /// answers.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &Value,
    ) -> Option<(u16, Value)> {
        let body = body.to_string();
        let length = body.len();
        let token = match self.token_file() {
            Some(_) if !headers.contains("Authorization") => {
                format!("Authorization: Bearer {TOKEN}\r\n")
            }
            _ => String::new(),
        };
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {length}\r\n\
             {token}{headers}\r\n{body}"
        );
        let (status, body) = answer(self.admin_port, &request, super::PATIENCE)?;
        Some((status, serde_json::from_str(&body).ok()?))
    }

    /// The pipeline's name.
    pub fn name(&self) -> &str {
        let named = self.env.iter().find(|(variable, _)| variable == "ROWCAST_NAME");
        named.map(|(_, name)| name.as_str()).expect("it was set")
    }

    /// The file of the token that it asks for, if it does.
    pub fn token_file(&self) -> Option<&str> {
        let mut env = self.env.iter();
        let file = env.find(|(name, _)| name == "ROWCAST_ADMIN__TOKEN_FILE");
        file.map(|(_, file)| file.as_str())
    }

    /// The port of the admin endpoint.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// SIGSTOP: connections stay open and nothing moves, until [`Bridge::thaw`].
    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Goes on after [`Bridge::freeze`].
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// SIGHUP: it is to read its configuration again.
    pub fn hang_up(&self) {
        self.process.signal(Signal::HUP);
    }

    /// SIGTERM, without a wait for the end.
    pub fn ask_to_end(&self) {
        self.process.signal(Signal::TERM);
    }

    /// SIGTERM, and wait for the end.
    ///
    /// # Panics
    ///
    /// When it still runs after `deadline`.
    pub fn terminate(&mut self, deadline: Duration) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.wait(deadline)
    }

    /// SIGKILL, and wait for the end.
    pub fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(super::PATIENCE);
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    ///
    /// When it still runs after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        self.process.wait(deadline)
    }

    /// How it ended, or `None` while it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.process.exited()
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// All that it logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The last lines of that.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

/// Status and body of a page of the admin endpoint at a port of this machine.
pub fn admin_page(port: u16, path: &str) -> Option<(u16, String)> {
    answer(port, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"), ANSWER)
}

/// Status and body of the answer to a request; `None` while nobody answers.
fn answer(port: u16, request: &str, limit: Duration) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
