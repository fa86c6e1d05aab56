//! Proportions: shares of units that did something.

use super::special::{beta_isf, beta_quantile, chi2_tails};
use super::{Interval, PValues, StatsError, count_from_f64, difference_of_products, two_sided_z};
use super::{check_level, finite};

/// Units, and those of them that did it. Units, not events: two purchases of one shopper count
/// once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proportion {
    successes: i64,
    units: i64,
}

impl Proportion {
    /// Checks 0 ≤ successes ≤ units.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] otherwise.
    pub fn new(successes: i64, units: i64) -> Result<Self, StatsError> {
        if successes < 0 || successes > units {
            return Err(StatsError::InvalidInput);
        }
        Ok(Self { successes, units })
    }

    /// Counts that arrive as floats.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] unless both are whole and 0 ≤ successes ≤ units.
    pub fn from_f64(successes: f64, units: f64) -> Result<Self, StatsError> {
        Self::new(count_from_f64(successes)?, count_from_f64(units)?)
    }

    /// Units that did it.
    #[must_use]
    pub fn successes(self) -> i64 {
        self.successes
    }

    /// All units.
    #[must_use]
    pub fn units(self) -> i64 {
        self.units
    }

    /// The share, in [0, 1].
    ///
    /// # Errors
    /// [`StatsError::NotEnoughData`] without units.
    pub fn rate(self) -> Result<f64, StatsError> {
        if self.units == 0 {
            return Err(StatsError::NotEnoughData);
        }
        Ok(self.x() / self.n())
    }

    /// Squared standard error p(1 − p)/n of the share.
    ///
    /// # Errors
    /// [`StatsError::NotEnoughData`] without units.
    pub fn se2(self) -> Result<f64, StatsError> {
        // The complement is exact from the counts, not from the rounded share.
        Ok(self.rate()? * (self.failures() / self.n()) / self.n())
    }

    fn x(self) -> f64 {
        self.successes as f64
    }

    fn n(self) -> f64 {
        self.units as f64
    }

    fn failures(self) -> f64 {
        (self.units - self.successes) as f64
    }
}

/// A z statistic of the difference, with its standard error and p-values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZTest {
    /// Standard error of the difference.
    pub se: f64,
    /// Difference over standard error.
    pub z: f64,
    /// p-values of z.
    pub p: PValues,
}

impl ZTest {
    fn new(diff: f64, se: f64) -> Result<Self, StatsError> {
        let z = diff / se;
        Ok(Self {
            se,
            z,
            p: PValues::normal(z)?,
        })
    }
}

/// Two proportions compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProportionComparison {
    /// Share in control.
    pub rate_a: f64,
    /// Share in treatment.
    pub rate_b: f64,
    /// rate_b − rate_a, as a fraction (0.01 is one percentage point).
    pub diff: f64,
    /// With the standard error of equal shares: the test.
    pub pooled: ZTest,
    /// With each arm's own variance; absent where both arms have none (0 of n against n of n).
    pub unpooled: Option<ZTest>,
    /// Wald interval of the difference from the unpooled standard error, not clipped; absent with
    /// [`Self::unpooled`].
    pub interval: Option<Interval>,
}

/// Two-sample z test of control `a` against treatment `b`, with a two-sided interval of the
/// difference at `confidence`.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a confidence outside (0, 1); [`StatsError::NotEnoughData`]
/// where an arm is empty; [`StatsError::ZeroVariance`] where all units did it, or none.
///
/// # Source
/// Fleiss, Levin & Paik, *Statistical Methods for Rates and Proportions*, 3rd ed., ch. 3, without
/// continuity correction.
pub fn two_proportions(
    a: Proportion,
    b: Proportion,
    confidence: f64,
) -> Result<ProportionComparison, StatsError> {
    let z = two_sided_z(confidence)?;
    let (rate_a, rate_b) = (a.rate()?, b.rate()?);
    let diff = difference(a, b);
    let pooled_se = pooled_se(a, b);
    if pooled_se == 0.0 {
        return Err(StatsError::ZeroVariance);
    }
    let unpooled_se = (a.se2()? + b.se2()?).sqrt();
    let defined = unpooled_se > 0.0;
    Ok(ProportionComparison {
        rate_a,
        rate_b,
        diff,
        pooled: ZTest::new(diff, pooled_se)?,
        unpooled: defined.then(|| ZTest::new(diff, unpooled_se)).transpose()?,
        interval: defined.then(|| Interval::around(diff, z * unpooled_se)),
    })
}

/// x_b/n_b − x_a/n_a as one fraction, so that huge counts with nearly equal shares do not cancel.
fn difference(a: Proportion, b: Proportion) -> f64 {
    difference_of_products(b.x(), a.n(), a.x(), b.n()) / a.n() / b.n()
}

/// Standard error of the difference where both shares are the same.
fn pooled_se(a: Proportion, b: Proportion) -> f64 {
    let n = a.n() + b.n();
    let (successes, failures) = (a.x() + b.x(), a.failures() + b.failures());
    (successes / n * (failures / n) * (1.0 / a.n() + 1.0 / b.n())).sqrt()
}

/// Wilson's score interval of one proportion.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a confidence outside (0, 1); [`StatsError::NotEnoughData`]
/// without units.
///
/// # Source
/// Wilson, J. Amer. Statist. Assoc. 22 (1927), 209–212.
pub fn wilson(proportion: Proportion, confidence: f64) -> Result<Interval, StatsError> {
    let z = two_sided_z(confidence)?;
    proportion.rate()?;
    let (n, x, failures) = (proportion.n(), proportion.x(), proportion.failures());
    let square = z * z;
    let half = z * (x * (failures / n) + square / 4.0).sqrt();
    let farther = x + square / 2.0 + half;
    // The nearer limit is the product of the roots over the farther one: exactly 0 at x = 0, and
    // without cancellation at small shares.
    // At x = n the farther limit is 1, which rounding may miss.
    let upper = if failures == 0.0 {
        1.0
    } else {
        farther / (n + square)
    };
    Ok(Interval {
        lower: x * (x / n) / farther,
        upper,
    })
}

/// The exact interval of one proportion, after Clopper and Pearson: never too short, usually too
/// long.
///
/// # Errors
/// As [`wilson`].
///
/// # Source
/// Clopper & Pearson, Biometrika 26 (1934), 404–413, by beta quantiles.
pub fn clopper_pearson(proportion: Proportion, confidence: f64) -> Result<Interval, StatsError> {
    let tail = (1.0 - check_level(confidence)?) / 2.0;
    proportion.rate()?;
    let (x, failures) = (proportion.x(), proportion.failures());
    let lower = if x == 0.0 {
        0.0
    } else {
        beta_quantile(tail, x, failures + 1.0)
    };
    let upper = if failures == 0.0 {
        1.0
    } else {
        beta_isf(tail, x + 1.0, failures)
    };
    Ok(Interval {
        lower: finite(lower)?,
        upper: finite(upper)?,
    })
}

/// Newcombe's interval of the difference of two proportions, from the Wilson intervals of each: it
/// holds its level also at small counts, where the Wald interval does not.
///
/// # Errors
/// As [`wilson`].
///
/// # Source
/// Newcombe, Statistics in Medicine 17 (1998), 873–890, method 10.
pub fn newcombe(a: Proportion, b: Proportion, confidence: f64) -> Result<Interval, StatsError> {
    let (wilson_a, wilson_b) = (wilson(a, confidence)?, wilson(b, confidence)?);
    let (rate_a, rate_b) = (a.rate()?, b.rate()?);
    let diff = difference(a, b);
    Ok(Interval {
        lower: diff - (rate_b - wilson_b.lower).hypot(wilson_a.upper - rate_a),
        upper: diff + (wilson_b.upper - rate_b).hypot(rate_a - wilson_a.lower),
    })
}

/// Pearson's chi-square of equal shares in several groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EqualRatesTest {
    /// The statistic.
    pub chi2: f64,
    /// Degrees of freedom: groups − 1.
    pub df: usize,
    /// p-value.
    pub p: f64,
    /// Its natural logarithm.
    pub ln_p: f64,
}

/// Tests whether all groups (positions, say) have the same share.
///
/// # Errors
/// [`StatsError::InvalidInput`] below two groups; [`StatsError::NotEnoughData`] where a group is
/// empty; [`StatsError::ZeroVariance`] where all units did it, or none.
pub fn equal_rates(groups: &[Proportion]) -> Result<EqualRatesTest, StatsError> {
    if groups.len() < 2 {
        return Err(StatsError::InvalidInput);
    }
    if groups.iter().any(|group| group.units == 0) {
        return Err(StatsError::NotEnoughData);
    }
    let n: f64 = groups.iter().map(|group| group.n()).sum();
    let successes: f64 = groups.iter().map(|group| group.x()).sum();
    let failures: f64 = groups.iter().map(|group| group.failures()).sum();
    if successes == 0.0 || failures == 0.0 {
        return Err(StatsError::ZeroVariance);
    }
    let term = |group: &Proportion| {
        let excess = difference_of_products(group.x(), n, group.n(), successes) / n;
        excess * (excess / group.n())
    };
    let chi2 = groups.iter().map(term).sum::<f64>() / (successes / n) / (failures / n);
    let df = groups.len() - 1;
    let tails = chi2_tails(finite(chi2)?, df as f64);
    Ok(EqualRatesTest {
        chi2,
        df,
        p: tails.sf,
        ln_p: finite(tails.ln_sf)?,
    })
}
