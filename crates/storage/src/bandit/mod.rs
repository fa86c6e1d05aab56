//! Bandits: what their arms have earned, and the weights that follow from it.
//!
//! A pull is an impression. Its outcome is not known until a reward is credited to it or its attribution window has
//! passed; a reward that comes later still turns a failure into a success. What a set of events comes to does not depend
//! on the order in which they arrive, nor on how they were grouped:
//!
//! - a reward is credited to the latest impression at or before it of the `decision_id` that it names (else the
//!   earliest after), for the same unit and arm; where that decision has no impression of this unit and arm, or none is
//!   named, to the unit's latest impression of the arm within the window;
//! - every kind of reward counts once for an impression, the earliest of its events;
//! - counts are exact integers and decimals by hour of the impression.
//!
//! | module | what |
//! | --- | --- |
//! | [`learning`] | which arms an experiment learns about, and by which rules |
//! | `fold` | pulls and rewards, a part of the pass of [`crate::fold`] |
//! | `retention` | impressions and rewards go with their events |
//! | `totals` | the rows of arms and variants that others read |
//! | `bounds` | upper confidence bounds of variants |
//! | [`counts`] | the counts that choices are made from |
//! | [`units`] | units by epoch, for honest estimates |
//! | [`weights`] | weights of variants: every batch of constant weights is an epoch |

mod bounds;
pub mod counts;
pub(crate) mod fold;
pub mod learning;
pub(crate) mod retention;
mod totals;
pub mod units;
/// Weights that move.
pub mod weights;

pub use totals::reset;
pub(crate) use totals::{catch_up, refresh};
