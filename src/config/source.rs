//! A secret that is read when it is used, from a file or a command.
//!
//! Passwords change, and tokens of cloud providers live for minutes, so nothing that is read here
//! is kept for longer than one connection attempt. A command runs as written, without a shell: only
//! the program interprets its arguments.
//!
//! Neither the secret nor a command's standard error, which may repeat it, appears in any error or
//! log line.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::secret::Secret;

/// Longest secret: certificates and tokens are far below it.
const MAX_BYTES: u64 = 64 * 1024;

/// Longest run of a command.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSource {
    /// The key that names it.
    key: String,
    from: From,
    /// The whole content is the secret, not its first line.
    is_whole: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    File(PathBuf),
    /// A program and its arguments.
    Command(Vec<String>),
}

/// A secret can't be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file can't be read.
    #[error("cannot read {file}, which {key} names: {source}", file = file.display())]
    File {
        /// The key that names the file.
        key: String,
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The command can't be started.
    #[error("starting {program:?}, which {key} names: {source}")]
    Start {
        /// The key that names it.
        key: String,
        /// The program.
        program: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The command failed.
    #[error("{program:?}, which {key} names, ended with {status}")]
    Failed {
        /// The key that names it.
        key: String,
        /// The program.
        program: String,
        /// Its exit status.
        status: std::process::ExitStatus,
    },
    /// The command takes too long.
    #[error("{program:?}, which {key} names, did not end within {} s", PATIENCE.as_secs())]
    Slow {
        /// The key that names it.
        key: String,
        /// The program.
        program: String,
    },
    /// The secret is missing, far too long, or not text.
    #[error("no secret in what {key} names: {reason}")]
    NoSecret {
        /// The key.
        key: String,
        /// Why.
        reason: &'static str,
    },
}

impl SecretError {
    /// Whether it may work later by itself: a file may be being replaced, or a service that a
    /// command needs may be down.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Start { .. })
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::File { key, .. } | Self::NoSecret { key, .. } => {
                format!("check what {key} names: the secret is its first line")
            }
            Self::Start { key, .. } | Self::Failed { key, .. } | Self::Slow { key, .. } => format!(
                "run the command of {key} by hand, as the same user and with the same \
                 environment: it must print the secret on its first line"
            ),
        }
    }
}

impl SecretSource {
    /// A file.
    #[must_use]
    pub fn file(key: &str, file: &Path, is_whole: bool) -> Self {
        Self { key: key.to_owned(), from: From::File(file.to_owned()), is_whole }
    }

    /// A program and its arguments.
    #[must_use]
    pub fn command(key: &str, command: &[String], is_whole: bool) -> Self {
        Self { key: key.to_owned(), from: From::Command(command.to_vec()), is_whole }
    }

    /// Reads the current secret.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn read(&self) -> Result<Secret, SecretError> {
        let bytes = match &self.from {
            From::File(file) => self.contents(file)?,
            From::Command(command) => self.output(command).await?,
        };
        self.secret(bytes)
    }

    /// Reads a file's secret without waiting; `None` for a command, which is not run.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn read_file(&self) -> Result<Option<Secret>, SecretError> {
        match &self.from {
            From::File(file) => self.secret(self.contents(file)?).map(Some),
            From::Command(_) => Ok(None),
        }
    }

    fn contents(&self, file: &Path) -> Result<Vec<u8>, SecretError> {
        let failed =
            |source| SecretError::File { key: self.key.clone(), file: file.to_owned(), source };
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    async fn output(&self, command: &[String]) -> Result<Vec<u8>, SecretError> {
        let key = || self.key.clone();
        let (program, arguments) = command.split_first().ok_or_else(|| self.none("it is empty"))?;
        let started = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Processes that it started end with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let failed = |source| SecretError::Start { key: key(), program: program.clone(), source };
        let mut child = started.map_err(failed)?;
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        let mut bytes = Vec::new();
        let ended = async {
            if let Some(out) = child.stdout.take() {
                out.take(MAX_BYTES + 1).read_to_end(&mut bytes).await?;
            }
            child.wait().await
        };
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        if ended.is_err()
            && let Some(group) = group.and_then(rustix::process::Pid::from_raw)
        {
            // It may just have ended.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        match ended {
            // Its further output and its exit status no longer matter.
            _ if bytes.len() as u64 > MAX_BYTES => Ok(bytes),
            Err(_) => Err(SecretError::Slow { key: key(), program: program.clone() }),
            Ok(Err(source)) => Err(failed(source)),
            Ok(Ok(status)) if status.success() => Ok(bytes),
            Ok(Ok(status)) => {
                Err(SecretError::Failed { key: key(), program: program.clone(), status })
            }
        }
    }

    fn secret(&self, bytes: Vec<u8>) -> Result<Secret, SecretError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(self.none("it is longer than 64 kB"));
        }
        let text = String::from_utf8(bytes).map_err(|_| self.none("it is not UTF-8"))?;
        let first = if self.is_whole { text.as_str() } else { text.lines().next().unwrap_or("") };
        match first {
            "" => Err(self.none("its first line is empty")),
            secret => Ok(Secret::from(secret.to_owned())),
        }
    }

    fn none(&self, reason: &'static str) -> SecretError {
        SecretError::NoSecret { key: self.key.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> SecretSource {
        let command = ["sh", "-c", script].map(str::to_owned);
        SecretSource::command("postgres.password_command", &command, false)
    }

    #[tokio::test]
    async fn a_command_gives_its_first_line_and_each_failure_is_told_without_what_it_printed() {
        let secret = shell("echo hunter2; echo more").read().await.unwrap();
        assert_eq!(secret.expose(), "hunter2");
        let whole = SecretSource { is_whole: true, ..shell("printf 'a\\nb\\n'") };
        assert_eq!(whole.read().await.unwrap().expose(), "a\nb\n");
        for (script, wanted) in [
            ("echo hunter2; echo hunter2 >&2; exit 3", "ended with exit status: 3"),
            ("true", "its first line is empty"),
            ("printf '\\377'", "it is not UTF-8"),
            ("yes hunter2", "longer than 64 kB"),
        ] {
            let error = shell(script).read().await.unwrap_err();
            let text = format!("{error} {error:?} {}", error.fix());
            assert!(text.contains(wanted), "{script}: {text}");
            assert!(!text.contains("hunter2"), "{text}");
            assert!(text.contains("postgres.password_command") && error.is_transient(), "{text}");
        }
        let missing = ["/nonexistent/program".to_owned()];
        let error = SecretSource::command("k", &missing, false).read().await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
    }
}
