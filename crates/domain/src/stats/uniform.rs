//! Boundaries for sums that hold at all times at once.
//!
//! A sum of centred terms with intrinsic time v (its accumulated variance) stays below the
//! boundary u(v) for all v with probability at least 1 − α.
//!
//! # Source
//! Howard, Ramdas, McAuliffe & Sekhon, *Time-uniform, nonparametric, nonasymptotic confidence
//! sequences*, Ann. Statist. 49 (2021), 1055–1080.

use super::mixture::one_sided_root;
use super::{StatsError, check_level, finite, non_negative, positive};

/// For which time a normal-mixture boundary is made narrowest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    v_opt: f64,
    alpha_opt: f64,
}

impl Tuning {
    /// Narrowest at intrinsic time `v_opt` for a boundary of level `alpha_opt`.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] unless `v_opt` is finite and above 0 and `alpha_opt` in (0, 1).
    pub fn new(v_opt: f64, alpha_opt: f64) -> Result<Self, StatsError> {
        Ok(Self {
            v_opt: positive(v_opt)?,
            alpha_opt: check_level(alpha_opt)?,
        })
    }

    /// The precision ρ of the mixture for a two-sided boundary of level `alpha`.
    fn rho(self, alpha: f64) -> Result<f64, StatsError> {
        let twice = -2.0 * check_level(alpha)?.ln();
        positive(self.v_opt / (twice + twice.ln_1p()))
    }
}

/// The two-sided normal-mixture boundary at intrinsic time `v`.
///
/// # Errors
/// [`StatsError::InvalidInput`] for v that is negative or not finite, or α outside (0, 1).
pub fn normal_two_sided(v: f64, alpha: f64, tuning: Tuning) -> Result<f64, StatsError> {
    let (v, ln_alpha) = (non_negative(v)?, check_level(alpha)?.ln());
    let rho = tuning.rho(tuning.alpha_opt)?;
    finite((v + rho).sqrt() * ((v / rho).ln_1p() - 2.0 * ln_alpha).sqrt())
}

/// The one-sided normal-mixture boundary at intrinsic time `v`.
///
/// # Errors
/// As [`normal_two_sided`]; also when the level of the tuning is not below ½.
pub fn normal_one_sided(v: f64, alpha: f64, tuning: Tuning) -> Result<f64, StatsError> {
    let (v, ln_alpha) = (non_negative(v)?, check_level(alpha)?.ln());
    let rho = tuning.rho(2.0 * tuning.alpha_opt)?;
    let level = 0.5 * (v / rho).ln_1p() - ln_alpha;
    finite((v + rho).sqrt() * one_sided_root(level))
}

/// Parameters of the polynomial stitched boundary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stitching {
    /// Intrinsic time from which on the boundary grows; constant before. Above 0.
    pub v_min: f64,
    /// Scale of the terms: 0 for sub-Gaussian sums, above for sub-gamma ones.
    pub c: f64,
    /// Exponent of the error spent per epoch, above 1.
    pub s: f64,
    /// Ratio of the lengths of neighbouring epochs, above 1.
    pub eta: f64,
}

/// The polynomial stitched boundary at intrinsic time `v`.
///
/// # Errors
/// [`StatsError::InvalidInput`] for v or c that is negative or not finite, α outside (0, 1), or
/// other parameters out of the ranges of [`Stitching`].
pub fn poly_stitching(v: f64, alpha: f64, stitching: Stitching) -> Result<f64, StatsError> {
    let (v, alpha) = (non_negative(v)?, check_level(alpha)?);
    let (v_min, c) = (positive(stitching.v_min)?, non_negative(stitching.c)?);
    let (s, eta) = (above_one(stitching.s)?, above_one(stitching.eta)?);
    let v = v.max(v_min);
    let quarter = eta.powf(0.25);
    let k1 = (quarter + 1.0 / quarter) * std::f64::consts::FRAC_1_SQRT_2;
    let k2 = 0.5 * (eta.sqrt() + 1.0);
    // ln(η v / v_min) over ln η, whose powers the error probability carries.
    let epochs = 1.0 + (v / v_min).ln() / eta.ln();
    let l = s * epochs.ln() + zeta(s).ln() - alpha.ln();
    let linear = k2 * c * l;
    finite((k1 * (v * l).sqrt()).hypot(linear) + linear)
}

/// Riemann's zeta function for s > 1.
///
/// Source: the Euler–Maclaurin formula with ten terms of the sum and eight corrections.
fn zeta(s: f64) -> f64 {
    const TERMS: u32 = 10;
    /// Bernoulli numbers B_2k over (2k)!.
    const CORRECTIONS: [f64; 8] = [
        1.0 / 12.0,
        -1.0 / 720.0,
        1.0 / 30_240.0,
        -1.0 / 1_209_600.0,
        1.0 / 47_900_160.0,
        -691.0 / 1_307_674_368_000.0,
        1.0 / 74_724_249_600.0,
        -3_617.0 / 10_670_622_842_880_000.0,
    ];
    let head: f64 = (1..TERMS).rev().map(|n| f64::from(n).powf(-s)).sum();
    let n = f64::from(TERMS);
    let last = n.powf(-s);
    let mut sum = head + last * n / (s - 1.0) + 0.5 * last;
    let mut factor = last * (s / n);
    let mut next = s;
    for correction in CORRECTIONS {
        sum += correction * factor;
        // One factor at a time: 0 must not meet an overflow.
        factor = factor * ((next + 1.0) / n) * ((next + 2.0) / n);
        next += 2.0;
    }
    sum
}

fn above_one(value: f64) -> Result<f64, StatsError> {
    if value > 1.0 {
        finite(value)
    } else {
        Err(StatsError::InvalidInput)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeta_at_known_points() {
        let square = std::f64::consts::PI * std::f64::consts::PI;
        for (s, want) in [
            (2.0, square / 6.0),
            (4.0, square * square / 90.0),
            (1.4, 3.105_547_277_977_581),
            (1.000_001, 1_000_000.577_298_004_4),
            (60.0, 1.0),
            (1e300, 1.0),
        ] {
            assert!((zeta(s) / want - 1.0).abs() < 1e-13, "{s}: {}", zeta(s));
        }
    }

    #[test]
    fn a_boundary_is_narrowest_where_it_was_tuned() {
        let at = |v_opt: f64| {
            normal_two_sided(1_000.0, 0.05, Tuning::new(v_opt, 0.05).unwrap()).unwrap()
        };
        assert!(at(1_000.0) < at(500.0) && at(1_000.0) < at(2_000.0));
    }

    #[test]
    fn a_one_sided_tuning_needs_a_level_below_one_half() {
        let tuning = Tuning::new(100.0, 0.5).unwrap();
        assert_eq!(
            normal_one_sided(1.0, 0.05, tuning),
            Err(StatsError::InvalidInput)
        );
        assert!(normal_two_sided(1.0, 0.05, tuning).is_ok());
    }
}
