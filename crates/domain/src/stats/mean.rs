//! Means of unit totals: Welch's test.

use super::special::t_isf;
use super::{Interval, PValues, StatsError, check_level, finite, non_negative};

/// Size, mean and sample variance of an arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanSummary {
    n: i64,
    mean: f64,
    /// What rounding took from the mean.
    rest: f64,
    variance: f64,
}

impl MeanSummary {
    /// Checks that n is not negative, the mean finite, the variance finite and not negative. The
    /// variance has the divisor n − 1; below two units it means nothing and is not looked at.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] otherwise.
    pub fn new(n: i64, mean: f64, variance: f64) -> Result<Self, StatsError> {
        if n < 0 {
            return Err(StatsError::InvalidInput);
        }
        Ok(Self {
            n,
            mean: finite(mean)?,
            rest: 0.0,
            variance: non_negative(variance)?,
        })
    }

    /// With what rounding took from the mean: where two means are nearly alike their difference lies in that.
    pub(crate) fn with_rest(self, rest: f64) -> Self {
        Self { rest, ..self }
    }

    /// Units.
    #[must_use]
    pub fn n(&self) -> i64 {
        self.n
    }

    /// Mean of the unit totals.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// What the mean is more than [`Self::mean`]; below its last place.
    pub(crate) fn rest(&self) -> f64 {
        self.rest
    }

    /// Their sample variance, with the divisor n − 1.
    #[must_use]
    pub fn variance(&self) -> f64 {
        self.variance
    }

    /// Squared standard error of the mean.
    ///
    /// # Errors
    /// [`StatsError::NotEnoughData`] below two units.
    pub fn se2(&self) -> Result<f64, StatsError> {
        if self.n < 2 {
            Err(StatsError::NotEnoughData)
        } else {
            Ok(self.variance / self.n as f64)
        }
    }
}

/// Two means compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanComparison {
    /// Mean in treatment minus mean in control.
    pub diff: f64,
    /// Standard error of the difference.
    pub se: f64,
    /// Difference over standard error.
    pub t: f64,
    /// Degrees of freedom after Welch and Satterthwaite, not rounded.
    pub df: f64,
    /// p-values of t.
    pub p: PValues,
    /// Two-sided interval of the difference.
    pub interval: Interval,
}

/// Welch's test of control `a` against treatment `b`, with an interval at `confidence`.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a confidence outside (0, 1) or numbers beyond the range of
/// floats; [`StatsError::NotEnoughData`] below two units in an arm; [`StatsError::ZeroVariance`]
/// where neither arm varies, whatever the means.
///
/// # Source
/// Welch, Biometrika 34 (1947), 28–35.
pub fn welch(
    a: &MeanSummary,
    b: &MeanSummary,
    confidence: f64,
) -> Result<MeanComparison, StatsError> {
    let tail = (1.0 - check_level(confidence)?) / 2.0;
    let (se2_a, se2_b) = (a.se2()?, b.se2()?);
    let se2 = se2_a + se2_b;
    if se2 == 0.0 {
        return Err(StatsError::ZeroVariance);
    }
    let share = se2_a / se2;
    let rest = se2_b / se2;
    let df = 1.0 / (share * share / (a.n - 1) as f64 + rest * rest / (b.n - 1) as f64);
    let diff = (b.mean - a.mean) + (b.rest - a.rest);
    let (diff, se) = (finite(diff)?, finite(se2.sqrt())?);
    let t = finite(diff / se)?;
    Ok(MeanComparison {
        diff,
        se,
        t,
        df,
        p: PValues::student(t, df)?,
        interval: Interval::around(diff, finite(t_isf(tail, df) * se)?),
    })
}
