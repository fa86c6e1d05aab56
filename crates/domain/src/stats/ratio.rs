//! Ratio metrics: one total per another, over units, by the delta method.
//!
//! Clicks per impression are no proportion: the impressions of one shopper are not independent.
//! Units are, so the variance comes from their totals.

use super::lift::{DeltaLift, delta_lift};
use super::{
    Interval, PValues, StatsError, difference_of_products, finite, non_negative, two_sided_z,
};

/// Size, ratio and its squared standard error in an arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioSummary {
    n: i64,
    ratio: f64,
    se2: f64,
}

/// Sums over units that arrive as floats, for numbers from elsewhere. The engine's own state is
/// [`crate::moments::RatioMoments`], which is exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioSums {
    /// Units.
    pub n: i64,
    /// Σx, the denominator.
    pub sum_x: f64,
    /// Σy, the numerator.
    pub sum_y: f64,
    /// Σx².
    pub sum_xx: f64,
    /// Σy².
    pub sum_yy: f64,
    /// Σxy.
    pub sum_xy: f64,
}

impl RatioSummary {
    /// Checks that n is not negative, the ratio finite, the squared error finite and not negative.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] otherwise.
    pub fn new(n: i64, ratio: f64, se2: f64) -> Result<Self, StatsError> {
        if n < 0 {
            return Err(StatsError::InvalidInput);
        }
        Ok(Self {
            n,
            ratio: finite(ratio)?,
            se2: non_negative(se2)?,
        })
    }

    /// From sums that are floats: R = Σy/Σx, se² = (s_yy − 2 R s_xy + R² s_xx) / (n x̄²), with
    /// sample variances (divisor n − 1).
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for numbers that are not finite or contradict each other;
    /// [`StatsError::NotEnoughData`] below two units; [`StatsError::DegenerateDenominator`] when
    /// Σx is 0.
    pub fn from_sums(sums: &RatioSums) -> Result<Self, StatsError> {
        let RatioSums {
            n,
            sum_x,
            sum_y,
            sum_xx,
            sum_yy,
            sum_xy,
        } = *sums;
        for sum in [sum_x, sum_y, sum_xx, sum_yy, sum_xy] {
            finite(sum)?;
        }
        if n < 2 {
            return Err(if n < 0 {
                StatsError::InvalidInput
            } else {
                StatsError::NotEnoughData
            });
        }
        let units = n as f64;
        let xx = sample_moment(units, sum_xx, sum_x, sum_x);
        let yy = sample_moment(units, sum_yy, sum_y, sum_y);
        let xy = sample_moment(units, sum_xy, sum_x, sum_y);
        // Rounding of the sums themselves must not make a constant arm contradictory.
        let rounding = |sum: f64| 1e-12 * sum.abs();
        if xx < -rounding(sum_xx) || yy < -rounding(sum_yy) {
            return Err(StatsError::InvalidInput);
        }
        if sum_x == 0.0 {
            return Err(StatsError::DegenerateDenominator);
        }
        let ratio = sum_y / sum_x;
        let residual = yy - 2.0 * ratio * xy + ratio * ratio * xx;
        let noise = 1e-14 * (yy.abs() + 2.0 * (ratio * xy).abs() + ratio * ratio * xx.abs());
        if residual < -noise {
            return Err(StatsError::InvalidInput);
        }
        let mean_x = sum_x / units;
        let residual = if residual <= noise { 0.0 } else { residual };
        Self::new(n, ratio, residual / units / mean_x / mean_x)
    }

    /// Units.
    #[must_use]
    pub fn n(&self) -> i64 {
        self.n
    }

    /// Σy/Σx.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.ratio
    }

    /// Its squared standard error.
    #[must_use]
    pub fn se2(&self) -> f64 {
        self.se2
    }
}

/// (Σuv − Σu Σv / n) / (n − 1), as one difference of products.
fn sample_moment(n: f64, sum_uv: f64, sum_u: f64, sum_v: f64) -> f64 {
    difference_of_products(n, sum_uv, sum_u, sum_v) / n / (n - 1.0)
}

/// Two ratios compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioComparison {
    /// Ratio in treatment minus ratio in control.
    pub diff: f64,
    /// Standard error of the difference.
    pub se: f64,
    /// Difference over standard error.
    pub z: f64,
    /// p-values of z.
    pub p: PValues,
    /// Two-sided interval of the difference.
    pub interval: Interval,
    /// Relative lift by the delta method; absent where the control's ratio is not above 0.
    pub lift: Option<DeltaLift>,
}

/// Test of control `a` against treatment `b`, with intervals at `confidence`.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a confidence outside (0, 1) or numbers beyond the range of
/// floats; [`StatsError::NotEnoughData`] below two units in an arm; [`StatsError::ZeroVariance`]
/// where neither ratio varies.
///
/// # Source
/// Deng, Knoblich & Lu, *Applying the delta method in metric analytics*, KDD 2018.
pub fn compare_ratios(
    a: &RatioSummary,
    b: &RatioSummary,
    confidence: f64,
) -> Result<RatioComparison, StatsError> {
    let quantile = two_sided_z(confidence)?;
    if a.n < 2 || b.n < 2 {
        return Err(StatsError::NotEnoughData);
    }
    let se = finite((a.se2 + b.se2).sqrt())?;
    if se == 0.0 {
        return Err(StatsError::ZeroVariance);
    }
    let diff = finite(b.ratio - a.ratio)?;
    let z = finite(diff / se)?;
    Ok(RatioComparison {
        diff,
        se,
        z,
        p: PValues::normal(z)?,
        interval: Interval::around(diff, quantile * se),
        lift: delta_lift([a.ratio, a.se2], [b.ratio, b.se2], diff, quantile),
    })
}
