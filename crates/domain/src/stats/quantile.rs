//! Quantiles, such as a latency's 95 % point, with exact intervals, and a guardrail on their ratio.

mod ranks;

pub(super) use ranks::limits;

use super::noninferiority::Verdict;
use super::special::norm_isf;
use super::{Interval, StatsError, check_level, finite, positive, two_sided_z, two_sum};

/// A limit of a quantile's interval: an order statistic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankedLimit {
    /// Rank in the sorted sample, from 1.
    pub rank: usize,
    /// The value there.
    pub value: f64,
}

/// A quantile of a sample, with limits that hold their level for any distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileEstimate {
    /// The quantile, of type 7.
    pub value: f64,
    /// Lower limit; absent where the sample is too small to have one.
    pub lower: Option<RankedLimit>,
    /// Upper limit, likewise.
    pub upper: Option<RankedLimit>,
}

/// The `q` quantile of a sample, with a two-sided interval at `confidence`, each side at half of
/// the rest.
///
/// # Errors
/// [`StatsError::InvalidInput`] for values that are not finite, or q or confidence outside (0, 1);
/// [`StatsError::NotEnoughData`] without values.
///
/// # Source
/// Quantile: Hyndman & Fan, Amer. Statist. 50 (1996), 361–365, type 7. Interval: David & Nagaraja,
/// *Order Statistics*, 3rd ed., sec. 7.1.
pub fn quantile(values: &[f64], q: f64, confidence: f64) -> Result<QuantileEstimate, StatsError> {
    let tail = (1.0 - check_level(confidence)?) / 2.0;
    check_level(q)?;
    check_values(values)?;
    if values.is_empty() {
        return Err(StatsError::NotEnoughData);
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    Ok(of_sorted(&sorted, q, tail))
}

fn check_values(values: &[f64]) -> Result<(), StatsError> {
    if values.iter().all(|value| value.is_finite()) {
        Ok(())
    } else {
        Err(StatsError::InvalidInput)
    }
}

fn of_sorted(sorted: &[f64], q: f64, tail: f64) -> QuantileEstimate {
    let position = QuantilePosition::new(sorted.len(), q);
    let (below, above) = position.neighbours(sorted);
    let ranks = ranks::limits(sorted.len(), q, tail);
    let limit = |rank: Option<usize>| {
        let rank = rank?;
        let value = *sorted.get(rank.checked_sub(1)?)?;
        Some(RankedLimit { rank, value })
    };
    QuantileEstimate {
        value: position.between(below, above).0,
        lower: limit(ranks.0),
        upper: limit(ranks.1),
    }
}

/// Two quantiles as a ratio, with one-sided limits and a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileRatio {
    /// Quantile in control.
    pub quantile_a: f64,
    /// Quantile in treatment.
    pub quantile_b: f64,
    /// Standard error of the logarithm of control's quantile, from the width of its interval.
    pub log_se_a: f64,
    /// Likewise in treatment.
    pub log_se_b: f64,
    /// quantile_b/quantile_a − 1.
    pub change: f64,
    /// One-sided limits of the change, each at the level.
    pub limits: Interval,
    /// Of "treatment is higher by no more than the margin".
    pub verdict: Verdict,
}

/// What a comparison of quantiles is to show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileGuardrail {
    /// Which quantile, inside (0, 1).
    pub q: f64,
    /// Confidence of the order-statistic intervals that give the standard errors, inside (0, 1).
    pub confidence: f64,
    /// Relative increase that is tolerated, above 0.
    pub margin: f64,
    /// One-sided level, inside (0, 1).
    pub alpha: f64,
}

/// Compares a quantile of treatment `b` with control's, where lower is better.
///
/// # Errors
/// [`StatsError::InvalidInput`] for values that are not finite, a parameter out of range, or a
/// result beyond the range of floats; [`StatsError::NotEnoughData`] where an interval has no
/// limit; [`StatsError::NonPositiveValue`] for a quantile or limit that is not above 0;
/// [`StatsError::ZeroVariance`] where neither quantile has a width.
///
/// # Source
/// Standard error from the interval's width: Price & Bonett, J. Stat. Comput. Simul. 68 (2001),
/// 295–305.
pub fn quantile_ratio(
    a: &[f64],
    b: &[f64],
    guardrail: &QuantileGuardrail,
) -> Result<QuantileRatio, StatsError> {
    let z = two_sided_z(guardrail.confidence)?;
    let one_sided = norm_isf(check_level(guardrail.alpha)?);
    let margin = positive(guardrail.margin)?;
    check_values(b)?;
    let estimate = |values: &[f64]| quantile(values, guardrail.q, guardrail.confidence);
    let (a, b) = (estimate(a)?, estimate(b)?);
    let (limits_a, limits_b) = (a.limits()?, b.limits()?);
    let (width_a, width_b) = (a.ln_width(limits_a)?, b.ln_width(limits_b)?);
    let (log_se_a, log_se_b) = (width_a / (2.0 * z), width_b / (2.0 * z));
    let se = finite(log_se_a.hypot(log_se_b))?;
    if se == 0.0 {
        return Err(StatsError::ZeroVariance);
    }
    let log_ratio = ln_ratio(b.value, a.value);
    let limits = Interval {
        lower: finite((log_ratio - one_sided * se).exp_m1())?,
        upper: finite((log_ratio + one_sided * se).exp_m1())?,
    };
    let verdict = if limits.upper < margin {
        Verdict::NonInferior
    } else if limits.lower > margin {
        Verdict::Inferior
    } else {
        Verdict::Inconclusive
    };
    Ok(QuantileRatio {
        quantile_a: a.value,
        quantile_b: b.value,
        log_se_a,
        log_se_b,
        change: finite(log_ratio.exp_m1())?,
        limits,
        verdict,
    })
}

impl QuantileEstimate {
    /// Both limits.
    fn limits(&self) -> Result<Interval, StatsError> {
        let limits = self.lower.zip(self.upper);
        let limits = limits.map(|(lower, upper)| Interval {
            lower: lower.value,
            upper: upper.value,
        });
        limits.ok_or(StatsError::NotEnoughData)
    }

    /// ln of the upper limit over the lower one, where all values are above 0.
    fn ln_width(&self, limits: Interval) -> Result<f64, StatsError> {
        if [self.value, limits.lower, limits.upper]
            .iter()
            .any(|value| *value <= 0.0)
        {
            return Err(StatsError::NonPositiveValue);
        }
        Ok(ln_ratio(limits.upper, limits.lower))
    }
}

/// ln(a/b) for values above 0, with all digits where they are next to each other.
fn ln_ratio(a: f64, b: f64) -> f64 {
    let excess = (a - b) / b;
    if excess.abs() < 0.5 {
        excess.ln_1p()
    } else {
        a.ln() - b.ln()
    }
}

/// Where a quantile of type 7 lies in a sorted sample: (n − 1) q, in exact arithmetic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct QuantilePosition {
    /// Rank below, from 0.
    index: usize,
    /// Share of the way to the next rank, in [0, 1].
    fraction: f64,
}

impl QuantilePosition {
    /// For at least one value and a level in [0, 1].
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the number of values"
    )]
    pub(super) fn new(count: usize, level: f64) -> Self {
        let last = count.saturating_sub(1) as f64;
        let product = last * level;
        let error = last.mul_add(level, -product);
        let floor = product.floor();
        // A product that was rounded up to a whole number lies below it.
        if product.fract() == 0.0 && error < 0.0 {
            return Self {
                index: (floor - 1.0) as usize,
                fraction: 1.0 + error,
            };
        }
        Self {
            index: floor as usize,
            fraction: product - floor + error,
        }
    }

    /// Whether the quantile is a value of the sample itself.
    pub(super) fn is_on_value(&self) -> bool {
        self.fraction == 0.0
    }

    /// The values at both ranks of a sorted sample that is not empty.
    pub(super) fn neighbours(&self, sorted: &[f64]) -> (f64, f64) {
        let last = sorted.len() - 1;
        (
            sorted[self.index.min(last)],
            sorted[(self.index + 1).min(last)],
        )
    }

    /// The same of a sample in any order, which changes.
    pub(super) fn select_neighbours(&self, values: &mut [f64]) -> (f64, f64) {
        let index = self.index.min(values.len() - 1);
        let (_, below, larger) = values.select_nth_unstable_by(index, f64::total_cmp);
        let above = larger.iter().copied().min_by(f64::total_cmp);
        (*below, above.unwrap_or(*below))
    }

    /// Linear interpolation, and what rounding took from it.
    pub(super) fn between(&self, below: f64, above: f64) -> (f64, f64) {
        let (width, width_rest) = two_sum(above, -below);
        let step = self.fraction * width;
        if !step.is_finite() {
            let blend = (1.0 - self.fraction) * below + self.fraction * above;
            return (blend, 0.0);
        }
        let step_rest = self.fraction.mul_add(width, -step) + self.fraction * width_rest;
        let (value, rest) = two_sum(below, step);
        (value, rest + step_rest)
    }
}
