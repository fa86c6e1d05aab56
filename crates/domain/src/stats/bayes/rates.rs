//! Two rates with beta posteriors.
//!
//! Everything is an integral over the logit of a rate, on which posteriors are log-concave. Chances
//! and losses that are tiny are integrals of tiny integrands, never differences from 1.

use crate::stats::proportion::Proportion;
use crate::stats::special::LogitBeta;
use crate::stats::{Interval, StatsError, check_level, finite, positive};

use super::overlap::{Posterior, chances};
use super::ratio;

/// Below this value of alpha the control's rate may lie so close to 0 that a lift over it tells
/// nothing.
const LIFT_ALPHA_MIN: f64 = 5.0;

/// A beta prior of a rate: as if `alpha` units had done it before and `beta` had not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BetaPrior {
    alpha: f64,
    beta: f64,
}

impl BetaPrior {
    /// All rates are equally likely.
    pub const UNIFORM: Self = Self {
        alpha: 1.0,
        beta: 1.0,
    };

    /// Checks that both are finite and above 0; they need not be whole.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] otherwise.
    pub fn new(alpha: f64, beta: f64) -> Result<Self, StatsError> {
        let (alpha, beta) = (positive(alpha)?, positive(beta)?);
        finite(alpha + beta)?;
        Ok(Self { alpha, beta })
    }
}

/// Quantiles of rate_b/rate_a − 1 under the posteriors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiftQuantiles {
    /// Lower credible limit.
    pub lower: f64,
    /// Median.
    pub median: f64,
    /// Upper credible limit.
    pub upper: f64,
}

/// What the posteriors of two rates say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateComparison {
    /// P(rate_b > rate_a).
    pub prob_b_beats_a: f64,
    /// Its complement, with all its digits where the other is next to 1.
    pub prob_a_beats_b: f64,
    /// Natural logarithm of the chance of b, right where that underflows.
    pub ln_prob_b_beats_a: f64,
    /// Natural logarithm of the chance of a.
    pub ln_prob_a_beats_b: f64,
    /// E[max(rate_b − rate_a, 0)]: the cost of choosing a, in units of the rate.
    pub expected_loss_a: f64,
    /// E[max(rate_a − rate_b, 0)]: the cost of choosing b.
    pub expected_loss_b: f64,
    /// Posterior mean of control.
    pub mean_a: f64,
    /// Posterior mean of treatment.
    pub mean_b: f64,
    /// Equal-tailed credible interval of control.
    pub rate_a: Interval,
    /// Equal-tailed credible interval of treatment.
    pub rate_b: Interval,
    /// Quantiles of the lift; absent where the control's posterior has an alpha below 5.
    pub lift: Option<LiftQuantiles>,
}

/// Compares control `a` and treatment `b`, each with the posterior Beta(alpha + successes,
/// beta + failures), with two-sided credible limits at `credibility`. No units are fine: the
/// posterior is the prior.
///
/// For reading, not for deciding: a threshold on these numbers is not safe under peeking.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a credibility outside (0, 1), or parameters that lie beyond
/// the range of floats together.
///
/// # Source
/// Conjugate posteriors: Gelman et al., *Bayesian Data Analysis*, 3rd ed., sec. 2.4. Expected loss:
/// Stucchio, *Bayesian A/B testing at VWO* (2015).
pub fn compare_rates(
    a: Proportion,
    b: Proportion,
    prior: BetaPrior,
    credibility: f64,
) -> Result<RateComparison, StatsError> {
    let tail = (1.0 - check_level(credibility)?) / 2.0;
    let posterior = |arm: Proportion| {
        let failures = arm.units() - arm.successes();
        Posterior::new(
            [prior.alpha, arm.successes() as f64],
            [prior.beta, failures as f64],
        )
    };
    let (a, b) = (posterior(a), posterior(b));
    let chances = chances(&a, &b);
    let lift = (a.alpha() >= LIFT_ALPHA_MIN).then(|| lift(&a.logit, &b.logit, tail));
    let comparison = RateComparison {
        prob_b_beats_a: chances.b.ln_best.exp(),
        prob_a_beats_b: chances.a.ln_best.exp(),
        ln_prob_b_beats_a: finite(chances.b.ln_best)?,
        ln_prob_a_beats_b: finite(chances.a.ln_best)?,
        expected_loss_a: finite(chances.a.loss)?,
        expected_loss_b: finite(chances.b.loss)?,
        mean_a: finite(a.logit.mean())?,
        mean_b: finite(b.logit.mean())?,
        rate_a: credible(&a.logit, tail)?,
        rate_b: credible(&b.logit, tail)?,
        lift: lift.transpose()?,
    };
    Ok(comparison)
}

fn lift(a: &LogitBeta, b: &LogitBeta, tail: f64) -> Result<LiftQuantiles, StatsError> {
    let [lower, median, upper] = ratio::quantiles(a, b, tail);
    let lower = finite(lower.exp_m1())?;
    // Where nearly all mass is at one ratio, rounding may cross the quantiles.
    let median = finite(median.exp_m1())?.max(lower);
    let upper = finite(upper.exp_m1())?.max(median);
    Ok(LiftQuantiles {
        lower,
        median,
        upper,
    })
}

fn credible(posterior: &LogitBeta, tail: f64) -> Result<Interval, StatsError> {
    let lower = finite(posterior.lower_quantile(tail.ln()))?;
    let upper = finite(posterior.upper_quantile(tail.ln()))?;
    // Next to credibility 0 rounding may cross the limits.
    Ok(Interval {
        lower,
        upper: upper.max(lower),
    })
}
