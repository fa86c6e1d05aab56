//! The worker's real program, so that tests can run it, signal it and kill it.

use std::process::ExitCode;

fn main() -> ExitCode {
    podium_promotion_worker::run()
}
