//! Exit codes: how a command ended, for a supervisor.
//!
//! The codes above 1 are those of BSD's `sysexits.h`, so that a supervisor can distinguish "try
//! again" from "someone must act": systemd's `RestartPreventExitStatus=64 65 69 70 77 78` does
//! exactly that.

use std::process::ExitCode;

use thiserror::Error;

use crate::config::{LoadError, ResolveError};
use crate::error::{Error, Severity};
use crate::telemetry::TelemetryError;
use crate::tools::demo::DemoError;
use crate::tools::generate::GenerateError;
use crate::tools::tail::TailError;

/// The exit codes, as `rowcast --help` lists them.
pub(super) const HELP: &str = "\
Exit codes:
   0  all went well
   1  it failed, and may succeed when tried again
  64  the command line is wrong
  65  changes are missing that were never published: the message says how to go on
  69  Postgres or Kafka can't be used as they are set up: someone must act
  70  a bug in rowcast: please report it
  77  another copy of the pipeline has taken over
  78  the configuration is wrong";

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// It failed, and may succeed when tried again.
    Retry = 1,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// Changes are missing that were never published (`EX_DATAERR`).
    Gap = 65,
    /// Postgres or Kafka can't be used as they are set up (`EX_UNAVAILABLE`).
    Operator = 69,
    /// A bug in rowcast (`EX_SOFTWARE`).
    Bug = 70,
    /// Another copy of the pipeline has taken over (`EX_NOPERM`).
    Fenced = 77,
    /// The configuration is wrong (`EX_CONFIG`).
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The configuration can't be run with.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The log can't be started.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The asynchronous runtime can't be started.
    #[error("starting the runtime: {0}")]
    Runtime(#[source] std::io::Error),
    /// The process may open too few files.
    #[error(
        "this process may open {allowed} files and connections at a time, and needs {needed}\nfix: \
         raise its limit to {needed} or more: ulimit -n, LimitNOFILE= of the systemd unit, or \
         --ulimit nofile= of the container"
    )]
    Descriptors {
        /// The hard limit.
        allowed: u64,
        /// What it needs.
        needed: u64,
    },
    /// Waiting for a signal failed.
    #[error("waiting for signals: {0}")]
    Signal(#[source] std::io::Error),
    /// The command's output can't be written.
    #[error("writing to stdout: {0}")]
    Output(#[source] std::io::Error),
    /// The operator's answer can't be read.
    #[error("reading from stdin: {0}")]
    Input(#[source] std::io::Error),
    /// A request to a running bridge failed.
    #[error("asking the bridge at {address}: {reason}")]
    Status {
        /// Its admin endpoint.
        address: std::net::SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// A bridge runs, but is not ready.
    #[error("the bridge at {address} is not ready: {reason}")]
    NotReady {
        /// Its admin endpoint.
        address: std::net::SocketAddr,
        /// What it waits for, as it reports it.
        reason: String,
    },
    /// A running bridge refused the request.
    #[error("{error}{}", fix.as_ref().map_or_else(String::new, |fix| format!("\nfix: {fix}")))]
    Refused {
        /// The status code.
        code: u16,
        /// The cause.
        error: String,
        /// The fix.
        fix: Option<String>,
    },
    /// A followed snapshot ended before all rows were published.
    #[error("the snapshot {id} ended unfinished: {reason}")]
    SnapshotUnfinished {
        /// The request.
        id: String,
        /// Why it ended.
        reason: String,
    },
    /// The token for the admin endpoint can't be read.
    #[error("cannot read {file}, which admin.token_file names: {source}", file = file.display())]
    Token {
        /// The file.
        file: std::path::PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The admin endpoint is switched off.
    #[error("no bridge can be asked: admin.enabled is false")]
    AdminDisabled,
    /// The bridge ended with an error, or could not start.
    #[error("{}", told(.0))]
    Bridge(#[from] Box<Error>),
    /// The generator failed.
    #[error("{}", crate::error::told(.0))]
    Generate(#[from] GenerateError),
    /// Events can't be shown.
    #[error("{}", crate::error::told(.0))]
    Tail(#[from] TailError),
    /// The named publication is not the pipeline's.
    #[error(
        "the publication of this pipeline is {publication:?}, not {named:?}: nothing was dropped"
    )]
    OtherPublication {
        /// The one that was named.
        named: String,
        /// The pipeline's.
        publication: String,
    },
    /// No one can confirm an action that can't be undone.
    #[error("nothing was dropped: there is no terminal to confirm on; run it with --yes")]
    NotConfirmed,
    /// A check found what keeps rowcast from running; it is printed.
    #[error("{errors} of the preconditions above do not hold")]
    CheckFailed {
        /// How many.
        errors: usize,
    },
    /// A strict check found what may surprise later; it is printed.
    #[error("there are warnings, and --strict asks for none")]
    CheckWarned,
    /// The demo failed.
    #[error("{}", crate::error::told(.0))]
    Demo(#[from] DemoError),
}

impl CliError {
    /// The exit code that it ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Load(_)
            | Self::Resolve(_)
            | Self::AdminDisabled
            | Self::Token { .. }
            | Self::Descriptors { .. } => Exit::Config,
            // Its response says that a later request may succeed.
            Self::Refused { code: 503, .. } | Self::SnapshotUnfinished { .. } => Exit::Retry,
            Self::Refused { .. } => Exit::Usage,
            Self::Bridge(error) => match (error.as_ref(), error.severity()) {
                (Error::Resolve(_) | Error::ConnInfo(_), _) => Exit::Config,
                (Error::Gap(_) | Error::SlotGivenUp { .. }, _) => Exit::Gap,
                (error, _) if error.is_fenced() => Exit::Fenced,
                (_, Severity::Retry) => Exit::Retry,
                (_, Severity::Operator) => Exit::Operator,
                (_, Severity::Bug) => Exit::Bug,
            },
            Self::NotConfirmed | Self::OtherPublication { .. } => Exit::Usage,
            Self::CheckFailed { .. } => Exit::Operator,
            Self::CheckWarned => Exit::Retry,
            Self::Telemetry(_) => Exit::Bug,
            Self::Runtime(_) | Self::Signal(_) | Self::Status { .. } | Self::NotReady { .. } => {
                Exit::Retry
            }
            // `rowcast config | head` is not a failure.
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(_)
            | Self::Input(_)
            | Self::Generate(_)
            | Self::Tail(_)
            | Self::Demo(_) => Exit::Retry,
        }
    }
}

/// The failure, and the fix below it.
fn told(error: &Error) -> String {
    let told = error.told();
    match error.fix() {
        // A fix of several lines is a block that can be pasted as it is.
        Some(fix) if fix.contains('\n') => format!("{told}\nfix:\n{fix}"),
        Some(fix) => format!("{told}\nfix: {fix}"),
        None => told,
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        Self::Bridge(Box::new(error))
    }
}
