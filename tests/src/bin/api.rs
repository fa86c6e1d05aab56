//! The real program, so that tests can start it, signal it and kill it.

use std::process::ExitCode;

fn main() -> ExitCode {
    podium_api::cli::run()
}
