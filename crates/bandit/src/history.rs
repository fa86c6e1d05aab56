//! Forgetting: what is read of counts by hour when rates drift.
//!
//! Storage keeps integers and never discounts them; the discount is applied when they are read, in
//! order of time, so that the same counts give the same posterior bit for bit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::counts::{Counts, Evidence};
use crate::error::{BanditError, in_range, same_length};
use crate::special::float;

/// How old plays lose their weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forgetting {
    /// All plays count alike.
    #[default]
    Never,
    /// A play of this many hours ago counts half.
    HalfLifeHours(f64),
    /// A play with this many later ones, of any arm, counts half.
    HalfLifePlays(f64),
    /// Only plays of the last so many hours count, the current one included.
    WindowHours(u32),
    /// Only the last so many plays of all arms count.
    WindowPlays(u64),
}

impl Forgetting {
    /// The half-life in plays at which every play multiplies all earlier ones by `gamma`.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] unless 0 < gamma < 1.
    pub fn discount(gamma: f64) -> Result<Self, BanditError> {
        in_range("gamma", gamma, 1e-12, 1.0 - 1e-15)?;
        Ok(Self::HalfLifePlays(-std::f64::consts::LN_2 / gamma.ln()))
    }

    /// Checks the parameter.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] for a half-life that is not finite and above 0.
    pub fn validate(&self) -> Result<(), BanditError> {
        match self {
            Self::HalfLifeHours(life) | Self::HalfLifePlays(life) => {
                in_range("half_life", *life, 1e-3, 1e12).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// The weight of each of `plays` plays of an hour `age` hours ago, after which `later` plays came.
    #[must_use]
    pub fn weight(self, age: i64, later: f64, plays: f64) -> f64 {
        match self {
            Self::Never => 1.0,
            Self::HalfLifeHours(life) => (-as_float(age) / life).exp2(),
            // The mean of 2^(−later/life), 2^(−(later+1)/life), … over the plays of the hour.
            Self::HalfLifePlays(life) if plays > 0.0 => {
                let decay = std::f64::consts::LN_2 / life;
                let mean = (-decay * plays).exp_m1() / (-decay).exp_m1() / plays;
                (-decay * later).exp() * mean
            }
            Self::WindowHours(hours) => f64::from(u8::from(age < i64::from(hours))),
            Self::WindowPlays(window) if plays > 0.0 => {
                ((float(window) - later) / plays).clamp(0.0, 1.0)
            }
            Self::HalfLifePlays(_) | Self::WindowPlays(_) => 0.0,
        }
    }
}

/// Counts of all arms by hour (whole hours since any fixed instant).
///
/// Adding and merging are sums of integers: order and grouping leave no trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    hours: BTreeMap<i64, Vec<Counts>>,
    arms: usize,
}

impl History {
    /// No plays yet.
    #[must_use]
    pub fn new(arms: usize) -> Self {
        Self {
            hours: BTreeMap::new(),
            arms,
        }
    }

    /// Adds counts of an arm in an hour.
    ///
    /// # Errors
    /// [`BanditError::UnknownArm`]; [`BanditError::Overflow`].
    pub fn add(&mut self, hour: i64, arm: usize, counts: Counts) -> Result<(), BanditError> {
        let arms = self.arms;
        let row = self
            .hours
            .entry(hour)
            .or_insert_with(|| vec![Counts::default(); arms]);
        let cell = row
            .get_mut(arm)
            .ok_or(BanditError::UnknownArm { arm, arms })?;
        *cell = cell.merge(counts)?;
        Ok(())
    }

    /// Adds all of another history.
    ///
    /// # Errors
    /// [`BanditError::Length`] for another number of arms; [`BanditError::Overflow`].
    pub fn merge(&mut self, other: &Self) -> Result<(), BanditError> {
        same_length("arms", self.arms, other.arms)?;
        for (hour, row) in &other.hours {
            for (arm, counts) in row.iter().enumerate() {
                self.add(*hour, arm, *counts)?;
            }
        }
        Ok(())
    }

    /// Forgets nothing but the hours before a cut-off, as a reset does.
    #[must_use]
    pub fn since(&self, hour: i64) -> Self {
        Self {
            hours: self
                .hours
                .range(hour..)
                .map(|(hour, row)| (*hour, row.clone()))
                .collect(),
            arms: self.arms,
        }
    }

    /// Evidence of every arm as seen in the hour `now`. Plays inside an hour share their weight.
    ///
    /// # Errors
    /// [`BanditError::OutOfRange`] for an invalid half-life; [`BanditError::InvalidCounts`] when
    /// the sums are beyond 1e15 plays.
    pub fn read(&self, forgetting: Forgetting, now: i64) -> Result<Vec<Evidence>, BanditError> {
        forgetting.validate()?;
        let mut sums = vec![(0.0, 0.0); self.arms];
        let mut later = 0.0;
        for (hour, row) in self.hours.iter().rev() {
            let plays: f64 = row.iter().map(|counts| float(counts.plays())).sum();
            let age = now.saturating_sub(*hour).max(0);
            let weight = forgetting.weight(age, later, plays);
            later += plays;
            for (sum, counts) in sums.iter_mut().zip(row) {
                sum.0 += weight * float(counts.plays());
                sum.1 += weight * float(counts.successes());
            }
        }
        sums.into_iter()
            .map(|(plays, successes)| Evidence::rounded(plays, successes))
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "the rounding is meant")]
fn as_float(hours: i64) -> f64 {
    hours as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let mut history = History::new(2);
        history.add(0, 0, Counts::new(100, 10).unwrap()).unwrap();
        history.add(10, 1, Counts::new(50, 5).unwrap()).unwrap();
        history
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "these values are exact")]
    fn half_lives_and_windows() {
        let plays = |forgetting| {
            let read = history().read(forgetting, 10).unwrap();
            [read[0].plays(), read[1].plays()]
        };
        assert_eq!(plays(Forgetting::Never), [100.0, 50.0]);
        assert_eq!(plays(Forgetting::HalfLifeHours(10.0)), [50.0, 50.0]);
        assert_eq!(plays(Forgetting::WindowHours(10)), [0.0, 50.0]);
        assert_eq!(plays(Forgetting::WindowHours(11)), [100.0, 50.0]);
        assert_eq!(plays(Forgetting::WindowPlays(60)), [10.0, 50.0]);
        let halved = plays(Forgetting::HalfLifePlays(50.0));
        assert!(halved[0] < 50.0 && halved[1] < 50.0);
    }

    #[test]
    fn invalid_parameters_and_extremes() {
        assert!(history().read(Forgetting::HalfLifeHours(0.0), 0).is_err());
        assert!(
            history()
                .read(Forgetting::HalfLifePlays(f64::NAN), 0)
                .is_err()
        );
        assert!(
            history()
                .read(Forgetting::HalfLifeHours(1.0), i64::MAX)
                .is_ok()
        );
        assert!(
            history()
                .read(Forgetting::HalfLifeHours(1.0), i64::MIN)
                .is_ok()
        );
        let mut full = History::new(1);
        full.add(i64::MIN, 0, Counts::new(u64::MAX, 1).unwrap())
            .unwrap();
        assert!(full.add(i64::MIN, 0, Counts::new(1, 1).unwrap()).is_err());
        assert!(full.read(Forgetting::Never, i64::MAX).is_err());
        assert!(full.add(0, 1, Counts::default()).is_err());
    }
}
