//! Values in [0, max]: exact sums, and the Gaussian–gamma posterior of their mean.

use serde::{Deserialize, Serialize};

use crate::counts::Evidence;
use crate::error::{BanditError, in_range};
use crate::quadrature::{CUT, Density, NODES, Panel, RULE, Row};
use crate::special::{float, ln_gamma_half_step};

/// Units of a value per one: values have four decimals.
pub const VALUE_SCALE: f64 = 10_000.0;

/// Sums over plays with a known outcome. A play without reward has the value 0.
///
/// Values are integers of 1/10,000, so sums are exact and merge in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueSums {
    plays: u64,
    sum: u128,
    sum_sq: u128,
}

impl ValueSums {
    /// Sums that were added up elsewhere: of values in 1/10,000, and of their squares.
    #[must_use]
    pub const fn from_sums(plays: u64, sum: u128, sum_sq: u128) -> Self {
        Self { plays, sum, sum_sq }
    }

    /// Adds a play with the value `value`, in 1/10,000.
    ///
    /// # Errors
    /// [`BanditError::Overflow`] when a sum no longer fits.
    pub fn record(self, value: u64) -> Result<Self, BanditError> {
        let value = u128::from(value);
        let square = value.checked_mul(value);
        self.merge(Self {
            plays: 1,
            sum: value,
            sum_sq: square.ok_or(BanditError::Overflow { name: "value" })?,
        })
    }

    /// The sums of both parts.
    ///
    /// # Errors
    /// [`BanditError::Overflow`] when a sum no longer fits.
    pub fn merge(self, other: Self) -> Result<Self, BanditError> {
        let overflow = |name| BanditError::Overflow { name };
        Ok(Self {
            plays: self
                .plays
                .checked_add(other.plays)
                .ok_or(overflow("plays"))?,
            sum: self.sum.checked_add(other.sum).ok_or(overflow("sum"))?,
            sum_sq: self
                .sum_sq
                .checked_add(other.sum_sq)
                .ok_or(overflow("sum_sq"))?,
        })
    }

    /// Plays with a known outcome.
    #[must_use]
    pub const fn plays(&self) -> u64 {
        self.plays
    }

    /// The mean value, `None` without plays.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.plays > 0).then(|| wide(self.sum) / VALUE_SCALE / float(self.plays))
    }

    /// Σ (x − mean)², never negative; 0 without plays.
    fn squared_deviations(&self) -> f64 {
        if self.plays == 0 {
            return 0.0;
        }
        let scale = VALUE_SCALE * VALUE_SCALE;
        // Exact where the products fit, which is so for totals up to 1e19.
        let products = u128::from(self.plays)
            .checked_mul(self.sum_sq)
            .zip(self.sum.checked_mul(self.sum));
        match products {
            Some((squares, square)) => {
                wide(squares.saturating_sub(square)) / float(self.plays) / scale
            }
            None => {
                let correction = wide(self.sum) * (wide(self.sum) / float(self.plays));
                ((wide(self.sum_sq) - correction) / scale).max(0.0)
            }
        }
    }

    /// Plays, and the sum of values as shares of `max`: what index policies for bounded rewards
    /// read. Values above the maximum count as the maximum on average.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] unless `max` is finite and above 0.
    pub fn shares(&self, max: f64) -> Result<Evidence, BanditError> {
        in_range("max", max, f64::MIN_POSITIVE, f64::MAX)?;
        let plays = float(self.plays).min(1e15);
        let share = self.mean().unwrap_or(0.0) / max;
        Evidence::new(plays, plays * share.min(1.0))
    }
}

#[expect(clippy::cast_precision_loss, reason = "the rounding is meant")]
fn wide(sum: u128) -> f64 {
    sum as f64
}

/// What is believed of an arm's values before its first play: precision τ ~ Gamma(shape, rate),
/// mean | τ ~ Normal(mean, 1 / (strength τ)).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValuePrior {
    mean: f64,
    strength: f64,
    shape: f64,
    rate: f64,
}

impl ValuePrior {
    /// Values in [0, max] around a mean known from the site's history, else in the middle. Worth
    /// one play; the standard deviation is believed to be about a quarter of `max`.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] unless max is finite and above 0, and the mean in [0, max].
    pub fn bounded(max: f64, site_mean: Option<f64>) -> Result<Self, BanditError> {
        in_range("max", max, 1e-4, 1e15)?;
        let mean = in_range("mean", site_mean.unwrap_or(0.5 * max), 0.0, max)?;
        Ok(Self {
            mean,
            strength: 1.0,
            // The marginal of the mean has four degrees of freedom, enough for a finite
            // expectation of the largest mean.
            shape: 2.0,
            rate: max * max / 16.0,
        })
    }

    /// The posterior.
    ///
    /// # Source
    /// Murphy, *Conjugate Bayesian analysis of the Gaussian distribution* (2007), eq. 85–89.
    #[must_use]
    pub fn posterior(&self, sums: &ValueSums) -> ValuePosterior {
        let n = float(sums.plays);
        let mean = sums.mean().unwrap_or(self.mean);
        let strength = self.strength + n;
        let gap = mean - self.mean;
        let between = self.strength * n / strength * gap * gap;
        ValuePosterior {
            mean: self.mean + n / strength * gap,
            strength,
            shape: self.shape + 0.5 * n,
            rate: self.rate + 0.5 * (sums.squared_deviations() + between),
        }
    }
}

/// Gaussian–gamma posterior of an arm's mean value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValuePosterior {
    mean: f64,
    strength: f64,
    shape: f64,
    rate: f64,
}

impl ValuePosterior {
    /// Expectation of the mean value.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Prior plays plus plays.
    #[must_use]
    pub fn strength(&self) -> f64 {
        self.strength
    }

    /// Shape of the precision's gamma distribution.
    #[must_use]
    pub fn shape(&self) -> f64 {
        self.shape
    }

    /// Rate of the precision's gamma distribution.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The mean's marginal distribution: Student's t with 2·shape degrees of freedom.
    pub(crate) fn density(&self) -> StudentDensity {
        let freedom = 2.0 * self.shape;
        let scale = (self.rate / self.shape / self.strength).sqrt();
        // What lies beyond weighs about e^(−27) in spite of the heavy tails.
        let drop = CUT * (freedom + 1.0) / freedom;
        let reach = (freedom * (2.0 * drop / (freedom + 1.0)).exp_m1()).sqrt();
        StudentDensity {
            centre: self.mean,
            scale,
            freedom,
            ln_peak: ln_gamma_half_step(self.shape)
                - 0.5 * (freedom * std::f64::consts::PI).ln()
                - scale.ln(),
            reach,
        }
    }
}

/// Density of a location-scale t distribution.
#[derive(Clone, Debug)]
pub(crate) struct StudentDensity {
    centre: f64,
    scale: f64,
    freedom: f64,
    ln_peak: f64,
    reach: f64,
}

/// Nodes of a panel on the scale of the values.
pub(crate) struct LinearPanel {
    values: Row,
}

impl LinearPanel {
    /// The points at which densities are evaluated.
    pub(crate) fn nodes(&self) -> &Row {
        &self.values
    }
}

impl Panel for LinearPanel {
    fn new(left: f64, width: f64) -> Self {
        let mut values = [0.0; NODES];
        for (value, node) in values.iter_mut().zip(&RULE.nodes) {
            *value = left + width * node;
        }
        Self { values }
    }

    fn values(&self) -> Row {
        self.values
    }
}

impl Density for StudentDensity {
    type Panel = LinearPanel;
    type Place = f64;

    fn place(y: f64) -> f64 {
        y
    }

    fn support(&self) -> (f64, f64) {
        let reach = self.reach * self.scale;
        (self.centre - reach, self.centre + reach)
    }

    fn width(&self, y: &f64) -> f64 {
        let t = (y - self.centre) / self.scale;
        let spread = self.freedom + t * t;
        let slope = (self.freedom + 1.0) * t.abs() / spread;
        let curvature = (self.freedom + 1.0) / spread;
        // Singularities at ±i√ν.
        let clear = 0.9 * spread.sqrt();
        self.scale * (1.6 / curvature.sqrt()).min(5.0 / slope).min(clear)
    }

    fn fill(&self, panel: &LinearPanel, out: &mut Row) {
        for (value, y) in out.iter_mut().zip(&panel.values) {
            let t = (y - self.centre) / self.scale;
            let drop = 0.5 * (self.freedom + 1.0) * (t * t / self.freedom).ln_1p();
            *value = (self.ln_peak - drop).exp();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::best::compare;

    fn sums(values: &[u64]) -> ValueSums {
        values
            .iter()
            .fold(ValueSums::default(), |sums, v| sums.record(*v).unwrap())
    }

    #[test]
    fn equal_arms_and_a_clear_winner() {
        let prior = ValuePrior::bounded(10.0, None).unwrap();
        let low = prior.posterior(&sums(&[10_000; 50])).density();
        let high = prior.posterior(&sums(&[90_000; 50])).density();
        let even = compare(&[low.clone(), low.clone()], &[1.0, 1.0]).unwrap();
        assert!((even.probability[0] - 0.5).abs() < 1e-11);
        let clear = compare(&[low, high], &[1.0, 9.0]).unwrap();
        assert!(clear.probability[1] > 0.999_999);
    }

    #[test]
    fn unplayed_arms_have_heavy_tails_and_still_add_up() {
        let prior = ValuePrior::bounded(1.0, Some(0.2)).unwrap();
        let arms = [
            prior.posterior(&ValueSums::default()).density(),
            prior.posterior(&sums(&[2_000; 100_000])).density(),
        ];
        // Symmetric about 0.2 up to the spread of the second.
        let best = compare(&arms, &[0.2, 0.2]).unwrap();
        assert!((best.probability[0] - 0.5).abs() < 1e-6, "{best:?}");
    }

    #[test]
    fn extreme_sums_do_not_panic() {
        let huge = ValueSums::default().record(u64::MAX).unwrap();
        assert!(huge.record(u64::MAX).is_err());
        assert!(huge.shares(1.0).unwrap().successes() <= 1.0);
        assert!(huge.shares(0.0).is_err());
        assert!(huge.shares(f64::NAN).is_err());
        assert!(ValuePrior::bounded(0.0, None).is_err());
        assert!(ValuePrior::bounded(1.0, Some(f64::NAN)).is_err());
    }
}
