//! One impression from first sight to its final count, whatever arrives when and how often.
//!
//! A pull is an impression. It counts as a failure once its attribution window has passed without
//! a reward, and as a success from its first reward on, before or after. What an impression has
//! contributed depends on the set of things that happened to it, not on their order; folding is
//! idempotent. So counts rebuilt from events in any order are the same.

use serde::{Deserialize, Serialize};

use crate::counts::Counts;
use crate::error::{BanditError, in_range};
use crate::student::VALUE_SCALE;

/// Kinds of rewards an experiment may have at most.
pub const MAX_KINDS: u8 = 32;

/// What has happened to an impression so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Impression {
    seen: bool,
    matured: bool,
    /// One bit a kind of reward.
    rewards: u32,
}

/// Something that happens to an impression. Each counts once; the caller's ids say which are the
/// same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It was shown.
    Seen,
    /// Its attribution window has passed.
    WindowPassed,
    /// It was rewarded; kinds are numbered from 0.
    Rewarded {
        /// Number of the kind, below [`MAX_KINDS`].
        kind: u8,
    },
}

impl Impression {
    /// The impression after something happened.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] for a kind from [`MAX_KINDS`] on.
    pub fn after(mut self, happening: Happening) -> Result<Self, BanditError> {
        match happening {
            Happening::Seen => self.seen = true,
            Happening::WindowPassed => self.matured = true,
            Happening::Rewarded { kind } => {
                in_range("kind", f64::from(kind), 0.0, f64::from(MAX_KINDS - 1))?;
                self.rewards |= 1 << kind;
            }
        }
        Ok(self)
    }

    /// The impression after what two parts know of it.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            seen: self.seen || other.seen,
            matured: self.matured || other.matured,
            rewards: self.rewards | other.rewards,
        }
    }

    /// Whether its outcome counts: it was shown, and it was rewarded or its window has passed.
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.seen && (self.matured || self.rewards != 0)
    }

    /// Whether it was rewarded.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.is_known() && self.rewards != 0
    }

    /// What it adds to the counts of its arm.
    #[must_use]
    pub fn counts(self) -> Counts {
        let known = u64::from(self.is_known());
        let success = u64::from(self.is_success());
        Counts::new(known, success).unwrap_or_default()
    }

    /// What it adds to the sums of its arm in 1/10,000: the weights of the kinds of reward it
    /// received, each once; `None` while its outcome is not known.
    #[must_use]
    pub fn value(self, weights: &RewardWeights) -> Option<u64> {
        self.is_known().then(|| weights.value(self.rewards))
    }
}

/// What each kind of reward is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewardWeights {
    weights: Vec<u64>,
}

impl RewardWeights {
    /// Weights by kind, for example 1 for a click and 2 for an article added to the basket.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] unless each is in [0, 1e9], one of them above 0, and there are
    /// at most [`MAX_KINDS`].
    pub fn new(weights: &[f64]) -> Result<Self, BanditError> {
        let kinds = crate::special::float_len(weights.len());
        in_range("kinds", kinds, 1.0, f64::from(MAX_KINDS))?;
        let units: Vec<_> = weights
            .iter()
            .map(|w| units(*w))
            .collect::<Result<_, _>>()?;
        if units.iter().all(|unit| *unit == 0) {
            return Err(BanditError::OutOfRange {
                name: "weight",
                value: 0.0,
            });
        }
        Ok(Self { weights: units })
    }

    /// The largest value of an impression: all kinds of reward together.
    #[must_use]
    pub fn max(&self) -> f64 {
        crate::special::float(self.weights.iter().sum()) / VALUE_SCALE
    }

    fn value(&self, rewards: u32) -> u64 {
        let received =
            |(kind, weight): (usize, &u64)| (rewards >> kind & 1 == 1).then_some(*weight);
        self.weights.iter().enumerate().filter_map(received).sum()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked"
)]
fn units(weight: f64) -> Result<u64, BanditError> {
    Ok((in_range("weight", weight, 0.0, 1e9)? * VALUE_SCALE).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(happenings: &[Happening]) -> Impression {
        happenings
            .iter()
            .fold(Impression::default(), |state, h| state.after(*h).unwrap())
    }

    #[test]
    fn a_late_reward_turns_a_failure_into_a_success() {
        let failed = fold(&[Happening::Seen, Happening::WindowPassed]);
        assert_eq!(failed.counts(), Counts::new(1, 0).unwrap());
        let late = failed.after(Happening::Rewarded { kind: 0 }).unwrap();
        assert_eq!(late.counts(), Counts::new(1, 1).unwrap());
    }

    #[test]
    fn nothing_counts_before_it_is_known() {
        assert_eq!(fold(&[Happening::Seen]).counts(), Counts::default());
        let unseen = fold(&[Happening::Rewarded { kind: 3 }, Happening::WindowPassed]);
        assert_eq!(unseen.counts(), Counts::default());
    }

    #[test]
    fn several_rewards_have_weights() {
        let weights = RewardWeights::new(&[1.0, 2.0]).unwrap();
        let both = [
            Happening::Rewarded { kind: 1 },
            Happening::Seen,
            Happening::Rewarded { kind: 0 },
            Happening::Rewarded { kind: 1 },
        ];
        assert_eq!(fold(&both).value(&weights), Some(30_000));
        assert!((weights.max() - 3.0).abs() < 1e-12);
        assert!(RewardWeights::new(&[0.0]).is_err());
        assert!(RewardWeights::new(&[]).is_err());
        assert!(RewardWeights::new(&[f64::NAN]).is_err());
        let wrong = Happening::Rewarded { kind: 32 };
        assert!(Impression::default().after(wrong).is_err());
    }
}
