//! The HTTP API of Podium: reads its configuration, wires storage and the storefront path, and translates HTTP.
//!
//! `main.rs` only calls [`cli::run`], so that tests and the demo start the real application with [`server::start`].

pub use podium_settings::{clock, ids};

pub mod access_log;
pub mod address;
pub mod auth;
pub mod background;
pub mod bots;
pub mod cli;
pub mod config;
pub mod cors;
pub mod idempotency;
pub mod json;
pub mod limits;
pub mod metrics;
pub mod openapi;
#[cfg(feature = "otel")]
pub mod otel;
pub mod private;
pub mod problem;
pub mod promotion_feed;
pub mod readings;
pub mod request;
pub mod routes;
pub mod server;
pub mod state;
pub mod trace;
