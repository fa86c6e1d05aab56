//! A quantile sketch that merges exactly: counts of values by logarithmic bucket.
//!
//! Bucket i holds the values in (1.02^(i−1), 1.02^i], and stands for 2 · 1.02^i / 2.02, which is off by at most 0.991 % of
//! any value in it. Counts are whole numbers, so sketches add and subtract without loss, in any order, and the same values
//! give the same sketch however they were grouped.
//!
//! # Source
//! Masson, Rim & Lee, *DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees*, PVLDB 12
//! (2019), 2195–2205; without its collapsing of buckets, because values lie in a known range.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::quantile::{QuantileEstimate, RankedLimit, limits};
use super::{StatsError, check_level};

/// Width of a bucket: its upper end over its lower end.
pub const GROWTH: f64 = 1.02;
/// The lowest bucket. Everything up to 0.01 falls in it, because nobody tells such latencies (in milliseconds) apart.
pub const LOWEST_BUCKET: i32 = -232;

/// Counts by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<i32, i64>", into = "BTreeMap<i32, i64>")]
pub struct Sketch {
    counts: BTreeMap<i32, i64>,
    total: i64,
}

impl TryFrom<BTreeMap<i32, i64>> for Sketch {
    type Error = StatsError;

    fn try_from(counts: BTreeMap<i32, i64>) -> Result<Self, StatsError> {
        let mut sketch = Self::default();
        for (bucket, count) in counts {
            sketch.add_bucket(bucket, count)?;
        }
        Ok(sketch)
    }
}

impl From<Sketch> for BTreeMap<i32, i64> {
    fn from(sketch: Sketch) -> Self {
        sketch.counts
    }
}

impl Sketch {
    /// Adds `count` values of a bucket.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for a negative count, or more values than 64 bits count.
    pub fn add_bucket(&mut self, bucket: i32, count: i64) -> Result<(), StatsError> {
        if count < 0 {
            return Err(StatsError::InvalidInput);
        }
        let total = self.total.checked_add(count);
        self.total = total.ok_or(StatsError::InvalidInput)?;
        *self.counts.entry(bucket.max(LOWEST_BUCKET)).or_default() += count;
        Ok(())
    }

    /// Adds a value.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for a value that is negative or not finite.
    pub fn add(&mut self, value: f64) -> Result<(), StatsError> {
        self.add_bucket(bucket(value)?, 1)
    }

    /// Adds the values of another sketch.
    ///
    /// # Errors
    /// As [`Self::add_bucket`].
    pub fn merge(&mut self, other: &Self) -> Result<(), StatsError> {
        let mut parts = other.counts.iter();
        parts.try_for_each(|(bucket, count)| self.add_bucket(*bucket, *count))
    }

    /// How many values it holds.
    #[must_use]
    pub const fn count(&self) -> i64 {
        self.total
    }

    /// How many values lie in higher buckets than `value`.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for a value that is negative or not finite.
    pub fn count_above(&self, value: f64) -> Result<i64, StatsError> {
        let above = self.counts.range(bucket(value)?.saturating_add(1)..);
        Ok(above.map(|(_, count)| count).sum())
    }

    /// The value of a rank, from 1; the largest beyond the end. `None` without values.
    #[must_use]
    pub fn at_rank(&self, rank: i64) -> Option<f64> {
        let mut below = 0;
        let mut last = None;
        for (bucket, count) in self.counts.iter().filter(|(_, count)| **count > 0) {
            below += count;
            last = Some(middle(*bucket));
            if below >= rank {
                break;
            }
        }
        last
    }

    /// The `q` quantile with a two-sided interval at `confidence`, as if there were `units` independent values: where many
    /// values come from one source, fewer than the sketch holds.
    ///
    /// # Errors
    /// [`StatsError::InvalidInput`] for q or confidence outside (0, 1); [`StatsError::NotEnoughData`] without values or
    /// units.
    ///
    /// # Source
    /// Ranks of the limits: David & Nagaraja, *Order Statistics*, 3rd ed., sec. 7.1.
    pub fn quantile(
        &self,
        q: f64,
        units: usize,
        confidence: f64,
    ) -> Result<QuantileEstimate, StatsError> {
        let tail = (1.0 - check_level(confidence)?) / 2.0;
        check_level(q)?;
        if units == 0 {
            return Err(StatsError::NotEnoughData);
        }
        let value = self.at_rank(self.rank((self.as_float() - 1.0) * q + 1.0));
        let ranks = limits(units, q, tail);
        let limit = |rank: Option<usize>| {
            #[expect(clippy::cast_precision_loss, reason = "units stay far below 2^53")]
            let share = rank? as f64 / units as f64;
            let value = self.at_rank(self.rank((share * self.as_float()).ceil()))?;
            Some(RankedLimit { rank: rank?, value })
        };
        Ok(QuantileEstimate {
            value: value.ok_or(StatsError::NotEnoughData)?,
            lower: limit(ranks.0),
            upper: limit(ranks.1),
        })
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a rank is off by a part in 10^15"
    )]
    fn as_float(&self) -> f64 {
        self.total as f64
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most the number of values; the conversion saturates"
    )]
    fn rank(&self, rank: f64) -> i64 {
        (rank.floor() as i64).clamp(1, self.total.max(1))
    }
}

/// The bucket of a value.
///
/// # Errors
/// [`StatsError::InvalidInput`] for a value that is negative or not finite.
pub fn bucket(value: f64) -> Result<i32, StatsError> {
    if !value.is_finite() || value < 0.0 {
        return Err(StatsError::InvalidInput);
    }
    let exact = (value.max(f64::MIN_POSITIVE).ln() / GROWTH.ln()).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "between -36,000 and 36,000"
    )]
    Ok((exact as i32).max(LOWEST_BUCKET))
}

/// What a bucket stands for.
fn middle(bucket: i32) -> f64 {
    2.0 * GROWTH.powi(bucket) / (GROWTH + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::quantile::quantile;

    /// Log-normal values from a counter, the same in every run.
    fn values(count: u32) -> Vec<f64> {
        let spread = |n: u32| f64::from(n.wrapping_mul(2_654_435_769)) / 2.0_f64.powi(32);
        (1..=count)
            .map(|n| {
                120.0
                    * (1.1 * crate::stats::special::norm_isf(spread(n).clamp(1e-9, 1.0 - 1e-9)))
                        .exp()
            })
            .collect()
    }

    #[test]
    fn every_quantile_is_within_one_percent() {
        let values = values(5_000);
        let mut sketch = Sketch::default();
        values.iter().for_each(|value| sketch.add(*value).unwrap());
        let mut sorted = values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        for (rank, value) in (1..).zip(&sorted) {
            let got = sketch.at_rank(rank).unwrap();
            assert!((got - value).abs() <= 0.01 * value, "{got} for {value}");
        }
        let exact = quantile(&values, 0.95, 0.99).unwrap();
        let sketched = sketch.quantile(0.95, values.len(), 0.99).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() <= 0.011 * b;
        assert!(near(sketched.value, exact.value));
        for (got, wanted) in [(sketched.lower, exact.lower), (sketched.upper, exact.upper)] {
            assert_eq!(got.unwrap().rank, wanted.unwrap().rank);
            assert!(near(got.unwrap().value, wanted.unwrap().value));
        }
    }

    #[test]
    fn parts_merge_to_the_whole_in_any_order() {
        let (mut whole, mut parts) = (Sketch::default(), [Sketch::default(), Sketch::default()]);
        for (at, value) in values(300).into_iter().enumerate() {
            whole.add(value).unwrap();
            parts[at % 2].add(value).unwrap();
        }
        let [mut one, mut other] = parts;
        let left = one.clone();
        one.merge(&other).unwrap();
        other.merge(&left).unwrap();
        assert_eq!((&one, &other), (&whole, &whole));
    }

    #[test]
    fn edges_are_answered_and_nonsense_is_refused() {
        let mut sketch = Sketch::default();
        assert_eq!(sketch.at_rank(1), None);
        assert!(sketch.quantile(0.95, 10, 0.9).is_err());
        sketch.add(0.0).unwrap();
        assert!(sketch.at_rank(1).unwrap() < 0.0101);
        sketch.add(86_400_000.0).unwrap();
        let largest = sketch.at_rank(9).unwrap();
        assert!((largest / 86_400_000.0 - 1.0).abs() <= 0.01);
        for bad in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(sketch.add(bad), Err(StatsError::InvalidInput));
        }
        assert_eq!(sketch.add_bucket(1, -1), Err(StatsError::InvalidInput));
        assert_eq!(
            sketch.add_bucket(1, i64::MAX),
            Err(StatsError::InvalidInput)
        );
        assert!(sketch.quantile(0.95, 0, 0.9).is_err());
        // Fewer than 59 independent values have no upper limit of their 95 % point at 95 %, however many there are.
        assert!(sketch.quantile(0.95, 20, 0.9).unwrap().upper.is_none());
    }
}
