//! The HTTP API of Podium: reads its configuration, wires storage and the storefront path, and translates HTTP.
//!
//! `main.rs` only calls [`cli::run`], so that tests and the demo start the real application with [`server::start`].

pub mod access_log;
pub mod auth;
pub mod bots;
pub mod cli;
pub mod clock;
pub mod config;
pub mod ids;
pub mod json;
pub mod metrics;
pub mod openapi;
pub mod private;
pub mod problem;
pub mod promotion_feed;
pub mod request;
pub mod routes;
pub mod server;
pub mod state;
pub mod trace;
