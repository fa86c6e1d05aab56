//! Planning: sample size, power, minimum detectable effect, duration.
//!
//! Fixed horizon, normal approximation, variances as they are under the effect (not pooled). An
//! effect is planned as a relative lift.

use super::special::{norm_isf, norm_sf};
use super::{StatsError, check_level, finite, non_negative, positive};

/// One- or two-sided test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sides {
    /// Only the direction of the effect counts.
    One,
    /// Half of the level on each side.
    Two,
}

impl Sides {
    /// Reads 1 or 2.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for anything else.
    #[expect(clippy::float_cmp, reason = "exactly 1 or 2 is meant")]
    pub fn from_f64(sides: f64) -> Result<Self, StatsError> {
        if sides == 1.0 {
            Ok(Self::One)
        } else if sides == 2.0 {
            Ok(Self::Two)
        } else {
            Err(StatsError::InvalidInput)
        }
    }

    fn count(self) -> f64 {
        match self {
            Self::One => 1.0,
            Self::Two => 2.0,
        }
    }
}

/// A test's level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    alpha: f64,
    sides: Sides,
}

impl Level {
    /// `alpha` is the total of all sides, inside (0, 1).
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] otherwise.
    pub fn new(alpha: f64, sides: Sides) -> Result<Self, StatsError> {
        let alpha = check_level(alpha)?;
        Ok(Self { alpha, sides })
    }

    fn quantile(self) -> f64 {
        norm_isf(self.alpha / self.sides.count())
    }

    /// Standard errors that an effect must be away from 0 to be found with this power.
    fn distance(self, power: f64) -> Result<f64, StatsError> {
        Ok((self.quantile() - norm_isf(check_level(power)?)).abs())
    }
}

/// What is measured, as far as it is known before the experiment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Baseline {
    /// A proportion: control's share, inside (0, 1).
    Proportion(f64),
    /// A mean: control's, and the standard deviation of units in both arms.
    Mean {
        /// Control's mean.
        mean: f64,
        /// Standard deviation of unit totals, not negative.
        sd: f64,
    },
}

/// Variances of a unit in both arms and the effect, all over the effect's unit, control's level:
/// so nothing leaves the range of floats at tiny levels.
struct Plan {
    /// Variance in control over the square of control's level.
    variance_a: f64,
    /// Variance in treatment, likewise.
    variance_b: f64,
    /// The effect over control's level: the lift.
    lift: f64,
}

impl Plan {
    fn new(baseline: Baseline, lift: f64) -> Result<Self, StatsError> {
        let lift = finite(lift)?;
        match baseline {
            Baseline::Proportion(share) => {
                let share = check_level(share)?;
                let treated = check_level(share * (1.0 + lift))?;
                // 1 − treated, with the digits that it has where the share is next to 1.
                let untreated = (-share).mul_add(lift, 1.0 - share);
                Ok(Self {
                    variance_a: (1.0 - share) / share,
                    variance_b: treated / share * untreated / share,
                    lift,
                })
            }
            Baseline::Mean { mean, sd } => {
                let (mean, sd) = (finite(mean)?, non_negative(sd)?);
                if sd == 0.0 {
                    return Err(StatsError::ZeroVariance);
                }
                if mean <= 0.0 {
                    return Err(StatsError::NonPositiveBaseline);
                }
                let variance = (sd / mean).powi(2);
                Ok(Self {
                    variance_a: variance,
                    variance_b: variance,
                    lift,
                })
            }
        }
    }
}

/// Units that an experiment needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleSize {
    /// Units in control, before rounding up.
    pub n_a: f64,
    /// Units in control, whole; a float because it may exceed all integers.
    pub n_a_ceil: f64,
    /// Units in treatment, whole.
    pub n_b_ceil: f64,
}

/// Units needed to find a relative `lift` with `power`, with `ratio` units in treatment for each
/// in control. The far tail of a two-sided test is ignored.
///
/// # Errors
/// [`StatsError::InvalidInput`] for parameters out of range (a treatment share outside (0, 1)
/// too) or a size beyond the range of floats; [`StatsError::ZeroVariance`] for a standard
/// deviation of 0; [`StatsError::NonPositiveBaseline`] for a mean that is not above 0;
/// [`StatsError::ZeroEffect`] for a lift of 0.
///
/// # Source
/// Fleiss, Levin & Paik, *Statistical Methods for Rates and Proportions*, 3rd ed., ch. 4, without
/// continuity correction and with unpooled variances.
pub fn sample_size(
    baseline: Baseline,
    lift: f64,
    level: Level,
    power: f64,
    ratio: f64,
) -> Result<SampleSize, StatsError> {
    let (distance, ratio) = (level.distance(power)?, positive(ratio)?);
    let plan = Plan::new(baseline, lift)?;
    if lift == 0.0 {
        return Err(StatsError::ZeroEffect);
    }
    let scale = distance / plan.lift;
    let n_a = finite((plan.variance_a + plan.variance_b / ratio) * scale * scale)?;
    Ok(SampleSize {
        n_a,
        n_a_ceil: n_a.ceil(),
        n_b_ceil: finite((ratio * n_a).ceil())?,
    })
}

/// Units in both arms, at least one in each.
fn check_units(n_a: i64, n_b: i64) -> Result<(f64, f64), StatsError> {
    match n_a.min(n_b) {
        i64::MIN..0 => Err(StatsError::InvalidInput),
        0 => Err(StatsError::NotEnoughData),
        1.. => Ok((n_a as f64, n_b as f64)),
    }
}

/// Chance to find a relative `lift` with so many units; without a lift it is the level. A
/// one-sided test is taken to look in the direction of the lift.
///
/// # Errors
/// As [`sample_size`]; [`StatsError::InvalidInput`] for a negative number of units,
/// [`StatsError::NotEnoughData`] for an empty arm.
pub fn power(
    baseline: Baseline,
    lift: f64,
    n_a: i64,
    n_b: i64,
    level: Level,
) -> Result<f64, StatsError> {
    let units = check_units(n_a, n_b);
    let plan = Plan::new(baseline, lift);
    // What is invalid comes before what is too little, and that before the method's own.
    let invalid = |error: StatsError| error == StatsError::InvalidInput;
    if plan.as_ref().is_err_and(|&error| invalid(error)) {
        return Err(StatsError::InvalidInput);
    }
    let (n_a, n_b) = units?;
    let plan = plan?;
    let se = (plan.variance_a / n_a + plan.variance_b / n_b).sqrt();
    let distance = finite(plan.lift.abs() / se)?;
    let quantile = level.quantile();
    let near = norm_sf(quantile - distance);
    Ok(match level.sides {
        Sides::One => near,
        Sides::Two => near + norm_sf(quantile + distance),
    })
}

/// The smallest relative lift above 0 that so many units find with `power`.
///
/// # Errors
/// As [`power`]; [`StatsError::Unreachable`] where no share below 1 is far enough.
pub fn minimum_detectable_lift(
    baseline: Baseline,
    n_a: i64,
    n_b: i64,
    level: Level,
    power: f64,
) -> Result<f64, StatsError> {
    let distance = level.distance(power);
    let units = check_units(n_a, n_b);
    let plan = Plan::new(baseline, 0.0);
    let invalid = [distance.err(), units.err(), plan.as_ref().err().copied()];
    if invalid.contains(&Some(StatsError::InvalidInput)) {
        return Err(StatsError::InvalidInput);
    }
    let ((n_a, n_b), plan, distance) = (units?, plan?, distance?);
    let flat = distance * (plan.variance_a * (1.0 / n_a + 1.0 / n_b)).sqrt();
    let lift = match baseline {
        Baseline::Mean { .. } => flat,
        Baseline::Proportion(share) => {
            let lift = proportion_lift(share, flat, distance * (distance / n_b));
            // No digit is left between the two where the share itself is next to 1.
            if share * lift >= 1.0 - share {
                return Err(StatsError::Unreachable);
            }
            lift
        }
    };
    finite(lift)
}

/// The positive root L of L² = flat² + c (L (1 − 2 p)/p − L²): the squared distance with the
/// variance that the treatment has at the lift.
fn proportion_lift(share: f64, flat: f64, c: f64) -> f64 {
    let linear = c * ((1.0 - 2.0 * share) / share);
    let square = 1.0 + c;
    let root = linear.hypot(2.0 * square.sqrt() * flat);
    // The form without cancellation.
    if linear >= 0.0 {
        (linear + root) / (2.0 * square)
    } else {
        2.0 * flat * (flat / (root - linear))
    }
}

/// Days until an experiment has `units` in all arms together at a traffic of `units_per_day`; not
/// rounded.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a negative number of units, traffic that is not above 0, or a
/// result beyond the range of floats.
pub fn days_at_traffic(units: f64, units_per_day: f64) -> Result<f64, StatsError> {
    finite(non_negative(units)? / positive(units_per_day)?)
}
