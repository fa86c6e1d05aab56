//! Promotions: the looks that a decision rests on, the promotion itself, and what was decided from what.
//!
//! Nothing is decided here. The engine reads in one snapshot ([`read`]), records looks before it uses them
//! ([`analyses`]), and applies its decision in one transaction that has read everything again under a lock on the
//! experiment ([`commands`]).
//!
//! | module | what |
//! | --- | --- |
//! | [`model`] | promotions as they are stored and listed |
//! | [`read`] | what a decision looks at; lists for people |
//! | [`analyses`] | analyses and their recorded looks |
//! | [`commands`] | promote, roll back, restart the analysis |
//! | [`records`] | decisions and the last verdict of each experiment |
//! | [`scan`] | one scan at a time, so many promotions an hour |

pub mod analyses;
pub mod commands;
pub mod model;
pub mod read;
pub mod records;
pub mod scan;
