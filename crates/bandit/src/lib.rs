//! Bandit algorithms, pure: policies over an immutable snapshot of arms, randomness handed in.
//!
//! Arms are numbered from 0. Nothing here reads a clock, a file or a generator of its own; nothing
//! panics on input. From evidence to a decision:
//!
//! | module | what |
//! | --- | --- |
//! | [`ledger`] | an impression from first sight to its final count |
//! | [`counts`], [`student`] | exact sums of an arm, mergeable in any order |
//! | [`history`] | counts by hour, and forgetting when they are read |
//! | [`posterior`], [`arms`] | what is believed of an arm, cached for choices |
//! | [`policy`], [`plan`] | how arms are chosen, and the names of the ways |
//! | [`index`], [`lean`], [`horizon`] | indices, the default policy, short campaigns |
//! | [`best`], [`belief`] | probability of being best, expected loss, floors |
//! | [`order`] | orders drawn by weights |
//! | [`snapshot`] | the immutable picture that choices are made from |
//! | [`adaptive`], [`sequence`], [`winner`] | estimates, anytime-valid intervals, the winner |
//! | [`off_policy`], [`position`] | other policies on the same log, effects of the position |
//! | [`simulate`] | the regret of a policy on known rates |
//!
//! ```
//! use podium_bandit::{Arms, Counts, Prior, Snapshot, Weighting};
//! use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};
//!
//! # fn main() -> Result<(), podium_bandit::BanditError> {
//! let counts = [Counts::new(1_000, 30)?, Counts::new(1_000, 45)?];
//! let arms = Arms::from_counts(Prior::site(Some(0.03)), &counts);
//! let snapshot = Snapshot::of_rates(1, Weighting::default(), arms)?;
//!
//! let arm = snapshot.draw(&mut Xoshiro256PlusPlus::seed_from_u64(7));
//! let propensity = snapshot.weights()[arm];
//! assert!(propensity >= 0.025, "the floor of 5 % over two arms");
//! # Ok(())
//! # }
//! ```

pub mod adaptive;
pub mod arms;
pub mod belief;
pub mod best;
pub mod counts;
pub mod error;
pub mod history;
pub mod horizon;
pub mod index;
pub mod lean;
pub mod ledger;
mod logit_beta;
pub mod off_policy;
pub mod order;
pub mod plan;
pub mod policy;
pub mod position;
pub mod posterior;
mod quadrature;
mod sampler;
pub mod sequence;
pub mod simulate;
pub mod snapshot;
pub mod special;
pub mod student;
pub mod winner;

pub use arms::Arms;
pub use counts::{Counts, Evidence};
pub use error::BanditError;
pub use policy::Policy;
pub use posterior::{BetaPosterior, Prior};
pub use snapshot::{Snapshot, Weighting};
