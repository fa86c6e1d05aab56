//! What choices are made from: an immutable picture of all arms with the weights in force.
//!
//! A snapshot is built beside the path of a request, whenever evidence is folded in; after that it
//! never changes. Copies share it, so readers need no lock.

use std::sync::Arc;

use rand::{Rng, RngExt};

use crate::arms::Arms;
use crate::best::top_two_probabilities;
use crate::best::{BestArm, best_arm, clipped_below, compare, mixed_with_uniform};
use crate::error::{BanditError, in_range};
use crate::order;
use crate::policy::Policy;
use crate::posterior::Prior;
use crate::sampler::ValueSampler;
use crate::special::{float, float_len};
use crate::student::{ValuePosterior, ValuePrior, ValueSums};

/// Share of the traffic that the floor spreads over all arms unless configured otherwise.
pub const DEFAULT_FLOOR: f64 = 0.05;

/// How a snapshot turns evidence into weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighting {
    /// The policy whose choice probabilities the weights are.
    pub policy: Policy,
    /// No arm's weight is below `floor` / K. With 0 an arm may get no traffic at all, and
    /// off-policy evaluation of what it would have done must fail.
    pub floor: f64,
}

impl Default for Weighting {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            floor: DEFAULT_FLOOR,
        }
    }
}

/// The arms, the weights in force, and what follows from them.
#[derive(Clone, Debug)]
pub struct Snapshot {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    version: u64,
    weighting: Weighting,
    arms: Arms,
    values: Vec<ValueSampler>,
    best: BestArm,
    weights: Vec<f64>,
    alias: Alias,
}

/// An order of candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// Arm numbers, first position first.
    pub order: Vec<usize>,
    /// Probability of each position's arm given those before it; of the first it is the weight
    /// over the candidates' weights. `None` for an order of posterior draws.
    pub propensities: Option<Vec<f64>>,
}

impl Snapshot {
    /// A picture of arms with binary rewards.
    ///
    /// # Errors
    /// [`BanditError::NoArms`]; [`BanditError::OutOfRange`] for a floor outside [0, 1] or a
    /// parameter of the policy; [`BanditError::NotConverged`] for posteriors beyond double
    /// precision.
    pub fn of_rates(version: u64, weighting: Weighting, arms: Arms) -> Result<Self, BanditError> {
        weighting.policy.validate()?;
        let best = best_arm(&arms.posteriors())?;
        let raw = match weighting.policy {
            Policy::Thompson => best.probability.clone(),
            policy => policy.probabilities(&arms)?,
        };
        Self::build(version, weighting, arms, Vec::new(), best, &raw)
    }

    /// A picture of arms whose rewards are values in [0, `max`]. The Thompson family draws from
    /// Gaussian–gamma posteriors (the lean policy then is Thompson sampling); indices and ε-greedy
    /// read values as shares of the maximum.
    ///
    /// # Errors
    /// As for [`Snapshot::of_rates`]; [`BanditError::OutOfRange`] for an invalid maximum or mean.
    pub fn of_values(
        version: u64,
        weighting: Weighting,
        sums: &[ValueSums],
        max: f64,
        site_mean: Option<f64>,
    ) -> Result<Self, BanditError> {
        weighting.policy.validate()?;
        let prior = ValuePrior::bounded(max, site_mean)?;
        let posteriors: Vec<_> = sums.iter().map(|sums| prior.posterior(sums)).collect();
        let shares: Vec<_> = sums
            .iter()
            .map(|s| s.shares(max))
            .collect::<Result<_, _>>()?;
        let arms = Arms::from_evidence(Prior::site(site_mean.map(|mean| mean / max)), &shares);
        let densities: Vec<_> = posteriors.iter().map(ValuePosterior::density).collect();
        let means: Vec<_> = posteriors.iter().map(ValuePosterior::mean).collect();
        let best = compare(&densities, &means)?;
        let raw = match weighting.policy {
            Policy::Lean | Policy::Thompson => best.probability.clone(),
            Policy::ThompsonWithFloor { floor } => mixed_with_uniform(&best.probability, floor)?,
            Policy::TopTwoThompson { beta } => top_two_probabilities(&best.probability, beta)?,
            policy => policy.probabilities(&arms)?,
        };
        let samplers = posteriors.iter().map(ValueSampler::new).collect();
        Self::build(version, weighting, arms, samplers, best, &raw)
    }

    fn build(
        version: u64,
        weighting: Weighting,
        arms: Arms,
        values: Vec<ValueSampler>,
        best: BestArm,
        raw: &[f64],
    ) -> Result<Self, BanditError> {
        let floor = in_range("floor", weighting.floor, 0.0, 1.0)?;
        let weights = clipped_below(raw, floor / float_len(raw.len()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                version,
                weighting,
                arms,
                values,
                best,
                alias: Alias::new(&weights),
                weights,
            }),
        })
    }

    /// The number that the maker gave it, to be logged with decisions.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.inner.version
    }

    /// How its weights were made.
    #[must_use]
    pub fn weighting(&self) -> Weighting {
        self.inner.weighting
    }

    /// The arms.
    #[must_use]
    pub fn arms(&self) -> &Arms {
        &self.inner.arms
    }

    /// The weight of every arm: its exact propensity when drawn. They add up to 1.
    #[must_use]
    pub fn weights(&self) -> &[f64] {
        &self.inner.weights
    }

    /// Probability of being best and expected loss of every arm, without floor.
    #[must_use]
    pub fn best(&self) -> &BestArm {
        &self.inner.best
    }

    /// Draws an arm with the weights' probabilities.
    #[inline]
    pub fn draw(&self, rng: &mut impl Rng) -> usize {
        self.inner.alias.draw(rng)
    }

    /// Chooses an arm by the policy itself instead of the weights: a fresh draw or the index now.
    ///
    /// # Errors
    /// [`BanditError::NoArms`] cannot happen for a snapshot that was built.
    pub fn choose(&self, rng: &mut impl Rng) -> Result<usize, BanditError> {
        let inner = &*self.inner;
        if inner.values.is_empty() {
            return inner.weighting.policy.choose(&inner.arms, rng);
        }
        match inner.weighting.policy {
            Policy::Lean | Policy::Thompson => {
                let all: Vec<usize> = (0..inner.values.len()).collect();
                let ranking = self.rank_by_draws(&all, rng)?;
                ranking.order.first().copied().ok_or(BanditError::NoArms)
            }
            Policy::ThompsonWithFloor { .. } | Policy::TopTwoThompson { .. } => Ok(self.draw(rng)),
            policy => policy.choose(&inner.arms, rng),
        }
    }

    /// Orders candidates: drawn one after the other without replacement, with probabilities
    /// proportional to their weights. Where only weights of 0 are left, all are as likely.
    ///
    /// # Errors
    /// [`BanditError::NoArms`] without candidates; [`BanditError::UnknownArm`];
    /// [`BanditError::RepeatedArm`].
    pub fn rank(&self, candidates: &[usize], rng: &mut impl Rng) -> Result<Ranking, BanditError> {
        self.check(candidates)?;
        let weights: Vec<_> = candidates
            .iter()
            .map(|arm| self.inner.weights[*arm])
            .collect();
        let drawn = order::draw(&weights, rng)?;
        let order: Vec<_> = drawn
            .iter()
            .map(|placed| candidates[placed.candidate])
            .collect();
        let propensities = Some(self.propensities(&order));
        Ok(Ranking {
            order,
            propensities,
        })
    }

    /// Orders candidates by a fresh draw from each posterior, the largest first.
    ///
    /// # Errors
    /// As for [`Snapshot::rank`].
    pub fn rank_by_draws(
        &self,
        candidates: &[usize],
        rng: &mut impl Rng,
    ) -> Result<Ranking, BanditError> {
        self.check(candidates)?;
        let mut draw = |arm: usize| self.sample(arm, rng).unwrap_or(f64::NEG_INFINITY);
        let mut drawn: Vec<_> = candidates.iter().map(|arm| (draw(*arm), *arm)).collect();
        drawn.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok(Ranking {
            order: drawn.into_iter().map(|(_, arm)| arm).collect(),
            propensities: None,
        })
    }

    /// A fresh draw from the posterior of an arm; `None` for an arm that does not exist.
    #[inline]
    pub fn sample(&self, arm: usize, rng: &mut impl Rng) -> Option<f64> {
        match self.inner.values.get(arm) {
            Some(sampler) => Some(sampler.draw(rng)),
            None => Some(self.inner.arms.as_slice().get(arm)?.draw(rng)),
        }
    }

    /// The probability of each position given those before. Sums run from the end, so that small
    /// remainders keep their digits.
    fn propensities(&self, order: &[usize]) -> Vec<f64> {
        let mut remaining = 0.0;
        let mut propensities: Vec<f64> = order
            .iter()
            .rev()
            .zip(1_u64..)
            .map(|(arm, left)| {
                let weight = self.inner.weights[*arm];
                remaining += weight;
                if remaining > 0.0 {
                    weight / remaining
                } else {
                    1.0 / float(left)
                }
            })
            .collect();
        propensities.reverse();
        propensities
    }

    fn check(&self, candidates: &[usize]) -> Result<(), BanditError> {
        if candidates.is_empty() {
            return Err(BanditError::NoArms);
        }
        let arms = self.inner.weights.len();
        let mut seen = vec![false; arms];
        for &arm in candidates {
            let mark = seen
                .get_mut(arm)
                .ok_or(BanditError::UnknownArm { arm, arms })?;
            if std::mem::replace(mark, true) {
                return Err(BanditError::RepeatedArm { arm });
            }
        }
        Ok(())
    }
}

/// Walker's alias table: a draw costs one random number whatever the number of arms.
///
/// Source: Vose, *A linear algorithm for generating random numbers with a given distribution*,
/// IEEE Trans. Softw. Eng. 17 (1991).
#[derive(Debug)]
struct Alias {
    cells: Vec<(f64, usize)>,
}

impl Alias {
    fn new(weights: &[f64]) -> Self {
        let arms = float_len(weights.len());
        let mut heights: Vec<f64> = weights.iter().map(|w| w * arms).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|arm| heights[*arm] < 1.0);
        let mut cells: Vec<_> = (0..weights.len()).map(|arm| (1.0, arm)).collect();
        while let (Some(low), Some(high)) = (small.pop(), large.pop()) {
            cells[low] = (heights[low], high);
            heights[high] -= 1.0 - heights[low];
            if heights[high] < 1.0 {
                small.push(high);
            } else {
                large.push(high);
            }
        }
        Self { cells }
    }

    #[inline]
    fn draw(&self, rng: &mut impl Rng) -> usize {
        let cell = rng.random_range(0..self.cells.len());
        let (height, alias) = self.cells[cell];
        if rng.random::<f64>() < height {
            cell
        } else {
            alias
        }
    }
}
