//! End-to-end tests: the real application over real HTTP against a real PostgreSQL, one binary for all of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test at once"
)]

mod assign;
mod attribution;
mod bulk;
mod idempotency;
mod login;
mod overrides;
mod sticky;
mod track;
mod transport;
