//! `podium-api`: the API server and its maintenance commands.

use std::process::ExitCode;

/// Measured against the system's allocator on the assign path; see docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    podium_api::cli::run()
}
