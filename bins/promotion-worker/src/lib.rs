//! The worker of automatic promotion: one scan for cron, or a daemon that scans, watches and moves rollouts on.
//!
//! It starts from the same environment as the API, needs `DATABASE_URL` and no signing secret, and does nothing that the
//! API's routes do not do: both call [`podium_promotion::Engine`].
//!
//! | module | what |
//! | --- | --- |
//! | `cli` | the command line and its exit codes |
//! | `commands` | what each command does |
//! | `daemon` | `run`: what is done when, until it is asked to stop |
//! | `show` | tables for people, JSON for programs |

mod cli;
mod commands;
mod daemon;
mod error;
mod show;

pub use cli::run;
