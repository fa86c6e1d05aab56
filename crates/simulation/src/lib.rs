//! Simulated experiments: what comes in, hour by hour, and the sums that the decision rule would see.
//!
//! For examples and tests alone; no program depends on it.
//!
//! | module | what |
//! | --- | --- |
//! | [`sample`] | seeded random draws |
//! | [`shop`] | experiments in which units arrive and convert, buy, or click |
//! | [`runs`] | many runs on several threads, with the same results whatever their number |

pub mod runs;
pub mod sample;
pub mod shop;

pub use sample::Sample;
pub use shop::Shop;
