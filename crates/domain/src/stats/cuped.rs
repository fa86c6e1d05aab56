//! Variance reduction with a covariate from before the assignment (CUPED).
//!
//! What the covariate explains is taken off the metric in both arms with one slope, so the
//! difference stays unbiased and its standard error shrinks by √(1 − ρ²).

use super::lift::{DeltaLift, delta_lift};
use super::{
    Interval, PValues, StatsError, difference_of_products, finite, non_negative, two_sided_z,
};

/// A residual variance below this share of the raw one is rounding.
const RESIDUAL_MIN: f64 = 1e-14;

/// Means and sample (co)variances (divisor n − 1) of metric y and covariate x in an arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CovariateMoments {
    n: i64,
    mean_y: f64,
    mean_x: f64,
    var_y: f64,
    var_x: f64,
    cov: f64,
}

/// Sums over units that arrive as floats, for numbers from elsewhere. The engine's own state is
/// exact; it makes [`CovariateMoments`] from centred moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CovariateSums {
    /// Units.
    pub n: i64,
    /// Σy, the metric.
    pub sum_y: f64,
    /// Σx, the covariate.
    pub sum_x: f64,
    /// Σy².
    pub sum_yy: f64,
    /// Σx².
    pub sum_xx: f64,
    /// Σxy.
    pub sum_xy: f64,
}

impl CovariateMoments {
    /// From means and centred moments. Below two units variances mean nothing and are not looked
    /// at; a comparison refuses them.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for a negative n, numbers that are not finite, negative
    /// variances, or a covariance that these do not allow.
    pub fn new(
        n: i64,
        [mean_y, mean_x]: [f64; 2],
        [var_y, var_x, cov]: [f64; 3],
    ) -> Result<Self, StatsError> {
        if n < 0 {
            return Err(StatsError::InvalidInput);
        }
        let (var_y, var_x) = (non_negative(var_y)?, non_negative(var_x)?);
        let possible = finite(cov)?.abs() <= var_y.sqrt() * var_x.sqrt() * (1.0 + 1e-9);
        if n > 1 && !possible {
            return Err(StatsError::InvalidInput);
        }
        Ok(Self {
            n,
            mean_y: finite(mean_y)?,
            mean_x: finite(mean_x)?,
            var_y,
            var_x,
            cov,
        })
    }

    /// From sums that are floats.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for numbers that are not finite or contradict each other.
    pub fn from_sums(sums: &CovariateSums) -> Result<Self, StatsError> {
        let CovariateSums {
            n,
            sum_y,
            sum_x,
            sum_yy,
            sum_xx,
            sum_xy,
        } = *sums;
        for sum in [sum_y, sum_x, sum_yy, sum_xx, sum_xy] {
            finite(sum)?;
        }
        if n < 2 {
            return Self::new(n, [0.0; 2], [0.0; 3]);
        }
        let n_float = n as f64;
        let (var_y, var_x) = (
            variance(n_float, sum_yy, sum_y),
            variance(n_float, sum_xx, sum_x),
        );
        let cov = sample_moment(n_float, sum_xy, sum_x, sum_y);
        let cov = plausible(cov, rounding(n_float, sum_xy), var_y * var_x);
        Self::new(n, [sum_y / n_float, sum_x / n_float], [var_y, var_x, cov])
    }

    fn units(&self) -> f64 {
        self.n as f64
    }

    /// Σ(x − x̄)² and Σ(x − x̄)(y − ȳ).
    fn centred_sums(&self) -> (f64, f64) {
        let divisor = self.units() - 1.0;
        (divisor * self.var_x, divisor * self.cov)
    }

    /// Variance of y − slope · x: what the arm's own slope leaves, and what the other slope adds.
    fn residual_variance(&self, slope: f64) -> f64 {
        if self.var_x == 0.0 {
            return self.var_y;
        }
        let own = self.cov / self.var_x;
        let explained = difference_of_products(self.var_y, self.var_x, self.cov, self.cov);
        let residual = (explained / self.var_x).max(0.0) + self.var_x * (slope - own).powi(2);
        if residual <= RESIDUAL_MIN * self.var_y {
            0.0
        } else {
            residual
        }
    }
}

/// (Σuv − Σu Σv / n) / (n − 1), as one difference of products.
fn sample_moment(n: f64, sum_uv: f64, sum_u: f64, sum_v: f64) -> f64 {
    difference_of_products(n, sum_uv, sum_u, sum_v) / n / (n - 1.0)
}

/// What rounding of a sum of products itself leaves of a moment that is 0.
fn rounding(n: f64, sum_uv: f64) -> f64 {
    1e-14 * sum_uv.abs() / (n - 1.0)
}

/// The variance, 0 where it is rounding.
fn variance(n: f64, sum_uu: f64, sum_u: f64) -> f64 {
    let variance = sample_moment(n, sum_uu, sum_u, sum_u);
    if variance.abs() <= rounding(n, sum_uu) {
        0.0
    } else {
        variance
    }
}

/// The covariance, brought to what the variances' product allows where it exceeds that by
/// rounding: points on a line.
fn plausible(cov: f64, noise: f64, product: f64) -> f64 {
    let allowed = product.max(0.0).sqrt();
    if cov.abs() <= allowed + noise {
        cov.clamp(-allowed, allowed)
    } else {
        cov
    }
}

/// Which slope adjusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slope {
    /// From deviations within each arm, as in an analysis of covariance: the one to use.
    WithinArms,
    /// From deviations about the overall means: an effect of the treatment distorts it.
    Pooled,
}

/// Two means compared after adjustment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdjustedComparison {
    /// The slope; 0 where the covariate does not vary.
    pub theta: f64,
    /// Adjusted mean in control.
    pub mean_a: f64,
    /// Adjusted mean in treatment.
    pub mean_b: f64,
    /// Squared standard error of the control's.
    pub se2_a: f64,
    /// Squared standard error of the treatment's.
    pub se2_b: f64,
    /// mean_b − mean_a.
    pub diff: f64,
    /// Standard error of the difference.
    pub se: f64,
    /// Difference over standard error.
    pub z: f64,
    /// p-values of z.
    pub p: PValues,
    /// Two-sided interval of the difference.
    pub interval: Interval,
    /// 1 − (adjusted over raw squared standard error): 0.5 is as good as twice the units.
    pub variance_reduction: f64,
    /// Relative lift of the adjusted means; absent where control's is not above 0.
    pub lift: Option<DeltaLift>,
}

/// Test of control `a` against treatment `b` after adjustment, with intervals at `confidence`.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a confidence outside (0, 1) or numbers beyond the range of
/// floats; [`StatsError::NotEnoughData`] below two units in an arm; [`StatsError::ZeroVariance`]
/// where nothing is left of the variance.
///
/// # Source
/// Deng, Xu, Kohavi & Walker, *Improving the sensitivity of online controlled experiments by
/// utilizing pre-experiment data*, WSDM 2013.
pub fn compare_adjusted(
    a: &CovariateMoments,
    b: &CovariateMoments,
    slope: Slope,
    confidence: f64,
) -> Result<AdjustedComparison, StatsError> {
    let quantile = two_sided_z(confidence)?;
    if a.n < 2 || b.n < 2 {
        return Err(StatsError::NotEnoughData);
    }
    let theta = finite(theta(a, b, slope))?;
    let se2_a = a.residual_variance(theta) / a.units();
    let se2_b = b.residual_variance(theta) / b.units();
    let se = finite((se2_a + se2_b).sqrt())?;
    if se == 0.0 {
        return Err(StatsError::ZeroVariance);
    }
    let raw = a.var_y / a.units() + b.var_y / b.units();
    let total = a.units() + b.units();
    let apart = b.mean_x - a.mean_x;
    // Each arm's covariate mean is as far from the overall one as the other arm is large.
    let mean_a = finite(a.mean_y + theta * apart * (b.units() / total))?;
    let mean_b = finite(b.mean_y - theta * apart * (a.units() / total))?;
    let diff = finite((b.mean_y - a.mean_y) - theta * apart)?;
    let z = finite(diff / se)?;
    Ok(AdjustedComparison {
        theta,
        mean_a,
        mean_b,
        se2_a,
        se2_b,
        diff,
        se,
        z,
        p: PValues::normal(z)?,
        interval: Interval::around(diff, quantile * se),
        variance_reduction: finite(1.0 - (se2_a + se2_b) / raw)?,
        lift: finite_lift(delta_lift([mean_a, se2_a], [mean_b, se2_b], diff, quantile))?,
    })
}

/// A control mean next to 0 may make the lift larger than any float.
fn finite_lift(lift: Option<DeltaLift>) -> Result<Option<DeltaLift>, StatsError> {
    if let Some(lift) = lift {
        finite(lift.interval.lower)?;
        finite(lift.interval.upper)?;
    }
    Ok(lift)
}

fn theta(a: &CovariateMoments, b: &CovariateMoments, slope: Slope) -> f64 {
    let ((xx_a, xy_a), (xx_b, xy_b)) = (a.centred_sums(), b.centred_sums());
    let (mut xx, mut xy) = (xx_a + xx_b, xy_a + xy_b);
    if xx == 0.0 {
        return 0.0;
    }
    if slope == Slope::Pooled {
        // What lies between the arms' means belongs to it, too.
        let weight = a.units() * (b.units() / (a.units() + b.units()));
        let apart = b.mean_x - a.mean_x;
        xx += weight * apart * apart;
        xy += weight * apart * (b.mean_y - a.mean_y);
    }
    xy / xx
}
