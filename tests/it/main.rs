//! End-to-end tests: the real application over real HTTP against a real PostgreSQL, one binary for all of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail the test at once"
)]

mod access;
mod admin;
mod alerts;
mod api_keys;
mod assign;
mod attribution;
mod audit;
mod bad_input;
mod bandit;
mod bandit_arms;
mod bandit_drift;
mod bandit_kinds;
mod bandit_pictures;
mod bandit_truth;
mod bulk;
mod checklist;
mod cors;
mod covariates;
mod crash;
mod drain;
mod entry_points;
mod forget;
mod full_disk;
mod fuzz;
mod guard;
mod http;
mod idempotency;
mod idempotency_key;
mod limits;
mod login;
mod logs;
mod metrics;
mod migrations;
mod notifications;
mod off_policy;
mod openapi;
#[cfg(feature = "otel")]
mod otel;
mod outage;
mod overrides;
mod pooler;
mod pressure;
mod promotion;
mod promotion_faults;
mod rank;
mod replicas;
mod results;
mod retention;
mod roles;
mod settings;
mod snapshot_file;
mod soak;
mod sticky;
mod tls;
mod tokens;
mod traceparent;
mod track;
mod transport;
mod watch;
mod worker;

/// The program that [`podium_tests::ApiProcess`] starts.
const PROGRAM: &str = env!("CARGO_BIN_EXE_podium-api-under-test");
