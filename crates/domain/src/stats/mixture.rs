//! Sequential tests and confidence sequences by a normal mixture over effects.
//!
//! They hold at every look, however often and whenever one looks, as far as the estimate is
//! normal: demand a minimum of conversions before the first look.

use std::f64::consts::LN_2;

use super::eprocess::p_value;
use super::special::{HALF_LN_TAU, norm_ln_cdf, norm_ln_scaled_sf};
use super::{Interval, StatsError, check_level, count_from_f64, finite, non_negative, positive};

/// Steps of Newton's method; two are usual.
const STEPS: u32 = 100;
/// Newton's method squares its error: after a step this small, relative to the root, what is left is rounding.
const LAST_STEP: f64 = 1e-9;
/// Level from which on 2 Φ(y) is nearly 2 at the root.
const HIGH: f64 = 2.0;

/// A mixture over effects, in units of the standard error of the estimate.
#[derive(Clone, Copy)]
struct Mixture {
    /// τ²/(V + τ²): how much of an estimate the mixture believes.
    belief: f64,
    /// ln((V + τ²)/V).
    ln_growth: f64,
}

impl Mixture {
    /// From τ over the standard error; squares of extreme ratios do not overflow.
    fn new(ratio: f64) -> Self {
        let (square, inverse) = (ratio * ratio, 1.0 / ratio / ratio);
        Self {
            belief: 1.0 / (1.0 + inverse),
            ln_growth: if ratio < 1.0 {
                square.ln_1p()
            } else {
                2.0 * ratio.ln() + inverse.ln_1p()
            },
        }
    }

    /// ln e against "no effect" at an estimate of z standard errors.
    fn ln_e(self, z: f64) -> f64 {
        0.5 * (z * self.belief * z - self.ln_growth)
    }

    /// ln e against "no positive effect" at an estimate of z standard errors.
    ///
    /// The two-sided evidence and the chance of a positive effect nearly cancel far below 0, so
    /// they are taken as one.
    fn ln_e_positive(self, z: f64) -> f64 {
        LN_2 + norm_ln_scaled_sf(-z * self.belief.sqrt()) - 0.5 * self.ln_growth
    }

    /// Half the width of the two-sided confidence sequence, in standard errors.
    fn half_width(self, alpha: f64) -> f64 {
        ((self.ln_growth - 2.0 * alpha.ln()) / self.belief).sqrt()
    }

    /// Distance of the one-sided lower limit from the estimate, in standard errors.
    fn one_sided_width(self, alpha: f64) -> f64 {
        one_sided_root(0.5 * self.ln_growth - alpha.ln()) / self.belief.sqrt()
    }
}

/// The y ≥ 0 with ½ y² + ln(2 Φ(y)) = `level`, for a level ≥ 0: where the mixture over positive
/// effects reaches it.
///
/// The left side is convex and rises, so Newton's method comes to the right of the root in its first step, if it does not
/// begin there, and never leaves that side.
pub(super) fn one_sided_root(level: f64) -> f64 {
    let nearly = if level > HIGH { level - LN_2 } else { level };
    let mut y = (2.0 * nearly).sqrt();
    for _ in 0..STEPS {
        let ln_cdf = norm_ln_cdf(y);
        let excess = 0.5 * y * y + ln_cdf + LN_2 - level;
        let hazard = (-0.5 * y * y - HALF_LN_TAU - ln_cdf).exp();
        let step = excess / (y + hazard);
        y -= step;
        if step.abs() <= LAST_STEP * y {
            break;
        }
    }
    y
}

/// An estimate judged by a mixture over effects of a size fixed beforehand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EffectMixture {
    /// ln e against "no effect".
    pub ln_e2: f64,
    /// ln e against "no positive effect".
    pub ln_e1: f64,
    /// Anytime-valid p-value of the first, at this look: min(1, 1/e).
    pub p2: f64,
    /// Anytime-valid p-value of the second.
    pub p1: f64,
    /// Two-sided confidence sequence of the effect at level 1 − α.
    pub two_sided: Interval,
    /// Lower limit of the one-sided confidence sequence at level 1 − α.
    pub one_sided_lower: f64,
    /// Whether e reaches 1/α two-sided and the estimate is positive: the confidence sequence lies
    /// above 0.
    pub reject2: bool,
    /// Whether e reaches 1/α one-sided.
    pub reject1: bool,
}

/// Judges an `estimate` with standard error `se` by effects of about `tau` (the standard deviation
/// of the mixture, in the estimate's units, fixed before the experiment), at level `alpha`.
///
/// The two-sided mixture is Normal(0, τ²), the one-sided one its positive half.
///
/// # Errors
/// [`StatsError::InvalidInput`] for numbers that are not finite, a negative standard error, τ that
/// is not above 0, or α outside (0, 1); [`StatsError::ZeroVariance`] for a standard error of 0.
///
/// # Source
/// Robbins, Ann. Math. Statist. 41 (1970), 1397–1409; Johari, Koomen, Pekelis & Walsh, *Always
/// valid inference*, Operations Research 70 (2022), 1806–1821.
pub fn effect_scale(
    estimate: f64,
    se: f64,
    tau: f64,
    alpha: f64,
) -> Result<EffectMixture, StatsError> {
    let alpha = check_level(alpha)?;
    let mixture = of_errors(se, tau)?;
    let EffectEvidence {
        two_sided: ln_e2,
        positive: ln_e1,
        ..
    } = effect_evidence(estimate, se, tau)?;
    let half = finite(mixture.half_width(alpha) * se)?;
    Ok(EffectMixture {
        ln_e2,
        ln_e1,
        p2: p_value(ln_e2),
        p1: p_value(ln_e1),
        two_sided: Interval::around(estimate, half),
        one_sided_lower: finite(estimate - mixture.one_sided_width(alpha) * se)?,
        reject2: ln_e2 >= -alpha.ln() && estimate > 0.0,
        reject1: ln_e1 >= -alpha.ln(),
    })
}

/// What an estimate says against effects, without limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EffectEvidence {
    /// ln e against "no effect".
    pub two_sided: f64,
    /// ln e against "no positive effect".
    pub positive: f64,
    /// ln e against "no negative effect".
    pub negative: f64,
}

/// The evidence of [`effect_scale`], in both directions.
///
/// # Errors
/// As [`effect_scale`].
pub fn effect_evidence(estimate: f64, se: f64, tau: f64) -> Result<EffectEvidence, StatsError> {
    let estimate = finite(estimate)?;
    let mixture = of_errors(se, tau)?;
    let z = finite(estimate / se)?;
    Ok(EffectEvidence {
        two_sided: finite(mixture.ln_e(z))?,
        positive: finite(mixture.ln_e_positive(z))?,
        negative: finite(mixture.ln_e_positive(-z))?,
    })
}

/// Half the width of the two-sided confidence sequence of [`effect_scale`], in standard errors.
///
/// # Errors
/// As [`effect_scale`].
pub fn half_width(se: f64, tau: f64, alpha: f64) -> Result<f64, StatsError> {
    finite(of_errors(se, tau)?.half_width(check_level(alpha)?))
}

/// How far the one-sided lower limit of [`effect_scale`] lies below the estimate, in standard errors.
///
/// # Errors
/// As [`effect_scale`].
pub fn one_sided_width(se: f64, tau: f64, alpha: f64) -> Result<f64, StatsError> {
    finite(of_errors(se, tau)?.one_sided_width(check_level(alpha)?))
}

fn of_errors(se: f64, tau: f64) -> Result<Mixture, StatsError> {
    let (se, tau) = (non_negative(se)?, positive(tau)?);
    if se == 0.0 {
        return Err(StatsError::ZeroVariance);
    }
    Ok(Mixture::new(tau / se))
}

/// An estimate judged by the asymptotic confidence sequence tuned to a sample size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleMixture {
    /// The tuning parameter ρ.
    pub rho: f64,
    /// Half the width of the confidence sequence.
    pub half_width: f64,
    /// The confidence sequence of the effect at level 1 − α.
    pub interval: Interval,
    /// ln e against "no effect".
    pub ln_e: f64,
    /// Anytime-valid p-value at this look: min(1, 1/e).
    pub p: f64,
    /// Whether e reaches 1/α.
    pub reject: bool,
}

/// Judges an `estimate` with standard error `se` from `n_total` units of both arms by the
/// asymptotic confidence sequence that is narrowest at `n_star` units, at level `alpha`.
///
/// # Errors
/// [`StatsError::InvalidInput`] for numbers that are not finite, a negative standard error, units
/// that are not whole, a tuning size that is not above 0, or α outside (0, 1);
/// [`StatsError::NotEnoughData`] without units; [`StatsError::ZeroVariance`] for a standard error
/// of 0.
///
/// # Source
/// Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, *Time-uniform central limit theory and
/// asymptotic confidence sequences*, Ann. Statist. 52 (2024), 2613–2640.
pub fn sample_scale(
    estimate: f64,
    se: f64,
    n_total: f64,
    n_star: f64,
    alpha: f64,
) -> Result<SampleMixture, StatsError> {
    let (estimate, se) = (finite(estimate)?, non_negative(se)?);
    let units = count_from_f64(n_total)? as f64;
    let (n_star, alpha) = (positive(n_star)?, check_level(alpha)?);
    if units == 0.0 {
        return Err(StatsError::NotEnoughData);
    }
    if se == 0.0 {
        return Err(StatsError::ZeroVariance);
    }
    let twice = -2.0 * alpha.ln();
    let rho = finite((twice + twice.ln_1p()).sqrt() / n_star.sqrt())?;
    let mixture = Mixture::new(rho * units.sqrt());
    let half_width = finite(mixture.half_width(alpha) * se)?;
    let ln_e = finite(mixture.ln_e(finite(estimate / se)?))?;
    Ok(SampleMixture {
        rho,
        half_width,
        interval: Interval::around(estimate, half_width),
        ln_e,
        p: p_value(ln_e),
        reject: ln_e >= -alpha.ln(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_and_interval_agree() {
        // At an effect on the edge of its confidence sequence the evidence is exactly 1/α.
        for (se, tau, alpha) in [(0.01, 0.1, 0.05), (3.0, 0.2, 1e-12), (1e-6, 10.0, 0.5)] {
            let at = |estimate: f64| effect_scale(estimate, se, tau, alpha).unwrap();
            let centred = at(0.0);
            let edge = at(centred.two_sided.upper);
            assert!((edge.ln_e2 + alpha.ln()).abs() < 1e-9, "{edge:?}");
            let edge = at(-centred.one_sided_lower);
            assert!((edge.ln_e1 + alpha.ln()).abs() < 1e-9, "{edge:?}");
        }
    }

    #[test]
    fn extreme_ratios_stay_finite() {
        for (se, tau) in [(1e-200, 1.0), (1e200, 1e-100), (1.0, 1e300)] {
            let answer = effect_scale(0.0, se, tau, 0.05);
            assert!(
                answer.is_ok() || answer == Err(StatsError::InvalidInput),
                "{answer:?}"
            );
        }
        let beyond = effect_scale(1e300, 1e-300, 1.0, 0.05);
        assert_eq!(beyond, Err(StatsError::InvalidInput));
    }

    #[test]
    fn the_root_is_one() {
        for level in [0.0, 1e-12, 1e-3, 0.5, 3.0, 70.0, 1e6] {
            let y = one_sided_root(level);
            let back = 0.5 * y * y + norm_ln_cdf(y) + LN_2;
            assert!(
                (back - level).abs() <= 1e-14 * level.max(1.0),
                "{level}: {back}"
            );
        }
    }
}
