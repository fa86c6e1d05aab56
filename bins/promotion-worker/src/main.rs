//! `promotion-worker`: scans, alerts, guards and rollouts from the command line or as a daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    podium_promotion_worker::run()
}
