//! Bayesian comparison of two rates and of a Gaussian effect, and the shrunk estimate.
//!
//! For reading, not for deciding: a threshold on a chance to beat control is not safe under
//! peeking.

mod overlap;
mod prior;
mod rates;
mod ratio;

pub use prior::{PROMOTIONS_MIN, PastEffect, fit_prior, promotion_prior};
pub use rates::{BetaPrior, LiftQuantiles, RateComparison, compare_rates};

use super::special::{norm_cdf, norm_ln_cdf, norm_ln_sf, norm_pdf, norm_sf};
use super::{Interval, StatsError, finite, non_negative, positive, two_sided_z};

/// A normal prior of an effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaussianPrior {
    mean: f64,
    sd: Option<f64>,
}

impl GaussianPrior {
    /// Normal with a mean and a standard deviation, in units of the effect. Without a deviation it
    /// is flat: all effects are equally likely, and the mean means nothing.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] unless both are finite and the deviation is above 0.
    pub fn new(mean: f64, sd: Option<f64>) -> Result<Self, StatsError> {
        Ok(Self {
            mean: finite(mean)?,
            sd: sd.map(positive).transpose()?,
        })
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The standard deviation; `None` for the flat prior.
    #[must_use]
    pub fn sd(&self) -> Option<f64> {
        self.sd
    }
}

/// What the posterior of an effect says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EffectPosterior {
    /// Mean: the shrunk estimate, which is reported at a promotion.
    pub mean: f64,
    /// Standard deviation.
    pub sd: f64,
    /// P(effect > 0).
    pub prob_positive: f64,
    /// P(effect < 0), from its own tail.
    pub prob_negative: f64,
    /// Natural logarithm of the chance above 0.
    pub ln_prob_positive: f64,
    /// Natural logarithm of the chance below 0.
    pub ln_prob_negative: f64,
    /// E[max(effect, 0)]: the cost of choosing control, in units of the effect.
    pub risk_choose_a: f64,
    /// E[max(−effect, 0)]: the cost of choosing the treatment.
    pub risk_choose_b: f64,
    /// Equal-tailed credible interval.
    pub interval: Interval,
    /// Shrunk over raw estimate; absent where the prior's mean is not 0, or the estimate is.
    pub shrink_factor: Option<f64>,
}

/// Posterior of an effect whose estimate is normal with standard error `se`, with a two-sided
/// interval at `credibility`.
///
/// # Errors
/// [`StatsError::InvalidInput`] for numbers that are not finite, a negative standard error, a
/// credibility outside (0, 1), or a result beyond the range of floats;
/// [`StatsError::ZeroVariance`] for a standard error of 0.
///
/// # Source
/// Normal model with known variance: Gelman et al., *Bayesian Data Analysis*, 3rd ed., sec. 2.5.
pub fn posterior_effect(
    estimate: f64,
    se: f64,
    prior: &GaussianPrior,
    credibility: f64,
) -> Result<EffectPosterior, StatsError> {
    let quantile = two_sided_z(credibility)?;
    let (estimate, se) = (finite(estimate)?, non_negative(se)?);
    if se == 0.0 {
        return Err(StatsError::ZeroVariance);
    }
    let (mean, sd) = combine(estimate, se, prior);
    let z = finite(mean / sd)?;
    let half = finite(quantile * sd)?;
    let shrinks = estimate != 0.0 && (prior.mean == 0.0 || prior.sd.is_none());
    Ok(EffectPosterior {
        mean: finite(mean)?,
        sd,
        prob_positive: norm_cdf(z),
        prob_negative: norm_sf(z),
        ln_prob_positive: finite(norm_ln_cdf(z))?,
        ln_prob_negative: finite(norm_ln_sf(z))?,
        risk_choose_a: finite(sd * normal_loss(-z))?,
        risk_choose_b: finite(sd * normal_loss(z))?,
        interval: Interval {
            lower: finite(mean - half)?,
            upper: finite(mean + half)?,
        },
        shrink_factor: shrinks.then(|| weight(se, prior)),
    })
}

/// Mean and standard deviation of the posterior.
fn combine(estimate: f64, se: f64, prior: &GaussianPrior) -> (f64, f64) {
    let Some(prior_sd) = prior.sd else {
        return (estimate, se);
    };
    let rest = weight(
        prior_sd,
        &GaussianPrior {
            sd: Some(se),
            ..*prior
        },
    );
    let mean = weight(se, prior) * estimate + rest * prior.mean;
    let (small, large) = if se < prior_sd {
        (se, prior_sd)
    } else {
        (prior_sd, se)
    };
    (mean, small / (small / large).hypot(1.0))
}

/// The weight of an estimate with standard error `se` beside the prior.
fn weight(se: f64, prior: &GaussianPrior) -> f64 {
    prior.sd.map_or(1.0, |sd| {
        let ratio = se / sd;
        // Neither form leaves the range of floats before its result does.
        if ratio > 1.0 {
            let inverse = sd / se;
            inverse * (inverse / (1.0 + inverse * inverse))
        } else {
            1.0 / (1.0 + ratio * ratio)
        }
    })
}

/// E[max(−Z − z, 0)] = φ(z) − z P(Z > z) of a standard normal Z: the unit normal loss.
fn normal_loss(z: f64) -> f64 {
    if z < 0.0 {
        return normal_loss(-z) - z;
    }
    // Both terms round to nothing at about z = 38; the difference loses z² ulps before.
    (norm_pdf(z) - z * norm_sf(z)).max(0.0)
}
