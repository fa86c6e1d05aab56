//! The promotion engine: gather, decide, apply.
//!
//! | module | what |
//! | --- | --- |
//! | [`config`] | what is asked of a promotion: presets, layers, the floor below which nobody may go |
//! | [`sums`] | the sums of an experiment, arm against arm: what the report compares as well |
//! | [`evidence`], [`gather`] | everything that a decision may look at, and how it comes from what was read; pure |
//! | [`decide`] | evidence and configuration to a verdict with all its reasons; pure |
//! | [`safety`] | the four safety checks; pure |
//! | [`engine`] | check, promote, roll back, scan, restart |
//! | [`harm`] | what the guard of a promotion decides; pure |
//! | [`replay`] | a stored decision computed again; pure |
//! | [`watch`] | alerts, guards, rollout steps: what is looked at all the time |
//!
//! A dry run differs from a real one in its last step alone: same evidence, same verdict, nothing written. To add a
//! criterion: a function in `decide::criteria`, with the words that its reason is found by, and what it needs in
//! [`evidence::Evidence`].

pub mod config;
pub mod decide;
pub mod engine;
pub mod evidence;
pub mod gather;
pub mod harm;
mod message;
pub mod replay;
pub mod safety;
pub mod sums;
pub mod watch;

pub use engine::{Engine, EngineError};
