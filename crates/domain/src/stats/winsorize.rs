//! Winsorisation: values beyond a cap are set to the cap.
//!
//! A cap at a quantile is found on both arms pooled, so that it is the same for both; an engine
//! that looks repeatedly freezes it and applies it with [`capped_moments`].

use super::quantile::QuantilePosition;
use super::{StatsError, finite, two_sum};

/// Caps as values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Caps {
    lower: Option<f64>,
    upper: Option<f64>,
}

impl Caps {
    /// Checks that caps are finite and do not cross.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] otherwise.
    pub fn new(lower: Option<f64>, upper: Option<f64>) -> Result<Self, StatsError> {
        for cap in [lower, upper].into_iter().flatten() {
            finite(cap)?;
        }
        if lower.zip(upper).is_some_and(|(lower, upper)| lower > upper) {
            return Err(StatsError::InvalidInput);
        }
        Ok(Self { lower, upper })
    }

    /// Values below this are raised to it.
    #[must_use]
    pub fn lower(&self) -> Option<f64> {
        self.lower
    }

    /// Values above this are lowered to it.
    #[must_use]
    pub fn upper(&self) -> Option<f64> {
        self.upper
    }

    /// The value after capping.
    #[must_use]
    pub fn apply(&self, value: f64) -> f64 {
        let raised = self.lower.map_or(value, |cap| value.max(cap));
        self.upper.map_or(raised, |cap| raised.min(cap))
    }
}

/// Capped values of an arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CappedMoments {
    /// Values.
    pub n: usize,
    /// Their mean after capping.
    pub mean: f64,
    /// Sample variance after capping, divisor n − 1; absent for a single value.
    pub variance: Option<f64>,
    /// Values that a cap changed.
    pub capped: usize,
}

/// Caps, and both arms after capping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Winsorized {
    /// The caps, as values.
    pub caps: Caps,
    /// Control.
    pub a: CappedMoments,
    /// Treatment.
    pub b: CappedMoments,
}

/// Caps both arms at quantiles of the pooled values, `lower` and `upper` in [0, 1]; `None` leaves
/// that side as it is.
///
/// # Errors
/// [`StatsError::InvalidInput`] for values that are not finite, quantiles outside [0, 1] or
/// crossing, or moments beyond the range of floats; [`StatsError::NotEnoughData`] for an empty arm.
///
/// # Source
/// Dixon & Tukey, Technometrics 10 (1968), 83–98; quantiles of type 7 of Hyndman & Fan, Amer.
/// Statist. 50 (1996), 361–365.
pub fn winsorize(
    a: &[f64],
    b: &[f64],
    lower: Option<f64>,
    upper: Option<f64>,
) -> Result<Winsorized, StatsError> {
    let levels = [lower, upper].into_iter().flatten();
    let outside = levels.clone().any(|level| !(0.0..=1.0).contains(&level));
    let crossed = lower.zip(upper).is_some_and(|(lower, upper)| lower > upper);
    if outside || crossed || a.iter().chain(b).any(|value| !value.is_finite()) {
        return Err(StatsError::InvalidInput);
    }
    if a.is_empty() || b.is_empty() {
        return Err(StatsError::NotEnoughData);
    }
    let mut pooled = [a, b].concat();
    let lower = lower.map(|level| PooledQuantile::new(&mut pooled, level));
    let upper = upper.map(|level| PooledQuantile::new(&mut pooled, level));
    let caps = Caps::new(lower.map(|cap| cap.value()), upper.map(|cap| cap.value()))?;
    let capped = |value: f64| match (lower, upper) {
        (_, Some(cap)) if cap.is_exceeded_by(value) => cap.capped(),
        (Some(cap), _) if cap.exceeds(value) => cap.capped(),
        _ => Capped::unchanged(value),
    };
    Ok(Winsorized {
        caps,
        a: moments(a, capped)?,
        b: moments(b, capped)?,
    })
}

/// Moments of an arm under caps that are given as values.
///
/// # Errors
/// [`StatsError::InvalidInput`] for values that are not finite, or moments beyond the range of
/// floats; [`StatsError::NotEnoughData`] without values.
pub fn capped_moments(values: &[f64], caps: &Caps) -> Result<CappedMoments, StatsError> {
    if values.iter().any(|value| !value.is_finite()) {
        return Err(StatsError::InvalidInput);
    }
    if values.is_empty() {
        return Err(StatsError::NotEnoughData);
    }
    moments(values, |value| {
        let below = caps.lower.is_some_and(|cap| value < cap);
        let above = caps.upper.is_some_and(|cap| value > cap);
        Capped {
            value: caps.apply(value),
            rest: 0.0,
            changed: below || above,
        }
    })
}

/// A value after capping.
#[derive(Clone, Copy)]
struct Capped {
    value: f64,
    /// What rounding took from the value: a cap between two values far from 0 has fewer digits
    /// than their differences.
    rest: f64,
    changed: bool,
}

impl Capped {
    fn unchanged(value: f64) -> Self {
        Self {
            value,
            rest: 0.0,
            changed: false,
        }
    }
}

/// Mean and variance in two passes, the second about the rounded mean with the correction for its
/// rounding.
///
/// Source: Chan, Golub & LeVeque, Amer. Statist. 37 (1983), 242–247.
fn moments(values: &[f64], capped: impl Fn(f64) -> Capped) -> Result<CappedMoments, StatsError> {
    let n = values.len() as f64;
    let values: Vec<Capped> = values.iter().map(|value| capped(*value)).collect();
    let rests = sum(values.iter().map(|value| value.rest));
    let mean = finite((sum(values.iter().map(|value| value.value)) + rests) / n)?;
    let deviation = |value: &Capped| (value.value - mean) + value.rest;
    let squares = sum(values.iter().map(|value| deviation(value).powi(2)));
    let shift = sum(values.iter().map(deviation));
    let variance = || finite(((squares - shift * (shift / n)) / (n - 1.0)).max(0.0));
    Ok(CappedMoments {
        n: values.len(),
        mean,
        variance: (values.len() > 1).then(variance).transpose()?,
        capped: values.iter().filter(|value| value.changed).count(),
    })
}

/// Compensated sum.
fn sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut total, mut lost) = (0.0, 0.0);
    for value in values {
        let (next, error) = two_sum(total, value);
        total = next;
        lost += error;
    }
    total + lost
}

/// A quantile between two neighbouring values of a sample.
#[derive(Clone, Copy)]
struct PooledQuantile {
    position: QuantilePosition,
    below: f64,
    above: f64,
}

impl PooledQuantile {
    fn new(values: &mut [f64], level: f64) -> Self {
        let position = QuantilePosition::new(values.len(), level);
        let (below, above) = position.select_neighbours(values);
        Self {
            position,
            below,
            above,
        }
    }

    fn value(&self) -> f64 {
        self.position.between(self.below, self.above).0
    }

    fn capped(&self) -> Capped {
        let (value, rest) = self.position.between(self.below, self.above);
        Capped {
            value,
            rest,
            changed: true,
        }
    }

    /// Whether a value of the sample lies above the quantile. The quantile itself may round onto
    /// its upper neighbour, which it never reaches.
    fn is_exceeded_by(&self, value: f64) -> bool {
        value > self.below
    }

    /// Whether a value of the sample lies below the quantile.
    fn exceeds(&self, value: f64) -> bool {
        let on_value = self.position.is_on_value();
        value < if on_value { self.below } else { self.above }
    }
}
