//! Shops that are simulated: what comes in, step by step, and the evidence so far.

mod rate;
mod ratio;
mod returning;
mod revenue;

pub use rate::{Market, RateShop};
pub use ratio::{ClickShop, Clicks};
pub use returning::ReturningShop;
pub use revenue::{Cap, Revenue, RevenueShop};

use podium_domain::decision::evidence::Stratum;

use crate::Sample;

/// Hours of a day.
pub const HOURS_PER_DAY: f64 = 24.0;

/// An experiment in which units arrive and convert.
pub trait Shop {
    /// Lets the time from `from` to `to` pass, in hours since the start.
    fn advance(&mut self, from: f64, to: f64, sample: &mut Sample);
    /// Treatment `index` (from 0) against the control.
    fn strata(&self, index: usize) -> Vec<Stratum>;
    /// Told before a look, so that a cap can be found.
    fn before_look(&mut self) {}
}

/// Whole units that arrive between two times.
#[expect(
    clippy::cast_possible_truncation,
    reason = "numbers of units are moderate"
)]
fn arrivals(per_day: f64, from: f64, to: f64) -> i64 {
    // A whole number of units that rounding left a little below itself is that number.
    let by = |hours: f64| (per_day * hours / HOURS_PER_DAY + 1e-6).floor() as i64;
    by(to) - by(from)
}
