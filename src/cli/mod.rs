//! The command line: one file per command, with its arguments and its body.
//!
//! Help texts are documentation and are written as such. A failure is printed once, here, and ends
//! the process with the exit code that `exit` assigns to it.

mod ask;
mod check;
mod config;
mod demo;
mod descriptors;
pub mod exit;
mod generate;
mod progress;
mod run;
pub mod settings;
mod snapshot;
mod status;
mod tail;
mod teardown;

use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

pub use self::exit::{CliError, Exit};
pub use self::settings::{GlobalArgs, SettingArgs};
use crate::telemetry;

/// Longest wait for blocking calls after a command has ended.
const RUNTIME_END: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  DATABASE_URL=postgres:///taxi KAFKA_BROKERS=localhost:9092 rowcast run
  rowcast run --config /etc/rowcast.toml --set topics.partitions=6
  rowcast config --format json
  rowcast demo --rides 100";

/// Change data capture from Postgres to Kafka: each row change becomes one keyed event.
#[derive(Debug, Parser)]
#[command(name = "rowcast", version, propagate_version = true)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: GlobalArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Check(check::CheckArgs),
    Config(config::ConfigArgs),
    Status(status::StatusArgs),
    Snapshot(snapshot::SnapshotArgs),
    Teardown(teardown::TeardownArgs),
    Generate(generate::GenerateArgs),
    Tail(tail::TailArgs),
    Demo(demo::DemoArgs),
}

/// Runs the command that the process's arguments name.
#[must_use]
pub fn main() -> ExitCode {
    // A panic in any thread is a bug in rowcast; its text has been printed already.
    let outcome = std::panic::catch_unwind(|| match Cli::try_parse() {
        Ok(cli) => finish(dispatch(cli)),
        Err(error) => usage(&error),
    });
    telemetry::flush();
    outcome.unwrap_or(Exit::Bug).into()
}

fn dispatch(cli: Cli) -> Result<(), CliError> {
    let Cli { command, global } = cli;
    if let Command::Config(args) = command {
        return config::run(&args, &global);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(CliError::Runtime)?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Run(args) => run::run(args, global).await,
            Command::Check(args) => check::run(args, &global).await,
            Command::Config(args) => config::run(&args, &global),
            Command::Status(args) => status::run(args, &global).await,
            Command::Snapshot(args) => snapshot::run(args, &global).await,
            Command::Teardown(args) => teardown::run(args, &global).await,
            Command::Generate(args) => generate::run(args, &global).await,
            Command::Tail(args) => tail::run(args, &global).await,
            Command::Demo(args) => demo::run(args, &global).await,
        }
    });
    // Calls that still wait for an unresponsive server are abandoned.
    runtime.shutdown_timeout(RUNTIME_END);
    outcome
}

fn finish(result: Result<(), CliError>) -> Exit {
    let Err(error) = result else { return Exit::Ok };
    let exit = error.exit();
    if exit != Exit::Ok {
        telemetry::last_words(&format!("error: {error}\n"));
    }
    exit
}

/// Prints what clap has to say; help and version are not failures.
fn usage(error: &clap::Error) -> Exit {
    // With stdout or stderr closed, the error can't be reported.
    let _unprinted = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok,
        _ => Exit::Usage,
    }
}

/// Prints a command's output.
fn print(text: &str) -> Result<(), CliError> {
    use std::io::Write;
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CliError::Output)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn parsed_arguments_show_no_secrets() {
        let cli = Cli::try_parse_from([
            "rowcast",
            "run",
            "--database-url",
            "postgres://u:hunter2@h/db",
            "--set",
            "kafka.properties.sasl.password=hunter2",
        ]);
        assert!(!format!("{:?}", cli.unwrap()).contains("hunter2"));
    }
}
