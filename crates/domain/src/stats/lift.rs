//! Relative lift b/a − 1 of two means, with three intervals.
//!
//! The delta method is quick and symmetric; Fieller's interval holds its level where the control
//! mean is weak, and says so by being unbounded where it cannot be told from 0; the log ratio never
//! goes below −100 %.

use super::mean::MeanSummary;
use super::special::{norm_ln_two_sided, norm_two_sided};
use super::{Interval, StatsError, finite, non_negative, two_sided_z};

/// Mean of an arm and its squared standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    mean: f64,
    /// What rounding took from the mean.
    rest: f64,
    se2: f64,
}

impl Estimate {
    /// Checks that the mean is finite, the squared error finite and not negative.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] otherwise.
    pub fn new(mean: f64, se2: f64) -> Result<Self, StatsError> {
        Ok(Self {
            mean: finite(mean)?,
            rest: 0.0,
            se2: non_negative(se2)?,
        })
    }

    /// Of unit totals.
    ///
    /// # Errors
    /// [`StatsError::NotEnoughData`] below two units.
    pub fn of_mean(summary: &MeanSummary) -> Result<Self, StatsError> {
        Ok(Self {
            rest: summary.rest(),
            ..Self::new(summary.mean(), summary.se2()?)?
        })
    }

    /// This mean minus another.
    fn minus(&self, other: &Self) -> f64 {
        (self.mean - other.mean) + (self.rest - other.rest)
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Its squared standard error.
    #[must_use]
    pub fn se2(&self) -> f64 {
        self.se2
    }
}

/// Lift with the interval of the delta method.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeltaLift {
    /// b/a − 1, a fraction: 0.05 is 5 %.
    pub lift: f64,
    /// Its standard error.
    pub se: f64,
    /// Two-sided interval.
    pub interval: Interval,
}

/// Lift with the interval of the log ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogRatioLift {
    /// ln(b/a).
    pub log_ratio: f64,
    /// Its standard error.
    pub se: f64,
    /// Two-sided interval of the lift, back from the logarithm.
    pub interval: Interval,
    /// Two-sided p-value of "no lift" on this scale.
    pub p_two_sided: f64,
}

/// Relative lift of b over a.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RelativeLift {
    /// By the delta method.
    pub delta: DeltaLift,
    /// Two-sided p-value of lift 0 with the delta method's standard error; for decisions use the
    /// test of the difference.
    pub p_delta_two_sided: f64,
    /// Its natural logarithm.
    pub ln_p_delta_two_sided: f64,
    /// Fieller's interval; absent where it is unbounded, because the control mean is not
    /// distinguishable from 0 at this confidence.
    pub fieller: Option<Interval>,
    /// By the log ratio; absent where the treatment mean is not above 0.
    pub log_ratio: Option<LogRatioLift>,
}

/// Lift of treatment `b` over control `a`, with two-sided intervals at `confidence`, all with the
/// normal quantile.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a confidence outside (0, 1) or numbers beyond the range of
/// floats; [`StatsError::NonPositiveBaseline`] where the control mean is not above 0;
/// [`StatsError::ZeroVariance`] where the standard error of the lift is 0.
///
/// # Source
/// Fieller, J. R. Statist. Soc. B 16 (1954), 175–185; delta method and log ratio as usual.
pub fn relative_lift(
    a: &Estimate,
    b: &Estimate,
    confidence: f64,
) -> Result<RelativeLift, StatsError> {
    let quantile = two_sided_z(confidence)?;
    if a.mean <= 0.0 {
        return Err(StatsError::NonPositiveBaseline);
    }
    let delta = delta_lift([a.mean, a.se2], [b.mean, b.se2], b.minus(a), quantile)
        .ok_or(StatsError::NonPositiveBaseline)?;
    if delta.se == 0.0 {
        return Err(StatsError::ZeroVariance);
    }
    finite(delta.lift)?;
    let z = finite(delta.lift / delta.se)?;
    Ok(RelativeLift {
        delta,
        p_delta_two_sided: norm_two_sided(z),
        ln_p_delta_two_sided: finite(norm_ln_two_sided(z))?,
        fieller: fieller(a, b, quantile),
        log_ratio: log_ratio(a, b, quantile),
    })
}

/// The lift by the delta method at a normal quantile, from each arm's mean and squared error, control first, and the
/// difference of the means; `None` where the control mean is not above 0. Quotients come before powers, because the fourth power of a small mean underflows.
pub(super) fn delta_lift(
    [mean_a, se2_a]: [f64; 2],
    [mean_b, se2_b]: [f64; 2],
    difference: f64,
    quantile: f64,
) -> Option<DeltaLift> {
    if mean_a <= 0.0 {
        return None;
    }
    let lift = difference / mean_a;
    let se = (se2_b.sqrt() / mean_a).hypot(mean_b / mean_a * (se2_a.sqrt() / mean_a));
    Some(DeltaLift {
        lift,
        se,
        interval: Interval::around(lift, quantile * se),
    })
}

/// The ratios ρ with (b − ρ a)² ≤ z² (se_b² + ρ² se_a²), minus 1.
fn fieller(a: &Estimate, b: &Estimate, quantile: f64) -> Option<Interval> {
    let weakness = (quantile * (a.se2.sqrt() / a.mean)).powi(2);
    if weakness >= 1.0 {
        return None;
    }
    let ratio = b.mean / a.mean;
    let (error_a, error_b) = (ratio * (a.se2.sqrt() / a.mean), b.se2.sqrt() / a.mean);
    let half = quantile * (error_b * error_b * (1.0 - weakness) + error_a * error_a).sqrt();
    // (ratio ± half) / (1 − g) − 1, with the lift formed before it can cancel.
    let centre = b.minus(a) / a.mean + weakness;
    Some(Interval {
        lower: (centre - half) / (1.0 - weakness),
        upper: (centre + half) / (1.0 - weakness),
    })
}

fn log_ratio(a: &Estimate, b: &Estimate, quantile: f64) -> Option<LogRatioLift> {
    if b.mean <= 0.0 {
        return None;
    }
    let ratio = b.mean / a.mean;
    // Next to 1 the logarithm of the rounded ratio has no digits left.
    let near = (0.5..2.0).contains(&ratio);
    let log_ratio = if near {
        (b.minus(a) / a.mean).ln_1p()
    } else {
        ratio.ln()
    };
    let se = (a.se2.sqrt() / a.mean).hypot(b.se2.sqrt() / b.mean);
    let limit = |sign: f64| (log_ratio + sign * quantile * se).exp_m1();
    Some(LogRatioLift {
        log_ratio,
        se,
        interval: Interval {
            lower: limit(-1.0),
            upper: limit(1.0),
        },
        p_two_sided: norm_two_sided(log_ratio / se),
    })
}
