//! The prior that shrinks the effect at a promotion.
//!
//! What is promoted was selected for a large estimate, so the raw lift promises too much. Shrinking
//! towards what earlier promotions turned out to be corrects that.

use crate::stats::{StatsError, finite, positive};

use super::GaussianPrior;

/// Own promotions from which on the prior is fitted from them.
pub const PROMOTIONS_MIN: usize = 10;
/// Standard deviation of relative effects until then.
const DEFAULT_SD: f64 = 0.05;
/// Steps of the root search; about six are usual.
const STEPS: u32 = 200;

/// The estimated effect of an earlier promotion, with its standard error; relative effects
/// (lifts), so that experiments with different baselines compare.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PastEffect {
    estimate: f64,
    se: f64,
}

impl PastEffect {
    /// Checks that the estimate is finite, the standard error finite and above 0.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] otherwise.
    pub fn new(estimate: f64, se: f64) -> Result<Self, StatsError> {
        Ok(Self {
            estimate: finite(estimate)?,
            se: positive(se)?,
        })
    }
}

/// The prior of an absolute effect on a metric whose control stands at `baseline`: mean 0 and a
/// standard deviation of 5 % of the baseline until [`PROMOTIONS_MIN`] own promotions exist, then
/// fitted from them. Where these differ by no more than their errors the default stays: they do
/// not tell how far effects spread.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a baseline that is not finite, or a prior beyond the range of
/// floats; [`StatsError::NonPositiveBaseline`] for one that is not above 0.
pub fn promotion_prior(baseline: f64, past: &[PastEffect]) -> Result<GaussianPrior, StatsError> {
    if finite(baseline)? <= 0.0 {
        return Err(StatsError::NonPositiveBaseline);
    }
    let (mean, sd) = match fit_prior(past) {
        Ok(fitted) => (fitted.mean, fitted.sd.unwrap_or(DEFAULT_SD)),
        Err(StatsError::NotEnoughData | StatsError::ZeroVariance) => (0.0, DEFAULT_SD),
        Err(error) => return Err(error),
    };
    GaussianPrior::new(mean * baseline, Some(sd * baseline))
}

/// Fits mean and standard deviation of the true effects behind noisy estimates, by the method of
/// moments: the variance τ² at which the weighted squares Σ (y − μ)²/(se² + τ²), with μ the mean
/// weighted likewise, equal their expectation k − 1.
///
/// The estimates of promotions are taken from after the decision where there are such (a held-back
/// share): those that led to it are too large, and so is a prior fitted from them.
///
/// # Errors
/// [`StatsError::NotEnoughData`] below [`PROMOTIONS_MIN`] effects; [`StatsError::ZeroVariance`]
/// where they differ by no more than their errors; [`StatsError::InvalidInput`] where the sums
/// leave the range of floats.
///
/// # Source
/// Paule & Mandel, J. Res. Natl. Bur. Stand. 87 (1982), 377–385.
pub fn fit_prior(past: &[PastEffect]) -> Result<GaussianPrior, StatsError> {
    if past.len() < PROMOTIONS_MIN {
        return Err(StatsError::NotEnoughData);
    }
    let expected = (past.len() - 1) as f64;
    let start = Scatter::new(past, 0.0);
    if finite(start.squares)? <= expected {
        return Err(StatsError::ZeroVariance);
    }
    // The squares fall with the variance and are convex in it, so Newton's method converges from
    // 0 without ever stepping too far.
    let mut variance = 0.0;
    let mut scatter = start;
    for _ in 0..STEPS {
        let step = (scatter.squares - expected) / scatter.decline;
        if step.is_nan() || step <= 1e-14 * variance {
            break;
        }
        variance += step;
        scatter = Scatter::new(past, variance);
    }
    GaussianPrior::new(scatter.mean, Some(finite(variance)?.sqrt()))
}

/// The effects around their weighted mean, when the true ones have a variance.
struct Scatter {
    mean: f64,
    /// Σ (y − μ)²/(se² + τ²).
    squares: f64,
    /// Minus its derivative by τ².
    decline: f64,
}

impl Scatter {
    fn new(past: &[PastEffect], variance: f64) -> Self {
        let weight = |effect: &PastEffect| 1.0 / (effect.se * effect.se + variance);
        let total: f64 = past.iter().map(weight).sum();
        let weighted: f64 = past.iter().map(|e| weight(e) / total * e.estimate).sum();
        let (mut squares, mut decline) = (0.0, 0.0);
        for effect in past {
            let square = weight(effect) * (effect.estimate - weighted).powi(2);
            squares += square;
            decline += square * weight(effect);
        }
        Self {
            mean: weighted,
            squares,
            decline,
        }
    }
}
