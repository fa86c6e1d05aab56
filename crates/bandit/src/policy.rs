//! Policies: how an arm is chosen from the evidence.
//!
//! To add a policy: a variant of [`Policy`], its arm in [`Policy::choose`] and in
//! [`Policy::probabilities`], and its name in [`crate::plan`].

use rand::{Rng, RngExt};

use crate::arms::{Arm, Arms};
use crate::best::{best_arm, mixed_with_uniform, top_two_probabilities};
use crate::error::{BanditError, in_range};
use crate::horizon::{CampaignIndex, MAX_LOOKAHEAD};
use crate::index::{self, Index, Lowest, Ties, Uniform};
use crate::lean;

/// Redraws after which top-two Thompson sampling settles for the best other arm of the last draw.
const REDRAWS: u32 = 50;

/// A way to choose arms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Policy {
    /// Thompson sampling that explores no more than it has to, see [`crate::lean`].
    #[default]
    Lean,
    /// The largest of one draw from every posterior.
    Thompson,
    /// With probability `floor` a uniform arm, else Thompson sampling.
    ThompsonWithFloor {
        /// Share of uniform choices, in [0, 1].
        floor: f64,
    },
    /// The winner of a draw with probability `beta`, else a winner of further draws that is another
    /// arm: finds the best arm sooner, at a higher regret.
    TopTwoThompson {
        /// Share of the winner, in [0, 1].
        beta: f64,
    },
    /// The arm with the best index; unplayed arms first.
    Index(Index),
    /// With probability ε a uniform arm of all, else the one with the largest observed rate;
    /// unplayed arms count as best.
    EpsilonGreedy(Epsilon),
    /// Any arm, all equally likely.
    Uniform,
    /// For campaigns whose number of plays is known and small: the finite-horizon index.
    Campaign {
        /// Plays of the whole campaign.
        plays: u64,
    },
}

/// The share of uniform choices of ε-greedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Epsilon {
    /// Always the same, in [0, 1].
    Fixed(f64),
    /// min(1, c K / t).
    Reciprocal {
        /// Scale, not negative.
        c: f64,
    },
    /// min(1, (K ln t / t)^(1/3)), 1 at t = 1.
    CubeRoot,
}

impl Epsilon {
    /// ε for the t-th decision (from 1) among `arms` arms.
    #[must_use]
    pub fn at(&self, arms: f64, t: f64) -> f64 {
        match self {
            Self::Fixed(epsilon) => *epsilon,
            Self::Reciprocal { c } => (c * arms / t).min(1.0),
            Self::CubeRoot if t <= 1.0 => 1.0,
            Self::CubeRoot => (arms * t.ln() / t).cbrt().min(1.0),
        }
    }
}

impl Policy {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`].
    pub fn validate(&self) -> Result<(), BanditError> {
        match *self {
            Self::ThompsonWithFloor { floor } => in_range("floor", floor, 0.0, 1.0)?,
            Self::TopTwoThompson { beta } => in_range("beta", beta, 0.0, 1.0)?,
            Self::EpsilonGreedy(Epsilon::Fixed(e)) => in_range("epsilon", e, 0.0, 1.0)?,
            Self::EpsilonGreedy(Epsilon::Reciprocal { c }) | Self::Index(Index::Ucb1 { c }) => {
                in_range("c", c, 0.0, 1e9)?
            }
            Self::Index(Index::KlUcb { c }) => in_range("c", c, 0.0, 1e9)?,
            _ => 0.0,
        };
        Ok(())
    }

    /// Chooses an arm, ties at random. Reads nothing but its arguments, so a seed replays it.
    ///
    /// # Errors
    /// [`BanditError::NoArms`].
    #[inline]
    pub fn choose(&self, arms: &Arms, rng: &mut impl Rng) -> Result<usize, BanditError> {
        let chosen = match *self {
            Self::Lean => lean::choose(arms, rng),
            Self::Thompson => largest_draw(arms, rng, None),
            Self::ThompsonWithFloor { floor } => {
                if rng.random::<f64>() < floor {
                    uniform(arms, rng)
                } else {
                    largest_draw(arms, rng, None)
                }
            }
            Self::TopTwoThompson { beta } => top_two(arms, beta, rng),
            Self::EpsilonGreedy(epsilon) => {
                if rng.random::<f64>() < epsilon.at(arms.count(), arms.clock()) {
                    uniform(arms, rng)
                } else {
                    greedy(arms, &mut Uniform(rng))
                }
            }
            Self::Index(kind) => by_index(kind, arms, &mut Uniform(rng)),
            Self::Uniform => uniform(arms, rng),
            Self::Campaign { plays } => campaign(arms, plays, &mut Uniform(rng)),
        };
        chosen.ok_or(BanditError::NoArms)
    }

    /// The choice of a deterministic policy (an index, ε-greedy with ε = 0, a campaign), ties to
    /// the lowest number.
    ///
    /// # Errors
    /// [`BanditError::NoArms`]; [`BanditError::Unsupported`] for a policy that draws.
    pub fn choose_lowest(&self, arms: &Arms) -> Result<usize, BanditError> {
        let chosen = match *self {
            Self::Index(kind) => by_index(kind, arms, &mut Lowest),
            Self::EpsilonGreedy(Epsilon::Fixed(0.0)) => greedy(arms, &mut Lowest),
            Self::Campaign { plays } => campaign(arms, plays, &mut Lowest),
            _ => {
                return Err(BanditError::Unsupported {
                    policy: format!("{self:?}"),
                    what: "a choice without randomness",
                });
            }
        };
        chosen.ok_or(BanditError::NoArms)
    }

    /// The probability with which the policy would choose each arm now; they add up to 1.
    ///
    /// # Errors
    /// [`BanditError::NoArms`]; [`BanditError::NotConverged`] for posteriors beyond double
    /// precision.
    pub fn probabilities(&self, arms: &Arms) -> Result<Vec<f64>, BanditError> {
        if arms.is_empty() {
            return Err(BanditError::NoArms);
        }
        match *self {
            Self::Lean => lean::probabilities(arms),
            Self::Thompson => Ok(best_arm(&arms.posteriors())?.probability),
            Self::ThompsonWithFloor { floor } => {
                mixed_with_uniform(&best_arm(&arms.posteriors())?.probability, floor)
            }
            Self::TopTwoThompson { beta } => {
                top_two_probabilities(&best_arm(&arms.posteriors())?.probability, beta)
            }
            Self::Uniform => Ok(vec![1.0 / arms.count(); arms.len()]),
            Self::EpsilonGreedy(epsilon) => {
                let share = epsilon.at(arms.count(), arms.clock());
                mixed_with_uniform(&greedy_probabilities(arms), share)
            }
            Self::Index(_) | Self::Campaign { .. } => {
                Ok(shared_among_twins(arms, self.choose_lowest(arms).ok()))
            }
        }
    }
}

/// Any arm.
#[inline]
fn uniform(arms: &Arms, rng: &mut impl Rng) -> Option<usize> {
    (!arms.is_empty()).then(|| rng.random_range(0..arms.len()))
}

/// The arm with the largest posterior draw, `excluded` left out.
#[inline]
fn largest_draw(arms: &Arms, rng: &mut impl Rng, excluded: Option<usize>) -> Option<usize> {
    let mut best = None;
    let mut top = f64::NEG_INFINITY;
    for (number, arm) in arms.as_slice().iter().enumerate() {
        let value = arm.draw(rng);
        if value > top && Some(number) != excluded {
            (best, top) = (Some(number), value);
        }
    }
    best
}

/// Top-two Thompson sampling.
fn top_two(arms: &Arms, beta: f64, rng: &mut impl Rng) -> Option<usize> {
    let winner = largest_draw(arms, rng, None)?;
    if arms.len() == 1 || rng.random::<f64>() < beta {
        return Some(winner);
    }
    for _ in 1..REDRAWS {
        let other = largest_draw(arms, rng, None)?;
        if other != winner {
            return Some(other);
        }
    }
    largest_draw(arms, rng, Some(winner))
}

fn greedy(arms: &Arms, ties: &mut impl Ties) -> Option<usize> {
    index::unplayed(arms, ties).or_else(|| index::greedy(arms, ties))
}

#[inline]
fn by_index(kind: Index, arms: &Arms, ties: &mut impl Ties) -> Option<usize> {
    index::unplayed(arms, ties).or_else(|| index::best(kind, arms, ties))
}

/// The arm with the largest finite-horizon index.
fn campaign(arms: &Arms, plays: u64, ties: &mut impl Ties) -> Option<usize> {
    let left = plays.saturating_sub(arms.next_decision() - 1).max(1);
    let lookahead = u32::try_from(left).unwrap_or(u32::MAX).min(MAX_LOOKAHEAD);
    let mut index = CampaignIndex::new(lookahead);
    let mut best = None;
    let mut top = f64::NEG_INFINITY;
    let mut equals = 1;
    for (number, posterior) in arms.posteriors().iter().enumerate() {
        let value = index.of(posterior);
        // Equal evidence gives equal bits; anything closer than this is a tie of rounding.
        if value > top + 1e-12 {
            (best, top, equals) = (Some(number), value, 1);
        } else if value >= top - 1e-12 {
            equals += 1;
            if best.is_none() || ties.replace(equals) {
                best = Some(number);
            }
        }
    }
    best
}

/// Greedy choice probabilities: unplayed arms share alike, else those with the largest rate.
fn greedy_probabilities(arms: &Arms) -> Vec<f64> {
    let top = arms
        .as_slice()
        .iter()
        .map(|arm| arm.mean)
        .fold(0.0, f64::max);
    let wins = |arm: &Arm| {
        if arms.any_unplayed() {
            arm.is_unplayed()
        } else {
            arm.mean >= top
        }
    };
    let winners: Vec<_> = arms.as_slice().iter().map(wins).collect();
    evenly(&winners)
}

/// Equal probabilities for the marked.
fn evenly(marked: &[bool]) -> Vec<f64> {
    let share = 1.0 / crate::special::float_len(marked.iter().filter(|m| **m).count().max(1));
    marked
        .iter()
        .map(|m| if *m { share } else { 0.0 })
        .collect()
}

/// Equal probabilities for the arm that a deterministic policy chooses and its twins: arms with the
/// same evidence have the same index.
fn shared_among_twins(arms: &Arms, chosen: Option<usize>) -> Vec<f64> {
    let Some(held) = chosen.and_then(|number| arms.as_slice().get(number)) else {
        return Vec::new();
    };
    let twin = |arm: &Arm| {
        arm.evidence() == held.evidence()
            && (!arm.is_unplayed() || arm.in_flight() == held.in_flight())
    };
    let marked: Vec<_> = arms.as_slice().iter().map(twin).collect();
    evenly(&marked)
}
