//! How requests of units ended: errors and latencies, per variant, for guardrails and safety checks.
//!
//! Units are what was randomised, and requests of one unit are alike: a client that fails fails again and again. So
//! intervals count units, weighted down where a few units make most of the requests.

use serde::{Deserialize, Serialize};

use crate::stats::proportion::Proportion;
use crate::stats::quantile::QuantileEstimate;
use crate::stats::sketch::{GROWTH, Sketch};
use crate::stats::special::{norm_isf, norm_sf};
use crate::stats::{Interval, PValues, StatsError};

/// Which quantile of latencies is looked at.
pub const LATENCY_QUANTILE: f64 = 0.95;
/// Confidence of the intervals behind standard errors of a latency.
const CONFIDENCE: f64 = 0.95;

/// Request outcomes of a group of units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcomes {
    /// Units with at least one request.
    pub units: i64,
    /// Units with at least one errored request.
    pub erring_units: i64,
    /// Requests.
    pub requests: i64,
    /// Errored requests.
    pub errors: i64,
    /// Sum over units of their requests, squared.
    pub squared_requests: f64,
    /// Latencies of requests, in milliseconds; requests that told none are not in it.
    pub latencies: Sketch,
}

impl Outcomes {
    /// Adds the units of another part, which has none of these units.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] when counts leave 64 bits.
    pub fn merge(&mut self, other: &Self) -> Result<(), StatsError> {
        let add = |a: i64, b: i64| a.checked_add(b).ok_or(StatsError::InvalidInput);
        self.units = add(self.units, other.units)?;
        self.erring_units = add(self.erring_units, other.erring_units)?;
        self.requests = add(self.requests, other.requests)?;
        self.errors = add(self.errors, other.errors)?;
        self.squared_requests += other.squared_requests;
        self.latencies.merge(&other.latencies)
    }

    /// Errored requests over requests; `None` without requests.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn error_rate(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.errors as f64 / self.requests as f64)
    }

    /// Units with an error of units with a request.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for counts that contradict each other.
    pub fn erring(&self) -> Result<Proportion, StatsError> {
        Proportion::new(self.erring_units, self.units)
    }

    /// How many independent requests these are worth: all units where each made as many, fewer where a few made most.
    ///
    /// # Source
    /// Kish, *Survey Sampling* (1965), sec. 11.7: (Σm)² / Σm².
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not above the number of units, which stays far below 2^53"
    )]
    pub fn effective_units(&self) -> usize {
        let requests = self.requests as f64;
        if self.squared_requests <= 0.0 || self.units <= 0 {
            return 0;
        }
        (requests * requests / self.squared_requests).min(self.units as f64) as usize
    }

    /// Requests slower than `milliseconds`, in effective units ([`Self::effective_units`]), rounded to whole ones.
    ///
    /// # Errors
    /// [`StatsError::NotEnoughData`] without latencies; [`StatsError::InvalidInput`] for a limit that is negative or not
    /// finite.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "not above the number of units, which stays far below 2^53"
    )]
    pub fn slower_than(&self, milliseconds: f64) -> Result<Proportion, StatsError> {
        if self.latencies.count() == 0 {
            return Err(StatsError::NotEnoughData);
        }
        let slow = self.latencies.count_above(milliseconds)? as f64;
        let share = slow / self.latencies.count() as f64;
        let units = self.effective_units();
        let slow = (share * units as f64).round() as i64;
        Proportion::new(slow, i64::try_from(units).unwrap_or(i64::MAX))
    }

    /// The 95 % point of latencies in milliseconds, with a two-sided interval at `confidence`.
    ///
    /// # Errors
    /// [`StatsError::NotEnoughData`] without latencies; [`StatsError::InvalidInput`] for a confidence outside (0, 1).
    pub fn p95(&self, confidence: f64) -> Result<QuantileEstimate, StatsError> {
        self.latencies
            .quantile(LATENCY_QUANTILE, self.effective_units(), confidence)
    }
}

/// Latencies of a treatment against the control's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyComparison {
    /// The control's 95 % point in milliseconds.
    pub control: f64,
    /// The treatment's.
    pub treatment: f64,
    /// Treatment over control minus one, within stretches of constant weights.
    pub change: f64,
    /// Two-sided 95 % interval of the change.
    pub interval: Interval,
    /// The logarithm of the ratio in standard errors.
    pub z: f64,
    /// p-values of "no change".
    pub p: PValues,
    /// The logarithm of the ratio.
    pub log_ratio: f64,
    /// Its standard error.
    pub log_se: f64,
}

/// Compares the 95 % points of control and treatment, pair by pair (one for each stretch of constant weights), weighted by
/// their precision.
///
/// # Errors
/// [`StatsError::NotEnoughData`] where no pair has limits in both arms, and what the comparison of quantiles returns.
///
/// # Source
/// Logarithm of the ratio with standard errors from the widths of order-statistic intervals: Price & Bonett, J. Stat.
/// Comput. Simul. 68 (2001), 295–305.
pub fn compare_latencies(
    pairs: &[(&Outcomes, &Outcomes)],
) -> Result<LatencyComparison, StatsError> {
    let (mut weight, mut weighted) = (0.0, 0.0);
    let (mut control, mut treatment) = (Outcomes::default(), Outcomes::default());
    for (a, b) in pairs {
        let (log_ratio, variance) = match of_pair(a, b) {
            Err(StatsError::NotEnoughData) if pairs.len() > 1 => continue,
            found => found?,
        };
        weight += 1.0 / variance;
        weighted += log_ratio / variance;
        control.merge(a)?;
        treatment.merge(b)?;
    }
    if weight <= 0.0 {
        return Err(StatsError::NotEnoughData);
    }
    let (log_ratio, log_se) = (weighted / weight, (1.0 / weight).sqrt());
    let half = norm_isf((1.0 - CONFIDENCE) / 2.0) * log_se;
    let z = log_ratio / log_se;
    Ok(LatencyComparison {
        control: control.p95(CONFIDENCE)?.value,
        treatment: treatment.p95(CONFIDENCE)?.value,
        change: log_ratio.exp_m1(),
        interval: Interval {
            lower: (log_ratio - half).exp_m1(),
            upper: (log_ratio + half).exp_m1(),
        },
        z,
        p: PValues::normal(z)?,
        log_ratio,
        log_se,
    })
}

/// The logarithm of the ratio of two 95 % points, and its variance, that of rounding to buckets included.
fn of_pair(a: &Outcomes, b: &Outcomes) -> Result<(f64, f64), StatsError> {
    let (a, b) = (a.p95(CONFIDENCE)?, b.p95(CONFIDENCE)?);
    let rounding = GROWTH.ln().powi(2) / 12.0;
    let variance = log_variance(&a)? + log_variance(&b)? + 2.0 * rounding;
    Ok(((b.value / a.value).ln(), variance))
}

fn log_variance(quantile: &QuantileEstimate) -> Result<f64, StatsError> {
    let (lower, upper) = quantile
        .lower
        .zip(quantile.upper)
        .ok_or(StatsError::NotEnoughData)?;
    let z = norm_isf((1.0 - CONFIDENCE) / 2.0);
    Ok(((upper.value / lower.value).ln() / (2.0 * z)).powi(2))
}

impl LatencyComparison {
    /// The p-value of "higher by `margin` (a fraction) or more": small proves that it is not.
    #[must_use]
    pub fn p_of_margin(&self, margin: f64) -> f64 {
        norm_sf((margin.ln_1p() - self.log_ratio) / self.log_se)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(units: i64, requests_each: i64, latency: f64) -> Outcomes {
        let mut latencies = Sketch::default();
        for unit in 0..units {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let value = latency * (1.0 + unit as f64 / units as f64);
            for _ in 0..requests_each {
                latencies.add(value).unwrap();
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let squared = (units * requests_each * requests_each) as f64;
        Outcomes {
            units,
            erring_units: units / 10,
            requests: units * requests_each,
            errors: units / 10,
            squared_requests: squared,
            latencies,
        }
    }

    #[test]
    fn more_requests_of_the_same_units_prove_nothing_more() {
        let (few, many) = (outcomes(500, 1, 100.0), outcomes(500, 40, 100.0));
        assert_eq!((few.effective_units(), many.effective_units()), (500, 500));
        assert_eq!(few.p95(0.95).unwrap(), many.p95(0.95).unwrap());
        // One client makes nearly all requests.
        let crowd = Outcomes {
            requests: 500_000,
            squared_requests: 499_501.0_f64.powi(2) + 499.0,
            ..few
        };
        assert_eq!(crowd.effective_units(), 1);
    }

    #[test]
    fn a_slower_treatment_is_seen_and_an_equal_one_is_not() {
        let (a, b) = (outcomes(2_000, 3, 100.0), outcomes(2_000, 3, 140.0));
        let slower = compare_latencies(&[(&a, &b)]).unwrap();
        assert!((slower.change - 0.4).abs() < 0.03, "{slower:?}");
        assert!(slower.interval.lower > 0.3 && slower.p.greater < 1e-9);
        assert!(slower.p_of_margin(0.2) > 0.999 && slower.p_of_margin(0.6) < 0.01);
        let same = compare_latencies(&[(&a, &a), (&a, &a)]).unwrap();
        assert!(same.change.abs() < 1e-12 && (same.p.two_sided - 1.0).abs() < 1e-12);
        let none = Outcomes::default();
        assert_eq!(
            compare_latencies(&[(&a, &none)]),
            Err(StatsError::NotEnoughData)
        );
        assert_eq!(compare_latencies(&[]), Err(StatsError::NotEnoughData));
        assert_eq!(none.error_rate(), None);
    }
}
