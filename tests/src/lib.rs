//! What the end-to-end tests stand on: the real application over real HTTP against a real PostgreSQL.
//!
//! A test begins with [`TestApp::start`], which gives it a database of its own (copied from a migrated template), the
//! application in this process on a free port, and an HTTP client. [`TestApp::fold`] runs the background folding to its
//! end, so no test sleeps. Tests that kill things use [`ApiProcess`] (the program as a child process) and
//! [`OwnPostgres`] (a server that nobody else uses).
//!
//! To add a test, put it into the module of its subject under `it/`. It may wait for a condition with [`eventually`],
//! never for a duration, and must not depend on another test: names of databases, folders and ports are unique.
//!
//! | module | what |
//! | --- | --- |
//! | [`database`] | the server, the template, a database for each test |
//! | [`app`] | the application in this process, with replicas on one database |
//! | [`experiment`] | experiments set up with SQL |
//! | [`client`] | requests and what is expected of answers |
//! | [`raw`] | requests that no HTTP library would send |
//! | [`process`], [`postgres`] | the program and a database server to kill, freeze and restart |
//! | [`sink`], [`postbox`] | HTTP and SMTP servers that take notifications, and misbehave when they are told to |
//! | [`certificates`] | certificates for servers, and authorities that sign them |
//! | [`wire`] | a connection to the database that breaks behind a chosen statement |
//! | [`load`] | many clients that keep a ledger of what was acknowledged |
//! | [`entry_points`] | what must hold for any bytes, for tests and fuzzers |
//! | [`clock`], [`rng`], [`token`] | time, chance and tokens in the hands of a test |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness fails the test at once, at the place that was surprised"
)]

pub mod app;
pub mod certificates;
pub mod client;
pub mod clock;
pub mod database;
pub mod entry_points;
pub mod experiment;
pub mod load;
pub mod postbox;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod rng;
pub mod sink;
pub mod token;
pub mod wire;

use std::time::{Duration, Instant};

pub use app::{Setup, TestApp};
pub use client::{Answer, Client};
pub use clock::MockClock;
pub use database::TestDatabase;
pub use experiment::Experiment;
pub use postgres::OwnPostgres;
pub use process::ApiProcess;
pub use rng::Rng;

/// Far more than anything here takes; reaching it means that it never happens.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// `small` in CI, `full` where `PODIUM_FULL` is set, as `cargo xtask reliability` does.
#[must_use]
pub fn scaled(small: usize, full: usize) -> usize {
    if std::env::var_os("PODIUM_FULL").is_some() {
        full
    } else {
        small
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
