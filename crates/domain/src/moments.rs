//! Exact sums per variant, and the means and variances that follow from them.
//!
//! Per unit we keep totals; per variant their sums, squares and cross products, as integers of
//! unlimited size. Values have four decimals and are integers of 1/10,000. So the order in which
//! units arrive does not matter, sums of parts are sums of the whole, and centring
//! (n Σx² − (Σx)²) is exact: floats appear only in the last division, correctly rounded.
//!
//! To take up another total, add it to [`UnitTotal`]; nothing here needs to know it.

use std::collections::BTreeMap;

use num_bigint::{BigInt, BigUint, Sign};
use num_traits::{Signed, ToPrimitive, Zero};

use crate::event::EventType;
use crate::metric::{Metric, MetricKind, UnitTotal};
use crate::stats::StatsError;
use crate::stats::mean::MeanSummary;
use crate::stats::proportion::Proportion;
use crate::stats::ratio::RatioSummary;

/// Sums of one total over the units of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeanMoments {
    /// Units, those without any event included.
    pub n: i64,
    /// Σx, in 1/scale.
    pub sum: BigInt,
    /// Σx², in 1/scale².
    pub sum_sq: BigInt,
    /// Stored units per one: 10,000 for values, 1 for counts.
    pub scale: u32,
}

impl MeanMoments {
    /// No units yet.
    #[must_use]
    pub fn new(scale: u32) -> Self {
        Self {
            n: 0,
            sum: BigInt::zero(),
            sum_sq: BigInt::zero(),
            scale,
        }
    }

    /// Adds a unit with the total `x`, in 1/scale.
    pub fn add_unit(&mut self, x: i64) {
        self.n += 1;
        self.sum += x;
        self.sum_sq += i128::from(x) * i128::from(x);
    }

    /// Adds the units of another part.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] when the scales differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), StatsError> {
        same(self.scale, other.scale)?;
        self.n += other.n;
        self.sum += &other.sum;
        self.sum_sq += &other.sum_sq;
        Ok(())
    }

    /// The mean.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for negative n or scale 0; [`StatsError::NotEnoughData`]
    /// without units.
    pub fn mean(&self) -> Result<f64, StatsError> {
        check_units(self.n, 1, self.scale)?;
        Ok(quotient(&self.sum, &(BigInt::from(self.n) * self.scale)))
    }

    /// The sum over units, correctly rounded.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for negative n or scale 0; [`StatsError::NotEnoughData`] without units.
    pub fn total(&self) -> Result<f64, StatsError> {
        check_units(self.n, 1, self.scale)?;
        Ok(quotient(&self.sum, &BigInt::from(self.scale)))
    }

    /// Mean and sample variance (divisor n − 1), each correctly rounded.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for sums that contradict each other, negative n or scale 0;
    /// [`StatsError::NotEnoughData`] below two units.
    pub fn summary(&self) -> Result<MeanSummary, StatsError> {
        check_units(self.n, 2, self.scale)?;
        let n = BigInt::from(self.n);
        let centred = &n * &self.sum_sq - &self.sum * &self.sum;
        if centred.is_negative() {
            return Err(StatsError::InvalidInput);
        }
        let divisor = &n * (&n - 1_u32) * self.scale * self.scale;
        MeanSummary::new(self.n, self.mean()?, quotient(&centred, &divisor))
    }
}

/// Sums of two totals, y over x, over the units of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatioMoments {
    /// Units, those without any event included.
    pub n: i64,
    /// Σx of the denominator, in 1/scale_x.
    pub sum_x: BigInt,
    /// Σy of the numerator, in 1/scale_y.
    pub sum_y: BigInt,
    /// Σx².
    pub sum_xx: BigInt,
    /// Σy².
    pub sum_yy: BigInt,
    /// Σxy.
    pub sum_xy: BigInt,
    /// Stored units per one of the denominator.
    pub scale_x: u32,
    /// Stored units per one of the numerator.
    pub scale_y: u32,
}

/// Centred second moments times n, exact: n Σx² − (Σx)² and so on.
struct Centred {
    xx: BigInt,
    yy: BigInt,
    xy: BigInt,
}

impl RatioMoments {
    /// No units yet.
    #[must_use]
    pub fn new(scale_x: u32, scale_y: u32) -> Self {
        let zero = BigInt::zero;
        Self {
            n: 0,
            sum_x: zero(),
            sum_y: zero(),
            sum_xx: zero(),
            sum_yy: zero(),
            sum_xy: zero(),
            scale_x,
            scale_y,
        }
    }

    /// Adds a unit with the totals `x` (denominator) and `y` (numerator), in their scales.
    pub fn add_unit(&mut self, x: i64, y: i64) {
        let (wide_x, wide_y) = (i128::from(x), i128::from(y));
        self.n += 1;
        self.sum_x += x;
        self.sum_y += y;
        self.sum_xx += wide_x * wide_x;
        self.sum_yy += wide_y * wide_y;
        self.sum_xy += wide_x * wide_y;
    }

    /// Adds the units of another part.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] when the scales differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), StatsError> {
        same(self.scale_x, other.scale_x)?;
        same(self.scale_y, other.scale_y)?;
        self.n += other.n;
        self.sum_x += &other.sum_x;
        self.sum_y += &other.sum_y;
        self.sum_xx += &other.sum_xx;
        self.sum_yy += &other.sum_yy;
        self.sum_xy += &other.sum_xy;
        Ok(())
    }

    /// The ratio Σy/Σx and its squared standard error by the delta method, each correctly rounded.
    ///
    /// With R = Σy/Σx the squared standard error is (s_yy − 2 R s_xy + R² s_xx) / (n x̄²); it is
    /// evaluated as one fraction of integers, so that it is exactly 0 where y is proportional to x.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for sums that contradict each other, negative n or scale 0;
    /// [`StatsError::NotEnoughData`] below two units; [`StatsError::DegenerateDenominator`] when
    /// Σx is 0.
    pub fn summary(&self) -> Result<RatioSummary, StatsError> {
        check_units(self.n, 2, self.scale_x.min(self.scale_y))?;
        let centred = self.centred()?;
        if self.sum_x.is_zero() {
            return Err(StatsError::DegenerateDenominator);
        }
        let (x, y) = (&self.sum_x, &self.sum_y);
        let residual =
            x * x * &centred.yy - BigInt::from(2) * x * y * &centred.xy + y * y * &centred.xx;
        // (Σx)⁴ (n − 1) / n, and the scales: the ratio is in scale_x / scale_y.
        let numerator = residual * self.scale_x * self.scale_x;
        let divisor = x.pow(4) * (BigInt::from(self.n) - 1_u32) * self.scale_y * self.scale_y;
        let ratio = quotient(&(y * self.scale_x), &(x * self.scale_y));
        RatioSummary::new(self.n, ratio, quotient(&numerator, &divisor))
    }

    /// The sample covariance of denominator and numerator (divisor n − 1).
    ///
    /// # Errors
    /// As [`Self::summary`], without the denominator's.
    pub fn covariance(&self) -> Result<f64, StatsError> {
        check_units(self.n, 2, self.scale_x.min(self.scale_y))?;
        let n = BigInt::from(self.n);
        let divisor = &n * (&n - 1_u32) * self.scale_x * self.scale_y;
        Ok(quotient(&self.centred()?.xy, &divisor))
    }

    /// The moments of the denominator alone.
    #[must_use]
    pub fn denominator(&self) -> MeanMoments {
        MeanMoments {
            n: self.n,
            sum: self.sum_x.clone(),
            sum_sq: self.sum_xx.clone(),
            scale: self.scale_x,
        }
    }

    /// The moments of the numerator alone.
    #[must_use]
    pub fn numerator(&self) -> MeanMoments {
        MeanMoments {
            n: self.n,
            sum: self.sum_y.clone(),
            sum_sq: self.sum_yy.clone(),
            scale: self.scale_y,
        }
    }

    /// The centred moments, when some units could have them (Cauchy and Schwarz).
    fn centred(&self) -> Result<Centred, StatsError> {
        let n = BigInt::from(self.n);
        let xx = &n * &self.sum_xx - &self.sum_x * &self.sum_x;
        let yy = &n * &self.sum_yy - &self.sum_y * &self.sum_y;
        let xy = &n * &self.sum_xy - &self.sum_x * &self.sum_y;
        let possible = !xx.is_negative() && !yy.is_negative() && &xy * &xy <= &xx * &yy;
        if possible {
            Ok(Centred { xx, yy, xy })
        } else {
            Err(StatsError::InvalidInput)
        }
    }
}

/// All sums of a variant, as they are read from the database. What is absent is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// Exposed units, those without any event included.
    pub units: i64,
    /// Units with at least one event of the type.
    pub units_with: BTreeMap<EventType, i64>,
    /// Units whose total is not 0, of totals that are no counts of events of one type: values, errors.
    pub units_above_zero: BTreeMap<UnitTotal, i64>,
    /// Sums of unit totals, each in its scale.
    pub sums: BTreeMap<UnitTotal, BigInt>,
    /// Sums of products of two unit totals (squares too); the key's first total is not the larger.
    pub products: BTreeMap<(UnitTotal, UnitTotal), BigInt>,
}

/// What a metric needs of the sums of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricMoments {
    /// For a proportion.
    Proportion(Proportion),
    /// For a mean.
    Mean(MeanMoments),
    /// For a ratio.
    Ratio(RatioMoments),
}

impl Moments {
    /// Adds the units of another part.
    pub fn merge(&mut self, other: &Self) {
        self.units += other.units;
        for (event, units) in &other.units_with {
            *self.units_with.entry(*event).or_default() += units;
        }
        for (total, units) in &other.units_above_zero {
            *self.units_above_zero.entry(*total).or_default() += units;
        }
        for (total, sum) in &other.sums {
            *self.sums.entry(*total).or_default() += sum;
        }
        for (pair, sum) in &other.products {
            *self.products.entry(*pair).or_default() += sum;
        }
    }

    /// What `metric` needs; `None` for a quantile, which does not follow from sums.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for a proportion with more successes than units.
    pub fn of_metric(&self, metric: Metric) -> Result<Option<MetricMoments>, StatsError> {
        Ok(match metric.kind() {
            MetricKind::Proportion { event } => {
                Some(MetricMoments::Proportion(self.proportion(event)?))
            }
            MetricKind::Mean { of } => Some(MetricMoments::Mean(self.mean(of))),
            MetricKind::Ratio {
                numerator,
                denominator,
            } => Some(MetricMoments::Ratio(self.ratio(numerator, denominator))),
            MetricKind::Quantile { .. } => None,
        })
    }

    /// Units with at least one `event`.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] when they are more than all units.
    pub fn proportion(&self, event: EventType) -> Result<Proportion, StatsError> {
        let successes = self.units_with.get(&event).copied().unwrap_or(0);
        Proportion::new(successes, self.units)
    }

    /// Moments of one total.
    #[must_use]
    pub fn mean(&self, of: UnitTotal) -> MeanMoments {
        MeanMoments {
            n: self.units,
            sum: self.sum(of),
            sum_sq: self.product(of, of),
            scale: of.scale(),
        }
    }

    /// Moments of two totals.
    #[must_use]
    pub fn ratio(&self, numerator: UnitTotal, denominator: UnitTotal) -> RatioMoments {
        RatioMoments {
            n: self.units,
            sum_x: self.sum(denominator),
            sum_y: self.sum(numerator),
            sum_xx: self.product(denominator, denominator),
            sum_yy: self.product(numerator, numerator),
            sum_xy: self.product(numerator, denominator),
            scale_x: denominator.scale(),
            scale_y: numerator.scale(),
        }
    }

    fn sum(&self, of: UnitTotal) -> BigInt {
        self.sums.get(&of).cloned().unwrap_or_default()
    }

    fn product(&self, one: UnitTotal, other: UnitTotal) -> BigInt {
        let pair = (one.min(other), one.max(other));
        self.products.get(&pair).cloned().unwrap_or_default()
    }
}

fn same(one: u32, other: u32) -> Result<(), StatsError> {
    if one == other {
        Ok(())
    } else {
        Err(StatsError::InvalidInput)
    }
}

fn check_units(n: i64, least: i64, scale: u32) -> Result<(), StatsError> {
    if n < 0 || scale == 0 {
        return Err(StatsError::InvalidInput);
    }
    if n < least {
        Err(StatsError::NotEnoughData)
    } else {
        Ok(())
    }
}

/// numerator / denominator, correctly rounded to the nearest float, ties to even; the denominator
/// is not 0. Beyond the largest float it is infinite, below the smallest normal one it may be
/// rounded twice.
#[must_use]
pub fn quotient(numerator: &BigInt, denominator: &BigInt) -> f64 {
    if numerator.is_zero() {
        return 0.0;
    }
    let negative = (numerator.sign() == Sign::Minus) != (denominator.sign() == Sign::Minus);
    let (numerator, denominator) = (numerator.magnitude(), denominator.magnitude());
    // Shift so that the quotient has 65 or 66 bits: the lowest is below the last that a float
    // keeps, and takes the remainder along as a sticky bit.
    let excess = i64::try_from(numerator.bits()).unwrap_or(i64::MAX)
        - i64::try_from(denominator.bits()).unwrap_or(0);
    let shift = 65 - excess;
    let (whole, rest) = match (numerator.to_u128(), denominator.to_u128()) {
        (Some(numerator), Some(denominator)) if shift >= 0 && denominator.leading_zeros() > 0 => {
            shifted_quotient(numerator, denominator, shift.unsigned_abs())
        }
        _ => shifted_quotient_of_many_digits(numerator, denominator, shift),
    };
    let bits = whole | u128::from(rest);
    let size = scale_by_power_of_two(bits as f64, -shift);
    if negative { -size } else { size }
}

/// The whole part of numerator · 2^shift / denominator, which fits, and whether there is a remainder. A few divisions of
/// machine words: most sums are that small, and take a fifth of the time.
fn shifted_quotient(numerator: u128, denominator: u128, shift: u64) -> (u128, bool) {
    let mut whole = numerator / denominator;
    let mut rest = numerator - whole * denominator;
    let mut left = shift;
    while left > 0 {
        // The remainder is below the denominator, whose leading zeros it may use.
        let bits = left.min(u64::from(denominator.leading_zeros()));
        rest <<= bits;
        let digit = rest / denominator;
        rest -= digit * denominator;
        whole = (whole << bits) | digit;
        left -= bits;
    }
    (whole, rest != 0)
}

/// The same without limits of size; a negative shift shortens.
fn shifted_quotient_of_many_digits(
    numerator: &BigUint,
    denominator: &BigUint,
    shift: i64,
) -> (u128, bool) {
    let distance = shift.unsigned_abs();
    let (numerator, denominator) = if shift >= 0 {
        (numerator << distance, denominator.clone())
    } else {
        (numerator.clone(), denominator << distance)
    };
    let whole = &numerator / &denominator;
    let rest = &whole * &denominator != numerator;
    (whole.to_u128().unwrap_or(u128::MAX), rest)
}

/// value · 2^power, in steps that stay inside the range of floats.
fn scale_by_power_of_two(mut value: f64, mut power: i64) -> f64 {
    const STEP: i64 = 1_000;
    while power.abs() > STEP && value != 0.0 && value.is_finite() {
        let step = STEP * power.signum();
        value *= 2.0_f64.powi(if step > 0 { 1_000 } else { -1_000 });
        power -= step;
    }
    value * 2.0_f64.powi(i32::try_from(power.clamp(-STEP, STEP)).unwrap_or(0))
}

mod covariate;

pub use covariate::{CovariateCentre, CovariatePair, CoveredMoments};

#[cfg(test)]
mod tests;
