//! Guardrails: is a treatment worse than control by no more than a margin?

use super::lift::Estimate;
use super::special::{norm_isf, norm_ln_sf, norm_sf};
use super::{StatsError, check_level, finite, non_negative, positive, two_sum};

/// Which way of a metric is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Error rate, latency.
    LowerIsBetter,
    /// Conversion, revenue.
    HigherIsBetter,
}

/// By how much a treatment may be worse; above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Margin {
    /// In units of the metric.
    Absolute(f64),
    /// As a fraction of the control mean; below 1 where higher is better.
    Relative(f64),
}

/// What a guardrail says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Proved not to be worse than the margin.
    NonInferior,
    /// Proved to be worse than the margin.
    Inferior,
    /// Neither: wait.
    Inconclusive,
}

impl Verdict {
    /// The name, as it stands in the reference numbers and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NonInferior => "non_inferior",
            Self::Inferior => "inferior",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// A one-sided test against the margin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NonInferiority {
    /// Distance from the margin on its good side, in standard errors.
    pub z: f64,
    /// p-value of "worse by the margin or more".
    pub p: f64,
    /// Its natural logarithm.
    pub ln_p: f64,
    /// Each side at the one-sided level.
    pub verdict: Verdict,
}

/// Tests control `a` against treatment `b` at the one-sided level `alpha`.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a margin or level out of range, or numbers beyond the range of
/// floats; [`StatsError::NonPositiveBaseline`] for a relative margin on a control mean that is not
/// above 0; [`StatsError::ZeroVariance`] where the standard error is 0: equality is no proof.
///
/// # Source
/// Wald test of a shifted null hypothesis; the relative form is linear in the means, after
/// Fieller, J. R. Statist. Soc. B 16 (1954), 175–185.
pub fn non_inferiority(
    a: &Estimate,
    b: &Estimate,
    direction: Direction,
    margin: Margin,
    alpha: f64,
) -> Result<NonInferiority, StatsError> {
    let limit = Limit::new(a, direction, margin)?;
    let se = finite((limit.factor * a.se2().sqrt()).hypot(b.se2().sqrt()))?;
    // Good minus bad: the treatment on the right side of the limit.
    let distance = match direction {
        Direction::LowerIsBetter => limit.minus(b.mean()),
        Direction::HigherIsBetter => -limit.minus(b.mean()),
    };
    of_distance(distance, se, alpha)
}

/// Judges how far a treatment lies on the good side of its margin, in the metric's unit, by the standard error `se` of
/// that distance, at the one-sided level `alpha`.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a level out of range, or numbers beyond the range of floats;
/// [`StatsError::ZeroVariance`] where the standard error is 0: equality is no proof.
pub fn of_distance(distance: f64, se: f64, alpha: f64) -> Result<NonInferiority, StatsError> {
    let quantile = norm_isf(check_level(alpha)?);
    if non_negative(se)? == 0.0 {
        return Err(StatsError::ZeroVariance);
    }
    let z = finite(finite(distance)? / se)?;
    let p = norm_sf(z);
    let verdict = if p <= alpha {
        Verdict::NonInferior
    } else if z <= -quantile {
        Verdict::Inferior
    } else {
        Verdict::Inconclusive
    };
    Ok(NonInferiority {
        z,
        p,
        ln_p: finite(norm_ln_sf(z))?,
        verdict,
    })
}

/// The value of the metric at which the margin is used up: three terms that are added exactly,
/// because the treatment may lie next to it.
struct Limit {
    terms: [f64; 3],
    /// What multiplies the control's standard error.
    factor: f64,
}

impl Limit {
    fn new(a: &Estimate, direction: Direction, margin: Margin) -> Result<Self, StatsError> {
        let sign = match direction {
            Direction::LowerIsBetter => 1.0,
            Direction::HigherIsBetter => -1.0,
        };
        match margin {
            Margin::Absolute(margin) => Ok(Self {
                terms: [a.mean(), sign * positive(margin)?, 0.0],
                factor: 1.0,
            }),
            Margin::Relative(margin) => {
                let margin = positive(margin)?;
                if direction == Direction::HigherIsBetter && margin >= 1.0 {
                    return Err(StatsError::InvalidInput);
                }
                if a.mean() <= 0.0 {
                    return Err(StatsError::NonPositiveBaseline);
                }
                let shift = sign * margin;
                let product = shift * a.mean();
                Ok(Self {
                    terms: [a.mean(), product, shift.mul_add(a.mean(), -product)],
                    factor: 1.0 + shift,
                })
            }
        }
    }

    /// The limit minus a value.
    fn minus(&self, value: f64) -> f64 {
        let [mean, shift, rest] = self.terms;
        let (sum, lost) = two_sum(mean, shift);
        let (difference, lost_too) = two_sum(sum, -value);
        difference + (lost + lost_too + rest)
    }
}
