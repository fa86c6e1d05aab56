//! `podium-demo`: replays real click logs through the HTTP API and shows what Podium makes of them.

use std::process::ExitCode;

fn main() -> ExitCode {
    podium_demo::cli::run()
}
