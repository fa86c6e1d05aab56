//! The promotion engine: gather, decide, apply.
//!
//! | module | what |
//! | --- | --- |
//! | [`config`] | what is asked of a promotion: presets, layers, the floor below which nobody may go |
//! | [`evidence`] | everything that a decision may look at, read at one moment |
//! | [`decide`] | evidence and configuration to a verdict with all its reasons; pure |
//! | [`safety`] | the four safety checks; pure |
//!
//! A dry run differs from a real one in its last step alone: same evidence, same verdict, nothing written.

pub mod config;
pub mod decide;
pub mod evidence;
pub mod safety;
