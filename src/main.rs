//! The `rowcast` program: arguments in, exit code out. All of it is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    rowcast::cli::main()
}
